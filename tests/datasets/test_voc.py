"""PASCAL VOC: boxes by LOST's convention, the subsets without hard objects, layouts, and damaged annotations."""

import xml.dom.minidom

import numpy as np
import pytest

from foundling.datasets import open_dataset
from foundling.errors import DataMissing, ParameterError
from small_datasets import VocObject, make_voc, voc_xml

DOG, HARD_DOG = VocObject("dog", (3, 5, 20, 30)), VocObject("dog", (1, 1, 9, 9), difficult=1)
CUT_CAT = VocObject("cat", (10, 10, 50, 50), truncated=1)


@pytest.fixture
def voc(tmp_path):
    images = {"000012": [DOG, HARD_DOG], "000005": [CUT_CAT], "000007": [], "000009": [HARD_DOG, CUT_CAT]}
    make_voc(tmp_path / "VOCdevkit", images)
    return tmp_path


def test_boxes_labels_and_flags(voc):
    dataset = open_dataset("voc07", split="trainval", root=voc)
    assert (dataset.name, dataset.split, dataset.annotated, dataset.problems) == ("voc07", "trainval", True, ())
    assert [sample.name for sample in dataset] == ["000012.jpg", "000005.jpg", "000007.jpg", "000009.jpg"]
    assert [sample.image_id for sample in dataset] == [12, 5, 7, 9]
    assert not any(sample.orient for sample in dataset)
    target = dataset[0].target
    np.testing.assert_array_equal(target.boxes, [[2, 4, 20, 30], [0, 0, 9, 9]])
    assert [dataset.categories[label] for label in target.labels] == ["dog", "dog"]
    np.testing.assert_array_equal(target.difficult, [False, True])
    np.testing.assert_array_equal(dataset[1].target.truncated, [True])
    assert not target.crowd.any()
    assert len(dataset[2].target) == 0
    assert dataset.category_ids[dataset.categories.index("aeroplane")] == 1
    assert len(dataset.categories) == len(dataset.category_ids) == 20


def test_the_same_boxes_by_another_parser(voc):
    for sample in open_dataset("voc07", root=voc):
        document = xml.dom.minidom.parse(str(voc / f"VOCdevkit/VOC2007/Annotations/{sample.path.stem}.xml"))
        expected = []
        for box in document.getElementsByTagName("bndbox"):
            if box.parentNode.tagName == "object":
                x0, y0, x1, y1 = (float(node.firstChild.data) for node in box.childNodes)
                expected.append((x0 - 1, y0 - 1, x1, y1))
        np.testing.assert_array_equal(sample.target.boxes, np.reshape(expected, (-1, 4)))


def test_noh_drops_hard_objects_then_empty_images(voc):
    dataset = open_dataset("voc07", split="trainval_noh", root=voc)
    assert [sample.name for sample in dataset] == ["000012.jpg"]
    np.testing.assert_array_equal(dataset[0].target.boxes, [[2, 4, 20, 30]])
    assert dataset.problems == ()


@pytest.mark.parametrize("root", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_root_may_be_any_of_the_folders(voc, root):
    assert len(open_dataset("voc07", root=voc / root)) == 4


def test_roots_of_torchvision_and_of_the_lost_code(tmp_path, monkeypatch):
    make_voc(tmp_path / "datasets/VOC2007/VOCdevkit", {"000001": [DOG]})
    assert len(open_dataset("voc07", root=tmp_path / "datasets")) == 1
    make_voc(tmp_path / "data/voc/VOCdevkit", {"2008_000002": [DOG]}, year=2012)
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    dataset = open_dataset("voc12")
    assert (dataset[0].name, dataset[0].image_id) == ("2008_000002.jpg", 2008000002)


def test_the_other_year_is_not_taken_for_it(voc):
    with pytest.raises(DataMissing) as caught:
        open_dataset("voc12", root=voc / "VOCdevkit/VOC2007")
    for part in ("VOC2012 not found", "VOC2007/VOCdevkit/VOC2012\n", "foundling data voc12", "root="):
        assert part in str(caught.value)


def test_missing_dataset_split_and_images(voc):
    with pytest.raises(DataMissing, match=r"(?s)VOC2007 not found.*nowhere/VOCdevkit/VOC2007\n.*nowhere\n"):
        open_dataset("voc07", root=voc / "nowhere")
    with pytest.raises(DataMissing, match=r"test\.txt: no such split file; present here: trainval"):
        open_dataset("voc07", split="test", root=voc)
    with pytest.raises(ParameterError, match=r"unknown split 'test' of dataset 'voc12': choose one of trainval, train"):
        open_dataset("voc12", split="test", root=voc)
    for file in (voc / "VOCdevkit/VOC2007/JPEGImages").iterdir():
        file.unlink()
    with pytest.raises(DataMissing, match="none of the 4 images of split 'trainval' is usable"):
        open_dataset("voc07", root=voc)


def test_what_is_wrong_is_listed_and_the_rest_goes_on(tmp_path):
    odd = [
        VocObject("dog", (40, 40, 60, 70)),  # reaches outside
        VocObject("dog", (60, 60, 70, 70)),  # lies outside
        VocObject("cat", (9, 9, 8, 20)),  # has no area
        VocObject("unicorn", (1, 1, 5, 5)),
        VocObject("cat", ("a", 1, 5, 5)),
    ]
    names = ["000001", "000002", "000003", "000004", "000005", "000006"]
    home = make_voc(tmp_path, {name: odd if name == "000001" else [DOG] for name in names})
    (home / "JPEGImages/000002.jpg").unlink()
    (home / "Annotations/000003.xml").unlink()
    (home / "Annotations/000004.xml").write_text("<annotation>\n<object>\n</annotation>")
    (home / "Annotations/000005.xml").write_text(voc_xml("000005", None, [DOG]))  # its size is in the file only
    (home / "Annotations/000006.xml").write_text(voc_xml("000006", (0, 0), [DOG]))
    (home / "JPEGImages/000006.jpg").write_bytes(b"")
    dataset = open_dataset("voc07", root=tmp_path)
    assert [sample.name for sample in dataset] == ["000001.jpg", "000005.jpg"]
    np.testing.assert_array_equal(dataset[0].target.boxes, [[39, 39, 50, 50]])
    np.testing.assert_array_equal(dataset[1].target.boxes, [[2, 4, 20, 30]])
    problems = "\n".join(dataset.problems)
    for line in (
        "1 × image missing on disk (dropped): 000002.jpg",
        "1 × image without an annotation file (dropped): 000003.jpg",
        "Annotations/000004.xml, mismatched tag: line 3, column 2",
        "1 × image of unknown size (dropped): ",
        "1 × box reaching outside its image (clipped): 000001.jpg",
        "2 × box without area inside its image (dropped): 000001.jpg, 000001.jpg",
        "1 × object of a category that VOC does not have (dropped): 000001.jpg ('unicorn')",
        "1 × object without a box of four numbers (dropped): 000001.jpg",
    ):
        assert line in problems
    assert len(dataset.problems) == 8
