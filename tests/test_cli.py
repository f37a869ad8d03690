"""The command line end to end: exit codes, messages, and the files that `foundling discover` leaves."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image
from pycocotools.coco import COCO

from commandline import NETWORK, foundling, read
from foundling import cli
from foundling.backbones import BACKBONES
from foundling.commands import discover
from foundling.discovery import METHODS
from foundling.errors import ParameterError
from strange_images import make_large_image, make_strange_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos of two sizes, one name with spaces and letters beyond ASCII."""
    folder = tmp_path / "meine Fotos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("b10.png", (48, 64, 3)), ("b2.png", (64, 48, 3)), ("größe 猫.png", (48, 64, 3))):
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory):
    """A folder of strange files, what is expected of each, and what `foundling discover` made of them."""
    folder = tmp_path_factory.mktemp("strange") / "photos"
    expected = make_strange_images(folder, large=False)
    out = folder.parent / "found"
    code = foundling("discover", folder, "--out", out, *NETWORK)
    return expected, out, code


def test_strange_photos_are_boxed_or_listed(strange):
    expected, out, code = strange
    assert code == 1
    summary = read(out / "summary.json")
    broken = {name for name, this in expected.items() if this.error}
    failures = {failure["name"]: failure["error"] for failure in summary["failures"]}
    assert set(failures) == broken
    assert all(expected[name].error in failures[name] and name in failures[name] for name in broken)
    assert summary["photos"] == len(expected)
    assert summary["boxed"] == {"lost": len(expected) - len(broken)}


def test_strange_photos_give_coco_files(strange, capsys):
    expected, out, _ = strange
    images = COCO(out / "images.json")
    results = images.loadRes(str(out / "results.json"))
    whole = {name for name, this in expected.items() if not this.error}
    assert {image["file_name"] for image in images.dataset["images"]} == whole
    for annotation in results.dataset["annotations"]:
        image = images.loadImgs(annotation["image_id"])[0]
        assert (image["width"], image["height"]) == expected[image["file_name"]].size
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= image["width"] and 0 <= y < y + height <= image["height"], image["file_name"]
    assert len(results.dataset["annotations"]) == len(whole)


def test_strange_photos_are_on_the_contact_sheet(strange):
    expected, out, _ = strange
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "größe_猫.png" in page
    assert "a&amp;b&lt;i&gt;" in page and "<i>" not in page
    overlays = sorted((out / "overlays").iterdir())
    assert len(overlays) == sum(not this.error for this in expected.values())
    for path in overlays:
        assert f"overlays/{path.name}" in page or "%" in page
        with Image.open(path) as overlay:
            assert max(overlay.size) <= 1600


@pytest.mark.slow  # 7 s: decoding 60 megapixels, twice
def test_a_photo_of_sixty_megapixels(tmp_path, capsys):
    """Boxed at the default --max-side; at full resolution it has more patches than fit, and is listed."""
    (name, expected), *_ = make_large_image(tmp_path / "photos").items()
    network = ("--weights", "random", "--device", "cpu")  # 16-pixel patches: the default network, untrained
    assert foundling("discover", tmp_path / "photos", "--out", tmp_path / "shrunk", *network) == 0
    (result,) = read(tmp_path / "shrunk" / "results.json")
    x, y, width, height = result["bbox"]
    assert 0 <= x < x + width <= expected.size[0] and 0 <= y < y + height <= expected.size[1]
    capsys.readouterr()
    assert foundling("discover", tmp_path / "photos", "--out", tmp_path / "full", "--max-side", 0, *network) == 1
    assert read(tmp_path / "full" / "results.json") == []
    (failure,) = read(tmp_path / "full" / "summary.json")["failures"]
    assert failure["name"] == name
    printed = capsys.readouterr()
    assert "lost: 0 of 1 photos boxed" in printed.out
    assert failure["error"] in printed.err and "max_side" in failure["error"]


def test_failures_are_printed(tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not a photo")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    assert foundling("discover", tmp_path, tmp_path / "absent.jpg", "--out", tmp_path / "o", *NETWORK) == 1
    printed = capsys.readouterr()
    assert "lost: 1 of 2 photos boxed" in printed.out and str(tmp_path / "o" / "index.html") in printed.out
    assert "2 failed:" in printed.err
    assert f"{tmp_path / 'absent.jpg'}: no such file" in printed.err
    assert "text.jpg: not an image" in printed.err
    names = [failure["name"] for failure in read(tmp_path / "o" / "summary.json")["failures"]]
    assert names == [str(tmp_path / "absent.jpg"), "text.jpg"]


def test_several_methods_and_their_settings(photos, tmp_path, capsys):
    out = tmp_path / "out put"
    options = ("--method", "lost", "--method", "tokencut", "--set", "k=5", "--set", "tokencut.tau=0.1", *NETWORK)
    assert foundling("discover", photos, "--out", out, *options) == 0
    for method in ("lost", "tokencut"):
        assert [entry["image_id"] for entry in read(out / f"results.{method}.json")] == [1, 2, 3]
    assert [image["file_name"] for image in read(out / "images.json")["images"]] == [
        "b2.png", "b10.png", "größe 猫.png",
    ]  # fmt: skip
    summary = read(out / "summary.json")
    assert summary["methods"] == {
        "lost": {
            "method": "lost",
            "k": 5,
            "facet": "keys",
            "seed_similarity": "facet",
            "expansion": "facet",
            "centre": False,
        },
        "tokencut": {"method": "tokencut", "tau": 0.1, "facet": "keys", "centre": False},
    }
    assert summary["backbone"]["checksum"] == "random(0)"
    assert "tokencut: 3 of 3 photos boxed" in capsys.readouterr().out


def test_the_same_command_again_computes_nothing(photos, tmp_path):
    command = ("discover", photos, "--out", tmp_path / "o", *NETWORK)
    assert foundling(*command) == 0
    first = (tmp_path / "o" / "results.json").read_bytes()
    assert read(tmp_path / "o" / "summary.json")["computed"] == 3
    assert foundling(*command) == 0
    assert (tmp_path / "o" / "results.json").read_bytes() == first
    assert read(tmp_path / "o" / "summary.json")["computed"] == 0


def test_other_settings_compute_anew(photos, tmp_path):
    command = ("discover", photos, "--out", tmp_path / "o", "--method", "dino_seg", *NETWORK)
    boxes = []
    for head in (0, 2):
        assert foundling(*command, "--set", f"head={head}") == 0
        assert read(tmp_path / "o" / "summary.json")["computed"] == 3
        boxes.append([entry["bbox"] for entry in read(tmp_path / "o" / "results.json")])
    assert boxes[0] != boxes[1]


def test_fewer_photos_leave_no_old_overlays(photos, tmp_path):
    out = tmp_path / "o"
    foundling("discover", photos, "--out", out, *NETWORK)
    (out / "overlays" / "mine.jpg").write_bytes(b"not ours")
    foundling("discover", photos, "--out", out, *NETWORK, "--limit", 1)
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["00001_b2.jpg", "mine.jpg"]
    assert len(read(out / "results.json")) == 1


def test_an_output_folder_among_the_photos_is_not_read(photos):
    for _ in range(2):
        assert foundling("discover", photos, "--out", photos / "found", *NETWORK) == 0
        assert read(photos / "found" / "summary.json")["photos"] == 3
    with pytest.raises(SystemExit, match="2"):
        foundling("discover", photos / "found")


def test_an_output_folder_that_holds_all_photos_is_refused(photos, capsys):
    assert foundling("discover", photos, "--out", photos, *NETWORK) == 2
    assert "lie in the output folder" in capsys.readouterr().err


def test_photos_are_turned_as_their_cameras_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32), "red").save(tmp_path / "turned.jpg", exif=exif)
    assert foundling("discover", tmp_path, "--out", tmp_path / "o", *NETWORK) == 0
    image = read(tmp_path / "o" / "images.json")["images"][0]
    assert (image["width"], image["height"]) == (32, 64)
    with Image.open(next((tmp_path / "o" / "overlays").iterdir())) as overlay:
        assert overlay.size == (32, 64)


def test_missing_weights_offer_the_embedded_network(photos, tmp_path, monkeypatch, capsys):
    def unreachable(url, file, sha256):
        raise requests.ConnectionError

    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("foundling.backbones.weights._download", unreachable)
    assert foundling("discover", photos, "--out", tmp_path / "o", "--device", "cpu") == 2
    message = capsys.readouterr().err
    assert message.startswith("foundling discover: dino_vits16: the weights are not at")
    assert "no connection to dl.fbaipublicfiles.com" in message
    assert "\nTo get them: foundling weights dino_vits16; or by hand: curl " in message
    assert message.count("scenes_odin") == 1 and "synthetic scenes" in message
    assert "Traceback" not in message
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (("--batch-size", "0"), "--batch-size 0: give 1 or more"),
        (("--max-side", "-1"), "--max-side -1: give 0 or more"),
        (("--limit", "0"), "limit=0 keeps no image"),
        (("--device", "abacus"), "unknown device 'abacus'"),
        (("--backbone", "dino_vits61"), "did you mean 'dino_vits16'?"),
        (("--weights", "absent.pth"), "absent.pth"),
        (("--set", "k=many"), "'many'"),
        (("--set", "kk=3"), "did you mean 'k'?"),
        (("--set", "k"), "--set k: write KEY=VALUE"),
        (("--set", "tokencut.tau=0.1"), "METHOD among lost"),
        (("--set", "k=0"), "k is 0"),
    ],
)
def test_unusable_options_are_explained(photos, tmp_path, capsys, options, message):
    assert foundling("discover", photos, "--out", tmp_path / "o", *NETWORK, *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("foundling discover: ")
    assert not (tmp_path / "o" / "results.json").exists()


def test_folders_without_photos_are_explained(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no photo")
    assert foundling("discover", tmp_path, "--out", tmp_path / "o", *NETWORK) == 2
    assert f"no image file in {tmp_path}" in capsys.readouterr().err
    assert foundling("discover", tmp_path / "absent", "--out", tmp_path / "o", *NETWORK) == 2
    assert "absent: no such file or folder" in capsys.readouterr().err


def test_a_file_as_output_folder_is_refused(photos, tmp_path, capsys):
    (tmp_path / "o").touch()
    assert foundling("discover", photos, "--out", tmp_path / "o", *NETWORK) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_interrupted(photos, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("foundling.discovery.stream.discover_images", interrupted)
    assert foundling("discover", photos, "--out", tmp_path / "o", *NETWORK) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_settings_go_to_the_methods_that_know_them():
    given = ["facet=tokens", "lost.k=7", "head=bcc"]
    methods = discover.method_settings(["lost", "tokencut", "dino_seg"], given)
    assert methods["lost"] == {
        "method": "lost", "k": 7, "facet": "tokens", "seed_similarity": "facet", "expansion": "facet", "centre": False,
    }  # fmt: skip
    assert methods["tokencut"] == {"method": "tokencut", "facet": "tokens", "tau": 0.2, "centre": False}
    assert methods["dino_seg"] == {"method": "dino_seg", "head": "bcc", "rule": "largest"}
    with pytest.raises(ParameterError, match="--set"):
        discover.method_settings(["lost", "tokencut"], ["threshold=1"])


def test_help_names_what_exists(capsys):
    assert set(discover.METHODS) <= set(METHODS)
    with pytest.raises(SystemExit, match="0"):
        foundling("--help")
    text = capsys.readouterr().out
    assert all(f"    {name}" in text for name in cli.COMMANDS)
    defaults = cli.make_parser().parse_args(["discover", "x", "--out", "y"])
    assert isinstance(defaults, argparse.Namespace)
    assert (defaults.backbone, defaults.max_side, defaults.weights) == ("dino_vits16", 1024, "pretrained")


def test_weights_are_listed(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    assert foundling("weights") == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in BACKBONES.items():
        line = next(line for line in lines if line.startswith(f"{name} "))
        assert entry.licence in line and entry.file in line
        assert entry.embedded or ("gated" if entry.gated else "missing") in line
    assert foundling("weights", "dino_vits61") == 2
    assert "did you mean 'dino_vits16'?" in capsys.readouterr().err
    assert any(line.startswith("basnet_unsupervised  missing") and "basnet_unsupervised.pth" in line for line in lines)
    assert foundling("weights", "basnet_unsupervised") == 2
    message = capsys.readouterr().err
    assert "To get them: by hand: download basnet_unsupervised.pth from https://github.com/wvangansbeke" in message
    assert "take another source of saliency, or train such a network (foundling train" in message


def test_weights_that_are_there_are_not_downloaded(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    file = tmp_path / "weights" / BACKBONES["dino_vits16"].file
    file.parent.mkdir()
    file.touch()
    assert foundling("weights", "dino_vits16") == 0
    assert capsys.readouterr().out == f"dino_vits16: {file}\n"


def test_published_numbers(capsys):
    assert foundling("published", "--coverage") == 0
    heading, *rows, total = (line.split() for line in capsys.readouterr().out.splitlines())
    assert heading == ["paper", "table", "numbers", "in", "studies"]
    assert total[:2] == ["all", "960"]
    assert int(total[2]) == sum(int(row[-1]) for row in rows)
    assert foundling("published", "--paper", "lost", "--table", "Table 8") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 6
    assert foundling("published", "--paper", "lots") == 2
    assert "there are lost; comus" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error():
    """`foundling published --paper lost | head -1`: the pipe closes while there is more to say."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "foundling.cli", "published", "--paper", "lost"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
