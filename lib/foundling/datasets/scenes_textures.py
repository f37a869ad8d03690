"""Backgrounds of ``scenes``: regions of different material, and the light that falls on them.

A texture is a field over unit coordinates: where it is high, the brighter of a surface's two colours shows. Random
lattices have fixed shapes, so that one seed gives one composition at any image size.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "row column"]
Colour = Float[np.ndarray, "3"]
Texture = Callable[[Field, Field, float, np.random.Generator], Field]  # x, y, cycles over a unit length, randomness

TURN = 2 * np.pi
STRONGEST = 1.7  # deviations at which a field is cut


class Tone(NamedTuple):
    """The two colours of a surface, around one: CIE LCh (hue in degrees), ``contrast`` in L, ``apart`` in degrees."""

    lightness: float
    chroma: float
    hue: float
    contrast: float
    apart: float


def lch(lightness: float, chroma: float, hue: float) -> Colour:
    """CIE LCh (0..100, 0..~100, degrees) as RGB in 0..1, clipped to the screen's gamut."""
    angle = np.deg2rad(hue)
    lab = np.array([[[lightness, chroma * np.cos(angle), chroma * np.sin(angle)]]], np.float32)
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)[0, 0], 0, 1)


def random_tone(rng: np.random.Generator, hue: float, contrast: float) -> Tone:
    """Any lightness and chroma; the second colour lies 5 to 30 degrees of hue to either side of the first."""
    apart = rng.choice([-1, 1]) * rng.uniform(5, 30)
    return Tone(rng.uniform(38, 72), rng.uniform(12, 45), hue, contrast * rng.uniform(0.85, 1.15), apart)


def coloured(field: Field, tone: Tone) -> Float[np.ndarray, "row column 3"]:
    """A standardised field in the colours of ``tone``: the darker at -1, the brighter at 1."""
    dark = lch(tone.lightness - tone.contrast, tone.chroma, tone.hue - tone.apart)
    bright = lch(tone.lightness + tone.contrast, tone.chroma, tone.hue + tone.apart)
    return (dark + bright) / 2 + field[..., None] * (bright - dark) / 2


def standardised(field: Field, weight: Field) -> Field:
    """``field`` less its mean and over its deviation under ``weight``: no texture is told by its mean or contrast."""
    total = weight.sum() + 1e-6
    away = field - (field * weight).sum() / total
    return np.clip(away / np.sqrt((away**2 * weight).sum() / total + 1e-6), -STRONGEST, STRONGEST).astype(np.float32)


def noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth noise in about -1..1: a square lattice of ``cells`` a side enlarged to ``size`` pixels."""
    lattice = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(lattice, (size, size), interpolation=cv2.INTER_CUBIC)


def coordinates(size: int) -> tuple[Field, Field]:
    """Pixel centres in unit coordinates: x, y."""
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(centre, centre)
    return x, y


def turned(x: Field, y: Field, turn: float) -> tuple[Field, Field]:
    """Coordinates along axes turned by ``turn`` radians."""
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return c * x + s * y, c * y - s * x


def steep(field: Field, slope: float = 3.0) -> Field:
    """Soft steps between -1 and 1 where ``field`` changes its sign."""
    return np.tanh(slope * field)


def _lattice(x: Field, y: Field, rng: np.random.Generator, rows: int, columns: int) -> Field:
    """Smooth noise of so many cells over a unit length, mirrored beyond its edges."""
    cells = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    across, down = (x * columns - 0.5).astype(np.float32), (y * rows - 0.5).astype(np.float32)
    return cv2.remap(cells, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _waves(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    return np.sin(TURN * cycles * x + 2 * _lattice(x, y, rng, 4, 4))


def _weave(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    return np.sin(TURN * 0.85 * cycles * x) * np.sin(TURN * 0.85 * cycles * y)


def _speckle(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    return _lattice(x, y, rng, int(2.4 * cycles), int(2.4 * cycles))


def _blots(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    return steep(_lattice(x, y, rng, int(2.3 * cycles), int(2.3 * cycles)), 6.0)


def _grain(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    return _lattice(x, y, rng, int(2.5 * cycles), 6)


def _tiles(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    joint = np.minimum(np.abs(np.sin(np.pi * 1.1 * cycles * x)), np.abs(np.sin(np.pi * 1.1 * cycles * y)))
    return steep(joint - 0.35, 8.0)


def _pebbles(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    """Voronoi cells of a jittered lattice, each with its own shade, darker towards the edges."""
    scale = 1.4 * cycles
    side = int(scale) + 4
    places, shades = rng.uniform(0.1, 0.9, (2, side, side)), rng.uniform(-1, 1, (side, side))
    column, row = np.floor(x * scale).astype(int), np.floor(y * scale).astype(int)
    nearest, shade = np.full(x.shape, np.inf), np.zeros(x.shape)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            i, j = (row + down) % side, (column + across) % side
            distance = np.hypot(x * scale - column - across - places[0, i, j], y * scale - row - down - places[1, i, j])
            shade = np.where(distance < nearest, shades[i, j], shade)
            nearest = np.minimum(nearest, distance)
    return (shade - 1.6 * nearest).astype(np.float32)


def _ripples(x: Field, y: Field, cycles: float, rng: np.random.Generator) -> Field:
    left, top = rng.uniform(-0.6, 0.2, 2)
    return np.sin(TURN * cycles * np.hypot(x - left, y - top) + 1.5 * _lattice(x, y, rng, 4, 4))


MATERIALS: tuple[Texture, ...] = (_waves, _weave, _speckle, _blots, _grain, _tiles, _pebbles, _ripples)


def region_map(rng: np.random.Generator, size: int, count: int) -> Float[np.ndarray, "region row column"]:
    """Antialiased weights of ``count`` (1 to 3) regions: each split is a noisy ramp, cut so that no region is small."""
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
