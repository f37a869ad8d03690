"""The embedded dataset ``scenes``: procedural pictures with known instances, made on first use.

A scene has two or three background regions of different material under uneven light, and objects of twelve
categories, each a shape with its own pattern and two preferred hues. Object colours are often taken from the
background, so that colour alone does not find the objects. One seed is one composition at any size.
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
from foundling.datasets.scenes_textures import MATERIALS, lch, noise, region_map
from foundling.errors import ParameterError
from foundling.paths import data_dir

VERSION = 1
ANNOTATIONS = "instances.json"
KINDS = ("single", "multi")
SPLITS = {"single_train": 2000, "single_val": 300, "multi_train": 2000, "multi_val": 300}  # default counts
MIN_SIZE, MAX_SIZE = 96, 512
SEED_BLOCK = 10_000_000  # seeds of a split are base + index: disjoint as long as a split has fewer images


class Placed(NamedTuple):
    """One object of a scene in unit coordinates; ``turn`` in radians, ``colours`` first, second, accent."""

    label: int
    x: float
    y: float
    radius: float
    turn: float
    stretch: float
    mirrored: bool
    colours: Float[np.ndarray, "3 3"]
    seed: int


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
    canvas, hues = _background(rng, size)
    objects = _place(rng, kind, hues)
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


def _background(rng: np.random.Generator, size: int) -> tuple[Float[np.ndarray, "h w 3"], list[tuple[float, float]]]:
    count = int(rng.choice([2, 3], p=[0.5, 0.5]))
    weights = region_map(rng, size, count)
    canvas = np.zeros((size, size, 3), np.float32)
    tones = []
    for weight, material in zip(weights, rng.permutation(len(MATERIALS))[:count], strict=True):
        hue, lightness, chroma = rng.uniform(0, 360), rng.uniform(38, 75), rng.uniform(12, 45)
        contrast = rng.uniform(9, 17)
        low = lch(lightness - contrast, chroma, hue - 12)
        high = lch(lightness + contrast, chroma, hue + 12)
        field = np.clip(0.5 + 0.5 * MATERIALS[material](rng, size), 0, 1) * weight
        canvas += weight[..., None] * low + field[..., None] * (high - low)
        tones.append((hue, lightness))
    return canvas, tones


def _light(rng: np.random.Generator, size: int) -> Float[np.ndarray, "h w"]:
    return 1.0 + 0.2 * noise(rng, size, 2) + 0.12 * noise(rng, size, 4)


def _place(rng: np.random.Generator, kind: str, tones: list[tuple[float, float]]) -> list[Placed]:
    count = 1 if kind == "single" else int(rng.integers(2, 7))
    low, high = (0.18, 0.35) if kind == "single" else (0.11, 0.25 - 0.015 * count)
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
        turn = rng.normal(0, 0.5)
        objects.append(
            Placed(
                label,
                x,
                y,
                radius,
                turn,
                rng.uniform(0.85, 1.15),
                bool(rng.integers(2)),
                _object_colours(rng, label, tones),
                int(rng.integers(2**31)),
            )
        )
    return objects


def _object_colours(rng: np.random.Generator, label: int, tones: list[tuple[float, float]]) -> Float[np.ndarray, "3 3"]:
    if rng.uniform() < 0.4:
        hue, lightness = tones[int(rng.integers(len(tones)))]
        hue += rng.uniform(-20, 20)
    else:
        hue, lightness = rng.choice(CATEGORIES[label].hues) + rng.uniform(-20, 20), rng.uniform(40, 72)
    gap = rng.uniform(14, 24)
    sign = rng.choice([-1, 1])
    first = lch(lightness + sign * gap, rng.uniform(25, 55), hue)
    second = lch(lightness - sign * gap, rng.uniform(25, 55), hue + rng.choice([-40, 40, 150]))
    accent = lch(rng.uniform(25, 92), rng.uniform(10, 60), hue + 180)
    return np.stack([first, second, accent])


def _paint(canvas: Float[np.ndarray, "h w 3"], placed: Placed, light: float) -> Float[np.ndarray, "h w"]:
    """Draw one object, with its shadow, into ``canvas``; returns its coverage of every pixel."""
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
    category = CATEGORIES[placed.label]
    second, accent = category.pattern(u, v, np.random.default_rng(placed.seed))
    first_colour, second_colour, accent_colour = placed.colours.astype(np.float32)
    surface = first_colour + second[..., None] * (second_colour - first_colour)
    surface += accent[..., None] * (accent_colour - surface)
    surface *= _shade(mask, placed.radius * size * fine, light)[..., None]
    small = (x1 - x0, y1 - y0)
    alpha = cv2.resize(mask, small, interpolation=cv2.INTER_AREA)
    colour = cv2.resize(surface * mask[..., None], small, interpolation=cv2.INTER_AREA)
    window = canvas[y0:y1, x0:x1]
    window *= 1 - 0.4 * _shadow(alpha, placed.radius * size, light)[..., None]
    window *= 1 - alpha[..., None]
    window += colour
    cover = np.zeros((size, size), np.float32)
    cover[y0:y1, x0:x1] = alpha
    return cover


def _frames(placed: Placed) -> tuple[np.ndarray, np.ndarray]:
    c, s = np.cos(placed.turn), np.sin(placed.turn)
    scale = placed.radius * np.diag([(-1 if placed.mirrored else 1) * placed.stretch**0.5, placed.stretch**-0.5])
    to_image = np.array([[c, -s], [s, c]]) @ scale
    return np.linalg.inv(to_image).astype(np.float32), to_image


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
    """Lambert-like shading of a bulging surface: the slope of the blurred outline, and a darker rim."""
    height = cv2.GaussianBlur(mask, (0, 0), 0.16 * radius)
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) * np.cos(light) + cv2.Sobel(height, cv2.CV_32F, 0, 1) * np.sin(light)
    rim = cv2.GaussianBlur(mask, (0, 0), 0.035 * radius)
    return np.clip(1 + 0.055 * radius * slope, 0.45, 1.6) * (0.62 + 0.38 * np.clip(2 * rim - 0.9, 0, 1))


def _shadow(alpha: Float[np.ndarray, "r c"], radius: float, light: float) -> Float[np.ndarray, "r c"]:
    shift = 0.14 * radius
    move = np.array([[1, 0, shift * np.cos(light)], [0, 1, shift * np.sin(light)]], np.float32)
    return cv2.GaussianBlur(cv2.warpAffine(alpha, move, alpha.shape[::-1]), (0, 0), 0.09 * radius)
