"""`foundling discover --categories`: photos sorted by what is in them, and what happens where that cannot be."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from commandline import foundling, read
from foundling.types import Failure

NETWORK = ("--backbone", "scenes_odin", "--device", "cpu")
SIDE = 96


def photo(kind: str, seed: int) -> Image.Image:
    """A disc of stripes or of checks, somewhere on a plain ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    cx, cy = rng.uniform(40, 56, 2)
    stripes = (x // 6) % 2
    pattern = stripes if kind == "stripes" else (stripes + y // 6) % 2
    pixels = np.where((x - cx) ** 2 + (y - cy) ** 2 < 26**2, 40 + 170 * pattern, 120)
    return Image.fromarray(np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two kinds")
    for i in range(6):
        photo("stripes", i).save(folder / f"{i}-stripes & <more>.png")
        photo("checks", 10 + i).save(folder / f"{i}-checks.png")
    return folder


@pytest.fixture(scope="module")
def found(photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "found"
    assert foundling("discover", photos, "--out", out, "--categories", 2, *NETWORK) == 0
    return out


def test_photos_come_back_sorted(found):
    sorted_photos = read(found / "categories.json")
    assert [group["name"] for group in sorted_photos["categories"]] == ["category 1", "category 2"]
    groups = [set(group["photos"]) for group in sorted_photos["categories"]]
    assert sorted(map(len, groups)) == [6, 6] and sorted_photos["unsorted"] == []
    assert {frozenset("checks" in name for name in group) for group in groups} == {
        frozenset({True}),
        frozenset({False}),
    }


def test_the_json_names_the_categories(found):
    images = COCO(found / "images.json")
    assert images.dataset["categories"] == [{"id": 1, "name": "category 1"}, {"id": 2, "name": "category 2"}]
    by_name = {name: group["id"] for group in read(found / "categories.json")["categories"] for name in group["photos"]}
    for result in read(found / "results.json"):
        assert result["category_id"] == by_name[images.loadImgs(result["image_id"])[0]["file_name"]]
    assert len(images.loadRes(str(found / "results.json")).dataset["annotations"]) == 12


def test_the_contact_sheet_has_a_heading_for_each(found):
    page = (found / "index.html").read_text(encoding="utf-8")
    first, second = (page.index(f"<h2>category {i}</h2>") for i in (1, 2))
    assert page.count("<h2>category") == 2 and page.count("6 photos") == 2
    groups = [group["photos"] for group in read(found / "categories.json")["categories"]]
    places = [
        page.index(f'class="name">{name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}<')
        for group in groups
        for name in group
    ]
    assert places == sorted(places) and first < places[0] and places[5] < second < places[6]


def test_fewer_objects_than_categories_stay_unsorted(photos, tmp_path, capsys):
    command = ("discover", photos, "--out", tmp_path, "--limit", 4, *NETWORK)
    assert foundling(*command, "--categories", 5) == 1
    message = capsys.readouterr().err
    assert "--categories 5: lost found 4 objects in 4 photos, and sorting takes 5: photos stay unsorted" in message
    assert {entry["category_id"] for entry in read(tmp_path / "results.json")} == {1}
    assert not (tmp_path / "categories.json").exists() and read(tmp_path / "summary.json")["categories"] is None
    assert (tmp_path / "index.html").exists()
    assert foundling(*command, "--categories", 4) == 0  # as many as there are: each its own
    assert [len(group["photos"]) for group in read(tmp_path / "categories.json")["categories"]] == [1, 1, 1, 1]
    assert foundling(*command) == 0
    assert not (tmp_path / "categories.json").exists()  # that of another run


def test_photos_without_an_object_are_told_apart(photos, tmp_path, monkeypatch, capsys):
    from foundling.categories import describe_objects

    def without_the_last(*arguments, **options):
        described = describe_objects(*arguments, **options)
        described[-1] = np.nan
        options["failures"].append(Failure("last.png", 11, "last.png, object 0: its mask is empty"))
        return described

    monkeypatch.setattr("foundling.categories.describe_objects", without_the_last)
    assert foundling("discover", photos, "--out", tmp_path, "--categories", 2, *NETWORK) == 0
    assert len(read(tmp_path / "categories.json")["unsorted"]) == 1
    assert read(tmp_path / "images.json")["categories"][-1] == {"id": 3, "name": "not sorted"}
    assert [entry["category_id"] for entry in read(tmp_path / "results.json")][-1] == 3
    assert "<h2>not sorted</h2>" in (tmp_path / "index.html").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "2 categories of" in printed and "  not sorted: last.png, object 0: its mask is empty\n" in printed
    assert read(tmp_path / "categories.json")["how"]["not_described"] == ["last.png, object 0: its mask is empty"]


def test_one_category_is_none(photos, tmp_path, capsys):
    assert foundling("discover", photos, "--out", tmp_path / "o", "--categories", 1, *NETWORK) == 2
    assert "--categories 1: give 2 or more" in capsys.readouterr().err
