"""The segmentation splits of VOC: instances, their classes and boxes, and masks that are absent, damaged or odd."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec

from foundling.datasets import open_dataset
from foundling.errors import DataMissing, ParameterError
from small_datasets import VocObject, make_voc, make_voc_masks

SHAPE = (6, 8)
CAT, DOG, VOID = 8, 12, 255


def numbers(**parts):
    """Object and class numbers of one image: each part is (rows, columns, object, class)."""
    both = np.zeros((2, *SHAPE), dtype=np.uint8)
    for rows, columns, thing, kind in parts.values():
        both[0, rows, columns], both[1, rows, columns] = thing, kind
    return both[0], both[1]


@pytest.fixture
def images():
    first = numbers(
        edge=(slice(0, 5), slice(0, 5), VOID, VOID),
        dog=(slice(1, 4), slice(1, 4), 1, DOG),
        cat=(slice(2, 6), slice(6, 8), 3, CAT),  # number 2 is not used
    )
    return {"2007_000032": first, "2007_000033": numbers()}


def test_instances_classes_and_boxes(tmp_path, images):
    make_voc_masks(tmp_path / "VOCdevkit", images)
    dataset = open_dataset("voc12", "seg_val", root=tmp_path)
    assert (dataset.name, dataset.split, dataset.annotated, dataset.problems) == ("voc12", "seg_val", True, ())
    assert [(sample.name, sample.image_id) for sample in dataset] == [
        ("2007_000032.jpg", 2007000032), ("2007_000033.jpg", 2007000033),
    ]  # fmt: skip
    target = dataset[0].target
    assert [dataset.categories[label] for label in target.labels] == ["dog", "cat"]
    np.testing.assert_array_equal(target.boxes, [[1, 1, 4, 4], [6, 2, 8, 6]])
    for number, rle in zip((1, 3), target.masks, strict=True):
        np.testing.assert_array_equal(rle_codec.decode(rle), images["2007_000032"][0] == number)
    assert not (target.difficult | target.truncated | target.crowd).any()
    assert len(dataset[1].target) == 0
    assert dataset[1].target.masks == []


def test_the_class_of_an_instance_is_that_of_most_of_its_pixels(tmp_path, rng):
    """Against counting one by one; void and background do not vote."""
    things = rng.integers(0, 4, SHAPE, dtype=np.uint8)
    kinds = rng.choice(np.array([0, 1, 2, 20, VOID], dtype=np.uint8), SHAPE)
    make_voc_masks(tmp_path, {"2007_000001": (things, kinds)}, split="train")
    target = open_dataset("voc12", "seg_train", root=tmp_path)[0].target
    expected = []
    for number in (1, 2, 3):
        votes = [int(k) for t, k in zip(things.flat, kinds.flat, strict=True) if t == number and k not in (0, VOID)]
        expected.append(max(sorted(set(votes)), key=votes.count) - 1)
    assert target.labels.tolist() == expected


def test_instances_without_a_class(tmp_path):
    odd = numbers(
        nothing=(slice(0, 2), slice(0, 2), 1, 0),
        void=(slice(0, 2), slice(3, 5), 2, VOID),
        unknown=(slice(3, 5), slice(0, 2), 3, 21),
        dog=(slice(3, 5), slice(3, 5), 4, DOG),
    )
    make_voc_masks(tmp_path, {"2007_000001": odd})
    dataset = open_dataset("voc12", "seg_val", root=tmp_path)
    np.testing.assert_array_equal(dataset[0].target.boxes, [[3, 3, 5, 5]])
    listed = ", ".join(f"2007_000001.jpg (number {number})" for number in (1, 2, 3))
    assert dataset.problems == (f"3 × instance without a class that VOC has (dropped): {listed}",)


def test_masks_that_cannot_be_used_are_named_and_the_rest_goes_on(tmp_path, images):
    names = [f"2007_00000{i}" for i in range(1, 8)]
    home = make_voc_masks(tmp_path, dict.fromkeys(names, images["2007_000032"]))
    (home / "SegmentationObject/2007_000001.png").unlink()
    (home / "SegmentationClass/2007_000002.png").write_bytes(b"no image")
    Image.new("RGB", SHAPE[::-1]).save(home / "SegmentationObject/2007_000003.png")
    Image.new("L", (8, 7)).save(home / "SegmentationClass/2007_000004.png")
    Image.new("RGB", (9, 6)).save(home / "JPEGImages/2007_000005.jpg")
    (home / "JPEGImages/2007_000006.jpg").unlink()
    dataset = open_dataset("voc12", "seg_val", root=tmp_path)
    assert [sample.name for sample in dataset] == ["2007_000007.jpg"]
    text = "\n".join(dataset.problems)
    for part in (
        "3 × image whose masks cannot be read (dropped): ",
        "SegmentationObject/2007_000001.png: no such file",
        "SegmentationClass/2007_000002.png: not an image",
        "SegmentationObject/2007_000003.png: a mask must be an indexed PNG (mode P or L",
        "2 × image whose masks have another size (dropped): 2007_000004.jpg (8×6, 8×6, 8×7), 2007_000005.jpg (9×6, 8×6",
        "1 × image missing on disk (dropped): 2007_000006.jpg",
    ):
        assert part in text
    (home / "SegmentationObject/2007_000007.png").unlink()
    with pytest.raises(DataMissing) as caught:
        open_dataset("voc12", "seg_val", root=tmp_path)
    assert "none of the 7 images of split 'seg_val' is usable:\n  4 × image whose masks" in str(caught.value)


def test_the_lists_of_segmentation_are_needed(tmp_path, images):
    make_voc(tmp_path, {"2007_000032": [VocObject("dog", (1, 1, 5, 5))]}, year=2012)
    with pytest.raises(DataMissing, match="VOC2012 not found; looked for ImageSets/Segmentation and JPEGImages in:"):
        open_dataset("voc12", "seg_val", root=tmp_path)
    make_voc_masks(tmp_path, images)
    assert len(open_dataset("voc12", "seg_val", root=tmp_path)) == 2
    with pytest.raises(DataMissing, match=r"Segmentation/trainval\.txt: no such split file; present here: val$"):
        open_dataset("voc12", "seg_trainval", root=tmp_path)
    assert open_dataset("voc12", "trainval", root=tmp_path)[0].target.masks is None  # detection is as it was
    with pytest.raises(ParameterError, match="unknown split 'seg_trainaug' of dataset 'voc07'"):
        open_dataset("voc07", "seg_trainaug", root=tmp_path)
