"""The colour controls: patch means and deviations of RGB or Lab, raw, centred or scaled per image."""

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.discovery import METHODS, lost, spectral_masks, tokencut
from foundling.discovery.colour import colour_features, colour_lost, colour_tokencut, with_colour_keys
from foundling.types import ParameterError, PatchFeatures


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def random_picture(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    return picture(rng.integers(0, 256, (height, width, 3)))


def naive(image: Image.Image, side: int) -> np.ndarray:
    """Patch by patch, with numpy's own mean and standard deviation."""
    pixels = np.asarray(image).astype(float) / 255
    patches = [
        pixels[y : y + side, x : x + side].reshape(-1, 3)
        for y in range(0, pixels.shape[0], side)
        for x in range(0, pixels.shape[1], side)
    ]
    values = np.array([np.concatenate([p.mean(0), p.std(0)]) for p in patches])
    return values - values.mean(0)


def test_two_plain_halves_are_told_apart_by_their_means() -> None:
    pixels = np.zeros((8, 16, 3))
    pixels[:, 8:] = (255, 51, 0)
    features = colour_features([picture(pixels)], patch_size=8)
    assert features.grid == (1, 2)
    expected = [[-0.5, -0.1, 0, 0, 0, 0], [0.5, 0.1, 0, 0, 0, 0]]
    np.testing.assert_allclose(features.facet("keys")[0], expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "side"), [(24, 32, 8), (21, 30, 8), (5, 40, 16)])
def test_equals_the_patches_one_by_one_also_at_ragged_edges(
    rng: np.random.Generator, height: int, width: int, side: int
) -> None:
    images = [random_picture(rng, height, width) for _ in range(2)]
    features = colour_features(images, side)
    assert features.grid == (-(-height // side), -(-width // side))
    for i, image in enumerate(images):
        np.testing.assert_allclose(features.facet("keys")[i], naive(image, side), atol=2e-5)


def test_mirrored_image_has_mirrored_features(rng: np.random.Generator) -> None:
    image = random_picture(rng, 24, 32)
    mirrored = colour_features([image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]).facet("keys")[0]
    straight = colour_features([image]).facet("keys")[0]
    torch.testing.assert_close(mirrored.view(3, 4, 6).flip(1), straight.view(3, 4, 6), atol=1e-5, rtol=0)


def test_lost_finds_a_plain_square_with_them() -> None:
    pixels = np.full((64, 64, 3), (40, 160, 60))
    pixels[16:32, 24:48] = (220, 40, 200)
    box = lost(colour_features([picture(pixels)]), k=1)[0].boxes[0]
    np.testing.assert_array_equal(box, [24, 16, 48, 32])


def test_errors_name_what_is_wrong(rng: np.random.Generator) -> None:
    images = [random_picture(rng, 16, 16), random_picture(rng, 16, 24)]
    with pytest.raises(ParameterError, match="16x16 and 24x16"):
        colour_features(images)
    with pytest.raises(ParameterError, match="at least one image"):
        colour_features([])
    with pytest.raises(ParameterError, match="patch_size is 0"):
        colour_features(images[:1], patch_size=0)
    with pytest.raises(ParameterError, match="2 names for 1 images"):
        colour_features(images[:1], names=["a", "b"])


def test_the_control_is_lost_on_colours_and_finds_a_spot_that_differs() -> None:
    pixels = np.full((64, 80, 3), 40)
    pixels[16:32, 48:72] = (250, 200, 30)
    features = PatchFeatures(
        grid=(8, 10),
        patch_size=8,
        image_sizes=torch.tensor([[64, 80]]),
        original_sizes=torch.tensor([[64, 80]]),
        names=("spot",),
        indices=(0,),
        images=(picture(pixels),),
    )
    (found,) = colour_lost(features, k=3)
    np.testing.assert_array_equal(found.boxes, [[48, 16, 72, 32]])
    (same,) = lost(colour_features([picture(pixels)], patch_size=8), k=3)
    np.testing.assert_array_equal(found.boxes, same.boxes)
    with pytest.raises(ParameterError, match="k is 0"):
        colour_lost(features, k=0)


def test_colours_take_the_place_of_keys_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(3)
    pictures = (random_picture(rng, 16, 24), random_picture(rng, 15, 20))  # one grid, two sizes
    sizes = torch.tensor([[16, 24], [15, 20]])
    batch = PatchFeatures((2, 3), 8, sizes, 2 * sizes, ("a", "b"), (4, 9), keys=torch.ones(2, 6, 5), images=pictures)
    colours = with_colour_keys(batch)
    assert (colours.names, colours.indices, colours.grid) == (("a", "b"), (4, 9), (2, 3))
    assert torch.equal(colours.original_sizes, 2 * sizes)
    for i, image in enumerate(pictures):
        np.testing.assert_allclose(colours.facet("keys")[i], naive(image, 8), atol=1e-5)


@pytest.mark.parametrize("deviation", [False, True])
@pytest.mark.parametrize("centre", [False, True])
def test_the_controls_are_mean_or_mean_and_deviation_raw_or_centred(deviation: bool, centre: bool) -> None:
    image = random_picture(np.random.default_rng(5), 16, 24)
    keys = colour_features([image], 8, deviation=deviation, centre=centre).facet("keys")[0]
    patches = np.asarray(image).reshape(2, 8, 3, 8, 3).transpose(0, 2, 1, 3, 4).reshape(6, 64, 3) / 255
    expected = np.concatenate([patches.mean(1), patches.std(1)], 1)[:, : 6 if deviation else 3]
    np.testing.assert_allclose(keys, expected - expected.mean(0) if centre else expected, atol=1e-5)


def test_tokencut_on_colours_is_tokencut_on_those_features() -> None:
    image = random_picture(np.random.default_rng(6), 32, 40)
    size = torch.tensor([[32, 40]])
    features = PatchFeatures((4, 5), 8, size, size, ("a",), (0,), images=(image,))
    (found,) = colour_tokencut(features, tau=0.1)
    (same,) = tokencut(colour_features([image]), tau=0.1)
    np.testing.assert_array_equal(found.boxes, same.boxes)
    with pytest.raises(ParameterError, match="tau is 2"):
        colour_tokencut(features, tau=2)
    with pytest.raises(ParameterError, match="deviation is 3: choose true or false"):
        METHODS["colour_lost"].facets(deviation=3)


# CIELAB of sRGB's colours under D65, as tables give them
LAB = {
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (128, 128, 128): (53.59, 0, 0),
    (255, 255, 255): (100, 0, 0),
    (3, 3, 3): (0.82, 0, 0),  # in the straight part of both curves
}


@pytest.mark.parametrize("rgb", LAB)
def test_lab_is_that_of_the_tables(rgb: tuple[int, int, int]) -> None:
    keys = colour_features([picture(np.full((8, 16, 3), rgb))], centre=False, space="lab").facet("keys")[0]
    np.testing.assert_allclose(keys, [[*LAB[rgb], 0, 0, 0]] * 2, atol=0.03)


def test_one_red_patch_among_white_ones_scaled_by_hand() -> None:
    """Of four patches one differs: numbers x, y, y, y have the mean (x + 3y) / 4 and the deviation |x - y| · √3 / 4."""
    pixels = np.full((8, 32, 3), 255)
    pixels[:, :8] = (255, 0, 0)
    keys = colour_features([picture(pixels)], space="lab", scale=True).facet("keys")[0]
    high, low = np.sqrt(3), -1 / np.sqrt(3)
    expected = np.zeros((4, 6))  # red is darker; nothing varies inside a patch, so that the deviations stay 0
    expected[:, :3] = [[-high, high, high], *[[-low, low, low]] * 3]
    np.testing.assert_allclose(keys, expected, atol=1e-3)


def test_scaled_numbers_are_those_of_each_image_by_itself() -> None:
    rng = np.random.default_rng(7)
    images = [random_picture(rng, 24, 32), picture(rng.integers(100, 120, (24, 32, 3)))]
    for image, found in zip(images, colour_features(images, scale=True).facet("keys"), strict=True):
        values = naive(image, 8)
        np.testing.assert_allclose(found, values / values.std(0), atol=1e-3)


def test_contrast_and_a_constant_change_no_scaled_number() -> None:
    pixels = np.random.default_rng(8).integers(0, 80, (24, 32, 3))
    changed = pixels * (3, 2, 1) + (5, 60, 100)  # every channel by its own factor
    before, after = (colour_features([picture(p)], scale=True).facet("keys") for p in (pixels, changed))
    torch.testing.assert_close(before, after, atol=1e-3, rtol=0)
    plain = [colour_features([picture(p)]).facet("keys") for p in (pixels, changed)]
    assert (plain[0] - plain[1]).abs().max() > 0.02


def test_a_grey_picture_has_no_colour_to_scale() -> None:
    grey = np.random.default_rng(9).integers(0, 256, (24, 32, 1)).repeat(3, 2)
    keys = colour_features([picture(grey)], space="lab", scale=True).facet("keys")[0]
    assert not keys[:, [1, 2, 4, 5]].any()
    np.testing.assert_allclose(keys[:, [0, 3]].std(0, correction=0), 1, atol=1e-4)
    plain = colour_features([picture(np.full((24, 32, 3), (200, 90, 33)))], space="lab", scale=True)
    assert not plain.facet("keys").any()


@pytest.mark.parametrize("label", ["colour_lost", "colour_tokencut"])
def test_the_controls_are_given_all_settings(label: str) -> None:
    """On a picture where both settings matter, the box is that of the method on those features."""
    image = random_picture(np.random.default_rng(10), 48, 64)
    size = torch.tensor([[48, 64]])
    features = PatchFeatures((6, 8), 8, size, size, ("a",), (0,), images=(image,))
    method = {"colour_lost": lost, "colour_tokencut": tokencut}[label]
    maps = []
    for settings in ({}, {"space": "lab"}, {"space": "lab", "scale": True}):
        (found,) = METHODS[label].run(features, **settings)
        (same,) = method(colour_features([image], **settings))
        np.testing.assert_array_equal(found.boxes, same.boxes)
        for name, values in found.maps.items():
            np.testing.assert_array_equal(values, same.maps[name])
        maps.append(list(found.maps.values())[-1])
    assert not np.array_equal(maps[0], maps[1]) and not np.array_equal(maps[1], maps[2])


@pytest.mark.parametrize("settings", [{}, {"space": "lab", "scale": True}, {"deviation": False}])
def test_spectral_masks_of_colours_are_those_of_these_features(settings: dict) -> None:
    image = random_picture(np.random.default_rng(11), 48, 64)
    size = torch.tensor([[48, 64]])
    features = PatchFeatures((6, 8), 8, size, size, ("a",), (0,), images=(image,))
    (found,) = METHODS["colour_spectral"].run(features, ks=[2, 4], **settings)
    (same,) = spectral_masks(colour_features([image], **settings), (2, 4))
    assert np.array_equal(found.masks, same.masks) and found.levels.tolist() == [2, 2, 4, 4, 4, 4]
    assert found.values == pytest.approx(same.values)
    with pytest.raises(ParameterError, match=r"ks is \[\]: give different whole numbers"):
        METHODS["colour_spectral"].facets(ks=[])


@pytest.mark.parametrize("label", ["colour_lost", "colour_tokencut", "colour_spectral"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "hsv"}, "space is 'hsv': choose one of rgb, lab"),
        ({"scale": 1}, "scale is 1: choose true or false"),
        ({"scale": True, "centre": False}, "scale is true and centre is false: .*set centre to true"),
    ],
)
def test_settings_that_are_not_legal(label: str, settings: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        METHODS[label].facets(**settings)


def test_features_are_not_scaled_without_a_centre() -> None:
    with pytest.raises(ParameterError, match="scale is true and centre is false"):
        colour_features([picture(np.zeros((8, 8, 3)))], scale=True, centre=False)
