"""One look for every figure: colours, fonts, how a figure is made and how it is saved."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from foundling.errors import ParameterError
from foundling.files import write_bytes

# Okabe and Ito's palette, which stays apart for colour-blind readers; its vermilion and sky blue brightened for photos.
FOUND = "#FF4D00"  # what a method found
TRUTH = "#4CC3FF"  # what people annotated
ACCENT, FILL = "#0072B2", "#80B8D8"  # lines; bars, light enough for what is drawn on them
PALETTE = (ACCENT, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, QUIET, FAINT = "#222222", "#6B6B6B", "#E3E3E3"
MAX_DPI = 150

P = ParamSpec("P")
T = TypeVar("T")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # travels with matplotlib: the same bytes on every machine
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 100,
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Give every figure of this process the house style; a notebook calls it once."""
    plt.rcParams.update(STYLE)


def subplots(rows: int = 1, columns: int = 1, cell: tuple[float, float] = (3.0, 3.0)) -> tuple[Figure, Any]:
    """A figure in the house style and its axes: [rows, columns] of ``cell`` (width, height) inches each.

    The axes come as matplotlib's ``subplots`` gives them: one axis, a row of axes, or an array [rows, columns].
    """
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=(columns * cell[0], rows * cell[1]), layout="constrained")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """A drawing function that works in the house style, whatever the process's settings."""

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> T:
        with plt.rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def figure_png(fig: Figure, dpi: int = 110) -> bytes:
    """``fig`` in the house style as the bytes of a PNG without date or version."""
    buffer = io.BytesIO()
    with plt.rc_context(STYLE):
        fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None})
    return buffer.getvalue()


def save_figure(fig: Figure, path: Path, dpi: int = 110) -> Path:
    """Write ``fig`` as PNG and return the path; the same drawing gives the same bytes.

    The file holds no date and no version, and appears whole or not at all. ``dpi`` is at most 150, so that reports
    stay small. Raises :class:`ParameterError` for a larger ``dpi`` and for a name that does not end in ``.png``.
    """
    if path.suffix != ".png":
        raise ParameterError(f"figures are saved as PNG: name {path.name!r} as {path.stem + '.png'!r}")
    if not 0 < dpi <= MAX_DPI:
        raise ParameterError(f"dpi is {dpi}: choose at most {MAX_DPI}")
    return write_bytes(path, figure_png(fig, dpi))


def as_array(values: Any) -> np.ndarray:
    """A NumPy view of an array or of a tensor on any device (half precision becomes single)."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.element_size() == 2 and values.is_floating_point() else values
    return np.asarray(values)
