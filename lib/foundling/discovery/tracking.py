"""Trackers over many videos: masks on disk as DAVIS wants them handed in, video by video, whole or not at all."""

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from foundling.datasets.index_masks import read_masks, write_labels
from foundling.discovery.chunks import code_digest, files_of
from foundling.discovery.progress import progress as show_progress
from foundling.discovery.trackers import Tracker
from foundling.errors import FoundlingError, ParameterError
from foundling.files import write_bytes
from foundling.types import Failure, Sample, Video

Masks = UInt8[np.ndarray, "frame h w"]


@dataclass(frozen=True)
class Tracked:
    """Which videos have masks in ``folder`` now, which failed, and the seconds of those computed in this run."""

    folder: Path
    videos: tuple[Video, ...]
    failures: list[Failure]
    seconds: dict[str, float]


def track_videos(tracker: Tracker, videos: Iterable[Video], out: Path, progress: bool = True) -> Tracked:
    """Follow the objects of every video and write the masks to ``out``.

    The masks of a video are ``out/<name>/<frame>.png``, indexed PNGs named as the frames: the layout in which results
    for DAVIS are handed in. Beside it ``out/<name>.json`` says what they depend on (tracker, code, files); a later call
    with the same leaves that video as it is. A video's masks appear together when all are made, so that a run may be
    killed at any time. A video that cannot be followed is among the failures, and the others go on.

    Raises :class:`ParameterError` where two videos have one name, :class:`FoundlingError` if ``out`` cannot be written.
    """
    videos = tuple(videos)
    if len({video.name for video in videos}) < len(videos):
        raise ParameterError("two videos have the same name: track them into folders of their own")
    code, done, failures, seconds = code_digest(), list[Video](), list[Failure](), dict[str, float]()
    with show_progress(len(videos), "tracking", progress and bool(videos), unit="video") as advance:
        for index, video in enumerate(videos):
            read = [Sample(path.name, path, 0) for path in (*video.frames, video.annotations[0])]
            about = {"code": code, **tracker.settings, "files": files_of(read)}
            begin = time.perf_counter()
            if _is_made(out, video, about):
                done.append(video)
            elif masks := _tracked(tracker, video, index, failures):
                _write(out, video, about, masks[0])
                done.append(video)
                seconds[video.name] = time.perf_counter() - begin
            advance(1)
    return Tracked(out, tuple(done), failures, seconds)


def _tracked(tracker: Tracker, video: Video, index: int, failures: list[Failure]) -> list[Masks]:
    """The masks of one video, or nothing and a failure."""
    try:
        return [tracker.run(video)]
    except FoundlingError as error:
        failures.append(Failure(video.name, index, str(error)))
        return []


def with_truth(tracked: Tracked) -> Iterator[tuple[str, Masks, Masks]]:
    """Name, masks found and masks annotated, video by video, as :func:`foundling.evaluation.video.score_videos` takes.

    Raises :class:`ImageError` for a mask that cannot be read.
    """
    for video in tracked.videos:
        yield video.name, read_masks(_files(tracked.folder, video)), read_masks(video.annotations)


def _files(out: Path, video: Video) -> list[Path]:
    return [out / video.name / f"{frame.stem}.png" for frame in video.frames]


def _is_made(out: Path, video: Video, about: dict[str, Any]) -> bool:
    record = out / f"{video.name}.json"
    try:
        same = json.loads(record.read_text(encoding="utf-8")) == about
    except (OSError, ValueError):  # none, or not ours: the video is tracked anew
        return False
    return same and all(file.is_file() for file in _files(out, video))


def _write(out: Path, video: Video, about: dict[str, Any], masks: Masks) -> None:
    """The masks in a folder under another name, then all in place; the record comes last and goes first."""
    folder, record, part = out / video.name, out / f"{video.name}.json", out / f".{video.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)  # a fixed name: what a killed run left is cleared by the next
        part.mkdir(parents=True)
        for file, mask in zip(_files(out, video), masks, strict=True):
            write_labels(part / file.name, mask)
        record.unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    except OSError as error:
        raise FoundlingError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or choose a place that may be written "
            "to; the videos before it are kept"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    write_bytes(record, (json.dumps(about, indent=1) + "\n").encode())
