"""What all schedulers share: a table of rows, one launch a step, noise, and the way back to the original's own code.

A diffusers step is one row of a plan: `scheduler.plan` shows the table. Rows are made in float64 when a schedule is first used, and
looked up by the position of a step; nothing in a step waits for the device.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ...noise import Stream, keys
from ...ops.sampler_step import OP
from ...parametrizations import Data, Epsilon, Parametrization, RectifiedFlow, Velocity
from ...plan import Plan, Row
from ...schedules import Linear
from .._handed_over import record

_VP = Linear("vp")
#: What prediction_type says.
PREDICTIONS: dict[str, Parametrization] = {
    "epsilon": Epsilon(schedule=_VP),
    "sample": Data(schedule=_VP),
    "original_sample": Data(schedule=_VP),
    "v_prediction": Velocity(schedule=_VP),
    "flow_prediction": RectifiedFlow(),
}

_STEP, _STATE = OP.overload, int(Stream.STATE)
_AUTOGRAD = {kind: getattr(torch._C.DispatchKey, f"Autograd{kind.upper()}") for kind in ("cpu", "cuda", "mps", "xpu")}

with torch.inference_mode(False):
    _UNCHANGED = torch.empty(0, device="cpu")
#: How many tables a schedule remembers, one for each choice of a step's arguments.
_KEPT = 8

_excluded, _exclude = torch._C._dispatch_tls_is_dispatch_key_excluded, torch._C._dispatch_tls_set_dispatch_key_excluded


class Refusal(NamedTuple):
    """Values of a config option that send the steps to the original's own code."""

    option: str
    refuses: Callable[[Mapping[str, Any]], Any]
    why: str


class Table:
    """Rows by the position of their step, and their coefficients on every device that asked.

    Args:
        make: makes the row of a position; positions: those of the schedule, made at once. Others are made when they are asked for.
    """

    def __init__(self, name: str, make: Callable[[Any], Row], positions: Iterable[Hashable]) -> None:
        self._make = make
        self.rows = {position: make(position) for position in positions}
        self.plan = Plan(name, tuple(self.rows.values()), 1.0)
        self._on: dict[torch.device, dict[Hashable, Tensor]] = {}

    def row(self, position: Hashable) -> Row:
        """The row of a position."""
        if position not in self.rows:
            self.rows[position] = self._make(position)
        return self.rows[position]

    def coef(self, position: Hashable, device: torch.device) -> Tensor:
        """[18] float64 on the device."""
        try:
            return self._on[device][position]
        except KeyError:
            on = self._on.setdefault(device, {})
            on |= self._copied([position] if on else list(dict.fromkeys([*self.rows, position])), device)
            return on[position]

    @torch.inference_mode(False)  # else a first step in that mode would taint the tables for gradients
    def _copied(self, positions: list, device: torch.device) -> dict[Hashable, Tensor]:
        matrix = Plan("", tuple(self.row(position) for position in positions), 1.0).matrix()
        return dict(zip(positions, matrix.to(device, non_blocking=True).unbind(0), strict=True))


class Fused:
    """Mixed in before the original scheduler; a subclass says which rows its steps are and what it refuses."""

    #: Values that hand the steps over.
    refusals: ClassVar[tuple[Refusal, ...]] = ()
    #: Options that the rows know, or that only the original's set_timesteps reads; any other hands over unless it has its default.
    options: ClassVar[frozenset[str]] = frozenset()

    #: What prediction_type may be.
    predictions: ClassVar[frozenset[str]] = frozenset({"epsilon", "sample", "v_prediction"})
    #: Arguments of `step` that change coefficients, at their defaults.
    _default: ClassVar[Hashable] = None

    #: The attribute beside config and timesteps that rows are made from.
    _source: ClassVar[str]

    _made_for: tuple[Any, Any, Any, Tensor, Tensor, int] = (None, None, None, _UNCHANGED, _UNCHANGED, 0)
    _tables: dict[Hashable, Table]
    _positions: Positions
    _refused = ""
    _key: Tensor | None = None
    _draw = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not {"step", "step_pred"} & set(vars(cls)):
            return
        original = cls.set_timesteps  # type: ignore[attr-defined]

        @functools.wraps(original)  # pipelines look at its parameters
        def set_timesteps(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self._refresh()  # reads the schedule here, and not in the first step

        cls.set_timesteps = set_timesteps  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep: tables are made again."""
        made = ("_made_for", "_tables", "_positions", "_key", "_draw")
        return {name: value for name, value in vars(self).items() if name not in made}

    # ---- what a scheduler says ----

    def _schedule(self) -> Iterable[Hashable]:
        """The positions of the schedule's steps."""
        raise NotImplementedError

    def _row(self, position: Any, variant: Any) -> Row:
        """The row of a step; variant: those arguments of `step` that change coefficients, None for their defaults."""
        raise NotImplementedError

    # ---- tables ----

    @property
    def handed_over(self) -> str:
        """Why the steps run the original's own code; "" where they are fused."""
        self._refresh()
        return self._refused

    @property
    def plan(self) -> Plan:
        """The table of the steps with default arguments; `print` it.

        Raises:
            ValueError: the steps are handed over.
        """
        self._refresh()
        if self._refused:
            raise ValueError(f"plan: expected a scheduler with fused steps, got {type(self).__name__} with {self._refused}")
        return self._table(self._default).plan

    def _refresh(self) -> None:
        """Forget what was made for another config or schedule; a new schedule is a new run, with noise of its own."""
        config, timesteps, source, first, second, changes = self._made_for
        if config is self._internal_dict and timesteps is self.timesteps and source is getattr(self, self._source):  # type: ignore[attr-defined]
            if first._version + second._version == changes:
                return
            timesteps = None
        if config is not self._internal_dict:  # type: ignore[attr-defined]
            self._refused = self._refusal()
            if self._refused:
                record(f"diffusers.{type(self).__name__}", self._refused)
        if timesteps is not self.timesteps:  # type: ignore[attr-defined]
            self._key, self._draw = None, 0
            self._positions = Positions(self.timesteps)  # type: ignore[attr-defined]
        timesteps, source = self.timesteps, getattr(self, self._source)  # type: ignore[attr-defined]
        first, second = _counting(timesteps), _counting(source)
        self._made_for = (self._internal_dict, timesteps, source, first, second, first._version + second._version)  # type: ignore[attr-defined]
        self._tables = {}
        self._read()

    def _read(self) -> None:
        """Take what rows and steps need from the schedule."""

    def _refusal(self) -> str:
        config = dict(self._internal_dict)  # type: ignore[attr-defined]
        for refusal in self.refusals:
            if refusal.refuses(config):
                return f"{refusal.option}={config[refusal.option]!r}: {refusal.why}"
        if config.get("prediction_type", "epsilon") not in self.predictions:
            return f"prediction_type={config['prediction_type']!r}: the original has no such step"
        theirs = next(cls for cls in type(self).__mro__ if cls.__module__.startswith("diffusers."))
        for name, parameter in inspect.signature(theirs.__init__).parameters.items():  # type: ignore[misc]
            if name in config and name not in self.options and config[name] != parameter.default:
                return f"{name}={config[name]!r}: an option that fastdiff does not know"
        return ""

    def _table(self, variant: Hashable = None) -> Table:
        if variant not in self._tables:
            if len(self._tables) >= _KEPT:
                self._tables.pop(next(iter(self._tables)))
            self._tables[variant] = Table(type(self).__name__, lambda position: self._row(position, variant), self._schedule())
        return self._tables[variant]

    # ---- one step ----

    def _noise(self, like: Tensor, generator: Any, dtype: torch.dtype) -> dict[str, Any]:
        """Operands: the original's noise z where a generator is given, else keys drawn from torch's global generator once a run."""
        if generator is not None:
            return {"z": randn_tensor(like.shape, generator=generator, device=like.device, dtype=dtype)}
        key = self._key
        if key is None or key.shape[0] != like.shape[0] or key.device != like.device:
            with torch.inference_mode(False):
                key = self._key = keys(torch.default_generator, like.shape[0]).to(like.device, non_blocking=True)
        self._draw += 1
        return {"key": key, "draw": self._draw, "stream": _STATE}

    def _launch(self, x: Tensor, F: Tensor, coef: Tensor, return_D: bool = True, **operands: Any) -> tuple[Tensor, Tensor]:
        """(y, D) of one fused step; operands by the names of the op.

        As in the original's arithmetic, a network's output of a wider type widens the state.
        """
        if F.dtype is not x.dtype:
            x = x.to(torch.promote_types(x.dtype, F.dtype))
        if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in (x, F, *operands.values())):
            y, _, D, _ = _STEP(x, F, coef, return_D=return_D, **operands)
            return y, D
        # Below autograd, whose bookkeeping in Python costs 20 us; see fastdiff/loop.py.
        autograd = _AUTOGRAD.get(x.device.type, torch._C.DispatchKey.AutogradOther)
        before = _excluded(autograd)
        _exclude(autograd, True)
        try:
            y, _, D, _ = _STEP(x, F, coef, return_D=return_D, **operands)
        finally:
            _exclude(autograd, before)
        return y, D


def _counting(tensor: Tensor | None) -> Tensor:
    """The tensor whose _version counts the changes in place, or one that nobody changes where nothing counts them."""
    return _UNCHANGED if tensor is None or tensor.is_inference() else tensor


class Positions:
    """Which step a timestep is: by where it lies in the schedule's own tensor, as pipelines iterate over it."""

    def __init__(self, timesteps: Tensor) -> None:
        self.values = timesteps.tolist()
        seen: Counter[float] = Counter()
        self._begin: dict[float, int] = {}
        for i, value in enumerate(self.values):
            seen[value] += 1
            if seen[value] <= 2:  # the original begins at the second of equal timesteps
                self._begin[value] = i
        self._device, self._timesteps = timesteps.device, timesteps  # held: its memory must stay its own
        self._start, self._size = timesteps.data_ptr(), timesteps.element_size()
        self._end = self._start + self._size * len(self.values) * timesteps.is_contiguous()

    def value(self, timestep: Any) -> float:
        """The timestep as a number; a tensor that is no view into the schedule's is read, which waits for its device."""
        if not isinstance(timestep, Tensor):
            return timestep
        if timestep.dim() == 0 and timestep.device == self._device:
            try:
                address = timestep.data_ptr()
            except RuntimeError:  # inside a transform of torch.func
                address = -1
            if self._start <= address < self._end:
                return self.values[(address - self._start) // self._size]
        return timestep.reshape(()).tolist()  # type: ignore[return-value]

    def begin(self, timestep: Any) -> int | None:
        """Where a run that begins with this timestep begins; None where the schedule has no such."""
        return self._begin.get(self.value(timestep))
