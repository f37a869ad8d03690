"""How many clusters, where nobody knows; and how much of a clustering is the luck of its seed (LOST, appendix A.5)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score, silhouette_score

from foundling.categories.cluster import NEIGHBOURS, Clusters, Space, cluster_space, make_space
from foundling.categories.graph import EXACT_UP_TO
from foundling.discovery.facets import check_choice
from foundling.errors import ParameterError

RULES = ("silhouette", "eigengap")
MOST = 40  # clusters that are looked at
SAMPLE = 2000  # objects that the silhouette is taken over
SEEDS = (0, 1, 2, 3)  # LOST repeats four times


@dataclass(frozen=True)
class Suggestion:
    """What speaks for each number of clusters, to be drawn.

    ``eigenvalues`` are the lowest of the graph's normalised Laplacian, λ_1 = 0 first. For each number k of ``ks``,
    ``gaps`` is λ_{k+1} - λ_k, and ``silhouettes`` (-1..1) how much nearer objects are to their own cluster than to the
    next one, by the distances of descriptors brought to length 1, after spectral clustering into k (nan where only one
    cluster has members).
    ``by_eigengap`` and ``by_silhouette`` are the k where these are largest (the smaller of equals), ``suggested`` the
    one of the rule that was asked for. ``objects`` is how many the silhouettes were taken over.
    """

    ks: Int[np.ndarray, " number"]
    eigenvalues: Float[np.ndarray, " eigenvalue"]
    gaps: Float[np.ndarray, " number"]
    silhouettes: Float[np.ndarray, " number"]
    by_eigengap: int
    by_silhouette: int
    suggested: int
    objects: int


def suggest_clusters(
    descriptors: Float[np.ndarray, "object channel"],
    most: int = MOST,
    rule: str = "silhouette",
    seed: int = 0,
    neighbours: int = NEIGHBOURS,
    *,
    sample: int = SAMPLE,
    exact_up_to: int = EXACT_UP_TO,
) -> Suggestion:
    """How many clusters the objects fall into, from 2 to ``most``, by two rules; both curves come back.

    The eigengap is the textbook's rule (von Luxburg 2007, Sec. 8.3) on the graph that spectral clustering uses; it
    needs clusters that are nearly apart. The silhouette is taken over ``sample`` objects, drawn with ``seed``, of
    clusterings of all; one graph and one set of eigenvectors serve them. ``most`` is lowered to one less than the
    number of objects with finite descriptors.

    Raises :class:`ParameterError` for fewer than 3 different finite descriptors, ``neighbours`` that are not fewer than
    the objects, and other values that are not legal.
    """
    check_choice("rule", rule, RULES)
    if most < 2 or sample < 3:
        raise ParameterError(f"most={most}, sample={sample}: most is a number of clusters from 2 on, sample at least 3")
    usable = int(np.isfinite(descriptors).all(axis=1).sum())
    if usable < 3:
        raise ParameterError(f"{usable} objects with finite descriptors: a number of clusters needs 3 or more")
    most = min(most, usable - 1)
    space = make_space(descriptors, "spectral", most + 1, neighbours, exact_up_to)
    if space.distinct < 3:
        raise ParameterError(
            f"{space.distinct} different descriptors among {usable}: there is no number of clusters to choose; look at "
            "how the objects were cropped and described"
        )
    assert space.eigenvalues is not None
    ks = np.arange(2, most + 1)
    gaps = np.diff(space.eigenvalues)[1:]  # λ_3 - λ_2 is that of k = 2
    chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:sample])
    unit = _unit(descriptors[space.order[chosen]])
    silhouettes = np.array([_silhouette(space, int(k), seed, exact_up_to, chosen, unit) for k in ks])
    by_gap = int(ks[np.argmax(gaps)])
    by_silhouette = int(ks[np.nanargmax(silhouettes)]) if np.isfinite(silhouettes).any() else by_gap
    suggested = by_silhouette if rule == "silhouette" else by_gap
    return Suggestion(ks, space.eigenvalues, gaps, silhouettes, by_gap, by_silhouette, suggested, len(chosen))


def _unit(x: Float[np.ndarray, "object channel"]) -> Float[np.ndarray, "object channel"]:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def _silhouette(
    space: Space,
    k: int,
    seed: int,
    exact_up_to: int,
    chosen: Int[np.ndarray, " object"],
    unit: Float[np.ndarray, "object channel"],
) -> float:
    assert space.eigenvalues is not None
    narrow = space._replace(rows=space.rows[:, :k], eigenvalues=space.eigenvalues[:k])
    labels = cluster_space(narrow, k, seed, exact_up_to).labels[space.order[chosen]]
    if not 1 < len(np.unique(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(unit, labels))


@dataclass(frozen=True)
class Stability:
    """How much clusterings of the same objects differ by their seed alone.

    ``ari`` is the adjusted Rand index of every pair of ``seeds`` (1 on the diagonal) and ``mean_ari`` its mean over
    pairs. ``scores`` are those of each seed's clustering, where a score was given, with ``mean`` and standard deviation
    ``std`` (LOST A.5; that of a sample, n - 1 below).
    """

    seeds: tuple[int, ...]
    ari: Float[np.ndarray, "seed seed"]
    mean_ari: float
    scores: Float[np.ndarray, " seed"] | None
    mean: float | None
    std: float | None


def stability(
    descriptors: Float[np.ndarray, "object channel"],
    clusters: int,
    method: str = "spectral",
    seeds: Sequence[int] = SEEDS,
    neighbours: int = NEIGHBOURS,
    *,
    score: Callable[[Clusters], float] | None = None,
    exact_up_to: int = EXACT_UP_TO,
) -> Stability:
    """Cluster the objects once with each of ``seeds`` and compare (LOST, appendix A.5, with k-means).

    ``score`` takes a clustering to a number that is worth knowing the spread of, such as the mIoU of its pseudo-masks.
    What does not depend on the seed (the graph, its eigenvectors) is computed once. Objects without a descriptor are
    left out of the comparison. Raises :class:`ParameterError` for fewer than two different seeds, and as
    :func:`foundling.categories.cluster_objects`.
    """
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise ParameterError(f"seeds={list(seeds)}: give two or more, each once")
    space = make_space(descriptors, method, clusters, neighbours, exact_up_to)
    found = [cluster_space(space, clusters, seed, exact_up_to) for seed in seeds]
    labels = [each.labels[space.order] for each in found]
    ari = np.array([[adjusted_rand_score(one, other) for other in labels] for one in labels])
    mean_ari = float(ari[np.triu_indices(len(seeds), 1)].mean())
    scores = None if score is None else np.array([score(each) for each in found], dtype=np.float64)
    mean = None if scores is None else float(scores.mean())
    std = None if scores is None else float(scores.std(ddof=1))
    return Stability(tuple(seeds), ari, mean_ari, scores, mean, std)
