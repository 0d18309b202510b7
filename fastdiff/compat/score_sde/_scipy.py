"""What runs in SciPy, as the original does: other ODE methods than RK45, and SDEs of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._handed_over import record


def solve_ivp(slope: Callable[[float, np.ndarray], np.ndarray], ends: tuple[float, float], start: np.ndarray, **options: Any) -> Any:
    """scipy.integrate.solve_ivp.

    Raises:
        ImportError: SciPy is missing.
    """
    try:
        from scipy import integrate
    except ImportError as error:
        raise ImportError("this ODE method, or an SDE of your own, needs scipy: pip install 'fastdiff-torch[eval]'") from error
    record("score_sde", f"method={options.get('method', 'RK45')!r}, or an SDE of the user's own: SciPy's solve_ivp")
    return integrate.solve_ivp(slope, ends, start, **options)
