"""odAP: by hand, both definitions against loops and pycocotools, CorLoc as its first term, intervals, errors."""

import contextlib
import io

import numpy as np
import pytest
from detected import drawn_copies, found_of, random_case, sample_of
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from foundling.errors import ParameterError
from foundling.evaluation import corloc, iou, mean_of_aps, od_ap, precision_difference, to_results, top_boxes

BOX, OTHER, FAR = (0, 0, 40, 40), (60, 0, 100, 40), (200, 200, 240, 240)


def values_of(scores) -> dict[str, float | None]:
    return {name: interval.value for name, interval in scores.values.items()}


def test_by_hand():
    # image 1: right, wrong, right of two objects; image 2: wrong, of one object
    samples = [sample_of(1, [BOX, OTHER]), sample_of(2, [BOX])]
    detected = {1: found_of([BOX, FAR, OTHER]), 2: found_of([FAR])}
    scores = od_ap(detected, samples, resamples=0)
    np.testing.assert_allclose(scores.precision[0], [1 / 2, 1 / 3, 2 / 4, 2 / 4, 2 / 4])
    np.testing.assert_allclose(scores.recall[0], [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert values_of(scores) == {"odAP": pytest.approx(100 / 3), "odAP50": pytest.approx(100 / 3)}  # 1/6 + 1/6
    assert values_of(od_ap(detected, samples, regions=2, resamples=0))["odAP50"] == pytest.approx(100 / 6)


def test_the_first_to_reach_an_object_keeps_it_and_one_may_reach_several():
    twins = [sample_of(1, [(0, 0, 40, 40), (0, 0, 40, 30)])]
    both = od_ap({1: found_of([(0, 0, 40, 34), (0, 0, 40, 40)])}, twins, resamples=0)  # IoU .85 and .88
    np.testing.assert_allclose(both.recall[0][:2], [1, 1])
    np.testing.assert_allclose(both.precision[0][:2], [1, 1 / 2])
    assert values_of(both)["odAP50"] == pytest.approx(100)


def test_an_iou_of_exactly_the_threshold_is_enough():
    samples = [sample_of(1, [(0, 0, 20, 40)])]
    assert values_of(od_ap({1: found_of([(0, 0, 40, 40)])}, samples)) == {
        "odAP": pytest.approx(10),
        "odAP50": pytest.approx(100),
    }


def by_loops(samples, detected, regions) -> dict[str, float]:
    """odAP from LOD's definition, image after image and region after region."""
    areas = []
    for threshold in [t / 100 for t in range(50, 100, 5)]:
        area, before = 0.0, 0.0
        for r in range(1, regions + 1):
            right = found = counted = objects = 0
            for sample in samples:
                truths = sample.target.boxes[~sample.target.crowd]
                objects += len(truths)
                here = detected.get(sample.image_id)
                if here is None or len(here) == 0:
                    counted += 1
                    continue
                order = np.argsort(-here.scores)[:r]
                counted += len(order)
                overlaps = iou(here.boxes[order], truths)
                keeps = set()
                for g in range(len(truths)):
                    reach = [n for n in range(len(order)) if overlaps[n, g] >= threshold]
                    found += bool(reach)
                    keeps |= set(reach[:1])
                right += len(keeps)
            area += right / counted * (found / objects - before)
            before = found / objects
        areas.append(100 * area)
    return {"odAP": float(np.mean(areas)), "odAP50": areas[0]}


@pytest.mark.parametrize("crowds", [0.0, 0.2])
def test_loops_over_images_and_regions_agree(rng, crowds):
    for _ in range(3):
        samples, detected = random_case(rng, crowds=crowds)
        most = max(int((~s.target.crowd).sum()) for s in samples)
        expected = by_loops(samples, detected, max(5, most))
        assert values_of(od_ap(detected, samples, resamples=0)) == pytest.approx(expected, abs=1e-9)
        assert values_of(od_ap(detected, samples, regions=3, resamples=0)) == pytest.approx(
            by_loops(samples, detected, 3), abs=1e-9
        )


def by_pycocotools(samples, detected, regions) -> dict[str, float]:
    """The mean over r of COCO's AP with r detections an image, objects and detections of one category."""
    objects = [
        {"id": n, "image_id": i, "category_id": 1, "iscrowd": 0, "area": float((box[2:] - box[:2]).prod()),
         "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]}
        for n, (i, box) in enumerate(((s.image_id, box) for s in samples for box in s.target.boxes), 1)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": s.image_id} for s in samples],
            "annotations": objects,
            "categories": [{"id": 1}],
        }
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes([{**r, "category_id": 1} for r in to_results(detected)]), "bbox")
        judge.params.maxDets = list(range(1, regions + 1))
        judge.evaluate()
        judge.accumulate()
    aps = judge.eval["precision"][:, :, 0, 0, :].mean(axis=1)  # [threshold, r]
    return {"odAP": 100 * aps.mean(), "odAP50": 100 * aps[0].mean()}


def test_the_mean_of_aps_is_that_of_pycocotools(rng):
    for _ in range(4):
        samples, detected = random_case(rng)
        most = max(len(s.target) for s in samples)
        assert mean_of_aps(detected, samples) == pytest.approx(by_pycocotools(samples, detected, most), abs=1e-9)
        assert mean_of_aps(detected, samples, regions=2) == pytest.approx(
            by_pycocotools(samples, detected, 2), abs=1e-9
        )


def test_the_first_term_is_corloc(rng):
    samples, detected = random_case(rng, images=20)
    samples = [s for s in samples if len(s.target)]
    detected = {s.image_id: detected[s.image_id] for s in samples if s.image_id in detected}
    scores = od_ap(detected, samples, resamples=0)
    boxes = top_boxes(detected, samples)
    assert 100 * scores.precision[0, 0] == pytest.approx(corloc(boxes, [s.target for s in samples], resamples=9).value)


def test_scores_of_different_images_are_not_compared(rng):
    samples, detected = random_case(rng)
    scaled = {i: found_of(d.boxes, d.scores * float(rng.random()), d.labels) for i, d in detected.items()}
    a, b = (od_ap(found, samples, resamples=10) for found in (detected, scaled))
    assert a.values == b.values


def test_intervals_are_those_of_images_drawn_and_measured_again(rng):
    samples, detected = random_case(rng, images=7)
    scores = od_ap(detected, samples, regions=4, resamples=20, seed=3)
    drawn = np.random.default_rng(3).integers(0, 7, (20, 7))
    for row, draw in zip(scores.draws[:5], drawn, strict=False):
        expected = by_loops(*drawn_copies(samples, detected, draw), 4)
        np.testing.assert_allclose(row, list(expected.values()), atol=1e-9)
    low, high = np.percentile(scores.draws[:, 1], [2.5, 97.5])
    assert scores.values["odAP50"][1:] == (pytest.approx(low), pytest.approx(high))
    assert precision_difference(scores, scores)["odAP"] == (0, 0, 0)


def test_nothing_found_and_nothing_there():
    samples = [sample_of(1, [BOX]), sample_of(2, [BOX])]
    for score in (values_of(od_ap({}, samples)), mean_of_aps({}, samples)):
        assert score == {"odAP": 0, "odAP50": 0}
    empty = [sample_of(1, []), sample_of(2, [BOX], crowd=[True])]
    for found in ({}, {1: found_of([BOX])}):
        assert set(od_ap(found, empty).values.values()) == {(None, None, None)}
        assert mean_of_aps(found, empty) == {"odAP": None, "odAP50": None}
    assert od_ap({}, []).values["odAP"].value is None
    assert mean_of_aps({}, [])["odAP"] is None
    assert od_ap({1: found_of([BOX])}, samples[:1]).values["odAP50"] == (pytest.approx(100), None, None)


def test_errors():
    for measure in (od_ap, mean_of_aps):
        with pytest.raises(ParameterError, match="regions is 0: choose 1 or more"):
            measure({}, [sample_of(1, [BOX])], regions=0)
        with pytest.raises(ParameterError, match="image_id 3"):
            measure({3: found_of([BOX])}, [sample_of(1, [BOX])])
    with pytest.raises(ParameterError, match="confidence is 95"):
        od_ap({}, [sample_of(1, [BOX])], confidence=95.0)
