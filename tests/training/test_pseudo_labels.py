"""Pseudo-labels: by hand, from discoveries, clusters and the truth, as files and back, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from foundling.categories import Objects
from foundling.datasets.coco import open_coco
from foundling.discovery.export import encode_mask
from foundling.discovery.stream import Found
from foundling.errors import DataMissing, FoundlingError, ImageError, ParameterError
from foundling.training import label_files
from foundling.training.label_files import (
    detectron2_dataset,
    read_pseudo_labels,
    write_lost_dataset,
    write_pseudo_labels,
)
from foundling.training.pseudo_labels import PseudoLabels, labels_of_found, labels_of_targets, pseudo_labels
from foundling.types import Failure, Sample, Target

SIZES = [(8, 6), (5, 9), (7, 7), (4, 4)]  # height, width


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Four images of different sizes, the last of which is none."""
    found = []
    for i, (height, width) in enumerate(SIZES):
        Image.new("RGB", (width, height)).save(tmp_path / f"{i}.jpg")
        found.append(Sample(f"{i}.jpg", tmp_path / f"{i}.jpg", 10 + i))
    found[3].path.write_bytes(b"no image")
    return found


def make_objects(rows: list[tuple[int, list[float]]], masks: list[dict[str, Any] | None] | None = None) -> Objects:
    images = np.array([image for image, _ in rows], dtype=np.int64)
    return Objects(
        images,
        tuple(f"{image}.jpg" for image in images.tolist()),
        np.arange(len(rows)),
        np.array([box for _, box in rows], dtype=np.float64).reshape(-1, 4),
        np.ones(len(rows)),
        (None,) * len(rows) if masks is None else tuple(masks),
    )


@pytest.fixture
def objects() -> Objects:
    """Two objects in the first image, one in the second, none in the third, one in that which is none."""
    return make_objects([(1, [2.0, 1.0, 5.0, 4.0]), (0, [0.0, 0.0, 3.0, 4.0]), (0, [2, 2, 6, 8]), (3, [0, 0, 2, 2])])


def boxes_of(labels: PseudoLabels) -> dict[str, list[list[float]]]:
    return {image.name: image.boxes.tolist() for image in labels.images}


def test_by_hand(samples: list[Sample], objects: Objects) -> None:
    labels = pseudo_labels(samples, objects)
    expected = {"0.jpg": [[0, 0, 3, 4], [2, 2, 6, 8]], "1.jpg": [[2, 1, 5, 4]], "2.jpg": []}
    assert boxes_of(labels) == expected
    assert [(image.image_id, image.size) for image in labels.images] == [(10, (8, 6)), (11, (5, 9)), (12, (7, 7))]
    assert labels.classes == ("object",) and labels.counts.tolist() == [3] and labels.without == ("2.jpg",)
    assert [failure.name for failure in labels.failures] == ["3.jpg"]
    assert [(sample.name, len(image)) for sample, image in labels.usable(samples)] == [("0.jpg", 2), ("1.jpg", 1)]
    assert labels.summary() == (
        "3 boxes of 1 class in 2 images\n1 × image without a box (left out): 2.jpg\n"
        "1 × image that failed (left out): 3.jpg"
    )


def test_clusters_and_a_class_without_members(samples: list[Sample], objects: Objects) -> None:
    labels = pseudo_labels(samples, objects, np.array([3, 1, -1, 3]), 5)
    assert [image.labels.tolist() for image in labels.images] == [[1], [3], []]
    assert labels.classes == tuple(f"cluster {i}" for i in range(5))
    assert labels.counts.tolist() == [0, 1, 0, 1, 0] and labels.empty == ("cluster 0", "cluster 2", "cluster 4")
    assert "3 × class without a box: cluster 0, cluster 2, cluster 4" in labels.summary()
    assert "1 × object without a class (left out): 0.jpg" in labels.summary()
    assert len(pseudo_labels(samples, objects, np.array([3, 1, -1, 3])).classes) == 4
    assert pseudo_labels(samples, objects, np.array([1, 0, 0, 1]), ["cat", "dog"]).classes == ("cat", "dog")


def test_boxes_outside_images(samples: list[Sample]) -> None:
    """An image of 8 rows and 6 columns: clipped, beside it, without a side, the wrong way round, not a number."""
    rows = [
        [-2.5, 1, 9, 4],
        [7, 1, 9, 4],
        [2, 3, 2, 5],
        [4, 4, 2, 6],
        [np.nan, 0, 2, 2],
        [0, 0, np.inf, 2],
        [0, 0, 1, 1],
    ]
    labels = pseudo_labels(samples, make_objects([(0, row) for row in rows]))
    assert boxes_of(labels)["0.jpg"] == [[0, 1, 6, 4], [0, 0, 1, 1]]
    assert labels.problems == (
        "1 × box reaching outside its image (clipped): 0.jpg",
        "5 × box without area inside its image, or not finite (dropped): 0.jpg, 0.jpg, 0.jpg and 2 more",
    )


def test_no_box_at_all(samples: list[Sample]) -> None:
    labels = pseudo_labels(samples[:3], make_objects([(0, [9, 9, 12, 12])]))
    assert labels.without == ("0.jpg", "1.jpg", "2.jpg")
    with pytest.raises(ParameterError, match="none of the 3 images has a box: there is nothing to train on"):
        labels.usable(samples)
    with pytest.raises(ParameterError, match="none of the 0 images has a box"):
        PseudoLabels(()).usable(samples)


def found(samples: list[Sample]) -> Found:
    """Two boxes in the first image, the second the better; none in the second; the third failed."""
    boxes = [[[0.0, 0, 2, 2], [1.0, 1, 6, 7]], []]
    masks = [np.zeros((2, 2), bool), np.ones((2, 2), bool)]
    records = [
        {
            "name": samples[i].name, "index": i, "size": list(SIZES[i]), "seen": list(SIZES[i]), "grid": [2, 2],
            "patch_size": 4,
            "methods": {
                "lost": {
                    "boxes": boxes[i], "scores": [0.1, 0.9][: len(boxes[i])],
                    "masks": [encode_mask(mask) for mask in masks[: len(boxes[i])]],
                }
            },
        }
        for i in range(2)
    ]  # fmt: skip
    best = np.full((3, 4), np.nan)
    sizes = np.array([*SIZES[:2], (0, 0)])
    return Found(
        tuple(s.name for s in samples[:3]), sizes, {"lost": best}, records, [Failure("2.jpg", 2, "broken")], {}
    )


def test_from_discoveries(samples: list[Sample]) -> None:
    one, every = (labels_of_found(found(samples), samples[:3], "lost", best=best) for best in (True, False))
    assert boxes_of(one) == {"0.jpg": [[1, 1, 6, 7]], "1.jpg": []}
    assert boxes_of(every) == {"0.jpg": [[0, 0, 2, 2], [1, 1, 6, 7]], "1.jpg": []}
    assert one.failures == (Failure("2.jpg", 2, "broken"),) and one.images[0].masks is None
    masked = labels_of_found(found(samples), samples[:3], "lost", masks=True)
    assert masked.images[0].masks == (encode_mask(np.ones((8, 6), bool)),)
    with pytest.raises(ParameterError, match="no results under 'tokencut'"):
        labels_of_found(found(samples), samples[:3], "tokencut")


def target(boxes: list[list[float]], labels: list[int], crowd: list[bool]) -> Target:
    none = np.zeros(len(boxes), bool)
    return Target(np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(labels), none, none, np.array(crowd))


def test_from_the_truth(samples: list[Sample]) -> None:
    truth = target([[0, 0, 3, 3], [1, 1, 4, 4], [0, 0, 6, 8]], [1, 0, 1], [False, False, True])
    annotated = [Sample(samples[0].name, samples[0].path, 10, truth), samples[1]]
    assert boxes_of(labels_of_targets(annotated)) == {"0.jpg": [[0, 0, 3, 3], [1, 1, 4, 4]], "1.jpg": []}
    aware = labels_of_targets(annotated, ("cat", "dog"))
    assert aware.images[0].labels.tolist() == [1, 0] and aware.classes == ("cat", "dog")


def test_masks(samples: list[Sample], tmp_path: Path) -> None:
    masks = [encode_mask(np.eye(8, 6, dtype=bool)), encode_mask(np.ones((8, 6), bool))]
    rows = [(0, [0.0, 0, 6, 6]), (0, [0.0, 0, 6, 8])]
    labels = pseudo_labels(samples[:2], make_objects(rows, masks))
    assert labels.images[0].masks == tuple(masks) and labels.images[1].masks is None
    again = read_pseudo_labels(write_pseudo_labels(tmp_path / "a.json", labels))
    assert again.images[0].masks == tuple(masks) and again.identity == labels.identity
    assert pseudo_labels(samples[:2], make_objects(rows, [masks[0], None])).images[0].masks is None
    with pytest.raises(ImageError, match=r"0\.jpg: a mask of 5×4 pixels in an image of 6×8: make masks at the orig"):
        pseudo_labels(samples[:2], make_objects(rows[:1], [encode_mask(np.ones((4, 5), bool))]))


# Files


def test_files_come_back_as_they_were(samples: list[Sample], rng: np.random.Generator, tmp_path: Path) -> None:
    """Corners with all their digits: what is read is what was written, and is known as such."""
    corners = np.sort(rng.uniform(0, 4.9, (40, 2, 2)), axis=1).reshape(40, 4)
    objects = make_objects([(i % 3, box) for i, box in enumerate(corners.tolist())])
    labels = pseudo_labels(samples, objects, rng.integers(0, 4, 40), 4)
    file = write_pseudo_labels(tmp_path / "labels.json", labels)
    again = read_pseudo_labels(file)
    assert boxes_of(again) == boxes_of(labels)
    for name in ("classes", "failures", "problems", "without", "identity"):
        assert getattr(again, name) == getattr(labels, name), name
    assert [image.labels.tolist() for image in again.images] == [image.labels.tolist() for image in labels.images]
    np.testing.assert_allclose(np.concatenate([image.boxes for image in labels.images[:1]]), corners[::3], atol=5e-4)
    assert write_pseudo_labels(tmp_path / "again.json", again).read_bytes() == file.read_bytes()


def test_identity_tells_labels_apart(samples: list[Sample], objects: Objects) -> None:
    numbers = np.array([0, 1, 1, 0])
    identities = {
        pseudo_labels(samples, objects).identity,
        pseudo_labels(samples, objects[[0, 1, 2]]).identity,
        pseudo_labels(samples[:3], objects[[0, 1, 2]], numbers[:3]).identity,
        pseudo_labels(samples[:3], objects[[0, 1, 2]], 1 - numbers[:3]).identity,
        pseudo_labels(samples[:3], objects[[0, 1, 2]], numbers[:3], 3).identity,
    }
    assert len(identities) == 4  # the fourth image, which is none, changes nothing


def test_pycocotools_and_our_own_dataset_read_the_file(
    samples: list[Sample], objects: Objects, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = pseudo_labels(samples, objects, np.array([3, 1, 0, 3]), 5)
    file = write_pseudo_labels(tmp_path / "labels.json", labels)
    read = COCO(file)
    assert sorted(read.getImgIds()) == [10, 11, 12] and sorted(read.getCatIds()) == [1, 2, 3, 4, 5]
    assert [(a["bbox"], a["category_id"]) for a in read.imgToAnns[11]] == [([2, 1, 3, 3], 4)]
    dataset = open_coco(tmp_path, file)
    assert [sample.target.boxes.tolist() for sample in dataset if sample.target is not None] == list(
        boxes_of(labels).values()
    )


def test_another_coco_file(tmp_path: Path) -> None:
    """Ids with gaps, in any order, crowds, a polygon, a box beyond the border."""
    entries = [
        {"image_id": 5, "category_id": 9, "bbox": [1, 1, 90, 3], "segmentation": [[1, 1, 2, 2, 3, 1]]},
        {"image_id": 5, "category_id": 2, "bbox": [0, 0, 2, 3], "iscrowd": 0},
        {"image_id": 5, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    images = [{"id": i, "file_name": f"{i}.png", "height": 10, "width": 12} for i in (5, 3)]
    content = {"images": images, "annotations": entries, "categories": [{"id": i, "name": f"c{i}"} for i in (9, 2, 4)]}
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content))
    labels = read_pseudo_labels(file)
    assert boxes_of(labels) == {"5.png": [[1, 1, 12, 4], [0, 0, 2, 3]], "3.png": []}
    assert labels.images[0].labels.tolist() == [2, 0] and labels.classes == ("c2", "c4", "c9")
    assert labels.problems == ("1 × box reaching outside its image (clipped): 5.png",)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"images": []}', '{"images": [{}], "annotations": [], "categories": []}', "null"]
)
def test_files_that_hold_something_else(content: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text(content)
    with pytest.raises(
        ParameterError, match=r"labels\.json is no COCO instances JSON with boxes, sizes and categories"
    ):
        read_pseudo_labels(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"labels\.json: no such file of labels"):
        read_pseudo_labels(tmp_path / "labels.json")


def test_a_full_disk_leaves_the_old_file(
    samples: list[Sample], objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_pseudo_labels(tmp_path / "labels.json", pseudo_labels(samples, objects))
    before = file.read_bytes()

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FoundlingError, match=r"No space left on device.*the file that was there is unchanged"):
        write_pseudo_labels(file, pseudo_labels(samples, objects[[0]]))
    monkeypatch.undo()
    assert file.read_bytes() == before and [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_detectron2s_form(samples: list[Sample], objects: Objects, tmp_path: Path) -> None:
    labels = pseudo_labels(samples, objects, np.array([3, 1, 0, 3]), 5)
    entries = detectron2_dataset(labels, samples)
    assert [(e["file_name"], e["image_id"], e["height"], e["width"]) for e in entries] == [
        (str(samples[0].path), 10, 8, 6),
        (str(samples[1].path), 11, 5, 9),
    ]
    assert entries[0]["annotations"] == [
        {"iscrowd": 0, "bbox": [0.0, 0.0, 3.0, 4.0], "category_id": 1, "bbox_mode": label_files.XYXY_ABS},
        {"iscrowd": 0, "bbox": [2.0, 2.0, 6.0, 8.0], "category_id": 0, "bbox_mode": label_files.XYXY_ABS},
    ]
    content = json.loads(write_lost_dataset(tmp_path / "lost.json", labels, samples, "scenes_LOST_OD").read_text())
    assert content["dataset"] == entries
    assert content["meta_data"] == {
        "name": "scenes_LOST_OD",
        "evaluator_type": "coco",
        "thing_classes": [f"cluster {i}" for i in range(5)],
    }


# What is refused


def test_labels_that_do_not_fit(samples: list[Sample], objects: Objects) -> None:
    with pytest.raises(ParameterError, match="3 labels for 4 objects: give each its class, or -1"):
        pseudo_labels(samples, objects, np.array([0, 1, 2]))
    with pytest.raises(ParameterError, match="labels of 0 to 3 with 3 classes: legal are -1"):
        pseudo_labels(samples, objects, np.array([0, 1, 2, 3]), 3)
    with pytest.raises(ParameterError, match="labels of -2 to 1 with 2 classes"):
        pseudo_labels(samples, objects, np.array([0, 1, -2, 1]))
    with pytest.raises(ParameterError, match="with 0 classes"):
        pseudo_labels(samples, objects, np.array([-1, -1, -1, -1]))
    with pytest.raises(ParameterError, match="classes without labels"):
        pseudo_labels(samples, objects, classes=3)


def test_other_samples(samples: list[Sample], objects: Objects) -> None:
    labels = pseudo_labels(samples, objects)
    with pytest.raises(ParameterError, match=r"2 labelled images are not among the 2 samples, the first 1\.jpg .id 11"):
        labels.usable([samples[0], Sample("x.jpg", samples[1].path, 11)])
    with pytest.raises(ParameterError, match=r"an object is of image 1, 1\.jpg, which is not that sample"):
        pseudo_labels(samples[:1], objects)
    with pytest.raises(ParameterError, match="two samples have one image id"):
        pseudo_labels([samples[0], samples[0]], make_objects([]))
