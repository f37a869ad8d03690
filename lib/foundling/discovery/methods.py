"""The registry of discovery methods: one line a method."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foundling.discovery.classic import (
    centre_box,
    centre_box_facets,
    selective_search,
    selective_search_facets,
    whole_image,
    whole_image_facets,
)
from foundling.discovery.colour import (
    colour_lost,
    colour_lost_facets,
    colour_spectral,
    colour_spectral_facets,
    colour_tokencut,
    colour_tokencut_facets,
)
from foundling.discovery.dino_seg import dino_seg, dino_seg_facets
from foundling.discovery.lost import lost, lost_facets
from foundling.discovery.maskcut import maskcut, maskcut_facets
from foundling.discovery.saliency import saliency, saliency_facets
from foundling.discovery.spectral import spectral_facets, spectral_masks
from foundling.discovery.tokencut import tokencut, tokencut_facets
from foundling.types import Discovery, ParameterError


@dataclass(frozen=True)
class Method:
    """One way of discovering objects.

    ``run`` takes the features and the settings; ``facets`` takes the settings, raises :class:`ParameterError` if one
    is not legal, and returns the facets that ``run`` will read.
    """

    name: str
    run: Callable[..., list[Discovery]]
    facets: Callable[..., tuple[str, ...]]
    description: str

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings of the method and their default values."""
        parameters = list(inspect.signature(self.run).parameters.values())[1:]
        return {p.name: p.default for p in parameters}


_METHODS = (
    Method("lost", lost, lost_facets, "patches that resemble the least typical patch"),
    Method("tokencut", tokencut, tokencut_facets, "one side of the normalised cut of the graph of patches"),
    Method("dino_seg", dino_seg, dino_seg_facets, "patches that hold most of the CLS token's attention"),
    Method("maskcut", maskcut, maskcut_facets, "TokenCut repeated without what it has found: several masks an image"),
    Method("spectral", spectral_masks, spectral_facets, "all parts of the spectral cuts into 2 to 6 parts"),
    Method("saliency", saliency, saliency_facets, "the part of the spectral cut in two that touches the border less"),
    Method("colour_lost", colour_lost, colour_lost_facets, "LOST on patch colours: the control without a network"),
    Method("colour_tokencut", colour_tokencut, colour_tokencut_facets, "TokenCut on patch colours: the same control"),
    Method(
        "colour_spectral", colour_spectral, colour_spectral_facets, "spectral masks of patch colours: the same again"
    ),
    Method("centre_box", centre_box, centre_box_facets, "a box in the middle of the image"),
    Method("whole_image", whole_image, whole_image_facets, "the whole image"),
    Method("selective_search", selective_search, selective_search_facets, "the first region of Selective Search"),
)
METHODS: dict[str, Method] = {method.name: method for method in _METHODS}


def resolve_method(label: str, settings: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """The method that ``settings["method"]`` names (``label`` itself if it names none), and all of its settings.

    Defaults are filled in and every value is checked.
    Raises :class:`ParameterError` naming the legal methods, settings or values.
    """
    given = dict(settings)
    name = given.pop("method", label)
    if name not in METHODS:
        raise ParameterError(f"unknown method {name!r} (for {label!r}): choose one of {', '.join(METHODS)}")
    method = METHODS[name]
    if unknown := [key for key in given if key not in method.defaults]:
        legal = ", ".join(method.defaults) or "none"
        raise ParameterError(f"{label}: method {name} has no setting {unknown[0]!r}; its settings are: {legal}")
    complete = {**method.defaults, **given}
    method.facets(**complete)
    return method, complete
