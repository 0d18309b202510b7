"""Schedulers on noise levels: a row for each of `self.sigmas`, looked up by the index that counts the steps."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...parametrizations import EDM
from ...plan import Row
from ...samplers._rows import Level
from ._fused import Fused

_INTEGERS = (torch.int32, torch.int64)
_WARNED: set[type] = set()


def in_float32(sample: Tensor) -> Tensor:
    """The state as the originals of Euler's kind keep it in a step."""
    return sample if sample.dtype is torch.float32 else sample.to(torch.float32)


class Sigmas(Fused):
    """What schedulers with a step index share."""

    _source = "sigmas"
    sigmas: Tensor
    _levels: list[Level]
    _step_index: int | None
    _begin_index: int | None

    def _read(self) -> None:
        self._levels = [self._level(sigma) for sigma in self.sigmas.tolist()]

    def _level(self, sigma: float) -> Level:
        """The level of a state x0 + sigma*z."""
        return Level(sigma)

    def _schedule(self) -> Iterable[Hashable]:
        return [i for i in range(len(self._levels) - 1) if self._levels[i].sigma > 0]

    def _init_step_index(self, timestep: Any) -> None:
        """The original's rule, from numbers that were read when the schedule was set."""
        if self._begin_index is None:
            self._refresh()
            begin = self._positions.begin(timestep)
            if begin is None:
                super()._init_step_index(timestep)  # type: ignore[misc]
            else:
                self._step_index = begin
        else:
            self._step_index = self._begin_index

    def _index(self, timestep: Any) -> int:
        """The index of this step."""
        if self._step_index is None:
            self._init_step_index(timestep)
        return self._step_index  # type: ignore[return-value]

    def _check_timestep(self, timestep: Any) -> None:
        """What the originals in sigma-space ask of a timestep."""
        if isinstance(timestep, int) or (isinstance(timestep, Tensor) and timestep.dtype in _INTEGERS and timestep.is_cpu):
            raise ValueError(f"timestep: expected one of scheduler.timesteps, got {type(timestep).__name__}, which looks like an index")
        if not self.is_scale_input_called and type(self) not in _WARNED:  # type: ignore[attr-defined]
            _WARNED.add(type(self))
            from diffusers.utils import logging

            name = type(self).__name__
            logging.get_logger(__name__).warning(f"{name}: call scale_model_input before the network, else its input has another scale")


class Scaled(Sigmas):
    """Those whose network sees c_in times the state."""

    def _c_in(self, sigma: float) -> float:
        return 1 / (sigma**2 + 1) ** 0.5

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """The network's input: c_in times the sample."""
        self._refresh()
        i = self._index(timestep)
        self.is_scale_input_called = True
        return sample * self._c_in(self._levels[i].sigma)


class EDMScaled(Scaled):
    """Those with EDM's preconditioning."""

    predictions = frozenset({"epsilon", "v_prediction"})

    def _net(self) -> EDM:
        return EDM(sigma_data=self.config.sigma_data)  # type: ignore[attr-defined]

    def _c_in(self, sigma: float) -> float:
        return self._net().c_in(sigma)

    def _signed(self, row: Row) -> Row:
        """The row for a network whose output may have the sign of v: -F of EDM."""
        if self.config.prediction_type == "epsilon":  # type: ignore[attr-defined]
            return row
        return replace(row, coef=row.coef | {"b": -row.coef["b"]})
