"""`foundling segment` end to end: both kinds, files, strange photos, an interrupted run, checkpoints of other kinds."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from commandline import foundling, read
from foundling import paths
from foundling.backbones import BACKBONES
from foundling.backbones.weights import find_weights
from foundling.categories.pseudo_masks import PseudoMasks
from foundling.commands import detect
from foundling.commands.mask_outputs import Shape, painted
from foundling.datasets.index_masks import PALETTE, read_labels, write_labels
from foundling.discovery.export import encode_mask
from foundling.training import detected
from foundling.training.checkpoints import export
from foundling.training.detected import INSTANCE_SOURCES
from foundling.training.instance import predict as instances
from foundling.training.instance.predict import load_instances, segment_instances
from foundling.training.instance.settings import MaskRcnn, Solo
from foundling.training.instance.train import train_instances
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.training.semantic import predict as semantic
from foundling.training.semantic.predict import load_segmenter, segment
from foundling.training.semantic.settings import Semantic
from foundling.training.semantic.task import train_semantic
from foundling.types import Sample
from strange_images import make_strange_images

SIDE = 32
RUN = {"steps": 2, "batch": 4, "warmup": 1, "workers": 0, "weights": "random"}
SIZES = {"min_sizes": [SIDE], "test_size": SIDE, "channels": 16, "score_threshold": 0.0, "detections": 5}
SOLO = {"width": 16, "depth": 1, "mask_width": 16, "kernel": 16, "grids": [6, 4], "scales": [[1.0, 24.0], [12.0, 99.0]]}
RCNN = {"anchors": [[12, 20]], "hidden": 32, "pool": 3, "mask_pool": 7, "mask_width": 16, "mask_depth": 1,
        "rpn_proposals": 16, "test_proposals": 16, "roi_samples": 16, "rpn_candidates": 64}  # fmt: skip
SEMANTIC = {"network": "vit", "channels": 8, "detail": 4, "side": SIDE, "test_side": SIDE}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Segmenters of each kind, which have hardly learned anything, and the photos they saw: bright squares on noise."""
    folder, rng = tmp_path_factory.mktemp("segmenters"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    samples, files, images = [], [], []
    for i in range(6):
        pixels, inside = rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8), np.zeros((SIDE, SIDE), dtype=np.uint8)
        inside[8:24, 4 : 20 + i] = 1
        pixels[inside > 0] = (250, 220, 60)
        samples.append(Sample(f"{i}.png", folder / "photos" / f"{i}.png", i))
        files.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(samples[-1].path)
        write_labels(files[-1], inside * (1 + i % 2))
        box = np.array([[4.0, 8.0, 20.0 + i, 24.0]])
        images.append(ImageLabels(f"{i}.png", i, (SIDE, SIDE), box, np.zeros(1, int), (encode_mask(inside > 0),)))
    maps, masks, options = (
        PseudoMasks(tuple(files), 2, (), ()),
        PseudoLabels(tuple(images)),
        {"progress": False, "cpu": True},
    )
    files = {
        "semantic": train_semantic(samples, maps, Semantic(**RUN, **SEMANTIC), folder / "semantic", **options).file,
        "instances": train_instances(samples, masks, Solo(**RUN, **SIZES, **SOLO), folder / "solo", **options).file,
        "mask_rcnn": train_instances(samples, masks, MaskRcnn(**RUN, **SIZES, **RCNN), folder / "rcnn", **options).file,
    }
    return folder / "photos", files


def run(trained, kind: str, out: Path, *options: object, photos: Path | None = None) -> int:
    own, files = trained
    return foundling("segment", photos or own, "--checkpoint", files[kind], "--out", out, "--device", "cpu", *options)


@pytest.mark.parametrize("kind", ["instances", "mask_rcnn"])
def test_instances_as_coco_files_and_pictures(trained, kind, tmp_path, capsys):
    assert run(trained, kind, tmp_path / "o", "--instances", "--score", 0) == 0
    summary, entries = read(tmp_path / "o" / "summary.json"), read(tmp_path / "o" / "results.json")
    assert (summary["photos"], summary["objects"], summary["sure"]) == (6, len(entries), len(entries))
    assert summary["segmenter"]["kind"] == "instances" and summary["settings"]["score"] == 0 and entries
    images = COCO(tmp_path / "o" / "images.json")
    loaded = images.loadRes(str(tmp_path / "o" / "results.json")).dataset["annotations"]
    samples = [Sample(f"{i}.png", trained[0] / f"{i}.png", i + 1, orient=True) for i in range(6)]
    ours = {s.image_id: found for s, found in segment_instances(load_instances(trained[1][kind]), samples)}
    assert len(loaded) == sum(map(len, ours.values()))
    for image_id, found in ours.items():
        told = [entry for entry in entries if entry["image_id"] == image_id]
        np.testing.assert_allclose([entry["score"] for entry in told], found.scores, rtol=1e-6)
        assert [entry["segmentation"] for entry in told] == list(found.masks)
        for entry in told:  # a box is that of its mask
            np.testing.assert_allclose(coco_mask.toBbox(entry["segmentation"]), entry["bbox"])
    assert len(list((tmp_path / "o" / "overlays").glob("*.jpg"))) == 6
    assert f"{len(entries)} objects with a score of 0 or more in 6 photos" in capsys.readouterr().out
    page = (tmp_path / "o" / "index.html").read_text(encoding="utf-8")
    assert "Objects segmented" in page and "masks with a score of 0 or more" in page
    assert "trained for 2 steps on masks of objects" in page
    assert run(trained, kind, tmp_path / "o", "--score", 1) == 0
    assert read(tmp_path / "o" / "summary.json")["sure"] == 0
    assert read(tmp_path / "o" / "results.json") == entries  # those that are not sure stay
    assert "0 objects" in (tmp_path / "o" / "index.html").read_text(encoding="utf-8")


def test_label_maps_in_the_palette_and_what_they_hold(trained, tmp_path, capsys):
    assert run(trained, "semantic", tmp_path / "o", "--semantic") == 0
    samples = [Sample(f"{i}.png", trained[0] / f"{i}.png", i + 1) for i in range(6)]
    told = read(tmp_path / "o" / "segments.json")
    assert told["classes"] == ["background", "cluster 1", "cluster 2"]
    for entry, (sample, labels) in zip(
        told["images"], segment(load_segmenter(trained[1]["semantic"]), samples), strict=True
    ):
        file = tmp_path / "o" / entry["label_map"]
        assert entry["file_name"] == sample.name and (entry["height"], entry["width"]) == labels.shape
        np.testing.assert_array_equal(read_labels(file), labels)
        with Image.open(file) as image:
            assert image.mode == "P" and bytes(image.getpalette()[:9]) == PALETTE[:9]
        assert entry["pixels"] == {str(n): int((labels == n).sum()) for n in np.unique(labels)}
    summary = read(tmp_path / "o" / "summary.json")
    found = sum(any(label != "0" for label in entry["pixels"]) for entry in told["images"])
    assert (summary["photos"], summary["with_objects"], summary["segmenter"]["kind"]) == (6, found, "semantic")
    assert f"{found} of 6 photos have something that is not background" in capsys.readouterr().out
    page = (tmp_path / "o" / "index.html").read_text(encoding="utf-8")
    assert "Photos segmented" in page and ("cluster 1 " in page or "cluster 2 " in page or "background alone" in page)
    assert len(list((tmp_path / "o" / "overlays").glob("*.jpg"))) == 6


@pytest.mark.parametrize("kind", ["semantic", "instances"])
def test_strange_photos_are_looked_at_or_listed(trained, kind, tmp_path, capsys):
    expected = make_strange_images(tmp_path / "photos", large=False)
    assert run(trained, kind, tmp_path / "o", photos=tmp_path / "photos") == 1
    broken = {name for name, this in expected.items() if this.error}
    failures = {failure["name"]: failure["error"] for failure in read(tmp_path / "o" / "summary.json")["failures"]}
    assert set(failures) == broken and all(expected[name].error in failures[name] for name in broken)
    told = read(tmp_path / "o" / ("segments.json" if kind == "semantic" else "images.json"))["images"]
    named = {image["file_name"]: (image["width"], image["height"]) for image in told}
    assert named == {name: this.size for name, this in expected.items() if not this.error}
    for image in told if kind == "semantic" else ():
        assert read_labels(tmp_path / "o" / image["label_map"]).shape == named[image["file_name"]][::-1]
    error = capsys.readouterr().err
    assert f"{len(broken)} failed:" in error and all(name in error for name in broken)
    page = (tmp_path / "o" / "index.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("rotated.jpg", "cmyk.jpg", "truncated.jpg"))


def test_interrupted_instances_go_on_where_they_stopped(trained, tmp_path, monkeypatch, capsys):
    assert run(trained, "instances", tmp_path / "whole") == 0
    looked = []

    def counting(segmenter, samples, **options):
        looked.append(len(samples))
        if len(looked) == 2:
            raise KeyboardInterrupt
        return segment_instances(segmenter, samples, **options)

    whole = detected.segment_images
    monkeypatch.setattr(detected, "segment_instances", counting)
    monkeypatch.setattr(detected, "segment_images", lambda *args, **options: whole(*args, **options, chunk=4))
    assert run(trained, "instances", tmp_path / "o") == 130
    assert "What was finished is kept" in capsys.readouterr().err
    assert run(trained, "instances", tmp_path / "o") == 0
    assert run(trained, "instances", tmp_path / "o", "--score", 0.2) == 0
    assert looked == [4, 2, 2]  # the first chunk is not looked at again
    assert (tmp_path / "o" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()


def test_interrupted_label_maps_go_on_where_they_stopped(trained, tmp_path, monkeypatch, capsys):
    assert run(trained, "semantic", tmp_path / "whole") == 0
    looked = []

    def counting(segmenter, samples, **options):
        looked.append(len(samples))
        for n, found in enumerate(segment(segmenter, samples, **options)):
            if n == 3 and len(looked) == 1:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(semantic, "segment", counting)
    assert run(trained, "semantic", tmp_path / "o") == 130
    assert "What was finished is kept" in capsys.readouterr().err
    assert run(trained, "semantic", tmp_path / "o") == 0
    assert looked == [6, 3]
    for file in (tmp_path / "whole" / "masks").glob("*.png"):
        assert (tmp_path / "o" / "masks" / file.name).read_bytes() == file.read_bytes()


def test_the_kind_is_read_from_the_file_and_options_only_check_it(trained, tmp_path, capsys):
    files = trained[1]
    for kind, option, other in (("semantic", "--instances", "semantic"), ("instances", "--semantic", "instances")):
        assert run(trained, kind, tmp_path / "o", option) == 2
        error = capsys.readouterr().err
        assert f"{option}: {files[kind]} holds a segmenter of the kind '{other}'; leave the option out" in error
    assert run(trained, "semantic", tmp_path / "o", "--score", "0.4") == 2
    assert "--score 0.4: goes with instances" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_checkpoints_of_other_kinds_are_refused(trained, tmp_path, capsys):
    photos, files = trained
    damaged, detector = tmp_path / "damaged.safetensors", tmp_path / "cad.safetensors"
    damaged.write_bytes(files["instances"].read_bytes()[:5000])
    export(detector, {}, {"method": "detector"})
    for file, message in (
        (tmp_path / "none.safetensors", "there is no such file"),
        (damaged, "or damaged"),
        (detector, "holds a detector, which knows boxes and no masks: use `foundling detect`"),
        (find_weights(BACKBONES["scenes_odin"]), "holds no segmenter but a network of the kind"),
    ):
        assert foundling("segment", photos, "--checkpoint", file, "--out", tmp_path / "o") == 2
        error = capsys.readouterr().err
        assert error.startswith("foundling segment: ") and message in error and str(file) in error
    assert not (tmp_path / "o").exists()


def test_of_a_run_that_was_stopped_the_sheet_tells_the_steps_that_were_done(tmp_path):
    for steps, words in ((1, "1 step"), (3, "3 steps")):
        export(tmp_path / "run.safetensors", {}, {"method": "semantic", "steps": steps, "settings": {"steps": 9}})
        assert detect.steps_done(tmp_path / "run.safetensors") == words


def test_a_folder_without_photos_and_unusable_options_are_explained(trained, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    assert run(trained, "semantic", tmp_path / "o", photos=tmp_path / "nothing") == 2
    assert "no image file in" in capsys.readouterr().err
    for options, message in (
        (("--score", "50"), "--score 50: give a score from 0 to 1"),
        (("--batch-size", "0"), "--batch-size 0: give 1 or more"),
        (("--device", "gpu"), "unknown device 'gpu'"),
    ):
        assert run(trained, "instances", tmp_path / "o", *options) == 2
        assert message in capsys.readouterr().err


def test_shapes_are_painted_in_their_colours_the_first_on_top():
    inside, whole = np.zeros((40, 60), dtype=bool), np.ones((40, 60), dtype=bool)
    inside[:20] = True
    drawn = np.asarray(
        painted(Image.new("RGB", (60, 40)), [Shape(inside, (200, 0, 0), ""), Shape(whole, (0, 200, 0), "")])
    )
    assert drawn[10, 5, 0] == 90 and drawn[30, 5].tolist() == [0, 90, 0]
    assert drawn[10, 5, 1] < 90  # what lies below shines through, less


def test_kept_instances_depend_on_the_code_that_makes_them():
    files = {path for pattern in INSTANCE_SOURCES for path in paths.PACKAGE.glob(pattern)}
    called = [instances.segment_instances, instances.find_instances, instances.in_batches, instances.make_mask_rcnn]
    assert {Path(sys.modules[one.__module__].__file__) for one in called} <= files
