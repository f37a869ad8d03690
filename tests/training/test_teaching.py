"""What notebook 05 is made of: parts that are trained on, the teacher's boxes, names of runs, the surest detections."""

import json

import numpy as np
import pytest
from PIL import Image

from foundling.datasets import open_dataset
from foundling.errors import FoundlingError, ParameterError
from foundling.parameters import validate
from foundling.training import teaching
from foundling.training.detection.settings import Detector
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.types import Detections, Sample


@pytest.fixture(autouse=True)
def data_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path_factory.getbasetemp() / "scenes"))


def given(**values):
    return validate("05_detector_training", {"size": 96, "train_limit": 3, **values})


def training_images(parameters, measured):
    return teaching.training_images(parameters, measured, parameters.parts(), parameters.train_limit)


def samples_of(tmp_path, count=3):
    return [Sample(f"{i}.png", tmp_path / f"{i}.png", 10 + i) for i in range(count)]


def test_parts_are_opened_as_far_as_they_are_wanted():
    measured = open_dataset("scenes", "multi_val", size=96, count=2)
    one = training_images(given(train_on=["single_train"]), measured)
    assert (one.name, one.split, len(one)) == ("scenes", "single_train", 3)
    assert [sample.name for sample in one] == ["000001.png", "000002.png", "000003.png"]
    assert training_images(given(train_on=[]), measured) is measured


def test_images_of_several_parts_are_told_apart():
    measured = open_dataset("scenes", "multi_val", size=96, count=2)
    both = training_images(given(train_on=["single_train", "scenes:multi_train"]), measured)
    assert [sample.image_id for sample in both] == [1, 2, 3, 4, 5, 6]
    assert both[0].name == "scenes_single_train/000001.png" and both[3].name == "scenes_multi_train/000001.png"
    assert both.name == "scenes:single_train+scenes:multi_train" and both.categories == measured.categories
    assert all(sample.path.is_file() for sample in both)


def test_parts_of_another_kind_are_refused(monkeypatch):
    from dataclasses import replace

    measured = open_dataset("scenes", "multi_val", size=96, count=2)
    other = replace(measured, categories=("cat",))
    with pytest.raises(ParameterError, match="train_on: the categories of scenes, multi_train are not those of scenes"):
        training_images(given(train_on=["multi_train"]), other)
    training_images(given(train_on=["multi_train"]), replace(other, annotated=False))


def test_the_teachers_boxes_as_detections(tmp_path):
    boxes = np.array([[0, 0, 5, 5], [np.nan] * 4, [1, 1, 4, 4]], np.float32)
    found = teaching.best_boxes(boxes, samples_of(tmp_path))
    assert list(found) == [10, 12] and found[12].boxes.tolist() == [[1, 1, 4, 4]] and found[12].scores.tolist() == [1]
    sorted_ones = teaching.best_boxes(boxes, samples_of(tmp_path), np.array([4, 3, -1]))
    assert {i: one.labels.tolist() for i, one in sorted_ones.items()} == {10: [4]}
    with pytest.raises(ParameterError, match="3 boxes and 3 labels for 2 images: give one an image"):
        teaching.best_boxes(boxes, samples_of(tmp_path, 2))


def test_runs_are_named_after_all_that_matters(tmp_path):
    image = ImageLabels("a.png", 1, (9, 9), np.array([[0.0, 0.0, 5.0, 5.0]]), np.zeros(1, np.int64))
    moved = ImageLabels("a.png", 1, (9, 9), np.array([[0.0, 0.0, 6.0, 5.0]]), np.zeros(1, np.int64))
    settings, labels = Detector(), PseudoLabels((image,))
    path = teaching.run_path(tmp_path, "cad_seed0", settings, labels)
    assert path.parent == tmp_path and path.name.startswith("cad_seed0-")
    assert teaching.run_path(tmp_path, "cad_seed0", teaching.seeded(settings, 0), labels) == path
    assert teaching.run_path(tmp_path, "cad_seed0", settings.model_copy(update={"workers": 7}), labels) == path
    others = [
        teaching.run_path(tmp_path, "cad_seed0", teaching.seeded(settings, 1), labels),
        teaching.run_path(tmp_path, "cad_seed0", settings.model_copy(update={"channels": 32}), labels),
        teaching.run_path(tmp_path, "cad_seed0", settings, PseudoLabels((moved,))),
    ]
    assert len({path, *others}) == 4
    assert (teaching.seeded(settings, 5, 20).seed, teaching.seeded(settings, 5, 20).classes) == (5, 20)


def test_the_surest_of_a_class_over_all_images(tmp_path):
    samples = samples_of(tmp_path)
    box = np.array([[0.0, 0.0, 5.0, 5.0]])
    found = {
        10: Detections(np.repeat(box, 3, 0), np.array([0.9, 0.5, 0.2]), np.array([0, 1, 0])),
        12: Detections(box + 1, np.array([0.7]), np.array([0])),
    }
    top = teaching.surest(found, samples, 0, 2)
    assert (top.images.tolist(), top.parts.tolist(), top.scores.tolist()) == ([0, 2], [0, 0], [0.9, 0.7])
    assert top.names == ("0.png", "2.png") and top.boxes[1].tolist() == [1, 1, 6, 6]
    assert teaching.surest(found, samples, 1, 9).scores.tolist() == [0.5]
    assert len(teaching.surest(found, samples, 7, 2)) == 0 and teaching.surest(found, samples, 7, 2).boxes.shape == (
        0,
        4,
    )


def test_every_detection_in_every_class():
    box = np.array([[0.0, 0.0, 5.0, 5.0], [1.0, 1.0, 4.0, 4.0]])
    found = teaching.in_every_class({7: Detections(box, np.array([0.9, 0.2]), np.array([2, 0]))}, 3)
    assert found[7].labels.tolist() == [0, 0, 1, 1, 2, 2] and found[7].scores.tolist() == [0.9, 0.2] * 3
    np.testing.assert_array_equal(found[7].boxes, np.concatenate([box] * 3))


def test_what_is_seen_is_written_and_what_failed_is_told(tmp_path, monkeypatch):
    from foundling.training.detected import DetectedSet
    from foundling.types import Failure

    record = {
        "name": "0.png",
        "index": 0,
        "size": [9, 9],
        "boxes": [[1.0, 2.0, 4.0, 6.0]],
        "scores": [0.5],
        "labels": [0],
    }
    seen = DetectedSet(("object",), [record], [Failure("1.png", 1, "1.png: broken")])
    monkeypatch.setattr(teaching, "detect_images", lambda detector, samples, out: seen)
    failures = {"2.png": "2.png: gone"}
    detected = teaching.look(object.__new__(teaching.TrainedDetector), samples_of(tmp_path), tmp_path / "cad", failures)
    assert list(detected) == [10] and failures == {"2.png": "2.png: gone", "1.png": "1.png: broken"}
    (entry,) = json.loads((tmp_path / "cad.json").read_text())
    assert (entry["image_id"], entry["bbox"]) == (10, [1, 2, 3, 4])


def test_images_are_enlarged_as_far_as_they_are_smaller(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "0.png")
    Image.new("RGB", (40, 50), "red").save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("no image")
    samples = samples_of(tmp_path)
    copies, factors = teaching.enlarged(samples, 30, tmp_path / "large")
    assert factors.tolist() == [3, 1, 1] and copies[1:] == samples[1:]
    assert (copies[0].name, copies[0].image_id) == ("0.png", 10)
    with Image.open(copies[0].path) as image:
        assert image.size == (60, 30) and copies[0].path.parent == tmp_path / "large"


def test_a_disk_that_fills_up_leaves_the_enlarged_image_that_was_there(tmp_path, monkeypatch):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "0.png")
    samples = samples_of(tmp_path, 1)
    copies, _ = teaching.enlarged(samples, 30, tmp_path / "large")
    before = copies[0].path.read_bytes()

    def fills(image, file, *options, **more):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fills)
    with pytest.raises(FoundlingError, match=r"000000\.png cannot be written \(No space left on device\): make room"):
        teaching.enlarged(samples, 40, tmp_path / "large")
    assert copies[0].path.read_bytes() == before
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["000000.png"]
