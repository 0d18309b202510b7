"""Writers of checkpoints in the formats of the original code bases, from networks and tensors of ours."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

SOURCE = "import pathlib\npathlib.Path({marker!r}).touch()\nraise SystemExit('executed')\n"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a reader must not call this")


class EasyDict(dict):
    """The dict of NVlabs' configurations."""


class Persistent:
    """An instance of a class that NVlabs' `persistence` decorates: pickled as a dict with its module's source and its state."""

    def __init__(self, class_name: str, source: str, state: dict[str, Any]):
        self.class_name = class_name
        self.source = source
        self.state = state

    def __reduce__(self):
        meta = dict(type="class", version=6, module_src=self.source, class_name=self.class_name, state=self.state)
        return _reconstruct_persistent_obj, (meta,), None


@contextlib.contextmanager
def nvlabs_modules() -> Iterator[None]:
    """The names that a pickle of NVlabs holds, importable while one is written."""
    modules = {name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")}
    for module, value in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        setattr(modules[module], value.__name__, value)
    before = _reconstruct_persistent_obj.__module__
    sys.modules.update(modules)
    _reconstruct_persistent_obj.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"
    try:
        yield
    finally:
        _reconstruct_persistent_obj.__module__ = EasyDict.__module__ = before
        for name in modules:
            del sys.modules[name]


def persistent(module: nn.Module, source: str, keywords: dict[str, Any] | None = None) -> Any:
    """A module as NVlabs pickles it: classes of torch stay what they are, others carry their source and arguments."""
    children = {name: None if child is None else persistent(child, source) for name, child in module._modules.items()}
    if type(module).__module__.startswith("torch.nn.modules."):
        container = type(module)()
        container._modules = children
        return container
    state = {**module.__dict__, "_modules": children, "_init_args": (), "_init_kwargs": keywords or {}}
    if "skip_scale" in state:
        state["skip_scale"] = np.sqrt(0.5)  # NVlabs computes it with NumPy
    return Persistent(type(module).__name__, source, state)


def edm_pickle(net: nn.Module, keywords: dict[str, Any], marker: Path, protocol: int = 4, **more: Any) -> bytes:
    """A network snapshot of NVlabs/edm; its sources would create the marker if anyone ran them."""
    source = SOURCE.format(marker=str(marker))
    data = dict(
        ema=persistent(net.eval().requires_grad_(False), source, keywords),
        loss_fn=Persistent("EDMLoss", source, dict(P_mean=-1.2, P_std=1.2, sigma_data=0.5)),
        augment_pipe=Persistent("AugmentPipe", source, dict(p=0.12, xflip=1e8, wavelet=np.arange(6, dtype=np.float32).reshape(2, 3))),
        dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path="cifar.zip", more=EasyDict(resolution=32)),
        **more,
    )
    with nvlabs_modules():
        return pickle.dumps(data, protocol=protocol)


def torch_bytes(value: Any, legacy: bool = False) -> bytes:
    """torch.save, as a zip archive or in the format before torch 1.6."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def score_sde_content(tensors: dict[str, torch.Tensor], not_averaged: list[str], step: int = 600001) -> dict[str, Any]:
    """A checkpoint of score_sde whose averages are the tensors, and whose trained parameters are something else."""
    trained = [name for name in tensors if name not in not_averaged]
    model = {f"module.{name}": tensor if name in not_averaged else tensor + 1 for name, tensor in tensors.items()}
    states = {i: dict(step=step, exp_avg=torch.zeros_like(tensors[name])) for i, name in enumerate(trained[:3])}
    optimizer = dict(state=states, param_groups=[dict(lr=2e-4, betas=(0.9, 0.999), params=list(range(len(trained))))])
    shadow = [tensors[name].clone() for name in trained]
    return dict(optimizer=optimizer, model=model, ema=dict(decay=0.9999, num_updates=step, shadow_params=shadow), step=step)
