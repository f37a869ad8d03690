"""Pseudo-masks: label maps by hand and from a naive oracle, files and their names, resumed runs, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundling.categories import Objects
from foundling.categories.pseudo_masks import MADE_OF, file_names, label_map, write_pseudo_masks
from foundling.datasets.index_masks import PALETTE, write_labels
from foundling.discovery.export import encode_mask
from foundling.errors import ImageError, ParameterError
from foundling.types import Sample

VOID = 255


def rectangle(size: tuple[int, int], top: int, bottom: int, left: int, right: int) -> dict:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return encode_mask(mask)


def make_objects(rows: list[tuple[int, dict | None, list[float]]]) -> Objects:
    """Objects from (image, mask, box)."""
    images = np.array([image for image, _, _ in rows], dtype=np.int64)
    return Objects(
        images,
        tuple(f"{image}.jpg" for image in images.tolist()),
        np.arange(len(rows)),
        np.array([box for _, _, box in rows], dtype=np.float64).reshape(-1, 4),
        np.ones(len(rows)),
        tuple(mask for _, mask, _ in rows),
    )


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Four images of different sizes, the last of which is none."""
    found = []
    for i, size in enumerate([(8, 6), (5, 9), (7, 7), (4, 4)]):
        Image.new("RGB", size[::-1]).save(tmp_path / f"{i}.jpg")
        found.append(Sample(f"{i}.jpg", tmp_path / f"{i}.jpg", i))
    found[3].path.write_bytes(b"no image")
    return found


@pytest.fixture
def objects() -> Objects:
    """Two objects in the first image, one (a box) in the second, none in the third, one in the fourth."""
    return make_objects(
        [
            (1, None, [2.0, 1.0, 5.0, 4.0]),
            (0, rectangle((8, 6), 0, 4, 0, 3), [0.0, 0.0, 3.0, 4.0]),
            (0, rectangle((8, 6), 2, 8, 2, 6), [2.0, 2.0, 6.0, 8.0]),
            (3, rectangle((4, 4), 0, 2, 0, 2), [0.0, 0.0, 2.0, 2.0]),
        ]
    )


def test_label_maps_by_hand() -> None:
    size = (4, 5)
    first, second = rectangle(size, 0, 3, 0, 3), rectangle(size, 1, 4, 2, 5)
    expected = np.array([[5, 5, 5, 0, 0], [5, 5, 5, 1, 1], [5, 5, 5, 1, 1], [0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(label_map([first, second], np.array([4, 0]), size), expected)
    doubtful = np.where(expected == 5, VOID, expected)
    doubtful[1:3, 2] = 1  # an object with a cluster goes before one in doubt
    np.testing.assert_array_equal(label_map([first, second], np.array([-1, 0]), size), doubtful)
    np.testing.assert_array_equal(label_map([[1.0, 0.0, 3.0, 2.0]], np.array([2]), (2, 4)), [[0, 3, 3, 0]] * 2)
    assert not label_map([], np.zeros(0, dtype=np.int64), size).any()
    with pytest.raises(ImageError, match="its mask is 5×4 pixels and its image 4×5"):
        label_map([first], np.array([0]), (5, 4))


def test_against_pixel_by_pixel(rng: np.random.Generator) -> None:
    masks, labels = rng.random((5, 6, 7)) < 0.4, np.array([3, -1, 0, 3, -1])
    found = label_map([encode_mask(mask) for mask in masks], labels, (6, 7))
    for y, x in np.ndindex(6, 7):
        here = [int(label) for mask, label in zip(masks, labels, strict=True) if mask[y, x]]
        sure = [label for label in here if label >= 0]
        assert found[y, x] == (sure[0] + 1 if sure else VOID if here else 0)


def test_files_hold_the_maps(samples: list[Sample], objects: Objects, tmp_path: Path) -> None:
    made = write_pseudo_masks(tmp_path / "out", samples, objects, np.array([1, 0, -1, 2]), clusters=4)
    assert [file.name if file else None for file in made.files] == ["0.png", "1.png", "2.png", None]
    assert [(failure.name, failure.index) for failure in made.failures] == [("3.jpg", 3)]
    first = np.zeros((8, 6), dtype=np.uint8)
    first[2:8, 2:6], first[0:4, 0:3] = VOID, 1
    np.testing.assert_array_equal(made.read(0, (8, 6)), first)
    second = np.zeros((5, 9), dtype=np.uint8)
    second[1:4, 2:5] = 2
    np.testing.assert_array_equal(made.read(1), second)
    np.testing.assert_array_equal(made.read(2), np.zeros((7, 7)))  # no object: all background
    assert made.read(3) is None
    with Image.open(tmp_path / "out/0.png") as image:
        assert image.mode == "P" and bytes(image.getpalette()) == PALETTE
        assert image.convert("RGB").getpixel((0, 0)) == (128, 0, 0)  # the colour of VOC's first class


def test_images_in_doubt_are_left_out_if_asked(samples: list[Sample], objects: Objects, tmp_path: Path) -> None:
    labels = np.array([-1, 0, -1, 2])
    made = write_pseudo_masks(tmp_path / "out", samples[:3], objects[[0, 1, 2]], labels[:3], leave_out=True)
    assert made.left_out == ("1.jpg",) and made.files[1] is None
    assert made.files[0] is not None and made.files[2] is not None  # one object is sure; no object at all
    kept = write_pseudo_masks(tmp_path / "out", samples[:3], objects[[0, 1, 2]], labels[:3])
    assert kept.left_out == () and set(np.unique(kept.read(1))) == {0, VOID}


def test_a_run_goes_on_where_it_stopped(
    samples: list[Sample], objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foundling.categories import pseudo_masks

    out, labels, written = tmp_path / "out", np.array([1, 0, 2, 2]), []

    def write(path: Path, found: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_labels(path, found)

    monkeypatch.setattr(pseudo_masks, "write_labels", write)
    with pytest.raises(KeyboardInterrupt):
        write_pseudo_masks(out, samples, objects, labels)
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", MADE_OF]  # and no half a file
    monkeypatch.setattr(pseudo_masks, "write_labels", lambda *given: (written.append(given[0]), write_labels(*given)))
    made = write_pseudo_masks(out, samples, objects, labels)
    assert len(written) == 3
    write_pseudo_masks(out, samples, objects, labels)
    assert len(written) == 3
    changed = write_pseudo_masks(out, samples, objects, np.array([0, 0, 2, 2]))
    assert len(written) == 6 and changed.read(1).max() == 1
    write_pseudo_masks(out, samples[:2], objects[[0, 1, 2]], labels[:3])
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", MADE_OF]
    assert made.files[0] == out / "0.png"


def test_names_of_files() -> None:
    names = ["train2014/a.jpg", "train2014/b.png", "a.jpg", "b.jpg", "b.jpeg", "c.tar.jpg"]
    assert file_names(names) == [
        "train2014/a.png", "train2014/b.png", "a.png", "b.jpg.png", "b.jpeg.png", "c.tar.png",
    ]  # fmt: skip


def test_what_does_not_fit_is_refused(samples: list[Sample], objects: Objects, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ParameterError, match="3 labels for 4 objects: give each its cluster, or -1"):
        write_pseudo_masks(out, samples, objects, np.array([0, 1, 2]))
    with pytest.raises(ParameterError, match=r"labels of 0 to 5 with clusters = 5: legal are -1 \(in doubt\) to"):
        write_pseudo_masks(out, samples, objects, np.array([0, 1, 2, 5]), clusters=5)
    with pytest.raises(ParameterError, match="labels of -2 to 1 with clusters = 2"):
        write_pseudo_masks(out, samples, objects, np.array([0, 1, -2, 1]))
    with pytest.raises(ParameterError, match="at most 254 clusters fit"):
        write_pseudo_masks(out, samples, objects, np.array([0, 1, 2, 254]))
    with pytest.raises(ParameterError, match="object 3 lies in image 3, but there are 3 images"):
        write_pseudo_masks(out, samples[:3], objects, np.array([0, 1, 2, 3]))
    with pytest.raises(ParameterError, match=r"objects of '1\.jpg' say that it is image 1, which is '2\.jpg'"):
        write_pseudo_masks(out, [samples[i] for i in (0, 2, 1, 3)], objects, np.array([0, 1, 2, 3]))
    Image.new("RGB", (6, 8)).save(tmp_path / "1.png")
    with pytest.raises(ParameterError, match=r"1\.png is there already, and no label map that was written here"):
        write_pseudo_masks(tmp_path, samples, objects, np.array([0, 1, 2, 3]))  # among the photos
    with Image.open(tmp_path / "1.png") as image:
        assert image.mode == "RGB"


def test_maps_that_were_touched_are_named(samples: list[Sample], objects: Objects, tmp_path: Path) -> None:
    made = write_pseudo_masks(tmp_path / "out", samples, objects, np.array([1, 0, -1, 2]))
    with pytest.raises(ImageError, match="a label map of 6×8 pixels for an image of 9×9"):
        made.read(0, (9, 9))
    write_labels(tmp_path / "out/0.png", np.full((8, 6), 9, dtype=np.uint8))
    with pytest.raises(ImageError, match=r"holds 9: legal are 0 to 3, and 255"):
        made.read(0)
    Image.new("RGB", (6, 8)).save(tmp_path / "out/0.png")
    with pytest.raises(ImageError, match="must be an indexed PNG"):
        made.read(0)
