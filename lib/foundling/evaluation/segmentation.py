"""Semantic segmentation without labels: mIoU after clusters have been matched with classes (COMUS, Sec. 4.1).

Everything follows from one table for each image: how many pixels cluster c has in common with class g. Background is
cluster 0 and class 0, and takes part in the matching like any other, as in the authors' code.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Figures, Interval, drawn_interval, image_draws
from foundling.evaluation.matching import match
from foundling.types import VOID

FOUND_ABOVE = 0.2  # a class counts as found where its IoU is at least this (COMUS, Sec. 4.4)


@dataclass(frozen=True)
class Segmentation(Figures):
    """How well matched clusters segment a dataset; numbers in percent (0..100).

    ``miou`` is the mean IoU over the classes that occur in the truth, background included, and ``accuracy`` the share
    of pixels with the right class, both with intervals over images (of each draw of which the same is taken), and among
    the ``values`` under these names; ``images`` are positions in the tables, so that tables of the same images are
    comparable (:func:`foundling.evaluation.precision_difference`). ``classes`` has the IoU of each class (nan where it
    does not occur), ``found`` how many of the classes other than background reach 20 %, ``assignment`` the class of
    each cluster (-1: none).
    """

    classes: Float[np.ndarray, " class"]
    found: int
    assignment: Int[np.ndarray, " cluster"]

    @property
    def miou(self) -> Interval:
        return self.values["miou"]

    @property
    def accuracy(self) -> Interval:
        return self.values["accuracy"]

    def reaching(self, least: float = 100 * FOUND_ABOVE) -> tuple[int, float | None]:
        """How many classes have an IoU of ``least`` percent or more, and more than 0; and the mean of theirs.

        The background is one of them, as in COMUS, Table 3, whose 73 classes of 20.2 add up to its 81 of 18.2.
        """
        reached = self.classes[(self.classes >= least) & (self.classes > 0)]
        return len(reached), float(reached.mean()) if len(reached) else None


def confusion(
    predicted: Integer[np.ndarray, "height width"],
    truth: Integer[np.ndarray, "true_height true_width"],
    clusters: int,
    classes: int,
    ignore: int = VOID,
) -> Int[np.ndarray, "cluster class"]:
    """How many pixels each cluster shares with each class in one image, at the resolution of the truth.

    ``predicted`` holds clusters 0 to ``clusters`` - 1 and ``truth`` classes 0 to ``classes`` - 1, or ``ignore`` where
    nothing counts. Raises :class:`ParameterError` for maps of different sizes and for values that are neither.
    """
    if predicted.shape != truth.shape:
        sizes = " and ".join(f"{width}×{height}" for height, width in (predicted.shape, truth.shape))
        raise ParameterError(
            f"a predicted and a true label map of {sizes} pixels: resize the prediction (nearest) to the truth first"
        )
    counted = truth != ignore
    found, true = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
    for name, values, count in (("predicted", found, clusters), ("true", true, classes)):
        if values.size and not 0 <= values.min() <= values.max() < count:
            wrong = values[(values < 0) | (values >= count)][0]
            raise ParameterError(
                f"the {name} label map holds {wrong}: legal are 0 to {count - 1}"
                + (f", and {ignore} for pixels that do not count" if name == "true" else "")
            )
    return np.bincount(found * classes + true, minlength=clusters * classes).reshape(clusters, classes)


def iou_table(table: Float[np.ndarray, "*more cluster class"]) -> Float[np.ndarray, "*more cluster class"]:
    """The IoU of each cluster with each class, 0..1, from the pixels they share (0 where neither has any)."""
    union = table.sum(-1, keepdims=True) + table.sum(-2, keepdims=True) - table
    return np.divide(table, union, out=np.zeros(table.shape), where=union > 0)


def segmentation_scores(
    confusions: Int[np.ndarray, "image cluster class"],
    matching: str = "hungarian",
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Segmentation:
    """mIoU and accuracy over a dataset, after clusters have been given classes (COMUS, Sec. 4.1).

    ``confusions`` are those of :func:`confusion`, image by image; intersections and unions are added up over the
    dataset before they are divided. ``matching`` is ``"hungarian"`` (one cluster a class, the largest sum of IoUs) or
    ``"majority"`` (every cluster the class it has the best IoU with; clusters of one class are merged). Pixels of a
    cluster without a class are wrong. The matching is made once, on all images, and held while these are resampled;
    one image, and ``resamples`` of 0, have no intervals.

    Raises :class:`ParameterError` where no pixel counts, and as :func:`foundling.evaluation.matching.match`.
    """
    table = confusions.sum(0)
    if not table.any():
        raise ParameterError("no pixel of these images counts: every true label map is empty or void throughout")
    assignment = match(iou_table(table.astype(np.float64)), matching)
    parts = _parts(confusions, assignment)
    classes = _ious(parts.sum(0))
    drawn = [np.zeros((0, 2))]
    if len(parts) > 1:
        flat = parts.reshape(len(parts), -1)
        for weights in image_draws(len(parts), resamples, seed):
            drawn.append(_means((weights @ flat).reshape(-1, *parts.shape[1:])))
    means = _means(parts.sum(0, keepdims=True))[0].tolist()
    draws = 100 * np.concatenate(drawn)
    columns = zip(("miou", "accuracy"), means, draws.T, strict=True)
    values = {name: drawn_interval(100 * mean, column, confidence) for name, mean, column in columns}
    found = int((classes[1:] >= FOUND_ABOVE).sum())
    return Segmentation(values, draws, tuple(range(len(parts))), 100 * classes, found, assignment)


def _parts(
    confusions: Int[np.ndarray, "image cluster class"], assignment: Int[np.ndarray, " cluster"]
) -> Float[np.ndarray, "image 3 class"]:
    """For each class, how many pixels of each image are rightly called it, are called it, and are of it."""
    images, _, classes = confusions.shape
    parts = np.zeros((images, 3, classes))
    parts[:, 2] = confusions.sum(1)
    for cluster, named in enumerate(assignment.tolist()):
        if named >= 0:
            parts[:, 0, named] += confusions[:, cluster, named]
            parts[:, 1, named] += confusions[:, cluster].sum(1)
    return parts


def _ious(parts: Float[np.ndarray, "*table 3 class"]) -> Float[np.ndarray, "*table class"]:
    """IoU of each class, 0..1, nan where the truth has none of it."""
    right, called, true = np.moveaxis(parts, -2, 0)
    return np.divide(right, called + true - right, out=np.full(right.shape, np.nan), where=true > 0)


def _means(parts: Float[np.ndarray, "draw 3 class"]) -> Float[np.ndarray, "draw 2"]:
    """The mean IoU of the classes that occur, and the share of right pixels; nan of a draw in which no pixel counts."""
    right, _, true = np.moveaxis(parts, -2, 0)
    ious, occur, total = np.nansum(_ious(parts), axis=1), (true > 0).sum(axis=1), true.sum(axis=1)
    sums = np.stack([ious, right.sum(axis=1)], axis=1)
    counts = np.stack([occur, total], axis=1).astype(np.float64)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
