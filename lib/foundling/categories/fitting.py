"""What fits a network and a set of objects: how to describe them, and how many clusters and neighbours there may be."""

from typing import Any

import numpy as np
from jaxtyping import Float

from foundling.backbones import BACKBONES
from foundling.categories.cluster import NEIGHBOURS
from foundling.errors import ParameterError

LEAST = 3  # objects: of fewer there is no graph of neighbours


def description_of(backbone: str) -> dict[str, Any]:
    """How :func:`foundling.categories.describe_objects` describes objects best with the network of that name.

    Its arguments, and an empty dict for those of COMUS, its defaults. The embedded networks, whose CLS token was never
    trained, take the texture of small grey crops (measured: see :mod:`foundling.categories.describe`), and networks
    without a CLS token the mean of their patches; the embedded one for objects was trained on small painted crops.
    """
    embedded = BACKBONES[backbone].embedded
    if "cls" not in BACKBONES[backbone].facets:
        return {"descriptor": "mean", **({"side": 64, "background": "mean"} if embedded else {})}
    if not embedded:
        return {}
    return {"descriptor": "texture", "side": 64, "colour": False, "background": "mean"}


def fitted(
    descriptors: Float[np.ndarray, "object channel"], clusters: int, neighbours: int = NEIGHBOURS
) -> tuple[int, int]:
    """``clusters`` and ``neighbours``, lowered to what the number of objects with finite descriptors allows.

    Raises :class:`ParameterError` for fewer than 3 such objects.
    """
    count = int(np.isfinite(descriptors).all(axis=1).sum())
    if count < LEAST:
        raise ParameterError(
            f"{count} object{'s' * (count != 1)} with a descriptor: grouping takes {LEAST} or more; give more images, "
            "or let smaller masks be objects"
        )
    return min(clusters, count), min(neighbours, count - 1)
