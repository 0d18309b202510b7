"""Pictures with matplotlib: one look for all of them, and no display needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colors that people with any color vision can tell apart (Okabe and Ito 2008); one meaning each, in all pictures.
TRUTH, BLUE, RED, GREEN, PURPLE, ORANGE = "#444444", "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00"

DPI = 150
_LOOK: Any = {
    "font.size": 11, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.labelsize": 11, "legend.fontsize": 10,
    "figure.titlesize": 13, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.8,
    "axes.grid": False, "grid.color": "#dddddd", "grid.linewidth": 0.6, "image.cmap": "Greys", "savefig.dpi": DPI,
}  # fmt: skip


def require_matplotlib() -> None:
    """Raise ImportError, saying what to install, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("the pictures need matplotlib: pip install 'fastdiff-torch[plot]'") from error


@contextmanager
def picture(size: tuple[float, float]) -> Iterator[Figure]:
    """A figure with the look of the studies, drawn by Agg: no display is needed, and pyplot's state is left alone."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
