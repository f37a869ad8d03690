"""Saliency from the spectral cut in two: the part that touches less of the image's border is the foreground.

Engstler et al., Understanding Self-Supervised Features for Learning Unsupervised Instance Segmentation, 2023,
section 4.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool

from foundling.discovery.components import mask_box
from foundling.discovery.facets import image_size
from foundling.discovery.spectral import one_hot, partitions, spectral_facets, spectral_values
from foundling.types import Discovery, PatchFeatures


def saliency(features: PatchFeatures, facet: str = "keys", colour: float | int = 0.0, seed: int = 0) -> list[Discovery]:
    """One mask an image (section 4): the part of the spectral cut in two that has fewer patches on the border.

    The whole part, connected or not, and the box around all of it. ``facet``, ``colour`` and ``seed`` as for
    :func:`foundling.discovery.spectral.spectral_masks`. Values: ``eigenvalue_2``, ``gap_2``, and ``border``, the share
    of the border's patches that are foreground. Flag ``undefined_cut`` as there: one choice of many. Where all weights
    are equal, the image has one patch, or features are not finite (``not_finite``), the mask is the whole image.

    Returns one :class:`Discovery` an image. Raises :class:`ParameterError` as ``spectral_masks`` does.
    """
    saliency_facets(facet, colour, seed)
    rows, columns = features.grid
    k = min(2, rows * columns)
    parts = partitions(features, (k,), facet, colour, seed=seed)
    masks = one_hot(parts.labels[k], k).cpu().numpy().reshape(-1, k, rows, columns)
    eigenvalues, flat = parts.eigenvalues.cpu().numpy(), parts.flat.tolist()
    found = []
    for i, two in enumerate(masks):
        mask = np.ones((rows, columns), dtype=bool) if flat[i] else two[border_foreground(two)]
        edge = np.pad(np.zeros((max(rows - 2, 0), max(columns - 2, 0)), dtype=bool), 1, constant_values=True)
        share = {"border": float(mask[edge[:rows, :columns]].mean())}
        found.append(
            Discovery(
                boxes=mask_box(mask, features.patch_size, image_size(features, i))[None],
                scores=np.ones(1),
                masks=mask[None],
                values={} if "not_finite" in parts.flags[i] else spectral_values(eigenvalues[i], (k,)) | share,
                flags=parts.flags[i],
            )
        )
    return found


def saliency_facets(facet: Any = "keys", colour: Any = 0.0, seed: Any = 0) -> tuple[str, ...]:
    """The facets that :func:`saliency` reads; raises :class:`ParameterError` if a setting is not legal."""
    return spectral_facets((2,), facet, colour, False, seed)


def border_foreground(masks: Bool[np.ndarray, "2 rows columns"]) -> int:
    """Which of two parts is the foreground: the one with fewer patches on the image's border.

    Every border patch counts once, corners too. On a tie it is the smaller part; of equal parts the first.
    """
    inner = masks[:, 1:-1, 1:-1].sum((1, 2))
    area = masks.sum((1, 2))
    return min(range(len(masks)), key=lambda part: (area[part] - inner[part], area[part], part))
