"""The cluster of objects that were not among those clustered: boxes of new images under the same pseudo-classes."""

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import KNeighborsClassifier

from foundling.categories.cluster import NEIGHBOURS, Clusters, lost_scaled
from foundling.errors import ParameterError


def assign_objects(
    descriptors: Float[np.ndarray, "object channel"],
    known: Float[np.ndarray, "known known_channel"],
    clusters: Clusters,
    neighbours: int = NEIGHBOURS,
) -> Int[np.ndarray, " object"]:
    """The cluster of each of ``descriptors``, where ``clusters`` are those of ``known``; -1 where it is not finite.

    K-means: that of the nearest centre (``kmeans_lost``: after the columns were divided by the deviation that they have
    in ``known``, and rows brought to length 1, as these were). Spectral clusters have no centres in the descriptors'
    space: the cluster that most of the nearest ``neighbours`` among ``known`` belong to, the smallest number of equals.

    Raises :class:`ParameterError` where the channels differ, or there are not as many labels as ``known`` rows.
    """
    if len(known) != len(clusters.labels) or known.shape[1] != descriptors.shape[1]:
        raise ParameterError(
            f"{len(clusters.labels)} labels of {len(known)} descriptors with {known.shape[1]} channels, and new ones "
            f"with {descriptors.shape[1]}: give the descriptors that were clustered, and new ones made the same way"
        )
    labels = np.full(len(descriptors), -1, dtype=np.int64)
    finite = np.isfinite(descriptors).all(axis=1)
    if not finite.any():
        return labels
    rows, members = descriptors[finite], clusters.labels >= 0
    if clusters.method == "spectral":
        vote = KNeighborsClassifier(min(neighbours, int(members.sum())))
        labels[finite] = vote.fit(known[members], clusters.labels[members]).predict(rows)
        return labels
    if clusters.method == "kmeans_lost":
        rows = lost_scaled(rows, known[members])
    occupied = np.flatnonzero(np.isfinite(clusters.centres).all(axis=1))
    labels[finite] = occupied[pairwise_distances_argmin(rows.astype(np.float64), clusters.centres[occupied])]
    return labels
