"""What `fastdiff eval` does: draw or open the images, compare them, and write the record and the picture."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._version import __version__
from ..commands._options import expect_range
from ..data import ImageData, open_data
from ..data.sources import SPLITS
from ..distributed import World, world
from ..figures import require_matplotlib
from ..files import check_writable, write_atomically
from ..guidance import ClassifierFree
from ..models import discriminator_guidance
from ..ode import ODESolver
from ..opening import Opened, open_discriminator, open_model
from ..samplers import EDMSampler
from .evaluate import METRICS, Draw, Evaluation, Reference, check_metrics, evaluate_images, reference_of, sample_source
from .features import FeatureExtractor, open_features
from .nll import NLL, nll, nll_table
from .picture import SHOWN, draw
from .statistics import Statistics


@dataclass(frozen=True)
class Request:
    """The options of `fastdiff eval`, named as there."""

    files: tuple[Path, ...] = ()
    model: str = "digits"
    weights: Path | None = None
    count: int = 1000
    blocks: int = 3
    seed: int = 0
    metrics: str | None = None
    data: str | None = None
    reference: Path | None = None
    stats_out: Path | None = None
    features: str = "digits"
    steps: int = 18
    solver: Any = "heun"
    s_churn: float = 0.0
    eps_scale: float = 1.0
    discriminator: str | None = None
    dg_weight: float = 2.0
    cfg: float = 1.0
    unconditional: bool = False
    with_nll: bool = False
    nll_count: int = 128
    nll_tol: float = 1e-4
    batch: int = 256
    device: str | None = None
    out: Path = Path("eval.json")

    def check(self) -> None:
        """Raise before anything is computed."""
        require_matplotlib()
        if self.picture == self.out:
            raise ValueError(f"--out: expected the name of the record, such as eval.json, got {self.out}")
        for path in filter(None, (self.out, self.picture, self.stats_out)):
            check_writable(path)
        for name, value, low in (
            ("-n", self.count, 0),
            ("--blocks", self.blocks, 1),
            ("--batch", self.batch, 1),
            ("--steps", self.steps, 1),
        ):
            expect_range(name, value, low, 10_000_000)
        if self.count == 1:
            raise ValueError("-n: expected 0, or at least 2 samples in a block, got 1")
        if self.files and (self.weights or self.with_nll):
            raise ValueError("FILES: expected neither --weights nor --nll beside ready samples, got one")
        if self.stats_out and self.reference and not self.data:
            raise ValueError("--stats-out: expected --data, whose statistics to write, got --reference alone")
        if self.count == 0 and not (self.stats_out or self.with_nll or self.files):
            raise ValueError("-n: expected samples, or --stats-out or --nll without any, got 0")

    @property
    def picture(self) -> Path:
        """The PNG beside the record."""
        return self.out.with_suffix(".png")

    @property
    def compares(self) -> bool:
        """Whether there are samples to compare."""
        return bool(self.files) or self.count > 0


def report(request: Request) -> None:
    """Do what is asked; the main process prints and writes.

    Raises:
        ValueError, OSError, ImportError: as one line says.
    """
    started = time.perf_counter()
    request.check()
    among = world(request.device)
    extractor = open_features(request.features, among.device)
    data = None if request.reference is not None and request.data is None else open_data(request.data or "digits")
    metrics = _metrics(request, data, extractor) if request.compares else []
    opened = None if request.files else open_model(request.model, request.weights, among.device)
    source, about = _files(request.files) if opened is None else _model(opened, request)
    reference = _reference(request, data, extractor, metrics, among)

    evaluation, likelihoods = None, []
    if request.compares and reference is not None:
        evaluation = evaluate_images(
            source, reference, extractor, n=about["n"], blocks=about["blocks"], batch=request.batch, metrics=metrics, shown=SHOWN,
            among=among, seed=request.seed,
        )  # fmt: skip
    if request.with_nll and opened is not None:
        likelihoods = _likelihoods(opened, request, among)
    if not among.is_main:
        return
    title = _title(evaluation, request)
    print(title)
    if evaluation:
        print(evaluation)
    if likelihoods:
        print(nll_table(likelihoods))
    if evaluation or likelihoods:
        record = {
            "command": "fastdiff " + shlex.join(sys.argv[1:]), **about, "seed": request.seed, "data": data.name if data else None,
            "reference": str(request.reference) if request.reference else None, "features": extractor.name,
            "evaluation": evaluation.record() if evaluation else None, "nll": [row.record() for row in likelihoods],
            "processes": among.size, "device": str(among.device), "seconds": round(time.perf_counter() - started, 2),
            "versions": _versions(),
        }  # fmt: skip
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        write_atomically(request.out, lambda file: file.write(text.encode()))
        draw(request.picture, title, _details(about, evaluation, data, request), evaluation, likelihoods)
        print(f"wrote {request.out} and {request.picture}")


def _metrics(request: Request, data: ImageData | None, extractor: FeatureExtractor) -> list[str]:
    possible = [name for name in METRICS if (data or name not in ("kid", "pr")) and (extractor.classes or name != "is")]
    wanted = possible if request.metrics is None else [name.strip() for name in request.metrics.split(",") if name.strip()]
    check_metrics(wanted, data is not None, extractor)
    return wanted


def _model(described: Opened, request: Request) -> tuple[Draw, dict[str, Any]]:
    """(a model's samples, what the record says of them)."""
    classes = 0 if request.unconditional else described.classes
    if request.cfg != 1 and not classes:
        raise ValueError("--cfg: expected a model with classes, without --unconditional, got none")
    sampler = EDMSampler(steps=request.steps, solver=request.solver, S_churn=request.s_churn, eps_scale=request.eps_scale)
    plan = sampler.plan(described.parametrization)
    free = ClassifierFree(request.cfg) if request.cfg != 1 else None
    guidance = None
    if request.discriminator is not None:
        device = next(described.net.parameters()).device
        guidance = discriminator_guidance(open_discriminator(request.discriminator, described, device), request.dg_weight)
    source = sample_source(described.net, described.shape, seed=request.seed, classes=classes, sampler=plan, cfg=free, guidance=guidance)
    about = {
        "model": request.model, "weights": str(request.weights) if request.weights else None, "sampler": plan.name,
        "network_calls": len(plan) * (2 if free else 1), "s_churn": request.s_churn, "eps_scale": request.eps_scale, "cfg": request.cfg,
        "discriminator": request.discriminator, "dg_weight": request.dg_weight if guidance else None,
        "conditional": bool(classes), "n": request.count, "blocks": request.blocks,
        "seeds": "sample i has the key Philox(seed; i), and the class key mod classes; a block holds the samples first .. last",
    }  # fmt: skip
    return source, about


def _files(files: Sequence[Path]) -> tuple[Draw, dict[str, Any]]:
    """(ready samples, each file a block; what the record says of them)."""
    opened = [open_data(path) for path in files]
    lengths = {len(images) for images in opened}
    if len(lengths) > 1:
        raise ValueError(f"FILES: expected as many samples in each, a block of the same size, got {', '.join(map(str, sorted(lengths)))}")
    n = lengths.pop()

    def source(index: Tensor) -> Tensor:
        block = int(index[0]) // n  # a batch never crosses blocks
        return opened[block].batch(index - block * n)[0]

    return source, {"files": [str(path) for path in files], "n": n, "blocks": len(opened)}


def _reference(
    request: Request, data: ImageData | None, extractor: FeatureExtractor, metrics: Sequence[str], among: World
) -> Reference | None:
    """Statistics from the file if there is one, features from the data; writes --stats-out."""
    given = None if request.reference is None else Statistics.load(request.reference)
    reads = request.stats_out is not None or (bool(metrics) and (given is None or "kid" in metrics or "pr" in metrics))
    if data is None or not reads:
        return None if given is None else Reference(given)
    found = reference_of(data, extractor, batch=request.batch, keep="kid" in metrics or "pr" in metrics, among=among)
    if request.stats_out is not None and among.is_main:
        found.statistics.save(request.stats_out)
        print(f"wrote {request.stats_out} ({extractor.name}, {len(data)} images)")
    return found if given is None else Reference(given, found.features)


def _likelihoods(opened: Opened, request: Request, among: World) -> list[NLL]:
    """log p(x), and log p(x | y) where there are classes, of both splits where the data have them."""
    rows = []
    for data in _splits(request.data or "digits"):
        both = opened.classes and data.classes == opened.classes
        for conditional in (False, True) if both else (False,):
            rows.append(
                nll(
                    opened.net, data, parametrization=opened.parametrization, model=request.model,
                    count=min(request.nll_count, len(data)), conditional=conditional, seed=request.seed,
                    batch=min(request.batch, 128), solver=ODESolver(request.nll_tol, request.nll_tol), among=among,
                )
            )  # fmt: skip
    return [row for row in rows if row is not None]


def _splits(source: str) -> list[ImageData]:
    name, _, split = source.rpartition(":")
    base = name if split in SPLITS else source
    try:
        return [open_data(f"{base}:test"), open_data(f"{base}:train")]
    except (ValueError, FileNotFoundError):  # a single set of images
        return [open_data(source)]


def _title(evaluation: Evaluation | None, request: Request) -> str:
    """The result in one sentence."""
    if evaluation is None:
        return f"{request.model}: likelihoods"
    blocks = evaluation.blocks
    n = blocks[0].last - blocks[0].first + 1
    what = f"{n} samples" if len(blocks) == 1 else f"{len(blocks)} blocks of {n} samples"
    row = evaluation.summary.get("fid")
    if row is None:
        return f"{what}, features {evaluation.features}"
    # FID is the name of the distance between Inception's features, and of nothing else.
    name = "FID" if evaluation.features.startswith("inception") else f"Fréchet distance of {evaluation.features}"
    spread = f", least {row['min']:.3g}, spread {row['spread']:.2g}" if len(blocks) > 1 else ""
    return f"{name}: {row['mean']:.3g}{spread} ({what})"


def _details(about: dict[str, Any], evaluation: Evaluation | None, data: ImageData | None, request: Request) -> str:
    """What the picture says below the samples."""
    if evaluation is None:
        return ""
    whose = f"{about['model']}, {about['sampler']}" if "model" in about else ", ".join(Path(name).name for name in about["files"])
    against = data.name if request.reference is None and data else Path(str(request.reference)).name
    count = "" if evaluation.reference is None else f", {evaluation.reference} images"
    return f"{whose}\nagainst {against}{count}\nfeatures {evaluation.features}"


def _versions() -> dict[str, str | None]:
    import importlib.metadata as metadata

    def installed(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {
        "fastdiff": __version__, "torch": torch.__version__, "torchmetrics": installed("torchmetrics"), "numpy": np.__version__,
        "python": platform.python_version(),
    }  # fmt: skip
