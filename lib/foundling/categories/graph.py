"""The graph of nearest neighbours of many descriptors, and the eigenvectors that spectral clustering reads off it.

COMUS calls scikit-learn's ``spectral_embedding`` with ``drop_first=False``; the same vectors are found here without its
shift-and-invert, whose factors of a graph of neighbours fill up, and together with their eigenvalues. The authors'
solver (``amg``) needs another library and ends at the same vectors; ours is ARPACK, or a dense one for small graphs.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigsh
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from foundling.errors import ParameterError

EXACT_UP_TO = 30_000  # objects: beyond, neighbours are looked for among candidates, and k-means takes mini-batches
CANDIDATE_CHANNELS = 64  # principal components in which candidates are looked for
CANDIDATES = 3  # for every neighbour
DENSE_UP_TO = 1000  # objects of a component: ARPACK beyond
TOLERANCE, LOOSE_TOLERANCE = 1e-7, 1e-4  # of ARPACK, up to EXACT_UP_TO objects and beyond
ROWS = 4096  # of distances in memory at a time


class Spectrum(NamedTuple):
    """The lowest eigenvalues of a normalised Laplacian (0..2, ascending), and D^-1/2 times their eigenvectors.

    ``components`` is the number of parts that the graph falls into.
    """

    vectors: Float[np.ndarray, "object vector"]
    values: Float[np.ndarray, " vector"]
    components: int


def neighbour_graph(
    descriptors: Float[np.ndarray, "object channel"], neighbours: int, exact_up_to: int = EXACT_UP_TO
) -> sparse.csr_matrix:
    """0.5 (C + C'), C the graph of every object's nearest ``neighbours``, itself one of them (COMUS, appendix B.1).

    Distances are Euclidean. Of more than ``exact_up_to`` objects, each takes its nearest among three times as many
    candidates, which are its nearest in the 64 principal components of the descriptors.
    Raises :class:`ParameterError` unless there are more objects than ``neighbours``.
    """
    count = len(descriptors)
    if not 1 < neighbours < count:
        raise ParameterError(
            f"neighbours={neighbours} of {count} objects: choose from 2 to {count - 1} (an object is one of its own "
            "neighbours), or give more objects"
        )
    large = count > exact_up_to and descriptors.shape[1] > CANDIDATE_CHANNELS
    nearest = (_likely_nearest if large else _nearest)(descriptors, neighbours)
    starts = np.arange(0, nearest.size + 1, neighbours)
    chosen = sparse.csr_matrix((np.ones(nearest.size, np.float32), nearest.ravel(), starts), shape=(count, count))
    return 0.5 * (chosen + chosen.T)


def _nearest(x: Float[np.ndarray, "object channel"], neighbours: int) -> Int[np.ndarray, "object neighbour"]:
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(x)
    return search.kneighbors(x, return_distance=False)


def _likely_nearest(x: Float[np.ndarray, "object channel"], neighbours: int) -> Int[np.ndarray, "object neighbour"]:
    """The nearest among candidates, which are the nearest in a few principal components."""
    short = PCA(min(CANDIDATE_CHANNELS, *x.shape), svd_solver="covariance_eigh").fit_transform(x)
    candidates = _nearest(short, min(len(x), CANDIDATES * neighbours))  # [object, candidate]
    out = np.empty((len(x), neighbours), dtype=np.int64)
    squares = np.einsum("oc,oc->o", x, x)
    step = max(1, ROWS * 256 // (candidates.shape[1] * max(1, x.shape[1] // 64)))
    for start in range(0, len(x), step):
        these = candidates[start : start + step]
        products = np.matmul(x[these], x[start : start + step, :, None])[..., 0]  # [object, candidate]
        best = np.argpartition(squares[these] - 2 * products, neighbours - 1, axis=1)[:, :neighbours]
        out[start : start + step] = np.take_along_axis(these, best, axis=1)
    return out


def spectrum(graph: sparse.csr_matrix, count: int) -> Spectrum:
    """The ``count`` lowest eigenvalues and vectors of the graph's normalised Laplacian, the trivial one among them.

    As scikit-learn's ``spectral_embedding``: edges from an object to itself do not count, vectors of unit length are
    divided by the root of the degrees, and the largest entry of each is positive. A graph in several parts has one
    eigenvalue 0 and one vector for each, which is constant on it and 0 elsewhere; of more parts than ``count`` the
    largest have theirs. Raises :class:`ParameterError` for a ``count`` that is not from 1 to the number of objects.
    """
    size = graph.shape[0]
    if not 1 <= count <= size:
        raise ParameterError(f"{count} eigenvectors of {size} objects: choose from 1 to {size}")
    weights = (graph - sparse.diags(graph.diagonal())).astype(np.float64).tocsr()
    weights.eliminate_zeros()
    number, part_of = connected_components(weights, directed=False)
    members = np.split(np.argsort(part_of, kind="stable"), np.cumsum(np.bincount(part_of))[:-1])
    members.sort(key=lambda part: (-len(part), part[0]))
    each = max(1, count - number + 1)  # every other part has at least one of the lowest
    found = [(value, rank, part, vector) for rank, part in enumerate(members[:count])
             for value, vector in _part(weights[part][:, part], min(each, len(part)), size > EXACT_UP_TO)]  # fmt: skip
    found.sort(key=lambda pair: pair[:2])
    vectors = np.zeros((size, count))
    for column, (_, _, part, vector) in enumerate(found[:count]):
        vectors[part, column] = vector
    return Spectrum(vectors, np.array([value for value, *_ in found[:count]]), number)


def _part(weights: sparse.csr_matrix, count: int, loose: bool) -> list[tuple[float, Float[np.ndarray, " object"]]]:
    """The lowest eigenvalues of a connected graph, each with its vector."""
    degrees = np.asarray(weights.sum(axis=1)).ravel()
    root = np.sqrt(np.where(degrees > 0, degrees, 1))
    scaled = sparse.diags(1 / root) @ weights @ sparse.diags(1 / root)
    if scaled.shape[0] <= max(DENSE_UP_TO, 3 * count):
        values, vectors = eigh(np.eye(len(root)) - scaled.toarray(), subset_by_index=[0, count - 1])
    else:
        values, vectors = _arpack(scaled.tocsr(), root, count, LOOSE_TOLERANCE if loose else TOLERANCE)
    values = values.clip(0)
    values[0] = 0.0  # exactly: the vector is that of the degrees' roots
    vectors = vectors / root[:, None]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(count)])
    return [(float(value), vector) for value, vector in zip(values, vectors.T, strict=True)]


def _arpack(
    scaled: sparse.csr_matrix, start: Float[np.ndarray, " object"], count: int, tolerance: float
) -> tuple[Float[np.ndarray, " vector"], Float[np.ndarray, "object vector"]]:
    """Eigenpairs at the upper end of the scaled graph, which are those at the lower end of its Laplacian."""
    first = np.random.default_rng(0).normal(size=len(start)) + start
    try:
        values, vectors = eigsh(scaled, count, which="LA", v0=first, tol=tolerance, ncv=2 * count + 20)
    except ArpackNoConvergence:  # many eigenvalues close together: a little less exact will do
        values, vectors = eigsh(scaled, count, which="LA", v0=first, tol=1e-2, ncv=4 * count + 40)
    order = np.argsort(-values, kind="stable")
    return 1 - values[order], vectors[:, order]
