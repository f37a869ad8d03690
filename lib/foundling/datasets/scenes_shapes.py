"""The object categories of ``scenes``: an outline, a pattern and two hues each.

An outline is a list of polygons to fill and a list of polygons to cut out again, in coordinates over the unit disc,
the second downwards.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from foundling.datasets import scenes_patterns as patterns
from foundling.datasets.scenes_textures import Field

Polygon = Float[np.ndarray, "_ 2"]  # a list holds polygons of different length


class Category(NamedTuple):
    """A category: its name, outline, pattern and the two hues (degrees) it prefers."""

    name: str
    outline: Callable[[], tuple[list[Polygon], list[Polygon]]]
    pattern: Callable[[Field, Field, float], Field]
    hues: tuple[float, float]


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


CATEGORIES = (
    Category("star", _star, patterns.triangles, (80, 260)),
    Category("fish", _fish, patterns.scales, (30, 230)),
    Category("flower", _flower, patterns.rings, (340, 90)),
    Category("moon", _moon, patterns.dots, (90, 280)),
    Category("heart", _heart, patterns.stripes, (10, 310)),
    Category("gear", _gear, patterns.grooves, (250, 60)),
    Category("ring", _ring, patterns.crosses, (50, 350)),
    Category("leaf", _leaf, patterns.chevrons, (130, 40)),
    Category("mushroom", _mushroom, patterns.checks, (30, 200)),
    Category("butterfly", _butterfly, patterns.bars, (290, 160)),
    Category("kite", _kite, patterns.harlequin, (190, 320)),
    Category("ball", _ball, patterns.bricks, (220, 120)),
)
