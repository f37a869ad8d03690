"""Bootstrap intervals against a loop, known widths, and their degenerate cases."""

import numpy as np
import pytest

from foundling.errors import FoundlingError, ParameterError
from foundling.evaluation import mean_interval, paired_difference, seeds_interval
from foundling.evaluation.bootstrap import drawn_interval, ratio_intervals


def test_agrees_with_resampling_in_a_loop(rng):
    values = rng.random(80)
    means = []
    for _ in range(20_000):
        means.append(values[rng.integers(0, len(values), len(values))].mean())
    expected = np.percentile(means, [2.5, 97.5])
    interval = mean_interval(values)
    width = expected[1] - expected[0]
    assert interval.value == pytest.approx(values.mean())
    assert abs(interval.low - expected[0]) < 0.05 * width
    assert abs(interval.high - expected[1]) < 0.05 * width


def test_half_of_four_hundred_images_has_the_binomial_width():
    interval = mean_interval(np.arange(400) % 2.0)
    assert interval.value == 0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.025, rel=0.05)


def test_a_seed_gives_an_interval_and_another_nearly_the_same(rng):
    values = rng.random(200)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    other = mean_interval(values, seed=4)
    assert other != mean_interval(values, seed=3)
    assert abs(other.low - mean_interval(values, seed=3).low) < 0.003


def test_batches_do_not_change_the_interval(rng, monkeypatch):
    values = rng.random(300)
    whole = mean_interval(values)
    monkeypatch.setattr("foundling.evaluation.bootstrap._DRAWS", 300 * 7)
    np.testing.assert_allclose(mean_interval(values), whole, atol=1e-12)


def test_more_confidence_is_wider(rng):
    values = rng.random(60)
    narrow, wide = mean_interval(values, confidence=0.5), mean_interval(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize("values", [[0.1] * 7, [0.0] * 2])
def test_equal_values_have_no_width(values):
    assert mean_interval(np.array(values)) == (values[0],) * 3


def test_one_value_has_no_interval():
    assert mean_interval(np.array([0.25])) == (0.25, None, None)


def test_no_values_are_not_available():
    assert mean_interval(np.zeros(0)) == (None, None, None)
    nobody = np.zeros(3, dtype=bool)
    assert paired_difference(nobody, nobody, nobody) == (None, None, None)


def test_wrong_values_are_explained():
    with pytest.raises(FoundlingError, match="1 of 2 values are not finite"):
        mean_interval(np.array([1.0, np.nan]))
    with pytest.raises(FoundlingError, match=r"confidence is 95.0.*such as 0\.95"):
        mean_interval(np.array([1.0, 2.0]), confidence=95.0)


def test_paired_difference_by_hand():
    a = np.array([True, True, True, False, True])
    b = np.array([True, False, False, False, False])
    counted = np.array([True, True, True, True, False])
    result = paired_difference(a, b, counted)
    assert result.value == 50  # 3 of 4 against 1 of 4
    assert result.low == 0 and result.high == 100  # no image speaks against a
    assert paired_difference(b, a, counted).value == -50


def test_pairing_cancels_what_images_have_in_common(rng):
    easy = rng.random(500) < 0.5
    better = easy | (rng.random(500) < 0.05)  # hits whatever the other hits, and a little more
    paired = paired_difference(better, easy)
    alone = mean_interval(better.astype(float)), mean_interval(easy.astype(float))
    assert 0 < paired.low < paired.value < paired.high
    assert alone[0].low < alone[1].high  # the two intervals overlap, though one is clearly better
    mirrored = paired_difference(easy, better)
    np.testing.assert_allclose([mirrored.low, mirrored.high], [-paired.high, -paired.low], atol=1e-9)


def test_unequal_images_are_counted_in_the_message():
    with pytest.raises(FoundlingError, match="hits_a has 3, hits_b 2, counted 3"):
        paired_difference(np.zeros(3, dtype=bool), np.zeros(2, dtype=bool))


def test_ratios_agree_with_resampling_in_a_loop(rng):
    counts = rng.integers(0, 4, (60, 2)).astype(float)
    sums = counts * rng.random((60, 2))
    drawn = [rng.integers(0, 60, 60) for _ in range(20_000)]
    for i, interval in enumerate(ratio_intervals(sums, counts)):
        expected = np.percentile([sums[d, i].sum() / counts[d, i].sum() for d in drawn], [2.5, 97.5])
        width = expected[1] - expected[0]
        assert interval.value == pytest.approx(sums[:, i].sum() / counts[:, i].sum())
        assert abs(interval.low - expected[0]) < 0.06 * width
        assert abs(interval.high - expected[1]) < 0.06 * width


def test_ratios_of_few_images(rng):
    counts = np.array([[0.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
    empty, alone, both = ratio_intervals(counts / 2, counts)
    assert empty == (None, None, None)
    assert alone == (0.5, None, None)  # one image fills it
    assert both == (0.5, 0.5, 0.5)
    assert ratio_intervals(np.zeros((0, 1)), np.zeros((0, 1))) == [(None, None, None)]
    assert ratio_intervals(counts / 2, counts, resamples=0) == [(None,) * 3, (0.5, None, None), (0.5, None, None)]
    with pytest.raises(FoundlingError, match="confidence is 95"):
        ratio_intervals(counts, counts, confidence=95.0)


def test_draws_without_what_is_measured_are_left_out():
    rare = np.zeros((200, 1))
    rare[:2] = 1  # in two of two hundred images: about one draw in seven has neither
    (interval,) = ratio_intervals(rare * np.arange(200)[:, None], rare)
    assert interval == (0.5, 0, 1)
    assert drawn_interval(0.5, np.full(4, np.nan), 0.95) == (0.5, None, None)
    assert drawn_interval(None, np.ones(4), 0.95) == (None, None, None)
    np.testing.assert_allclose(drawn_interval(2.0, np.array([np.nan, 0, 1, 2, 3, 4]), 0.5), (2, 1, 3))


def test_batches_do_not_change_ratios(rng, monkeypatch):
    counts = rng.integers(0, 4, (30, 2)).astype(float)
    whole = ratio_intervals(counts * 0.5 + 1, counts, resamples=100)
    monkeypatch.setattr("foundling.evaluation.bootstrap._DRAWS", 30 * 7)
    assert ratio_intervals(counts * 0.5 + 1, counts, resamples=100) == whole


def test_runs_are_spread_by_students_t():
    # by hand: mean 4, deviation 2, t of two degrees of freedom 4.3027
    value, low, high = seeds_interval([2.0, 4.0, 6.0])
    assert value == pytest.approx(4)
    assert (high - value, value - low) == (pytest.approx(4.30265 * 2 / 3**0.5, rel=1e-5),) * 2
    assert seeds_interval([5.0]) == (5, None, None)
    assert seeds_interval([]) == (None, None, None)
    with pytest.raises(ParameterError, match="1 of 2 values are not finite"):
        seeds_interval([1.0, float("nan")])
