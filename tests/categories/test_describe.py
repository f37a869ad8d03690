"""Descriptors: the steps done plainly on one object at a time, batches, and objects that have none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from foundling.backbones import Backbone, load_backbone
from foundling.backbones.vit import transformer_facets
from foundling.categories.crops import Objects, comus_crop, lost_crop
from foundling.categories.describe import _pooled, describe_objects
from foundling.errors import ImageError, ParameterError
from foundling.types import Failure, Sample


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("scenes_odin", weights="random", device="cpu")


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    folder: Path = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    made = []
    for i, (width, height) in enumerate([(60, 40), (48, 56), (40, 40)]):
        path = folder / f"{i}.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        made.append(Sample(path.stem, path, i))
    return made


def disc(height, width, centre, radius) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def run_lengths(mask) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def rows(*objects) -> Objects:
    """Objects from (image, box) or (image, box, mask)."""
    images = np.array([each[0] for each in objects])
    masks = tuple(run_lengths(each[2]) if len(each) > 2 else None for each in objects)
    boxes = np.array([each[1] for each in objects], dtype=np.float64)
    return Objects(
        images, tuple(str(i) for i in images), np.arange(len(images)), boxes, np.ones(len(images)), masks
    )  # fmt: skip


@pytest.fixture(scope="module")
def objects() -> Objects:
    return rows(
        (1, [4, 8, 30, 50]),
        (0, [0, 0, 60, 40], disc(40, 60, (20, 30), 12)),
        (2, [3, 3, 33, 20]),
        (0, [10, 10, 25, 39]),
        (1, [0, 0, 48, 56], disc(56, 48, (20, 20), 15)),
    )


def plainly(backbone, samples, objects, recipe, descriptor, side) -> np.ndarray:
    """One object at a time, the weights of patches by hand."""
    cut, found = {"comus": comus_crop, "lost": lost_crop}[recipe], []
    for i, image in enumerate(objects.images):
        pixels = torch.from_numpy(np.array(Image.open(samples[image].path)))
        mask = None if objects.masks[i] is None else coco_mask.decode(objects.masks[i]).astype(bool)
        crop = cut(pixels, objects.boxes[i], mask, side, backbone.mean, backbone.std)
        height, width = (n // 8 * 8 for n in crop.pixels.shape[1:])
        with torch.inference_mode():
            facets = transformer_facets(
                backbone.network, crop.pixels[None, :, :height, :width], ("cls", "tokens"), backbone.blocks - 1
            )
        inside = torch.ones(height, width) if crop.inside is None else crop.inside[:height, :width]
        total, whole = 0.0, torch.zeros(backbone.channels)
        for patch in range(height // 8 * width // 8):
            row, column = divmod(patch, width // 8)
            share = float(inside[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].sum())
            total, whole = total + share, whole + share * facets["tokens"][0, patch]
        vector = facets["cls"][0] if descriptor == "cls" else whole / total
        found.append((vector / vector.norm() if recipe == "lost" else vector).numpy())
    return np.stack(found)


@pytest.mark.parametrize("recipe", ["comus", "lost"])
@pytest.mark.parametrize("descriptor", ["cls", "mean"])
def test_descriptors_are_those_of_the_steps_done_plainly(backbone, samples, objects, recipe, descriptor):
    ours = describe_objects(backbone, samples, objects, recipe, descriptor, 36)
    np.testing.assert_allclose(ours, plainly(backbone, samples, objects, recipe, descriptor, 36), rtol=1e-3, atol=1e-4)


def test_lost_descriptors_have_length_one_and_those_of_comus_do_not(backbone, samples, objects):
    lengths = np.linalg.norm(describe_objects(backbone, samples, objects, "lost", "cls", 32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert (np.linalg.norm(describe_objects(backbone, samples, objects, "comus", "cls", 32), axis=1) > 2).all()


@pytest.mark.parametrize("recipe", ["comus", "lost"])
def test_batches_and_order_do_not_matter(backbone, samples, objects, recipe):
    together = describe_objects(backbone, samples, objects, recipe, "texture", 32)
    alone = describe_objects(backbone, samples, objects, recipe, "texture", 32, batch_size=1, workers=1)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    turned = describe_objects(backbone, samples, objects[[4, 2, 0, 1, 3]], recipe, "texture", 32)
    np.testing.assert_allclose(turned, together[[4, 2, 0, 1, 3]], atol=1e-4)


def test_mean_and_deviation_by_hand():
    """Two patches that count 3 : 1, of values 0 and 4 in one channel: mean 1, variance 0.75 · 1 + 0.25 · 9 = 3."""
    patches = torch.tensor([[[0.0, 2.0], [4.0, 2.0]]])
    weights = torch.tensor([[0.75, 0.25]])
    np.testing.assert_allclose(_pooled(patches, weights, False), [[1, 2]])
    expected = [[1 / 5**0.5, 2 / 5**0.5, 1, 0]]
    np.testing.assert_allclose(_pooled(patches, weights, True), expected, atol=1e-6)


def test_what_lies_outside_the_mask_can_be_left_out(backbone, samples, objects):
    """Painted over, it no longer matters; kept, it does. Objects without a mask have no outside."""
    changed = [*samples]
    pixels = np.array(Image.open(samples[0].path))
    pixels[~disc(40, 60, (20, 30), 12)] = 200
    path = samples[0].path.with_name("other.png")
    Image.fromarray(pixels).save(path)
    changed[0] = replace(samples[0], path=path)
    for background in ("keep", "mean"):
        before, after = (
            describe_objects(backbone, given, objects[[1]], "comus", "mean", 25, background=background)
            for given in (samples, changed)
        )  # 25 pixels, the object's own size: none is blended with its neighbour
        assert np.allclose(before, after, atol=1e-4) == (background == "mean")


def test_grey_images_have_no_hue(backbone, samples, objects, tmp_path):
    turned = []
    for sample in samples:
        path = tmp_path / sample.path.name
        Image.fromarray(np.array(Image.open(sample.path))[..., ::-1]).save(path)
        turned.append(replace(sample, path=path))
    first, second = (describe_objects(backbone, given, objects, side=32, colour=False) for given in (samples, turned))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert not np.allclose(first, describe_objects(backbone, samples, objects, side=32), atol=0.1)


def test_objects_without_a_crop_are_reported_and_left_out(backbone, samples, tmp_path):
    """An empty mask, a box without pixels, an image that cannot be read; an image without objects is not opened."""
    broken = tmp_path / "3.png"
    broken.write_bytes(b"no image")
    given = [*samples, Sample("3", broken, 3), Sample("4", tmp_path / "nowhere.png", 4)]
    bad = rows(
        (0, [0, 0, 9, 9], np.zeros((40, 60), bool)),
        (1, [5, 5, 20, 20]),
        (3, [0, 0, 9, 9]),
        (2, [7, 7, 7.2, 30]),
        (3, [2, 2, 9, 9]),
    )
    failures: list[Failure] = []
    found = describe_objects(backbone, given, bad, side=32, failures=failures)
    assert np.isfinite(found).all(axis=1).tolist() == [False, True, False, False, False]
    assert np.isnan(found[[0, 2, 3, 4]]).all()
    assert [(failure.name, failure.index) for failure in failures] == [("0", 0), ("3", 2), ("2", 3), ("3", 4)]
    assert failures[0].error == "0, object 0: its mask is empty: leave the object out"
    with pytest.raises(ImageError, match="its mask is empty"):
        describe_objects(backbone, given, bad, side=32)


def test_no_object_gives_no_row(backbone, samples):
    none = rows((0, [0, 0, 9, 9]))[np.array([False])]
    assert describe_objects(backbone, samples, none, side=32, descriptor="texture").shape == (0, 384)


def test_a_cnn_has_no_cls_but_a_mean(samples, objects):
    cnn = load_backbone("dino_resnet50", weights="random", device="cpu")
    with pytest.raises(ParameterError, match="has no facet 'cls'"):
        describe_objects(cnn, samples, objects, side=64)
    found = describe_objects(cnn, samples, objects, descriptor="mean", side=64)
    assert found.shape == (5, cnn.channels) and np.isfinite(found).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": "crop"}, "recipe is 'crop': choose one of comus, lost"),
        ({"descriptor": "max"}, "descriptor is 'max': choose one of cls, mean, texture"),
        ({"side": 7}, "side=7: a crop must hold one patch of scenes_odin, 8 pixels"),
        ({"facet": "cls"}, "facet is 'cls'"),
        ({"background": "black"}, "background is 'black': choose one of keep, mean"),
        ({"block": 9}, "block=9"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
    ],
)
def test_parameters_are_checked(backbone, samples, objects, options, message):
    with pytest.raises(ParameterError, match=message):
        describe_objects(backbone, samples, objects, **options)


def test_objects_must_belong_to_the_images(backbone, samples, objects):
    with pytest.raises(ParameterError, match="object 1 lies in image 1, but there are 1 images"):
        describe_objects(backbone, samples[:1], rows((0, [0, 0, 9, 9]), (1, [0, 0, 9, 9])))
    with pytest.raises(ParameterError, match="objects of '1' say that it is image 1, which is '0'"):
        describe_objects(backbone, [samples[1], samples[0], samples[2]], objects)
