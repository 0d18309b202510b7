"""The training loop. A step is a pure function of the seed, the images seen and the weights, so a killed run resumes bit for bit."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoints import load_network, save_network
from ..distributed import World, world
from ..models import EXTRACTORS, MODELS, Discriminator, load_extractor, load_model
from ..sampling import sample
from .batches import Batch, batches, source_of
from .checks import check_fit
from .config import TrainConfig
from .ema import Average, keep
from .journal import Journal
from .objectives import OBJECTIVES, Denoise, Objective, sampler_for
from .order import seed_of
from .state import check_run, load_state, save_state, write_config

GRID = 64


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and what to change."""


def train(
    config: TrainConfig, folder: Path | str, *, device: str | None = None, progress: bool | None = None,
    announce: Callable[[str], object] = lambda text: None,
) -> Path:  # fmt: skip
    """Train, or go on with, the run in a folder; under torchrun on all its processes.

    Args:
        config: what to train.
        folder: of the run: config.json, state.pt, network.safetensors with network.json (the averaged weights), log.jsonl, pictures,
            tensorboard's events.
        device: "cpu" or "cuda"; default: a GPU if there is one. progress: show a bar; default: only on a terminal.
        announce: called on the main process with what begins and what was written, for people.

    Returns:
        The path of the averaged network, for `fastdiff.checkpoints.load_network`.

    Raises:
        TrainingError: the loss is no number any more.
        ValueError, OSError: name what was expected and what came.
    """
    place = world(device)
    folder = Path(folder)
    if config.batch % (place.size * config.accumulate):
        raise ValueError(f"batch: expected a multiple of {place.size} processes times {config.accumulate} parts, got {config.batch}")
    check_run(folder, config)
    run = _Run(config, folder, place)
    if place.is_main:
        write_config(folder, config)
        parameters = sum(p.numel() for p in run.objective.net.parameters())
        at = f", from image {run.images:,} on" if run.images else ""
        announce(
            f"{config.network}, {parameters / 1e6:.2f} M parameters, {config.images:,} images in batches of {config.batch}{at} -> {folder}"
        )
    place.wait()
    path = run.run(progress)
    if place.is_main:
        announce(f"wrote {path}")
    return path


class _Run:
    """The moving parts of a run."""

    def __init__(self, config: TrainConfig, folder: Path, place: World) -> None:
        self.config, self.folder, self.world = config, folder, place
        self.source = source_of(config)
        check_fit(config, self.source.shape, self.source.classes, self.source.labels)
        torch.manual_seed(seed_of(config.seed, 0))
        objective = OBJECTIVES[config.task](config, self.source.shape, self.source.classes)
        if isinstance(objective.net, Discriminator):
            _copy_weights("extractor", _extractor(config.extractor), objective.net.extractor, config.extractor)
        if config.start:
            start = load_model(config.start) if config.start in MODELS else load_network(config.start)
            _copy_weights("start", start, objective.net, config.start)
        if config.channels_last and len(self.source.shape) == 3:
            objective = objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective: Objective = objective.to(place.device).train()
        self.average = Average(self.objective.net)
        self.parameters = [p for p in self.objective.parameters() if p.requires_grad]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        self.optimizer = kind(
            self.parameters, lr=config.lr, betas=tuple(config.betas), eps=config.adam_eps, weight_decay=config.weight_decay, fused=True
        )  # type: ignore[arg-type]
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=config.precision == "fp16")
        self.images = 0
        self.total = torch.zeros(2, dtype=torch.float64, device=place.device)  # of the loss since the last line of the log, and how many
        self._resume()
        self.model: nn.Module = self.objective
        if config.compile:
            self.model = torch.compile(self.objective, dynamic=False)  # type: ignore[assignment]
        if place.size > 1:
            devices = [place.device.index] if place.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True)

    # ---- one step ----

    def step(self, parts: list[Batch]) -> None:
        """Gradients of all parts, one update of the weights and of their average."""
        config = self.config
        # Dropout depends on the place in the training alone.
        torch.manual_seed(seed_of(config.seed, 1 + self.images, self.world.rank))
        self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        for i, part in enumerate(parts):
            with self._synchronized(i == len(parts) - 1):
                loss = self.model(part.x0, part.labels, part.key, **part.more)
                self.scaler.scale(loss.mean() / len(parts)).backward()
                self.total[0] += loss.detach().double().sum()
                self.total[1] += len(loss)
        if config.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, config.clip, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.images += config.batch
        self.average.update(keep(config, self.images))

    def _learning_rate(self) -> None:
        c = self.config
        rate = c.lr * min(1.0, (self.images + c.batch) / c.warm_up if c.warm_up else 1.0)
        left = 1 - self.images / c.images
        rate *= {"constant": 1.0, "linear": left, "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left)))}[c.decay]
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _synchronized(self, last: bool) -> Any:
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return contextlib.nullcontext()

    # ---- the run ----

    def run(self, progress: bool | None) -> Path:
        """Until all images are seen, or a signal comes."""
        c = self.config
        journal = Journal(self.folder, self.images, c.images, progress) if self.world.is_main else None
        started, seen = time.perf_counter(), self.images
        parts: list[Batch] = []
        with _Signals() as signals:
            for part in batches(self.source, c, self.world, self.images):
                parts.append(part)
                if len(parts) < c.accumulate:
                    continue
                self.step(parts)
                parts = []
                if journal is not None:
                    journal.advance(c.batch)
                last = self.images >= c.images
                if self._due(c.log_every) or last:
                    rate = (self.images - seen) / (time.perf_counter() - started)
                    self._log(journal, rate)
                    started, seen = time.perf_counter(), self.images
                if journal is not None and c.sample_every and (self._due(c.sample_every) or last):
                    self._picture(journal)
                stop = self._stop(signals)
                if self._due(c.save_every) or last or stop:
                    self._save()
                if stop and not last:
                    if journal is not None:
                        journal.close()
                    raise KeyboardInterrupt
        if journal is not None:
            journal.close()
        return self._save_network()

    def _stop(self, signals: _Signals) -> bool:
        """Whether a signal came to any process; on GPUs they ask each other only now and then, since asking waits for the device."""
        if self.world.size == 1:
            return signals.came
        step = self.images // self.config.batch
        return step % (1 if self.world.device.type == "cpu" else 32) == 0 and self.world.any(signals.came)

    def _due(self, every: int) -> bool:
        return self.images // every > (self.images - self.config.batch) // every

    def _log(self, journal: Journal | None, rate: float) -> None:
        loss = self._mean_loss()
        self.total.zero_()
        if journal is not None:
            journal.scalars(self.images, loss=loss, lr=self.optimizer.param_groups[0]["lr"], images_per_second=rate)

    def _mean_loss(self) -> float:
        """Of all processes since the last line of the log.

        Raises:
            TrainingError: it is no number.
        """
        total, count = self.world.sum(self.total).tolist()
        loss = total / max(count, 1.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"loss: expected a number, got {loss} after {self.images} images; the last checkpoint in {self.folder} is good: "
                "lower lr, set clip=1, or use precision=bf16 instead of fp16, in a new run directory"
            )
        return loss

    @torch.no_grad()
    def _picture(self, journal: Journal) -> None:
        if not isinstance(self.objective, Denoise):
            return
        c, net = self.config, self.average.net
        condition: dict[str, Any] = {}
        if c.conditional:
            labels = torch.arange(GRID, device=self.world.device) % self.source.classes
            condition["class_labels"] = self.objective.one_hot(labels)
        meaning = self.objective.parametrization if c.predicts != "precond" else "D"
        drawn = sample(
            net,
            (GRID, *self.source.shape),
            seeds=c.seed,
            sampler=sampler_for(c),
            parametrization=meaning,
            device=self.world.device,
            **condition,
        )
        journal.picture(self.images, drawn)

    # ---- files ----

    def _save(self) -> None:
        self._mean_loss()  # weights that a bad loss has spoiled must not replace good ones
        total = self.world.sum(self.total)
        if self.world.is_main:
            save_state(self.folder, {
                "images": self.images, "net": self.objective.net.state_dict(), "average": self.average.net.state_dict(),
                "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "total": total,
            })  # fmt: skip
            self._save_network()
        self.world.wait()

    def _save_network(self) -> Path:
        path = self.folder / "network.safetensors"
        if self.world.is_main:
            state = {name: t.contiguous().cpu() for name, t in self.average.net.state_dict().items()}
            about = {"images": self.images, "shape": list(self.source.shape), "config": asdict(self.config)}
            save_network(path, self.config.spec, state, about)
        return path

    def _resume(self) -> None:
        state = load_state(self.folder)
        if state is None:
            return
        self.images = state["images"]
        self.objective.net.load_state_dict(state["net"])
        self.average.net.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.world.is_main:
            self.total.copy_(state["total"])


def _extractor(name: str) -> nn.Module:
    """The frozen encoder of a discriminator: a shipped one, or a checkpoint."""
    if not name:
        raise ValueError("extractor: expected a name or a checkpoint of an ADMEncoder, got none; train one with task=classify")
    return load_extractor(name) if name in EXTRACTORS else load_network(name)


def _copy_weights(field: str, source: nn.Module, net: nn.Module, name: str) -> None:
    """Take over weights, all of them."""
    try:
        net.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise ValueError(f"{field}: expected weights of the same network, got {name} ({str(error).splitlines()[1].strip()})") from error


class _Signals:
    """SIGINT and SIGTERM wait for the end of the step, where the state is saved."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        with contextlib.suppress(ValueError):  # not in the main thread: signals go where they went
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        if self.came and callable(self._before[number]):  # a second one does not wait
            self._before[number](number, frame)
        self.came = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
