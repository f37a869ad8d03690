"""CorLoc over runs beside a base: by hand, against paired differences, and what is refused."""

import numpy as np
import pytest

from foundling.errors import ParameterError
from foundling.evaluation import corloc, paired_difference
from foundling.evaluation.bootstrap import seeds_interval
from foundling.evaluation.corloc import CorLoc
from foundling.evaluation.localised import localised
from foundling.types import Target

BOX, OTHER = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]


def target(known: bool = True) -> Target:
    boxes = np.array([BOX] if known else np.zeros((0, 4)), dtype=np.float64).reshape(-1, 4)
    none = np.zeros(len(boxes), dtype=bool)
    return Target(boxes, np.zeros(len(boxes), dtype=np.int64), none, none, none)


def hits(*right: int) -> CorLoc:
    """What boxes reach that are right in these of five images; the last has no object."""
    boxes = np.array([BOX if i in right else OTHER for i in range(5)])
    return corloc(boxes, [target(i < 4) for i in range(5)])


def test_by_hand() -> None:
    found = localised([hits(0, 1, 2), hits(0, 1)], hits(0))
    assert found.value.value == 62.5 and found.gain.value == 37.5
    assert found.seeds == seeds_interval([75.0, 50.0]) and found.gain_seeds == seeds_interval([50.0, 25.0])
    own = localised([hits(0, 1, 2), hits(0, 1)], [hits(0), hits(0, 1, 2, 3)])
    assert own.gain.value == 0.0 and own.gain_seeds.value == 0.0 and own.gain_seeds.high is not None
    assert own.value == found.value


def test_one_run_is_a_paired_difference_without_an_interval_over_seeds() -> None:
    a, b = hits(0, 1, 3), hits(1)
    found = localised([a], b, seed=3)
    assert found.gain == paired_difference(a.hits, b.hits, a.counted, seed=3)
    assert found.value.value == 75.0 and found.seeds.low is None and found.gain_seeds.low is None


def test_nothing_to_measure() -> None:
    nothing = corloc(np.array([BOX, BOX]), [None, None])
    found = localised([nothing], nothing)
    assert all(interval.value is None for interval in found)


def test_what_is_refused() -> None:
    with pytest.raises(ParameterError, match="0 runs and 0 to compare them with"):
        localised([], hits(0))
    with pytest.raises(ParameterError, match="2 runs and 1 to compare them with: give one each, or one for all"):
        localised([hits(0), hits(1)], [hits(0)])
    other = corloc(np.array([BOX] * 5), [target()] * 5)
    with pytest.raises(ParameterError, match="on the same images"):
        localised([hits(0)], other)
