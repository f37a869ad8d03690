"""Outlines and surface patterns of the object categories of ``scenes``, in object coordinates.

Object coordinates ``(u, v)`` run over the unit disc, ``v`` downwards. An outline is a list of polygons to fill and a
list of polygons to cut out again. A pattern returns two fields over a grid of coordinates: the weight of the second
colour and the weight of the accent colour, both in 0..1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Polygon = Float[np.ndarray, "_ 2"]  # a list holds polygons of different length
Field = Float[np.ndarray, "row column"]


class Category(NamedTuple):
    """A category: its name, outline, pattern and the two hues (degrees) it prefers."""

    name: str
    outline: Callable[[], tuple[list[Polygon], list[Polygon]]]
    pattern: Callable[[Field, Field, np.random.Generator], tuple[Field, Field]]
    hues: tuple[float, float]


def smooth_step(x: Field, low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, a cubic between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _curve(x: np.ndarray, y: np.ndarray) -> Polygon:
    return np.stack([x, y], axis=1).astype(np.float32)


def _angles(count: int = 120) -> np.ndarray:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def _polar(radius: np.ndarray) -> Polygon:
    t = _angles(len(radius))
    return _curve(radius * np.sin(t), -radius * np.cos(t))


def _ellipse(x: float, y: float, a: float, b: float, turn: float = 0.0) -> Polygon:
    t = _angles(60)
    c, s = np.cos(turn), np.sin(turn)
    return _curve(x + a * np.cos(t) * c - b * np.sin(t) * s, y + a * np.cos(t) * s + b * np.sin(t) * c)


def _star() -> tuple[list[Polygon], list[Polygon]]:
    return [_polar(np.where(np.arange(10) % 2, 0.46, 1.0))], []


def _fish() -> tuple[list[Polygon], list[Polygon]]:
    tail = np.array([[0.45, 0.0], [0.98, -0.5], [0.84, 0.0], [0.98, 0.5]], np.float32)
    fin = np.array([[-0.25, -0.36], [0.1, -0.72], [0.32, -0.3]], np.float32)
    return [_ellipse(-0.22, 0.0, 0.76, 0.48), tail, fin], []


def _flower() -> tuple[list[Polygon], list[Polygon]]:
    return [_polar(0.76 + 0.24 * np.cos(6 * _angles(180)))], []


def _moon() -> tuple[list[Polygon], list[Polygon]]:
    return [_ellipse(0.0, 0.0, 1.0, 1.0)], [_ellipse(0.5, -0.12, 0.72, 0.72)]


def _heart() -> tuple[list[Polygon], list[Polygon]]:
    t = _angles()
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [_curve(x / 17, -(y + 2.5) / 16)], []


def _gear() -> tuple[list[Polygon], list[Polygon]]:
    wave = np.clip(2.5 * np.cos(9 * _angles(360)), -1, 1)
    return [_polar(0.88 + 0.12 * wave)], [_ellipse(0.0, 0.0, 0.3, 0.3)]


def _ring() -> tuple[list[Polygon], list[Polygon]]:
    return [_ellipse(0.0, 0.0, 0.95, 0.95)], [_ellipse(0.0, 0.0, 0.36, 0.36)]


def _leaf() -> tuple[list[Polygon], list[Polygon]]:
    x = np.linspace(-0.75, 1, 50)
    half = 0.52 * np.sin(np.pi * (x + 0.75) / 1.75) ** 0.8
    blade = np.concatenate([_curve(x, -half), _curve(x[::-1], half[::-1])])
    stalk = np.array([[-1.0, -0.05], [-0.6, -0.05], [-0.6, 0.05], [-1.0, 0.05]], np.float32)
    return [blade, stalk], []


def _mushroom() -> tuple[list[Polygon], list[Polygon]]:
    t = np.linspace(np.pi, 2 * np.pi, 50)
    cap = np.concatenate(
        [_curve(0.95 * np.cos(t), 0.1 + 0.95 * np.sin(t)), _curve(0.95 * np.cos(t[::-1]), 0.1 - 0.16 * np.sin(t))]
    )
    stem = np.array([[-0.26, 0.0], [0.26, 0.0], [0.36, 0.9], [-0.36, 0.9]], np.float32)
    return [cap, stem], []


def _butterfly() -> tuple[list[Polygon], list[Polygon]]:
    upper, lower = (0.5, -0.36, 0.52, 0.4), (0.4, 0.42, 0.4, 0.34)
    wings = [
        _ellipse(s * x, y, a, b, s * turn) for (x, y, a, b), turn in ((upper, -0.6), (lower, 0.7)) for s in (1, -1)
    ]
    return [*wings, _ellipse(0.0, 0.02, 0.11, 0.68)], []


def _kite() -> tuple[list[Polygon], list[Polygon]]:
    return [np.array([[0.0, -0.95], [0.68, -0.25], [0, 1.0], [-0.68, -0.25]], np.float32)], []


def _ball() -> tuple[list[Polygon], list[Polygon]]:
    return [_ellipse(0.0, 0.0, 0.95, 0.95)], []


def _none(u: Field) -> Field:
    return np.zeros_like(u)


def _spots(u: Field, v: Field, centres: np.ndarray, radius: float) -> Field:
    weight = np.zeros_like(u)
    for x, y in centres.astype(np.float32):
        weight = np.maximum(weight, smooth_step(-np.hypot(u - x, v - y), -radius, -0.75 * radius))
    return weight


def _facets(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    turn = np.arctan2(u, -v) * 5 / (2 * np.pi)
    return smooth_step(np.abs(turn - np.round(turn)) * np.sign(turn - np.round(turn)), -0.04, 0.04), _none(u)


def _scales(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    rows = u * 5
    across = v * 4 + 0.5 * (np.floor(rows) % 2)
    depth = (rows - np.floor(rows)) - 2.2 * (across - np.floor(across) - 0.5) ** 2
    eye = smooth_step(-np.hypot(u + 0.66, v + 0.12), -0.13, -0.1)
    return smooth_step(depth, 0.1, 0.75), eye


def _petals(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    r = np.hypot(u, v)
    veins = 0.25 * np.cos(12 * np.arctan2(u, -v))
    return smooth_step(r + veins * (r > 0.3), 0.35, 0.95), smooth_step(-r, -0.32, -0.28)


def _craters(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    t = np.linspace(1.0, 5.6, 8) + rng.uniform(-0.1, 0.1, 8)
    ring = 0.7 + 0.12 * np.where(np.arange(8) % 2, 1, -1)
    return _spots(u, v, np.stack([ring * np.cos(t), ring * np.sin(t)], 1), 0.16), _none(u)


def _stripes(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    return smooth_step(np.sin((u + v) * 8.5), -0.15, 0.15), _none(u)


def _grooves(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    return smooth_step(np.cos(np.hypot(u, v) * 21), -0.3, 0.3), _none(u)


def _sprinkles(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    t = _angles(18) + rng.uniform(-0.12, 0.12, 18)
    r = rng.uniform(0.5, 0.82, 18)
    spots = np.stack([r * np.cos(t), r * np.sin(t)], 1)
    glaze = smooth_step(0.9 + 0.05 * np.cos(7 * np.arctan2(v, u)) - np.hypot(u, v), 0.02, 0.06)
    return glaze * (1 - _spots(u, v, spots[::2], 0.1)), _spots(u, v, spots[1::2], 0.1)


def _veins(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    side = np.abs(np.sin((u - 0.9 * np.abs(v)) * 10))
    lines = np.minimum(np.abs(v) * 9, side * 2.4 + 0.1)
    return smooth_step(-lines, -0.75, -0.25), _none(u)


def _toadstool(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    spots = np.array(
        [[0, -0.45], [-0.5, -0.22], [0.5, -0.2], [-0.22, -0.02], [0.26, -0.05], [-0.78, 0.02], [0.78, 0.03]]
    )
    stem = smooth_step(v, 0.14, 0.18) * (np.abs(u) < 0.42)
    return stem.astype(np.float32), _spots(u, v, spots + rng.uniform(-0.04, 0.04, spots.shape), 0.16)


def _wings(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    x = np.abs(u)
    far = np.minimum(np.hypot(x - 0.55, v + 0.4), np.hypot(x - 0.42, v - 0.44) * 1.2)
    body = smooth_step(-x, -0.14, -0.1)
    return smooth_step(np.cos(far * 17), -0.3, 0.3) * (1 - body), body


def _quarters(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    quarter = smooth_step(u * (v + 0.25) * 60, -1.0, 1.0)
    return quarter, smooth_step(-np.minimum(np.abs(u), np.abs(v + 0.25)), -0.07, -0.04)


def _sectors(u: Field, v: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    x, y = u - 0.2, v + 0.25
    return smooth_step(np.sin(3 * np.arctan2(y, x)), -0.12, 0.12), smooth_step(-np.hypot(x, y), -0.17, -0.13)


CATEGORIES = (
    Category("star", _star, _facets, (80, 260)),
    Category("fish", _fish, _scales, (30, 230)),
    Category("flower", _flower, _petals, (340, 90)),
    Category("moon", _moon, _craters, (90, 280)),
    Category("heart", _heart, _stripes, (10, 310)),
    Category("gear", _gear, _grooves, (250, 60)),
    Category("ring", _ring, _sprinkles, (50, 350)),
    Category("leaf", _leaf, _veins, (130, 40)),
    Category("mushroom", _mushroom, _toadstool, (30, 200)),
    Category("butterfly", _butterfly, _wings, (290, 160)),
    Category("kite", _kite, _quarters, (190, 320)),
    Category("ball", _ball, _sectors, (220, 120)),
)
