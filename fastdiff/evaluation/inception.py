"""The Inception network of the original FID (Szegedy et al. 2015 as TensorFlow shipped it on 2015-12-05), in PyTorch.

The tensors have the names of pytorch-fid's and torch-fidelity's `pt_inception-2015-12-05`. Three things differ from the Inception that
torchvision has: average pools leave the padding out of the mean, the last block pools with a maximum, and the images are resized
without moving to pixel centres: output pixel i is read at i*in/out.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

SIDE = 299
FEATURES, LOGITS = 2048, 1008


class Read(NamedTuple):
    """features: [B, 2048] after the last pool; logits: [B, 1008] without the bias, as the inception score takes them."""

    features: Tensor
    logits: Tensor


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU; `kernel` and `pad` are a number or (height, width)."""

    def __init__(self, inside: int, outside: int, kernel: int | tuple[int, int] = 1, pad: int | tuple[int, int] = 0, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return nnf.relu(self.bn(self.conv(x)))


def _mean_pool(x: Tensor) -> Tensor:
    return nnf.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class Square(nn.Module):
    """Branches of 1x1, 5x5 and twice 3x3 at 35x35."""

    def __init__(self, inside: int, pooled: int):
        super().__init__()
        self.branch1x1 = ConvNorm(inside, 64)
        self.branch5x5_1 = ConvNorm(inside, 48)
        self.branch5x5_2 = ConvNorm(48, 64, 5, pad=2)
        self.branch3x3dbl_1 = ConvNorm(inside, 64)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, pad=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, pad=1)
        self.branch_pool = ConvNorm(inside, pooled)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_mean_pool(x))], 1)


class HalveTo17(nn.Module):
    """From 35x35 to 17x17."""

    def __init__(self, inside: int):
        super().__init__()
        self.branch3x3 = ConvNorm(inside, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(inside, 64)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, pad=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, nnf.max_pool2d(x, 3, stride=2)], 1)


class Separable(nn.Module):
    """7x7 as 1x7 and 7x1, once and twice, at 17x17."""

    def __init__(self, inside: int, width: int):
        super().__init__()
        across: dict = dict(kernel=(1, 7), pad=(0, 3))
        down: dict = dict(kernel=(7, 1), pad=(3, 0))
        self.branch1x1 = ConvNorm(inside, 192)
        self.branch7x7_1 = ConvNorm(inside, width)
        self.branch7x7_2 = ConvNorm(width, width, **across)
        self.branch7x7_3 = ConvNorm(width, 192, **down)
        self.branch7x7dbl_1 = ConvNorm(inside, width)
        self.branch7x7dbl_2 = ConvNorm(width, width, **down)
        self.branch7x7dbl_3 = ConvNorm(width, width, **across)
        self.branch7x7dbl_4 = ConvNorm(width, width, **down)
        self.branch7x7dbl_5 = ConvNorm(width, 192, **across)
        self.branch_pool = ConvNorm(inside, 192)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(_mean_pool(x))], 1)


class HalveTo8(nn.Module):
    """From 17x17 to 8x8."""

    def __init__(self, inside: int):
        super().__init__()
        self.branch3x3_1 = ConvNorm(inside, 192)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(inside, 192)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7), pad=(0, 3))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1), pad=(3, 0))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, nnf.max_pool2d(x, 3, stride=2)], 1)


class Forked(nn.Module):
    """Branches that end in 1x3 beside 3x1, at 8x8; the last such block pools with a maximum."""

    def __init__(self, inside: int, last: bool = False):
        super().__init__()
        self.last = last
        across: dict = dict(kernel=(1, 3), pad=(0, 1))
        down: dict = dict(kernel=(3, 1), pad=(1, 0))
        self.branch1x1 = ConvNorm(inside, 320)
        self.branch3x3_1 = ConvNorm(inside, 384)
        self.branch3x3_2a = ConvNorm(384, 384, **across)
        self.branch3x3_2b = ConvNorm(384, 384, **down)
        self.branch3x3dbl_1 = ConvNorm(inside, 448)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, pad=1)
        self.branch3x3dbl_3a = ConvNorm(384, 384, **across)
        self.branch3x3dbl_3b = ConvNorm(384, 384, **down)
        self.branch_pool = ConvNorm(inside, 192)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = [self.branch3x3_2a(once), self.branch3x3_2b(once), self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        pooled = nnf.max_pool2d(x, 3, stride=1, padding=1) if self.last else _mean_pool(x)
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(pooled)], 1)


class InceptionV3(nn.Module):
    """Called with images [B, 1 or 3, H, W] in [-1, 1]. Returns Read."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, pad=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b = Square(192, 32)
        self.Mixed_5c = Square(256, 64)
        self.Mixed_5d = Square(288, 64)
        self.Mixed_6a = HalveTo17(288)
        self.Mixed_6b = Separable(768, 128)
        self.Mixed_6c = Separable(768, 160)
        self.Mixed_6d = Separable(768, 160)
        self.Mixed_6e = Separable(768, 192)
        self.Mixed_7a = HalveTo8(768)
        self.Mixed_7b = Forked(1280)
        self.Mixed_7c = Forked(2048, last=True)
        self.fc = nn.Linear(FEATURES, LOGITS)

    def forward(self, x: Tensor) -> Read:
        # The original takes grey levels g = 0 .. 255 as (g - 128)/128, after resizing.
        x = (resized(x.float(), SIDE) * 127.5 - 0.5) / 128
        x = x.expand(-1, 3, -1, -1)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(nnf.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(nnf.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        features = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
        return Read(features, features @ self.fc.weight.T)


def resized(x: Tensor, side: int) -> Tensor:
    """[B, C, H, W] to [B, C, side, side], bilinear as TensorFlow 1 does it: output pixel i lies at i*in/side, without antialiasing."""
    height, width = (_weights(size, side, x) for size in x.shape[2:])
    return torch.einsum("ih,bchw,jw->bcij", height, x, width)


def _weights(size: int, side: int, like: Tensor) -> Tensor:
    """[side, size]: the two neighbours of each output pixel."""
    at = torch.arange(side, device=like.device, dtype=like.dtype) * (size / side)
    low = at.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    weights = torch.zeros(side, size, device=like.device, dtype=like.dtype)
    row = torch.arange(side, device=like.device)
    share = at - low
    weights[row, low] += 1 - share
    weights[row, high] += share
    return weights


def load_inception(path: Path | str) -> InceptionV3:
    """The network in evaluation mode with the weights of a local file; nothing is ever downloaded.

    Args:
        path: a .safetensors file, or a .pth file such as pytorch-fid's pt_inception-2015-12-05-6726825d.pth, of which only
            tensors are read: a file that holds code is refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that cannot be read, or whose tensors are not this network's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"inception: no such file: {path}; expected a local copy of pt_inception-2015-12-05-6726825d.pth (pytorch-fid), "
            "or the same as safetensors"
        )
    net = InceptionV3()
    state = {name: tensor for name, tensor in _read(path).items() if not name.endswith("num_batches_tracked")}
    expected = {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, tensor in expected.items():
        got = list(state[name].shape) if name in state else "none"
        if got != list(tensor.shape):
            raise ValueError(f"inception: expected {name} of shape {list(tensor.shape)}, got {got} in {path}")
    if len(state) > len(expected):
        raise ValueError(f"inception: expected {len(expected)} tensors, got also {min(set(state) - set(expected))} in {path}")
    net.load_state_dict(state, strict=False)
    return net.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, Tensor]:
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"inception: expected a file of tensors and nothing else, got {path} ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"inception: expected a file of named tensors, got {path}")
    return state
