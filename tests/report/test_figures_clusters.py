"""What is drawn of objects and their groups: each picture where its object lies, each colour that of its cluster."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from foundling.categories import objects_of_masks
from foundling.discovery.export import encode_mask
from foundling.errors import ParameterError
from foundling.report.figures_clusters import (
    RIGHT,
    WRONG,
    PictureRow,
    cluster_colours,
    cluster_map,
    hover_map,
    label_maps,
    matching_chart,
    object_pictures,
    picture_rows,
    plane,
)
from foundling.report.style import FOUND, subplots
from foundling.types import Sample


@pytest.fixture
def samples(tmp_path):
    """Two images of 60 × 40 pixels, one with a white object on black, one the other way round."""
    made = []
    for i, (ground, thing) in enumerate(((0, 255), (255, 0))):
        pixels = np.full((40, 60, 3), ground, dtype=np.uint8)
        pixels[10:30, 35:55] = thing
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels).save(path)
        made.append(Sample(path.name, path, i + 1))
    return made


@pytest.fixture
def objects(samples):
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 35:55] = True
    return objects_of_masks(samples, [encode_mask(mask)] * 2, 100)


def small(*shades):
    return [Image.new("RGB", (16, 16), (shade, shade, shade)) for shade in shades]


def test_a_picture_shows_its_object_outlined(samples, objects):
    first, second = object_pictures(samples, objects, 62)
    assert first.size == second.size == (62, 62)
    assert first.getpixel((31, 31)) == (255, 255, 255) and second.getpixel((31, 31)) == (0, 0, 0)
    assert first.getpixel((31, 2)) == (0, 0, 0)  # what lies around it is seen, too
    outline = tuple(round(255 * part) for part in to_rgb(FOUND))
    row = np.asarray(first)[31].tolist()
    assert [x for x in range(62) if tuple(row[x]) == outline] == [6, 55]  # 20 of 24.8 pixels, 2.5 times as large


def test_pictures_come_in_the_order_of_the_objects_and_go_without_masks(samples, objects):
    turned = object_pictures(samples, objects[[1, 0]], 62)
    assert [picture.getpixel((31, 31)) for picture in turned] == [(0, 0, 0), (255, 255, 255)]
    boxes = type(objects)(objects.images, objects.names, objects.parts, objects.boxes, objects.scores, (None, None))
    with_box, with_mask = (np.asarray(object_pictures(samples, o, 62)[0]).astype(int) for o in (boxes, objects))
    assert (np.abs(with_box - with_mask).max(axis=2) > 0).mean() < 0.1  # the same square, but for rounding


def test_an_object_at_the_border_is_shown_with_what_is_beyond_in_grey(samples):
    mask = np.zeros((40, 60), dtype=bool)
    mask[:, :20] = True
    (picture,) = object_pictures(samples, objects_of_masks(samples, [encode_mask(mask), None], 100), 50)
    assert picture.getpixel((2, 25)) == (236, 236, 236)


def test_rows_hold_as_many_pictures_as_asked_and_their_frames():
    rows = [PictureRow("costs $5 & $6", small(0, 50, 100), (None, RIGHT, WRONG)), PictureRow("empty", [])]
    fig = picture_rows(rows, columns=2)
    (ax,) = fig.axes
    assert len(ax.images) == 2 and [line.get_color() for line in ax.lines] == [RIGHT]
    assert [text.get_text() for text in ax.texts] == ["costs $5 & $6", "empty", "none"]
    fig.canvas.draw()  # the dollars are no formula
    side_by_side = picture_rows(rows, columns=2, beside=2)
    assert side_by_side.get_figwidth() > fig.get_figwidth() and side_by_side.get_figheight() < fig.get_figheight()
    with pytest.raises(ParameterError, match="no rows"):
        picture_rows([])
    with pytest.raises(ValueError):
        picture_rows([PictureRow("", small(0, 1), (None,))])


def test_the_plane_keeps_groups_apart_whatever_their_number(rng):
    two = np.concatenate([rng.normal(0, 0.1, (15, 5)), rng.normal(9, 0.1, (15, 5))]).astype(np.float32)
    points = plane(two, 0)
    assert points.shape == (30, 2) and points.min() == 0 and points.max() == 1
    np.testing.assert_array_equal(points, plane(two, 0))
    centres = points[:15].mean(axis=0), points[15:].mean(axis=0)
    spread = max(
        np.linalg.norm(part - c, axis=1).max() for part, c in zip((points[:15], points[15:]), centres, strict=True)
    )
    assert np.linalg.norm(centres[0] - centres[1]) > spread
    assert np.isfinite(plane(np.ones((4, 3), dtype=np.float32))).all()  # all alike
    assert plane(two[:3]).shape == (3, 2)
    for wrong in (two[:2], np.full((5, 2), np.nan, dtype=np.float32)):
        with pytest.raises(ParameterError, match="3 or more, all finite"):
            plane(wrong)


def test_clusters_have_colours_of_their_own():
    colours = cluster_colours(20)
    assert len(set(colours)) == 20
    assert cluster_colours(3) == cluster_colours(3) and len(cluster_colours(90)) == 90 and cluster_colours(0) == []


def test_the_map_draws_every_object_in_the_colour_of_its_cluster(rng):
    points, labels = rng.random((5, 2)), np.array([0, 1, 1, -1, 0])
    fig = cluster_map(points, small(0, 1, 2, 3, 4), labels, 2)
    dots, pictures = fig.axes
    assert sorted(len(group.get_offsets()) for group in dots.collections) == [2, 2]
    assert [text.get_text() for text in dots.texts] == ["1", "2"]
    assert len(pictures.artists) == 5


def test_the_map_for_the_mouse_needs_nothing_from_outside(rng):
    words = ["a <b> & 'c'", "two"]
    page = hover_map(rng.random((2, 2)), small(0, 255), np.array([0, -1]), 1, words)
    assert page.count("<img") == 2 and "<script" not in page and "http" not in page
    assert 'title="a &lt;b&gt; &amp; &#x27;c&#x27;"' in page
    assert len(re.findall("data:image/jpeg;base64,", page)) == 2
    with pytest.raises(ParameterError, match="give one each"):
        hover_map(rng.random((2, 2)), small(0, 255), np.array([0, 1]), 2, words[:1])


def test_the_chart_of_the_matching_has_what_is_right_on_its_diagonal():
    _, ax = subplots()
    table = np.array([[0, 7], [5, 1], [2, 0]])
    matching_chart(ax, table, ["cat", "dog"], np.array([1, 0, -1]))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["2", "1", "3"]
    assert sorted(text.get_text() for text in ax.texts) == ["1", "2", "5", "7"]  # no zeros
    assert sorted(patch.get_xy() for patch in ax.patches) == [(-0.5, -0.5), (0.5, 0.5)]
    with pytest.raises(ParameterError, match="3 clusters and 2 classes with 2 assignments"):
        matching_chart(ax, table, ["cat", "dog"], np.array([1, 0]))


def test_label_maps_name_what_they_show():
    _, ax = subplots()
    labels = np.zeros((10, 10), dtype=np.int64)
    labels[2:4, 2:4], labels[6:, 6:] = 2, 255
    label_maps(ax, Image.new("L", (10, 10)), labels, {1: "one", 2: "two", 255: "ignored"}, "a $title$")
    assert [text.get_text() for text in ax.texts] == ["ignored", "two"]  # the largest first
    assert [text.get_position() for text in ax.texts] == [(7.5, 7.5), (2.5, 2.5)]
    tint = ax.images[1].get_array()
    assert tint[0, 0, 3] == 0 and tuple(tint[2, 2, :3]) == pytest.approx(cluster_colours(2)[1])
    assert tint[9, 9, 0] == tint[9, 9, 1]  # grey, whatever the clusters are


def test_names_do_not_cover_one_another():
    labels = np.ones((20, 20), dtype=np.int64)
    labels[9:11, 4:9], labels[16:, 4:9] = 2, 3  # their middles: (9.5, 9.5) about, (9.5, 6), (17.5, 6)
    _, ax = subplots()
    label_maps(ax, Image.new("L", (20, 20)), labels, {1: "one", 2: "two", 3: "three"}, "")
    assert [text.get_text() for text in ax.texts] == ["one", "three"]
    _, ax = subplots()
    label_maps(ax, Image.new("L", (20, 20)), labels, {1: "one", 3: "three"}, "", least=0.06)
    assert [text.get_text() for text in ax.texts] == ["one"]  # 20 of 400 pixels
