"""Views: windows, resampling against Pillow, masks against loops, colours against colorsys, the paper's chances."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.training import views
from foundling.training.views import (
    augment,
    carry_masks,
    crop,
    make_views,
    normalise,
    relative,
    sample_windows,
    spanning_window,
    warn_if_enlarged,
    whole,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def windows(*corners: float) -> torch.Tensor:
    return torch.tensor([corners], dtype=torch.float32)


# Windows


def test_windows_are_inside_and_of_legal_area_and_aspect(generator: torch.Generator) -> None:
    window = sample_windows(2000, generator, 0.2, 0.9)
    assert window.min() >= 0 and window.max() <= 1 + 1e-6
    width, height = (window[:, 2:] - window[:, :2]).unbind(1)
    inner = (width < 0.999) & (height < 0.999)  # not clipped
    area, aspect = (width * height)[inner], (width / height)[inner]
    assert 0.2 - 1e-5 <= area.min() < 0.22 and 0.85 < area.max() <= 0.9 + 1e-5
    assert 0.75 - 1e-4 <= aspect.min() < 0.8 and 1.25 < aspect.max() <= 4 / 3 + 1e-4
    assert abs(float(aspect.log().mean())) < 0.02


def test_spanning_window_is_the_smallest_that_holds_both() -> None:
    first, second = windows(0.1, 0.5, 0.4, 0.9), windows(0.3, 0.2, 0.8, 0.6)
    frame = spanning_window(first, second)
    torch.testing.assert_close(frame, windows(0.1, 0.2, 0.8, 0.9))
    torch.testing.assert_close(relative(first, frame), windows(0, 3 / 7, 3 / 7, 1))


# Resampling


@pytest.mark.parametrize("side", [5, 16, 31])
def test_crop_is_pillows_bicubic(generator: torch.Generator, side: int) -> None:
    images = torch.rand(4, 2, 20, 24, generator=generator)
    box = sample_windows(4, generator, 0.1)
    flips = torch.tensor([True, False, True, False])
    cut = crop(images, box, side, flips)
    scale = np.array([24, 20, 24, 20])
    for i in range(4):
        for channel in range(2):
            plane = Image.fromarray(images[i, channel].numpy(), mode="F")
            expected = np.asarray(
                plane.resize((side, side), Image.Resampling.BICUBIC, box=tuple(box[i].double().numpy() * scale))
            ).clip(0, 1)
            np.testing.assert_allclose(cut[i, channel], expected[:, ::-1] if flips[i] else expected, atol=2e-5)


def test_crop_cuts_what_the_window_says() -> None:
    maps = torch.arange(64.0).view(1, 1, 8, 8) / 64
    torch.testing.assert_close(crop(maps, windows(0.25, 0.125, 0.75, 0.625), 4), maps[..., 1:5, 2:6])
    torch.testing.assert_close(crop(maps, whole(1), 8, torch.tensor([True])), maps.flip(-1))


def test_masks_carried_by_hand() -> None:
    """Labels 0 1 / 2 3 in quarters; the right half is 1 over 3, mirrored it stays so; the top half mirrored is 1 0."""
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    masks = torch.nn.functional.one_hot(labels, 4).permute(2, 0, 1)[None].float()
    no, yes = torch.tensor([False]), torch.tensor([True])
    for flips in (no, yes):
        assert carry_masks(masks, windows(0.5, 0, 1, 1), flips, 2).argmax(1).tolist() == [[[1, 1], [3, 3]]]
    assert carry_masks(masks, windows(0, 0, 1, 0.5), no, 2).argmax(1).tolist() == [[[0, 1], [0, 1]]]
    assert carry_masks(masks, windows(0, 0, 1, 0.5), yes, 2).argmax(1).tolist() == [[[1, 0], [1, 0]]]


def naive_share(labels: np.ndarray, window: np.ndarray, mirrored: bool, side: int, k: int) -> np.ndarray:
    """The area of every label in every cell of a view, pixel by pixel, from the coordinates of their corners."""
    rows, columns = labels.shape
    x0, y0, x1, y1 = window * [columns, rows, columns, rows]
    share = np.zeros((k, side, side))
    for i in range(side):
        for j in range(side):
            left, right = x0 + (x1 - x0) * j / side, x0 + (x1 - x0) * (j + 1) / side
            top, bottom = y0 + (y1 - y0) * i / side, y0 + (y1 - y0) * (i + 1) / side
            for r in range(rows):
                for c in range(columns):
                    area = max(0, min(right, c + 1) - max(left, c)) * max(0, min(bottom, r + 1) - max(top, r))
                    share[labels[r, c], i, side - 1 - j if mirrored else j] += area
    return share


def test_masks_carried_are_those_that_cover_most_of_each_cell(generator: torch.Generator) -> None:
    k, count = 3, 6
    labels = torch.randint(0, k, (count, 6, 6), generator=generator)
    masks = torch.nn.functional.one_hot(labels, k).permute(0, 3, 1, 2).float()
    first, second = (sample_windows(count, generator, 0.2) for _ in range(2))
    window = relative(first, spanning_window(first, second))
    flips = torch.arange(count) % 2 == 0
    carried = carry_masks(masks, window, flips, 5)
    assert torch.equal(carried.sum(1), torch.ones(count, 5, 5)) and ((carried == 0) | (carried == 1)).all()
    checked = 0
    for i in range(count):
        share = naive_share(labels[i].numpy(), window[i].double().numpy(), bool(flips[i]), 5, k)
        most = np.sort(share, axis=0)
        sure = most[-1] - most[-2] > 1e-3  # not a tie
        checked += sure.sum()
        assert (carried[i].argmax(0).numpy() == share.argmax(0))[sure].all()
    assert checked > 0.9 * count * 25


@pytest.mark.parametrize("seed", range(6))
def test_masks_follow_the_picture_through_crop_and_flip(seed: int) -> None:
    """A picture painted with its own labels: after crop and flip its pixels say which mask each cell belongs to."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.nn.functional.one_hot(torch.randint(0, 3, (4, 6, 6), generator=generator), 3)
    masks = labels.permute(0, 3, 1, 2).float()
    painted = masks.repeat_interleave(16, -1).repeat_interleave(16, -2)  # 96 pixels, label = channel
    first, second = (sample_windows(4, generator, 0.2) for _ in range(2))
    frame = spanning_window(first, second)
    span = crop(painted, frame, 48)
    flips = torch.rand(4, generator=generator) < 0.5
    spanning = torch.nn.functional.one_hot(span.argmax(1), 3).permute(0, 3, 1, 2).float()
    carried = carry_masks(spanning, relative(first, frame), flips, 8)
    direct = crop(painted, first, 8, flips)
    sure = direct.max(1).values > 0.8  # cells that one label fills
    assert sure.any()
    assert torch.equal(carried.argmax(1)[sure], direct.argmax(1)[sure])


# Views


def test_views_have_their_sizes_and_the_span_keeps_its_colours(generator: torch.Generator) -> None:
    plain = torch.full((3, 3, 96, 96), 128, dtype=torch.uint8)
    seen = make_views(plain, generator, view_side=32, span_side=48, min_area=0.2)
    assert seen.span is not None and seen.span.shape == (3, 3, 48, 48)
    assert [v.shape for v in seen.images] == [(3, 3, 32, 32)] * 2
    grey = (128 / 255 - torch.tensor(views.MEAN)) / torch.tensor(views.STD)
    torch.testing.assert_close(seen.span, grey.view(1, 3, 1, 1).expand_as(seen.span))
    assert any(not torch.allclose(v[0], v[1]) for v in seen.images)  # each image has its own jitter


def test_windows_of_views_lie_in_the_span_or_else_in_the_image() -> None:
    images = torch.randint(0, 256, (5, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with_span = make_views(images, torch.Generator().manual_seed(3), 32, 32, 0.2)
    without = make_views(images, torch.Generator().manual_seed(3), 32, None, 0.2)
    assert without.span is None
    assert all(torch.equal(a, b) for a, b in zip(with_span.images, without.images, strict=True))
    frame = spanning_window(*without.windows)
    for inside, absolute in zip(with_span.windows, without.windows, strict=True):
        torch.testing.assert_close(inside, relative(absolute, frame))
    corners = torch.stack(with_span.windows)
    torch.testing.assert_close(corners[..., :2].amin(0), torch.zeros(5, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(corners[..., 2:].amax(0), torch.ones(5, 2), atol=1e-6, rtol=0)


def test_a_view_without_changes_of_colour_is_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLUR_PROBABILITY", "SOLARISE_PROBABILITY"):
        monkeypatch.setattr(views, name, (0.0, 0.0))
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    seen = make_views(images, torch.Generator().manual_seed(3), 24, None, 0.2, strength=0.0)
    for view, window, flips in zip(seen.images, seen.windows, seen.flips, strict=True):
        torch.testing.assert_close(view, normalise(crop(images / 255, window, 24, flips)), atol=1e-5, rtol=1e-5)
    assert 0 < torch.stack(seen.flips).sum() < 8


def test_small_images_are_enlarged_with_one_warning() -> None:
    warn_if_enlarged.cache_clear()
    with pytest.warns(UserWarning, match="images 20 pixels wide are enlarged to views of 24 .bicubic.") as caught:
        warn_if_enlarged(20, 24)
        warn_if_enlarged(20, 24)
        warn_if_enlarged(24, 24)
    assert len(caught) == 1
    small = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
    assert make_views(small, torch.Generator(), 24, 32).images[0].shape == (2, 3, 24, 24)


# Colours


def one(value: float) -> torch.Tensor:
    return torch.tensor(value).view(1, 1, 1, 1)


@pytest.mark.parametrize("amount", [-0.1, 0.0, 0.07, 1 / 3])
def test_hue_turns_as_in_colorsys(generator: torch.Generator, amount: float) -> None:
    image = torch.rand(1, 3, 6, 6, generator=generator)
    image[..., 0, :] = 0.3  # grey has no hue
    turned = views.turn_hue(image, one(amount))
    for r in range(6):
        for c in range(6):
            h, s, v = colorsys.rgb_to_hsv(*image[0, :, r, c].tolist())
            expected = colorsys.hsv_to_rgb((h + amount) % 1, s, v)
            assert turned[0, :, r, c].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("amount", [-0.2, 0.0, 0.2, 0.9])
def test_saturation_is_scaled_as_in_colorsys(generator: torch.Generator, amount: float) -> None:
    image = torch.rand(1, 3, 6, 6, generator=generator)
    image[..., 0, :] = 0.3
    changed = views.saturate(image, one(amount))
    for r in range(6):
        for c in range(6):
            h, s, v = colorsys.rgb_to_hsv(*image[0, :, r, c].tolist())
            expected = colorsys.hsv_to_rgb(h, min(1, s * (1 + amount)), v)
            assert changed[0, :, r, c].tolist() == pytest.approx(expected, abs=1e-5)


def test_brightness_contrast_grey_and_solarisation_by_hand() -> None:
    image = torch.tensor([[0.2, 0.6], [0.5, 0.5], [0.0, 1.0]]).view(1, 3, 1, 2)

    def rows(changed: torch.Tensor) -> list[float]:
        return changed.flatten().tolist()

    assert rows(views.brighten(image, one(0.4))) == pytest.approx([0.6, 1, 0.9, 0.9, 0.4, 1])
    assert rows(views.change_contrast(image, one(-0.5))) == pytest.approx([0.3, 0.5, 0.5, 0.5, 0.25, 0.75])
    assert rows(views.change_contrast(image, one(0.5))) == pytest.approx([0.1, 0.7, 0.5, 0.5, 0, 1])
    assert rows(views.grey(image)) == pytest.approx([0.3533, 0.5869] * 3)
    assert rows(views.invert_bright(image)) == pytest.approx([0.2, 0.4, 0.5, 0.5, 0, 0])


def test_blur_is_the_gaussian_cut_at_23_pixels() -> None:
    point = torch.zeros(1, 3, 224, 224)
    point[..., 100, 60] = 1
    for sigma in (2.0, 20.0):
        kernel = np.exp(-0.5 * (np.arange(-11, 12) / sigma) ** 2)
        kernel /= kernel.sum()
        expected = np.zeros((224, 224))
        expected[89:112, 49:72] = np.outer(kernel, kernel)
        blurred = views.blur_images(point, one(sigma))
        np.testing.assert_allclose(blurred[0, 1], expected, atol=1e-7)
    flat = torch.full((1, 3, 32, 32), 0.7)
    torch.testing.assert_close(views.blur_images(flat, one(0.3)), flat)


def naive_augment(images: torch.Tensor, seed: int, blur: float, solarise: float, strength: float) -> torch.Tensor:
    """Image by image, one change after the other, from the same numbers."""
    g, n = torch.Generator().manual_seed(seed), len(images)
    jittered, order = torch.rand(n, generator=g) < 0.8, torch.rand(n, 4, generator=g).argsort(1)
    amounts = (2 * torch.rand(n, 4, generator=g) - 1) * strength * torch.tensor([0.4, 0.4, 0.2, 0.1])
    greyed = torch.rand(n, generator=g) < 0.2 * strength
    blurred, sigma = torch.rand(n, generator=g) < blur, 0.1 + 1.9 * torch.rand(n, generator=g)
    inverted = torch.rand(n, generator=g) < solarise * strength
    changes = [views.brighten, views.change_contrast, views.saturate, views.turn_hue]
    result = []
    for i in range(n):
        x = images[i : i + 1]
        if jittered[i]:
            for which in order[i].tolist():
                x = changes[which](x, one(float(amounts[i, which])))
        x = views.grey(x) if greyed[i] else x
        x = views.blur_images(x, one(float(sigma[i]) * images.shape[-1] / 224)) if blurred[i] else x
        result.append(views.invert_bright(x) if inverted[i] else x)
    return torch.cat(result)


def test_augmentation_is_image_by_image_in_the_order_of_each(generator: torch.Generator) -> None:
    images = torch.rand(24, 3, 16, 16, generator=generator)
    before = images.clone()
    out = augment(images, torch.Generator().manual_seed(2), blur=0.5, solarise=0.5, strength=0.9)
    torch.testing.assert_close(out, naive_augment(images, 2, 0.5, 0.5, 0.9), atol=1e-5, rtol=1e-5)
    assert torch.equal(images, before)
    assert out.min() >= 0 and out.max() <= 1


def test_changes_come_as_often_as_the_paper_says(generator: torch.Generator) -> None:
    count = 4000
    images = torch.rand(count, 3, 2, 2, generator=generator) * 0.98

    def share(out: torch.Tensor) -> float:
        return float((out - images).abs().amax((1, 2, 3)).gt(1e-6).float().mean())

    def greys(out: torch.Tensor) -> float:
        return float((out.amax(1) - out.amin(1)).amax((1, 2)).lt(1e-6).float().mean())

    tolerance = 3 * (0.25 / count) ** 0.5
    full = augment(images, generator, blur=0.0, solarise=0.0)
    assert share(full) == pytest.approx(1 - 0.2 * 0.8, abs=tolerance)  # jitter or grey
    assert greys(full) == pytest.approx(0.2, abs=tolerance)
    assert greys(augment(images, generator, 0.0, 0.0, strength=0.5)) == pytest.approx(0.1, abs=tolerance)
    assert share(augment(images, generator, 0.0, 0.2, strength=0.0)) == 0


def test_blur_and_solarisation_come_as_often_as_asked(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "JITTER_PROBABILITY", 0.0)
    monkeypatch.setattr(views, "GREY_PROBABILITY", 0.0)
    monkeypatch.setattr(views, "BLUR_SIDE", 8)  # pixels of these small images
    monkeypatch.setattr(views, "BLUR_SIGMA", (1.0, 2.0))
    images = torch.rand(2000, 3, 8, 8, generator=generator) * 0.98
    for blur, solarise in ((0.3, 0.0), (0.0, 0.2)):
        out = augment(images, generator, blur, solarise)
        changed = (out - images).abs().amax((1, 2, 3)).gt(1e-6).float().mean()
        assert float(changed) == pytest.approx(blur + solarise, abs=3 * (0.25 / 2000) ** 0.5)


def test_the_first_view_is_always_blurred_and_only_the_second_solarised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(views, "augment", lambda images, generator, *chances: asked.append(chances) or images)
    make_views(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.Generator(), 16, None, 0.3, 0.7)
    assert asked == [(1.0, 0.0, 0.7), (0.1, 0.2, 0.7)]
