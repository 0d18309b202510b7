"""Networks of NVlabs/edm by the name of a shipped model, a native checkpoint or a published .pkl, which nothing executes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...checkpoints import edm, read
from ...checkpoints.native import check_state
from ...models import build
from ...models.precond import Precond
from ...opening import Opened, open_discriminator, open_model
from ...parametrizations import parametrization_of
from ...samplers import EDMSampler
from .classifier_lib import load_published


def open_network(source: str, device: torch.device | str = "cpu") -> Opened:
    """A network with img_channels, img_resolution, label_dim and round_sigma, as edm_sampler takes it.

    Args:
        source: a name that `fastdiff models` lists, a checkpoint of `fastdiff train` or `fastdiff convert`, or an NVlabs/edm .pkl, of
            which the averaged network's tensors and arguments are read and no code; device: where it goes.

    Raises:
        ValueError: a URL, another name, a damaged file, or a network of another kind; OSError: the file cannot be read.
    """
    if source.startswith(("http://", "https://")):
        raise ValueError(f"--network: expected a name or a local file (nothing is downloaded), got {source}")
    opened = _open_pickle(Path(source), device) if source.endswith(".pkl") else open_model(source, device=device)
    if not isinstance(opened.net, Precond):
        raise ValueError(f"--network: expected a denoiser with EDM's preconditioning, got a {type(opened.net).__name__} in {source}")
    return opened


def open_teller(extractor: Path | None, source: str, network: Opened, device: torch.device | str = "cpu") -> Any:
    """The discriminator of DG's two .pt files, or without an extractor a shipped one's name or a native checkpoint.

    Raises:
        ValueError: it does not fit the network, or as `open_network`; OSError: a file cannot be read.
    """
    if extractor is None:
        return open_discriminator(source, network, device)
    net = load_published(extractor, source, network.shape[-1], device)
    if net.head.condition and not network.classes:
        raise ValueError("--discriminator_ckpt: expected an unconditional one for a network without classes, got a conditional one")
    return net


def _open_pickle(path: Path, device: torch.device | str) -> Opened:
    found = edm.convert(read(path))
    if found.spec is None:
        raise ValueError(f"--network: expected a network that is here, got {path} ({found.note})")
    check_state(found.spec, found.state, str(path))
    net: Any = build(found.spec)
    net.load_state_dict(found.state)
    net.eval().requires_grad_(False).to(device)
    shape = (net.img_channels, net.img_resolution, net.img_resolution)
    return Opened(net, parametrization_of(net, "D"), shape, net.label_dim, EDMSampler())
