"""Detections from and to COCO results, their order, the surest box, difficult objects, and broken ones."""

import json

import numpy as np
import pytest
from detected import found_of, random_case, sample_of

from foundling.errors import ParameterError
from foundling.evaluation import class_agnostic, corloc, from_results, to_results, top_boxes, without_difficult
from foundling.evaluation.detection import ranked, without_crowds
from foundling.types import Detections, Sample

BOX, OTHER = (0, 0, 40, 40), (60, 0, 100, 40)


def test_coco_results_there_and_back(rng):
    samples, detected = random_case(rng)
    results = json.loads(json.dumps(to_results(detected)))
    again = from_results([results[i] for i in rng.permutation(len(results))], samples)
    assert list(again) == sorted(i for i, found in detected.items() if len(found))
    for i, found in again.items():
        order = np.argsort(-detected[i].scores)
        np.testing.assert_array_equal(found.boxes, detected[i].boxes[order])
        np.testing.assert_array_equal(found.scores, detected[i].scores[order])
        np.testing.assert_array_equal(found.labels, detected[i].labels[order])
        assert found.masks is None


def test_categories_have_the_numbers_that_are_given():
    detected = {3: found_of([BOX, OTHER], labels=[1, 0])}
    results = to_results(detected, (7, 90))
    assert [r["category_id"] for r in results] == [90, 7]
    assert results[1]["bbox"] == [60, 0, 40, 40]
    assert from_results(results, [sample_of(3, [])], (7, 90))[3].labels.tolist() == [1, 0]
    assert [r["category_id"] for r in to_results(detected)] == [2, 1]


def test_masks_travel():
    masks = tuple({"size": [4, 4], "counts": text} for text in ("a", "b"))
    found = Detections(
        np.array([BOX, OTHER], dtype=np.float64), np.array([0.5, 0.9]), np.zeros(2, dtype=np.int64), masks
    )
    results = to_results({1: found})
    assert from_results(results, [sample_of(1, [])])[1].masks == masks[::-1]
    del results[0]["segmentation"]
    assert from_results(results, [sample_of(1, [])])[1].masks is None


def test_detections_give_pycocotools_its_numbers(rng):
    samples, detected = random_case(rng, crowds=0.1)
    results = to_results(detected)
    direct = class_agnostic(results, samples, "bbox", resamples=0).values
    back = class_agnostic(to_results(from_results(results, samples)), samples, "bbox", resamples=0).values
    assert direct == back and direct["AP50"].value > 20


def test_equal_scores_are_ordered_by_image_then_area_then_numbers():
    samples = [sample_of(2, []), sample_of(1, []), Sample("3", sample_of(1, []).path, 3, None)]
    detected = {
        2: found_of([(0, 0, 9, 9), (0, 0, 5, 5)], [0.5, 0.7]),
        1: found_of([(1, 0, 4, 3), (0, 0, 2, 2), (0, 0, 3, 3)], [0.5, 0.5, 0.5]),
        3: found_of([BOX]),
    }
    order = ranked(detected, samples)
    assert len(order) == 5 and order.images == (1, 2)
    assert order.image.tolist() == [1, 0, 0, 0, 1]
    assert order.boxes[:, 2].tolist() == [5, 3, 4, 2, 9]


def test_the_surest_box_of_each_image():
    samples = [sample_of(9, [BOX]), sample_of(4, [BOX]), Sample("5", sample_of(1, []).path, 5, None), sample_of(6, [])]
    detected = {9: found_of([OTHER, BOX], [0.3, 0.8], [0, 5]), 5: found_of([(0, 0, 1, 1), OTHER], [0.5, 0.5])}
    detected[6] = found_of([])
    boxes = top_boxes(detected, samples)
    np.testing.assert_array_equal(boxes, [BOX, [np.nan] * 4, OTHER, [np.nan] * 4])
    assert corloc(boxes, [s.target for s in samples], resamples=9).value == 50
    assert top_boxes({}, []).shape == (0, 4)


def test_difficult_objects_and_crowds_can_be_removed():
    masked = sample_of(1, [BOX, OTHER], [4, 5], difficult=[True, False], crowd=[False, True])
    easy, single = without_difficult([masked])[0].target, without_crowds([masked])[0].target
    assert (easy.labels.tolist(), easy.crowd.tolist()) == ([5], [True])
    assert (single.labels.tolist(), single.difficult.tolist()) == ([4], [True])
    bare = Sample("2", masked.path, 2, None)
    assert without_difficult([bare]) == [bare]
    # what is found there is false then: LOST's AP of class-agnostic detectors
    found = to_results({1: found_of([BOX, OTHER])})
    plain = sample_of(1, [BOX, OTHER], difficult=[True, False])
    assert class_agnostic(found, without_difficult([plain]), "bbox").values["AP50"].value == pytest.approx(50)
    assert class_agnostic(found, [plain], "bbox").values["AP50"].value == pytest.approx(100)


def test_errors_of_detections():
    samples = [sample_of(1, [BOX])]
    bad = [
        ({2: found_of([BOX])}, "detections in image_id 2, which no sample has"),
        ({1: found_of([(0, 0, np.inf, 4)])}, r"image_id 1 has the box \[0\.0, 0\.0, inf, 4\.0\]"),
        ({1: found_of([(9, 0, 4, 4)])}, "give x0 ≤ x1 and y0 ≤ y1"),
        ({1: found_of([BOX], [np.nan])}, "image_id 1 has the score nan"),
        ({1: found_of([BOX], [0.5], [-1])}, "image_id 1 has the label -1"),
    ]
    for detected, message in bad:
        for measure in (ranked, top_boxes):
            with pytest.raises(ParameterError, match=message):
                measure(detected, samples)
    with pytest.raises(ParameterError, match="two samples have one image id"):
        ranked({}, samples * 2)
    with pytest.raises(ParameterError, match="image_id 1 has the score nan"):
        to_results({1: found_of([BOX], [np.nan])})
    with pytest.raises(ParameterError, match="label 1 has no category id: 1 are given"):
        to_results({1: found_of([BOX], labels=[1])}, [7])


def test_errors_of_results():
    samples, good = [sample_of(1, [BOX])], to_results({1: found_of([BOX])})[0]
    bad = [
        ({"image_id": 7}, None, "result 1 is of image_id 7, which no sample has"),
        ({"score": float("nan")}, None, "result 1 has the score nan"),
        ({"bbox": [0, 0, -4, 4]}, None, "result 1 has the bbox"),
        ({"category_id": 0}, None, "result 1 has the category_id 0: categories count from 1"),
        ({"category_id": None}, None, "result 1 has the category_id None"),
        ({"category_id": 4}, (1, 7), "result 1 has the category_id 4: legal are 1, 7"),
    ]
    for change, ids, message in bad:
        with pytest.raises(ParameterError, match=message):
            from_results([good, good | change], samples, ids)
