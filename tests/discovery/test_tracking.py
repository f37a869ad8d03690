"""Trackers on small videos: masks on disk as DAVIS wants them, resumed, and one broken video among sound ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.backbones import extract, load_backbone
from foundling.datasets import open_videos
from foundling.datasets.images import read_image
from foundling.datasets.index_masks import read_labels, read_masks
from foundling.discovery import tracking
from foundling.discovery.propagation import Rule, decide, first_labels, propagate
from foundling.discovery.trackers import (
    DINO_STD,
    Tracker,
    colour_tracker,
    feature_tracker,
    network_tracker,
    still_tracker,
)
from foundling.discovery.tracking import track_videos, with_truth
from foundling.errors import FoundlingError, ParameterError
from foundling.evaluation.video import score_videos
from small_datasets import SQUARE_COLOURS, make_davis


@pytest.fixture
def videos(tmp_path):
    """Two videos of 48 × 32 pixels, in which two squares of 8 pixels move 2 pixels a frame."""
    return open_videos("davis", root=make_davis(tmp_path / "davis", {"bear": 5, "camel": 4}, objects=2))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("scenes_odin", weights="random", device="cpu", seed=3)


def test_colours_follow_squares_of_their_own_colour(videos, tmp_path):
    tracked = track_videos(colour_tracker(2, centred=False, short_side=None), videos, tmp_path / "out", progress=False)
    assert (tracked.failures, tracked.videos) == ([], videos.videos)
    assert set(tracked.seconds) == {"bear", "camel"}
    result = score_videos(with_truth(tracked))
    assert result.j.mean == 100  # cells of 2 pixels, steps of 2 pixels
    still = score_videos(with_truth(track_videos(still_tracker(), videos, tmp_path / "still", progress=False)))
    # 2, 4 and 6 pixels off: 48/80, 32/96 and 16/112
    bear = [score.j.mean for score in still.objects if score.video == "bear"]
    assert bear == pytest.approx([100 * np.mean([48 / 80, 32 / 96, 16 / 112])] * 2)


def test_files_are_laid_out_for_davis(videos, tmp_path):
    out = tmp_path / "out"
    track_videos(still_tracker(), videos, out, progress=False)
    assert sorted(path.name for path in out.iterdir()) == ["bear", "bear.json", "camel", "camel.json"]
    assert sorted(path.name for path in (out / "camel").iterdir()) == [f"0000{i}.png" for i in range(4)]
    with Image.open(out / "camel/00003.png") as image:
        assert (image.mode, image.size) == ("P", (48, 32))
    assert np.array_equal(read_labels(out / "bear/00000.png"), read_labels(videos[0].annotations[0]))


def test_a_network_tracker_is_extract_and_propagate(videos, backbone):
    tracker = network_tracker(backbone, facet="values", block=1, short_side=None, rule=Rule(radius=2), batch_size=2)
    video = videos[0]
    normalised = replace(backbone, std=(0.228, 0.224, 0.225))
    batches = extract(normalised, [read_image(path) for path in video.frames], facets=("values",), block=1)
    frames = [frame for features in batches for frame in features.values]
    mask = read_labels(video.annotations[0])
    first, rule = first_labels(mask, (4, 6), 2), Rule(radius=2)
    expected = [decide(labels, 8, (32, 48)) for labels in propagate(frames, first, rule)]
    assert np.array_equal(tracker.run(video), np.stack([mask, *expected]))
    assert tracker.settings["backbone"] == ["scenes_odin", "random(3)", "cpu"]
    assert tracker.settings["rule"] == {"frames": 7, "radius": 2, "top": 5, "temperature": 0.1}


def test_another_normalisation_is_left_alone(videos, backbone):
    """Only ImageNet's normalisation is replaced by that of DINO's evaluation code."""
    plain = replace(backbone, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    tracker = network_tracker(plain, short_side=None)
    features = next(iter(extract(plain, [read_image(path) for path in videos[1].frames], facets=("tokens",))))
    mask = read_labels(videos[1].annotations[0])
    found = [decide(labels, 8, (32, 48)) for labels in propagate(features.tokens, first_labels(mask, (4, 6), 2))]
    assert np.array_equal(tracker.run(videos[1]), np.stack([mask, *found]))


def test_a_cnn_is_followed_by_what_left_its_last_relu(videos, monkeypatch):
    """Not by the map that LOST's products need, from which a mean was taken."""
    resnet = load_backbone("supervised_resnet50", weights="random", device="cpu")
    described = []

    def spy(features, first, rule):
        described.extend(features)
        return iter(())

    monkeypatch.setattr("foundling.discovery.trackers.propagate", spy)
    network_tracker(resnet, short_side=None).run(videos[1])
    mean, std = (torch.tensor(x)[:, None, None] for x in (resnet.mean, DINO_STD))
    for path, features in zip(videos[1].frames, described, strict=True):
        pixels = torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1) / 255
        plain = resnet.network(((pixels - mean) / std)[None])[0].flatten(1).T  # [2 · 3 cells, channel]
        unit = torch.nn.functional.normalize
        torch.testing.assert_close(unit(features, dim=1), unit(plain, dim=1), rtol=0, atol=1e-5)


def test_frames_are_resized_by_the_rule(videos, backbone):
    """At short_side=64 a frame of 48 × 32 becomes 64 × 64: 96 pixels, cut to a multiple of 64."""
    sizes = []

    def spy(frames, **_):
        sizes.extend(frame.size for frame in frames)
        return iter(())

    with pytest.MonkeyPatch.context() as patch:
        tracker = network_tracker(backbone, short_side=64)
        patch.setattr("foundling.discovery.trackers.extract", lambda _, frames, **options: spy(frames, **options))
        tracker.run(videos[0])
    assert sizes == [(64, 64)] * 5


def test_a_second_run_computes_nothing_and_changes_nothing(videos, tmp_path):
    tracker = colour_tracker(4, short_side=None)
    out = tmp_path / "out"
    track_videos(tracker, videos, out, progress=False)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    again = track_videos(tracker._replace(run=lambda video: pytest.fail("computed again")), videos, out, progress=False)
    assert (again.seconds, again.videos) == ({}, videos.videos)
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", ["settings", "frame", "first mask", "record", "lost mask", "code"])
def test_what_has_changed_is_computed_again(videos, tmp_path, monkeypatch, change):
    out, tracker = tmp_path / "out", colour_tracker(4, short_side=None)
    track_videos(tracker, videos, out, progress=False)
    anew = ["bear"]
    if change == "settings":
        tracker, anew = colour_tracker(4, short_side=None, centred=False), ["bear", "camel"]
    elif change == "code":
        monkeypatch.setattr(tracking, "code_digest", lambda: "another")
        anew = ["bear", "camel"]
    elif change == "frame":
        Image.new("RGB", (48, 32), "red").save(videos[0].frames[2])
    elif change == "first mask":
        mask = Image.open(videos[0].annotations[0])
        mask.putpixel((40, 30), 1)
        mask.save(videos[0].annotations[0])
    elif change == "record":
        (out / "bear.json").write_text("{half")
    else:
        (out / "bear/00002.png").unlink()
    assert list(track_videos(tracker, videos, out, progress=False).seconds) == anew
    assert len(read_masks(sorted((out / "bear").iterdir()))) == 5


def test_a_run_killed_between_two_files_leaves_no_half_video(videos, tmp_path, monkeypatch):
    out, tracker, written = tmp_path / "out", colour_tracker(4, short_side=None), []
    whole = track_videos(tracker, videos, tmp_path / "whole", progress=False)

    def killed(path, labels):
        written.append(path)
        if len(written) == 7:  # in the middle of the second video
            raise KeyboardInterrupt
        real(path, labels)

    real = tracking.write_labels
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "write_labels", killed)
        with pytest.raises(KeyboardInterrupt):
            track_videos(tracker, videos, out, progress=False)
    assert sorted(path.name for path in out.iterdir()) == ["bear", "bear.json"]
    assert list(track_videos(tracker, videos, out, progress=False).seconds) == ["camel"]
    for path in whole.folder.rglob("*.*"):
        assert (out / path.relative_to(whole.folder)).read_bytes() == path.read_bytes()


def test_one_broken_video_does_not_end_the_batch(videos, tmp_path):
    videos[0].frames[3].write_bytes(videos[0].frames[3].read_bytes()[:300])
    tracked = track_videos(colour_tracker(4, short_side=None), videos, tmp_path / "out", progress=False)
    assert [video.name for video in tracked.videos] == ["camel"]
    (failure,) = tracked.failures
    assert (failure.name, failure.index) == ("bear", 0)
    assert f"{videos[0].frames[3]}: damaged or truncated image" in failure.error
    assert [score.video for score in score_videos(with_truth(tracked)).objects] == ["camel", "camel"]
    assert not (tmp_path / "out/bear").exists()


def test_frames_and_mask_of_different_size(videos, tmp_path):
    Image.new("RGB", (50, 32)).save(videos[1].frames[2])
    (failure,) = track_videos(colour_tracker(4, short_side=None), videos, tmp_path / "out", progress=False).failures
    assert failure.error.startswith(f"{videos[1].frames[2]}: 50×32 pixels, but the first mask of the video, ")
    assert failure.error.endswith("has 48×32: frames and masks must have one size")


def test_a_folder_that_cannot_be_written(videos, tmp_path, monkeypatch):
    def full(path, labels):
        raise OSError(28, "No space left on device")

    track_videos(still_tracker(), videos, tmp_path / "out", progress=False)
    kept = (tmp_path / "out/bear/00001.png").read_bytes()
    monkeypatch.setattr(tracking, "write_labels", full)
    with pytest.raises(FoundlingError, match=r"bear cannot be written \(No space left on device\): make room"):
        track_videos(colour_tracker(4, short_side=None), videos, tmp_path / "out", progress=False)
    assert (tmp_path / "out/bear/00001.png").read_bytes() == kept
    assert json.loads((tmp_path / "out/bear.json").read_text())["tracker"] == "still"


def test_settings_are_checked_at_once(backbone):
    with pytest.raises(ParameterError, match="facet is 'cls': choose one of keys, queries, values, tokens"):
        network_tracker(backbone, facet="cls")
    with pytest.raises(ParameterError, match="block=9: scenes_odin has blocks"):
        network_tracker(backbone, block=9)
    with pytest.raises(ParameterError, match="short_side=4: must be at least one cell, 8 pixels"):
        network_tracker(backbone, short_side=4)
    with pytest.raises(ParameterError, match="cell=0: choose at least 1 pixel"):
        colour_tracker(0)


def test_features_that_leave_no_doubt_are_followed_without_a_fault(videos, tmp_path):
    """What a cell is, as a vector: nothing but the objects' borders inside a cell could be lost, and there are none."""
    colours = torch.tensor(SQUARE_COLOURS).float()

    def describe(frames):
        for frame in frames:
            pixels = torch.from_numpy(np.array(frame))[::2, ::2].float().flatten(0, 1)
            yield torch.eye(3)[torch.cdist(pixels, colours).argmin(1)]

    tracker = feature_tracker({"tracker": "certain"}, describe, 2, None)
    result = score_videos(with_truth(track_videos(tracker, videos, tmp_path / "out", progress=False)))
    assert (result.jf.value, result.j.recall, result.f.mean) == (100, 100, 100)


def test_two_videos_of_one_name(videos, tmp_path):
    with pytest.raises(ParameterError, match="two videos have the same name"):
        track_videos(still_tracker(), [videos[0], videos[0]], tmp_path, progress=False)


def test_any_function_can_be_a_tracker(videos, tmp_path):
    cheat = Tracker({"tracker": "truth"}, lambda video: read_masks(video.annotations))
    assert score_videos(with_truth(track_videos(cheat, videos, tmp_path, progress=False))).jf.value == 100


def test_progress_is_told_in_videos(videos, tmp_path, capsys):
    track_videos(still_tracker(), videos, tmp_path)
    assert "tracking: 2 of 2 videos" in capsys.readouterr().err
    assert torch.is_inference_mode_enabled() is False
