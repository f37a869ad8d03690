"""Which class is which cluster: clusters found without labels have no names, so a matching gives them some."""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from foundling.errors import ParameterError

MATCHINGS = ("hungarian", "majority")
NO_CLASS = -1  # of a cluster that is left over


def match(scores: Float[np.ndarray, "cluster class"], matching: str = "hungarian") -> Int[np.ndarray, " cluster"]:
    """The class of each cluster, or -1 where there is none left for it.

    ``scores`` say how well each cluster fits each class, more is better. ``"hungarian"`` gives every class to at most
    one cluster, so that the sum of scores is largest. ``"majority"`` gives every cluster its best class (the first of
    equals): several clusters may share one. Raises :class:`ParameterError` for another word.
    """
    if matching not in MATCHINGS:
        raise ParameterError(f"matching is {matching!r}: choose one of {', '.join(MATCHINGS)}")
    if matching == "majority" and scores.size:
        return scores.argmax(1).astype(np.int64)
    classes = np.full(len(scores), NO_CLASS, dtype=np.int64)
    clusters, matched = linear_sum_assignment(scores, maximize=True)
    classes[clusters] = matched
    return classes
