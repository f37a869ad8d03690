"""How well clusters of objects agree with their classes: accuracy, NMI and ARI (COMUS, Table 12)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval, mean_interval, percent
from foundling.evaluation.matching import match


@dataclass(frozen=True)
class Clustering:
    """Agreement in percent (0..100; ARI may be below 0, 0 is chance).

    ``accuracy`` is the share of objects whose cluster was matched with their class, with its interval over objects.
    """

    accuracy: Interval
    nmi: float
    ari: float


def clustering_scores(
    clusters: Int[np.ndarray, " object"],
    classes: Int[np.ndarray, " object_too"],
    matching: str = "hungarian",
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Clustering:
    """Accuracy after matching clusters with classes, normalised mutual information and adjusted Rand index.

    Any whole numbers name the clusters and the classes. ``matching`` (``"hungarian"`` or ``"majority"``) is made on the
    numbers of shared objects and held while objects are resampled; an object whose cluster is left without a class is
    wrong. Raises :class:`ParameterError` for no object, different numbers of them, or another ``matching``.
    """
    if len(clusters) != len(classes) or not len(clusters):
        raise ParameterError(
            f"{len(clusters)} clusters and {len(classes)} classes of objects: give one of each an object, one or more"
        )
    shared = contingency_matrix(classes, clusters).T  # rows and columns in ascending order of the numbers
    named = match(shared.astype(np.float64), matching)
    _, cluster = np.unique(clusters, return_inverse=True)
    _, true = np.unique(classes, return_inverse=True)
    right = (named[cluster] == true).astype(np.float64)
    return Clustering(
        percent(mean_interval(right, confidence=confidence, resamples=resamples, seed=seed)),
        100 * float(normalized_mutual_info_score(classes, clusters)),
        100 * float(adjusted_rand_score(classes, clusters)),
    )
