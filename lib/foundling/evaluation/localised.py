"""CorLoc of something of which there are several runs (seeds), beside that of what they began with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import Interval, mean_interval, percent, seeds_interval
from foundling.evaluation.corloc import CorLoc
from foundling.evaluation.repeats import mean_hits


class Localised(NamedTuple):
    """``value``: the mean over runs in percent, with its interval over images; ``gain``: by how many points it lies
    above the base, paired image by image. ``seeds`` and ``gain_seeds`` are the same with the intervals over runs
    (Student's t): none for a single run."""

    value: Interval
    gain: Interval
    seeds: Interval
    gain_seeds: Interval


def localised(runs: Sequence[CorLoc], base: CorLoc | Sequence[CorLoc], *, seed: int = 0) -> Localised:
    """What ``runs`` reach, and how far that is above ``base``: one for all, or one for each run.

    Raises :class:`ParameterError` without a run, for another number of bases, and unless all were measured on the same
    images. Where no image counts, all values are ``None``.
    """
    bases = [base] * len(runs) if isinstance(base, CorLoc) else list(base)
    if not runs or len(bases) != len(runs):
        raise ParameterError(f"{len(runs)} runs and {len(bases)} to compare them with: give one each, or one for all")
    counted = runs[0].counted
    if any(one.counted.tolist() != counted.tolist() for one in (*runs, *bases)):
        raise ParameterError("runs are compared on the same images: measure all on these")
    value = mean_hits([one.hits for one in runs], counted, seed=seed)
    pairs = zip(runs, bases, strict=True)
    gained = np.mean([a.hits[counted].astype(np.float64) - b.hits[counted] for a, b in pairs], axis=0)  # -1..1 an image
    points = [one.value for one in runs if one.value is not None]
    gains = [a.value - b.value for a, b in zip(runs, bases, strict=True) if a.value is not None and b.value is not None]
    gain = percent(mean_interval(gained, seed=seed))
    return Localised(value, gain, seeds_interval(points), seeds_interval(gains))
