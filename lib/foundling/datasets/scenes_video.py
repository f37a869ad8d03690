"""The embedded videos ``scenes_video``: the objects of ``scenes`` in motion, in the layout of DAVIS 2017.

Two to four objects change places over a slowly panning background; they turn, grow and shrink and are squeezed a
little, and pass in front of one another. The light wanders, and changes its colour. In most videos all objects have
the colours of the first. One seed is one video at any size.
"""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from tqdm import tqdm

from foundling.datasets import scenes
from foundling.datasets.davis import FRAMES, LISTS, MASKS
from foundling.datasets.index_masks import write_labels
from foundling.errors import ParameterError
from foundling.paths import data_dir

VERSION = 1  # of the motion; what is drawn has a version of its own, and both are in the folder's name
LENGTH = 24  # frames
SPLITS = {"val": 20, "train": 20}  # default counts
FIRST_SEED = 1000 * scenes.SEED_BLOCK  # far above the seeds of the pictures
MARGIN = 0.2  # how much wider than the frame the world is, as a share of the frame's side
TINT = 0.15  # standard deviation of the logarithm of how much the light of each colour changes
ALIKE = 0.6  # the share of the videos whose objects all have the colours of the first


class Course(NamedTuple):
    """How one object moves, as functions of the time 0..1 that are all 0 at the start.

    ``goal`` is where it goes, in unit coordinates of the frame; ``legs`` how often it gets there or back; ``bow`` how
    far it swerves on the way; ``spin`` radians; ``swell`` and ``squeeze`` the logarithms of the largest change of
    size and of proportion; ``beats`` how often these come and go.
    """

    goal: tuple[float, float]
    legs: float
    bow: float
    spin: float
    swell: float
    squeeze: float
    beats: float


def render_video(
    seed: int, size: int = 224, length: int | None = None
) -> tuple[UInt8[np.ndarray, "frame h w 3"], UInt8[np.ndarray, "frame h w"], int]:
    """Render one video.

    ``seed`` names it (any non-negative integer), ``size`` is the side in pixels (96..512), ``length`` the number of
    frames (2 or more, by default 24).

    Returns the frames, their index masks (0 background, 1… the objects, where visible) and the number of objects.
    Raises ParameterError for a size or length outside the legal values.
    """
    if not scenes.MIN_SIZE <= size <= scenes.MAX_SIZE:
        legal = f"{scenes.MIN_SIZE} to {scenes.MAX_SIZE}"
        raise ParameterError(f"videos of scenes cannot be made at {size} px: choose a size from {legal}")
    length = LENGTH if length is None else length
    if length < 2:
        raise ParameterError(f"length is {length}: a video has at least 2 frames")
    rng = np.random.default_rng([seed, len(scenes.KINDS), scenes.VERSION, VERSION])
    wide = round(size * (1 + MARGIN))
    contrast = rng.uniform(*scenes.CONTRAST)
    world = scenes._background(rng, wide, contrast)
    lamps = scenes._light(rng, 2 * size)
    angle = rng.uniform(0, 2 * np.pi)
    objects = _objects(rng, contrast)
    courses = [_course(rng, objects, i) for i in range(len(objects))]
    pan, walk = rng.uniform(0, 1, (2, 2, 2))  # of the frame over the world, of the light: where they begin and end
    tint, beats, phase = rng.normal(0, TINT, 3), rng.uniform(0.5, 1.5, 3), rng.uniform(0, 2 * np.pi, 3)
    frames, masks = [], []
    for time in np.linspace(0, 1, length):
        canvas = _window(world, (pan[0] + (pan[1] - pan[0]) * time) * (wide - size), size)
        light = _window(lamps, (walk[0] + (walk[1] - walk[0]) * time) * size, size)
        colour = np.exp(tint * np.sin(2 * np.pi * beats * time + phase))
        labels = np.zeros((size, size), dtype=np.uint8)
        for number, (placed, course) in enumerate(zip(objects, courses, strict=True), start=1):
            labels[scenes._paint(canvas, _at(placed, course, time), angle) >= 0.5] = number
        frames.append((np.clip(canvas * light[..., None] * colour, 0, 1) * 255 + 0.5).astype(np.uint8))
        masks.append(labels)
    return np.stack(frames), np.stack(masks), len(objects)


def _objects(rng: np.random.Generator, contrast: float) -> list[scenes.Placed]:
    """Two to four objects that do not cover one another yet."""
    objects = scenes._place(rng, "multi", contrast)[: rng.integers(2, 5)]
    if rng.uniform() < ALIKE:
        return [placed._replace(tone=objects[0].tone) for placed in objects]
    return objects


def _course(rng: np.random.Generator, objects: list[scenes.Placed], i: int) -> Course:
    """Towards where the next object starts, so that their ways cross."""
    other = objects[(i + 1) % len(objects)]
    x, y = np.clip(np.array([other.x, other.y]) + rng.normal(0, 0.08, 2), 0.12, 0.88)
    return Course(
        goal=(float(x), float(y)),
        legs=rng.uniform(0.8, 1.6),
        bow=rng.uniform(-0.08, 0.08),
        spin=rng.uniform(-1.2, 1.2),
        swell=rng.uniform(-0.25, 0.25),
        squeeze=rng.uniform(-0.3, 0.3),
        beats=rng.uniform(0.5, 1.5),
    )


def _at(placed: scenes.Placed, course: Course, time: float) -> scenes.Placed:
    """The object as it is at ``time``, between 0 and 1."""
    way = (1 - np.cos(np.pi * course.legs * time)) / 2  # 0 at the start, 1 at the goal
    aside = course.bow * np.sin(np.pi * way)
    dx, dy = course.goal[0] - placed.x, course.goal[1] - placed.y
    beat = np.sin(2 * np.pi * course.beats * time)
    x, y = np.clip([placed.x + way * dx - aside * dy, placed.y + way * dy + aside * dx], 0.05, 0.95)
    return placed._replace(
        x=float(x),
        y=float(y),
        radius=placed.radius * float(np.exp(course.swell * beat)),
        turn=placed.turn + course.spin * time,
        stretch=placed.stretch * float(np.exp(course.squeeze * beat)),
    )


def _window(field: np.ndarray, corner: Float[np.ndarray, "2"], size: int) -> Float[np.ndarray, "*shape"]:
    """The square of ``size`` pixels whose upper left corner (x, y) lies at ``corner``, between pixels if need be."""
    centre = (float(corner[0]) + (size - 1) / 2, float(corner[1]) + (size - 1) / 2)
    return cv2.getRectSubPix(field.astype(np.float32), (size, size), centre)


def make_scenes_video(
    split: str = "val", size: int = 224, count: int | None = None, root: str | Path | None = None
) -> Path:
    """Write a split of the videos to disk, unless it is there already.

    ``split`` is ``val`` or ``train``; ``size`` is the side in pixels (96..512); ``count`` is the number of videos
    (default: 20; a smaller count gives the first ones); ``root`` replaces ``data_dir()/scenes_video``.

    Returns a folder in the layout of DAVIS 2017 (its folder ``480p`` is part of that layout, whatever the size). It is
    built under a temporary name and renamed when complete, so that makers may run side by side.
    Raises ParameterError for an unknown split, a size outside 96..512 or a count below 1.
    """
    if split not in SPLITS:
        raise ParameterError(f"unknown split {split!r} of scenes_video: choose one of {', '.join(SPLITS)}")
    count = SPLITS[split] if count is None else count
    if not 1 <= count <= scenes.SEED_BLOCK:
        raise ParameterError(
            f"scenes_video cannot be made with count={count}: choose a count from 1 to {scenes.SEED_BLOCK}"
        )
    name = f"{split}_{size}px_{count}_v{scenes.VERSION}.{VERSION}"
    folder = Path(root or data_dir() / "scenes_video") / name
    if not (folder / LISTS / f"{split}.txt").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as building:
            _write(Path(building) / name, split, size, count)
            _move(Path(building) / name, folder, split)
    return folder


def _move(built: Path, folder: Path, split: str) -> None:
    try:
        built.rename(folder)
    except OSError:
        if not (folder / LISTS / f"{split}.txt").is_file():  # otherwise another maker was first, with the same bytes
            raise


def split_seeds(split: str, count: int) -> range:
    """The seeds of the first ``count`` videos of ``split``; no picture of ``scenes`` has one of them."""
    start = FIRST_SEED + list(SPLITS).index(split) * scenes.SEED_BLOCK
    return range(start, start + count)


def _write(home: Path, split: str, size: int, count: int) -> None:
    draw = partial(_write_video, home, size)
    seeds = split_seeds(split, count)
    names = [f"scene-{number:04d}" for number in range(1, count + 1)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(
            tqdm(pool.map(draw, names, seeds), f"scenes_video {split} {size} px", count, file=sys.stderr, disable=None)
        )
    (home / LISTS).mkdir(parents=True)
    (home / LISTS / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def _write_video(home: Path, size: int, name: str, seed: int) -> None:
    frames, masks, _ = render_video(seed, size)
    for part in (FRAMES, MASKS):
        (home / part / name).mkdir(parents=True)
    for number, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        Image.fromarray(frame).save(home / FRAMES / name / f"{number:05d}.jpg", quality=95)
        write_labels(home / MASKS / name / f"{number:05d}.png", mask)
