"""Splitting, the saliency filter and suppression: by hand, against loops over pixels, and what must not change them."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from foundling.proposals import components, propose
from foundling.proposals.filters import encode
from foundling.types import ParameterError

SIZE = (6, 9)


def block(y0, y1, x0, x1) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def decoded(rles) -> list[list]:
    return [coco_mask.decode(rle).astype(bool).tolist() for rle in rles]


def propose_all(masks, levels=None, saliency=None, **settings):
    stack = np.reshape(masks, (-1, *SIZE)).astype(bool)
    return propose(
        stack, np.array([2] * len(stack) if levels is None else levels, dtype=np.int64), saliency, **settings
    )


def naive_components(mask, connectivity) -> list[frozenset]:
    """Flood fill, pixel by pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    parts = []
    while left:
        part, waiting = set(), [min(left, key=lambda pixel: (pixel[1], pixel[0]))]
        while waiting:
            y, x = waiting.pop()
            if (y, x) in left:
                left.remove((y, x))
                part.add((y, x))
                steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
                waiting += [(y + dy, x + dx) for dy, dx in steps if connectivity == 8 or 0 in (dy, dx)]
        parts.append(frozenset(part))
    return parts


def naive_proposals(masks, levels, saliency, connectivity=8, intersection=0.5, nms=0.8) -> list[frozenset]:
    """The rules of the paper on sets of pixels."""
    salient = {tuple(pixel) for pixel in np.argwhere(saliency).tolist()}
    candidates = []
    for mask, level in zip(masks, levels, strict=True):
        for part in naive_components(mask, connectivity):
            share = len(part & salient) / len(part)
            if share >= intersection:
                candidates.append((-share, -len(part), level, len(candidates), part))
    kept: list[frozenset] = []
    for *_, part in sorted(candidates, key=lambda c: c[:4]):
        if all(len(part & other) / len(part | other) <= nms for other in kept):
            kept.append(part)
    return kept


def pixels_of(rle) -> frozenset:
    return frozenset(map(tuple, np.argwhere(coco_mask.decode(rle)).tolist()))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_agree_with_flood_fill(rng, connectivity):
    for density in (0.0, 0.2, 0.5, 0.7, 1.0):
        mask = rng.random((7, 11)) < density
        found = components(mask, connectivity)
        assert [pixels_of(rle) for rle in found] == naive_components(mask, connectivity)
        again = [encode(coco_mask.decode(rle).astype(bool)) for rle in found]
        assert found == again  # the bytes that pycocotools would write


def test_diagonal_neighbours_are_one_component_of_eight_and_two_of_four():
    diagonal = block(0, 1, 0, 1) | block(1, 2, 1, 2)
    assert len(propose_all([diagonal]).masks) == 1
    assert len(propose_all([diagonal], connectivity=4).masks) == 2


def test_more_components_than_a_byte_counts():
    mask = np.zeros((40, 40), dtype=bool)
    mask[::2, ::2] = True
    result = propose(mask[None], np.array([2]), mask)
    assert len(result.masks) == 400
    assert result.areas.tolist() == [1] * 400


def test_components_replace_their_mask():
    both = block(0, 2, 0, 2) | block(3, 6, 5, 9)
    result = propose_all([both, block(0, 1, 0, 9)], levels=[3, 4])
    assert result.sources.tolist() == [0, 0, 1]
    assert result.levels.tolist() == [3, 3, 4]
    assert result.areas.tolist() == [4, 12, 9]
    assert decoded(result.pooled) == [both.tolist(), block(0, 1, 0, 9).tolist()]
    assert decoded(result.masks)[0] == block(3, 6, 5, 9).tolist()  # the largest first
    whole = propose_all([both], split=False)
    assert decoded(whole.masks) == [both.tolist()]


def test_half_in_the_salient_region_is_enough():
    saliency = block(0, 6, 0, 4)
    half, less = block(0, 1, 2, 6), block(5, 6, 1, 8)  # 2 of 4 pixels, 3 of 7
    result = propose_all([half, less], saliency=saliency)
    assert result.intersections.tolist() == [0.5, 3 / 7]
    assert result.dropped == ("", "saliency")
    assert decoded(result.masks) == [half.tolist()]
    assert result.scores.tolist() == [0.5]
    assert len(propose_all([half, less], saliency=saliency, intersection=None).masks) == 2
    assert len(propose_all([half, less], saliency=None).masks) == 2


def test_of_two_that_overlap_the_more_salient_stays_then_the_larger_then_the_smaller_k():
    larger, smaller = block(0, 2, 0, 9), block(0, 2, 0, 8)  # IoU 16 / 18
    result = propose_all([smaller, larger], levels=[2, 3], saliency=block(0, 2, 0, 8))
    assert decoded(result.masks) == [smaller.tolist()]
    assert result.dropped == ("", "duplicate")
    assert result.duplicate_of.tolist() == [-1, 0]
    assert decoded(propose_all([smaller, larger], levels=[2, 3]).masks) == [larger.tolist()]
    same = propose_all([larger, larger, larger], levels=[5, 3, 3])
    assert same.order.tolist() == [1]
    assert same.duplicate_of.tolist() == [1, -1, 1]


def test_an_overlap_of_exactly_the_threshold_is_kept():
    a, b = block(0, 1, 0, 5), block(0, 1, 0, 4)  # IoU .8
    assert len(propose_all([a, b]).masks) == 2
    assert len(propose_all([a, b], nms=0.79).masks) == 1
    assert len(propose_all([a, a], nms=None).masks) == 2


def test_what_was_suppressed_suppresses_nothing():
    # a over b and b over c above .6, but not a over c: c stays
    a, b, c = block(0, 1, 0, 8), block(0, 1, 1, 8), block(0, 1, 3, 8)
    result = propose_all([a, b, c], nms=0.65)
    assert result.order.tolist() == [0, 2]
    assert result.duplicate_of.tolist() == [-1, 0, -1]


def test_stages_tell_what_each_filter_left():
    both = block(0, 2, 0, 2) | block(3, 6, 5, 9)
    result = propose_all([both, block(0, 2, 0, 2)], saliency=block(0, 6, 0, 3))
    sizes = {name: len(masks) for name, masks in result.stages().items()}
    assert sizes == {"pooled": 2, "split": 3, "saliency": 2, "nms": 1}
    assert result.dropped == ("", "saliency", "duplicate")


@pytest.mark.parametrize("connectivity", [4, 8])
def test_agrees_with_sets_of_pixels(rng, connectivity):
    for _ in range(20):
        blobs = rng.integers(0, 4, (5, 3, 3)).repeat(2, axis=1).repeat(3, axis=2)
        masks = np.stack([labels == i for labels in blobs for i in range(3)])
        masks = np.concatenate([masks, masks[:3] ^ (rng.random((3, *SIZE)) < 0.03)])
        levels = rng.integers(2, 7, len(masks))
        saliency = rng.random(SIZE) < 0.6
        result = propose_all(masks, levels, saliency, connectivity=connectivity)
        assert [pixels_of(rle) for rle in result.masks] == naive_proposals(masks, levels, saliency, connectivity)


def test_a_mirrored_image_has_mirrored_proposals(rng):
    masks = rng.random((8, *SIZE)) < 0.5
    levels, saliency = np.arange(8), rng.random(SIZE) < 0.7
    plain = propose_all(masks, levels, saliency)
    mirrored = propose_all(masks[:, :, ::-1], levels, saliency[:, ::-1])
    expected = {
        (str(np.array(m)[:, ::-1].tolist()), s) for m, s in zip(decoded(plain.masks), plain.scores, strict=True)
    }
    assert expected == {(str(m), s) for m, s in zip(decoded(mirrored.masks), mirrored.scores, strict=True)}


def test_nothing_in_nothing_out():
    empty = propose_all([])
    assert empty.masks == [] and empty.scores.shape == (0,)
    nothing_salient = propose_all([block(0, 2, 0, 2)], saliency=np.zeros(SIZE, dtype=bool))
    assert nothing_salient.masks == []
    assert nothing_salient.dropped == ("saliency",)
    blank = np.zeros(SIZE, dtype=bool)
    assert propose_all([blank]).candidates == []  # it has no component
    kept = propose_all([blank, ~blank], split=False, saliency=~blank, intersection=None)
    assert kept.dropped == ("empty", "")


def test_errors():
    with pytest.raises(ParameterError, match="2 levels for 1 masks"):
        propose_all([block(0, 1, 0, 1)], levels=[2, 3])
    with pytest.raises(ParameterError, match="saliency has 3×4 pixels, the masks 6×9"):
        propose_all([block(0, 1, 0, 1)], saliency=np.ones((3, 4), dtype=bool))
    with pytest.raises(ParameterError, match=r"nms is 80.0: choose a share from 0 to 1"):
        propose_all([block(0, 1, 0, 1)], nms=80.0)
    with pytest.raises(ParameterError, match=r"intersection is -0\.5"):
        propose_all([block(0, 1, 0, 1)], intersection=-0.5)
    with pytest.raises(ParameterError, match="connectivity is 6: choose 4 or 8"):
        propose_all([block(0, 1, 0, 1)], connectivity=6)
