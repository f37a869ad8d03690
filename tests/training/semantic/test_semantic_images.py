"""Images with label maps: what is kept, counted and left out, and which label maps are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_discs import CLUSTERS, disc, write_discs
from PIL import Image

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.index_masks import write_labels
from foundling.errors import DataMissing, ImageError, ParameterError
from foundling.training.semantic.images import MappedImages, MappedSet
from foundling.types import Failure, Sample

Discs = tuple[list[Sample], PseudoMasks]


@pytest.fixture
def discs(tmp_path: Path) -> Discs:
    return write_discs(tmp_path, 6)


def write(masks: PseudoMasks, i: int, labels: np.ndarray) -> None:
    file = masks.files[i]
    assert file is not None
    write_labels(file, labels.astype(np.uint8))


def test_images_with_their_maps(discs: Discs) -> None:
    images = MappedImages(*discs)
    assert len(images) == 6 and images.classes == CLUSTERS + 1 and images.problems == ()
    pixels, labels, problems = images[3]
    expected, truth = disc(3)
    np.testing.assert_array_equal(pixels.numpy(), expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(labels.numpy(), truth)
    assert problems == ()
    everything = np.concatenate([disc(seed)[1].ravel() for seed in range(6)])
    np.testing.assert_array_equal(images.counts, np.bincount(everything, minlength=3))
    assert images.summary() == images.identity and images.identity.startswith("6 images with maps of 2 clusters (")


def test_the_identity_is_that_of_names_and_labels(discs: Discs, tmp_path: Path) -> None:
    samples, masks = discs
    first = MappedImages(samples, masks).identity
    assert MappedImages(*write_discs(tmp_path / "elsewhere", 6)).identity == first
    labels = disc(2)[1]
    labels[0, 0] = 1
    write(masks, 2, labels)
    assert MappedImages(samples, masks).identity != first


def test_what_has_nothing_to_learn_from_is_left_out(discs: Discs) -> None:
    samples, masks = discs
    write(masks, 1, np.zeros((40, 48)))
    write(masks, 2, np.full((48, 40), 255))
    samples[4].path.write_bytes(b"no image")
    failed = (Failure("3.png", 3, "no image"),)
    masks = PseudoMasks((*masks.files[:3], None, *masks.files[4:]), 4, (), failed)
    images = MappedImages(samples, masks)
    assert [samples[i].name for i in images.kept] == ["0.png", "5.png"]
    assert images.summary().splitlines()[1:] == [
        "3 × cluster without a pixel: 1, 2, 3",  # of 0.png and 5.png, whose cluster is the first
        "1 × image whose label map is all background (left out): 1.png",
        "1 × image whose label map is all void (left out): 2.png",
        "1 × image without a label map (left out): 3.png",
        "1 × image that cannot be read (left out): 4.png",
    ]
    assert len(MappedImages(samples, masks, keep_empty=True)) == 3


def test_label_maps_that_do_not_fit_are_refused(discs: Discs) -> None:
    samples, masks = discs
    write(masks, 2, disc(3)[1])
    with pytest.raises(ImageError, match=r"2\.png: a label map of 48×40 pixels for an image of 40×48"):
        MappedImages(samples, masks)
    wrong = disc(2)[1]
    wrong[0, 0] = 9
    write(masks, 2, wrong)
    with pytest.raises(ImageError, match=r"2\.png: the label map holds 9: legal are 0 to 2, and 255 for void"):
        MappedImages(samples, masks)
    file = masks.files[2]
    assert file is not None
    file.write_bytes(b"damaged")
    with pytest.raises(ImageError, match=r"2\.png"):
        MappedImages(samples, masks)
    file.unlink()
    with pytest.raises(ImageError, match=r"2\.png: no such file"):
        MappedImages(samples, masks)


def test_what_cannot_be_learned_from_is_refused(discs: Discs) -> None:
    samples, masks = discs
    with pytest.raises(ParameterError, match="6 label maps for 5 images"):
        MappedImages(samples[:5], masks)
    with pytest.raises(ParameterError, match="without a cluster"):
        MappedImages(samples, PseudoMasks(masks.files, 0, (), ()))
    for i in range(6):
        write(masks, i, np.zeros(disc(i)[1].shape))
    with pytest.raises(
        ParameterError, match=r"none of the 6 images has anything .*\n  6 × image whose label map is all"
    ):
        MappedImages(samples, masks)
    with pytest.raises(ParameterError, match=r"all pixels of the 6 label maps are of one kind \(label 0\)"):
        MappedImages(samples, masks, keep_empty=True)
    for i in range(6):
        write(masks, i, np.full(disc(i)[1].shape, 2))
    with pytest.raises(ParameterError, match=r"of one kind \(label 2\)"):
        MappedImages(samples, masks)


def test_one_cluster_is_enough(discs: Discs) -> None:
    samples, masks = discs
    few = MappedImages(samples[:2], PseudoMasks(masks.files[:2], 1, (), ()))
    assert few.classes == 2 and len(few) == 2


def test_an_image_that_is_lost_on_the_way_is_replaced_and_reported_once(discs: Discs) -> None:
    samples, masks = discs
    images = MappedSet(MappedImages(samples, masks))
    samples[2].path.write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"2\.png.*; the next image that can be read stands in for it") as told:
        batches = list(images.batches([(2, 0), (2, 3)]))
    assert len(told) == 1
    np.testing.assert_array_equal(batches[0].labels[0].numpy(), disc(3)[1])
    assert torch.equal(batches[1].images[0], batches[1].images[1])
    for sample in samples:
        sample.path.unlink()
    with pytest.raises(DataMissing, match=r"none of the 6 training images can be read; the first: .*1\.png"):
        images.source[1]


def test_an_image_that_grows_on_the_way_no_longer_fits_its_map(discs: Discs) -> None:
    samples, masks = discs
    images = MappedImages(samples, masks)
    Image.new("RGB", (99, 40)).save(samples[3].path)
    with pytest.raises(ImageError, match="48×40 pixels for an image of 99×40"):
        images[3]


def test_worker_processes_read_the_same(discs: Discs) -> None:
    source = MappedImages(*discs)
    plan = [(0, 3), (5, 1)]
    here, there = (list(MappedSet(source, workers=workers).batches(plan)) for workers in (0, 1))
    for one, other in zip(here, there, strict=True):
        assert all(map(torch.equal, one.images, other.images)) and all(map(torch.equal, one.labels, other.labels))
