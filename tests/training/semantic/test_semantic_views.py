"""Crops of images and label maps: together, of the areas and shapes that were asked for, and of any image."""

import math

import numpy as np
import pytest
import torch

from foundling.training.semantic.views import make_crops, random_window

AREAS = (0.5, 2.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_windows_lie_inside_and_have_the_areas_and_shapes_of_the_rule() -> None:
    draws = [random_window((375, 500), AREAS, generator(seed)) for seed in range(2000)]
    tops, lefts, heights, widths = np.array(draws).T
    assert (tops >= 0).all() and (lefts >= 0).all()
    assert (tops + heights <= 375).all() and (lefts + widths <= 500).all()
    assert (widths / heights > 0.74).all() and (widths / heights < 1.35).all()
    shares = heights * widths / (375 * 500)
    assert shares.min() > 0.49 and 0.6 < shares.mean() < 0.75
    whole = (heights == 375) & (widths == 500)  # of shape 4:3, which is legal: where ten draws did not fit
    assert 0.1 < whole.mean() < 0.2


def test_windows_come_from_everywhere() -> None:
    draws = np.array([random_window((64, 64), (0.25, 0.25), generator(seed)) for seed in range(600)])
    tops, lefts, heights, widths = draws.T
    assert tops.min() == 0 and (tops + heights).max() == 64
    assert lefts.min() == 0 and (lefts + widths).max() == 64
    shape = np.log(widths / heights)
    assert abs(shape.mean()) < 0.03 and shape.min() < -0.25 and shape.max() > 0.25  # as often wide as high


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 300), (0, 83, 100, 133)),
        ((300, 90), (90, 0, 120, 90)),
        ((1, 1), (0, 0, 1, 1)),
        ((90, 100), (0, 0, 90, 100)),
    ],
)
def test_what_never_fits_is_the_largest_legal_window_in_the_middle(
    size: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert random_window(size, (9.0, 9.0), generator()) == expected


def test_images_and_maps_are_cut_alike() -> None:
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 2, (3, 24, 32), dtype=np.uint8) * 255) for _ in range(20)]
    maps = [(image[0] > 0).to(torch.uint8) * 7 for image in images]
    crops = make_crops(images, maps, 128, (0.3, 0.5), generator())
    assert crops.images.shape == (20, 3, 128, 128) and crops.labels.shape == (20, 128, 128)
    assert set(crops.labels.unique().tolist()) == {0, 7}
    sure = (crops.images[:, 0] - 0.5).abs() > 0.49  # away from the edges of pixels
    assert sure.float().mean() > 0.1
    assert ((crops.images[:, 0] > 0.5) == (crops.labels > 0))[sure].float().mean() > 0.98


def test_whole_images_at_their_own_size_are_unchanged_or_mirrored() -> None:
    image = torch.arange(3 * 8 * 8, dtype=torch.uint8).view(3, 8, 8)
    labels = torch.arange(64, dtype=torch.uint8).view(8, 8)
    mirrored = 0
    for seed in range(40):
        crops = make_crops([image], [labels], 8, (1.0, 1.0), generator(seed))
        flip = not torch.equal(crops.labels[0], labels.long())
        mirrored += flip
        expected = image.flip(-1) if flip else image
        assert torch.allclose(crops.images[0] * 255, expected.float(), atol=1e-4)
        assert torch.equal(crops.labels[0], (labels.flip(-1) if flip else labels).long())
    assert 10 < mirrored < 30


def test_equal_generators_give_equal_crops() -> None:
    image, labels = torch.randint(256, (3, 30, 40), dtype=torch.uint8), torch.randint(5, (30, 40), dtype=torch.uint8)
    first, again, other = (make_crops([image], [labels], 16, AREAS, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)


def test_bilinear_by_its_definition() -> None:
    """Half a pixel is added and taken away (as in OpenCV), and nothing is smoothed where the image shrinks."""
    image = torch.randint(256, (3, 6, 6), dtype=torch.uint8)
    crops = make_crops([image], [torch.zeros(6, 6, dtype=torch.uint8)], 4, (1.0, 1.0), generator(1))
    expected = np.empty((3, 4, 4))
    for row, column in np.ndindex(4, 4):
        y, x = (row + 0.5) * 1.5 - 0.5, (column + 0.5) * 1.5 - 0.5
        top, left = math.floor(y), math.floor(x)
        a, b = y - top, x - left
        four = image[:, top : top + 2, left : left + 2].double().numpy()
        expected[:, row, column] = (
            (1 - a) * (1 - b) * four[:, 0, 0] + (1 - a) * b * four[:, 0, 1]
            + a * (1 - b) * four[:, 1, 0] + a * b * four[:, 1, 1]
        )  # fmt: skip
    found = crops.images[0].numpy() * 255
    assert np.allclose(found, expected, atol=1e-3) or np.allclose(found[..., ::-1], expected, atol=1e-3)
