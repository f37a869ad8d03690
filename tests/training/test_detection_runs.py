"""From own photos to a detector of them: `foundling discover`, `train`, `detect`; labels that are no such thing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commandline import NETWORK, foundling, read
from foundling.errors import DataMissing, ParameterError
from foundling.training.detection.predict import load_detector
from foundling.training.detection_runs import DetectorOnLabels, labels_of_found_folder, train_on_labels

SMALL = """\
objective: detector
weights: random
min_sizes: [32]
test_size: 32
anchors: [[12, 20]]
channels: 16
hidden: 32
pool: 3
rpn_samples: 16
rpn_proposals: 16
test_proposals: 16
rpn_candidates: 64
roi_samples: 16
batch: 4
steps: 3
warmup: 1
workers: 0
"""


@pytest.fixture
def photos(tmp_path) -> Path:
    """Photos of a square, one of them in a folder below and one that has to be turned."""
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i in range(5):
        pixels = rng.integers(0, 90, (32, 40, 3), dtype=np.uint8)
        pixels[8:24, 4 : 20 + i] = (250, 220, 60)
        Image.fromarray(pixels).save(folder / (f"more/{i}.png" if i == 4 else f"{i}.png"))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(folder / "turned.jpg", exif=turned)
    (folder / "text.jpg").write_text("no photo")
    return folder


def train(tmp_path, *options: object) -> int:
    (tmp_path / "small.yaml").write_text(SMALL)
    return foundling("train", tmp_path / "small.yaml", "--out", tmp_path / "run", "--cpu", *options)


def test_from_photos_to_a_detector_of_them(photos, tmp_path, capsys):
    assert foundling("discover", photos, "--out", tmp_path / "found", *NETWORK) == 1  # the text is no photo
    labels = labels_of_found_folder(tmp_path / "found")
    assert len(labels.images) == 6 and labels.classes == ("object",)
    assert next(image.size for image in labels.images if image.name == "turned.jpg") == (40, 32)
    capsys.readouterr()
    options = ("--set", f"labels={tmp_path / 'found'}", "--set", f"root={photos}")
    assert train(tmp_path, *options) == 0
    printed = capsys.readouterr().out
    assert "6 boxes of 1 class in 6 images" in printed and "all steps done" in printed
    detector = load_detector(tmp_path / "run.safetensors")
    assert detector.classes == ("object",)
    assert str(tmp_path) not in (tmp_path / "run.safetensors").read_bytes()[:9000].decode("ascii", "ignore")
    assert (
        foundling("detect", photos, "--checkpoint", detector.weights, "--out", tmp_path / "seen", "--device", "cpu")
        == 1
    )
    assert read(tmp_path / "seen" / "summary.json")["photos"] == 6
    assert train(tmp_path, *options) == 0  # nothing is left to do


def test_categories_become_classes(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (1, 2)]
    named = [{"id": 1, "name": "1"}, {"id": 2, "name": "2"}, {"id": 3, "name": "unsorted"}]
    write(tmp_path / "images.json", {"images": images, "annotations": [], "categories": named})
    boxes = [(1, 1, [0, 0, 9, 9], 0.5), (1, 2, [5, 5, 8, 8], 0.9), (2, 1, [1, 1, 100, 4], 1.0)]
    entries = [{"image_id": i, "category_id": c, "bbox": box, "score": s} for i, c, box, s in boxes]
    write(tmp_path / "results.json", entries)
    labels = labels_of_found_folder(tmp_path)
    assert labels.classes == ("1", "2", "unsorted")
    assert [image.labels.tolist() for image in labels.images] == [[1], [0]]  # the surest of the first photo
    assert labels.images[0].boxes.tolist() == [[5, 5, 13, 13]]
    assert labels.images[1].boxes.tolist() == [[1, 1, 40, 5]]  # clipped, and told
    assert "reaching outside" in labels.summary()


def write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content))


def test_what_is_missing_or_no_labels_is_told(photos, tmp_path, capsys):
    assert train(tmp_path) == 2
    assert "labels is not given (boxes: a COCO instances JSON, or the folder" in capsys.readouterr().err
    assert train(tmp_path, "--set", f"labels={tmp_path / 'none.json'}", "--set", f"root={photos}") == 2
    assert "no such file of labels" in capsys.readouterr().err
    with pytest.raises(DataMissing, match=r"holds no results\.json: give the folder that `foundling discover` wrote"):
        labels_of_found_folder(photos)
    write(tmp_path / "images.json", {"images": [{"id": 1, "file_name": "gone.png", "width": 9, "height": 9}]})
    for content, message in (
        ("[", "is no JSON"),
        ('[{"score": 1}]', "is no COCO results list"),
        ("[]", "is no COCO inst"),
    ):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(ParameterError, match=message):
            labels_of_found_folder(tmp_path)
    for other in ([], None, 3, "images"):
        write(tmp_path / "images.json", other)
        with pytest.raises(ParameterError, match=r"images\.json holds a \w+, no COCO images and categories: run disc"):
            labels_of_found_folder(tmp_path)
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
    images = [{"id": 1, "file_name": "gone.png", "width": 9, "height": 9}]
    write(tmp_path / "l.json", {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "object"}]})
    settings = DetectorOnLabels(labels=str(tmp_path / "l.json"), root=str(photos), steps=30)
    with pytest.raises(DataMissing, match=r"1 of 1 images are not in .*photos, the first gone\.png: give root"):
        train_on_labels(settings, tmp_path / "run", progress=False, cpu=True)
