"""Weights of guided-diffusion and of discriminator guidance (.pt): plain state dicts, whose network is inferred from names and shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .found import Found, tensors

HEAD_CHANNELS = 64  #: guided-diffusion's default for classifiers; no shape says it
NAMES = {"time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight"}  #: in each of its networks
CHANNEL_MULT = {
    512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4), 32: (1, 2, 4), 16: (1, 2), 8: (1,),
}  # fmt: skip


def matches(content: Any) -> bool:
    """Whether this is a state dict of one of guided-diffusion's networks."""
    return isinstance(content, dict) and set(content) >= NAMES


def is_discriminator(content: Any) -> bool:
    """Whether this is the head of discriminator guidance, which takes an encoder's features and gives one number."""
    return matches(content) and "out.2.c_proj.weight" in content and len(content["out.2.c_proj.weight"]) == 1


def convert(content: Any, image_size: int | None = None, head_channels: int | None = None) -> Found:
    """The network of a state dict.

    Args:
        image_size: side of its input, where no shape says it; head_channels: of an attention head, default 64.

    Raises:
        ValueError: names or shapes that belong to none of the networks, or that leave an argument open.
    """
    from ..models.registry import Spec

    state = tensors(content, "a state dict of guided-diffusion")
    if not matches(state):
        raise ValueError("checkpoint: expected a state dict of guided-diffusion, got one of other names")
    if any(name.startswith("output_blocks.") for name in state):
        note = "the U-Net of guided-diffusion has no class here; its tensors keep their names"
        return Found(None, state, {"source": "guided-diffusion"}, note)
    pool = _pool(state)
    if pool.startswith("spatial"):
        return Found(None, state, {"source": "guided-diffusion"}, f"the pooling {pool!r} has no class here; the tensors keep their names")
    return Found(Spec("ADMEncoder", encoder_arguments(state, pool, image_size, head_channels)), state, {"source": "guided-diffusion"})


def convert_discriminator(content: Any, extractor: Any = None, image_size: int | None = None, head_channels: int | None = None) -> Found:
    """The discriminator of EDM-G++: its head, with the encoder of its features where that is given.

    Args:
        content: state dict of the head; extractor: state dict of the encoder, image_size and head_channels are its.

    Raises:
        ValueError: as convert.
    """
    from ..models.registry import Spec

    head = convert(content, head_channels=head_channels)
    if head.spec is None:
        raise ValueError("checkpoint: expected a discriminator's head, got a network without attention pooling")
    if extractor is None:
        note = "this is the head alone; with --extractor, the encoder of its features, it becomes a Discriminator"
        return Found(head.spec, head.state, {"source": "dg"}, note)
    encoder = convert(extractor, image_size, head_channels)
    if encoder.spec is None:
        raise ValueError("extractor: expected an encoder of guided-diffusion, got another network")
    side = encoder.spec.arguments["image_size"]
    # DG pairs the 64x64 encoder, trained on the cosine schedule, with that schedule's time; its others are of the VP SDE.
    arguments = {"extractor": encoder.spec.arguments, "head": head.spec.arguments, "time": "cosine" if side == 64 else "linear"}
    state = {f"extractor.{name}": tensor for name, tensor in encoder.state.items()} | {f"head.{k}": v for k, v in head.state.items()}
    return Found(Spec("Discriminator", arguments), state, {"source": "dg"})


def encoder_arguments(state: Mapping[str, Tensor], pool: str, image_size: int | None, head_channels: int | None) -> dict[str, Any]:
    """Arguments of an ADMEncoder with these tensors.

    Raises:
        ValueError: the shapes are not such a network's, or they leave its levels or its image size open.
    """
    width = _shape(state, "time_embed.0.weight", 2)[1]
    blocks = _blocks(state)
    expanded = _shape(state, "middle_block.0.emb_layers.1.weight", 2)[0]
    channels = _shape(state, "middle_block.0.in_layers.2.weight", 4)[0]
    side = None
    if pool == "attention":
        side = math.isqrt(max(_shape(state, "out.2.positional_embedding", 2)[1] - 1, 0))
    levels = _levels(blocks, width, side, image_size)
    found = image_size or (side << len(levels.mult) - 1 if side else None)
    if found is None:
        sizes = [size for size, mult in CHANNEL_MULT.items() if mult == levels.mult]
        if len(sizes) != 1:
            raise ValueError(
                f"image_size: expected the side of the images (--image-size), got none, and channel_mult {levels.mult} does not say it"
            )
        found = sizes[0]
    arguments = {
        "image_size": found,
        "in_channels": _shape(state, "input_blocks.0.0.weight", 4)[1],
        "model_channels": width,
        "out_channels": _shape(state, "out.2.c_proj.weight" if pool == "attention" else "out.3.weight")[0],
        "num_res_blocks": levels.depth,
        "attention_resolutions": levels.attention,
        "channel_mult": levels.mult,
        "num_head_channels": head_channels or HEAD_CHANNELS,
        "use_scale_shift_norm": expanded == 2 * channels,
        "resblock_updown": levels.residual,
        "pool": pool,
    }
    if not levels.residual and not levels.convolved:
        arguments["conv_resample"] = False
    if "label_emb.weight" in state:
        arguments |= {"condition": True, "num_class": _shape(state, "label_emb.weight", 2)[0]}
    return arguments


@dataclass(frozen=True)
class _Block:
    """An input block: kind "residual", "convolution" or "pooling"; channels in and out; whether attention follows."""

    kind: str
    cin: int
    cout: int
    attention: bool


@dataclass(frozen=True)
class _Levels:
    depth: int
    mult: tuple[float, ...]
    attention: tuple[int, ...]
    residual: bool
    convolved: bool


def _blocks(state: Mapping[str, Tensor]) -> list[_Block]:
    numbers = {
        int(part) for name in state if name.startswith("input_blocks.") and (part := name.split(".")[1]).isdecimal() and len(part) < 5
    }
    channels = _shape(state, "input_blocks.0.0.weight", 4)[0]
    found = []
    for number in range(1, max(numbers) + 1):
        prefix = f"input_blocks.{number}"
        if number not in numbers:  # pooling has no tensors
            found.append(_Block("pooling", channels, channels, False))
            continue
        kind = "convolution" if f"{prefix}.0.op.weight" in state else "residual"
        cout, cin, *_ = _shape(state, f"{prefix}.0.{'op' if kind == 'convolution' else 'in_layers.2'}.weight", 4)
        found.append(_Block(kind, cin, cout, f"{prefix}.1.qkv.weight" in state))
        channels = cout
    return found


def _levels(blocks: list[_Block], width: int, side: int | None, image_size: int | None) -> _Levels:
    """Levels of `depth` blocks with a block between that halves the resolution, wherever such a division fits."""
    count = len(blocks) + 1
    fits = [found for levels in range(1, count + 1) if count % levels == 0 and (found := _divided(blocks, levels, width)) is not None]
    if len(fits) > 1:
        usual = [f for f in fits if CHANNEL_MULT.get(image_size or (side or 0) << len(f.mult) - 1) == f.mult]
        fits = usual or fits
    if image_size and side and len(fits) > 1:
        fits = [f for f in fits if side << len(f.mult) - 1 == image_size]
    if len(fits) != 1:
        what = "leave its levels open" if fits else "fit none"
        raise ValueError(f"checkpoint: expected the blocks of an encoder, got {len(blocks)} that {what}")
    return fits[0]


def _divided(blocks: list[_Block], levels: int, width: int) -> _Levels | None:
    depth = (len(blocks) + 1) // levels - 1
    if depth < 1:
        return None
    mult, attention, downs = [], [], []
    for level in range(levels):
        first = level * (depth + 1)
        part, down = blocks[first : first + depth], blocks[first + depth : first + depth + 1]
        alike = {(block.kind, block.cout, block.attention) for block in part}
        if len(alike) != 1 or part[0].kind != "residual" or any(block.cin != block.cout for block in part[1:]):
            return None
        if any(block.cin != block.cout or block.attention for block in down):
            return None
        share = part[0].cout / width
        mult.append(int(share) if share == int(share) else share)
        attention += [1 << level] * part[0].attention
        downs += [block.kind for block in down]
    if len(set(downs)) > 1:
        return None
    kind = downs[0] if downs else "residual"
    return _Levels(depth, tuple(mult), tuple(attention), kind == "residual", kind == "convolution")


def _pool(state: Mapping[str, Tensor]) -> str:
    if "out.2.positional_embedding" in state:
        return "attention"
    if "out.0.weight" in state and state["out.0.weight"].dim() == 1:
        return "adaptive"
    return "spatial" if "out.2.weight" in state else "spatial_v2"


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int | None = None) -> list[int]:
    if name not in state or state[name].dim() != (dimensions or state[name].dim()) or 0 in state[name].shape or not state[name].dim():
        raise ValueError(f"checkpoint: expected the tensor {name} of {dimensions or 'some'} dimensions, got none such")
    return list(state[name].shape)
