"""Recall by number of instances: by hand, against loops over pixels, what must not change it, and bad input."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from foundling.errors import ParameterError
from foundling.evaluation import instance_recall, recall_difference
from foundling.evaluation.recall import BUCKETS, FATES, GROUPS, MEASURES, image_instances, summarise_instances
from foundling.types import Target

SIZE = (8, 12)


def rle(mask) -> dict:
    return coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))


def block(y0, y1, x0, x1, size=SIZE) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def target_of(masks, labels, crowd=None) -> Target:
    """A target with these masks; its boxes play no part."""
    none = np.zeros(len(masks), dtype=bool)
    return Target(
        np.tile([0.0, 0.0, 1.0, 1.0], (len(masks), 1)),
        np.array(labels, dtype=np.int64).reshape(-1),
        none,
        none,
        none if crowd is None else np.array(crowd),
        [rle(mask) for mask in masks],
    )


LEFT, MIDDLE, RIGHT = block(0, 4, 0, 4), block(0, 4, 4, 8), block(0, 4, 8, 12)  # 16 pixels each


def fates_of(proposals, truths, labels) -> list[str]:
    found = image_instances([rle(mask) for mask in proposals], target_of(truths, labels))
    return [FATES[i] for i in found.fate]


def naive(proposals, masks, labels, crowd):
    """Best IoU, n and fate of every instance, from the definitions in loops over all pixels."""

    def count(*flags):
        return sum(all(row) for row in zip(*(flag.ravel().tolist() for flag in flags), strict=True))

    rows = []
    real = [i for i in range(len(masks)) if not crowd[i]]
    for i in real:
        mates = [j for j in real if labels[j] == labels[i]]
        overlaps = []
        for p in proposals:
            shared = count(p, masks[i])
            union = count(p) + count(masks[i]) - shared
            overlaps.append(shared / union if union else 0.0)
        best = max(overlaps, default=0.0)
        merging = []
        for p, overlap in zip(proposals, overlaps, strict=True):
            if overlap == best and best > 0:
                covered = [j for j in mates if 2 * count(p, masks[j]) >= count(masks[j])]
                pixels = sum(count(p, masks[j]) for j in covered)
                merging.append(i in covered and len(covered) > 1 and 2 * pixels >= count(p))
        parts = [p for p in proposals if count(p) and 2 * count(p, masks[i]) >= count(p)]
        disjoint = any(count(a, b) == 0 for a in parts for b in parts)
        together = np.any(parts, axis=0) if parts else np.zeros(SIZE, dtype=bool)
        if merging and all(merging):
            fate = "merged"
        elif best >= 0.5:
            fate = "found"
        elif disjoint and 2 * count(together, masks[i]) >= count(masks[i]):
            fate = "split"
        else:
            fate = "missed"
        rows.append((best, len(mates), fate))
    return rows


def test_recall_by_hand():
    # a pair: the left found exactly, of the right 12 of 16 pixels (IoU .75: 6 of 10 thresholds); a single one: nothing
    truths = target_of([LEFT, RIGHT, block(5, 8, 0, 12)], [0, 0, 1])
    result = instance_recall([[rle(LEFT), rle(block(0, 3, 8, 12))]], [truths])
    assert result.groups["2"].recall.value == pytest.approx((100 + 60) / 2)
    assert result.groups["2+"].recall == result.groups["2"].recall
    assert result.groups["1"].recall.value == 0
    assert result.groups["all"].recall.value == pytest.approx(160 / 3)
    assert result.groups["all"].at_50.value == pytest.approx(200 / 3)
    for empty in ("3", "4", "5", "6+", "3+"):
        assert result.groups[empty].recall == (None, None, None)
        assert result.groups[empty].fates["merged"].value is None
        assert result.groups[empty].instances == 0
    assert list(result.groups) == list(GROUPS)


def test_micro_counts_instances_and_macro_counts_images():
    pair, alone = target_of([LEFT, RIGHT], [3, 3]), target_of([MIDDLE], [3])
    result = instance_recall([[rle(LEFT), rle(RIGHT)], []], [pair, alone])
    assert result.groups["all"].recall.value == pytest.approx(200 / 3)
    assert result.groups["all"].macro.value == pytest.approx(50)
    assert (result.groups["all"].instances, result.groups["all"].images) == (3, 2)


def test_thresholds_include_their_ends():
    truth = block(0, 4, 0, 5)  # 20 pixels: each further pixel of a proposal in it is .05
    for pixels in range(9, 21):
        part = np.zeros(SIZE, dtype=bool)
        part[np.nonzero(truth)[0][:pixels], np.nonzero(truth)[1][:pixels]] = True
        result = instance_recall([[rle(part)]], [target_of([truth], [0])])
        assert result.groups["1"].recall.value == pytest.approx(10 * min(10, max(0, pixels - 9)))


def test_buckets_count_instances_of_one_category_in_one_image():
    masks = [block(0, 1, i, i + 1) for i in range(11)]
    labels = [0] * 7 + [1] * 3 + [2]
    found = image_instances([], target_of(masks, labels))
    assert found.n.tolist() == [7] * 7 + [3] * 3 + [1]
    result = summarise_instances([found])
    assert [result.groups[name].instances for name in BUCKETS] == [1, 0, 3, 0, 0, 7]
    assert [result.groups[name].instances for name in ("2+", "3+", "all")] == [10, 10, 11]


def test_crowds_are_neither_counted_nor_instances():
    target = target_of([LEFT, RIGHT, MIDDLE], [0, 0, 0], crowd=[False, False, True])
    found = image_instances([rle(MIDDLE)], target)
    assert found.n.tolist() == [2, 2]
    assert found.object.tolist() == [0, 1]
    assert found.overlap.tolist() == [0, 0]


def test_perfect_proposals_recall_everything(rng):
    masks = [block(y, y + 2, x, x + 3) for y in range(0, 8, 2) for x in range(0, 12, 3)]
    labels = rng.integers(0, 4, len(masks))
    result = instance_recall([[rle(m) for m in masks]] * 3, [target_of(masks, labels)] * 3)
    for name in GROUPS:
        group = result.groups[name]
        if group.instances:
            assert group.recall == group.macro == group.fates["found"] == (100, 100, 100)


def test_agrees_with_loops_over_pixels(rng):
    seen = set()
    for _ in range(60):
        labels = rng.integers(0, 2, 5)
        crowd = rng.random(5) < 0.15
        owner = rng.integers(0, 7, (4, 6)).repeat(2, axis=0).repeat(2, axis=1)  # 5 and 6 are nobody's
        masks = [owner == i for i in range(5)]
        if not all(mask.any() for mask in masks):
            continue
        groups = [rng.random(7) < rng.choice([0.2, 0.4]) for _ in range(6)]
        proposals = [np.isin(owner, np.flatnonzero(group)) for group in groups]
        third = rng.integers(0, 3, SIZE)
        proposals += [masks[0] & (third == 0), masks[0] & (third == 1), np.zeros(SIZE, dtype=bool)]
        found = image_instances([rle(p) for p in proposals], target_of(masks, labels, crowd))
        expected = naive(proposals, masks, labels, crowd)
        np.testing.assert_allclose(found.overlap, [row[0] for row in expected], rtol=1e-12)
        assert found.n.tolist() == [row[1] for row in expected]
        assert [FATES[i] for i in found.fate] == [row[2] for row in expected]
        seen |= {row[2] for row in expected}
    assert seen == set(FATES)  # the cases above reach every one


def test_one_mask_over_two_instances_of_a_category_is_a_merge():
    both = LEFT | MIDDLE
    assert fates_of([both], [LEFT, MIDDLE], [0, 0]) == ["merged", "merged"]
    assert fates_of([both], [LEFT, MIDDLE], [0, 1]) == ["found", "found"]  # IoU .5 each, another category
    assert fates_of([both, LEFT], [LEFT, MIDDLE], [0, 0]) == ["found", "merged"]
    # half of the neighbour is enough, one pixel less is not
    assert fates_of([LEFT | block(0, 2, 4, 8)], [LEFT, MIDDLE], [0, 0])[0] == "merged"
    assert fates_of([LEFT | block(0, 1, 4, 8)], [LEFT, MIDDLE], [0, 0])[0] == "found"


def test_a_mask_of_the_background_is_no_merge():
    everything = np.ones(SIZE, dtype=bool)  # 96 pixels, of which two instances have 32, three have 48
    assert fates_of([everything], [LEFT, MIDDLE], [0, 0]) == ["missed", "missed"]
    assert fates_of([everything], [LEFT, MIDDLE, RIGHT], [0, 0, 0]) == ["merged"] * 3


def test_one_instance_in_several_masks_is_a_split():
    whole = block(0, 4, 0, 10)
    thirds = [block(0, 4, 0, 3), block(0, 4, 3, 6), block(0, 4, 6, 10)]
    assert fates_of(thirds, [whole], [0]) == ["split"]
    assert fates_of(thirds[:1], [whole], [0]) == ["missed"]
    assert fates_of([thirds[0], thirds[0]], [whole], [0]) == ["missed"]  # they share their pixels
    assert fates_of([block(0, 4, 0, 2), block(0, 4, 4, 6)], [whole], [0]) == ["missed"]  # less than half of it
    assert fates_of([*thirds, block(0, 4, 0, 6)], [whole], [0]) == ["found"]


def test_fates_add_up_and_are_counted_by_bucket():
    truths = target_of([LEFT, MIDDLE, block(5, 8, 0, 12)], [0, 0, 1])
    result = instance_recall([[rle(LEFT | MIDDLE)]], [truths])
    assert result.groups["2"].fates["merged"].value == 100
    assert result.groups["1"].fates["missed"].value == 100
    assert result.groups["all"].fates["merged"].value == pytest.approx(200 / 3)
    for name in ("1", "2", "all"):
        assert sum(share.value for share in result.groups[name].fates.values()) == pytest.approx(100)


def scene(rng, images=12):
    proposals, targets = [], []
    for _ in range(images):
        owner = rng.integers(0, 5, (4, 6)).repeat(2, axis=0).repeat(2, axis=1)
        masks = [owner == i for i in range(4) if (owner == i).any()]
        targets.append(target_of(masks, rng.integers(0, 2, len(masks))))
        proposals.append([np.isin(owner, rng.integers(0, 5, 2)) for _ in range(4)])
    return proposals, targets


def encoded(proposals):
    return [[rle(mask) for mask in masks] for masks in proposals]


def test_order_and_duplicates_of_proposals_change_nothing(rng):
    proposals, targets = scene(rng)
    expected = instance_recall(encoded(proposals), targets, resamples=50)
    shuffled = [[masks[i] for i in rng.permutation(len(masks))] for masks in proposals]
    assert instance_recall(encoded(shuffled), targets, resamples=50).groups == expected.groups
    doubled = [masks + masks[:2] for masks in proposals]
    assert instance_recall(encoded(doubled), targets, resamples=50).groups == expected.groups


def test_flipping_images_changes_nothing(rng):
    proposals, targets = scene(rng)
    expected = instance_recall(encoded(proposals), targets, resamples=50)
    flipped = [
        target_of([coco_mask.decode(m)[:, ::-1] for m in target.masks], target.labels.tolist()) for target in targets
    ]
    mirrored = [[mask[:, ::-1] for mask in masks] for masks in proposals]
    assert instance_recall(encoded(mirrored), flipped, resamples=50).groups == expected.groups


def test_masks_read_from_json_are_masks_too(rng):
    proposals, targets = scene(rng, images=2)
    text = [[{**m, "counts": m["counts"].decode()} for m in masks] for masks in encoded(proposals)]
    expected = instance_recall(encoded(proposals), targets, resamples=10)
    assert instance_recall(text, targets, resamples=10).groups == expected.groups


def test_differences_are_paired(rng):
    proposals, targets = scene(rng, images=30)
    fewer = [masks[:2] for masks in proposals]
    a, b = (instance_recall(encoded(p), targets, resamples=300) for p in (proposals, fewer))
    gain = recall_difference(a, b, resamples=300)
    for name in GROUPS:
        if a.groups[name].instances:
            expected = a.groups[name].recall.value - b.groups[name].recall.value
            assert gain[name].value == pytest.approx(expected)
    assert gain["all"].low >= 0  # more proposals never recall less
    alone = a.groups["all"].recall
    assert gain["all"].high - gain["all"].low < alone.high - alone.low + 1e-9
    assert recall_difference(a, a, resamples=50)["all"] == (0, 0, 0)
    for measure in MEASURES:
        assert set(recall_difference(a, b, measure, resamples=10)) == set(GROUPS)


def test_images_without_objects_or_proposals():
    crowd = target_of([LEFT], [0], crowd=[True])
    targets = [None, crowd, target_of([], []), target_of([LEFT], [0])]
    result = instance_recall([[rle(LEFT)], [rle(LEFT)], [], []], targets)
    assert (result.images, result.empty) == (4, 3)
    assert result.groups["1"].recall == (0, None, None)  # one image has no interval
    assert result.groups["1"].fates["missed"].value == 100
    nothing = instance_recall([], [])
    assert nothing.groups["all"].recall == (None, None, None)


def test_errors_name_the_image():
    target = target_of([LEFT], [0])
    boxes_only = Target(*(getattr(target, name) for name in ("boxes", "labels", "difficult", "truncated", "crowd")))
    with pytest.raises(ParameterError, match="image 1: its objects have boxes but no masks"):
        instance_recall([[], []], [target, boxes_only])
    with pytest.raises(ParameterError, match=r"image 0: masks of several sizes \(4×6, 8×12\)"):
        instance_recall([[rle(np.ones((4, 6)))]], [target])
    with pytest.raises(ParameterError, match="1 lists of proposals for 2 targets"):
        instance_recall([[]], [target, target])
    a, b = (instance_recall([[]], [t]) for t in (target, target_of([LEFT, RIGHT], [0, 0])))
    with pytest.raises(ParameterError, match="same instances"):
        recall_difference(a, b)
    with pytest.raises(ParameterError, match="unknown measure 'lost': choose one of recall, at_50, found"):
        recall_difference(a, a, "lost")
    with pytest.raises(ParameterError, match="unknown group '7'"):
        a.instances.in_group("7")
