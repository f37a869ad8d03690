"""Files that a folder of photos may hold: each either reads to something defined, or fails with a clear message.

``make_strange_images(folder)`` writes them; tests of any layer (reading, extraction, the commands) import it.
"""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30
ORANGE = (250, 130, 20)
JPEG_SLACK = 6  # grey levels that JPEG may move a flat colour by


class Expected(NamedTuple):
    """What reading a file gives: an error that contains ``error``, or an image of ``size`` (width, height) whose top
    left pixel is ``corner``."""

    error: str | None = None
    size: tuple[int, int] = (WIDTH, HEIGHT)
    corner: tuple[int, int, int] = ORANGE


def make_strange_images(folder: Path, large: bool = True) -> dict[str, Expected]:
    """Write the files into ``folder`` and return what is expected of each; ``large`` adds those that take memory."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = _broken(folder) | _modes(folder) | _shapes(folder) | _names(folder)
    return expected | make_large_image(folder) if large else expected


def _plain(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), ORANGE).convert(mode)


def _broken(folder: Path) -> dict[str, Expected]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "whole.jpg")
    noise.save(folder / "whole.png")
    for name in ("whole.jpg", "whole.png"):
        data = (folder / name).read_bytes()
        (folder / name.replace("whole", "truncated")).write_bytes(data[: len(data) * 6 // 10])
        (folder / name).unlink()
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("This was never a photo.\n")
    (folder / "zero_pixels.png").write_bytes(png_header(0, 5))
    (folder / "bomb.png").write_bytes(png_header(40_000, 40_000))
    Image.fromarray(np.full((HEIGHT, WIDTH), 70_000, np.int32)).save(folder / "int32.tif")
    return {
        "truncated.jpg": Expected("truncated"),
        "truncated.png": Expected("truncated"),
        "empty.jpg": Expected("empty"),
        "text.jpg": Expected("not an image"),
        "zero_pixels.png": Expected("announces no pixels"),
        "bomb.png": Expected("decompression bomb"),
        "int32.tif": Expected("8 or 16 bits"),
    }


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces ``width`` × ``height`` RGB pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _modes(folder: Path) -> dict[str, Expected]:
    _plain("CMYK").save(folder / "cmyk.jpg", quality=95)
    _plain("L").save(folder / "grey.jpg", quality=95)
    Image.new("1", (WIDTH, HEIGHT), 1).save(folder / "bilevel.png")
    # the middle of 16 bits, which a conversion that clips at 255 would turn white
    Image.fromarray(np.full((HEIGHT, WIDTH), 32_768, np.uint16)).save(folder / "grey16.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 0.5, np.float32)).save(folder / "float.tif")
    Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGBA", (WIDTH, HEIGHT), (255, 0, 0, 128)).save(folder / "half_clear.png")
    Image.new("LA", (WIDTH, HEIGHT), (0, 0)).save(folder / "clear_grey.png")
    palette = _plain("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    palette.save(folder / "palette_clear.png", transparency=palette.getpixel((0, 0)))
    _plain("P").save(folder / "palette.gif")
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    for name in ("animated.gif", "animated.png", "animated.webp", "pages.tif"):
        extra = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], **extra)
    grey = round(0.299 * 250 + 0.587 * 130 + 0.114 * 20)
    white, red = (255, 255, 255), Expected(corner=(200, 0, 0))
    return {
        "cmyk.jpg": Expected(),
        "grey.jpg": Expected(corner=(grey, grey, grey)),
        "bilevel.png": Expected(corner=white),
        "grey16.png": Expected(corner=(128, 128, 128)),
        "float.tif": Expected(corner=(128, 128, 128)),
        "clear.png": Expected(corner=white),
        "half_clear.png": Expected(corner=(255, 127, 127)),
        "clear_grey.png": Expected(corner=white),
        "palette_clear.png": Expected(corner=white),
        "palette.gif": Expected(corner=(255, 153, 0)),  # the nearest of Pillow's web palette
        "animated.gif": red,
        "animated.png": red,
        "animated.webp": red,
        "pages.tif": red,
    }


def _shapes(folder: Path) -> dict[str, Expected]:
    Image.new("RGB", (1, 1), ORANGE).save(folder / "one_pixel.png")
    Image.new("RGB", (20_000, 10), ORANGE).save(folder / "wide.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "black.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = _plain()
    turned.paste((0, 0, 255), (0, HEIGHT // 2, WIDTH, HEIGHT))  # stored: blue below; shown: blue on the left
    turned.save(folder / "rotated.jpg", exif=exif, quality=95)
    return {
        "one_pixel.png": Expected(size=(1, 1)),
        "wide.png": Expected(size=(20_000, 10)),
        "black.png": Expected(corner=(0, 0, 0)),
        "rotated.jpg": Expected(size=(HEIGHT, WIDTH), corner=(0, 0, 255)),  # as read with orient=True
    }


def _names(folder: Path) -> dict[str, Expected]:
    names = ("with space.png", "größe_猫.png", "a&b<i>'\".png", "$5_and_$6.png", "upper.PNG", "sub/black.png")
    (folder / "sub").mkdir(exist_ok=True)
    for name in names:
        _plain().save(folder / name)
    return dict.fromkeys(names, Expected())


def make_large_image(folder: Path) -> dict[str, Expected]:
    """Write a small file of 60 megapixels, and return what is expected of it."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L", (10_000, 6_000), 77).save(folder / "sixty_megapixels.png", compress_level=1)
    return {"sixty_megapixels.png": Expected(size=(10_000, 6_000), corner=(77, 77, 77))}
