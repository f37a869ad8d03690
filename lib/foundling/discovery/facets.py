"""Which facets of the features describe patches, and how the methods read them and check their settings."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from foundling.types import ParameterError, PatchFeatures

PATCH_FACETS = ("keys", "queries", "values", "tokens")


def patch_facet(features: PatchFeatures, name: str, centre: bool = False) -> Float[Tensor, "image patch channel"]:
    """The patch descriptors called ``name``, in float32 whatever precision they were extracted in.

    With ``centre``, less their mean over the patches of each image: what all patches share is no sign of an object.
    Raises :class:`ParameterError` if ``name`` is not one of :data:`PATCH_FACETS` or was not extracted.
    """
    check_choice("facet", name, PATCH_FACETS)
    descriptors = features.facet(name).float()
    return descriptors - descriptors.mean(dim=1, keepdim=True) if centre else descriptors


def image_size(features: PatchFeatures, i: int) -> tuple[int, int]:
    """Height and width in pixels of image ``i`` as the network saw it, before padding."""
    height, width = features.image_sizes[i].tolist()
    return height, width


def check_switch(setting: str, value: object) -> None:
    """Raise :class:`ParameterError` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ParameterError(f"{setting} is {value!r}: choose true or false")


def check_choice(setting: str, value: object, legal: Sequence[str]) -> None:
    """Raise :class:`ParameterError` unless ``value`` is one of the ``legal`` ones."""
    if value not in legal:
        raise ParameterError(f"{setting} is {value!r}: choose one of {', '.join(legal)}")
