"""COCO instances files: boxes, masks, crowds, the COCO20k subset, and annotations that do not fit their images."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO

from foundling.datasets import AnnotationError, open_dataset
from foundling.datasets.coco import coco20k_ids, open_coco, run_lengths
from foundling.errors import DataMissing, ParameterError
from small_datasets import coco_annotation, make_coco


@pytest.fixture
def coco(tmp_path):
    """A folder and a JSON: image 30 has two objects, one a crowd; 4 has none; 11 lies in a subfolder."""
    crowd = coco_annotation(30, (0, 0, 60, 1), 7, iscrowd=1, segmentation={"size": [40, 60], "counts": [0, 40, 2360]})
    objects = [coco_annotation(30, (10.5, 2.5, 4, 5), 7), crowd, coco_annotation(11, (1, 2, 30, 20), 1)]
    file = make_coco(tmp_path / "images", {30: "c.jpg", 4: "a.jpg", 11: "sub/b.jpg"}, objects, tmp_path / "i.json")
    return tmp_path / "images", file


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_boxes_labels_crowds_and_order(coco):
    root, file = coco
    dataset = open_dataset("coco", root=root, annotations=file)
    assert [sample.image_id for sample in dataset] == [4, 11, 30]
    assert [sample.name for sample in dataset] == ["a.jpg", "sub/b.jpg", "c.jpg"]
    assert all(sample.path.is_file() for sample in dataset)
    assert (dataset.categories, dataset.category_ids) == (("cat", "dog"), (1, 7))
    assert (dataset.name, dataset.split, dataset.annotated, dataset.problems) == ("coco", "custom", True, ())
    target = dataset[2].target
    np.testing.assert_array_equal(target.boxes, [[10.5, 2.5, 14.5, 7.5], [0, 0, 60, 1]])
    np.testing.assert_array_equal(target.labels, [1, 1])
    np.testing.assert_array_equal(target.crowd, [False, True])
    assert len(dataset[0].target) == 0
    assert dataset[0].target.masks == []


def test_masks_match_their_boxes(coco):
    root, file = coco
    target = open_dataset("coco", root=root, annotations=file)[1].target
    np.testing.assert_array_equal(rle_codec.toBbox(target.masks[0]), [1, 2, 30, 20])
    assert json.loads(json.dumps(target.masks)) == target.masks
    crowd = open_dataset("coco", root=root, annotations=file)[2].target.masks[1]
    assert rle_codec.area(crowd) == 40  # the first column: RLE runs down the columns
    assert open_dataset("coco", root=root, annotations=file, masks=False)[1].target.masks is None


def test_photos_against_pycocotools(shared):
    file = shared / "photos" / "instances.json"
    dataset = open_dataset("coco", root=shared / "photos" / "images", annotations=file)
    assert (len(dataset), sum(len(sample.target) for sample in dataset), dataset.problems) == (80, 739, ())
    reference = COCO(file)
    for sample in dataset:
        annotations = reference.imgToAnns[sample.image_id]
        for i, annotation in enumerate(annotations):
            x, y, w, h = annotation["bbox"]
            np.testing.assert_allclose(sample.target.boxes[i], [x, y, x + w, y + h], atol=1e-9)
            assert dataset.category_ids[sample.target.labels[i]] == annotation["category_id"]
            assert sample.target.crowd[i] == annotation["iscrowd"]
            np.testing.assert_array_equal(rle_codec.decode(sample.target.masks[i]), reference.annToMask(annotation))


def make_coco20k(home, objects, ids):
    names = {i: f"COCO_train2014_{i:012}.jpg" for i in ids}
    return make_coco(home / "train2014", names, objects, home / "annotations" / "instances_train2014.json")


def test_the_list_of_coco20k(shared):
    names = (shared / "data" / "coco_20k_filenames.txt").read_text().split()
    assert coco20k_ids() == sorted(int(name[-16:-4]) for name in names)


def test_coco20k_has_its_published_size_and_order():
    ids = coco20k_ids()
    assert (len(ids), len(set(ids)), ids == sorted(ids)) == (19_817, 19_817, True)
    assert {560992, 396626, 537231} <= set(ids)  # the first names of the published list


def test_coco20k_rounds_half_to_even_and_leaves_the_rest_of_train2014(tmp_path):
    inside = coco20k_ids()[:2]
    outside = next(i for i in range(1, 1000) if i not in set(coco20k_ids()))
    objects = [
        coco_annotation(inside[1], (0.5, 1.5, 10, 10.1)),  # corners 0.5, 1.5, 10.5, 11.6
        coco_annotation(inside[1], (2.6, 2.6, 0.3, 0.3)),  # rounds to nothing, but was annotated: it stays
        coco_annotation(inside[1], (2.6, 2.6, 0, 3)),
        coco_annotation(inside[0], (0, 0, 5, 5), iscrowd=1, segmentation={"size": [40, 60], "counts": [0, 9, 2391]}),
        coco_annotation(outside, (0, 0, 5, 5), 99),  # what is wrong outside the subset is not reported
    ]
    make_coco20k(tmp_path, objects, [*inside, outside])
    for root in (tmp_path, tmp_path / "train2014"):
        dataset = open_dataset("coco20k", root=root)
        assert [sample.image_id for sample in dataset] == inside
    np.testing.assert_array_equal(dataset[1].target.boxes, [[0, 2, 10, 12], [3, 3, 3, 3]])
    np.testing.assert_array_equal(dataset[0].target.crowd, [True])
    assert dataset[0].target.masks is None
    assert open_dataset("coco20k", root=tmp_path, masks=True)[0].target.masks is not None
    problems = "\n".join(dataset.problems)
    assert "19815 × image of the subset that the annotation file does not describe" in problems
    assert "1 × box without area inside its image (dropped)" in problems
    assert len(dataset.problems) == 2


def test_official_splits_and_where_they_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    with pytest.raises(DataMissing) as caught:
        open_dataset("coco", split="val2017")
    for part in (f"{tmp_path}/coco: no folder val2017/", "instances_val2017.json", "foundling data coco", "root="):
        assert part in str(caught.value)
    home = tmp_path / "coco"
    make_coco(home / "val2017", {1: "1.jpg"}, [], home / "annotations" / "instances_val2017.json")
    assert open_dataset("coco", split="val2017").split == "val2017"
    assert len(open_dataset("coco", split="val2017", root=home / "val2017")) == 1
    with pytest.raises(DataMissing, match="foundling data coco20k"):
        open_dataset("coco20k")
    with pytest.raises(ParameterError, match="needs annotations= and root="):
        open_dataset("coco", root=home)
    with pytest.raises(ParameterError, match="also needs root="):
        open_dataset("coco", annotations=home / "annotations" / "instances_val2017.json")


def test_images_that_nobody_annotated(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    home = tmp_path / "coco"
    with pytest.raises(DataMissing, match=r"unlabeled2017/ beside annotations/image_info_unlabeled2017\.json"):
        open_dataset("coco", split="unlabeled2017")
    file = make_coco(
        home / "unlabeled2017", {9: "9.jpg", 2: "2.jpg"}, [], home / "annotations" / "image_info_unlabeled2017.json"
    )
    edit(file, lambda content: content.pop("annotations"))  # as published
    edit(file, lambda content: content["images"].append({"id": 5, "file_name": "5.jpg"}))
    dataset = open_dataset("coco", split="unlabeled2017")
    assert [(sample.name, sample.image_id, sample.target) for sample in dataset] == [
        ("2.jpg", 2, None),
        ("9.jpg", 9, None),
    ]
    assert not dataset.annotated and dataset.categories == ()
    assert dataset.problems == ("1 × image missing on disk (dropped): 5.jpg",)
    edit(file, lambda content: content.update(images={}))
    with pytest.raises(AnnotationError, match="no list 'images' at its top"):
        open_dataset("coco", split="unlabeled2017")
    edit(file, lambda content: content.update(images=[{"id": 5, "file_name": "5.jpg"}]))
    with pytest.raises(DataMissing, match=r"none of the 1 images that .* lists is here"):
        open_dataset("coco", split="unlabeled2017")


def test_malformed_files_name_file_and_line(coco):
    root, file = coco
    for text, message in (
        ('{"images": [],\n "annotations": [,]}', r"i\.json, line 2, column 18: Expecting value"),
        ("", r"i\.json, line 1, column 1"),
        ('{"images": [], "categories": []}', "no list 'annotations' at its top"),
        ("[1, 2]", "no list 'images' at its top"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "category without a whole-number id"),
    ):
        file.write_text(text)
        with pytest.raises(AnnotationError, match=message):
            open_coco(root, file)
    file.write_bytes(b"\x89PNG\xff")
    with pytest.raises(AnnotationError, match=r"i\.json: no JSON text"):
        open_coco(root, file)


def test_missing_folder_file_and_images(coco):
    root, file = coco
    with pytest.raises(DataMissing, match=r"nowhere: no such image folder"):
        open_coco(root / "nowhere", file)
    with pytest.raises(DataMissing, match=r"none\.json: no such annotation file"):
        open_coco(root, root / "none.json")
    (root / "elsewhere").mkdir()
    with pytest.raises(DataMissing, match=r"elsewhere: none of the 3 images that .*i\.json describes is here"):
        open_coco(root / "elsewhere", file)


def test_what_is_wrong_is_listed_and_the_rest_goes_on(coco):
    root, file = coco

    def spoil(content):
        content["images"] += [
            {"id": 50, "file_name": "gone.jpg", "width": 9, "height": 9},
            {"id": 30, "file_name": "again.jpg"},
            {"id": "x", "file_name": "text_id.jpg"},
            "nonsense",
        ]
        content["annotations"] += [
            coco_annotation(11, (50, 30, 20, 20)),  # reaches outside
            coco_annotation(11, (100, 30, 20, 20)),  # lies outside
            coco_annotation(11, (5, 5, 0, 9)),
            coco_annotation(999, (5, 5, 9, 9)),
            coco_annotation(11, (5, 5, 9, 9), 99),
            {"image_id": 11, "category_id": 1, "bbox": [1, 2, float("nan"), 4]},
            {"image_id": 11, "category_id": 1},
            None,
        ]

    edit(file, spoil)
    dataset = open_coco(root, file)
    assert [sample.image_id for sample in dataset] == [4, 11, 30]
    np.testing.assert_array_equal(dataset[1].target.boxes, [[1, 2, 31, 22], [50, 30, 60, 40]])
    assert len(dataset[1].target.masks) == 2
    problems = "\n".join(dataset.problems)
    for line in (
        "1 × image missing on disk (dropped): gone.jpg",
        "1 × image entry whose id or file_name occurred before (dropped): again.jpg",
        "2 × image entry without a whole-number id and a file_name (dropped): {'id': 'x', 'file_name': 'text_id.jpg'}",
        "1 × box reaching outside its image (clipped): sub/b.jpg",
        "2 × box without area inside its image (dropped): sub/b.jpg, sub/b.jpg",
        "1 × annotation of an unknown image (dropped): image_id 999",
        "1 × annotation of an unknown category (dropped): category_id 99",
        "3 × annotation without image_id, category_id or bbox of four numbers (dropped): #8, #9, #10",
    ):
        assert line in problems
    assert len(dataset.problems) == 8


def test_images_whose_size_the_json_does_not_tell(coco):
    root, file = coco
    edit(file, lambda content: [image.pop("width") for image in content["images"]])
    Image.new("RGB", (12, 8)).save(root / "c.jpg")
    (root / "sub/b.jpg").write_bytes(b"")
    dataset = open_coco(root, file, masks=False)
    np.testing.assert_array_equal(dataset[2].target.boxes, [[10.5, 2.5, 12, 7.5], [0, 0, 12, 1]])
    assert len(dataset[1].target) == 0
    assert "1 × image of unknown size, its objects unused: neither the JSON nor the file tells: sub/b.jpg" in (
        dataset.problems
    )


@pytest.mark.parametrize(
    "segmentation",
    [
        [], None, [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], {"size": [60, 40], "counts": [2400]},
        {"size": [40, 60], "counts": [2000]}, [["a"] * 6], {"size": [40, 60], "counts": ["a"]},
        {"size": [40, 60], "counts": "?"}, {"size": [40, 60], "counts": "é"}, {"size": [40, 60], "counts": "o2"},
        [[1, 2, 1e12, 4, 5, 6]], [[1, 2, float("nan"), 4, 5, 6]], {"size": [40, 60], "counts": ""}, "text",
        {"size": [40, 60], "counts": "k=5S100000Uh1o"}, {"size": [40, 60], "counts": [-1, 2401]},
    ],
    ids=str,
)  # fmt: skip
def test_an_unusable_segmentation_leaves_boxes_without_masks(coco, segmentation):
    root, file = coco
    edit(file, lambda content: content["annotations"][1].update(segmentation=segmentation))
    dataset = open_coco(root, file)
    assert dataset[2].target.masks is None
    assert len(dataset[2].target.boxes) == 2
    assert dataset[1].target.masks is not None
    assert "1 × image whose masks are unused: one or more objects lack a usable segmentation: c.jpg" in dataset.problems


def test_run_lengths_undo_the_compression(rng):
    for _ in range(200):
        runs = rng.integers(0, rng.choice([3, 40, 2000]), rng.integers(1, 9)).tolist()
        rle = rle_codec.frPyObjects({"size": [sum(runs), 1], "counts": runs}, sum(runs), 1)
        assert run_lengths(rle["counts"].decode()).tolist() == runs
    for damaged in ("", "0o", "0 0", "0é", "ooooooooo0"):  # the second ends within a number
        assert run_lengths(damaged).size == 0


def test_boxes_without_any_segmentation_are_no_problem(coco):
    root, file = coco
    edit(file, lambda content: [annotation.pop("segmentation") for annotation in content["annotations"]])
    dataset = open_coco(root, file)
    assert dataset.problems == ()
    assert dataset[2].target.masks is None
