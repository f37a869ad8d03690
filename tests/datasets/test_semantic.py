"""Semantic label maps: class maps and lists of VOC, categories merged from instances, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec

from foundling.datasets import open_dataset
from foundling.datasets.index_masks import write_labels
from foundling.datasets.semantic import as_voc, boxes_as_masks, read_semantic, semantic_truth, with_objects
from foundling.datasets.voc import CATEGORIES
from foundling.errors import DataMissing, ImageError, ParameterError
from small_datasets import VocObject, coco_annotation, make_coco, make_voc, make_voc_masks

CAT, DOG, VOID = 8, 12, 255


def class_map(height: int, width: int) -> np.ndarray:
    kinds = np.zeros((height, width), dtype=np.uint8)
    kinds[:2, :3], kinds[2, :3], kinds[3:, 4:] = DOG, VOID, CAT
    return kinds


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images of different sizes, with instances of one of them alone."""
    images = {"2007_000032": class_map(6, 8), "2007_000033": class_map(5, 9)}
    return make_voc_masks(tmp_path, {name: (np.zeros_like(kinds), kinds) for name, kinds in images.items()})


def test_the_class_map_of_voc_counts_and_not_its_instances(voc: Path) -> None:
    dataset = open_dataset("voc12", "seg_val", root=voc)
    for sample, size in zip(dataset, [(6, 8), (5, 9)], strict=True):
        np.testing.assert_array_equal(semantic_truth(sample, dataset), class_map(*size))


def test_the_test_part_of_2007(tmp_path: Path) -> None:
    """Which, unlike that of 2012, is public: Table 2 of COMUS is of it."""
    kinds = class_map(6, 8)
    home = make_voc_masks(tmp_path, {"000068": (np.where(kinds == CAT, 1, 0).astype(np.uint8), kinds)}, "test", 2007)
    dataset = open_dataset("voc07", "seg_test", root=home)
    np.testing.assert_array_equal(semantic_truth(dataset[0], dataset), kinds)


@pytest.mark.parametrize("form", ["ids", "paths", "palette"])
def test_trainaug_as_it_is_passed_around(voc: Path, form: str) -> None:
    """A list of ids, or of paths of image and map; maps in grey or with a palette; neither comes with VOC."""
    folder = voc / "SegmentationClassAug"
    folder.mkdir()
    for name, size in {"2007_000032": (6, 8), "2007_000033": (5, 9)}.items():
        if form == "palette":
            write_labels(folder / f"{name}.png", class_map(*size))
        else:
            Image.fromarray(class_map(*size)).save(folder / f"{name}.png")
    lists = voc / "ImageSets/Segmentation"
    names = ["2007_000032", "2007_000033", "2008_000001"]
    if form == "paths":
        lines = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in names]
        (lists / "train_aug.txt").write_text("\n".join(lines))
    else:
        (lists / "trainaug.txt").write_text("".join(f"{name}\n" for name in names))
    dataset = open_dataset("voc12", "seg_trainaug", root=voc)
    assert [sample.name for sample in dataset] == ["2007_000032.jpg", "2007_000033.jpg"]
    assert not dataset.annotated and dataset[0].target is None and len(dataset.categories) == 20
    assert dataset.problems == ("1 × image missing on disk (dropped): 2008_000001.jpg",)
    np.testing.assert_array_equal(semantic_truth(dataset[1], dataset), class_map(5, 9))


def test_trainaug_that_is_not_there(voc: Path) -> None:
    with pytest.raises(DataMissing, match=r"trainaug\.txt: no such split file; present here: val"):
        open_dataset("voc12", "seg_trainaug", root=voc)
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000032\n")
    with pytest.raises(DataMissing, match="without a label map in SegmentationClassAug"):
        open_dataset("voc12", "seg_trainaug", root=voc)


def test_categories_are_merged_and_the_first_annotated_wins(tmp_path: Path) -> None:
    """As COMUS' code has it: ids with gaps become 1, 2, …; crowds count; later masks go below earlier ones."""
    crowd = np.zeros((40, 60), dtype=np.uint8)
    crowd[30:, 50:] = 1
    runs = {"size": [40, 60], "counts": rle_codec.encode(np.asfortranarray(crowd))["counts"].decode()}
    entries = [
        coco_annotation(1, (0, 0, 20, 20), 18, id=1),
        coco_annotation(1, (10, 10, 20, 20), 3, id=2),
        coco_annotation(1, (25, 25, 10, 10), 18, id=3),
        coco_annotation(1, (50, 30, 10, 10), 90, id=4, iscrowd=1, segmentation=runs),
    ]
    file = make_coco(tmp_path, {1: "a.png", 2: "b.png"}, entries)
    content = json.loads(file.read_text())
    content["categories"] = [{"id": i, "name": n} for i, n in ((90, "toothbrush"), (3, "car"), (18, "dog"))]
    file.write_text(json.dumps(content))
    dataset = open_dataset("coco", root=tmp_path, annotations=file)
    car, dog, brush = (1 + dataset.categories.index(name) for name in ("car", "dog", "toothbrush"))
    assert (car, dog, brush) == (1, 2, 3)
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[30:, 50:] = brush
    expected[25:35, 25:35] = dog
    expected[10:30, 10:30] = car
    expected[:20, :20] = dog
    np.testing.assert_array_equal(semantic_truth(dataset[0], dataset), expected)
    np.testing.assert_array_equal(semantic_truth(dataset[1], dataset), np.zeros((40, 60)))  # nothing annotated


def test_what_nobody_can_tell_is_void(tmp_path: Path) -> None:
    entries = [coco_annotation(1, (2, 3, 10.5, 4), id=1), coco_annotation(1, (30, 30, 5, 5), id=2, segmentation=[])]
    entries.append(coco_annotation(2, (0, 0, 5, 5), id=3))
    file = make_coco(tmp_path, {1: "a.png", 2: "b.png"}, entries)
    dataset = open_dataset("coco", root=tmp_path, annotations=file)
    labels = semantic_truth(dataset[0], dataset)
    expected = np.zeros((40, 60))
    expected[3:7, 2:13] = expected[30:35, 30:35] = VOID
    np.testing.assert_array_equal(labels, expected)


def test_scenes_hold_their_instances(tmp_path: Path) -> None:
    dataset = open_dataset("scenes", "multi_val", root=tmp_path, size=96, count=3)
    for sample in dataset:
        assert sample.target is not None and sample.target.masks is not None
        labels = semantic_truth(sample, dataset)
        expected = np.zeros((96, 96), dtype=int)
        for mask, label in zip(sample.target.masks, sample.target.labels, strict=True):
            expected += rle_codec.decode(mask).astype(int) * (label + 1)  # visible pixels do not overlap
        np.testing.assert_array_equal(labels, expected)


COCO_NAMES = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle",
              "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}  # fmt: skip


def make_twenty(folder: Path) -> Path:
    """Two images; VOC's classes under COCO's names, in another order, and two others among them."""
    names = ["giraffe", *(COCO_NAMES.get(name, name) for name in reversed(CATEGORIES)), "banana"]
    number = {name: i for i, name in enumerate(names, 1)}
    entries = [
        coco_annotation(1, (0, 0, 20, 20), number["giraffe"], id=1),
        coco_annotation(1, (10, 10, 20, 20), number["couch"], id=2),
        coco_annotation(1, (25, 25, 10, 10), number["person"], id=3, iscrowd=0),
        coco_annotation(2, (0, 0, 30, 31), number["banana"], id=4),
        coco_annotation(2, (10, 20, 20, 18), number["dog"], id=5),
    ]
    file = make_coco(folder, {1: "a.png", 2: "b.png", 3: "c.png"}, entries)
    content = json.loads(file.read_text())
    content["categories"] = [{"id": i, "name": name} for name, i in number.items()]
    file.write_text(json.dumps(content))
    return file


def test_coco_as_voc_has_the_shared_classes_alone(tmp_path: Path) -> None:
    """Another object that hides one of the twenty is not there: the pixels are those of the one below."""
    whole = open_dataset("coco", root=tmp_path, annotations=make_twenty(tmp_path))
    dataset = as_voc(whole)
    assert dataset.categories == CATEGORIES and dataset.category_ids == tuple(range(1, 21))
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[25:35, 25:35] = 1 + CATEGORIES.index("person")
    expected[10:30, 10:30] = 1 + CATEGORIES.index("sofa")
    np.testing.assert_array_equal(semantic_truth(dataset[0], dataset), expected)
    assert (semantic_truth(whole[0], whole)[10:20, 10:20] == 1).all()  # the giraffe
    assert not semantic_truth(dataset[2], dataset).any()
    assert [len(sample.target) for sample in dataset if sample.target is not None] == [2, 1, 0]
    np.testing.assert_array_equal(semantic_truth(as_voc(dataset)[0], dataset), expected)  # VOC's own names stay


def test_what_lacks_a_class_of_voc_is_not_made_into_it(tmp_path: Path) -> None:
    scenes = open_dataset("scenes", root=tmp_path, size=96, count=1)
    with pytest.raises(ParameterError, match=r"scenes has no category aeroplane, bicycle, bird \(20 of VOC's 20 are"):
        as_voc(scenes)


def test_images_with_few_labelled_pixels_are_left_out(tmp_path: Path) -> None:
    """Pixels of two objects count once: 775 of the first image, 1070 of the second, none of the third."""
    dataset = open_dataset("coco", root=tmp_path, annotations=make_twenty(tmp_path))
    kept = with_objects(dataset)
    assert [sample.name for sample in kept] == ["b.png"]
    assert kept.problems == ("2 × image with fewer than 1000 pixels of objects (dropped): a.png, c.png",)
    pixels = [np.count_nonzero(semantic_truth(sample, dataset)) for sample in dataset]
    assert pixels == [775, 1070, 0]
    assert len(with_objects(dataset, 775)) == 2 and len(with_objects(dataset, 776)) == 1
    assert [len(with_objects(as_voc(dataset), least)) for least in (300, 400)] == [2, 1]
    with pytest.raises(ParameterError, match="coco: in none of its 3 images do masks cover 2000 pixels"):
        with_objects(dataset, 2000)


def test_boxes_stand_in_for_masks_that_there_are_none_of(tmp_path: Path) -> None:
    make_voc(tmp_path, {"000001": [VocObject("cat", (11, 21, 40, 30)), VocObject("dog", (1, 1, 50, 50))], "000002": []})
    whole = boxes_as_masks(open_dataset("voc07", split="trainval", root=tmp_path))
    cat, dog = whole[0].target.masks
    assert rle_codec.toBbox(cat).tolist() == [10, 20, 30, 10] and rle_codec.area(cat) == 300
    assert rle_codec.decode(dog).all() and dog["size"] == [50, 50]
    assert whole[1].target.masks == []
    assert boxes_as_masks(whole) == whole  # those that have masks keep them


def test_datasets_without_classes_of_pixels_are_refused(tmp_path: Path) -> None:
    scenes = open_dataset("scenes", root=tmp_path, size=96, count=1, masks=False)
    with pytest.raises(ParameterError, match="scenes single_val says no classes of pixels: open a dataset that has"):
        semantic_truth(scenes[0], scenes)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    photos = open_dataset("folder", root=tmp_path / "a.png")
    with pytest.raises(ParameterError, match="folder all says no classes"):
        semantic_truth(photos[0], photos)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("size", r"2007_000032\.png: a label map of 7×6 pixels for an image of 8×6: it must have the size"),
        ("number", r"2007_000032\.png: the label map holds 21, 77: legal are 0 to 20, and 255"),
        ("colours", r"2007_000032\.png: a mask must be an indexed PNG .* but this is RGB"),
        ("nothing", r"2007_000032\.png: no such file"),
        ("bytes", r"2007_000032\.png: not an image"),
    ],
)
def test_a_label_map_that_cannot_be_used_is_named(voc: Path, damage: str, message: str) -> None:
    dataset = open_dataset("voc12", "seg_val", root=voc)
    file, labels = voc / "SegmentationClass/2007_000032.png", class_map(6, 8)
    file.unlink()
    if damage == "size":
        write_labels(file, labels[:, :7])
    elif damage == "number":
        labels[0, :2] = 21, 77
        write_labels(file, labels)
    elif damage == "colours":
        Image.fromarray(labels).convert("RGB").save(file)
    elif damage == "bytes":
        file.write_bytes(b"none")
    with pytest.raises(ImageError, match=message):
        semantic_truth(dataset[0], dataset)


def test_many_unknown_numbers_are_counted_and_the_size_is_checked_where_it_is_known(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    with pytest.raises(ImageError, match=r"holds 3, 4, 5, 6, 7, …: legal are 0 to 2"):
        read_semantic(tmp_path / "a.png", 3)
    assert read_semantic(tmp_path / "a.png", 12).shape == (3, 4)
