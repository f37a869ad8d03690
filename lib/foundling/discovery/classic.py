"""Baselines without a network: a centred box, the whole image, and Selective Search."""

import ctypes
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from foundling.discovery.facets import check_choice, image_size
from foundling.types import Discovery, ParameterError, PatchFeatures

SIDE = 0.5**0.5  # covers half of the image
MODES = ("fast", "quality")


def centre_box(features: PatchFeatures, side: float | int = SIDE) -> list[Discovery]:
    """A box in the middle of the image, of its shape: the baseline that knows photographers centre their subject.

    ``side`` (above 0, at most 1) is the fraction of the width and of the height; the default covers half of the area.
    Returns one :class:`Discovery` an image. Raises :class:`ParameterError` for another ``side``.
    """
    centre_box_facets(side)
    found = []
    for i in range(len(features)):
        height, width = image_size(features, i)
        margin = np.array([width, height]) * (1 - side) / 2
        found.append(_box_only(np.concatenate([margin, np.array([width, height]) - margin])))
    return found


def centre_box_facets(side: Any = SIDE) -> tuple[str, ...]:
    """None; raises :class:`ParameterError` if ``side`` is not legal."""
    if isinstance(side, bool) or not isinstance(side, int | float) or not 0 < side <= 1:
        raise ParameterError(f"side is {side!r}: give a fraction of width and height, above 0 and at most 1")
    return ()


def whole_image(features: PatchFeatures) -> list[Discovery]:
    """The image's own outline: the baseline that finds every object which fills more than half of its picture."""
    return [centre_box(features[i], side=1.0)[0] for i in range(len(features))]


def whole_image_facets() -> tuple[str, ...]:
    """None."""
    return ()


def selective_search(features: PatchFeatures, mode: str = "fast", seed: int = 0) -> list[Discovery]:
    """Selective Search (Uijlings et al., IJCV 2013): its first-ranked region, from OpenCV's implementation.

    Needs the ``images`` facet (the pictures themselves). ``mode`` is "fast" or "quality" (more colour spaces and
    segmentations, many times slower). The ranking is partly random; ``seed`` fixes it. Values:
    ``regions``, the number proposed. An image too small to have a region gives the whole image, flagged ``no_region``.

    Returns one :class:`Discovery` an image. Raises :class:`ParameterError` for another mode, without the ``images``
    facet, or if OpenCV's contributed modules are not installed.
    """
    selective_search_facets(mode, seed)
    found = []
    for image in features.facet("images"):
        regions = propose(np.asarray(image.convert("RGB")), mode, seed)
        box = regions[0] if len(regions) else np.array([0.0, 0.0, *image.size])
        flags = () if len(regions) else ("no_region",)
        found.append(_box_only(box, values={"regions": float(len(regions))}, flags=flags))
    return found


def selective_search_facets(mode: Any = "fast", seed: Any = 0) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` for a setting that is not legal, or without OpenCV's modules."""
    check_choice("mode", mode, MODES)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ParameterError(f"seed is {seed!r}: give a whole number, 0 or above")
    _opencv()
    return ("images",)


def propose(image: UInt8[np.ndarray, "height width 3"], mode: str, seed: int) -> Float[np.ndarray, "region 4"]:
    """Selective Search's regions in one RGB picture, best first, as boxes in pixels."""
    cv2 = _opencv()
    ctypes.CDLL(None).srand(seed)  # the ranking draws from C's rand(), which OpenCV's own setRNGSeed does not reach
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))  # OpenCV's order is BGR
    {"fast": search.switchToSelectiveSearchFast, "quality": search.switchToSelectiveSearchQuality}[mode]()
    corner_and_size = np.asarray(search.process(), dtype=np.float64).reshape(-1, 4)
    return np.concatenate([corner_and_size[:, :2], corner_and_size[:, :2] + corner_and_size[:, 2:]], axis=1)


def _opencv() -> Any:
    try:
        import cv2

        _ = cv2.ximgproc.segmentation
    except (ImportError, AttributeError) as problem:
        raise ParameterError(
            "selective_search needs OpenCV's contributed modules (cv2.ximgproc): "
            "pip install opencv-contrib-python-headless, and remove other opencv packages"
        ) from problem
    return cv2


def _box_only(
    box: Float[np.ndarray, "4"], values: dict[str, float] | None = None, flags: tuple[str, ...] = ()
) -> Discovery:
    return Discovery(boxes=box[None], scores=np.ones(1), values=values or {}, flags=flags)
