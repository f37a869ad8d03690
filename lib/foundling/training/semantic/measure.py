"""Label maps against the truth: what :func:`foundling.evaluation.segmentation.segmentation_scores` is fed with."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt8

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.base import Dataset
from foundling.datasets.semantic import semantic_truth
from foundling.errors import ImageError, ParameterError
from foundling.evaluation.segmentation import confusion
from foundling.types import VOID, Failure, Sample


def confusions(
    found: Iterable[tuple[Sample, UInt8[np.ndarray, "_ _"]]], dataset: Dataset, clusters: int, failures: list[Failure]
) -> Int[np.ndarray, "image cluster class"]:
    """How many pixels each cluster shares with each class in every image of ``dataset``, background first in both.

    ``found`` are label maps of its images, in any order, as :func:`foundling.training.semantic.predict.segment` gives
    them: 0 is background, then cluster + 1, of ``clusters``; void counts as background. An image without one, or
    without a usable truth, has a table of zeros and so does not count; the latter is appended to ``failures``.

    Raises :class:`ParameterError` for a map of an image that is not in ``dataset``, of a cluster that there is none of,
    or of another size than its truth.
    """
    places = {sample.name: i for i, sample in enumerate(dataset)}
    tables = np.zeros((len(dataset), clusters + 1, len(dataset.categories) + 1), dtype=np.int64)
    for sample, labels in found:
        if sample.name not in places:
            raise ParameterError(
                f"{sample.name} is not among the {len(dataset)} images of {dataset.name}: segment these, and no others"
            )
        i = places[sample.name]
        try:
            truth = semantic_truth(dataset[i], dataset)
        except ImageError as error:
            failures.append(Failure(sample.name, i, str(error)))
            continue
        tables[i] = confusion(np.where(labels == VOID, 0, labels), truth, *tables.shape[1:])
    return tables


def maps_of(masks: PseudoMasks, samples: Sequence[Sample]) -> Iterator[tuple[Sample, UInt8[np.ndarray, "_ _"]]]:
    """Label maps on disk as :func:`confusions` takes them, one at a time.

    Images without one are left out. Raises :class:`ParameterError` if there are not as many as ``samples``, and
    ImageError for one that is missing or damaged.
    """
    masks.check(samples)
    for i, sample in enumerate(samples):
        labels = masks.read(i)
        if labels is not None:
            yield sample, labels
