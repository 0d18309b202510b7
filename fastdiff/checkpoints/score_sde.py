"""Checkpoints of score_sde_pytorch (.pth): the averaged weights of DDPM++ and NCSN++, under the names of our SongUNet.

The original numbers its layers in one list; where residual blocks, attention and resampling lie in it says the architecture.
Attention there has query, key and value apart and as [in, out]: with one head, rows 3*c, 3*c + 1 and 3*c + 2 of ours are theirs at c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .found import Found, tensors

ATTENTION_RESOLUTION = 16  #: in all of the original's configurations
BETA_MIN, BETA_MAX = 0.1, 20.0


def matches(content: Any) -> bool:
    """Whether this is the content of a checkpoint file."""
    return isinstance(content, dict) and {"model", "ema"} <= set(content) and isinstance(content["ema"], dict)


def convert(content: Any, image_size: int | None = None) -> Found:
    """The averaged network of a checkpoint.

    Args:
        image_size: side of the images; default: what puts attention at 16 x 16, as the original's configurations do.

    Raises:
        ValueError: its tensors do not fit together; an image size that is needed and not given.
    """
    if not matches(content):
        raise ValueError(f"checkpoint: expected score_sde's dict with 'model' and 'ema', got {type(content).__name__}")
    state = averaged(content)
    about: dict[str, Any] = {"source": "score_sde"}
    if isinstance(content.get("step"), int):
        about["step"] = content["step"]
    try:
        layers = _layers(state)
        design = _Design(layers)
    except _OtherNetwork as error:
        return Found(None, state, about, f"the architecture has no class here ({error}); its tensors keep their names")
    size = image_size or design.image_size()
    spec, note = design.spec(size, state)
    return Found(spec, design.renamed(size, state), about, note)


def averaged(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors with the moving averages in place of the trained parameters."""
    model = tensors(content["model"], "the model's state_dict")
    state = {name.removeprefix("module."): tensor for name, tensor in model.items()}
    shadow = content["ema"].get("shadow_params")
    if not isinstance(shadow, (list, tuple)) or not all(isinstance(tensor, Tensor) for tensor in shadow):
        raise ValueError("checkpoint: expected the averages as tensors in ema['shadow_params'], got others")
    trained = [name for name in state if name not in ("sigmas", "all_modules.0.W")]  # a buffer, and frequencies without gradient
    if len(trained) != len(shadow):
        raise ValueError(f"checkpoint: expected {len(trained)} averaged tensors, as many as are trained, got {len(shadow)}")
    for name, tensor in zip(trained, shadow, strict=True):
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"checkpoint: expected the average of {name[:100]} of shape {list(state[name].shape)}, got {list(tensor.shape)}"
            )
        state[name] = tensor
    return state


class _OtherNetwork(Exception):
    """The layers are not those of a network that SongUNet can be."""


Layer = dict[str, Tensor]


def _layers(state: Mapping[str, Tensor]) -> list[Layer]:
    """The tensors of each layer of the list."""
    layers: dict[int, Layer] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"all_modules\.(\d{1,4})\.(.+)", name)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = tensor
        elif name != "sigmas":
            raise _OtherNetwork(f"the tensor {name[:50]}")
    if not layers or sorted(layers) != list(range(len(layers))):
        raise _OtherNetwork("no list of layers")
    return [layers[number] for number in range(len(layers))]


def _kind(layer: Layer) -> str:
    dimensions = {name: tensor.dim() for name, tensor in layer.items()}
    if dimensions == {"W": 1}:
        return "fourier"
    if set(dimensions) == {"weight", "bias"}:
        return {1: "norm", 2: "linear", 4: "conv"}.get(dimensions["weight"], "unknown")
    if dimensions == {"Conv_0.weight": 4, "Conv_0.bias": 1}:
        return "combine" if layer["Conv_0.weight"].shape[-1] == 1 else "unknown"
    if dimensions == {"Conv2d_0.weight": 4, "Conv2d_0.bias": 1}:
        return "residual_input"
    prefixes = {name.split(".")[0] for name in layer}
    if prefixes == {"GroupNorm_0", "NIN_0", "NIN_1", "NIN_2", "NIN_3"}:
        return "attention"
    if prefixes - {"Conv_2"} == {"GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1"}:
        return "block"
    return "unknown"


class _Design:
    """The architecture, and the name of each layer: what the walk through the list finds.

    Attributes:
        names: (template of our name, layer, its copier), with {0}, {1}, ... for the side at level 0, 1, ...
    """

    def __init__(self, layers: list[Layer]):
        self.layers = layers
        self.kinds = [_kind(layer) for layer in layers]
        self.at = 0
        self.names: list[tuple[int, str, Layer, Callable[[str, Layer], Layer]]] = []
        self.attention: list[int] = []
        self.mult: list[int] = []
        self.encoder = self.decoder = "standard"
        self.fourier = self.kinds[0] == "fourier"
        self._walk()

    def _walk(self) -> None:
        if self.fourier:
            self._take("fourier", -1, "map_noise", lambda name, layer: {f"{name}.freqs": layer["W"]})
        first = self._take("linear", -1, "map_layer0", _same)
        self._take("linear", -1, "map_layer1", _same)
        self.channels = first["weight"].shape[0] // 4
        self.noise_channels = first["weight"].shape[1]
        self.image_channels = self._take("conv", 0, "enc.{}_conv", _same)["weight"].shape[1]
        resampling = [number for number in range(len(self.layers)) if self._resamples(number)]
        self.deepest = len(resampling) // 2
        self.depth = self._depth(resampling)
        for level in range(self.deepest + 1):
            if level:
                self._down(level)
            for index in range(self.depth):
                layer = self._block(level, f"enc.{{}}_block{index}", attention=None)
            self.mult.append(layer["Conv_0.weight"].shape[0] // self.channels)
        self._block(self.deepest, "dec.{}_in0", attention=True)
        self._block(self.deepest, "dec.{}_in1", attention=False)
        for level in range(self.deepest, -1, -1):
            if level < self.deepest:
                self._block(level, "dec.{}_up", attention=False)
            for index in range(self.depth + 1):
                last = index == self.depth
                self._block(level, f"dec.{{}}_block{index}", attention=last and level in self.attention)
            self._head(level)
        if self.at != len(self.layers):
            raise _OtherNetwork(f"{len(self.layers) - self.at} layers too many")

    def _resamples(self, number: int) -> bool:
        """A block that keeps its channels and yet projects its input."""
        layer = self.layers[number]
        return (
            self.kinds[number] == "block"
            and "Conv_2.weight" in layer
            and layer["Conv_0.weight"].shape[0] == layer["Conv_0.weight"].shape[1]
        )

    def _depth(self, resampling: list[int]) -> int:
        """Blocks of a level: those before the first that resamples."""
        end = resampling[0] if resampling else len(self.layers)
        blocks = self.kinds[:end].count("block")
        if not resampling:  # both ways and the two in the middle
            blocks, odd = divmod(blocks - 3, 2)
            if odd:
                raise _OtherNetwork("an even number of blocks")
        if blocks < 1:
            raise _OtherNetwork("no blocks")
        return blocks

    def _down(self, level: int) -> None:
        if not self._resamples(self.at):
            raise _OtherNetwork(f"layer {self.at} halves no resolution")
        self._block(level, "enc.{}_down", attention=False)
        if self._next() == "combine":
            self.encoder = "skip"
            self._take("combine", level, "enc.{}_aux_skip", _stripped("Conv_0."))
        elif self._next() == "residual_input":
            self.encoder = "residual"
            self._take("residual_input", level, "enc.{}_aux_residual", _stripped("Conv2d_0."))

    def _head(self, level: int) -> None:
        """Norm and convolution to an image: at every level where the output is a sum of images, else at the first one only."""
        if self._next() == "norm":
            if level:
                self.decoder = "skip"
            self._take("norm", level, "dec.{}_aux_norm", _same)
            self._take("conv", level, "dec.{}_aux_conv", _same)

    def _block(self, level: int, name: str, attention: bool | None) -> Layer:
        """A residual block, with the attention that it must have, or may have (None)."""
        layer = self._take("block", level, name, _block)
        if attention is None:
            attention = self._next() == "attention"
            if attention and level not in self.attention:
                self.attention.append(level)
        if attention:
            self._take("attention", level, name, _attention)
        return layer

    def _next(self) -> str:
        return self.kinds[self.at] if self.at < len(self.kinds) else "end"

    def _take(self, kind: str, level: int, name: str, copy: Callable[[str, Layer], Layer]) -> Layer:
        if self._next() != kind:
            raise _OtherNetwork(f"layer {self.at} is {self._next()} and not {kind}")
        layer = self.layers[self.at]
        self.at += 1
        self.names.append((level, name, layer, copy))
        return layer

    def image_size(self) -> int:
        """The side that puts attention where the original's configurations have it."""
        if len(self.attention) != 1:
            raise ValueError(
                f"image_size: expected the side of the images (--image-size), got none and attention at {len(self.attention)} levels"
            )
        return ATTENTION_RESOLUTION << self.attention[0]

    @property
    def filter(self) -> list[int]:
        """FIR resampling goes with a progressive input in all of the original's configurations."""
        return [1, 1] if self.encoder == "standard" else [1, 3, 3, 1]

    def spec(self, size: int, state: Mapping[str, Tensor]) -> tuple[Any, str]:
        """(the network's Spec, what was assumed)."""
        from ..models.registry import Spec

        arguments: dict[str, Any] = {
            "img_resolution": size, "img_channels": self.image_channels, "model_type": "SongUNet", "model_channels": self.channels,
            "channel_mult": list(self.mult), "num_blocks": self.depth, "attn_resolutions": [size >> level for level in self.attention],
            "embedding_type": "fourier" if self.fourier else "positional", "channel_mult_noise": self.noise_channels // self.channels,
            "encoder_type": self.encoder, "decoder_type": self.decoder, "resample_filter": self.filter,
        }  # fmt: skip
        if not self.fourier:
            note = "taken as a network of the continuous VP SDE: nothing in the file tells it from one of sub-VP or of discrete levels"
            return Spec("VPPrecond", arguments | {"beta_d": BETA_MAX - BETA_MIN, "beta_min": BETA_MIN}), note
        sigmas = state.get("sigmas")
        if sigmas is not None and sigmas.numel() and bool(torch.isfinite(sigmas).all()):  # of images in [0, 1]; ours are in [-1, 1]
            arguments |= {"sigma_min": 2 * float(sigmas.min()), "sigma_max": 2 * float(sigmas.max())}
        return Spec("VEPrecond", arguments), "taken as a network of the continuous VE SDE, with noise levels doubled for images in [-1, 1]"

    def renamed(self, size: int, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors under our names, and the resampling filters, which the original has in its code."""
        taps = torch.tensor(self.filter, dtype=torch.float32)
        taps = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
        found: dict[str, Tensor] = {}
        for level, name, layer, copy in self.names:
            side = size >> max(level, 0)
            ours = f"model.{name.format(f'{side}x{side}')}"
            found |= copy(ours, layer)
            if name.endswith(("_down", "_up")):
                found |= {f"{ours}.conv0.resample_filter": taps, f"{ours}.skip.resample_filter": taps}
            if name.endswith("_aux_residual"):
                found[f"{ours}.resample_filter"] = taps
            if name.endswith("_aux_skip"):
                found[f"{ours.removesuffix('skip')}down.resample_filter"] = taps
            if name.endswith("_aux_norm") and self.decoder == "skip" and level < self.deepest:
                found[f"{ours.removesuffix('norm')}up.resample_filter"] = taps
        return found


def _same(name: str, layer: Layer) -> Layer:
    return {f"{name}.{key}": tensor for key, tensor in layer.items()}


def _stripped(prefix: str) -> Callable[[str, Layer], Layer]:
    return lambda name, layer: {f"{name}.{key.removeprefix(prefix)}": tensor for key, tensor in layer.items()}


_BLOCK = {"GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine", "GroupNorm_1": "norm1", "Conv_1": "conv1", "Conv_2": "skip"}


def _block(name: str, layer: Layer) -> Layer:
    pairs = ((key.split(".", 1), tensor) for key, tensor in layer.items())
    return {f"{name}.{_BLOCK[part]}.{rest}": tensor for (part, rest), tensor in pairs}


def _attention(name: str, layer: Layer) -> Layer:
    try:
        weights = [layer[f"NIN_{i}.W"].T for i in range(4)]
        biases = [layer[f"NIN_{i}.b"] for i in range(4)]
        return {
            f"{name}.norm2.weight": layer["GroupNorm_0.weight"],
            f"{name}.norm2.bias": layer["GroupNorm_0.bias"],
            f"{name}.qkv.weight": torch.stack(weights[:3], dim=1).flatten(0, 1)[:, :, None, None],
            f"{name}.qkv.bias": torch.stack(biases[:3], dim=1).flatten(),
            f"{name}.proj.weight": weights[3][:, :, None, None],
            f"{name}.proj.bias": biases[3],
        }
    except (KeyError, RuntimeError, IndexError) as error:
        raise ValueError(f"checkpoint: expected query, key and value of attention at {name}, got others") from error
