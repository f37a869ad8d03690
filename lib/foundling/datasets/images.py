"""Image files in: one decoded RGB image a file, whatever the file's mode, and the image files of a list of folders.

What a file becomes:

* grey, palette, CMYK, YCbCr, Lab: converted to RGB by Pillow, embedded colour profiles ignored;
* 16-bit grey: scaled from 0…65535 to 0…255 (not clipped); 16-bit colour: its upper eight bits;
* floating-point grey: scaled from 0…1; other ranges and 32-bit integers are refused;
* transparency (alpha channel or transparent colour): laid on white;
* several frames or pages: the first one.
"""

import contextlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from foundling.errors import DataMissing, ImageError
from foundling.types import Failure, Sample

AnyPath = str | os.PathLike[str]

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
FOREIGN_SUFFIXES = (
    ".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2", ".svg",
)  # fmt: skip
MAX_PIXELS = 178_956_970  # where Pillow, by default, begins to refuse: 512 MiB of RGB
# what the decoders of Pillow raise on damaged files (found by flipping bytes)
DECODER_ERRORS = (
    OSError, RuntimeError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip


def read_image(path: AnyPath, orient: bool = False) -> Image.Image:
    """The first frame of the image file ``path`` as an RGB image of its own (see the module's table of conversions).

    With ``orient`` the EXIF orientation is applied (photos); without, pixels stay as stored, which is what the boxes
    of annotated datasets refer to.

    Raises :class:`ImageError`, naming the file and the remedy, if the file is missing, unreadable, empty, no image,
    truncated, without pixels, or larger than ``MAX_PIXELS``.
    """
    path = Path(path)
    with _opened(path) as image:
        image.load()
        return _to_rgb(path, ImageOps.exif_transpose(image) if orient else image)


def first_readable(samples: Iterable[Sample], count: int) -> tuple[list[Sample], list[Image.Image], list[Failure]]:
    """The first ``count`` samples whose files can be read, their images, and what was passed over on the way.

    Fewer, if there are not as many. ``Failure.index`` is the position in ``samples``.
    """
    shown: list[Sample] = []
    images: list[Image.Image] = []
    failures: list[Failure] = []
    for index, sample in enumerate(samples):
        if len(shown) == count:
            break
        try:
            images.append(read_image(sample.path, orient=sample.orient))
            shown.append(sample)
        except ImageError as error:
            failures.append(Failure(sample.name, index, str(error)))
    return shown, images, failures


def image_size(path: AnyPath) -> tuple[int, int]:
    """Height and width of the image file ``path`` as stored, from its header alone; raises as :func:`read_image`."""
    with _opened(Path(path)) as image:
        return image.height, image.width


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image file, opened but not decoded; whatever goes wrong in the block becomes an :class:`ImageError`."""
    try:
        _check_file(path)
        with Image.open(path) as image:
            _check_size(path, image.size)
            yield image
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the path") from error
    except PermissionError as error:
        raise ImageError(f"{path}: may not be read; change its permissions, or those of its folder") from error
    except UnidentifiedImageError as error:
        text = f"{path}: not an image in a known format, or its header is damaged or announces no pixels; remove it"
        raise ImageError(text) from error
    except Image.DecompressionBombError as error:
        raise ImageError(_too_large(path)) from error
    except DECODER_ERRORS as error:
        raise ImageError(f"{path}: damaged or truncated image ({error}); copy or export it again") from error


def _check_file(path: Path) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path}: a folder, not an image; open it with open_dataset('folder', root=…)")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path}: a pipe or device, not a file; save the image to a file first")
    if status.st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy or download it again")


def _check_size(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(_too_large(path))


def _too_large(path: Path) -> str:
    return f"{path}: more than {MAX_PIXELS:,} pixels (a decompression bomb, perhaps); scale it down first"


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(path, image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _deep_grey(path: Path, image: Image.Image) -> Image.Image:
    """Grey of more than eight bits, scaled to eight; Pillow's own conversion would clip at 255."""
    values = np.asarray(image, dtype=np.float32)
    top = 1 if image.mode == "F" else 65535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        raise ImageError(
            f"{path}: {image.mode!r} image with values outside 0…{top}, whose white point is unknown; "
            "export it with 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def natural_key(path: AnyPath) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Sort key under which ``img2`` comes before ``img10``, in file names and in folder names, whatever the case."""
    return tuple(
        tuple((0, int(t), "") if t.isdecimal() else (1, 0, t) for t in re.split(r"(\d+)", part.casefold()) if t)
        for part in Path(path).parts
    )


def list_images(paths: AnyPath | Iterable[AnyPath]) -> tuple[list[Path], list[Failure]]:
    """The image files among ``paths``: files are taken whatever their suffix, folders are searched recursively.

    Hidden files and folders are skipped, and so are files without one of ``IMAGE_SUFFIXES``. A file reached twice is
    listed once. Returns the files in natural order, and one failure (index −1) for each path that does not exist,
    folder that may not be listed, and photo in a format that cannot be read (HEIC, raw).

    Raises :class:`DataMissing` if there is no image file at all.
    """
    given = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    found: dict[Path, Path] = {}
    failures: list[Failure] = []
    for path in given:
        if os.path.isdir(path):  # noqa: PTH112  (False, where Path.is_dir would raise for want of permission)
            for file in _walk(path, failures):
                found.setdefault(file.parent.resolve() / file.name, file)
        elif os.path.exists(path):  # noqa: PTH110
            found.setdefault(path.parent.resolve() / path.name, path)
        else:
            failures.append(Failure(str(path), -1, f"{path}: no such file or folder; check the path"))
    if not found:
        raise DataMissing(_nothing(given, failures))
    return sorted(found.values(), key=lambda path: (natural_key(path), str(path))), failures


def _walk(top: Path, failures: list[Failure]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        failures.append(Failure(str(error.filename), -1, f"{error.filename}: folder not listed ({error.strerror})"))

    seen: set[str] = set()  # folders may be links, even to a folder above
    for folder, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(folder))
        folders[:] = [f for f in folders if not f.startswith(".") and os.path.realpath(Path(folder, f)) not in seen]
        for file in (Path(folder, name) for name in files if not name.startswith(".")):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                yield file
            elif file.suffix.lower() in FOREIGN_SUFFIXES:
                text = f"{file}: {file.suffix} files are not read; convert it to JPEG or PNG"
                failures.append(Failure(str(file), -1, text))


def _nothing(given: list[Path], failures: list[Failure]) -> str:
    where = ", ".join(map(str, given)) or "an empty list of paths"
    reasons = "".join(f"\n  {failure.error}" for failure in failures[:5])
    return f"no image file in {where}: looked recursively for {' '.join(IMAGE_SUFFIXES)}{reasons}"
