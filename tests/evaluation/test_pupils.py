"""Pupils beside their teacher: as many masks in each image, counted by hand; paired gains; nothing to compare."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from foundling.errors import ParameterError
from foundling.evaluation import class_agnostic, precision_difference, seeds_interval
from foundling.evaluation.pupils import as_many, beside_teacher
from foundling.types import Sample, Target

SIDE = 20


def rle(x0, y0, x1, y1):
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    told = coco_mask.encode(mask)
    return {"size": told["size"], "counts": told["counts"].decode("ascii")}


def result(image, score, *box):
    x0, y0, x1, y1 = box
    return {"image_id": image, "category_id": 1, "score": score, "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": rle(*box)}  # fmt: skip


def picture(image, *boxes):
    none = np.zeros(len(boxes), dtype=bool)
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    target = Target(corners, np.zeros(len(boxes), np.int64), none, none, none, [rle(*box) for box in boxes])
    return Sample(f"{image}.png", Path(f"{image}.png"), image, target)


A, B, C, WRONG = (0, 0, 6, 6), (8, 8, 14, 14), (14, 0, 20, 6), (0, 14, 20, 20)
SAMPLES = [picture(1, A, B), picture(2, C), picture(3, A)]
TEACHER = [result(1, 1.0, *A), result(2, 0.5, *WRONG), result(2, 1.0, *A)]


def test_the_surest_are_kept_image_by_image():
    found = [result(1, 0.2, *A), result(1, 0.9, *B), result(2, 0.1, *C), result(2, 0.3, *WRONG), result(2, 0.2, *A),
             result(3, 0.9, *A)]  # fmt: skip
    kept = as_many(found, TEACHER)
    assert kept == [found[1], found[3], found[4]]
    assert as_many(found, TEACHER, "bbox") == kept
    assert as_many(found[::-1], TEACHER) == kept
    assert as_many(found, found) == sorted(found, key=lambda r: (r["image_id"], -r["score"]))
    assert as_many([], TEACHER) == as_many(found, []) == []


def test_of_equal_scores_the_larger_is_kept():
    small, large = result(1, 0.5, 0, 0, 2, 2), result(1, 0.5, 0, 0, 9, 9)
    assert as_many([small, large], TEACHER[:1]) == as_many([large, small], TEACHER[:1]) == [large]


def test_recall_at_equal_count_by_hand():
    """All four objects are found; at equal count A of image 1 (B is less sure), and C. The teacher finds one."""
    first = [result(1, 0.9, *A), result(1, 0.2, *B), result(2, 0.5, *C), result(3, 0.5, *A)]
    second = [result(1, 0.9, *WRONG), result(1, 0.2, *B)]
    pupils = beside_teacher(TEACHER, [first, second], SAMPLES, resamples=50)
    assert pupils.teacher.values["AR100"].value == pytest.approx(25)
    assert [run.values["AR100"].value for run in pupils.runs] == pytest.approx([100, 25])
    assert [run.values["AR100"].value for run in pupils.equal] == pytest.approx([50, 0])
    assert pupils.mean.values["AR100"].value == pytest.approx(62.5)
    assert pupils.mean_equal.values["AR100"].value == pytest.approx(25)
    assert pupils.gain()["AR100"].value == pytest.approx(0)
    assert pupils.gain() == precision_difference(pupils.mean_equal, pupils.teacher)
    assert pupils.gain_by_seed()["AR100"] == pytest.approx(seeds_interval([25.0, -25.0]))
    assert pupils.gain_by_seed(equal=False)["AR100"] == pytest.approx(seeds_interval([75.0, 0.0]))
    assert pupils.gain(equal=False)["AR100"].value == pytest.approx(37.5)
    whole = class_agnostic(first, SAMPLES, resamples=50)
    assert pupils.runs[0].values == whole.values
    np.testing.assert_array_equal(pupils.runs[0].draws, whole.draws)


def test_one_run_has_no_interval_over_seeds_and_none_is_refused():
    pupils = beside_teacher(TEACHER, [TEACHER], SAMPLES, "bbox", resamples=20)
    assert pupils.gain_by_seed()["AR100"] == (0.0, None, None)
    assert pupils.gain()["AR100"] == (0.0, 0.0, 0.0)
    with pytest.raises(ParameterError, match="no runs: give the results of one or more"):
        beside_teacher(TEACHER, [], SAMPLES)
