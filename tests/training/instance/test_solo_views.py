"""What SOLOv2 sees of a batch: sizes, mirrors, what is pasted and what is not, and that seeds repeat all of it."""

from pathlib import Path

import pytest
import torch
from masked import SIDE, masked_images, rectangles, small
from torch import Generator, Tensor

from foundling.training.instance.images import MaskedBatch, MaskedImages
from foundling.training.instance.targets import boxes_of
from foundling.training.instance.views import (
    View,
    erase,
    fit,
    make_views,
    paste,
    paste_some,
    resize_masks,
    strong_image,
    weak_view,
)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def plain(colour: float, boxes: list[tuple[int, int, int, int]], size: tuple[int, int] = (8, 12)) -> View:
    return View(torch.full((3, *size), colour), rectangles(boxes, size), size[0])


def batch_of(folder: Path, count: int = 4) -> MaskedBatch:
    images = MaskedImages(*masked_images(folder, count))
    return MaskedBatch(*map(list, zip(*(images[i][:3] for i in range(count)), strict=True)))


# Sizes


def test_the_shorter_side_is_as_asked_unless_the_longer_gets_too_long() -> None:
    assert fit((480, 640), 800, 1333) == (800, 1067)
    assert fit((400, 1000), 800, 1333) == (533, 1333)
    assert fit((1000, 1), 16, 32) == (32, 1)


def test_masks_are_resized_to_the_nearest_pixel() -> None:
    mask = rectangles([(2, 0, 4, 2)], (4, 6))
    assert torch.equal(resize_masks(mask, (8, 12)), rectangles([(4, 0, 8, 4)], (8, 12)))
    assert torch.equal(resize_masks(mask, (2, 3)), rectangles([(1, 0, 2, 1)], (2, 3)))


# Copy and paste


def test_a_pasted_object_covers_and_carves_what_is_there() -> None:
    view, source = plain(0.25, [(0, 0, 6, 8), (8, 0, 12, 8)]), plain(0.75, [(4, 0, 7, 8)])
    found = paste(view, source, torch.tensor([0]), cover=0.5)
    assert torch.equal(found.masks, rectangles([(0, 0, 4, 8), (8, 0, 12, 8), (4, 0, 7, 8)], (8, 12)))
    assert torch.equal(found.image[0] == 0.75, found.masks[2]) and (found.image[0][~found.masks[2]] == 0.25).all()
    assert boxes_of(found.masks).tolist() == [[0, 0, 4, 8], [8, 0, 12, 8], [4, 0, 7, 8]]


def test_what_would_cover_half_of_an_object_is_not_pasted() -> None:
    view, source = plain(0.25, [(0, 0, 6, 8)]), plain(0.75, [(3, 0, 9, 8), (4, 0, 9, 8), (10, 0, 12, 8)])
    found = paste(view, source, torch.tensor([0, 2]), cover=0.5)  # the first covers exactly half
    assert torch.equal(found.masks, rectangles([(0, 0, 6, 8), (10, 0, 12, 8)], (8, 12)))
    assert paste(view, source, torch.tensor([0]), cover=0.5) is view
    assert len(paste(view, source, torch.tensor([1]), cover=0.5).masks) == 2


def test_an_object_of_which_nothing_is_left_is_dropped() -> None:
    view, source = plain(0.25, [(0, 0, 6, 8), (7, 0, 8, 8)]), plain(0.75, [(6, 0, 9, 8)])
    found = paste(view, source, torch.tensor([0]), cover=1.5)
    assert torch.equal(found.masks, rectangles([(0, 0, 6, 8), (6, 0, 9, 8)], (8, 12)))


def test_the_source_is_stretched_to_the_view() -> None:
    view, source = plain(0.25, [], (8, 12)), plain(0.75, [(0, 0, 3, 4)], (4, 6))
    assert torch.equal(paste(view, source, torch.tensor([0]), 0.5).masks, rectangles([(0, 0, 6, 8)], (8, 12)))


def test_from_none_to_all_objects_are_pasted_each_as_often() -> None:
    view, source = plain(0.25, []), plain(0.75, [(0, 0, 2, 2), (3, 0, 5, 2), (6, 0, 8, 2)])
    counts = [len(paste_some(view, source, 0.5, seeded(i)).masks) for i in range(400)]
    assert all(70 < counts.count(number) < 130 for number in range(4))


# Views


def test_a_weak_view_is_the_image_or_its_mirror_image() -> None:
    pixels = torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8, generator=seeded())
    masks, kinds = rectangles([(2, 3, 9, 20), (0, 0, 0, 0)], (SIDE, SIDE)), set()
    for seed in range(8):
        view = weak_view(pixels, masks, small(bottom=5), seeded(seed))
        mirrored = bool(view.masks[0, 10, 25])
        expected: Tensor = pixels.flip(-1) if mirrored else pixels
        assert torch.equal(view.image, expected / 255) and view.rows == SIDE - 5
        assert torch.equal(view.masks[0], masks[0].flip(-1) if mirrored else masks[0])
        assert len(view.masks) == 1  # the empty one is gone
        kinds.add(mirrored)
    assert kinds == {True, False}
    twice = weak_view(pixels, masks, small(min_sizes=[2 * SIDE], bottom=5), seeded())
    assert twice.image.shape == (3, 2 * SIDE, 2 * SIDE) and twice.rows == 2 * (SIDE - 5)


def test_parts_are_painted_over_within_their_ranges() -> None:
    image = torch.full((3, 40, 60), 2.0)  # no colour that is drawn
    for seed in range(30):
        painted = (erase(image, seeded(seed), 0.05, 0.2, 0.3, 3.3) != 2.0).all(0)
        rows, columns = int(painted.any(1).sum()), int(painted.any(0).sum())
        assert painted.sum() == rows * columns and 0.04 < rows * columns / 2400 < 0.22
        assert 0.25 < rows / columns < 4
    assert torch.equal(erase(image, seeded(), 0.9, 0.95, 8.0, 8.0), image)  # nothing of this form fits


def test_colours_stay_as_they_are_where_nothing_is_to_change() -> None:
    image = torch.rand(3, 16, 16, generator=seeded())
    assert torch.equal(strong_image(image, small(strength=0.0, erase=0.0), seeded()), image)
    changed = [strong_image(image, small(strength=1.0, erase=1.0), seeded(i)) for i in range(8)]
    assert not any(torch.equal(one, image) for one in changed)
    assert all(one.min() >= 0 and one.max() <= 1 for one in changed)


def test_a_batch_is_a_function_of_the_seed(tmp_path: Path) -> None:
    batch, settings = batch_of(tmp_path), small(strength=1.0, erase=1.0, weak_views=True)
    first, again, other = (make_views(batch, settings, 32, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    assert len(first.images) == len(first.masks) == len(first.positives) == 8  # strong and weak
    assert all(len(masks) == 1 for masks in first.masks[4:])


def test_views_of_several_sizes_are_padded_and_beyond_the_image_nothing_is_alike(tmp_path: Path) -> None:
    pixels = [torch.full((3, 32, 32), 128, dtype=torch.uint8), torch.full((3, 32, 60), 128, dtype=torch.uint8)]
    masks = [rectangles([(4, 4, 20, 20)], (32, 32)), rectangles([(4, 4, 20, 20)], (32, 60))]
    settings = small(strength=0.0, copy_paste=False, bottom=4)
    views = make_views(MaskedBatch(pixels, masks, [torch.zeros(1, dtype=torch.int64)] * 2), settings, 32, seeded())
    assert views.images.shape == (2, 3, 32, 64) and views.masks[0].shape == (1, 8, 16)
    assert not views.images[0, :, :, 32:].any() and views.inside.sum() == 32 * 32 + 32 * 60
    assert views.alike is not None
    assert views.alike[0].any(0)[:7, :8].all() and not views.alike[0][:, :, 8:].any()  # the picture is of one colour
    assert not views.alike[:, :, 7:].any()  # the rows at the bottom do not count
    assert make_views(
        MaskedBatch(pixels, masks, []), small(pairwise_weight=0.0, copy_paste=False), 32, seeded()
    ).alike is None  # fmt: skip


def test_objects_too_small_for_a_cell_of_the_masks_are_left_out() -> None:
    pixels = torch.zeros(3, 32, 32, dtype=torch.uint8)
    masks = rectangles([(0, 0, 2, 2), (8, 8, 24, 24)], (32, 32))
    views = make_views(MaskedBatch([pixels], [masks], []), small(), 32, seeded())
    assert len(views.masks[0]) == 1 and views.positives[0].object.unique().tolist() == [0]


@pytest.mark.parametrize("cover", [0.5, 1.0])
def test_no_mask_is_ever_empty(tmp_path: Path, cover: float) -> None:
    batch = batch_of(tmp_path, 8)
    for seed in range(5):
        views = make_views(batch, small(paste_cover=cover), 32, seeded(seed))
        assert all(masks.flatten(1).any(1).all() for masks in views.masks)
