"""What a training run is: every choice in one frozen dataclass, read from TOML and overridden by key=value."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import tomllib

from ..models import Spec

Task = Literal["denoise", "classify", "discriminate"]
Process = Literal["edm", "vp", "sub-vp", "ve", "ddpm", "smld"]


def about(text: str, default: Any) -> Any:
    """A field with its help."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"about": text})
    return field(default=default, metadata={"about": text})


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Amounts of training are counted in images, so that they do not depend on the batch."""

    task: Task = about("what is learned: a denoiser, a noise-conditional classifier, or the discriminator of EDM-G++", "denoise")
    network: str = about("class of the network, as fastdiff.models.NETWORKS names it", "EDMPrecond")
    arguments: dict[str, Any] = about("its constructor's arguments; set one by arguments.NAME=VALUE", {})
    data: str = about("what fastdiff.data.open_data takes: digits, a toy, or a path", "digits")
    conditional: bool = about("give the network the classes", False)
    start: str = about("weights to start from: a shipped model or a checkpoint of the same network", "")
    generated: str = about("discriminate: generated samples (.npz of `fastdiff sample --npz`) to tell from the data", "")
    extractor: str = about("discriminate: checkpoint of the frozen ADMEncoder", "")

    process: Process = about("the forward process whose levels are trained", "edm")
    predicts: Literal["precond", "D", "F", "eps", "score", "v", "x0"] = about(
        "what the network returns; precond: it is a preconditioned denoiser and says so itself", "precond"
    )
    levels: Literal["log-normal", "uniform-log", "uniform-time", "uniform-steps"] = about("how noise levels are drawn", "log-normal")
    p_mean: float = about("log-normal: mean of ln sigma", -1.2)
    p_std: float = about("log-normal: standard deviation of ln sigma", 1.2)
    sigma_min: float = about("uniform-log, ve, smld: least noise level", 0.002)
    sigma_max: float = about("uniform-log, ve, smld: largest noise level", 80.0)
    epsilon_t: float = about("vp, sub-vp, ve: least time", 1e-5)
    beta_min: float = about("vp, sub-vp: beta at 0; ddpm: the first beta", 0.1)
    beta_max: float = about("vp, sub-vp: beta at 1; ddpm: the last beta", 20.0)
    steps: int = about("ddpm, smld: how many levels", 1000)
    weighting: Literal["simple", "edm", "likelihood", "variational", "x0", "min-snr"] = about("what an error costs; see losses", "edm")
    label_scale: float = about("eps, score, v, x0: the network is told label_scale*time; 0 for 999 (SDEs) or 1 (steps)", 0.0)
    sigma_data: float = about("edm weighting: standard deviation of the data", 0.5)
    input_perturbation: float = about("gamma of Ning et al. 2023: more noise on the input than the network is told of", 0.0)
    augment: float = about("probability of EDM's non-leaky augmentations (the network needs augment_dim=9)", 0.0)

    images: int = about("length of the training", 200_000_000)
    batch: int = about("images of a step, over all processes", 512)
    accumulate: int = about("parts that a process computes its share of a batch in", 1)
    optimizer: Literal["adam", "adamw"] = about("optimizer", "adam")
    lr: float = about("learning rate", 1e-3)
    betas: list[float] = about("Adam's", [0.9, 0.999])
    adam_eps: float = about("Adam's", 1e-8)
    weight_decay: float = about("AdamW's", 0.0)
    warm_up: int = about("images over which the learning rate rises", 0)
    decay: Literal["constant", "cosine", "linear"] = about("what the learning rate does after the warm-up, to 0 at the end", "constant")
    clip: float = about("largest norm of the gradient; 0 for any", 0.0)
    ema: Literal["half-life", "power", "none"] = about("average of the weights that is kept", "half-life")
    ema_half_life: int = about("half-life: in images", 500_000)
    ema_ramp: float = about("half-life: at most this share of the images so far; 0 for no ramp", 0.05)
    ema_std: float = about("power: relative width of the average (Karras et al. 2024, eq. 123)", 0.1)

    precision: Literal["fp32", "bf16", "fp16"] = about("of the network, by autocast; everything else stays in float32", "fp32")
    channels_last: bool = about("memory format of images: faster convolutions, the same numbers", True)
    compile: bool = about("compile the network and the loss with torch.compile", False)
    workers: int = about("processes that load the data; 0 for none", 0)
    seed: int = about("everything random depends on it", 0)
    log_every: int = about("images between two lines of the log", 10_000)
    sample_every: int = about("images between two pictures of samples; 0 for none", 0)
    save_every: int = about("images between two checkpoints", 500_000)

    def __post_init__(self) -> None:
        for f in fields(self):
            allowed = typing.get_args(_types()[f.name])
            value = getattr(self, f.name)
            if allowed and isinstance(allowed[0], str) and value not in allowed:
                raise ValueError(f"{f.name}: expected one of {', '.join(allowed)}, got {value!r}")
        for name in ("images", "batch", "accumulate", "steps", "log_every", "save_every"):
            self._expect(name, getattr(self, name) >= 1, "an integer >= 1")
        for name in ("lr", "sigma_data", "p_std", "epsilon_t", "sigma_min", "beta_min", "adam_eps"):
            self._expect(name, getattr(self, name) > 0, "a number > 0")
        for name in (
            "clip", "warm_up", "sample_every", "workers", "seed", "weight_decay", "input_perturbation", "ema_half_life", "ema_ramp",
            "label_scale",
        ):  # fmt: skip
            self._expect(name, getattr(self, name) >= 0, "a number >= 0")
        self._expect("augment", 0 <= self.augment <= 1, "a probability")
        self._expect("ema_std", 0 < self.ema_std < 0.28, "a number between 0 and 0.28")
        self._expect("betas", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        self._expect("sigma_max", self.sigma_max > self.sigma_min, f"more than sigma_min = {self.sigma_min}")
        if self.weighting == "variational":
            self._expect("levels", self.levels == "uniform-steps" and self.process == "ddpm", "uniform-steps of process ddpm with it")
        if self.levels == "uniform-time":
            self._expect("levels", self.process in ("vp", "sub-vp", "ve"), "uniform-time with the processes vp, sub-vp and ve only")

    def _expect(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"{name}: expected {wanted}, got {getattr(self, name)}")

    @property
    def spec(self) -> Spec:
        """The network."""
        return Spec(self.network, self.arguments)

    def changed(self, changes: Mapping[str, Any]) -> TrainConfig:
        """With other values; {"arguments.dropout": 0.2} changes one of the network's.

        Raises:
            ValueError: an unknown field, or a value of another type.
        """
        values: dict[str, Any] = {}
        arguments = dict(self.arguments)
        for name, value in changes.items():
            head, _, rest = name.partition(".")
            if head == "arguments" and rest:
                arguments[rest] = value
            elif head == "arguments" and isinstance(value, Mapping):
                arguments |= value
            elif head in _types() and not rest:
                values[head] = _checked(head, value)
            else:
                known = ", ".join(f.name for f in fields(self))
                raise ValueError(f"{name}: expected a field of the configuration ({known}), got an unknown one")
        return dataclasses.replace(self, **(values | {"arguments": arguments}))


def read_config(source: str, presets: Mapping[str, TrainConfig], overrides: Iterable[str] = ()) -> TrainConfig:
    """A preset, or a TOML file whose `preset = NAME` says what it starts from, with key=value overrides.

    Raises:
        ValueError: an unknown preset, field or value; FileNotFoundError: no such file.
    """
    if source.endswith(".toml"):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"config: no such file: {path}")
        try:
            values = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"config: expected a TOML file, got {path} ({error})") from error
        start = values.pop("preset", None)
        config = (_preset(start, presets) if start else TrainConfig()).changed(values)
    else:
        config = _preset(source, presets)
    return config.changed(dict(_parse(text) for text in overrides))


def _preset(name: str, presets: Mapping[str, TrainConfig]) -> TrainConfig:
    if name not in presets:
        raise ValueError(f"preset: expected a .toml file or one of {', '.join(presets)}, got {name!r}")
    return presets[name]


def _parse(text: str) -> tuple[str, Any]:
    """key=value, the value as TOML says it, or a string without quotes."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"override: expected key=value, got {text!r}")
    try:
        return name.strip(), tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value


def _checked(name: str, value: Any) -> Any:
    wanted = _types()[name]
    kind = type(typing.get_args(wanted)[0]) if typing.get_origin(wanted) is Literal else typing.get_origin(wanted) or wanted
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name}: expected {kind.__name__}, got {value!r}")
    return value


@cache
def _types() -> dict[str, Any]:
    return typing.get_type_hints(TrainConfig)
