"""The embedded dataset ``scenes``: procedural pictures with known instances, made on first use.

A scene has one or two background regions of different material, and objects of twelve categories, each a shape with
its own pattern and two preferred hues. Every surface has a dark and a bright colour of nearly one hue, and its pattern
is coarser than a patch of the embedded networks: a patch shows one of the two colours or some of both, and only its
surroundings tell what it belongs to. Patch colours alone therefore find no more than half of the objects; how many is
reported beside every result. One seed is one composition at any size.
"""

import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from pycocotools import mask as rle
from tqdm import tqdm

from foundling.datasets.scenes_shapes import CATEGORIES
from foundling.datasets.scenes_textures import (
    MATERIALS,
    Tone,
    coloured,
    coordinates,
    noise,
    random_tone,
    region_map,
    standardised,
    turned,
)
from foundling.errors import ParameterError
from foundling.paths import data_dir

VERSION = 2
ANNOTATIONS = "instances.json"
KINDS = ("single", "multi")
SPLITS = {"single_train": 2000, "single_val": 300, "multi_train": 2000, "multi_val": 300}  # default counts
MIN_SIZE, MAX_SIZE = 96, 512
CONTRAST, CYCLES = (27, 33), (5, 9)  # of all surfaces: half the contrast in L, repeats of a pattern over the picture
SEED_BLOCK = 10_000_000  # seeds of a split are base + index: disjoint as long as a split has fewer images


class Placed(NamedTuple):
    """One object of a scene in unit coordinates; ``turn`` in radians, ``cycles`` of its pattern over the picture."""

    label: int
    x: float
    y: float
    radius: float
    turn: float
    stretch: float
    mirrored: bool
    tone: Tone
    cycles: float
    phase: tuple[float, float]


def render_scene(
    seed: int, size: int, kind: str
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "object h w"], Int[np.ndarray, " object"]]:
    """Render one scene.

    ``seed`` names the composition (any non-negative integer), ``size`` is the side in pixels (96..512), ``kind`` is
    ``"single"`` (one salient object) or ``"multi"`` (2 to 6 objects).

    Returns the RGB picture, the visible pixels of each object and the objects' indices into ``CATEGORIES``.
    Raises ParameterError for a size or kind outside the legal values.
    """
    _check_size(size)
    if kind not in KINDS:
        raise ParameterError(f"unknown kind of scene {kind!r}: choose one of {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, KINDS.index(kind), VERSION])
    contrast = rng.uniform(*CONTRAST)
    canvas = _background(rng, size, contrast)
    objects = _place(rng, kind, contrast)
    light = _light(rng, size)
    angle = rng.uniform(0, 2 * np.pi)
    masks: list[np.ndarray] = []
    for placed in objects:
        alpha = _paint(canvas, placed, angle)
        visible = alpha >= 0.5
        masks = [m & ~visible for m in masks] + [visible]
    image = np.clip(canvas * light[..., None], 0, 1)
    labels = np.array([o.label for o in objects])
    return (image * 255 + 0.5).astype(np.uint8), np.stack(masks), labels


def _check_size(size: int) -> None:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ParameterError(f"scenes cannot be made at {size} px: choose a size from {MIN_SIZE} to {MAX_SIZE}")


def make_scenes(split: str, size: int = 224, count: int | None = None, root: str | Path | None = None) -> Path:
    """Write a split of the dataset to disk, unless it is there already.

    ``split`` is ``single_train``, ``single_val``, ``multi_train`` or ``multi_val``; ``size`` is the side of the square
    images in pixels (96..512); ``count`` is the number of images (default: 2000 for training, 300 for validation; a
    smaller count gives the first ones); ``root`` replaces ``data_dir()/scenes``.

    Returns the folder with the PNG files and ``instances.json`` (COCO format, RLE masks of the visible pixels). The
    folder is built under a temporary name and renamed when complete, so that makers may run side by side.
    Raises ParameterError for an unknown split, a size outside 96..512 or a count below 1.
    """
    if split not in SPLITS:
        raise ParameterError(f"unknown split {split!r} of scenes: choose one of {', '.join(SPLITS)}")
    _check_size(size)
    count = SPLITS[split] if count is None else count
    if not 1 <= count <= SEED_BLOCK:
        raise ParameterError(f"scenes cannot be made with count={count}: choose a count from 1 to {SEED_BLOCK}")
    folder = Path(root or data_dir() / "scenes") / f"{split}_{size}px_{count}_v{VERSION}"
    if not (folder / ANNOTATIONS).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as building:
            _write(Path(building) / folder.name, split, size, count)
            _move(Path(building) / folder.name, folder)
    return folder


def _move(built: Path, folder: Path) -> None:
    try:
        built.rename(folder)
    except OSError:
        if not (folder / ANNOTATIONS).is_file():  # otherwise another maker was first, and left the same bytes
            raise


def split_seeds(split: str, count: int) -> range:
    """The seeds of the first ``count`` images of ``split``; those of two splits never meet."""
    start = list(SPLITS).index(split) * SEED_BLOCK
    return range(start, start + count)


def _write(folder: Path, split: str, size: int, count: int) -> None:
    folder.mkdir()
    draw = partial(_draw_file, folder, size, split.split("_")[0])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(draw, range(1, count + 1), split_seeds(split, count))
        scenes = list(tqdm(drawn, f"scenes {split} {size} px", count, file=sys.stderr, disable=None))
    annotations = [{"id": i, **a} for i, a in enumerate(chain.from_iterable(a for _, a in scenes), start=1)]
    content = {
        "info": {"description": "foundling scenes", "version": str(VERSION), "split": split},
        "images": [image for image, _ in scenes],
        "categories": [{"id": i, "name": c.name} for i, c in enumerate(CATEGORIES, start=1)],
        "annotations": annotations,
    }
    (folder / ANNOTATIONS).write_text(json.dumps(content))


def _draw_file(
    folder: Path, size: int, kind: str, number: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Save one scene; returns its COCO image entry and its annotations, which still lack ids."""
    pixels, masks, labels = render_scene(seed, size, kind)
    name = f"{number:06d}.png"
    Image.fromarray(pixels).save(folder / name, compress_level=4)
    annotations = []
    for mask, label in zip(masks, labels, strict=True):
        code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotations.append(
            {
                "image_id": number,
                "category_id": int(label) + 1,
                "bbox": rle.toBbox(code).tolist(),
                "area": int(mask.sum()),
                "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
                "iscrowd": 0,
            }
        )
    return {"id": number, "file_name": name, "width": size, "height": size}, annotations


def _background(rng: np.random.Generator, size: int, contrast: float) -> Float[np.ndarray, "h w 3"]:
    count = int(rng.integers(1, 3))
    x, y = coordinates(size)
    canvas = np.zeros((size, size, 3), np.float32)
    for weight, material in zip(region_map(rng, size, count), rng.permutation(len(MATERIALS))[:count], strict=True):
        tone, cycles = random_tone(rng, rng.uniform(0, 360), contrast), rng.uniform(*CYCLES)
        field = MATERIALS[material](*turned(x, y, rng.uniform(0, np.pi)), cycles, rng)
        canvas += weight[..., None] * coloured(standardised(field, weight), tone)
    return canvas


def _light(rng: np.random.Generator, size: int) -> Float[np.ndarray, "h w"]:
    return 1.0 + 0.08 * noise(rng, size, 2)


def _place(rng: np.random.Generator, kind: str, contrast: float) -> list[Placed]:
    count = 1 if kind == "single" else int(rng.integers(2, 7))
    low, high = (0.2, 0.36) if kind == "single" else (0.11, 0.25 - 0.015 * count)
    same = kind == "multi" and rng.uniform() < 0.4
    first = int(rng.integers(len(CATEGORIES)))
    objects: list[Placed] = []
    while len(objects) < count:
        label = first if same and rng.uniform() < 0.8 else int(rng.integers(len(CATEGORIES)))
        radius = rng.uniform(low, high)
        for _ in range(60):
            x, y = rng.uniform(0.85 * radius, 1 - 0.85 * radius, 2)
            if all(np.hypot(x - o.x, y - o.y) >= 0.72 * (radius + o.radius) for o in objects):
                break
            radius *= 0.985
        hue = rng.choice(CATEGORIES[label].hues) + rng.uniform(-20, 20)
        objects.append(
            Placed(
                label,
                x,
                y,
                radius,
                turn=rng.normal(0, 0.5),
                stretch=rng.uniform(0.85, 1.15),
                mirrored=bool(rng.integers(2)),
                tone=random_tone(rng, hue, contrast),
                cycles=rng.uniform(*CYCLES) * (0.28 / radius) ** 0.5,  # finer on small objects
                phase=(rng.uniform(0, 0.1), rng.uniform(0, 0.1)),
            )
        )
    return objects


def _paint(canvas: Float[np.ndarray, "h w 3"], placed: Placed, light: float) -> Float[np.ndarray, "h w"]:
    """Draw one object into ``canvas``, lit from the direction ``light`` (radians); returns its coverage of pixels."""
    size = len(canvas)
    fine = 2 if size >= 160 else 3
    reach = placed.radius * 1.45
    x0, y0 = (max(0, int((c - reach) * size)) for c in (placed.x, placed.y))
    x1, y1 = (min(size, int((c + reach) * size) + 1) for c in (placed.x, placed.y))
    rows, columns = (y1 - y0) * fine, (x1 - x0) * fine
    px = ((np.arange(columns, dtype=np.float32) + 0.5) / fine + x0) / size - placed.x
    py = ((np.arange(rows, dtype=np.float32) + 0.5) / fine + y0) / size - placed.y
    to_object, to_image = _frames(placed)
    u = to_object[0, 0] * px[None] + to_object[0, 1] * py[:, None]
    v = to_object[1, 0] * px[None] + to_object[1, 1] * py[:, None]
    mask = _fill(placed, to_image, (rows, columns), fine * size, (x0 * fine, y0 * fine))
    field = CATEGORIES[placed.label].pattern(u + placed.phase[0], v + placed.phase[1], placed.cycles)
    surface = coloured(standardised(field, mask), placed.tone)
    surface *= _shade(mask, placed.radius * size * fine, light)[..., None]
    small = (x1 - x0, y1 - y0)
    alpha = cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
    window = canvas[y0:y1, x0:x1]
    window *= 1 - alpha[..., None]
    window += cv2.resize(surface * mask[..., None], small, interpolation=cv2.INTER_AREA)
    cover = np.zeros((size, size), np.float32)
    cover[y0:y1, x0:x1] = alpha
    return cover


def _frames(placed: Placed) -> tuple[np.ndarray, np.ndarray]:
    """To the object's coordinates in units of the picture's side, and from outline coordinates to the picture."""
    c, s = np.cos(placed.turn), np.sin(placed.turn)
    shape = np.diag([(-1 if placed.mirrored else 1) * placed.stretch**0.5, placed.stretch**-0.5])
    to_image = np.array([[c, -s], [s, c]]) @ shape
    return np.linalg.inv(to_image).astype(np.float32), placed.radius * to_image


def _fill(
    placed: Placed, to_image: np.ndarray, shape: tuple[int, int], side: int, origin: tuple[int, int]
) -> Float[np.ndarray, "r c"]:
    mask = np.zeros(shape, np.float32)
    for value, polygons in zip((1.0, 0.0), CATEGORIES[placed.label].outline(), strict=True):
        for polygon in polygons:
            points = (polygon @ to_image.T + (placed.x, placed.y)) * side - origin - 0.5
            cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], value, shift=4)
    return mask


def _shade(mask: Float[np.ndarray, "r c"], radius: float, light: float) -> Float[np.ndarray, "r c"]:
    """Lambert-like shading of a slightly bulging surface: the slope of the blurred outline."""
    height = cv2.GaussianBlur(mask, (0, 0), 0.16 * radius)
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) * np.cos(light) + cv2.Sobel(height, cv2.CV_32F, 0, 1) * np.sin(light)
    return np.clip(1 + 0.0165 * radius * slope, 0.6, 1.4)
