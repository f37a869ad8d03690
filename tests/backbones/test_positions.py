"""Position embeddings against the closed form of the original code, written out index by index."""

import math

import numpy as np
import pytest
import torch

from foundling.backbones.positions import resample_positions


def cubic(t: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def weights_of(i: int, n: int, side: int) -> np.ndarray:
    """The weight of each of ``side`` table entries in output ``i`` of ``n``: 0.1 offset, clamped indices."""
    centre = (i + 0.5) * side / (n + 0.1) - 0.5
    out = np.zeros(side)
    for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
        out[min(max(j, 0), side - 1)] += cubic(centre - j)
    return out


def naive(table: np.ndarray, prefix: int, grid: tuple[int, int]) -> np.ndarray:
    side = math.isqrt(len(table) - prefix)
    square = table[prefix:].reshape(side, side, -1)
    rows, columns = (np.stack([weights_of(i, n, side) for i in range(n)]) for n in grid)
    resized = np.einsum("ri,cj,ijd->rcd", rows, columns, square)
    return np.concatenate([table[:prefix], resized.reshape(grid[0] * grid[1], -1)])


@pytest.mark.parametrize(
    ("side", "prefix", "grid"),
    [
        (14, 1, (30, 40)),
        (14, 1, (14, 15)),  # one side as trained: resampled all the same
        (14, 1, (7, 28)),  # as many patches as trained, but not square: resampled
        (14, 0, (20, 9)),  # no CLS in the table (SelfPatch)
        (28, 1, (60, 41)),
        (37, 1, (35, 46)),  # DINOv2's table
        (12, 1, (1, 250)),
    ],
)
def test_as_the_closed_form(side: int, prefix: int, grid: tuple[int, int], rng: np.random.Generator) -> None:
    table = rng.standard_normal((prefix + side * side, 5))
    found = resample_positions(torch.tensor(table)[None], prefix, grid)[0]
    assert found.shape == (prefix + grid[0] * grid[1], 5)
    np.testing.assert_allclose(found.numpy(), naive(table, prefix, grid), rtol=0, atol=1e-11)


def test_untouched_on_the_training_grid(rng: np.random.Generator) -> None:
    table = torch.tensor(rng.standard_normal((1, 197, 3)))
    assert resample_positions(table, 1, (14, 14)) is table


def test_one_entry_by_hand() -> None:
    """Two entries 0 and 1 along the columns, three outputs: centres at (i + 0.5) · 2 / 3.1 - 0.5."""
    table = torch.tensor([[0.0, 1.0, 0.0, 1.0]], dtype=torch.float64)[..., None]
    found = resample_positions(table, 0, (2, 3))[0, :3, 0]
    # Output 1: centre 0.4677; the entry 1 is reached at offsets 0.5323 and 1.5323 (clamped), a = -0.75.
    assert found[1].item() == pytest.approx(cubic(1 - 0.467742) + cubic(2 - 0.467742), abs=1e-6)
    assert found[1].item() < 0.5 < found[2].item()  # without the offset output 1 would be 0.5 exactly


def test_a_constant_table_stays_constant() -> None:
    found = resample_positions(torch.full((1, 197, 2), 0.3, dtype=torch.float64), 1, (23, 31))
    assert torch.allclose(found, torch.tensor(0.3, dtype=torch.float64), atol=1e-12)


def test_exchanging_rows_and_columns_exchanges_them_in_the_result(rng: np.random.Generator) -> None:
    square = torch.tensor(rng.standard_normal((6, 6, 2)))
    turned = square.transpose(0, 1)
    a = resample_positions(square.reshape(1, 36, 2), 0, (9, 4)).reshape(9, 4, 2)
    b = resample_positions(turned.reshape(1, 36, 2), 0, (4, 9)).reshape(4, 9, 2)
    assert torch.allclose(a, b.transpose(0, 1), atol=1e-12)
