"""The contact sheet and the overlays: boxes where they belong, strange sizes and names, failures listed."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from html_page import Page
from PIL import Image, ImageColor

from foundling.report.contact import Entry, contact_sheet, draw_overlay, label_colors, thumbnail
from foundling.report.style import FOUND, TRUTH
from foundling.types import Failure

NO_BOX = np.full((1, 4), np.nan)


def entry(name="a.jpg", size=(400, 300), boxes=((40, 30, 200, 240),), **rest) -> Entry:
    return Entry(name, Image.new("RGB", size, "gray"), np.array(boxes, dtype=np.float64).reshape(-1, 4), **rest)


def sheet(folder: Path, entries, **rest) -> Page:
    path = contact_sheet(entries, folder / "index.html", "Objects found", **rest)
    return Page(path.read_text(encoding="utf-8"))


def coloured(image: Image.Image, color: str = FOUND) -> tuple[int, int, int, int]:
    """The box (end exclusive) around the pixels that have about this colour."""
    near = np.abs(np.asarray(image).astype(int) - ImageColor.getrgb(color)).max(axis=-1) < 60
    ys, xs = np.nonzero(near)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def test_an_overlay_outlines_the_box_and_leaves_the_rest():
    image = Image.new("RGB", (60, 40), "gray")
    drawn = draw_overlay(image, np.array([[10.0, 5.0, 50.0, 35.0]]), width=2)
    assert image.getcolors() == [(2400, (128, 128, 128))]  # the photo itself is untouched
    pixels = np.asarray(drawn)
    changed = (pixels != 128).any(axis=-1)
    expected = np.zeros((40, 60), dtype=bool)
    expected[5:35, 10:50] = True
    expected[9:31, 14:46] = False  # one dark pixel, two of colour, one dark
    assert (changed == expected).all()
    assert coloured(drawn) == (11, 6, 49, 34)


def test_overlays_cut_skip_and_colour():
    boxes = np.array([[-20.0, -5.0, 30.0, 500.0], [np.nan] * 4, [35.0, 10.0, 55.0, 30.0]])
    drawn = draw_overlay(Image.new("RGB", (60, 40)), boxes, [FOUND, "red", TRUTH], width=2)
    assert coloured(drawn, FOUND) == (1, 1, 29, 39)
    assert coloured(drawn, TRUTH) == (36, 11, 54, 29)


def test_equal_boxes_of_two_methods_both_show():
    drawn = draw_overlay(Image.new("RGB", (60, 40)), np.array([[5.0, 5.0, 50.0, 35.0]] * 2), [FOUND, TRUTH], width=3)
    assert coloured(drawn, TRUTH) == (6, 6, 49, 34)
    assert coloured(drawn, FOUND) == (10, 10, 45, 30)  # inside the other's inner dark edge


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (20000, 10), (3, 400)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_any_size_and_mode_can_be_drawn(size, mode):
    whole = np.array([[0.0, 0.0, *size], [size[0] - 0.4, 0, size[0], 0.2]])
    drawn = draw_overlay(Image.new(mode, size), whole)
    assert (drawn.size, drawn.mode) == (size, "RGB")
    small = thumbnail(Image.new(mode, size), whole, FOUND, side=100)
    assert max(small.size) <= 100 and min(small.size) >= 1


def test_a_thumbnail_has_the_box_where_the_photo_has_it():
    small = thumbnail(Image.new("RGB", (800, 600), "gray"), np.array([[80.0, 60.0, 400.0, 480.0]]), FOUND, side=200)
    assert small.size == (200, 150)
    assert coloured(small) == (21, 16, 99, 119)  # (20, 15, 100, 120), inside its dark edge


def test_labels_keep_their_colours():
    assert label_colors(["lost", "tokencut", "lost"]) == {"lost": FOUND, "tokencut": label_colors("ab")["b"]}
    assert len(set(label_colors("abcdef").values())) == 6
    assert len(label_colors("abcdefgh")) == 8


def test_the_sheet_shows_every_photo(tmp_path):
    entries = [
        entry("süß & <b>.jpg", link="overlays/süß 1#.jpg", flags=("undefined cut",)),
        entry("none.png", boxes=NO_BOX),
        entry("empty.png", boxes=()),
    ]
    page = sheet(tmp_path, entries, notes=["k = 100 & keys"], failures=[Failure("<img>.gif", 3, "cut off <here>")])
    assert page.attributes("img", "src") == [f"thumbs/{i:06d}.jpg" for i in range(3)]
    assert page.attributes("img", "loading") == ["lazy"] * 3
    assert page.attributes("img", "alt") == ["süß & <b>.jpg", "none.png", "empty.png"]
    for text in ("süß & <b>.jpg", "x 40 to 200, y 30 to 240", "400 × 300 pixels", "undefined cut", "k = 100 & keys"):
        assert text in page.texts
    assert page.texts.count("no box") == 2
    assert page.cells[-1] == ["<img>.gif", "cut off <here>"]
    assert "3 images, " in page.texts and "1 failed" in page.texts
    links = [link for link in page.attributes("a", "href") if link.startswith("overlays")]
    assert [unquote(link) for link in links] == ["overlays/süß 1#.jpg"] and "#" not in links[0]
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "b"})
    with Image.open(tmp_path / "thumbs" / "000000.jpg") as thumb:
        assert thumb.size == (360, 270)
        assert coloured(thumb.convert("RGB")) == pytest.approx((37, 28, 179, 215), abs=1)
    with Image.open(tmp_path / "thumbs" / "000001.jpg") as thumb:
        assert len(thumb.convert("RGB").getcolors()) == 1  # no box, nothing drawn


def test_several_methods_have_a_key(tmp_path):
    two = entry(boxes=((0, 0, 9, 9), [np.nan] * 4), labels=("lost", "tokencut"))
    page = sheet(tmp_path, [two, two])
    assert page.texts.count("lost: x 0 to 9, y 0 to 9") == page.texts.count("tokencut: no box") == 2
    swatches = [attrs["style"] for tag, attrs in page.tags if attrs.get("class") == "swatch"]
    assert swatches == [f"background: {color}" for color in label_colors(["lost", "tokencut"]).values()]


def test_photos_are_taken_one_at_a_time(tmp_path):
    """Memory stays flat: a photo's thumbnail is on disk before the next photo is asked for."""

    def entries() -> Iterator[Entry]:
        for i in range(4):
            assert len(list((tmp_path / "thumbs").glob("*.jpg"))) == i
            yield entry(f"{i}.jpg")

    assert len(sheet(tmp_path, entries()).attributes("img", "src")) == 4


def test_a_shorter_sheet_leaves_no_old_thumbnails(tmp_path):
    sheet(tmp_path, [entry()] * 3)
    (tmp_path / "thumbs" / "mine.jpg").write_bytes(b"kept")
    sheet(tmp_path, [entry()])
    assert sorted(p.name for p in (tmp_path / "thumbs").iterdir()) == ["000000.jpg", "mine.jpg"]


def test_the_same_photos_give_the_same_bytes(tmp_path):
    sheet(tmp_path / "one", [entry()])
    sheet(tmp_path / "two", [entry()])
    for name in ("index.html", "thumbs/000000.jpg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_found_is_a_page_too(tmp_path):
    page = sheet(tmp_path, [], failures=[Failure("a.jpg", 0, "not an image")])
    assert page.cells[-1] == ["a.jpg", "not an image"]
    assert not page.attributes("img", "src")


def test_real_photos(shared, tmp_path):
    files = sorted((shared / "photos" / "images").glob("*.jpg"))[:6]

    def entries() -> Iterator[Entry]:
        for file in files:
            with Image.open(file) as image:
                yield Entry(file.name, image, np.array([[0.0, 0.0, *image.size]]))

    page = sheet(tmp_path, entries())
    assert [text for text in page.texts if text.endswith(".jpg")] == [file.name for file in files]
    for thumb in sorted((tmp_path / "thumbs").iterdir()):
        with Image.open(thumb) as image:
            assert max(image.size) == 360
