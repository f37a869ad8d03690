"""Correct retrieval (CorRet): do the nearest images show the same things (LOST, appendix B.3)?"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.neighbors import NearestNeighbors

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval, mean_interval, percent

NEIGHBOURS = 10  # LOST, appendix B.3
ROWS = 2048  # images that are compared with all at a time


@dataclass(frozen=True)
class CorRet:
    """CorRet in percent (0..100) with its interval over images, and the neighbours of each image, nearest first."""

    corret: Interval
    shares: Float[np.ndarray, " image"]
    neighbours: Int[np.ndarray, "image neighbour"]


def corret(
    descriptors: Float[np.ndarray, "image channel"],
    categories: Sequence[Set[int]],
    neighbours: int = NEIGHBOURS,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CorRet:
    """The mean share of an image's nearest ``neighbours`` that show at least one of its categories.

    ``descriptors`` are compared by their cosine (LOST: the CLS token of the box); an image is not its own neighbour.
    ``categories`` holds the set of annotated categories of each image: one without any is left out, as a query and as
    a neighbour. ``shares`` and ``neighbours`` are those of the images that are left, and number these.

    Raises :class:`ParameterError` where descriptors are not finite or zero, their number is not that of the images, or
    fewer than ``neighbours`` + 1 images are left.
    """
    if len(descriptors) != len(categories):
        raise ParameterError(f"{len(descriptors)} descriptors for {len(categories)} images: give one an image")
    kept = [i for i, names in enumerate(categories) if names]
    if neighbours < 1 or len(kept) <= neighbours:
        raise ParameterError(
            f"{neighbours} neighbours among {len(kept)} annotated images: at least one neighbour is needed, and more "
            "images than that; lower neighbours or give more images"
        )
    length = np.linalg.norm(descriptors[kept], axis=1, keepdims=True)
    if not np.isfinite(length).all() or not length.all():
        raise ParameterError("descriptors must be finite and not zero: leave out the images that have none")
    nearest = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(descriptors[kept] / length)
    found = nearest.kneighbors(return_distance=False)  # of the images themselves: each without itself
    names = [categories[i] for i in kept]
    shares = np.array([np.mean([bool(names[i] & names[j]) for j in row]) for i, row in enumerate(found)])
    interval = percent(mean_interval(shares, confidence=confidence, resamples=resamples, seed=seed))
    return CorRet(interval, shares, found.astype(np.int64))


def chance_corret(categories: Sequence[Set[int]]) -> float | None:
    """CorRet in percent of neighbours drawn by lot: the mean share of the other images that show a common category.

    Images without any category are left out, as in :func:`corret`; ``None`` where fewer than two are left.
    """
    kept = [names for names in categories if names]
    if len(kept) < 2:
        return None
    known = {name: column for column, name in enumerate(sorted(set().union(*kept)))}
    shown = np.zeros((len(kept), len(known)), dtype=np.float32)
    for row, names in enumerate(kept):
        shown[row, [known[name] for name in names]] = 1
    alike = sum(int((shown[i : i + ROWS] @ shown.T > 0).sum()) for i in range(0, len(kept), ROWS))
    return 100 * (alike - len(kept)) / (len(kept) * (len(kept) - 1))  # without each image itself
