"""Crops by hand, against both recipes written plainly, and what is refused."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.transforms import functional as tv

from foundling.categories.crops import (
    comus_crop,
    lost_crop,
    lost_size,
    objects_of_found,
    objects_of_masks,
    objects_of_targets,
    window,
)
from foundling.discovery.stream import Found
from foundling.errors import ImageError, ParameterError
from foundling.types import Sample, Target

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(height=40, width=60, seed=0) -> torch.Tensor:
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def box(*corners) -> np.ndarray:
    return np.array(corners, dtype=np.float64)


def filled(height, width, top, bottom, left, right) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def run_lengths(mask) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_the_window_is_the_tight_half_open_box_of_the_mask():
    mask = filled(10, 20, 2, 5, 3, 9) | filled(10, 20, 7, 8, 15, 16)
    assert window(box(0, 0, 1, 1), mask, (10, 20)) == (2, 8, 3, 16)


@pytest.mark.parametrize(
    ("corners", "expected"),
    [((3, 2, 9, 5), (2, 5, 3, 9)), ((2.6, 1.5, 9.4, 5.2), (2, 5, 3, 9)), ((-4, -4, 99, 99), (0, 10, 0, 20))],
)
def test_a_box_is_rounded_and_clipped(corners, expected):
    assert window(box(*corners), None, (10, 20)) == expected


@pytest.mark.parametrize(
    ("corners", "mask", "message"),
    [
        ((3, 2, 3.4, 5), None, r"its box \(3, 2, 3.4, 5\) holds no pixel of an image of 20×10: leave the object out"),
        ((30, 2, 40, 5), None, "holds no pixel"),
        ((9, 2, 3, 5), None, "holds no pixel"),
        ((np.nan, 2, 3, 5), None, "is not finite"),
        ((0, 0, 5, 5), np.zeros((10, 20), bool), "its mask is empty"),
        ((0, 0, 5, 5), np.ones((20, 10), bool), "its mask is 10×20 pixels and its image 20×10"),
    ],
)
def test_what_has_no_pixel_is_refused(corners, mask, message):
    with pytest.raises(ImageError, match=message):
        window(box(*corners), mask, (10, 20))


def test_a_comus_crop_of_a_crop_that_has_the_side_is_its_pixels():
    """No margin, background kept, aspect of the object lost: an 8 × 8 object is not touched but for the scale."""
    image, mask = picture(), filled(40, 60, 4, 12, 20, 28)
    mask[5, 21] = False
    crop = comus_crop(image, box(0, 0, 1, 1), mask, 8, MEAN, STD)
    plain = (image[4:12, 20:28].numpy() / 255 - MEAN) / STD
    np.testing.assert_allclose(crop.pixels.permute(1, 2, 0), plain, atol=1e-6)
    assert crop.inside is not None and crop.inside.numpy().tolist() == mask[4:12, 20:28].tolist()


def test_comus_loses_the_aspect_and_lost_keeps_it():
    image = picture()
    assert comus_crop(image, box(0, 10, 60, 30), None, 16, MEAN, STD).pixels.shape == (3, 16, 16)
    assert lost_crop(image, box(0, 10, 60, 30), None, 16, MEAN, STD).pixels.shape == (3, 16, 48)


@pytest.mark.parametrize(
    ("size", "expected"), [((20, 30), (256, 384)), ((30, 20), (384, 256)), ((7, 7), (256, 256)), ((30, 40), (256, 341))]
)
def test_the_long_side_is_rounded_down(size, expected):
    assert lost_size(size, 256) == expected


def test_a_lost_crop_is_that_of_the_published_steps():
    """Normalise the image, cut, torchvision's bicubic resize of the short side without antialiasing."""
    image = picture(50, 70)
    whole = tv.normalize(image.permute(2, 0, 1).float() / 255, list(MEAN), list(STD))
    cut = whole[:, round(6.6) : round(31.2), round(10.4) : round(55.5)]
    theirs = tv.resize(cut, [32], interpolation=tv.InterpolationMode.BICUBIC, antialias=False)
    ours = lost_crop(image, box(10.4, 6.6, 55.5, 31.2), None, 32, MEAN, STD).pixels
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("side", [32, 12])
def test_a_comus_crop_is_that_of_the_published_steps(side):
    """Cut, bilinear between the four nearest pixels (written out; OpenCV's has 11 bits of a weight), normalise."""
    image, mask = picture(50, 70), filled(50, 70, 7, 31, 10, 56)
    cut = image[7:31, 10:56].numpy().astype(float)
    y, x = (((np.arange(side) + 0.5) * length / side - 0.5).clip(0, length - 1) for length in cut.shape[:2])
    (y0, x0), (y1, x1) = (y.astype(int), x.astype(int)), (np.ceil(y).astype(int), np.ceil(x).astype(int))
    down, across = (y - y0)[:, None, None], (x - x0)[None, :, None]
    above = cut[y0][:, x0] * (1 - across) + cut[y0][:, x1] * across
    below = cut[y1][:, x0] * (1 - across) + cut[y1][:, x1] * across
    theirs = ((above * (1 - down) + below * down) / 255 - MEAN) / STD
    ours = comus_crop(image, box(0, 0, 1, 1), mask, side, MEAN, STD).pixels.permute(1, 2, 0)
    np.testing.assert_allclose(ours, theirs, atol=1.01 / 255 / min(STD))


def test_flipping_the_image_flips_the_crop():
    image = picture(40, 60)
    for cut in (comus_crop, lost_crop):
        one = cut(image, box(10, 4, 50, 36), None, 32, MEAN, STD).pixels
        other = cut(image.flip(1), box(10, 4, 50, 36), None, 32, MEAN, STD).pixels
        np.testing.assert_allclose(one, other.flip(2), atol=0.02 if cut is comus_crop else 1e-5)


def test_lost_takes_the_box_whatever_the_mask():
    image, mask = picture(), filled(40, 60, 12, 20, 20, 28)
    crop = lost_crop(image, box(16, 8, 32, 24), mask, 16, MEAN, STD)
    assert crop.inside is not None
    assert crop.inside.sum() == 64 and crop.inside[4:12, 4:12].all()


def test_lost_refuses_what_is_far_too_long():
    with pytest.raises(ImageError, match="box of 60×3 pixels is more than 16 times as long"):
        lost_crop(picture(), box(0, 0, 60, 3), None, 16, MEAN, STD)
    assert comus_crop(picture(), box(0, 0, 60, 3), None, 16, MEAN, STD).pixels.shape == (3, 16, 16)


def sample(name="a", target=None) -> Sample:
    from pathlib import Path

    return Sample(name, Path(f"{name}.png"), 1, target)


def test_objects_of_targets_leave_out_crowds():
    flags = np.array([False, True, False])
    target = Target(np.arange(12.0).reshape(3, 4), np.array([5, 6, 7]), flags, flags, flags)
    objects = objects_of_targets([sample("a"), sample("b", target)])
    assert objects.images.tolist() == [1, 1] and objects.parts.tolist() == [0, 2] and objects.names == ("b", "b")
    assert objects.boxes.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]] and objects.masks == (None, None)


def test_objects_of_masks_are_larger_than_400_pixels():
    """All components are one object in the box of them all; a mask of exactly 400 pixels is dropped, as published."""
    two = filled(60, 60, 0, 20, 0, 20) | filled(60, 60, 50, 51, 58, 59)
    masks = [run_lengths(filled(60, 60, 0, 20, 0, 20)), None, run_lengths(two)]
    objects = objects_of_masks([sample("a"), sample("b"), sample("c")], masks)
    assert objects.images.tolist() == [2] and objects.boxes.tolist() == [[0, 0, 59, 51]]
    with pytest.raises(ParameterError, match="3 masks for 1 images"):
        objects_of_masks([sample("a")], masks)


def found_two() -> Found:
    masks = [
        {"size": [2, 3], "counts": run_lengths(filled(2, 3, 0, 1, 0, 2))["counts"].decode()},
        {"size": [2, 3], "counts": run_lengths(filled(2, 3, 1, 2, 1, 3))["counts"].decode()},
    ]
    result = {"boxes": [[0.0, 0.0, 16.0, 8.0], [8.0, 8.0, 24.0, 16.0]], "scores": [0.2, 0.9], "masks": masks}
    nothing = {"boxes": [], "scores": [], "masks": []}
    base = {"size": [16, 24], "seen": [16, 24], "grid": [2, 3], "patch_size": 8}
    records = [
        {"name": "a", "index": 0, **base, "methods": {"m": result}},
        {"name": "b", "index": 1, **base, "methods": {"m": nothing}},
    ]
    boxes = {"m": np.array([[8.0, 8, 24, 16], [np.nan] * 4])}
    return Found(("a", "b"), np.array([[16, 24]] * 2), boxes, records, [], {})


def test_objects_of_found_are_the_best_or_all():
    best = objects_of_found(found_two(), "m")
    assert best.parts.tolist() == [1] and best.boxes.tolist() == [[8, 8, 24, 16]] and best.masks == (None,)
    every = objects_of_found(found_two(), "m", masks=True, best=False)
    assert every.parts.tolist() == [0, 1] and every.scores.tolist() == [0.2, 0.9]
    mask = every.masks[1]
    assert mask is not None and mask["size"] == [16, 24]
    with pytest.raises(ParameterError, match="no results under 'x': choose one of m"):
        objects_of_found(found_two(), "x")


def test_rows_are_chosen_by_position_or_mask():
    every = objects_of_found(found_two(), "m", best=False)
    assert every[np.array([False, True])].parts.tolist() == [1]
    assert every[[1, 0]].parts.tolist() == [1, 0] and len(every[[]]) == 0
