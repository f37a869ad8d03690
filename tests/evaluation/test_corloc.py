"""CorLoc by hand, against loops written from the definition, and its conventions one by one."""

import numpy as np
import pytest

from foundling.errors import FoundlingError
from foundling.evaluation import corloc, corloc_by_class
from foundling.types import Target


def target(boxes, labels=None, crowd=None, difficult=None) -> Target:
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    flags = np.zeros(len(corners), dtype=bool)
    return Target(
        corners,
        flags.astype(np.int64) if labels is None else np.array(labels, dtype=np.int64),
        flags if difficult is None else np.array(difficult),
        flags,
        flags if crowd is None else np.array(crowd),
    )


def boxes_of(*rows) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def overlap(a, b) -> float:
    """IoU of two boxes, in plain Python."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(area) - width * height)


def random_case(rng, images=60, classes=4):
    """Random boxes and targets with crowds, images without objects and failed images."""
    boxes, targets = [], []
    for _ in range(images):
        corners = rng.uniform(0, 60, (rng.integers(0, 4), 2))
        found = np.concatenate([corners, corners + rng.uniform(5, 40, corners.shape)], axis=1)
        targets.append(target(found, rng.integers(0, classes, len(found)), rng.random(len(found)) < 0.2))
        guess = found[0] + rng.normal(0, 2.5, 4) if len(found) else rng.uniform([0, 0, 50, 50], [50, 50, 99, 99])
        boxes.append(np.full(4, np.nan) if rng.random() < 0.1 else guess)
    return np.array(boxes), targets


def naive_corloc(boxes, targets, threshold, label=None):
    """Percent of the images with an object (of class ``label``) whose box reaches the threshold with one of them."""
    hits = counted = 0
    for box, truth in zip(boxes, targets, strict=True):
        objects = [
            truth.boxes[i]
            for i in range(len(truth))
            if not truth.crowd[i] and (label is None or truth.labels[i] == label)
        ]
        if not objects:
            continue
        counted += 1
        if not np.isnan(box).any() and any(overlap(box, one) >= threshold for one in objects):
            hits += 1
    return None if counted == 0 else 100 * hits / counted


SQUARE = [0, 0, 10, 10]


def test_by_hand():
    targets = [target([SQUARE]), target([[50, 50, 60, 60], SQUARE]), target([SQUARE]), target([])]
    boxes = boxes_of([0, 0, 10, 8], [1, 0, 10, 10], [8, 8, 20, 20], SQUARE)
    result = corloc(boxes, targets)
    assert result.value == pytest.approx(200 / 3)  # hit (0.8), hit (0.9, the second object), miss, not counted
    assert result.hits.tolist() == [True, True, False, False]
    assert result.counted.tolist() == [True, True, True, False]
    np.testing.assert_allclose(result.overlaps, [0.8, 0.9, 4 / 240, 0], atol=1e-12)
    assert result.low is not None and result.low < 200 / 3 < result.high


def test_exactly_half_is_a_hit_and_less_is_not():
    half, less = [0, 0, 10, 5], [0, 0, 10, np.nextafter(5, 0)]
    assert corloc(boxes_of(half, less), [target([SQUARE])] * 2).hits.tolist() == [True, False]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_agrees_with_a_loop(rng, threshold):
    boxes, targets = random_case(rng)
    result = corloc(boxes, targets, threshold)
    assert result.value == pytest.approx(naive_corloc(boxes, targets, threshold))
    assert 5 < result.value < 95
    classes = corloc_by_class(boxes, targets, ["cat", "dog", "bird", "pig"], threshold)
    for label, name in enumerate(["cat", "dog", "bird", "pig"]):
        assert classes[name].value == pytest.approx(naive_corloc(boxes, targets, threshold, label))


def test_the_order_of_images_and_objects_does_not_matter(rng):
    boxes, targets = random_case(rng)
    order = rng.permutation(len(boxes))
    reversed_targets = [target(t.boxes[::-1], t.labels[::-1], t.crowd[::-1]) for t in (targets[int(i)] for i in order)]
    shuffled, original = corloc(boxes[order], reversed_targets), corloc(boxes, targets)
    assert shuffled.value == original.value
    assert (shuffled.hits == original.hits[order]).all()


def test_mirrored_and_enlarged_images_give_the_same(rng):
    boxes, targets = random_case(rng)

    def moved(b):
        return np.stack([200 - b[:, 2], b[:, 1], 200 - b[:, 0], b[:, 3]], axis=1) * 4  # exact in binary

    again = corloc(moved(boxes), [target(moved(t.boxes), t.labels, t.crowd) for t in targets])
    np.testing.assert_allclose(again.overlaps, corloc(boxes, targets).overlaps, atol=1e-9)


def test_crowds_never_count_and_hard_objects_do():
    only_crowd = target([SQUARE], crowd=[True])
    hard = target([SQUARE], difficult=[True])
    result = corloc(boxes_of(SQUARE, SQUARE), [only_crowd, hard])
    assert result.counted.tolist() == [False, True]
    assert result.value == 100
    beside = target([SQUARE, [50, 50, 90, 90]], crowd=[True, False])
    assert corloc(boxes_of(SQUARE), [beside]).value == 0


def test_a_failed_image_is_a_miss_only_where_it_counts():
    failed = [np.nan] * 4
    result = corloc(boxes_of(SQUARE, failed, failed), [target([SQUARE]), target([SQUARE]), target([])])
    assert result.value == 50
    assert result.counted.tolist() == [True, True, False]


@pytest.mark.parametrize("targets", [[None, None], [target([]), None], []], ids=["unannotated", "empty", "no images"])
def test_nothing_to_count_is_not_available(targets):
    result = corloc(boxes_of(*[SQUARE] * len(targets)), targets)
    assert (result.value, result.low, result.high) == (None, None, None)
    assert not result.hits.any()


def test_all_hit_has_an_interval_without_width():
    result = corloc(boxes_of(SQUARE, SQUARE), [target([SQUARE])] * 2)
    assert (result.value, result.low, result.high) == (100, 100, 100)
    alone = corloc(boxes_of(SQUARE), [target([SQUARE])])
    assert (alone.value, alone.low, alone.high) == (100, None, None)


def test_classes_by_hand():
    both = target([SQUARE, [50, 50, 60, 60]], labels=[0, 1])
    result = corloc_by_class(boxes_of(SQUARE), [both], ["cat", "dog", "bird"])
    assert list(result) == ["cat", "dog", "bird"]
    assert [result[name].value for name in result] == [100, 0, None]  # the cat is found; no image holds a bird
    assert corloc(boxes_of(SQUARE), [both]).value == 100


def test_wrong_input_is_explained():
    with pytest.raises(FoundlingError, match=r"2 boxes for 1 targets.*one box an image"):
        corloc(boxes_of(SQUARE, SQUARE), [target([SQUARE])])
    with pytest.raises(FoundlingError, match=r"threshold is 50\.0: an IoU lies above 0 and at most at 1"):
        corloc(boxes_of(SQUARE), [target([SQUARE])], threshold=50.0)
    with pytest.raises(FoundlingError, match="label 3 has no category: labels run from 0 to 1"):
        corloc_by_class(boxes_of(SQUARE), [target([SQUARE], labels=[3])], ["cat", "dog"])


def test_photos_boxed_by_their_own_annotations_all_hit(shared):
    """Real COCO boxes: the largest object's own box hits; shrunk to less than half its area it may not."""
    import json

    listed = json.loads((shared / "photos" / "instances.json").read_text())
    by_image: dict[int, list] = {image["id"]: [] for image in listed["images"]}
    for note in listed["annotations"]:
        x, y, w, h = note["bbox"]
        by_image[note["image_id"]].append(([x, y, x + w, y + h], note["iscrowd"] == 1))
    targets = [target([b for b, _ in notes], crowd=[c for _, c in notes]) for notes in by_image.values()]
    largest = [max((b for b, c in n if not c), key=lambda b: (b[2] - b[0]) * (b[3] - b[1])) for n in by_image.values()]
    assert len(targets) == 80
    assert corloc(boxes_of(*largest), targets).value == 100
