"""Pictures of videos: frames with the objects in them tinted, and strips that set trackers below one another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from foundling.errors import ParameterError
from foundling.report.figures import Picture, _pixels, show_image
from foundling.report.style import FOUND, PALETTE, TRUTH, as_array, styled, subplots
from foundling.types import VOID

OBJECT_COLOURS = (FOUND, TRUTH, *PALETTE[2:5], PALETTE[0])  # of objects 1, 2, …; then from the start again


@styled
def show_labels(ax: Axes, image: Picture, labels: Any, title: str | None = None, opacity: float = 0.55) -> Axes:
    """Draw a frame with its objects tinted and outlined, each in its colour.

    ``labels`` [height, width] are object numbers: 0 is the background, 255 void, and neither is tinted. ``title`` is
    drawn as it is: a ``$`` does not begin a formula.

    Raises :class:`ParameterError` where the sizes of image and labels differ.
    """
    numbers = as_array(labels)
    height, width = _pixels(image).shape[:2]
    if numbers.shape != (height, width):
        raise ParameterError(
            f"the image is {width}×{height} pixels, its labels {numbers.shape[::-1]}: give equal sizes"
        )
    show_image(ax, image, title=title)
    extent = (0, width, height, 0)
    colours = np.array([(*to_rgb(colour), opacity) for colour in OBJECT_COLOURS])
    tinted = (numbers > 0) & (numbers != VOID)
    tint = np.zeros((height, width, 4))
    tint[tinted] = colours[(numbers[tinted] - 1) % len(colours)]
    ax.imshow(tint, extent=extent, interpolation="nearest")
    for number in np.unique(numbers[tinted]):
        # a border of background lets an outline close where the object reaches the edge
        inside = np.pad((numbers == number).astype(float), 1)
        x, y = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5
        colour = OBJECT_COLOURS[(int(number) - 1) % len(OBJECT_COLOURS)]
        ax.contour(x.clip(0, width), y.clip(0, height), inside, [0.5], colors=[colour], linewidths=1.2)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    return ax


@styled
def video_strip(
    frames: Sequence[Picture], rows: Mapping[str, Sequence[Any]], times: Sequence[int], cell: float = 1.9
) -> Figure:
    """One video: a column for each of the ``times`` (frame numbers, from 0), a row for each tracker or the truth.

    ``rows`` maps a name, written at the left, to the object numbers [height, width] of every frame. ``cell`` is the
    width of a picture in inches; all frames have one size.

    Raises :class:`ParameterError` where there is nothing to draw, a row does not have one mask a frame, or a time is
    not that of a frame.
    """
    if not frames or not rows or not times:
        raise ParameterError("nothing to draw: a strip needs frames, at least one row of masks and at least one time")
    for name, masks in rows.items():
        if len(masks) != len(frames):
            raise ParameterError(f"row {name!r} has {len(masks)} masks for {len(frames)} frames: give one a frame")
    for time in times:
        if not 0 <= time < len(frames):
            raise ParameterError(f"there is no frame {time}: choose among 0 to {len(frames) - 1}")
    height, width = _pixels(frames[0]).shape[:2]
    fig, axes = subplots(len(rows), len(times), (cell, cell * height / width))
    grid = np.reshape(axes, (len(rows), len(times)))
    for i, (name, masks) in enumerate(rows.items()):
        for ax, time in zip(grid[i], times, strict=True):
            show_labels(ax, frames[time], masks[time], title=f"frame {time}" if i == 0 else None)
        grid[i, 0].text(
            -0.04, 0.5, name, transform=grid[i, 0].transAxes, rotation=90, ha="right", va="center", parse_math=False
        )
    return fig
