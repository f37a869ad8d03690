"""Weights of the graph of patches: by hand, from the definition in loops, and what must not change them."""

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.discovery.affinity import COLOUR_PASSES, colour_affinity, cosine_affinity


def test_cosines_by_hand() -> None:
    descriptors = torch.tensor([[[3.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, 0.0]]])
    half = 0.5**0.5
    expected = torch.tensor([[0, half, 0, 0], [half, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(cosine_affinity(descriptors)[0], expected)
    torch.testing.assert_close(
        cosine_affinity(descriptors, diagonal=True)[0], expected + torch.diag(torch.tensor([1.0, 1, 1, 0]))
    )


def test_cosines_against_the_definition(rng: np.random.Generator) -> None:
    """More patches than one block of rows."""
    descriptors = torch.from_numpy(rng.standard_normal((2, 300, 5)).astype(np.float32))
    weights = cosine_affinity(descriptors)
    assert torch.equal(weights, weights.transpose(1, 2))
    x = descriptors.double()
    for i, p, q in rng.integers(0, (2, 300, 300), (200, 3)):
        cosine = float(x[i, p] @ x[i, q] / x[i, p].norm() / x[i, q].norm())
        assert float(weights[i, p, q]) == pytest.approx(max(cosine, 0) if p != q else 0, abs=1e-6)
    lengths = torch.from_numpy(rng.uniform(0.1, 9, (2, 300, 1)).astype(np.float32))
    torch.testing.assert_close(cosine_affinity(descriptors * lengths), weights, atol=1e-6, rtol=0)


def naive_colour(pixels: np.ndarray) -> np.ndarray:
    """Deep spectral segmentation's graph of nearest neighbours, in loops."""
    rows, columns, _ = pixels.shape
    patches = [(r, c) for r in range(rows) for c in range(columns)]
    weights = np.zeros((len(patches), len(patches)))
    for neighbours, weight in COLOUR_PASSES:
        points = [
            np.array([*pixels[r, c] / 255, weight * c / (columns - 1), weight * r / (rows - 1)]) for r, c in patches
        ]
        for p, point in enumerate(points):
            order = sorted(range(len(points)), key=lambda q: float(((points[q] - point) ** 2).sum()))
            for q in order[:neighbours]:
                weights[p, q] += 1
                weights[q, p] += 1
    return weights


def test_colours_against_the_definition(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    expected = naive_colour(pixels.astype(np.float64))
    (found,) = colour_affinity([Image.fromarray(pixels)], (6, 7), 1, diagonal=True)
    np.testing.assert_array_equal(found, expected)
    assert (np.diag(expected) == 4).all()  # each is its own neighbour, twice in each pass
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(colour_affinity([Image.fromarray(pixels)], (6, 7), 1)[0], expected)


def test_colours_of_few_patches() -> None:
    image = Image.new("RGB", (16, 8), (9, 9, 9))
    assert colour_affinity([image], (1, 1), 16).tolist() == [[[0]]]
    assert colour_affinity([image, image], (1, 2), 8).tolist() == [[[0, 4], [4, 0]]] * 2


def test_colours_are_those_of_the_patches_where_the_last_ones_reach_beyond_the_image(rng: np.random.Generator) -> None:
    """Of the last column and row there is one pixel each: all others must not move because of that."""
    patches = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    whole = Image.fromarray(patches.repeat(8, axis=0).repeat(8, axis=1))
    cut = whole.crop((0, 0, 6 * 8 + 1, 5 * 8 + 1))
    graphs = colour_affinity([cut, whole], (6, 7), 8)
    assert torch.equal(graphs[0], graphs[1])
