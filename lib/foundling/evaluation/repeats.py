"""One experiment repeated with several seeds, measured on the same images: means, ratios, and what they are worth.

Two things move a figure: other images, and another seed. The mean over the runs at hand has an interval over images
(all runs are drawn together), and one over seeds (:func:`foundling.evaluation.bootstrap.seeds_interval`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    Figures,
    Interval,
    drawn_interval,
    mean_interval,
    named_intervals,
    percent,
    seeds_interval,
)


def mean_of_runs(runs: Sequence[Figures], *, confidence: float = CONFIDENCE) -> Figures:
    """The mean over ``runs`` of every figure, with its interval over images.

    A figure that one run has nothing to measure for has no mean. Raises :class:`ParameterError` without a run, and
    where images, draws or figures are not the same.
    """
    _check(runs)
    points = [[np.nan if x.value is None else x.value for x in run.values.values()] for run in runs]
    draws = np.mean([run.draws for run in runs], axis=0)
    alone = [interval.low is None for interval in runs[0].values.values()]
    values = named_intervals(list(runs[0].values), np.mean(points, axis=0), draws, confidence, alone)
    return Figures(values, draws, runs[0].images)


def figure_ratios(a: Figures, b: Figures, *, confidence: float = CONFIDENCE) -> dict[str, Interval]:
    """How many times B's figures A's are, by name, with intervals: the same images were drawn for both.

    There is no ratio to 0, and a draw in which B has 0 is left out. Raises as :func:`mean_of_runs`.
    """
    _check([a, b])
    ratios = {}
    for i, (name, ours) in enumerate(a.values.items()):
        theirs = b.values[name].value
        if ours.value is None or not theirs:
            ratios[name] = Interval(None, None, None)
            continue
        below = b.draws[:, i]
        draws = np.divide(a.draws[:, i], below, out=np.full(len(below), np.nan), where=below > 0)
        known = draws[:0] if ours.low is None else draws
        ratios[name] = drawn_interval(ours.value / theirs, known, confidence)
    return ratios


def by_seed(runs: Sequence[Figures], against: Sequence[Figures] | None = None) -> dict[str, Interval]:
    """Every figure over the runs, or its difference from that of the run beside it in ``against``, with the interval
    over seeds. A single one in ``against`` stands beside every run. A figure that a run lacks has none.

    Raises :class:`ParameterError` unless there is one to compare each run with, or one for all.
    """
    others = [None] * len(runs) if against is None else list(against) * (len(runs) if len(against) == 1 else 1)
    if len(others) != len(runs):
        raise ParameterError(f"{len(runs)} runs against {len(others)}: give each its own, or one for all")
    found = {}
    for name in runs[0].values if runs else ():
        pairs = [(run.values[name].value, other.values[name].value if other else 0.0)
                 for run, other in zip(runs, others, strict=True)]  # fmt: skip
        gains = [a - b for a, b in pairs if a is not None and b is not None]
        found[name] = seeds_interval(gains if len(gains) == len(runs) else [])
    return found


def mean_hits(
    hits: Sequence[Bool[np.ndarray, " image"]],
    counted: Bool[np.ndarray, " image"],
    against: Bool[np.ndarray, " image"] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """How many percent of the ``counted`` images are hit, on average over runs, with the interval over images.

    With ``against``, the hits of something else on these images, how many percentage points more than these. Raises
    :class:`ParameterError` without a run.
    """
    if not hits:
        raise ParameterError("no runs: give the hits of one or more")
    mean = np.mean([one[counted] for one in hits], axis=0)
    gain = mean - (0.0 if against is None else against[counted].astype(np.float64))
    return percent(mean_interval(gain, confidence=confidence, resamples=resamples, seed=seed))


def _check(runs: Sequence[Figures]) -> None:
    if not runs:
        raise ParameterError("no runs: give the figures of one or more")
    first = runs[0]
    for run in runs[1:]:
        if run.images != first.images or run.draws.shape != first.draws.shape or list(run.values) != list(first.values):
            raise ParameterError(
                f"runs are compared on the same images, draws and figures: one has {len(first.images)} images and "
                f"{len(first.draws)} draws, another {len(run.images)} and {len(run.draws)}"
            )
