"""`foundling detect` end to end: files, strange photos, an interrupted run, checkpoints of other kinds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from commandline import foundling, read
from foundling.backbones import BACKBONES
from foundling.backbones.weights import find_weights
from foundling.training import detected
from foundling.training.detection.predict import detect, load_detector
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import train_detector
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.types import Sample
from strange_images import make_strange_images

SIDE = 32
SMALL = {
    "min_sizes": [SIDE], "test_size": SIDE, "anchors": [[12, 20]], "channels": 16, "hidden": 32, "pool": 3,
    "rpn_samples": 16, "rpn_proposals": 16, "test_proposals": 16, "roi_samples": 16, "rpn_candidates": 64, "batch": 4,
    "steps": 3, "warmup": 1, "workers": 0, "weights": "random", "detections": 5, "score_threshold": 0.0,
}  # fmt: skip


def squares(folder: Path, count: int = 6) -> list[Sample]:
    """Pictures of a bright square on noise."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    samples = []
    for i in range(count):
        pixels = rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[8:24, 4 : 20 + i] = (250, 220, 60)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        samples.append(Sample(f"{i}.png", folder / f"{i}.png", i))
    return samples


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A detector of one class and one of two, which have hardly learned anything, and the photos they saw."""
    folder = tmp_path_factory.mktemp("detectors")
    samples = squares(folder / "photos")
    files = {}
    for name, classes in (("cad", ("object",)), ("od", ("cluster 1", "cluster 2"))):
        boxes = np.array([[4.0, 8.0, 20.0, 24.0]])
        images = [ImageLabels(s.name, s.image_id, (SIDE, SIDE), boxes, np.array([i % len(classes)])) for i, s in
                  enumerate(samples)]  # fmt: skip
        settings = Detector(**SMALL, classes=len(classes))
        labels = PseudoLabels(tuple(images), classes)
        files[name] = train_detector(samples, labels, settings, folder / name, progress=False, cpu=True).file
    return folder / "photos", files


def run(photos: Path, file: Path, out: Path, *options: object) -> int:
    return foundling("detect", photos, "--checkpoint", file, "--out", out, "--device", "cpu", *options)


def test_all_boxes_as_coco_files_and_the_sure_ones_in_pictures(trained, tmp_path, capsys):
    photos, files = trained
    assert run(photos, files["cad"], tmp_path / "o", "--score", 0) == 0
    summary, entries = read(tmp_path / "o" / "summary.json"), read(tmp_path / "o" / "results.json")
    assert (summary["photos"], summary["objects"], summary["sure"]) == (6, len(entries), len(entries))
    assert summary["detector"]["classes"] == ["object"] and entries
    images = COCO(tmp_path / "o" / "images.json")
    assert [c["name"] for c in images.dataset["categories"]] == ["object"]
    for annotation in images.loadRes(str(tmp_path / "o" / "results.json")).dataset["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert 0 <= x <= x + width <= SIDE + 1e-3 and 0 <= y <= y + height <= SIDE + 1e-3
    assert len(list((tmp_path / "o" / "overlays").glob("*.jpg"))) == 6
    printed = capsys.readouterr().out
    assert f"{len(entries)} objects with a score of 0 or more in 6 photos" in printed
    page = (tmp_path / "o" / "index.html").read_text(encoding="utf-8")
    assert "Objects detected" in page and "boxes with a score of 0 or more; results.json has all from 0" in page
    assert run(photos, files["cad"], tmp_path / "o", "--score", 1) == 0
    assert read(tmp_path / "o" / "summary.json")["sure"] == 0
    assert len(read(tmp_path / "o" / "results.json")) == len(entries)  # those that are not sure stay
    assert "0 objects" in (tmp_path / "o" / "index.html").read_text(encoding="utf-8")


def test_results_are_those_of_the_library_and_name_their_class(trained, tmp_path):
    photos, files = trained
    assert run(photos, files["od"], tmp_path / "o", "--score", 0, "--limit", 2) == 0
    entries = read(tmp_path / "o" / "results.json")
    samples = [Sample(f"{i}.png", photos / f"{i}.png", i + 1, orient=True) for i in range(2)]
    ours = {s.image_id: found for s, found in detect(load_detector(files["od"]), samples)}
    for image_id, found in ours.items():
        told = [entry for entry in entries if entry["image_id"] == image_id]
        assert [entry["category_id"] - 1 for entry in told] == found.labels.tolist()
        np.testing.assert_allclose([entry["score"] for entry in told], found.scores, rtol=1e-6)
    assert [c["name"] for c in read(tmp_path / "o" / "images.json")["categories"]] == ["cluster 1", "cluster 2"]
    page = (tmp_path / "o" / "index.html").read_text(encoding="utf-8")
    assert any(f"cluster {n + 1} {100 * s:.0f} %" in page for n, s in
               zip(ours[1].labels, ours[1].scores, strict=True))  # fmt: skip


def test_strange_photos_are_looked_at_or_listed(trained, tmp_path, capsys):
    expected = make_strange_images(tmp_path / "photos", large=False)
    assert run(tmp_path / "photos", trained[1]["cad"], tmp_path / "o", "--score", 0) == 1
    broken = {name for name, this in expected.items() if this.error}
    failures = {failure["name"]: failure["error"] for failure in read(tmp_path / "o" / "summary.json")["failures"]}
    assert set(failures) == broken and all(expected[name].error in failures[name] for name in broken)
    named = {image["file_name"]: (image["width"], image["height"]) for image in
             read(tmp_path / "o" / "images.json")["images"]}  # fmt: skip
    assert named == {name: this.size for name, this in expected.items() if not this.error}
    error = capsys.readouterr().err
    assert f"{len(broken)} failed:" in error and all(name in error for name in broken)


def test_an_interrupted_run_goes_on_where_it_stopped(trained, tmp_path, monkeypatch, capsys):
    photos, files = trained
    assert run(photos, files["cad"], tmp_path / "whole") == 0
    looked = []

    def counting(detector, samples, **options):
        looked.append(len(samples))
        if len(looked) == 2:
            raise KeyboardInterrupt
        return detect(detector, samples, **options)

    whole = detected.detect_images
    monkeypatch.setattr(detected, "detect", counting)
    monkeypatch.setattr(detected, "detect_images", lambda *args, **options: whole(*args, **options, chunk=4))
    assert run(photos, files["cad"], tmp_path / "o") == 130
    assert "What was finished is kept" in capsys.readouterr().err
    assert run(photos, files["cad"], tmp_path / "o") == 0
    assert looked == [4, 2, 2]  # the first chunk is not looked at again
    assert run(photos, files["cad"], tmp_path / "o", "--score", 0.2) == 0
    assert len(looked) == 3
    assert (tmp_path / "o" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()
    Image.new("RGB", (SIDE, SIDE), "red").save(photos / "5.png")
    assert run(photos, files["cad"], tmp_path / "o") == 0
    assert looked[3:] == [2]  # the chunk of the changed photo
    assert run(photos, files["od"], tmp_path / "o") == 0
    assert looked[4:] == [4, 2]  # another detector


def test_checkpoints_of_other_kinds_are_refused(trained, tmp_path, capsys):
    photos, files = trained
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(files["cad"].read_bytes()[:5000])
    (tmp_path / "model.pth").write_bytes(b"\x80\x02")
    backbone = find_weights(BACKBONES["scenes_odin"])
    for file, message in (
        (tmp_path / "none.safetensors", "there is no such file"),
        (damaged, "or damaged"),
        (tmp_path / "model.pth", "looks like a checkpoint of Detectron2 itself"),
        (backbone, "holds no detector"),
    ):
        assert run(photos, file, tmp_path / "o") == 2
        error = capsys.readouterr().err
        assert error.startswith("foundling detect: ") and message in error and str(file) in error
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--score", "50"), "--score 50: give a score from 0 to 1"),
        (("--batch-size", "0"), "--batch-size 0: give 1 or more"),
        (("--device", "gpu"), "unknown device 'gpu'"),
    ],
)
def test_unusable_options_are_explained(trained, tmp_path, capsys, options, message):
    assert run(*[trained[0], trained[1]["cad"]], tmp_path / "o", *options) == 2
    assert message in capsys.readouterr().err
