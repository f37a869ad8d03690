"""Class-agnostic AP and AR: by hand, against pycocotools itself, ties, intervals, and bad input."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from foundling.errors import ParameterError
from foundling.evaluation import class_agnostic, precision_difference
from foundling.types import Sample, Target

SIZE = (120, 160)
NAMES = ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR1", "AR10", "AR100", "AR_S", "AR_M", "AR_L"]  # COCO's order


def rle(mask) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def block(x0, y0, x1, y1) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def sample_of(image_id, boxes, crowd=None, labels=None, masks=True) -> Sample:
    n = len(boxes)
    none = np.zeros(n, dtype=bool)
    target = Target(
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.zeros(n, dtype=np.int64) if labels is None else np.array(labels),
        none,
        none,
        none if crowd is None else np.array(crowd),
        [rle(block(*box)) for box in boxes] if masks else None,
    )
    return Sample(f"{image_id}.png", Path(f"{image_id}.png"), image_id, target)


def result_of(image_id, box, score) -> dict:
    x0, y0, x1, y1 = box
    shape = {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": rle(block(*box))}
    return {"image_id": image_id, "category_id": 1, "score": score, **shape}


def random_boxes(rng, n) -> list[tuple[int, int, int, int]]:
    corners = rng.integers(0, [120, 90], (n, 2))
    sides = rng.integers(4, [n + 100, n + 90], (n, 2)) // rng.integers(1, 5, (n, 1)) + 2
    far = np.minimum(corners + sides, [SIZE[1], SIZE[0]])
    return [tuple(map(int, (*a, *b))) for a, b in zip(corners, far, strict=True)]


def random_case(rng, images=12):
    samples, results = [], []
    for i in rng.permutation(50)[:images].tolist():
        boxes = random_boxes(rng, int(rng.integers(0, 6)))
        samples.append(sample_of(i, boxes, crowd=rng.random(len(boxes)) < 0.15, labels=rng.integers(0, 3, len(boxes))))
        near = [np.clip(np.array(box) + rng.integers(-4, 5, 4), 0, [160, 120] * 2).tolist() for box in boxes]
        near += random_boxes(rng, int(rng.integers(0, 4)))
        near = [box for box in near if box[2] > box[0] and box[3] > box[1]]
        results += [result_of(i, box, float(rng.random())) for box in near]
    return samples, results


def by_pycocotools(results, samples, kind, max_dets=(1, 10, 100)) -> dict[str, float | None]:
    """COCO's own numbers from COCO's own files, the categories of the objects rewritten to one."""
    annotations = []
    for sample in samples:
        for n, box in enumerate(sample.target.boxes.tolist()):
            mask = sample.target.masks[n]
            annotations.append({
                "id": len(annotations) + 1, "image_id": sample.image_id, "category_id": 1, "segmentation": mask,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]], "area": int(coco_mask.area(mask)),
                "iscrowd": int(sample.target.crowd[n]),
            })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        images = [{"id": s.image_id, "height": SIZE[0], "width": SIZE[1]} for s in samples]
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
        truth.createIndex()
        keys = ("image_id", "category_id", "score", {"segm": "segmentation", "bbox": "bbox"}[kind])
        found = truth.loadRes([{key: result[key] for key in keys} for result in json.loads(json.dumps(results))])
        judge = COCOeval(truth, found, kind)
        judge.params.maxDets = list(max_dets)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {name: None if v == -1 else 100 * v for name, v in zip(NAMES, judge.stats.tolist(), strict=True)}


def values_of(scores) -> dict[str, float | None]:
    return {name: interval.value for name, interval in scores.values.items()}


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_numbers_are_those_of_pycocotools(rng, kind):
    for _ in range(8):
        samples, results = random_case(rng)
        ours, theirs = values_of(class_agnostic(results, samples, kind, resamples=0)), {}
        theirs = by_pycocotools(results, samples, kind)
        assert list(ours) == NAMES
        for name in NAMES:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-9), name


def test_more_results_an_image(rng):
    samples, results = random_case(rng)
    many = class_agnostic(results, samples, max_dets=(2, 5, 1000), resamples=0)
    theirs = by_pycocotools(results, samples, "segm", (2, 5, 1000))
    assert many.values["AR1000"].value == pytest.approx(theirs["AR100"])
    assert many.values["AR2"].value == pytest.approx(theirs["AR1"])
    assert many.values["AP"].value >= class_agnostic(results, samples, max_dets=(1,), resamples=0).values["AP"].value


def test_by_hand():
    # one of two objects found with IoU .8 (7 of 10 thresholds), after a result that finds nothing
    samples = [sample_of(1, [(0, 0, 40, 40), (80, 80, 120, 120)])]
    results = [result_of(1, (100, 0, 140, 40), 0.9), result_of(1, (0, 0, 32, 40), 0.8)]
    values = values_of(class_agnostic(results, samples))
    precision = 51 / 101 / 2  # one half at the recalls 0, .01, … .5
    assert values["AP50"] == values["AP75"] == pytest.approx(100 * precision)
    assert values["AP"] == pytest.approx(70 * precision)
    assert values["AR1"] == 0
    assert values["AR10"] == values["AR_M"] == pytest.approx(35)
    assert values["AP_S"] is None and values["AR_L"] is None


def test_perfect_results_score_a_hundred():
    samples = [sample_of(i, [(0, 0, 20, 20), (30, 30, 90, 90)], labels=[0, 5]) for i in (3, 1)]
    results = [result_of(i, box, 1.0) for i in (1, 3) for box in [(0, 0, 20, 20), (30, 30, 90, 90)]]
    for kind in ("segm", "bbox"):
        scores = class_agnostic(results, samples, kind, resamples=20)
        assert scores.values["AP"] == (pytest.approx(100), pytest.approx(100), pytest.approx(100))
        assert scores.values["AR1"].value == pytest.approx(50)
        assert scores.values["AR100"].value == pytest.approx(100)


def test_crowds_are_regions_where_nothing_counts():
    samples = [sample_of(1, [(0, 0, 40, 40), (60, 0, 160, 100)], crowd=[False, True])]
    right, in_crowd = result_of(1, (0, 0, 40, 40), 0.5), result_of(1, (70, 10, 90, 30), 0.9)
    scores = class_agnostic([right, in_crowd], samples)
    assert scores.values["AP"].value == pytest.approx(100)
    assert (scores.objects, scores.results) == (1, 2)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_shuffling_equal_scores_changes_nothing(rng, kind):
    samples, results = random_case(rng)
    for result in results:
        result["score"] = float(rng.integers(1, 3)) / 2  # ties everywhere
    results += results[:5]  # and results that are equal in everything
    expected = class_agnostic(results, samples, kind, max_dets=(1, 2, 100), resamples=20)
    for _ in range(5):
        shuffled = [results[i] for i in rng.permutation(len(results))]
        images = [samples[i] for i in rng.permutation(len(samples))]
        again = class_agnostic(shuffled, images, kind, max_dets=(1, 2, 100), resamples=20)
        assert again.values == expected.values
        assert np.array_equal(again.draws, expected.draws, equal_nan=True)


def test_of_equal_scores_the_larger_comes_first():
    for left, right in [((0, 0, 40, 40), (100, 80, 110, 90)), ((0, 0, 10, 10), (100, 70, 140, 110))]:
        for truth in (left, right):  # whichever is the larger, and whichever of their run lengths sorts first
            small, large = sorted((left, right), key=lambda box: box[2] - box[0])
            expected = 100 if truth == large else 0
            for order in ([small, large], [large, small]):
                results = [result_of(1, box, 0.5) for box in order]
                assert class_agnostic(results, [sample_of(1, [truth])]).values["AR1"].value == pytest.approx(expected)


def test_intervals_are_those_of_images_drawn_and_measured_again(rng):
    samples, results = random_case(rng, images=6)
    scores = class_agnostic(results, samples, resamples=40, seed=5)
    drawn = np.random.default_rng(5).integers(0, 6, (40, 6))
    ordered = sorted(samples, key=lambda s: s.image_id)
    for row, draw in zip(scores.draws[:6], drawn, strict=False):
        copies, found = [], []
        for n, i in enumerate(draw.tolist()):  # every copy as an image of its own
            copies.append(Sample(f"{n}", Path(f"{n}"), n, ordered[i].target))
            found += [{**r, "image_id": n} for r in results if r["image_id"] == ordered[i].image_id]
        expected = [v if v is not None else np.nan for v in by_pycocotools(found, copies, "segm").values()]
        np.testing.assert_allclose(row, expected, atol=1e-9)
    present = [i for i in range(len(NAMES)) if scores.values[NAMES[i]].value is not None]
    assert len(present) >= 8
    for i in present:
        low, high = np.nanpercentile(scores.draws[:, i], [2.5, 97.5])
        assert scores.values[NAMES[i]][1:] == (pytest.approx(low), pytest.approx(high))


def test_one_image_with_objects_of_a_size_has_no_interval():
    """Drawn or not, it is that image: an interval without width would look certain."""
    samples = [sample_of(1, [(0, 0, 40, 40), (50, 0, 160, 110)]), sample_of(2, [(0, 0, 40, 40)]), sample_of(3, [])]
    results = [result_of(1, (50, 0, 160, 110), 0.5), result_of(2, (0, 0, 40, 40), 0.9)]
    scores = class_agnostic(results, samples, resamples=50)
    assert scores.values["AR_L"] == (pytest.approx(100), None, None)
    assert scores.values["AR_M"].value == pytest.approx(50) and scores.values["AR_M"].high == pytest.approx(100)
    assert precision_difference(scores, scores)["AR_L"] == (0, None, None)
    assert precision_difference(scores, scores)["AR_M"] == (0, 0, 0)


def test_differences_are_paired(rng):
    samples, results = random_case(rng, images=20)
    a, b = (class_agnostic(found, samples, resamples=50) for found in (results, results[::2]))
    gain = precision_difference(a, b)
    assert gain["AR100"].value == pytest.approx(a.values["AR100"].value - b.values["AR100"].value)
    assert gain["AR100"].low >= 0  # more results never recall less
    assert precision_difference(a, a)["AP"] == (0, 0, 0)
    with pytest.raises(ParameterError, match="same images, draws and figures: A has 20 images and 50 draws"):
        precision_difference(a, class_agnostic(results, samples, resamples=10))


def test_no_results_are_zero_and_no_objects_are_not_available():
    samples = [sample_of(1, [(0, 0, 40, 40)]), sample_of(2, [])]
    values = values_of(class_agnostic([], samples))
    assert values["AP"] == values["AR100"] == values["AP_M"] == 0
    assert values["AP_L"] is None
    found = [result_of(2, (0, 0, 40, 40), 1.0)]
    for empty in ([sample_of(2, [])], [sample_of(2, [(0, 0, 9, 9)], crowd=[True])], [Sample("2", Path("2"), 2, None)]):
        scores = class_agnostic(found, empty)
        assert set(scores.values.values()) == {(None, None, None)}
        assert scores.objects == 0
    assert values_of(class_agnostic([], []))["AP"] is None
    only_empty = class_agnostic([], [sample_of(2, [], masks=False)])
    assert only_empty.values["AP"].value is None


def test_an_image_without_objects_counts_and_one_without_annotation_does_not():
    right = result_of(1, (0, 0, 40, 40), 0.5)
    wrong = result_of(2, (0, 0, 40, 40), 0.9)
    empty = class_agnostic([right, wrong], [sample_of(1, [(0, 0, 40, 40)]), sample_of(2, [])])
    unknown = class_agnostic([right, wrong], [sample_of(1, [(0, 0, 40, 40)]), Sample("2", Path("2"), 2, None)])
    assert empty.values["AP"].value == pytest.approx(50)
    assert unknown.values["AP"].value == pytest.approx(100)
    assert unknown.values["AP"].low is None  # one annotated image
    assert (unknown.images, unknown.results) == ((1,), 1)


def test_it_prints_nothing_and_leaves_its_input_alone(rng, capsys):
    samples, results = random_case(rng)
    before = json.dumps(results)
    class_agnostic(results, samples, resamples=2)
    assert json.dumps(results) == before
    assert capsys.readouterr().out == ""


def test_errors():
    samples = [sample_of(1, [(0, 0, 40, 40)])]
    good = result_of(1, (0, 0, 40, 40), 0.5)
    bad = [
        ({"image_id": 7}, "segm", "result 1 is of image_id 7, which no sample has"),
        ({"score": float("nan")}, "segm", "result 1 has the score nan"),
        ({"score": None}, "segm", "result 1 has the score None"),
        ({"segmentation": None}, "segm", "result 1 has no segmentation in run lengths"),
        ({"segmentation": [[0, 0, 4, 0, 4, 4]]}, "segm", "result 1 has no segmentation in run lengths"),
        ({"segmentation": rle(np.ones((4, 5)))}, "segm", "result 1 has a mask of 4×5 pixels, .* with 120×160"),
        ({"bbox": [0, 0, 4]}, "bbox", "result 1 has the bbox"),
        ({"bbox": [0, 0, -4, 4]}, "bbox", "result 1 has the bbox"),
        ({"bbox": [0, "0", 4, 4]}, "bbox", "result 1 has the bbox"),
    ]
    for change, kind, message in bad:
        with pytest.raises(ParameterError, match=message):
            class_agnostic([good, good | change], samples, kind)
    with pytest.raises(ParameterError, match="kind is 'mask': choose one of segm, bbox"):
        class_agnostic([good], samples, "mask")
    with pytest.raises(ParameterError, match=r"max_dets is \[10, 1\]"):
        class_agnostic([good], samples, max_dets=(10, 1))
    with pytest.raises(ParameterError, match="confidence is 95"):
        class_agnostic([good], samples, confidence=95.0)
    with pytest.raises(ParameterError, match="one image id"):
        class_agnostic([good], samples * 2)
    boxes_only = [sample_of(1, [(0, 0, 40, 40)], masks=False)]
    with pytest.raises(ParameterError, match=r"1\.png: its objects have boxes but no masks"):
        class_agnostic([good], boxes_only)
    assert class_agnostic([good], boxes_only, "bbox").values["AP"].value == pytest.approx(100)
