"""Backgrounds of ``scenes``: two or three regions of different material, and the light that falls on them.

Everything is a function of unit coordinates and of lattices of fixed shape, so that one seed gives one composition
at any image size.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float

from foundling.datasets.scenes_shapes import smooth_step

Field = Float[np.ndarray, "row column"]
Colour = Float[np.ndarray, "3"]


def lch(lightness: float, chroma: float, hue: float) -> Colour:
    """CIE LCh (0..100, 0..~100, degrees) as RGB in 0..1, clipped to the screen's gamut."""
    angle = np.deg2rad(hue)
    lab = np.array([[[lightness, chroma * np.cos(angle), chroma * np.sin(angle)]]], np.float32)
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)[0, 0], 0, 1)


def noise(rng: np.random.Generator, size: int, cells: int | tuple[int, int]) -> Field:
    """Smooth noise in about -1..1: a lattice of ``cells`` (rows, columns) enlarged to ``size`` pixels."""
    shape = (cells, cells) if isinstance(cells, int) else cells
    lattice = rng.uniform(-1, 1, shape).astype(np.float32)
    return cv2.resize(lattice, (size, size), interpolation=cv2.INTER_CUBIC)


def coordinates(size: int) -> tuple[Field, Field]:
    """Pixel centres in unit coordinates: x, y."""
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(centre, centre)
    return x, y


def _turned(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    x, y = coordinates(size)
    turn = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return c * x + s * y, c * y - s * x


def _clouds(rng: np.random.Generator, size: int) -> Field:
    return noise(rng, size, 5) + 0.6 * noise(rng, size, 11) + 0.4 * noise(rng, size, 23)


def _waves(rng: np.random.Generator, size: int) -> Field:
    a, _ = _turned(rng, size)
    return np.sin(a * rng.uniform(40, 75) + 2.5 * noise(rng, size, 5))


def _grain(rng: np.random.Generator, size: int) -> Field:
    a, b = _turned(rng, size)
    streaks = noise(rng, 256, (48, 6))
    return 1.4 * cv2.remap(streaks, 127 + a * 90, 127 + b * 90, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _pebbles(rng: np.random.Generator, size: int) -> Field:
    """Voronoi cells of a jittered lattice, each with its own shade, darker towards the edges."""
    cells = int(rng.integers(7, 12))
    points = (np.indices((cells, cells)).reshape(2, -1) + rng.uniform(0.1, 0.9, (2, cells * cells))) / cells
    rows, columns = (points * size).astype(int)
    image = np.full((size, size), 255, np.uint8)
    image[rows, columns] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        image, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    shades = np.zeros(cells * cells + 1, np.float32)
    shades[labels[rows, columns]] = rng.uniform(-0.7, 0.7, cells * cells)
    return shades[labels] + 0.7 - 1.6 * distance * (cells / size)


def _camouflage(rng: np.random.Generator, size: int) -> Field:
    return 2 * smooth_step(noise(rng, size, 9) + 0.4 * noise(rng, size, 19), -0.05, 0.05) - 1


def _weave(rng: np.random.Generator, size: int) -> Field:
    a, b = _turned(rng, size)
    f = rng.uniform(45, 70)
    return np.sin(a * f) * np.sin(b * f) * 1.3


def _speckle(rng: np.random.Generator, size: int) -> Field:
    return 1.3 * noise(rng, size, 34) + 0.5 * noise(rng, size, 8)


def _tiles(rng: np.random.Generator, size: int) -> Field:
    a, b = _turned(rng, size)
    f = rng.uniform(7, 11)
    joint = np.minimum(np.abs(np.sin(np.pi * a * f)), np.abs(np.sin(np.pi * b * f)))
    return 2 * smooth_step(joint, 0.12, 0.3) - 1 + 0.4 * noise(rng, size, 6)


MATERIALS: tuple[Callable[[np.random.Generator, int], Field], ...] = (
    _clouds,
    _waves,
    _grain,
    _pebbles,
    _camouflage,
    _weave,
    _speckle,
    _tiles,
)


def region_map(rng: np.random.Generator, size: int, count: int) -> Float[np.ndarray, "region row column"]:
    """Antialiased weights of ``count`` (2 or 3) regions: each split is a noisy ramp, cut so that no region is small."""
    weights = [np.ones((size, size), np.float32)]
    for _ in range(count - 1):
        turn, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.38, 0.62)
        lattice = noise(rng, 64, 4) * 0.22
        x, y = coordinates(64)
        field = np.cos(turn) * x + np.sin(turn) * y + lattice
        largest = int(np.argmax([cv2.resize(w, (64, 64), interpolation=cv2.INTER_AREA).mean() for w in weights]))
        inside = cv2.resize(weights[largest], (64, 64), interpolation=cv2.INTER_AREA) > 0.5
        cut = np.quantile(field[inside], share)
        fine = cv2.resize(field.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        slope = np.hypot(cv2.Sobel(fine, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(fine, cv2.CV_32F, 0, 1, scale=1 / 8))
        side = np.clip((fine - cut) / np.maximum(slope, 1e-4) + 0.5, 0, 1).astype(np.float32)
        weights[largest], new = weights[largest] * (1 - side), weights[largest] * side
        weights.append(new)
    return np.stack(weights)
