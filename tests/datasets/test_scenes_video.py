"""Scenes in motion: the same bytes for the same seed, something moves, something is covered, seeds are disjoint."""

import numpy as np
import pytest

from foundling.datasets import open_videos, scenes, scenes_video
from foundling.datasets.index_masks import read_masks
from foundling.datasets.scenes_video import make_scenes_video, render_video, split_seeds
from foundling.errors import ParameterError


@pytest.fixture(scope="module")
def videos():
    """The first eight of val, small and short."""
    return [render_video(seed, size=96, length=9) for seed in split_seeds("val", 8)]


def test_frames_and_masks_belong_together(videos):
    for frames, masks, objects in videos:
        assert (frames.shape, masks.shape) == ((9, 96, 96, 3), (9, 96, 96))
        assert 2 <= objects <= 4
        assert set(np.unique(masks[0])) == set(range(objects + 1))  # the first mask shows every object
        assert masks.max() == objects


def test_a_seed_is_a_video_at_any_size(videos):
    frames, masks, _ = videos[0]
    again, same, _ = render_video(split_seeds("val", 1)[0], size=96, length=9)
    assert np.array_equal(frames, again)
    assert np.array_equal(masks, same)
    _, large, _ = render_video(split_seeds("val", 1)[0], size=192, length=9)
    assert (large[:, ::2, ::2] == masks).mean() > 0.97  # edges apart


def test_objects_move_turn_and_cover_one_another_over_a_moving_background(videos):
    covered = 0
    for frames, masks, objects in videos:
        for number in range(1, objects + 1):
            here = [np.argwhere(mask == number).mean(0) for mask in masks if (mask == number).any()]
            assert np.hypot(*np.ptp(here, axis=0)) > 96 / 20
            areas = np.array([(mask == number).sum() for mask in masks])
            covered += areas.min() < 0.6 * areas[0]
        still = (masks == 0).all(0)  # never covered by an object
        steps = np.abs(np.diff(frames.astype(float), axis=0)).mean(-1)[:, still]
        assert (steps.mean(1) > 0.2).all()
    assert covered >= 4


def test_no_picture_and_no_other_video_has_the_same_seed():
    pictures = {seed for split in scenes.SPLITS for seed in (0, scenes.split_seeds(split, scenes.SEED_BLOCK)[-1])}
    assert max(pictures) < split_seeds("val", 1)[0]
    assert split_seeds("val", scenes.SEED_BLOCK)[-1] < split_seeds("train", 1)[0]


def test_the_files_are_what_was_rendered(tmp_path, monkeypatch, videos):
    monkeypatch.setattr(scenes_video, "LENGTH", 9)
    opened = open_videos("scenes_video", root=tmp_path, size=96, count=2)
    assert (opened.name, opened.split, len(opened), opened.problems) == ("scenes_video", "val", 2, ())
    for video, (_, masks, objects) in zip(opened, videos[:2], strict=True):
        assert (len(video), video.objects) == (9, objects)
        assert np.array_equal(read_masks(video.annotations), masks)
    folder = tmp_path / f"val_96px_2_v{scenes.VERSION}.{scenes_video.VERSION}"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert sorted(path.name for path in folder.iterdir()) == ["Annotations", "ImageSets", "JPEGImages"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    elsewhere = make_scenes_video("val", 96, 2, tmp_path / "again")
    assert {path.relative_to(elsewhere): path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == {
        path.relative_to(folder): content for path, content in before.items()
    }


def test_an_interrupted_maker_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes_video, "LENGTH", 3)

    def fail(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(scenes_video, "write_labels", fail)
        with pytest.raises(OSError, match="no space left"):
            make_scenes_video("train", 96, 1, tmp_path)
    assert list(tmp_path.iterdir()) == []
    folder = make_scenes_video("train", 96, 1, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(scenes_video, "write_labels", fail)  # it is there: nothing is made
        assert make_scenes_video("train", 96, 1, tmp_path) == folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "unknown split 'test' of scenes_video: choose one of val, train"),
        ({"size": 64, "count": 1}, "videos of scenes cannot be made at 64 px: choose a size from 96 to 512"),
        ({"count": 0}, "scenes_video cannot be made with count=0: choose a count from 1 to 10000000"),
    ],
)
def test_what_cannot_be_made(tmp_path, arguments, message):
    with pytest.raises(ParameterError, match=message):
        make_scenes_video(**arguments, root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_video_needs_two_frames():
    with pytest.raises(ParameterError, match="length is 1: a video has at least 2 frames"):
        render_video(0, length=1)
