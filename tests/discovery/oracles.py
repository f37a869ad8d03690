"""The discovery methods once more, slowly and straight from their definitions, in loops over patches of one image.

The keyword arguments that are not the methods' own switch a mistake on, so that the tests can show that their cases
tell a broken method from a sound one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh

from foundling.types import PatchFeatures

Grid = tuple[int, int]


def make_features(
    grid: Grid, patch_size: int = 16, sizes: list[tuple[int, int]] | None = None, **facets: Any
) -> PatchFeatures:
    """Features from arrays [image, patch, channel] (attention: [image, head, patch]); the images fill their grid."""
    arrays = {name: value for name, value in facets.items() if name != "images"}
    count = len(next(iter(facets.values()), sizes or [0]))
    sizes = sizes or [(grid[0] * patch_size, grid[1] * patch_size)] * count
    return PatchFeatures(
        grid=grid,
        patch_size=patch_size,
        image_sizes=torch.tensor(sizes),
        original_sizes=torch.tensor(sizes),
        names=tuple(f"{i}.png" for i in range(count)),
        indices=tuple(range(count)),
        images=facets.get("images"),
        **{name: torch.as_tensor(np.asarray(value, dtype=np.float32)) for name, value in arrays.items()},
    )


def naive_components(mask: np.ndarray, diagonal: bool = False) -> list[set[tuple[int, int]]]:
    """Connected components by flood fill, in raster order of their first patch."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)] + ([(1, 1), (1, -1), (-1, 1), (-1, -1)] if diagonal else [])
    rows, columns = mask.shape
    seen: set[tuple[int, int]] = set()
    found = []
    for start in [(r, c) for r in range(rows) for c in range(columns) if mask[r, c]]:
        if start in seen:
            continue
        component, waiting = {start}, [start]
        while waiting:
            r, c = waiting.pop()
            for dr, dc in steps:
                n = (r + dr, c + dc)
                if 0 <= n[0] < rows and 0 <= n[1] < columns and mask[n] and n not in component:
                    component.add(n)
                    waiting.append(n)
        seen |= component
        found.append(component)
    return found


def naive_box(component: set[tuple[int, int]], patch: int, size: tuple[int, int] | None) -> list[float]:
    """The box around patches (row, column); clipped at the far side if ``size`` (height, width) is given."""
    rows, columns = [r for r, _ in component], [c for _, c in component]
    box = [patch * min(columns), patch * min(rows), patch * (max(columns) + 1), patch * (max(rows) + 1)]
    if size is not None:
        box[2], box[3] = min(box[2], size[1]), min(box[3], size[0])
    return [float(x) for x in box]


Similarity = Callable[[int, int], float]


def naive_lost(
    seed_similarity: Similarity,
    similarity: Similarity,
    grid: Grid,
    k: int,
    patch: int,
    size: tuple[int, int],
    *,
    inclusive: bool = False,
    any_candidate: bool = False,
    extra: int = 0,
    diagonal: bool = False,
    highest: bool = False,
    clip: bool = True,
) -> list[float]:
    """LOST, Eqs. 1 to 3, for two functions of a pair of patches."""
    patches = range(grid[0] * grid[1])
    above = (lambda x: x >= 0) if inclusive else (lambda x: x > 0)
    degree = [sum(1 for q in patches if q != p and above(seed_similarity(p, q))) for p in patches]
    if highest:
        degree = [-d for d in degree]
    seed = min(patches, key=lambda p: (degree[p], p))
    others = sorted((p for p in patches if p != seed), key=lambda p: (degree[p], -p))
    seeds = [seed] + [p for p in others[: k - 1 + extra] if any_candidate or above(similarity(p, seed))]
    mask = np.array([above(sum(similarity(q, s) for s in seeds)) for q in patches]).reshape(grid)
    at = (seed // grid[1], seed % grid[1])
    component = next((c for c in naive_components(mask, diagonal) if at in c), {at})
    return naive_box(component, patch, size if clip else None)


def dot_similarity(facet: np.ndarray) -> Similarity:
    """Products of descriptors [patch, channel]."""
    rows = facet.astype(np.float64).tolist()
    return lambda p, q: sum(a * b for a, b in zip(rows[p], rows[q], strict=True))


def qk_similarity(queries: np.ndarray, keys: np.ndarray) -> Similarity:
    """The symmetric product of Eq. 4."""
    q, k = queries.astype(np.float64).tolist(), keys.astype(np.float64).tolist()
    return lambda a, b: (
        sum(x * y for x, y in zip(q[a], k[b], strict=True)) + sum(x * y for x, y in zip(k[a], q[b], strict=True))
    )


def naive_attended(attention: np.ndarray, mass: float = 0.6) -> np.ndarray:
    """Which patches hold ``mass`` of one head's attention: the smallest are dropped until the rest is reached."""
    values = attention.astype(np.float64)
    total, dropped = values.sum(), 0.0
    kept = np.zeros(len(values), dtype=bool)
    for p in sorted(range(len(values)), key=lambda p: (values[p], p)):
        dropped += values[p] / total
        kept[p] = dropped > 1 - mass
    return kept


def naive_dino_seg(
    attention: np.ndarray,
    grid: Grid,
    patch: int,
    size: tuple[int, int],
    rule: str,
    *,
    count_not_mass: bool = False,
    diagonal: bool = False,
    mass: float = 0.6,
) -> tuple[list[float], int]:
    """DINO-seg of one head: its box and how many patches its component has."""
    kept = naive_attended(attention, mass)
    if count_not_mass:  # the paper's words, not its code
        kept = attention >= sorted(attention, reverse=True)[int(0.6 * len(attention)) - 1]
    mask = kept.reshape(grid)
    components = naive_components(mask, diagonal)
    everything = {(r, c) for r in range(grid[0]) for c in range(grid[1])}
    if rule == "largest":
        best = max(components, key=len, default=everything)
        return naive_box(best, patch, size), len(best)
    outside = {(r, c) for r, c in everything if not mask[r, c]}
    best = max(components[:-1], key=len) if len(components) > 1 else outside or everything
    return naive_box(best, patch, None), len(best)


def naive_cut(facet: np.ndarray, tau: float, *, inclusive: bool = False) -> tuple[np.ndarray, float, float]:
    """The second eigenvector of the graph's (D - W) v = λ D v, its eigenvalue and the next one, densely."""
    facet = facet.astype(np.float64)
    unit = facet / np.maximum(np.sqrt((facet**2).sum(axis=1, keepdims=True)), 1e-12)
    patches = len(unit)
    weights = np.full((patches, patches), 1e-5)
    for p in range(patches):
        for q in range(patches):
            cosine = float(unit[p] @ unit[q])
            if cosine > tau or (inclusive and cosine >= tau):
                weights[p, q] = 1.0
    degree = np.diag(weights.sum(axis=1))
    values, vectors = eigh(degree - weights, degree)
    return vectors[:, 1], float(values[1]), float(values[2])


def naive_tokencut(
    facet: np.ndarray,
    grid: Grid,
    tau: float,
    patch: int,
    size: tuple[int, int],
    *,
    inclusive: bool = False,
    median: bool = False,
    signed: bool = False,
    diagonal: bool = False,
) -> list[float]:
    """TokenCut: the side of the mean that holds the most extreme patch, and that patch's component on it."""
    vector = naive_cut(facet, tau, inclusive=inclusive)[0]
    magnitude = [v if signed else abs(v) for v in vector]
    seed = next(p for p in range(len(vector)) if magnitude[p] >= max(magnitude) * (1 - 1e-9))  # up to rounding
    threshold = np.median(vector) if median else sum(vector) / len(vector)
    above = [bool(v > threshold) for v in vector]
    mask = np.array([a == above[seed] for a in above]).reshape(grid)
    at = (seed // grid[1], seed % grid[1])
    component = next(c for c in naive_components(mask, diagonal) if at in c)
    return naive_box(component, patch, size)


def naive_iou(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
