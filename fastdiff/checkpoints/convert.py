"""From a foreign checkpoint to a native one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from . import edm, guided_diffusion, score_sde
from .found import Found
from .native import Native, check_state, save_network
from .torch_file import read

Kind = Literal["edm", "guided-diffusion", "dg", "score_sde"]
KINDS = get_args(Kind)


@dataclass(frozen=True)
class Report:
    """What was found and written.

    Attributes:
        kind: format of the source; network: class of the network, None where there is none here.
        parameters, tensors: numbers of values and of tensors; files: what was written; note: what a person should know.
    """

    source: Path
    kind: str
    network: str | None
    parameters: int
    tensors: int
    files: Native
    note: str

    def __str__(self) -> str:
        network = self.network or "none (tensors only)"
        lines = [
            f"{self.source}: {self.kind}",
            f"network   {network}, {self.parameters:,} values in {self.tensors} tensors",
            f"wrote     {self.files.weights}, {self.files.config}",
        ]
        return "\n".join([*lines, f"note      {self.note}"] if self.note else lines)


def convert(
    source: Path | str, out: Path | str, kind: Kind | Literal["auto"] = "auto", *, image_size: int | None = None,
    head_channels: int | None = None, extractor: Path | str | None = None,
) -> Report:  # fmt: skip
    """Read a checkpoint of another code base without executing anything in it, and write it natively.

    Args:
        source: an NVlabs/edm pickle, a guided-diffusion or DG .pt, or a score_sde .pth; out: see save_network.
        kind: the source's format; "auto" recognizes it by its content.
        image_size: side of the images, where the weights do not say it; head_channels: of guided-diffusion's attention, default 64.
        extractor: for a DG discriminator, the .pt of the encoder of its features; both become one network.

    Raises:
        ValueError: a file that names anything but tensors and containers, which the message says, is damaged, or is of another format.
        OSError: a file cannot be read or written.
    """
    source = Path(source)
    if kind not in ("auto", *KINDS):
        raise ValueError(f"kind: expected auto, {', '.join(KINDS)}, got {kind!r}")
    for name, value in (("image_size", image_size), ("head_channels", head_channels)):
        if value is not None and not 1 <= value <= 65536:
            raise ValueError(f"{name}: expected an integer from 1 to 65536, got {value}")
    content = read(source)
    found_kind = recognize(content, str(source)) if kind == "auto" else kind
    features = None if extractor is None else read(extractor)
    try:
        found = _found(found_kind, content, image_size, head_channels, features)
    except (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"checkpoint: expected the tensors of {found_kind}, got others in {source} ({str(error)[:200]})") from error
    limit = source.stat().st_size + (0 if extractor is None else Path(extractor).stat().st_size)
    size = sum(tensor.numel() * tensor.element_size() for tensor in found.state.values())
    if size > limit:
        raise ValueError(f"checkpoint: expected at most {limit} bytes of tensors, the file's size, got {size} in {source}")
    if found.spec is not None:
        check_state(found.spec, found.state, str(source))
    files = save_network(out, found.spec, found.state, found.about | {"file": source.name})
    network = None if found.spec is None else found.spec.network
    count = sum(tensor.numel() for tensor in found.state.values())
    return Report(source, found_kind, network, count, len(found.state), files, found.note)


def recognize(content: Any, file: str) -> Kind:
    """Which code base wrote the content.

    Raises:
        ValueError: none of those known.
    """
    if edm.matches(content):
        return "edm"
    if score_sde.matches(content):
        return "score_sde"
    if guided_diffusion.is_discriminator(content):
        return "dg"
    if guided_diffusion.matches(content):
        return "guided-diffusion"
    what = f"a dict with {', '.join(repr(str(k)[:40]) for k in list(content)[:4])}" if isinstance(content, dict) else type(content).__name__
    raise ValueError(f"checkpoint: expected one of {', '.join(KINDS)}, got {what} in {file}")


def _found(kind: str, content: Any, image_size: int | None, head_channels: int | None, extractor: Any) -> Found:
    if extractor is not None and kind != "dg":
        raise ValueError(f"extractor: expected a discriminator of DG with it, got {kind}")
    if kind == "edm":
        return edm.convert(content)
    if kind == "score_sde":
        return score_sde.convert(content, image_size)
    if kind == "dg":
        return guided_diffusion.convert_discriminator(content, extractor, image_size, head_channels)
    return guided_diffusion.convert(content, image_size, head_channels)
