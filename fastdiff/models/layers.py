"""Layers shared by the U-Nets, with the parameter names of NVlabs/edm so that its checkpoints load unchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from ..ops import group_norm_silu

#: Least number of pixels for which group_norm_silu is used.
FUSED_PIXELS = 256


def _initial(shape: Sequence[int], fan_in: int, fan_out: int, mode: str, gain: float) -> nn.Parameter:
    """A parameter drawn with the variance that `mode` prescribes, times `gain`."""
    distribution, _, law = mode.rpartition("_")
    if distribution not in ("xavier", "kaiming") or law not in ("uniform", "normal"):
        raise ValueError(f"init_mode: expected xavier_uniform, xavier_normal, kaiming_uniform or kaiming_normal, got {mode!r}")
    std = math.sqrt(2 / (fan_in + fan_out)) if distribution == "xavier" else math.sqrt(1 / fan_in)
    unit = torch.randn(*shape) if law == "normal" else (torch.rand(*shape) * 2 - 1) * math.sqrt(3)
    return nn.Parameter(unit * (std * gain))


class Linear(nn.Module):
    """y = x W^T + bias, computed in the dtype of x."""

    def __init__(self, in_features, out_features, bias=True, init_mode="kaiming_normal", init_weight=1, init_bias=0):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        fans = (in_features, out_features, init_mode)
        self.weight = _initial([out_features, in_features], *fans, init_weight)
        self.bias = _initial([out_features], *fans, init_bias) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nnf.linear(x, self.weight.to(x.dtype), bias)


class Conv2d(nn.Module):
    """A convolution preceded by an optional factor-2 resampling with a separable FIR filter.

    `kernel=0` resamples only. With `fused_resample` the filter and the convolution are applied in the order and with
    the padding of the original, which differs at the border.
    """

    def __init__(
        self, in_channels, out_channels, kernel, bias=True, up=False, down=False, resample_filter=(1, 1),
        fused_resample=False, init_mode="kaiming_normal", init_weight=1, init_bias=0,
    ):  # fmt: skip
        super().__init__()
        if up and down:
            raise ValueError("up, down: expected at most one to be true, got both")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.up = up
        self.down = down
        self.fused_resample = fused_resample
        fans = (in_channels * kernel**2, out_channels * kernel**2, init_mode)
        shape = [out_channels, in_channels, kernel, kernel]
        self.weight = _initial(shape, *fans, init_weight) if kernel else None
        self.bias = _initial([out_channels], *fans, init_bias) if kernel and bias else None
        taps = torch.as_tensor(resample_filter, dtype=torch.float32)
        taps = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
        self.register_buffer("resample_filter", taps if up or down else None)
        self.resample_filter: Tensor

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        pad = 0 if weight is None else weight.shape[-1] // 2
        fused = self.fused_resample and weight is not None
        if self.up:
            x = self._upsample(x, shrink=pad if fused else 0)
            pad = max(pad - self._filter_pad(), 0) if fused else pad
        elif self.down and not fused:
            x = self._downsample(x, self._filter_pad())
        if fused and self.down:
            assert weight is not None
            x = self._downsample(nnf.conv2d(x, weight, padding=pad + self._filter_pad()), 0)
            return x if bias is None else x + bias.reshape(1, -1, 1, 1)
        return x if weight is None else nnf.conv2d(x, weight, bias, padding=pad)

    def _filter_pad(self) -> int:
        return (self.resample_filter.shape[-1] - 1) // 2

    def _taps(self, x: Tensor) -> Tensor:
        return self.resample_filter.to(x.dtype).expand(x.shape[1], 1, -1, -1)

    def _upsample(self, x: Tensor, shrink: int) -> Tensor:
        padding = max(self._filter_pad() - shrink, 0)
        return nnf.conv_transpose2d(x, self._taps(x) * 4, groups=x.shape[1], stride=2, padding=padding)

    def _downsample(self, x: Tensor, padding: int) -> Tensor:
        return nnf.conv2d(x, self._taps(x), groups=x.shape[1], stride=2, padding=padding)


class GroupNorm(nn.Module):
    """Group normalization with at least `min_channels_per_group` channels in a group."""

    def __init__(self, num_channels, num_groups=32, min_channels_per_group=4, eps=1e-5):
        super().__init__()
        self.num_groups = min(num_groups, num_channels // min_channels_per_group)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, silu: bool = False) -> Tensor:
        """The norm of x, then *(1 + scale) + shift ([B, C] each) and SiLU where asked."""
        if _fused_is_faster(x):
            return group_norm_silu(x, self.weight, self.bias, self.num_groups, self.eps, scale=scale, shift=shift, silu=silu)
        # Under autocast the norm runs in float32: its parameters must not be rounded on the way.
        dtype = self.weight.dtype if torch.is_autocast_enabled(x.device.type) else x.dtype
        y = nnf.group_norm(x, self.num_groups, self.weight.to(dtype), self.bias.to(dtype), self.eps)
        if scale is not None:
            y = torch.addcmul(shift[:, :, None, None], y, scale[:, :, None, None] + 1)  # type: ignore[index]
        return nnf.silu(y) if silu else y


def _fused_is_faster(x: Tensor) -> bool:
    """Where the fused kernel beats PyTorch's (benchmarks/test_ops.py): large contiguous maps on the CPU, outside of torch.compile, which
    fuses by itself. On GPUs it is not measured yet, and not used."""
    large = x.dim() == 4 and x.shape[2] * x.shape[3] >= FUSED_PIXELS
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.is_contiguous()
    return large and plain and not torch.compiler.is_compiling()


def frequencies(num_channels: int, max_positions: float = 10000, endpoint: bool = False) -> Tensor:
    """[num_channels/2] geometric frequencies from 1 to 1/max_positions, the last included with `endpoint`."""
    half = num_channels // 2
    return (1 / max_positions) ** (torch.arange(half, dtype=torch.float32) / (half - int(endpoint)))


def waves(labels: Tensor, freqs: Tensor) -> Tensor:
    """[B] labels to [B, 2*F]: cosines, then sines, at the frequencies."""
    angles = torch.outer(labels, freqs.to(labels.dtype))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def given_classes(net: nn.Module, x: Tensor, class_labels: Tensor | None) -> Tensor:
    """[B, label_dim] or [1, label_dim] classes that a U-Net sees: zeros without any; while training, some samples' are dropped."""
    if class_labels is None:
        class_labels = x.new_zeros(1, net.map_label.in_features)  # type: ignore[union-attr, arg-type]
    if net.training and net.label_dropout:
        kept = torch.rand(x.shape[0], 1, device=x.device) >= net.label_dropout  # type: ignore[operator]
        class_labels = class_labels * kept.to(class_labels.dtype)
    return class_labels


class PositionalEmbedding(nn.Module):
    """[B] noise labels to [B, num_channels]: cosines, then sines, at geometric frequencies (DDPM++)."""

    def __init__(self, num_channels, max_positions=10000, endpoint=False):
        super().__init__()
        self.freqs: Tensor
        self.register_buffer("freqs", frequencies(num_channels, max_positions, endpoint), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        return waves(labels, self.freqs)


class FourierEmbedding(nn.Module):
    """[B] noise labels to [B, num_channels] at random frequencies, which the checkpoint holds (NCSN++)."""

    def __init__(self, num_channels, scale=16):
        super().__init__()
        self.freqs: Tensor
        self.register_buffer("freqs", torch.randn(num_channels // 2) * scale)

    def forward(self, labels: Tensor) -> Tensor:
        return waves(labels, 2 * math.pi * self.freqs)
