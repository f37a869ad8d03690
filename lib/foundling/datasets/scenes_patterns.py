"""Patterns on the objects of ``scenes``, one a category: regular, where the materials of the ground are not.

Like a material (:mod:`foundling.datasets.scenes_textures`), a pattern is a field over coordinates, here the object's:
its centre is (0, 0), and lengths are those of the picture, whose side is 1.
"""

import numpy as np

from foundling.datasets.scenes_textures import TURN, Field, steep


def triangles(u: Field, v: Field, cycles: float) -> Field:
    """Rows of triangles, every other one moved by half a triangle."""
    row, column = _bond(u * cycles, v * cycles)
    return steep(row - 2 * np.abs(column - 0.5), 5.0)


def scales(u: Field, v: Field, cycles: float) -> Field:
    """A fish's scales."""
    row, column = _bond(1.1 * u * cycles, 1.1 * v * cycles)
    return steep(row - 2.2 * (column - 0.5) ** 2 - 0.4, 5.0)


def rings(u: Field, v: Field, cycles: float) -> Field:
    """A lattice of small rings."""
    a, b = _cells(0.7 * cycles, u, v)
    return np.cos(np.hypot(a, b) * TURN * 1.5)


def dots(u: Field, v: Field, cycles: float) -> Field:
    """Dots on a hexagonal lattice."""
    frequency = TURN * 0.8 * cycles
    first, second, third = (np.cos(frequency * (c * u + s * v)) for c, s in ((1, 0), (0.5, 0.866), (0.5, -0.866)))
    return steep(first + second + third - 0.5, 1.5)


def stripes(u: Field, v: Field, cycles: float) -> Field:
    """Stripes across the object."""
    return steep(np.sin(TURN * cycles * v))


def grooves(u: Field, v: Field, cycles: float) -> Field:
    """Circles around the object's centre."""
    return steep(np.cos(TURN * cycles * np.hypot(u, v)))


def crosses(u: Field, v: Field, cycles: float) -> Field:
    """A lattice of crosses."""
    a, b = (np.abs(x) for x in _cells(0.8 * cycles, u, v))
    return steep(np.where(np.minimum(a, b) < 0.14, 0.4 - np.maximum(a, b), -0.2), 9.0)


def chevrons(u: Field, v: Field, cycles: float) -> Field:
    """Zigzag stripes."""
    zigzag = np.abs(_part(0.5 * cycles * u) - 0.5)
    return steep(np.sin(TURN * 0.8 * (cycles * v + 2.8 * zigzag)))


def checks(u: Field, v: Field, cycles: float) -> Field:
    """A chessboard."""
    return steep(np.sin(TURN * 0.75 * cycles * u) * np.sin(TURN * 0.75 * cycles * v), 6.0)


def bars(u: Field, v: Field, cycles: float) -> Field:
    """Stripes along the object."""
    return steep(np.sin(TURN * cycles * u))


def harlequin(u: Field, v: Field, cycles: float) -> Field:
    """Slanted lozenges."""
    return checks(0.88 * (u + 0.6 * v), 0.88 * (u - 0.6 * v), cycles)


def bricks(u: Field, v: Field, cycles: float) -> Field:
    """A brick wall."""
    row, column = _bond(0.6 * u * cycles, 1.2 * v * cycles)
    return steep(np.minimum(row, 2 * column) - 0.28, 10.0)


def _part(x: Field) -> Field:
    return x - np.floor(x)


def _bond(across: Field, down: Field) -> tuple[Field, Field]:
    """Places 0..1 within the cells of rows that are moved by half a cell in turn: down, across."""
    return _part(down), _part(across + 0.5 * (np.floor(down) % 2))


def _cells(scale: float, u: Field, v: Field) -> tuple[Field, Field]:
    """Places -1/2..1/2 within square cells, ``scale`` of them over a unit length."""
    return u * scale - np.round(u * scale), v * scale - np.round(v * scale)
