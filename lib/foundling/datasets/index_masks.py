"""Masks in the manner of DAVIS: PNG files whose pixels are object numbers, 0 the background and 255 void."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from foundling.datasets.images import DECODER_ERRORS, image_size
from foundling.errors import ImageError, ParameterError


def _palette() -> bytes:
    """The colours of PASCAL VOC's and DAVIS's masks: the bits of a number, dealt out in turn to red, green and blue."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1]  # [number, bit], lowest first
    colours = np.zeros((256, 3), dtype=np.uint8)
    for channel in range(3):
        for place in range(3):
            if (bit := 3 * place + channel) < 8:
                colours[:, channel] |= bits[:, bit] << (7 - place)
    return colours.tobytes()


PALETTE = _palette()


def read_labels(path: Path) -> UInt8[np.ndarray, "h w"]:
    """The object numbers of one mask file.

    Raises :class:`ImageError`, naming the file, if it is missing, damaged, or not an image of one number a pixel.
    """
    image_size(path)  # whatever is wrong with the file itself has its message there
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise ImageError(
                    f"{path}: a mask must be an indexed PNG (mode P or L, one object number a pixel), but this is "
                    f"{image.mode}; save it without converting it to colours"
                )
            return np.array(image)
    except DECODER_ERRORS as error:
        raise ImageError(f"{path}: damaged or truncated mask ({error}); copy or export it again") from error


def read_masks(paths: Sequence[Path]) -> UInt8[np.ndarray, "frame h w"]:
    """The masks of a video, in order; raises :class:`ImageError` as :func:`read_labels`, or where sizes differ."""
    masks = [read_labels(path) for path in paths]
    if not masks:
        raise ParameterError("no mask files given: a video has at least one")
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise ImageError(
                f"{path}: {mask.shape[1]}×{mask.shape[0]} pixels, but the first mask of the video, {paths[0].name}, "
                f"has {masks[0].shape[1]}×{masks[0].shape[0]}: all masks of a video must have one size"
            )
    return np.stack(masks)


def write_labels(path: Path, labels: UInt8[np.ndarray, "h w"]) -> None:
    """Write one mask as an indexed PNG in DAVIS's colours; equal masks give equal bytes."""
    image = Image.fromarray(labels)
    image.putpalette(PALETTE)
    image.save(path, format="PNG")
