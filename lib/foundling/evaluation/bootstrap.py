"""Intervals that say how much a mean over images would move with other images of the same kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import bootstrap, t

from foundling.errors import ParameterError

CONFIDENCE = 0.95
RESAMPLES = 5000
_DRAWS = 2_000_000  # indices drawn at a time: bounds the memory at some tens of megabytes whatever the dataset's size


class Interval(NamedTuple):
    """A number with its interval; all are ``None`` where there was nothing to measure, the ends for a single image."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Figures:
    """Figures of a dataset by name, and those of each draw of its ``images`` (ids): what a paired difference takes.

    ``draws`` has a column for each of ``values``; a figure that had nothing to measure in a draw is nan there.
    """

    values: dict[str, Interval]
    draws: Float[np.ndarray, "draw value"]
    images: tuple[int, ...]


def mean_interval(
    values: Float[np.ndarray, " image"],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of ``values`` (one number an image) with its percentile bootstrap interval over images.

    Images are drawn with replacement ``resamples`` times; the same ``seed`` gives the same interval. No image gives
    ``Interval(None, None, None)``, and one image its value without an interval. Where all values are equal, resampling
    cannot vary: the interval has no width, which then says nothing about other images.

    Raises :class:`ParameterError` for a nan or infinite value, and for a ``confidence`` outside 0..1.
    """
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}: choose a share between 0 and 1, such as 0.95")
    if not np.isfinite(values).all():
        raise ParameterError(
            f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite: leave those images out first"
        )
    if len(values) == 0:
        return Interval(None, None, None)
    exact = values.astype(np.float64)
    if len(exact) == 1:
        return Interval(float(exact[0]), None, None)
    if np.ptp(exact) == 0:
        return Interval(float(exact[0]), float(exact[0]), float(exact[0]))
    drawn = bootstrap(
        (exact,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _DRAWS // len(exact)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(exact.mean()), float(drawn.confidence_interval.low), float(drawn.confidence_interval.high))


def ratio_intervals(
    sums: Float[np.ndarray, "image column"],
    counts: Float[np.ndarray, "image column"],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """Each column's sum over images of ``sums`` by that of ``counts`` (0 or more), with its interval over images.

    For means over things of which an image has several, or none: images are drawn, not things. All columns share the
    draws, which makes them comparable; a draw without any of a column's things says nothing about that column. A
    column that one image alone fills has no interval, and an empty one no value; without ``resamples`` (0) there are no
    intervals.

    Raises :class:`ParameterError` for a ``confidence`` outside 0..1.
    """
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}: choose a share between 0 and 1, such as 0.95")
    totals, filled = counts.sum(axis=0), (counts > 0).sum(axis=0)
    ratios = np.full((resamples, sums.shape[1]), np.nan)
    first = 0
    for weights in image_draws(len(sums), resamples, seed) if len(sums) else ():
        drawn = slice(first, first := first + len(weights))
        below = weights @ counts
        np.divide(weights @ sums, below, out=ratios[drawn], where=below > 0)
    values = [float(sums[:, i].sum()) / total if total else None for i, total in enumerate(totals.tolist())]
    ratios[:, filled < 2] = np.nan
    return [drawn_interval(value, drawn, confidence) for value, drawn in zip(values, ratios.T, strict=True)]


def drawn_interval(value: float | None, draws: Float[np.ndarray, " draw"], confidence: float) -> Interval:
    """``value`` with the percentile interval of ``draws``, of which those that had nothing to measure are nan.

    Without any other draw there is no interval.
    """
    usable = draws[~np.isnan(draws)]
    if value is None or not len(usable):
        return Interval(value, None, None)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(usable, [tail, 100 - tail]).tolist()
    return Interval(value, low, high)


def named_intervals(
    names: Sequence[str],
    point: Float[np.ndarray, " value"],
    draws: Float[np.ndarray, "draw value"],
    confidence: float,
    alone: Sequence[bool],
) -> dict[str, Interval]:
    """The named values (nan: none) with the intervals of their draws; none where one image stands ``alone``."""
    intervals = {}
    for name, value, column, single in zip(names, point.tolist(), draws.T, alone, strict=True):
        usable = column[:0] if single else column  # a draw may lack what a figure is about: then it is nan
        intervals[name] = drawn_interval(None if np.isnan(value) else value, usable, confidence)
    return intervals


def precision_difference(a: Figures, b: Figures, *, confidence: float = CONFIDENCE) -> dict[str, Interval]:
    """How far A's figures lie above B's, by name, with intervals: the same images were drawn for both.

    Raises :class:`ParameterError` where the images, the draws or the figures are not the same.
    """
    if a.images != b.images or a.draws.shape != b.draws.shape or list(a.values) != list(b.values):
        raise ParameterError(
            f"a difference needs the same images, draws and figures: A has {len(a.images)} images and {len(a.draws)} "
            f"draws, B {len(b.images)} and {len(b.draws)}"
        )
    points = [
        np.nan if x.value is None or y.value is None else x.value - y.value
        for x, y in zip(a.values.values(), b.values.values(), strict=True)
    ]
    alone = [x.low is None for x in a.values.values()]
    return named_intervals(list(a.values), np.array(points), a.draws - b.draws, confidence, alone)


def seeds_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """The mean of one figure over repeated runs with its interval by Student's t, as if runs were spread normally.

    A few runs say little about their spread: with three, the interval is 2.5 standard deviations to either side. One
    run has no interval, and none no value. Raises :class:`ParameterError` for a nan or infinite value.
    """
    exact = np.array(values, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise ParameterError(
            f"{int((~np.isfinite(exact)).sum())} of {len(exact)} values are not finite: leave them out"
        )
    if len(exact) < 2:
        return Interval(float(exact[0]) if len(exact) else None, None, None)
    reach = float(t.ppf((1 + confidence) / 2, len(exact) - 1) * exact.std(ddof=1) / np.sqrt(len(exact)))
    middle = float(exact.mean())
    return Interval(middle, middle - reach, middle + reach)


def image_draws(images: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "draw image"]]:
    """How often each image occurs in each of ``resamples`` draws with replacement, some draws at a time."""
    rng = np.random.default_rng(seed)
    batch = max(1, _DRAWS // images)
    for first in range(0, resamples, batch):
        draws = min(batch, resamples - first)
        drawn = rng.integers(0, images, (draws, images)) + images * np.arange(draws)[:, None]
        yield np.bincount(drawn.ravel(), minlength=draws * images).reshape(draws, images).astype(np.float64)


def paired_difference(
    hits_a: Bool[np.ndarray, " image_a"],
    hits_b: Bool[np.ndarray, " image_b"],
    counted: Bool[np.ndarray, " image_c"] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """How many percentage points A hits more often than B on the same images, with its bootstrap interval.

    ``hits_a`` and ``hits_b`` say image by image whether each method hit; ``counted`` (default: all) leaves images
    without ground truth out. The difference is resampled image by image, so that what makes an image easy or hard for
    both methods cancels; an interval that contains 0 does not tell the methods apart.

    Raises :class:`ParameterError` where the numbers of images differ.
    """
    kept = np.ones(len(hits_a), dtype=bool) if counted is None else counted
    if not len(hits_a) == len(hits_b) == len(kept):
        raise ParameterError(
            f"paired methods need the same images: hits_a has {len(hits_a)}, hits_b {len(hits_b)}, counted {len(kept)}"
        )
    gain = hits_a[kept].astype(np.float64) - hits_b[kept].astype(np.float64)  # 1, 0 or -1 an image
    return percent(mean_interval(gain, confidence=confidence, resamples=resamples, seed=seed))


def percent(interval: Interval) -> Interval:
    """The interval times 100."""
    return Interval(*(None if number is None else 100 * number for number in interval))
