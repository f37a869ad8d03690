"""DAVIS 2017 in small: what is listed, what is left out and why, and index masks on disk."""

import numpy as np
import pytest
from PIL import Image

from foundling.datasets import open_dataset, open_videos
from foundling.datasets.index_masks import PALETTE, read_labels, read_masks, write_labels
from foundling.errors import DataMissing, ImageError, ParameterError
from small_datasets import make_davis


def test_the_videos_of_a_split(tmp_path):
    home = make_davis(tmp_path / "davis/DAVIS", {"bear": 4, "camel": 3}, objects=2)
    make_davis(home, {"swan": 5}, split="train")
    for root in (home, home.parent):
        videos = open_videos("davis", root=root)
        assert (videos.name, videos.split, videos.problems) == ("davis", "val", ())
        assert [(video.name, len(video), video.objects) for video in videos] == [("bear", 4, 2), ("camel", 3, 2)]
    assert [path.name for path in videos[0].frames] == ["00000.jpg", "00001.jpg", "00002.jpg", "00003.jpg"]
    assert videos[0].annotations[3] == home / "Annotations/480p/bear/00003.png"
    assert [video.name for video in open_videos("davis", "train", home)] == ["swan"]


def test_the_default_place(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    for place in ("DAVIS", "davis/DAVIS"):  # the second is looked at first
        make_davis(tmp_path / place, {"bear": 3})
        assert open_videos("davis")[0].frames[0].is_relative_to(tmp_path / place)


def test_videos_that_cannot_be_used_are_left_out_and_named(tmp_path):
    home = make_davis(tmp_path, {"bear": 3, "camel": 3, "car": 3, "cow": 3, "dog": 3, "elk": 2, "fox": 3})
    masks = home / "Annotations/480p"
    (masks / "camel/00001.png").unlink()
    (masks / "car/00000.png").write_bytes(b"no image")
    Image.new("RGB", (48, 32)).save(masks / "cow/00000.png")
    write_labels(masks / "dog/00000.png", np.full((32, 48), 255, dtype=np.uint8))
    with (home / "ImageSets/2017/val.txt").open("a") as stream:
        stream.write("\nghost\n")
    videos = open_videos("davis", root=home)
    assert [video.name for video in videos] == ["bear", "fox"]
    text = "\n".join(videos.problems)
    assert f"1 × video with a frame that has no mask (left out): {masks / 'camel/00001.png'}" in text
    assert f"2 × video whose first mask cannot be read (left out): {masks / 'car/00000.png'}: not an image" in text
    assert "a mask must be an indexed PNG (mode P or L, one object number a pixel), but this is RGB" in text
    assert f"1 × video whose first mask marks no object (left out): {masks / 'dog/00000.png'}" in text
    assert f"2 × video of fewer than 3 frames (left out): {home / 'JPEGImages/480p/elk'} (2)" in text
    assert f"{home / 'JPEGImages/480p/ghost'} (0)" in text


def test_nothing_there(tmp_path):
    with pytest.raises(
        DataMissing, match="looked for JPEGImages/480p, Annotations/480p and ImageSets/2017 in:"
    ) as info:
        open_videos("davis", root=tmp_path)
    assert f"\n  {tmp_path / 'DAVIS'}\n" in str(info.value)
    assert str(info.value).endswith("or give root=, the folder that holds JPEGImages and Annotations")
    home = make_davis(tmp_path, {"bear": 2})
    with pytest.raises(DataMissing, match=r"train\.txt: no such list of videos; present here: val$"):
        open_videos("davis", "train", home)
    with pytest.raises(DataMissing, match=r"none of the 1 videos of split 'val' can be used:\n  1 × video of fewer"):
        open_videos("davis", root=home)


def test_names_splits_and_options_are_checked(tmp_path):
    with pytest.raises(ParameterError, match="unknown video dataset 'ytvos': choose one of scenes_video, davis"):
        open_videos("ytvos")
    with pytest.raises(ParameterError, match="unknown split 'test' of dataset 'davis': choose one of val, train"):
        open_videos("davis", "test")
    with pytest.raises(ParameterError, match="unknown option 'size' of dataset 'davis': legal are none"):
        open_videos("davis", root=tmp_path, size=96)
    with pytest.raises(ParameterError, match=r"'davis' holds videos, not single images: .*open_videos\('davis'\)"):
        open_dataset("davis")


def test_index_masks_survive_the_disk_bit_by_bit(tmp_path, rng):
    labels = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        write_labels(tmp_path / name, labels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(read_labels(tmp_path / "a.png"), labels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        colours = np.array(image.convert("RGB"))
    assert np.array_equal(colours, np.frombuffer(PALETTE, np.uint8).reshape(256, 3)[labels])


def test_the_colours_are_those_of_voc_and_davis():
    colours = np.frombuffer(PALETTE, np.uint8).reshape(256, 3).tolist()
    assert colours[:5] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert (colours[8], colours[20], colours[255]) == ([64, 0, 0], [0, 64, 128], [224, 224, 192])


def test_masks_that_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: no such file; check the path"):
        read_labels(tmp_path / "gone.png")
    write_labels(tmp_path / "a.png", np.ones((40, 40), dtype=np.uint8))
    write_labels(tmp_path / "b.png", np.ones((40, 30), dtype=np.uint8))
    with pytest.raises(ImageError, match=r"b\.png: 30×40 pixels, but the first mask of the video, a\.png, has 40×40"):
        read_masks([tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(ParameterError, match="no mask files given"):
        read_masks([])
    noise = np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)
    write_labels(tmp_path / "c.png", noise)
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:1500])
    with pytest.raises(ImageError, match=r"c\.png: damaged or truncated mask \(.*\); copy or export it again"):
        read_labels(tmp_path / "c.png")
