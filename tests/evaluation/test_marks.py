"""All marks of detections together: those of each measure, means and differences over seeds, scenes without truth."""

import numpy as np
import pytest

from foundling.evaluation.detection import to_results
from foundling.evaluation.marks import NAMES, differences, found_in_images, mark, over_images, over_seeds, ratios
from foundling.evaluation.odap import od_ap
from foundling.evaluation.precision import class_agnostic
from foundling.types import Detections, Sample, Target


def target(boxes, difficult=()):
    flags = np.zeros(len(boxes), bool)
    hard = flags.copy()
    hard[list(difficult)] = True
    return Target(np.array(boxes, float).reshape(-1, 4), np.zeros(len(boxes), np.int64), hard, flags, flags)


def scene(tmp_path, images=12, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (images, 3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (images, 3, 2))], axis=2)
    return [Sample(f"{i}.png", tmp_path, i, target(boxes[i], (2,) if i % 4 == 0 else ())) for i in range(images)]


def guesses(samples, shift, seed=0):
    """Every object as it is but ``shift`` pixels off on average, with scores by chance."""
    rng = np.random.default_rng(seed)
    found = {}
    for sample in samples:
        boxes = sample.target.boxes + rng.normal(0, shift, (3, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = np.sort(rng.uniform(size=3))[::-1].copy()
        found[sample.image_id] = Detections(boxes, scores, np.zeros(3, np.int64))
    return found


def test_marks_are_those_of_the_measures(tmp_path):
    samples = scene(tmp_path)
    found = guesses(samples, 3.0)
    given = mark(found, samples, resamples=20)
    assert given.od.values == od_ap(found, samples, resamples=20).values
    easy = [Sample(s.name, s.path, s.image_id, target(s.target.boxes[~s.target.difficult])) for s in samples]
    plain = class_agnostic(to_results(found), easy, "bbox", resamples=20)
    assert given.coco.values == plain.values
    named = over_images([given])
    assert list(named) == ["corloc", *NAMES]
    assert named["ap50"] == plain.values["AP50"] and named["odap"] == given.od.values["odAP"]
    assert named["corloc"].value == given.corloc.value


def test_what_is_exact_gets_full_marks_and_nothing_gets_none(tmp_path):
    samples = scene(tmp_path)
    perfect = over_images([mark(guesses(samples, 0.0), samples, resamples=5)])
    assert perfect["corloc"].value == 100 and perfect["odap50"].value == pytest.approx(100, abs=8)
    assert over_images([mark({}, samples, resamples=5)])["ap50"].value == 0
    assert perfect["ap50"].value > 90  # what is difficult is found, and false


def test_seeds_and_differences(tmp_path):
    samples = scene(tmp_path)
    teacher = mark(guesses(samples, 9.0, 5), samples, resamples=50)
    pupils = [mark(guesses(samples, 3.0, i), samples, resamples=50) for i in range(3)]
    mean, gain, spread = over_images(pupils), differences(pupils, teacher), over_seeds(pupils)
    above, times = over_seeds(pupils, [teacher]), ratios(pupils, teacher)
    own = over_images([teacher])
    for name in ("corloc", "ap50", "odap50", "voc_ap50"):
        assert gain[name].value == pytest.approx(mean[name].value - own[name].value)
        assert above[name].value == pytest.approx(gain[name].value)
        assert spread[name].value == pytest.approx(mean[name].value)
        assert spread[name].low <= spread[name].value <= spread[name].high
    assert times["ap50"].value == pytest.approx(mean["ap50"].value / own["ap50"].value)
    assert times["ap50"].low <= times["ap50"].value <= times["ap50"].high and "corloc" not in times
    assert over_seeds(pupils[:1])["ap50"][1:] == (None, None)
    assert differences([teacher], teacher)["ap50"] == (0, 0, 0)


def test_images_without_annotations_have_no_marks(tmp_path):
    samples = [Sample("a.png", tmp_path, 1), Sample("b.png", tmp_path, 2)]
    found = {1: Detections(np.array([[0.0, 0.0, 5.0, 5.0]]), np.ones(1), np.zeros(1, np.int64))}
    given = mark(found, samples, resamples=5)
    assert all(interval.value is None for interval in over_images([given]).values())
    assert all(interval.value is None for interval in over_seeds([given]).values())
    assert all(interval.value is None for interval in differences([given], given).values())


def test_objects_found_by_as_many_boxes_as_there_are(tmp_path):
    two = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    samples = [Sample(f"{i}.png", tmp_path, i, target(two)) for i in range(3)]
    samples += [Sample("3.png", tmp_path, 3), Sample("4.png", tmp_path, 4, target([]))]
    none = np.array([50.0, 0.0, 60.0, 10.0])
    labels = np.zeros(3, np.int64)
    found = {
        0: Detections(np.stack([two[0], two[1], none]), np.array([0.9, 0.8, 0.7]), labels),
        1: Detections(np.stack([two[1], none, two[0]]), np.array([0.5, 0.8, 0.7]), labels),  # the third is too many
        3: Detections(two, np.ones(2), labels[:2]),
    }
    np.testing.assert_array_equal(found_in_images(found, samples), [1.0, 0.5, 0.0, np.nan, np.nan])
    assert found_in_images(found, samples, 1.0)[0] == 1.0
