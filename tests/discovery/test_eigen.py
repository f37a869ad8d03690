"""The batched solver: by hand, against the dense problem, double eigenvalues, and the way back to the dense solver."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh, subspace_angles
from scipy.sparse.linalg import ArpackNoConvergence

from foundling.discovery import eigen, lanczos
from foundling.discovery.eigen import Spectrum, spectrum


def similarities(rng: np.random.Generator, patches: int, channels: int = 6) -> np.ndarray:
    points = rng.standard_normal((patches, channels))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    weights = np.maximum(points @ points.T, 0)
    np.fill_diagonal(weights, 0)
    return weights


def dense(weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    degree = np.diag(weights.sum(1))
    values, vectors = eigh(degree - weights, degree)
    return values[1 : count + 1], vectors[:, 1 : count + 1]


def solve(weights: np.ndarray, count: int, **settings: object) -> Spectrum:
    return spectrum(
        torch.from_numpy(np.asarray(weights, dtype=np.float64)).reshape(-1, *weights.shape[-2:]), count, **settings
    )


def test_a_path_of_three_patches_by_hand() -> None:
    """D = diag(1, 2, 1): λ = 0, 1, 2, with v ∝ (1, 0, -1) and (1, -1, 1)."""
    found = solve(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]), 5)
    np.testing.assert_allclose(found.values, [[1, 2]], atol=1e-14)
    root = np.sqrt([2, 4])[:, None]
    np.testing.assert_allclose(found.vectors[0], np.array([[1, 0, -1], [1, -1, 1]]) / root, atol=1e-14)


@pytest.mark.parametrize("engine", ["arpack", "block"])
@pytest.mark.parametrize("patches", [40, 128, 300])
def test_against_the_dense_problem(patches: int, engine: str, rng: np.random.Generator) -> None:
    graphs = np.stack([similarities(rng, patches) for _ in range(3)])
    found = solve(graphs, 6, together=3, engine=engine)
    assert found.dense.tolist() == [patches < eigen.DENSE_BELOW] * 3
    for i, weights in enumerate(graphs):
        values, vectors = dense(weights, 6)
        np.testing.assert_allclose(found.values[i], values, atol=1e-12)
        degree = weights.sum(1)
        alike = np.abs(found.vectors[i].numpy() * degree @ vectors)
        gap = np.diff(values[:5], prepend=0).clip(max=np.diff(values)[:5])
        np.testing.assert_allclose(np.diag(alike)[:5], 1, atol=1e-12 / gap.min() ** 2)


def test_the_sign_is_that_of_the_largest_entry(rng: np.random.Generator) -> None:
    for patches in (60, 200):
        vectors = solve(similarities(rng, patches), 5).vectors[0]
        assert (torch.gather(vectors, 1, vectors.abs().argmax(1, keepdim=True)) > 0).all()


def test_a_small_basis_is_restarted(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where no more than 32 vectors are kept."""
    weights = similarities(rng, 400, channels=30)
    values = solve(weights, 6, engine="block").values
    monkeypatch.setitem(eigen.BASIS, "cpu", eigen.BASIS["cuda"])
    again = solve(weights, 6, engine="block")
    assert not again.dense.any()
    np.testing.assert_allclose(again.values, values, atol=1e-13)


@pytest.mark.parametrize("engine", ["arpack", "block"])
def test_an_image_does_not_depend_on_the_others(engine: str, rng: np.random.Generator) -> None:
    graphs = np.stack([similarities(rng, 150, channels) for channels in (3, 9, 20)])
    alone, together = solve(graphs, 4, engine="block"), solve(graphs, 4, together=2, engine=engine)
    np.testing.assert_allclose(alone.values, together.values, atol=1e-13)
    np.testing.assert_allclose(alone.vectors, together.vectors, atol=1e-9)


@pytest.mark.parametrize("engine", ["arpack", "block"])
@pytest.mark.parametrize("size", [20, 50])
def test_separate_parts_make_a_multiple_eigenvalue(size: int, engine: str) -> None:
    """Five complete parts: λ_1 to λ_5 are 0, all others 1 + 1 / (size - 1); the vectors are constant on each part."""
    part = np.repeat(np.arange(5), size)
    weights = (part[:, None] == part) & ~np.eye(5 * size, dtype=bool)
    found = solve(weights, 6, engine=engine)
    np.testing.assert_allclose(found.values, [[0] * 4 + [1 + 1 / (size - 1)] * 2], atol=1e-12)
    means = found.vectors[0, :4].reshape(4, 5, size)
    np.testing.assert_allclose(means, means.mean(2, keepdim=True).expand(-1, -1, size), atol=1e-10)


@pytest.mark.parametrize("engine", ["arpack", "block"])
@pytest.mark.parametrize("patches", [12, 150])
def test_a_patch_without_edges_is_a_part_of_its_own(patches: int, engine: str, rng: np.random.Generator) -> None:
    weights = similarities(rng, patches)
    weights[[3, 7]] = weights[:, [3, 7]] = 0
    found = solve(weights, 3, engine=engine)
    np.testing.assert_allclose(found.values[0, :2], 0, atol=1e-12)
    alone = np.zeros((patches, 3))  # what is constant on the patches 3, 7 and all others
    alone[3, 0] = alone[7, 1] = 1
    alone[:, 2] = 1 - alone[:, 0] - alone[:, 1]
    assert np.max(subspace_angles(found.vectors[0, :2].numpy().T, alone)) < 1e-6


@pytest.mark.parametrize("engine", ["arpack", "block"])
@pytest.mark.parametrize("patches", [9, 140])
def test_graphs_without_edges_or_structure(patches: int, engine: str) -> None:
    found = solve(np.zeros((patches, patches)), 3, engine=engine)
    np.testing.assert_allclose(found.values, np.zeros((1, 3)), atol=1e-12)
    found = solve(np.ones((patches, patches)), 3, engine=engine)
    np.testing.assert_allclose(found.values, np.ones((1, 3)), atol=1e-12)
    assert torch.isfinite(found.vectors).all()


def test_there_are_no_more_pairs_than_patches() -> None:
    assert solve(np.zeros((1, 1)), 3).values.shape == (1, 0)
    assert solve(np.ones((2, 2)), 3).vectors.shape == (1, 1, 2)


def test_where_the_iterations_do_not_converge_the_dense_problem_is_solved(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = np.arange(240) // 2
    hard = similarities(rng, 240) * 1e-9 + (part[:, None] == part)  # 120 pairs that are all but separate
    easy = np.ones((240, 240)) + np.kron(np.eye(2), np.ones((120, 120)))
    monkeypatch.setattr(eigen, "PRODUCTS", 10)
    found = solve(np.stack([easy, hard]), 3, together=2, engine="block")
    assert found.dense.tolist() == [False, True]
    np.testing.assert_allclose(found.values[1], dense(hard, 3)[0], atol=1e-13)
    np.testing.assert_allclose(found.values[0], [1 / 3 * 2, 1, 1], atol=1e-12)
    monkeypatch.setattr(eigen, "PRODUCTS", 1)
    assert solve(easy, 3, engine="block").dense.tolist() == [True]


def test_where_arpack_gives_up_the_dense_problem_is_solved(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = similarities(rng, 200)

    def no_convergence(*arguments: object, **settings: object) -> None:
        raise ArpackNoConvergence("no convergence", np.zeros(0), np.zeros((200, 0)))

    monkeypatch.setattr(lanczos, "eigsh", no_convergence)
    found = solve(weights, 3)
    assert found.dense.tolist() == [True]
    np.testing.assert_allclose(found.values[0], dense(weights, 3)[0], atol=1e-13)


def test_the_second_look_finds_what_a_single_sequence_misses(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies of one graph, side by side, so that every eigenvalue is double; the first look sees λ_3 only once."""
    weights = np.kron(np.eye(2), similarities(rng, 100))
    truth, looks, largest = dense(weights, 5)[0], list[int](), lanczos._largest

    def blind(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        looks.append(1)
        product, start, count, *others = arguments
        if len(looks) > 1:
            return largest(*arguments)
        values, vectors = largest(product, start, count + 1, *others)
        return np.delete(values, 1), np.delete(vectors, 1, axis=0)

    monkeypatch.setattr(lanczos, "_largest", blind)
    np.testing.assert_allclose(solve(weights, 5).values[0], truth, atol=1e-12)
    looks.clear()
    monkeypatch.setattr(lanczos, "MARGIN", 10.0)  # nothing of the rest belongs among those found
    assert np.abs(solve(weights, 5).values[0].numpy() - truth).max() > 1e-3


def test_the_same_again(rng: np.random.Generator) -> None:
    weights = similarities(rng, 200)
    assert torch.equal(solve(weights, 5).vectors, solve(weights, 5).vectors)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same(rng: np.random.Generator) -> None:
    graphs = torch.from_numpy(np.stack([similarities(rng, 400) for _ in range(5)]))
    here, there = spectrum(graphs, 6), spectrum(graphs.cuda(), 6)
    np.testing.assert_allclose(here.values, there.values.cpu(), atol=1e-12)
    np.testing.assert_allclose(here.vectors, there.vectors.cpu(), atol=1e-7)
