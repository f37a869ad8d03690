"""The graph of neighbours and its eigenvectors, against scikit-learn and by hand."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.manifold import spectral_embedding
from sklearn.neighbors import kneighbors_graph

from foundling.categories import graph as module
from foundling.categories.graph import neighbour_graph, spectrum
from foundling.errors import ParameterError


def points(count=60, channels=5, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, channels)).astype(np.float32)


def test_four_points_on_a_line_by_hand():
    """0, 1, 3, 7 and two neighbours, one of them itself: 1 is nearest to 0 and 3, 3 to 7, 0 to 1."""
    x = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    expected = [[1, 1, 0, 0], [1, 1, 0.5, 0], [0, 0.5, 1, 0.5], [0, 0, 0.5, 1]]
    assert neighbour_graph(x, 2).toarray().tolist() == expected


def test_the_graph_is_that_of_scikit_learn():
    theirs = kneighbors_graph(points(), 7, include_self=True)
    np.testing.assert_array_equal(neighbour_graph(points(), 7).toarray(), (0.5 * (theirs + theirs.T)).toarray())


def test_candidates_hold_nearly_all_neighbours():
    """Descriptors that vary in 20 of 200 directions: what is near there is near."""
    random = np.random.default_rng(0)
    x = (random.normal(size=(400, 20)) @ random.normal(size=(20, 200))).astype(np.float32)
    exact, approximate = neighbour_graph(x, 10), neighbour_graph(x, 10, exact_up_to=100)
    shared = exact.multiply(approximate > 0) > 0
    assert shared.sum() > 0.99 * (exact > 0).sum()


def test_among_all_candidates_are_the_true_neighbours():
    """With as many candidates as objects, nothing is approximate."""
    x = points(20, 100)
    assert (neighbour_graph(x, 7, exact_up_to=10) != neighbour_graph(x, 7)).nnz == 0


@pytest.mark.parametrize("neighbours", [0, 1, 60, 61])
def test_neighbours_must_be_fewer_than_objects(neighbours):
    with pytest.raises(ParameterError, match=f"neighbours={neighbours} of 60 objects: choose from 2 to 59"):
        neighbour_graph(points(), neighbours)


@pytest.mark.parametrize("dense_up_to", [0, 1000])
def test_vectors_are_those_of_scikit_learn(monkeypatch, dense_up_to):
    monkeypatch.setattr(module, "DENSE_UP_TO", dense_up_to)
    graph = neighbour_graph(points(120), 8)
    theirs = spectral_embedding(graph, n_components=5, drop_first=False, random_state=0, eigen_tol=1e-10)
    ours = spectrum(graph, 5)
    np.testing.assert_allclose(ours.vectors, theirs, atol=1e-6)
    assert ours.components == 1 and ours.values[0] == 0 and (np.diff(ours.values) > 0).all()


def test_eigenvalues_satisfy_their_equation():
    """(D - W) v = λ D v, edges to oneself left out, and v'Dv = 1."""
    graph = neighbour_graph(points(), 8)
    found, weights = spectrum(graph, 6), graph.toarray()
    np.fill_diagonal(weights, 0)
    degree = np.diag(weights.sum(axis=1))
    np.testing.assert_allclose((degree - weights) @ found.vectors, degree @ found.vectors * found.values, atol=1e-9)
    np.testing.assert_allclose(found.vectors.T @ degree @ found.vectors, np.eye(6), atol=1e-9)


def complete(*sizes) -> sparse.csr_matrix:
    """Complete graphs side by side, their objects mixed."""
    whole = sparse.block_diag([np.ones((size, size)) for size in sizes]).tocsr()
    mixed = np.random.default_rng(0).permutation(sum(sizes))
    return whole[mixed][:, mixed]


def test_each_part_of_a_graph_has_a_vector_of_its_own():
    """Complete graphs of 5 and 3: λ = 0, 0, then 5/4 four times (n / (n - 1)), and 3/2 twice."""
    found = spectrum(complete(3, 5), 8)
    np.testing.assert_allclose(found.values, [0, 0, 1.25, 1.25, 1.25, 1.25, 1.5, 1.5], atol=1e-12)
    assert found.components == 2
    for column, size in ((0, 5), (1, 3)):
        held = found.vectors[:, column] > 0
        assert held.sum() == size
        np.testing.assert_allclose(found.vectors[held, column], 1 / np.sqrt(size * (size - 1)))
        assert not found.vectors[~held, column].any()


def test_of_more_parts_than_vectors_the_largest_have_theirs():
    found = spectrum(complete(2, 4, 3, 2), 2)
    assert found.components == 4 and (found.vectors > 0).sum(axis=0).tolist() == [4, 3]


def test_an_object_without_neighbours_is_a_part():
    found = spectrum(sparse.csr_matrix(np.diag([1.0, 1.0, 1.0])), 3)
    assert found.components == 3 and found.values.tolist() == [0, 0, 0]
    assert (found.vectors != 0).sum(axis=0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("count", [0, 9])
def test_there_are_no_more_vectors_than_objects(count):
    with pytest.raises(ParameterError, match=f"{count} eigenvectors of 8 objects: choose from 1 to 8"):
        spectrum(complete(3, 5), count)
