"""Means and ratios over runs: by hand, against loops, and what cannot be compared."""

import numpy as np
import pytest

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import Figures, Interval, seeds_interval
from foundling.evaluation.repeats import by_seed, figure_ratios, mean_hits, mean_of_runs


def figures(values, seed=0, draws=400, images=(3, 5, 8)):
    """Figures around ``values`` whose draws spread by one."""
    spread = np.random.default_rng(seed).normal(size=(draws, len(values)))
    named = {f"AP{i}": Interval(value, value - 2, value + 2) for i, value in enumerate(values)}
    return Figures(named, spread + np.array(values), images)


def test_the_mean_of_two_runs():
    a, b = figures([10.0, 40.0], 1), figures([20.0, 44.0], 2)
    mean = mean_of_runs([a, b])
    assert [interval.value for interval in mean.values.values()] == [15.0, 42.0]
    for i, interval in enumerate(mean.values.values()):
        drawn = [(x + y) / 2 for x, y in zip(a.draws[:, i], b.draws[:, i], strict=True)]
        assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    assert mean.images == (3, 5, 8)
    alone = mean_of_runs([a])
    np.testing.assert_array_equal(alone.draws, a.draws)
    assert mean_of_runs([b, a]).values == mean.values


def test_ratios_are_those_of_the_same_draws():
    a, b = figures([30.0], 1), figures([10.0], 2)
    ratio = figure_ratios(a, b)["AP0"]
    drawn = [x / y for x, y in zip(a.draws[:, 0], b.draws[:, 0], strict=True)]
    assert ratio == pytest.approx((3.0, *np.percentile(drawn, [2.5, 97.5])))
    same = figure_ratios(a, a)["AP0"]
    assert same == pytest.approx((1.0, 1.0, 1.0))


def test_nothing_is_divided_by_nothing():
    a, b = figures([30.0]), figures([0.0])
    assert figure_ratios(a, b)["AP0"] == (None, None, None)
    some = Figures({"AP0": Interval(5.0, 4.0, 6.0)}, np.array([[0.0], [5.0]]), (3, 5, 8))
    other = Figures({"AP0": Interval(10.0, 9.0, 11.0)}, np.array([[10.0], [10.0]]), (3, 5, 8))
    assert figure_ratios(other, some)["AP0"] == (2.0, 2.0, 2.0)  # the draw without is left out
    lacking = Figures({"AP0": Interval(None, None, None)}, np.full((2, 1), np.nan), (3, 5, 8))
    assert figure_ratios(lacking, some)["AP0"] == (None, None, None)
    assert mean_of_runs([some, lacking]).values["AP0"] == (None, None, None)
    assert by_seed([some, lacking])["AP0"] == (None, None, None)


def test_seeds_by_students_t():
    runs = [figures([value], int(value)) for value in (10.0, 12.0, 17.0)]
    assert by_seed(runs)["AP0"] == seeds_interval([10.0, 12.0, 17.0])
    paired = [figures([value]) for value in (9.0, 10.0, 14.0)]
    assert by_seed(runs, paired)["AP0"] == seeds_interval([1.0, 2.0, 3.0])
    assert by_seed(runs, paired[:1])["AP0"] == seeds_interval([1.0, 3.0, 8.0])
    assert by_seed(runs[:1])["AP0"] == (10.0, None, None)
    assert by_seed([]) == {}
    with pytest.raises(ParameterError, match="3 runs against 2: give each its own, or one for all"):
        by_seed(runs, paired[:2])


def test_hits_over_runs():
    counted = np.array([True, True, True, True, False])
    hits = [np.array([True, True, False, False, False]), np.array([True, False, False, False, False])]
    lost = np.array([False, True, True, False, False])
    assert mean_hits(hits, counted).value == pytest.approx(100 * 1.5 / 4)
    assert mean_hits(hits, counted, lost).value == pytest.approx(100 * (1.5 - 2) / 4)
    low, high = mean_hits(hits, counted)[1:]
    assert 0 <= low <= 37.5 <= high <= 100
    assert mean_hits(hits[:1] * 3, counted) == mean_hits(hits[:1], counted)
    with pytest.raises(ParameterError, match="no runs"):
        mean_hits([], counted)


def test_other_images_or_figures_are_refused():
    a = figures([1.0])
    with pytest.raises(ParameterError, match="one has 3 images and 400 draws, another 2 and 400"):
        mean_of_runs([a, figures([1.0], images=(3, 5))])
    with pytest.raises(ParameterError, match="another 3 and 7"):
        figure_ratios(a, figures([1.0], draws=7))
    with pytest.raises(ParameterError, match="no runs: give the figures"):
        mean_of_runs([])
