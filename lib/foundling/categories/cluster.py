"""Descriptors → clusters: COMUS's spectral clustering, k-means, and the k-means of LOST's code."""

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from foundling.categories.graph import EXACT_UP_TO, neighbour_graph, spectrum
from foundling.discovery.facets import check_choice
from foundling.errors import ParameterError

METHODS = ("spectral", "kmeans", "kmeans_lost")
NEIGHBOURS = 30  # COMUS, appendix B.1
RESTARTS = 10  # of k-means: COMUS' n_init, for k-means scikit-learn's default in those days
LOST_ITERATIONS = 10  # scipy's default, which LOST's code leaves as it is
LOST_SEED = 123  # in LOST's code
MINI_BATCH, MINI_RESTARTS = 4096, 3
SHARE = 0.8  # of a cluster that is kept (COMUS, Sec. 4.5: 20 % are filtered)
ROWS = 65536
DECIMALS = 12  # of distances: what rounding makes of equal ones must not decide which is nearer


class Space(NamedTuple):
    """Where objects are clustered: one row for each described object, in an order that does not depend on the input's.

    ``order`` says which object each row is. ``eigenvalues`` and ``components`` (of the graph of neighbours) belong to
    spectral clustering. ``distinct`` is how many different descriptors there are, and ``value`` which of them each row
    has.
    """

    method: str
    rows: Float[np.ndarray, "row dimension"]
    order: Int[np.ndarray, " row"]
    objects: int
    value: Int[np.ndarray, " row"]
    distinct: int
    eigenvalues: Float[np.ndarray, " dimension"] | None = None
    components: int = 1


@dataclass(frozen=True)
class Clusters:
    """A cluster for every object.

    ``labels`` are 0 (the largest cluster) to ``count`` - 1, and -1 for an object without a descriptor. ``distances``
    are cosine distances (0..2) to the centre of the object's own cluster in ``embedding``, the space that was clustered
    (eigenvectors, or the descriptors; nan for an object without one). ``centres`` are those of the clusters there, nan
    for an empty one. ``eigenvalues`` are those of the graph's normalised Laplacian that belong to the columns of
    ``embedding`` (spectral clustering only). ``flags`` name what was degenerate: ``identical`` (no more different
    descriptors than clusters: each is a cluster, all its distances 0), ``empty`` (fewer clusters than asked for have
    members), ``disconnected`` (the graph falls into ``components`` > 1 parts), ``crowded`` (into more parts than there
    are eigenvectors), ``approximate`` (too many objects for the exact methods).
    """

    method: str
    count: int
    labels: Int[np.ndarray, " object"]
    distances: Float[np.ndarray, " object"]
    embedding: Float[np.ndarray, "object dimension"]
    centres: Float[np.ndarray, "cluster dimension"]
    eigenvalues: Float[np.ndarray, " dimension"] | None
    components: int
    flags: tuple[str, ...]

    @property
    def sizes(self) -> Int[np.ndarray, " cluster"]:
        """The number of objects of each cluster."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.count)

    def kept(self, chosen: Bool[np.ndarray, " object"]) -> Int[np.ndarray, " object"]:
        """The labels with -1 for objects that are not ``chosen`` (see :func:`core`)."""
        return np.where(chosen, self.labels, -1)


def cluster_objects(
    descriptors: Float[np.ndarray, "object channel"],
    clusters: int,
    method: str = "spectral",
    seed: int = 0,
    neighbours: int = NEIGHBOURS,
    *,
    dimensions: int | None = None,
    exact_up_to: int = EXACT_UP_TO,
) -> Clusters:
    """Objects grouped by their descriptors into ``clusters``, which may be more than there are classes.

    ``method``: ``"spectral"`` (COMUS, appendix B.1): the graph of the nearest ``neighbours``, the lowest ``dimensions``
    eigenvectors of its normalised Laplacian (default: as many as clusters), and k-means on their rows, the best of ten
    runs. ``"kmeans"``: k-means on the descriptors, the best of ten. ``"kmeans_lost"``: as LOST's code clusters,
    descriptors divided by their deviation, then brought to length 1, then one k-means of scipy from random Gaussian
    centres, ten iterations; ``seed`` is 123 there.

    Beyond ``exact_up_to`` objects, neighbours are approximate (see :func:`foundling.categories.graph.neighbour_graph`)
    and the first two methods' k-means takes mini-batches of 4,096 objects, the best of three. The grouping does not
    depend on the order of the objects, but for rounding. Objects whose descriptor is not finite get no cluster.

    Raises :class:`ParameterError` for more clusters than described objects, ``neighbours`` that are not fewer than
    these, and other values that are not legal.
    """
    space = make_space(descriptors, method, clusters if dimensions is None else dimensions, neighbours, exact_up_to)
    return cluster_space(space, clusters, seed, exact_up_to)


def make_space(
    descriptors: Float[np.ndarray, "object channel"],
    method: str = "spectral",
    dimensions: int = 2,
    neighbours: int = NEIGHBOURS,
    exact_up_to: int = EXACT_UP_TO,
) -> Space:
    """Everything of :func:`cluster_objects` that does not depend on its seed: several clusterings may share it."""
    check_choice("method", method, METHODS)
    if dimensions < 1:
        raise ParameterError(f"clusters, or dimensions, is {dimensions}: choose at least 1")
    order, value, distinct = _ordered(descriptors)
    if dimensions > len(order):
        raise ParameterError(
            f"{dimensions} clusters (or dimensions) of {len(order)} objects with finite descriptors: choose at most "
            f"{len(order)}, or give more objects"
        )
    rows = descriptors[order]
    shared: dict[str, Any] = {"objects": len(descriptors), "value": value, "distinct": distinct}
    if method == "kmeans_lost":
        return Space(method, lost_scaled(rows), order, **shared)
    if method == "kmeans":
        return Space(method, rows, order, **shared)
    found = spectrum(neighbour_graph(rows, neighbours, exact_up_to), dimensions)
    return Space(method, found.vectors, order, **shared, eigenvalues=found.values, components=found.components)


def _ordered(
    descriptors: Float[np.ndarray, "object channel"],
) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"], int]:
    """The objects with finite descriptors in an order that these alone decide; which value each has; how many differ.

    Random draws of k-means go by position: in this order, they do not depend on the order of the input.
    """
    finite = np.flatnonzero(np.isfinite(descriptors).all(axis=1))
    direction = np.random.default_rng(0).normal(size=descriptors.shape[1])
    place = np.concatenate(
        [(descriptors[finite[i : i + ROWS]] * direction).sum(axis=1) for i in range(0, len(finite), ROWS)] or [[]]
    )
    order = finite[np.argsort(place, kind="stable")]
    changes = [np.array([False])]
    for i in range(1, len(order), ROWS):
        changes.append(
            (descriptors[order[i : i + ROWS]] != descriptors[order[i - 1 : i - 1 + ROWS][: len(order) - i]]).any(axis=1)
        )
    value = np.cumsum(np.concatenate(changes))[: len(order)]
    return order, value, int(value[-1]) + 1 if len(order) else 0


def lost_scaled(
    x: Float[np.ndarray, "row channel"], like: Float[np.ndarray, "other channel"] | None = None
) -> Float[np.ndarray, "row channel"]:
    """LOST's ``vq.whiten`` (columns divided by their deviation, not centred), then rows of length 1.

    The deviation is that of ``x``, or that of the rows ``like``. A column without deviation, and a row of zeros, stay
    as they are.
    """
    deviation = (x if like is None else like).std(axis=0)
    white = x / np.where(deviation > 0, deviation, 1)
    length = np.linalg.norm(white, axis=1, keepdims=True)
    return white / np.where(length > 0, length, 1)


def cluster_space(space: Space, clusters: int, seed: int = 0, exact_up_to: int = EXACT_UP_TO) -> Clusters:
    """The k-means of :func:`cluster_objects` in a space that :func:`make_space` made."""
    if not 1 <= clusters <= len(space.order):
        raise ParameterError(
            f"clusters={clusters} of {len(space.order)} objects with finite descriptors: choose 1 to {len(space.order)}"
        )
    if space.distinct <= clusters:
        found = space.value
    elif space.method == "kmeans_lost":
        found = _lost(space.rows, clusters, seed)
    else:
        found = _best_of_several(space.rows, clusters, seed, exact_up_to)
    sizes = np.bincount(found, minlength=clusters)
    found = np.argsort(np.argsort(-sizes, kind="stable"))[found]  # the largest cluster becomes 0
    centres = _centres(space.rows, found, clusters)
    labels = np.full(space.objects, -1, dtype=np.int64)
    distances = np.full(space.objects, np.nan)
    embedding = np.full((space.objects, space.rows.shape[1]), np.nan, dtype=space.rows.dtype)
    labels[space.order], embedding[space.order] = found, space.rows
    alike = space.distinct <= clusters  # within every cluster
    distances[space.order] = 0 if alike else cosine_distances(space.rows, centres, found)
    flags = _flags(space, clusters, int((sizes > 0).sum()), exact_up_to)
    return Clusters(
        space.method, clusters, labels, distances, embedding, centres, space.eigenvalues, space.components, flags
    )


def _flags(space: Space, clusters: int, occupied: int, exact_up_to: int) -> tuple[str, ...]:
    present = {
        "identical": space.distinct <= clusters and space.distinct < len(space.order),
        "empty": occupied < clusters,
        "disconnected": space.components > 1,
        "crowded": space.eigenvalues is not None and space.components > len(space.eigenvalues),
        "approximate": len(space.order) > exact_up_to and space.method != "kmeans_lost",
    }
    return tuple(name for name, there in present.items() if there)


def _best_of_several(
    rows: Float[np.ndarray, "row dimension"], clusters: int, seed: int, exact_up_to: int
) -> Int[np.ndarray, " row"]:
    few = len(rows) <= exact_up_to
    if few:
        search: Any = KMeans(clusters, n_init=RESTARTS, random_state=seed)
    else:
        search = MiniBatchKMeans(clusters, batch_size=MINI_BATCH, n_init=MINI_RESTARTS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows may coincide: flagged as empty clusters
        return search.fit_predict(rows).astype(np.int64)


def _lost(rows: Float[np.ndarray, "row channel"], clusters: int, seed: int) -> Int[np.ndarray, " row"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty cluster: flagged
        generator = np.random.RandomState(seed)  # draws what the authors' np.random.seed makes it draw
        _, labels = kmeans2(rows, clusters, iter=LOST_ITERATIONS, minit="random", seed=generator)
    return labels.astype(np.int64)


def _centres(
    rows: Float[np.ndarray, "row dimension"], labels: Int[np.ndarray, " row"], clusters: int
) -> Float[np.ndarray, "cluster dimension"]:
    """The mean of each cluster; nan without members."""
    sizes = np.bincount(labels, minlength=clusters)[:, None]
    member = sparse.csr_matrix((np.ones(len(rows)), (labels, np.arange(len(rows)))), shape=(clusters, len(rows)))
    sums = member @ rows.astype(np.float64)
    return np.divide(sums, sizes, out=np.full(sums.shape, np.nan), where=sizes > 0)


def cosine_distances(
    rows: Float[np.ndarray, "row dimension"],
    centres: Float[np.ndarray, "cluster dimension"],
    labels: Int[np.ndarray, " row"],
) -> Float[np.ndarray, " row"]:
    """1 - cos between each row and its centre (0..2); 1 where either is zero."""
    out = np.empty(len(rows))
    for i in range(0, len(rows), ROWS):
        here, own = rows[i : i + ROWS].astype(np.float64), centres[labels[i : i + ROWS]]
        lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(own, axis=1)
        products = np.einsum("rd,rd->r", here, own)
        cosines = np.divide(products, lengths, out=np.zeros(len(here)), where=lengths > 0)
        out[i : i + ROWS] = np.round(1 - cosines, DECIMALS)
    return out.clip(0, 2)


def core(clusters: Clusters, share: float = SHARE) -> Bool[np.ndarray, " object"]:
    """Which objects are sure members: in each cluster, those whose distance is below the ``share`` quantile.

    COMUS (Sec. 3.3) keeps strictly what is below, so that a little less than ``share`` (0 to 1, not 0) of a cluster
    stays; 1 keeps all. A cluster of which nothing is strictly below (one member, or all at one distance) would end
    empty there; here it keeps its nearest members. Objects without a cluster are not kept.
    Raises :class:`ParameterError` for a ``share`` outside its range.
    """
    if not 0 < share <= 1:
        raise ParameterError(f"share={share}: choose a number above 0, and 1 to keep every object")
    if share == 1:
        return clusters.labels >= 0
    kept = np.zeros(len(clusters.labels), dtype=bool)
    for cluster in np.unique(clusters.labels[clusters.labels >= 0]):
        members = np.flatnonzero(clusters.labels == cluster)
        distances = clusters.distances[members]
        below = distances < np.percentile(distances, 100 * share)
        kept[members] = below if below.any() else distances == distances.min()
    return kept
