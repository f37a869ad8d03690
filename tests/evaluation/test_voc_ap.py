"""AP by the devkit's rules: by hand, against a loop over detections, difficult objects, crowds, intervals, errors."""

import numpy as np
import pytest
from detected import devkit_ap, drawn_copies, found_of, random_case, sample_of

from foundling.errors import ParameterError
from foundling.evaluation import precision_difference, voc_precision
from foundling.types import Sample

BOX, OTHER, FAR = (0, 0, 40, 40), (60, 0, 100, 40), (200, 200, 240, 240)


def values_of(scores) -> tuple[float | None, ...]:
    return tuple(interval.value for interval in scores.values.values())


def test_by_hand():
    # right, wrong, right of three objects: precision 1 to recall 1/3, 2/3 to recall 2/3
    samples = [sample_of(1, [BOX, OTHER]), sample_of(2, [BOX])]
    detected = {1: found_of([BOX, FAR, OTHER], [0.9, 0.8, 0.7])}
    scores = voc_precision(detected, samples, resamples=0)
    assert list(scores.values) == ["area", "eleven"]
    assert scores.values["area"].value == pytest.approx(100 * (1 + 2 / 3) / 3)
    assert scores.values["eleven"].value == pytest.approx(100 * (4 + 3 * 2 / 3) / 11)  # 0 … .3, then .4 … .6
    assert (scores.objects, scores.detections) == (3, 3)
    np.testing.assert_allclose(scores.curve.recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(scores.curve.precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(scores.curve.scores, [0.9, 0.8, 0.7])
    assert scores.curve.area == pytest.approx(scores.values["area"].value / 100)


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_a_loop_over_detections_agrees(rng, threshold):
    for _ in range(10):
        samples, detected = random_case(rng)
        scores = voc_precision(detected, samples, threshold, resamples=0)
        for name, eleven in (("area", False), ("eleven", True)):
            expected = 100 * devkit_ap(samples, detected, None, None, threshold, eleven)
            assert scores.values[name].value == pytest.approx(expected, abs=1e-9)


def test_an_iou_of_exactly_the_threshold_is_too_little():
    samples = [sample_of(1, [(0, 0, 20, 40)])]
    assert values_of(voc_precision({1: found_of([(0, 0, 40, 40)])}, samples)) == (0, 0)
    above = voc_precision({1: found_of([(0, 0, 39, 40)])}, samples)
    assert values_of(above) == (pytest.approx(100), pytest.approx(100))


def test_a_detection_keeps_to_its_best_object_and_the_second_claim_is_false():
    # both lie nearest to the first object; the second reaches the other object, too, but may not have it
    samples = [sample_of(1, [(0, 0, 40, 40), (8, 0, 48, 40)])]
    detected = {1: found_of([(0, 0, 40, 40), (3, 0, 43, 40)])}
    scores = voc_precision(detected, samples, resamples=0)
    assert scores.values["area"].value == pytest.approx(50)
    np.testing.assert_allclose(scores.curve.precision, [1, 1 / 2])


def test_difficult_objects_need_not_be_found_and_may_be():
    samples = [sample_of(1, [BOX, OTHER], difficult=[True, False])]
    detected = {1: found_of([BOX, BOX, OTHER])}
    scores = voc_precision(detected, samples, resamples=0)
    assert values_of(scores) == (pytest.approx(100), pytest.approx(100))
    assert scores.objects == 1 and len(scores.curve.recall) == 1  # two count for nothing
    assert voc_precision({}, [sample_of(1, [BOX], difficult=[True])]).values["area"].value is None


def test_what_lies_in_a_crowd_counts_for_nothing_unless_it_is_right():
    crowd = (50, 0, 150, 100)
    samples = [sample_of(1, [(60, 10, 100, 50), crowd, BOX], crowd=[False, True, False])]
    detected = {1: found_of([(70, 60, 90, 80), (60, 10, 100, 50), BOX])}
    assert voc_precision(detected, samples, resamples=0).values["area"].value == pytest.approx(100)
    twice = {1: found_of([(60, 10, 100, 50), (60, 10, 100, 49), BOX])}  # not the crowd's: a second claim
    assert voc_precision(twice, samples, resamples=0).values["area"].value == pytest.approx(100 * (1 + 2 / 3) / 2)
    outside = {1: found_of([(0, 0, 80, 100), BOX])}
    assert voc_precision(outside, samples, resamples=0).values["area"].value == pytest.approx(25)


def test_the_order_of_images_and_detections_changes_nothing(rng):
    samples, detected = random_case(rng)
    for found in detected.values():
        found.scores[:] = np.ceil(2 * found.scores) / 2  # ties everywhere
    expected = voc_precision(detected, samples, resamples=20)
    for _ in range(5):
        shuffled = {}
        for i in rng.permutation(list(detected)).tolist():
            found, order = detected[i], rng.permutation(len(detected[i]))
            shuffled[i] = found_of(found.boxes[order], found.scores[order], found.labels[order])
        again = voc_precision(shuffled, [samples[i] for i in rng.permutation(len(samples))], resamples=20)
        assert again.values == expected.values
        np.testing.assert_array_equal(again.draws, expected.draws)


def test_intervals_are_those_of_images_drawn_and_measured_again(rng):
    samples, detected = random_case(rng, images=7)
    scores = voc_precision(detected, samples, resamples=30, seed=5)
    drawn = np.random.default_rng(5).integers(0, 7, (30, 7))
    for row, draw in zip(scores.draws[:8], drawn, strict=False):
        copies, found = drawn_copies(samples, detected, draw)
        expected = [100 * devkit_ap(copies, found, None, None, 0.5, eleven) for eleven in (False, True)]
        np.testing.assert_allclose(row, expected, atol=1e-9)
    low, high = np.nanpercentile(scores.draws[:, 0], [2.5, 97.5])
    assert scores.values["area"][1:] == (pytest.approx(low), pytest.approx(high))


def test_differences_are_paired(rng):
    samples, detected = random_case(rng, images=20)
    fewer = {i: found_of(d.boxes[:1], d.scores[:1]) for i, d in detected.items()}
    a, b = (voc_precision(found, samples, resamples=50) for found in (detected, fewer))
    gain = precision_difference(a, b)
    assert gain["area"].value == pytest.approx(a.values["area"].value - b.values["area"].value)
    assert precision_difference(a, a)["eleven"] == (0, 0, 0)


def test_no_detections_are_zero_and_no_objects_are_not_available():
    samples = [sample_of(1, [BOX]), sample_of(2, [])]
    assert values_of(voc_precision({}, samples)) == (0, 0)
    nothing = voc_precision({2: found_of([BOX])}, samples[1:])
    assert set(nothing.values.values()) == {(None, None, None)} and np.isnan(nothing.curve.area)
    assert values_of(voc_precision({}, [])) == (None, None)
    unknown = [samples[0], Sample("2", samples[0].path, 2, None)]
    right_and_unknown = {1: found_of([BOX], [0.5]), 2: found_of([BOX], [0.9])}
    assert values_of(voc_precision(right_and_unknown, unknown)) == (pytest.approx(100), pytest.approx(100))
    assert voc_precision(right_and_unknown, samples).values["area"] == (pytest.approx(50), None, None)


def test_errors():
    samples = [sample_of(1, [BOX])]
    with pytest.raises(ParameterError, match="threshold is 50"):
        voc_precision({}, samples, 50.0)
    with pytest.raises(ParameterError, match="confidence is 95"):
        voc_precision({}, samples, confidence=95.0)
    with pytest.raises(ParameterError, match="detections in image_id 7"):
        voc_precision({7: found_of([BOX])}, samples)
