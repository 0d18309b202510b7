"""Runge-Kutta tableaus as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """An embedded explicit method whose last stage is the first of the next step.

    Attributes:
        A: row j holds the weights of the slopes at stage j + 2; the last row is the step itself.
        c: where the stages after the first lie, in units of the step.
        error: weights of the difference to the embedded method. error_order: of that method.
    """

    name: str
    A: tuple[tuple[float, ...], ...]
    c: tuple[float, ...]
    error: tuple[float, ...]
    error_order: int


#: Dormand and Prince 1980, "A family of embedded Runge-Kutta formulae", table 2: order 5(4), seven stages.
DORMAND_PRINCE = Tableau(
    name="Dormand-Prince 5(4)",
    A=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    c=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    error=(-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40),
    error_order=4,
)
