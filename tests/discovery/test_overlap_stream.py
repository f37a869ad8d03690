"""Images to overlaps: against the same from its parts, controls by hand, and what is skipped, reported or refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from foundling.backbones import extract, load_backbone
from foundling.datasets import open_dataset
from foundling.discovery.kmeans import generators, kmeans_levels
from foundling.discovery.overlap_controls import CONTROLS, control_levels, grid_levels
from foundling.discovery.overlap_sources import at_stride_32, dense_network, described
from foundling.discovery.overlap_stream import measure_overlap, read_square
from foundling.errors import ImageError, ParameterError, WeightsError
from foundling.evaluation.overlap import best_overlap, square_truths
from foundling.types import PatchFeatures, Target
from small_datasets import coco_annotation, make_coco

KS = (1, 2, 4)
SIDE = 32


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("scenes_odin", weights="random", device="cpu")


@pytest.fixture
def samples(tmp_path):
    """Four noisy images of 60×40: two objects of a class, one object, none in the central square, only a crowd."""
    annotations = [
        coco_annotation(1, (12, 2, 16, 20)),
        coco_annotation(1, (30, 10, 18, 28)),
        coco_annotation(2, (10, 0, 20, 40), 7),
        coco_annotation(3, (0, 0, 9, 40)),
        coco_annotation(4, (20, 0, 20, 40), iscrowd=1),
    ]
    names = {i: f"{i}.png" for i in range(1, 5)}
    file = make_coco(tmp_path, names, annotations)
    noise = np.random.default_rng(0)
    for name in names.values():
        small = Image.fromarray(noise.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        small.resize((60, 40), Image.Resampling.BICUBIC).save(tmp_path / name)
    return open_dataset("coco", "custom", root=tmp_path, annotations=file).samples


def measure(source, samples, **settings):
    return measure_overlap(source, samples, **{"side": SIDE, "ks": KS, "controls": (), "progress": False, **settings})


def tokens_of(backbone, sample) -> torch.Tensor:
    return next(iter(extract(backbone, [read_square(sample, SIDE)], ("tokens",)))).facet("tokens")


def naive_row(tokens, sample):
    """One image's ABO_i, ABO_c and OR from masks in full resolution, each proposal by itself."""
    levels = kmeans_levels(tokens, KS, generators((sample.name,), 0), 20)[0].numpy()
    masks = [level == k for level, n in zip(levels, KS, strict=True) for k in range(n)]
    proposals = np.stack([np.kron(mask.reshape(4, 4), np.ones((8, 8))) > 0 for mask in masks])
    truths = square_truths(sample.target, SIDE)
    merged = np.stack([truths.masks[truths.labels == label].any(0) for label in set(truths.labels.tolist())])
    best = best_overlap(proposals, truths.masks)
    return best.mean(), best_overlap(proposals, merged).mean(), (best > 0.5).mean()


def test_the_same_as_from_its_parts(backbone, samples):
    result = measure(backbone, samples)
    rows = [naive_row(tokens_of(backbone, sample), sample) for sample in samples[:2]]
    overlap = result.overlaps["network"]
    np.testing.assert_allclose(overlap.images[:2], rows)
    assert overlap.counted.tolist() == [True, True, False, False]
    assert (result.empty, result.failures) == (2, [])
    assert overlap.abo_i.value == pytest.approx(100 * np.mean([row[0] for row in rows]))
    assert overlap.abo_c.value != pytest.approx(overlap.abo_i.value)
    assert result.names == ("1.png", "2.png", "3.png", "4.png")


def test_batches_and_order_change_nothing(backbone, samples):
    whole = measure(backbone, samples, controls=tuple(CONTROLS))
    other = measure(backbone, samples[::-1], controls=tuple(CONTROLS), batch_size=1)
    for label in whole.overlaps:
        np.testing.assert_allclose(whole.overlaps[label].images, other.overlaps[label].images[::-1])


def test_small_masks_are_left_out_of_the_second_result(backbone, samples):
    small = replace(
        samples[1], target=target_like(samples[1].target, (10, 0, 1, 1))
    )  # one of 32 × 32 pixels: 49 at 224
    result = measure(backbone, [samples[0], small])
    assert result.overlaps["network"].counted.tolist() == [True, True]
    assert result.filtered["network"].counted.tolist() == [True, False]
    np.testing.assert_array_equal(result.filtered["network"].images[0], result.overlaps["network"].images[0])


def target_like(target, box) -> Target:
    """A target of one object that fills ``box`` (x, y, width, height) of the same image."""
    from pycocotools import mask as coco_mask

    height, width = target.masks[0]["size"]
    x, y, w, h = box
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    none = np.zeros(1, dtype=bool)
    encoded = [coco_mask.encode(np.asfortranarray(mask))]
    return Target(np.array([[x, y, x + w, y + h]], dtype=float), np.zeros(1, dtype=np.int64), none, none, none, encoded)


def test_bad_images_are_reported_and_the_rest_goes_on(backbone, samples):
    samples[0].path.write_bytes(b"no image")
    Image.new("RGB", (30, 40)).save(samples[1].path)
    unmasked = replace(samples[1], name="unmasked", target=replace(samples[1].target, masks=None))
    good = replace(samples[1], name="good", path=samples[3].path)
    result = measure(backbone, [*samples[:2], unmasked, good])
    assert [(f.name, f.index) for f in result.failures] == [("1.png", 0), ("2.png", 1), ("unmasked", 2)]
    assert "1.png" in result.failures[0].error
    assert "image is 30×40 pixels, but its masks are 60×40" in result.failures[1].error
    assert result.overlaps["network"].counted.tolist() == [False, False, False, True]
    assert result.empty == 0


def test_samples_without_masks(backbone, samples):
    boxes = [replace(s, target=replace(s.target, masks=None)) for s in samples]
    with pytest.raises(ParameterError, match=r"4 images have boxes but no masks.*masks=True"):
        measure(backbone, boxes)
    with pytest.raises(ParameterError, match="no annotations"):
        measure(backbone, [replace(s, target=None) for s in samples])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 30}, "side is 30 pixels, but the patches of scenes_odin have 8: choose a multiple of 8, such as 32"),
        ({"side": 0}, "choose a multiple of 8, such as 8"),
        ({"controls": ("noise",)}, "unknown control 'noise': choose among grid, colour_mean"),
        ({"ks": (1, 17)}, "k is 17, but an image has 16 patches"),
        ({"facet": "words"}, "unknown facet 'words'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_settings_that_are_not_legal(backbone, samples, settings, message):
    with pytest.raises(ParameterError, match=message):
        measure(backbone, samples, **settings)


def test_features_that_are_not_finite(backbone, samples):
    broken = dense_network(Constant(torch.nan), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(WeightsError, match=r"1\.png.*not finite"):
        measure(broken, samples)


class Constant(nn.Module):
    """A network that answers one number everywhere, on a grid of eight by eight."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images):
        return self.value.expand(len(images), 3, 8, 8)


class Patches(nn.Module):
    """One convolution a patch, which insists on the mode of evaluation."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.project = nn.Conv2d(3, 5, 8, 8)

    def forward(self, images):
        assert not self.training
        return self.project(images)


def test_any_network_with_a_map_of_features(samples):
    network = Patches().train()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    overlap = measure(dense_network(network, mean, std, batch_size=1), samples).overlaps["network"]
    assert network.training
    for row, sample in zip(overlap.images[:2], samples[:2], strict=True):
        pixels = (torch.from_numpy(np.array(read_square(sample, SIDE))) / 255 - torch.tensor(mean)) / torch.tensor(std)
        with torch.no_grad():
            tokens = network.project(pixels.permute(2, 0, 1)[None]).flatten(2).transpose(1, 2)
        np.testing.assert_allclose(row, naive_row(tokens, sample))


def test_a_network_whose_cells_are_no_squares(samples):
    with pytest.raises(ParameterError, match=r"30×30 pixels give 8×8 features.*multiple of the network's stride"):
        measure(dense_network(Constant(1.0), (0.5,) * 3, (0.5,) * 3), samples, side=30)
    with pytest.raises(ParameterError, match="side is None: say how many pixels"):
        measure(dense_network(Constant(1.0), (0.5,) * 3, (0.5,) * 3), samples, side=None)


def test_published_sides(backbone):
    assert described(backbone, None, "tokens", 1, "fp32")[0] == 448


def test_a_resnet_at_stride_32_is_torchvisions_own():
    import torchvision

    backbone = load_backbone("supervised_resnet50", weights="random", device="cpu")
    coarse = at_stride_32(backbone)
    plain = torchvision.models.resnet50(weights=None).eval()
    plain.load_state_dict(backbone.network.state_dict(), strict=False)
    trunk = nn.Sequential(*list(plain.children())[:-2])
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(coarse.network(image), trunk(image))
        assert backbone.network(image).shape[-2:] == (4, 4)
    assert (coarse.patch_size, backbone.patch_size) == (32, 16)


def test_stride_32_is_for_resnets(backbone):
    with pytest.raises(ParameterError, match="scenes_odin has no layer4"):
        at_stride_32(backbone)


def test_a_cnn_is_clustered_as_it_leaves_its_last_relu():
    backbone = at_stride_32(load_backbone("supervised_resnet50", weights="random", device="cpu"))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    _, describe = described(backbone, 64, "tokens", 1, "fp32")
    tokens = next(describe([picture])).facet("tokens")[0]
    pixels = (torch.from_numpy(np.array(picture)) / 255 - torch.tensor(backbone.mean)) / torch.tensor(backbone.std)
    with torch.no_grad():
        plain = backbone.network(pixels.permute(2, 0, 1)[None]).flatten(2)[0].T
    assert plain.min() == 0
    unit = nn.functional.normalize
    torch.testing.assert_close(unit(tokens, dim=-1), unit(plain, dim=-1), rtol=0, atol=1e-5)


def test_grids_by_hand():
    levels = grid_levels((4, 4), (1, 2, 4, 8))
    assert levels[0].max() == 0
    np.testing.assert_array_equal(levels[1], [[0, 0, 1, 1]] * 4)
    np.testing.assert_array_equal(levels[2], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    np.testing.assert_array_equal(levels[3], np.repeat([[0, 1, 2, 3], [4, 5, 6, 7]], 2, axis=0))


@pytest.mark.parametrize("grid", [(16, 16), (12, 20), (28, 28)])
def test_every_grid_has_its_cells(grid):
    for k, level in zip((1, 2, 4, 8, 16, 32, 64, 128), grid_levels(grid, (1, 2, 4, 8, 16, 32, 64, 128)), strict=True):
        sizes = np.bincount(level.ravel())
        assert len(sizes) == k and sizes.min() > 0


def picture_features(picture: np.ndarray, cell: int) -> PatchFeatures:
    size = torch.tensor([picture.shape[:2]])
    grid = (picture.shape[0] // cell, picture.shape[1] // cell)
    return PatchFeatures(grid, cell, size, size, ("p",), (0,), images=(Image.fromarray(picture),))


@pytest.mark.parametrize("label", [c for c in CONTROLS if c.startswith("colour")])
def test_colours_part_what_differs_in_colour(label):
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    picture[:, :8, 0], picture[:, 8:, 2] = 200, 200
    labels = control_levels(label, picture_features(picture, 4), (1, 2), 20, 0)[0]
    assert not labels[0].any()
    if label != "colour_position":
        np.testing.assert_array_equal(labels[1], np.tile(labels[1, :1, [0, 0, 3, 3]].T, (4, 1)))
        assert labels[1, 0, 0] != labels[1, 0, 3]


def test_deviation_parts_what_means_do_not():
    """Equal mean colours, one half striped: only the control with deviations sees it."""
    picture = np.full((16, 16, 3), 100, dtype=np.uint8)
    picture[::2, :8], picture[1::2, :8] = 20, 180
    plain = control_levels("colour", picture_features(picture, 4), (2,), 20, 3)[0, 0]
    assert (plain[:, :2] == plain[0, 0]).all() and (plain[:, 2:] == plain[0, 3]).all() and plain[0, 0] != plain[0, 3]
    means = control_levels("colour_mean", picture_features(picture, 4), (2,), 20, 3)[0, 0]
    assert len(np.unique(means)) == 1


def test_squares_are_central_and_bicubic(samples):
    square = read_square(samples[0], 20)
    image = Image.open(samples[0].path).crop((10, 0, 50, 40)).resize((20, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(square), np.asarray(image))
    samples[0].path.unlink()
    with pytest.raises(ImageError, match="no such file"):
        read_square(samples[0], 20)


def test_the_position_control_has_the_colours_and_the_place(monkeypatch):
    """What is clustered: the colour control's six numbers, then row and column from 0 to 1."""
    picture = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    seen = []

    def clustered(features, x, ks, iterations, seed):
        seen.append(x)
        return np.zeros((1, 1, *features.grid), dtype=np.int64)

    monkeypatch.setattr("foundling.discovery.overlap_controls.feature_levels", clustered)
    for label in ("colour", "colour_position"):
        control_levels(label, picture_features(picture, 4), (1,), 1, 0)
    torch.testing.assert_close(seen[1][..., :6], seen[0])
    assert seen[1][0, :, 6:].tolist() == [[r, c] for r in (0, 1) for c in (0, 0.5, 1)]
