"""Reading image files and listing folders, on files that were made to be difficult."""

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from foundling.datasets import images
from foundling.datasets.images import image_size, list_images, natural_key, read_image
from foundling.errors import DataMissing, ImageError
from strange_images import JPEG_SLACK, WIDTH, Expected, make_strange_images, png_header


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Expected]]:
    folder = tmp_path_factory.mktemp("strange")
    return folder, make_strange_images(folder)


def corner(image: Image.Image) -> np.ndarray:
    return np.array(image.getpixel((0, 0)), dtype=int)


def test_every_strange_image_reads_as_defined_or_fails_clearly(strange):
    folder, expected = strange
    for name, wanted in expected.items():
        if wanted.error is not None:
            with pytest.raises(ImageError) as caught:
                read_image(folder / name, orient=True)
            assert str(folder / name) in str(caught.value)
            assert wanted.error in str(caught.value), name
            continue
        image = read_image(folder / name, orient=True)
        assert (image.mode, image.size) == ("RGB", wanted.size), name
        slack = JPEG_SLACK if name.endswith("jpg") else 0
        assert np.abs(corner(image) - wanted.corner).max() <= slack, (name, corner(image))


def test_orientation_is_applied_only_when_asked_for(strange):
    folder, _ = strange
    stored, shown = read_image(folder / "rotated.jpg"), read_image(folder / "rotated.jpg", orient=True)
    turned = stored.transpose(Image.Transpose.ROTATE_270)
    assert stored.size == turned.size[::-1] == shown.size[::-1]
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(turned))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_exif_orientation(tmp_path, orientation):
    upright = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
    # by the EXIF table, the stored picture is the shown one put through the inverse of its transposition
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png", orient=True)), upright)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), stored)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        grey = np.asarray(read_image(tmp_path / name))
        np.testing.assert_array_equal(grey, np.arange(256).reshape(16, 16, 1).repeat(3, 2))


def test_float_outside_the_unit_range_is_refused(tmp_path):
    for value in (-0.1, 1.5, np.nan):
        Image.fromarray(np.full((4, 4), value, np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(ImageError, match="outside 0…1"):
            read_image(tmp_path / "a.tif")


FORMATS = [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("BMP", {}), ("PPM", {}), ("WEBP", {}),
    ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), FORMATS, ids=str)
@pytest.mark.filterwarnings("ignore")  # Pillow also warns about damaged TIFF
def test_a_cut_file_is_never_half_an_image(tmp_path, rng, kind, options):
    pixels = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    pixels.save(buffer, kind, **options)
    data, file = buffer.getvalue(), tmp_path / "cut"
    file.write_bytes(data)
    whole = np.asarray(read_image(file))
    refused = 0
    for length in [*range(0, len(data), len(data) // 25), *range(len(data) - 15, len(data))]:
        file.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(np.asarray(read_image(file)), whole)
        except ImageError:
            refused += 1
    assert refused >= 25


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "flipped"


@settings(deadline=None, max_examples=200, database=None, derandomize=True)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_give_an_image_or_an_image_error(scratch, data):
    kind, options = data.draw(st.sampled_from(FORMATS))
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((20, 16)).convert("RGB").save(buffer, kind, **options)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(content)
    try:
        image = read_image(scratch, orient=True)
    except ImageError as error:
        assert str(scratch) in str(error)
    else:
        assert image.mode == "RGB"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_damaged_avif(tmp_path):
    Image.linear_gradient("L").resize((20, 16)).convert("RGB").save(tmp_path / "a.avif")
    data = (tmp_path / "a.avif").read_bytes()
    causes = set()
    for position in range(0, len(data), 2):
        (tmp_path / "a.avif").write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            assert read_image(tmp_path / "a.avif").mode == "RGB"
        except ImageError as error:
            causes.add(type(error.__cause__))
    assert RuntimeError in causes  # which no other decoder raises


def test_what_is_no_file(tmp_path):
    for path, phrase in ((tmp_path / "none.jpg", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(ImageError, match=phrase):
            read_image(path)
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    with pytest.raises(ImageError, match="a pipe or device"):
        read_image(tmp_path / "pipe.jpg")


@pytest.fixture
def locked() -> Iterator[Path]:
    """A readable folder with a file and a folder that may not be read, whoever runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        Image.new("RGB", (4, 4)).save(top / "open.png")
        Image.new("RGB", (4, 4)).save(top / "locked.png")
        (top / "closed").mkdir()
        Image.new("RGB", (4, 4)).save(top / "closed" / "inside.png")
        (top / "locked.png").chmod(0)
        (top / "closed").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # the superuser may read everything
        yield top
        os.seteuid(user)
        (top / "closed").chmod(0o755)


def test_files_and_folders_without_permission(locked):
    for name in ("locked.png", "closed/inside.png"):
        with pytest.raises(ImageError, match="may not be read; change its permissions"):
            read_image(locked / name)
    files, failures = list_images(locked)
    assert [file.name for file in files] == ["locked.png", "open.png"]
    assert [(failure.name, failure.index) for failure in failures] == [(str(locked / "closed"), -1)]
    assert "Permission denied" in failures[0].error


def test_a_limit_on_pixels_of_our_own(tmp_path, monkeypatch):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 200)
    assert read_image(tmp_path / "a.png").size == (20, 10)
    monkeypatch.setattr(images, "MAX_PIXELS", 199)
    with pytest.raises(ImageError, match="more than 199 pixels"):
        read_image(tmp_path / "a.png")


def test_size_comes_from_the_header_alone(tmp_path, strange):
    folder, _ = strange
    (tmp_path / "headless.png").write_bytes(png_header(300, 200))
    assert image_size(tmp_path / "headless.png") == (200, 300)
    assert image_size(folder / "rotated.jpg") == (30, WIDTH)
    with pytest.raises(ImageError, match="not an image"):
        image_size(folder / "text.jpg")


def test_natural_order():
    names = [
        "img10.jpg",
        "img2.jpg",
        "IMG1.jpg",
        "a/img10.jpg",
        "a/img9.jpg",
        "a10/x.jpg",
        "a9/x.jpg",
        "7.jpg",
        "x²1.png",
    ]
    shuffled = sorted(names, key=natural_key)
    assert shuffled == [
        "7.jpg", "a/img9.jpg", "a/img10.jpg", "a9/x.jpg", "a10/x.jpg", "IMG1.jpg", "img2.jpg", "img10.jpg", "x²1.png"
    ]  # fmt: skip


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_a_folder_is_searched_recursively_and_hidden_files_are_not_taken(tmp_path):
    touch(*(tmp_path / name for name in ("b.jpg", "a/c.PNG", "a/notes.txt", ".hidden.jpg", ".git/d.jpg", "a/e.jpg")))
    files, failures = list_images(tmp_path)
    assert files == [tmp_path / "a/c.PNG", tmp_path / "a/e.jpg", tmp_path / "b.jpg"]
    assert failures == []


def test_a_file_given_twice_is_listed_once(tmp_path, monkeypatch):
    touch(tmp_path / "p/a.jpg", tmp_path / "p/b.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "p", target_is_directory=True)
    (tmp_path / "p/up").symlink_to(tmp_path, target_is_directory=True)  # a loop
    monkeypatch.chdir(tmp_path)
    files, failures = list_images(["p", tmp_path / "p/a.jpg", "p/../p/b.jpg", "link", tmp_path])
    assert [file.name for file in files] == ["a.jpg", "b.jpg"]
    assert failures == []


def test_linked_folders_are_searched(tmp_path):
    touch(tmp_path / "disk/a.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/link").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert list_images(tmp_path / "photos")[0] == [tmp_path / "photos/link/a.jpg"]


def test_a_given_file_is_taken_whatever_its_suffix(tmp_path):
    touch(tmp_path / "photo.dat")
    assert list_images([tmp_path / "photo.dat"]) == ([tmp_path / "photo.dat"], [])


def test_missing_paths_and_unread_formats_are_failures_and_the_rest_goes_on(tmp_path):
    touch(tmp_path / "p/a.jpg", tmp_path / "p/IMG_1.HEIC")
    files, failures = list_images([tmp_path / "p", tmp_path / "typo.jpg"])
    assert [file.name for file in files] == ["a.jpg"]
    assert [failure.index for failure in failures] == [-1, -1]
    assert "IMG_1.HEIC: .HEIC files are not read; convert it" in failures[0].error
    assert "typo.jpg: no such file or folder" in failures[1].error


def test_nothing_to_read(tmp_path):
    touch(tmp_path / "empty/notes.txt")
    with pytest.raises(DataMissing, match=r"no image file in .*empty: looked recursively for \.avif .*\.webp"):
        list_images(tmp_path / "empty")
    with pytest.raises(DataMissing, match="typo: no such file or folder"):
        list_images([tmp_path / "typo"])
    with pytest.raises(DataMissing, match="an empty list of paths"):
        list_images([])
