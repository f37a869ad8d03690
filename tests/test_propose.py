"""`foundling propose` end to end: files, filters, another network for saliency, bad input."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from commandline import NETWORK, foundling, read
from foundling.backbones import load_backbone
from foundling.discovery import METHODS


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos: a disc before a plain ground, and noise."""
    folder = tmp_path / "photos"
    folder.mkdir()
    y, x = np.mgrid[:48, :64]
    disc = np.where(((y - 24) ** 2 + (x - 30) ** 2 < 150)[..., None], np.uint8([200, 80, 30]), np.uint8([20, 90, 60]))
    Image.fromarray(disc).save(folder / "disc.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / "noise.png")
    return folder


def test_masks_of_each_photo(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert foundling("propose", photos, "--out", out, *NETWORK) == 0
    entries = read(out / "proposals.json")
    results = COCO(out / "images.json").loadRes(str(out / "proposals.json"))
    assert len(results.dataset["annotations"]) == len(entries) == read(out / "summary.json")["masks"]
    assert {entry["image_id"] for entry in entries} <= {1, 2}
    assert {entry["level"] for entry in entries} <= {2, 3, 4, 5}
    for entry in entries:
        assert entry["segmentation"]["size"] == [48, 64]
        assert coco_mask.area(entry["segmentation"]) > 0 and 0.5 <= entry["score"] <= 1
    for overlay in ("00001_disc.jpg", "00002_noise.jpg"):
        assert (out / "overlays" / overlay).is_file()
    printed = capsys.readouterr().out
    assert f"{len(entries)} masks in" in printed
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Masks proposed" in page and f"{sum(entry['image_id'] == 1 for entry in entries)} masks" in page


def test_the_same_command_gives_the_same_bytes(photos, tmp_path):
    command = ("propose", photos, "--out", tmp_path / "o", *NETWORK)
    foundling(*command)
    first = (tmp_path / "o" / "proposals.json").read_bytes()
    foundling(*command)
    assert (tmp_path / "o" / "proposals.json").read_bytes() == first
    foundling("propose", photos, "--out", tmp_path / "new", *NETWORK)
    assert (tmp_path / "new" / "proposals.json").read_bytes() == first


def test_filters_are_switches(photos, tmp_path):
    def count(*options) -> int:
        out = tmp_path / "-".join(map(str, ("o", *options)))
        assert foundling("propose", photos, "--out", out, *NETWORK, "--ks", 2, 3, *options) == 0
        return len(read(out / "proposals.json"))

    filtered = count()
    assert count("--saliency", "none") > filtered
    assert count("--nms", 1) >= filtered
    assert count("--saliency", "none", "--no-split", "--nms", 1) == 2 * (2 + 3)  # all parts of both photos


def test_saliency_of_another_network_soft_masks_and_edges(photos, tmp_path):
    out = tmp_path / "o"
    options = ("--saliency", "scenes_mae", "--upsample", "bilinear", "--refine", "edges")
    assert foundling("propose", photos, "--out", out, *NETWORK, *options) == 0
    summary = read(out / "summary.json")
    assert (summary["backbone"]["name"], summary["saliency"]["name"]) == ("scenes_odin", "scenes_mae")
    assert summary["settings"]["refine"] == "edges"


def test_a_checkpoint_is_not_taken_for_the_other_network(photos, tmp_path, monkeypatch):
    loaded = []

    def load(name, weights="pretrained", device=None, seed=0):
        loaded.append((name, weights))
        return load_backbone(name, "random", device, seed)

    monkeypatch.setattr("foundling.backbones.load_backbone", load)
    for weights, other in (("mine.pth", "pretrained"), ("random", "random"), ("pretrained", "pretrained")):
        loaded.clear()
        options = ("--backbone", "scenes_odin", "--weights", weights, "--saliency", "scenes_mae", "--device", "cpu")
        assert foundling("propose", photos, "--out", tmp_path / weights, *options) == 0
        assert loaded == [("scenes_odin", weights), ("scenes_mae", other)]


def test_photos_that_keep_no_mask_are_named(photos, tmp_path, capsys):
    # one part that covers all of the image, nearly all of it salient: there is none
    options = ("--ks", 1, "--intersection", 0.999)
    assert foundling("propose", photos, "--out", tmp_path / "o", *NETWORK, *options) == 0
    assert read(tmp_path / "o" / "proposals.json") == []
    assert read(tmp_path / "o" / "summary.json")["without"] == ["disc.png", "noise.png"]
    assert "no mask passed the filters in: disc.png, noise.png" in capsys.readouterr().out


def test_damaged_photos_are_listed(photos, tmp_path, capsys):
    (photos / "text.jpg").write_text("not a photo")
    for n, options in enumerate([(), ("--saliency", "scenes_mae")]):
        assert foundling("propose", photos, "--out", tmp_path / f"{n}", *NETWORK, *options) == 1
        (failure,) = read(tmp_path / f"{n}" / "summary.json")["failures"]
        assert failure["name"] == "text.jpg"
        assert "1 failed:" in capsys.readouterr().err


def test_photos_of_fewer_patches_than_parts_fail_by_name(photos, tmp_path, capsys):
    assert foundling("propose", photos, "--out", tmp_path / "o", *NETWORK, "--ks", 2, 1000) == 1
    error = capsys.readouterr().err
    for name in ("disc.png", "noise.png"):
        assert f"  {name}: k is 1000, but an image has 48 patches: choose k at most 48, or larger images" in error
    assert read(tmp_path / "o" / "proposals.json") == []
    assert len(read(tmp_path / "o" / "summary.json")["failures"]) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (("--intersection", "50"), "--intersection 50.0: give a share from 0 to 1"),
        (("--ks", "0"), "ks is [0]"),
        (("--facet", "colour"), "colour"),
        (("--saliency", "dino_vits61"), "did you mean 'dino_vits16'?"),
    ],
)
def test_unusable_options_are_explained(photos, tmp_path, capsys, options, message):
    assert foundling("propose", photos, "--out", tmp_path / "o", *NETWORK, *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("foundling propose: ")


@pytest.mark.parametrize("method", ["spectral", "saliency", "maskcut"])
def test_discover_runs_the_spectral_methods(photos, tmp_path, method):
    assert method in METHODS
    out = tmp_path / "o"
    assert foundling("discover", photos, "--out", out, "--method", method, *NETWORK) == 0
    assert {entry["image_id"] for entry in read(out / "results.json")} == {1, 2}
