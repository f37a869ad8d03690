"""Counts of classes inside and outside of masks, and what follows from them, against label maps pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest

from foundling.categories import Objects, objects_of_masks
from foundling.categories.fitting import description_of, fitted
from foundling.categories.pseudo_masks import write_pseudo_masks
from foundling.categories.scores import (
    annotated_masks,
    class_counts,
    cluster_confusions,
    has_classes,
    image_classes,
    object_classes,
    saliency_parts,
    with_labelled,
)
from foundling.datasets import open_dataset
from foundling.datasets.semantic import semantic_truth
from foundling.discovery.export import encode_mask
from foundling.errors import ParameterError
from foundling.evaluation.saliency import saliency_counts
from foundling.evaluation.segmentation import confusion
from foundling.saliency import SaliencyMasks

SIZE = 96


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDLING_DATA", str(tmp_path_factory.mktemp("data")))
        yield open_dataset("scenes", "multi_val", size=SIZE).subset(limit=5)


def found_masks(scenes, rng, without=()):
    """Random rectangles as the masks of a source; none in the images ``without``."""
    masks = []
    for i in range(len(scenes)):
        pixels = np.zeros((SIZE, SIZE), dtype=bool)
        y, x = rng.integers(0, 50, 2)
        pixels[y : y + 40, x : x + 30] = True
        masks.append(None if i in without else encode_mask(pixels))
    sizes = np.full((len(scenes), 2), SIZE)
    return SaliencyMasks("random", tuple(s.name for s in scenes), sizes, tuple(masks))


def test_counts_are_those_of_the_label_maps(scenes, rng):
    masks, failures = found_masks(scenes, rng, without=(2,)), []
    counts = class_counts(scenes, {"a": masks}, failures)["a"]
    assert counts.shape == (5, 2, 13) and not failures
    for i, sample in enumerate(scenes):
        truth = semantic_truth(sample, scenes)
        expected = [np.bincount(truth[masks.mask(i) == side], minlength=13) for side in (False, True)]
        np.testing.assert_array_equal(counts[i], expected)
        np.testing.assert_array_equal(saliency_parts(counts)[i], saliency_counts(masks.mask(i), truth))


def test_confusions_are_those_of_the_pseudo_masks_that_are_written(scenes, rng, tmp_path):
    masks = found_masks(scenes, rng, without=(2,))
    objects = objects_of_masks(scenes.samples, masks.masks)
    counts = class_counts(scenes, {"a": masks}, [])["a"]
    labels = np.array([1, 0, 1, 2])
    tables = cluster_confusions(counts, objects, labels, 3)
    written = write_pseudo_masks(tmp_path / "maps", scenes.samples, objects, labels, 3)
    for i, sample in enumerate(scenes):
        np.testing.assert_array_equal(tables[i], confusion(written.read(i), semantic_truth(sample, scenes), 4, 13))
    doubtful = cluster_confusions(counts, objects, np.array([1, -1, 1, 2]), 3)
    assert doubtful[1, 1:].sum() == 0 and doubtful[1].sum() == SIZE**2  # all background
    twice = objects[[0, 0]]
    with pytest.raises(ParameterError, match="several objects in one image"):
        cluster_confusions(counts, twice, np.array([0, 1]), 2)


def test_an_object_has_the_class_of_most_of_its_pixels():
    counts = np.zeros((3, 2, 4), dtype=np.int64)
    counts[0, 1] = [90, 0, 3, 7]  # mostly background; of classes, most are 3
    counts[1, 1] = [90, 0, 0, 0]
    counts[2, 0] = [0, 50, 0, 0]  # outside of it
    nothing = np.zeros((3, 4))
    objects = Objects(np.arange(3), ("a", "b", "c"), np.zeros(3, int), nothing, np.ones(3), (None,) * 3)
    assert object_classes(counts, objects).tolist() == [2, -1, -1]


def test_an_image_of_one_category_gives_it_to_its_object(scenes):
    single = replace(scenes[0].target, labels=np.full(len(scenes[0].target), 7))
    several = [i for i, sample in enumerate(scenes) if len(set(sample.target.labels.tolist())) > 1]
    samples = (replace(scenes[0], target=single), scenes[several[0]], replace(scenes[1], target=None))
    dataset, nothing = replace(scenes, samples=samples), np.zeros((4, 4))
    objects = Objects(np.array([2, 0, 1, 0]), ("",) * 4, np.zeros(4, int), nothing, np.ones(4), (None,) * 4)
    assert image_classes(dataset, objects).tolist() == [-1, 7, -1, 7]


def test_perfect_masks_are_perfect(scenes):
    failures = []
    perfect = annotated_masks(scenes, failures)
    counts = class_counts(scenes, {"annotated": perfect}, failures)["annotated"]
    right, wrong, missed, left = saliency_parts(counts).T
    assert (right > 0).all() and not wrong.any() and not missed.any() and (left > 0).all() and not failures
    objects = objects_of_masks(scenes.samples, perfect.masks)
    for i, name in zip(objects.images, object_classes(counts, objects), strict=True):
        shares = np.bincount(semantic_truth(scenes[int(i)], scenes).ravel(), minlength=13)[1:]
        assert shares[name] == shares.max() > 0


def test_an_image_that_is_gone_is_a_failure(scenes, rng, tmp_path):
    gone = replace(scenes[1], path=tmp_path / "gone.png")
    dataset = replace(scenes, samples=(scenes[0], gone))
    masks = found_masks(dataset, rng)
    failures = []
    counts = class_counts(dataset, {"a": masks}, failures)["a"]
    assert counts[0].sum() == SIZE**2 and counts[1].sum() == 0
    assert [failure.index for failure in failures] == [1]
    assert annotated_masks(dataset, []).masks[1] is None


def test_images_with_little_annotated_are_left_out(scenes, tmp_path):
    areas = [int((semantic_truth(sample, scenes) > 0).sum()) for sample in scenes]
    least = sorted(areas)[2]
    failures = []
    found = with_labelled(scenes, least, failures)
    assert [s.name for s in found] == [s.name for s, area in zip(scenes, areas, strict=True) if area >= least]
    assert len(found) == 3 and found.categories == scenes.categories and not failures
    gone = replace(scenes, samples=(scenes[0], replace(scenes[1], path=tmp_path / "gone.png")))
    assert len(with_labelled(gone, 0, failures)) == 1 and [failure.index for failure in failures] == [1]


def test_masks_of_other_images_are_refused(scenes, rng):
    with pytest.raises(ParameterError, match="the masks of 'a' are of other images"):
        class_counts(scenes.subset(limit=2), {"a": found_masks(scenes, rng)}, [])


def test_which_datasets_say_classes(scenes, tmp_path):
    assert has_classes(scenes)
    bare = open_dataset("folder", root=scenes[0].path.parent).subset(limit=2)
    assert not has_classes(bare)


def test_what_a_number_of_objects_allows():
    x = np.ones((5, 3), dtype=np.float32)
    assert fitted(x, 4) == (4, 4) and fitted(x, 12, 3) == (5, 3)
    x[:2] = np.nan
    assert fitted(x, 12) == (3, 2)
    x[2] = np.nan
    with pytest.raises(ParameterError, match="2 objects with a descriptor: grouping takes 3 or more"):
        fitted(x, 2)


def test_networks_are_asked_for_what_they_have():
    assert description_of("dino_vits16") == {}
    assert description_of("scenes_odin")["descriptor"] == "texture"
    assert description_of("dino_resnet50") == {"descriptor": "mean"}
    assert description_of("scenes_objects") == {"descriptor": "mean", "side": 64, "background": "mean"}
