"""The images of a run: their order, how files become squares, what is kept on disk, what stands in for broken ones."""

import os
import resource
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_objective import tiny, write_images

from foundling.datasets.scenes import render_scene, split_seeds
from foundling.errors import DataMissing, FoundlingError, ParameterError
from foundling.training import data
from foundling.training.data import TrainingSet, open_training_set, order, square
from foundling.training.settings import settings_from
from foundling.types import Sample


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def scenes(**changes: object) -> TrainingSet:
    values = {"images": 5, "batch": 2, "image_side": 96, "multi_share": 0.4, **changes}
    return open_training_set(settings_from(values, "a.yaml"))


# Order


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    steps = list(order(12, 4, seed=3, first=0, last=9))
    epochs = [sum(steps[i : i + 3], ()) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len(set(epochs)) == 3
    assert steps != list(order(12, 4, seed=4, first=0, last=9))


def test_the_order_after_a_resume_is_that_of_the_whole_run() -> None:
    whole = list(order(11, 4, seed=1, first=0, last=9))
    assert {len(step) for step in whole} == {4}
    for first in range(9):
        assert list(order(11, 4, seed=1, first=first, last=9)) == whole[first:]


# Scenes


def test_scenes_are_those_of_the_training_splits_and_kept(data_folder: Path) -> None:
    images = scenes().batch([4, 2])
    assert images.images.shape == (2, 3, 96, 96) and images.images.dtype == torch.uint8
    multi = render_scene(split_seeds("multi_train", 2)[1], 96, "multi")[0]
    single = render_scene(split_seeds("single_train", 3)[2], 96, "single")[0]
    np.testing.assert_array_equal(images.images[0].permute(1, 2, 0), multi)
    np.testing.assert_array_equal(images.images[1].permute(1, 2, 0), single)
    assert images.indices.tolist() == [4, 2]
    [file] = (data_folder / "scenes").iterdir()
    changed = np.load(file)
    changed[0] = 7
    np.save(file, changed)
    assert (scenes().batch([0]).images == 7).all()  # read, not drawn again
    assert scenes(images=6).identity != scenes().identity


def test_scenes_in_other_shares_are_other_scenes(data_folder: Path) -> None:
    """10 scenes of which 2 or 3 hold several objects, a quarter both; names of whole percents are as they were."""
    few, more = (scenes(images=10, multi_share=share) for share in (0.249, 0.251))
    assert few.identity != more.identity and len(list((data_folder / "scenes").iterdir())) == 2
    last = render_scene(split_seeds("single_train", 8)[-1], 96, "single")[0]
    np.testing.assert_array_equal(few.batch([7]).images[0].permute(1, 2, 0), last)
    first = render_scene(split_seeds("multi_train", 1)[0], 96, "multi")[0]
    np.testing.assert_array_equal(more.batch([7]).images[0].permute(1, 2, 0), first)
    assert ", 40multi" in scenes().identity and ", 25.1multi" in more.identity
    assert ", 29multi" in scenes(multi_share=0.29).identity  # which is 28.999999999999996 percent


def test_scenes_drawn_by_several_processes_are_the_same(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scenes(images=40).batch(range(40)).images
    [file] = (data_folder / "scenes").iterdir()
    file.unlink()
    monkeypatch.setattr(data, "FEW", 1)
    monkeypatch.setattr(data, "cores", lambda: 2)
    assert torch.equal(scenes(images=40).batch(range(40)).images, alone)
    assert file.is_file()


def test_a_full_disk_while_scenes_are_drawn_leaves_nothing(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(FoundlingError, match=r"\.npy cannot be written \(File too large\): make room"):
            scenes()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((data_folder / "scenes").iterdir())


# Photos


def test_a_file_becomes_the_square_in_its_middle(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    small = square(Sample("wide.png", tmp_path / "wide.png", 1), 10)
    assert small.shape == (10, 10, 3)
    assert abs(small[:, 1:-1].astype(int) - 200).max() <= 4
    enlarged = square(Sample("wide.png", tmp_path / "wide.png", 1), 50)
    assert enlarged.shape == (50, 50, 3)
    assert abs(enlarged[:, 5:-5].astype(int) - 200).max() <= 4


def test_worker_processes_give_what_this_process_gives(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 9)
    plan = list(order(9, 3, seed=0, first=0, last=4))
    alone = list(open_training_set(tiny(folder)).batches(plan))
    helped = list(open_training_set(tiny(folder, workers=2)).batches(plan))
    assert [b.indices.tolist() for b in alone] == [list(step) for step in plan]
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_next_readable_image_stands_in_for_a_broken_one_and_that_is_said_once(tmp_path: Path, workers: int) -> None:
    folder = write_images(tmp_path / "photos", 6)
    for i in (2, 3, 5):
        (folder / f"{i:03}.png").write_bytes(b"no image")
    images = open_training_set(tiny(folder, workers=workers))
    with pytest.warns(UserWarning, match="next image that can be read stands in") as caught:
        batches = list(images.batches([(2, 5, 1), (3, 2, 5)]))
    assert [b.indices.tolist() for b in batches] == [[4, 0, 1], [4, 4, 0]]
    assert torch.equal(batches[0].images[0], images.batch([4]).images[0])
    named = [str(w.message).split(": ")[0] for w in caught]
    assert sorted(Path(name).name for name in named) == ["002.png", "003.png", "005.png"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.batch([2, 3, 5])


def test_a_folder_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 4)
    for file in folder.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataMissing, match=r"none of the 4 training images can be read; the first: .*000\.png"):
        open_training_set(tiny(folder))


def test_stored_photos_are_decoded_once(tmp_path: Path, data_folder: Path) -> None:
    folder = write_images(tmp_path / "photos", 5)
    plain, stored = open_training_set(tiny(folder)), open_training_set(tiny(folder, store=True))
    assert torch.equal(plain.batch([3, 0]).images, stored.batch([3, 0]).images)
    assert plain.identity == stored.identity
    for file in sorted(folder.iterdir())[1:]:  # the first is looked at
        disguise(file, bytes(file.stat().st_size))
    assert torch.equal(open_training_set(tiny(folder, store=True)).batch([3]).images, stored.batch([3]).images)
    assert [path.suffix for path in (data_folder / "training").iterdir()] == [".npy"]


def disguise(file: Path, content: bytes) -> None:
    """Change the content of a file and nothing else that can be seen of it."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_stored_photos_are_of_the_files_that_are_there(tmp_path: Path) -> None:
    """Another folder with the same names, sizes and dates; then a file of another date, then one of another size."""
    folders = [write_images(tmp_path / name, 5) for name in ("one", "other")]
    for file in folders[1].iterdir():
        Image.open(file).point(lambda value: 255 - value).save(file)
    for first, second in zip(*(sorted(folder.iterdir()) for folder in folders), strict=True):
        size = max(file.stat().st_size for file in (first, second))
        for file in (first, second):
            file.write_bytes(file.read_bytes().ljust(size, b"\0"))
            os.utime(file, ns=(1, 1))

    def third(folder: Path) -> torch.Tensor:
        stored, plain = (open_training_set(tiny(folder, store=store)).batch([3]).images for store in (True, False))
        assert torch.equal(stored, plain)
        return stored

    one, other = (third(folder) for folder in folders)
    assert not torch.equal(one, other)
    file = folders[0] / "003.png"
    before = file.stat()
    file.write_bytes((folders[1] / "003.png").read_bytes())
    assert file.stat().st_size == before.st_size
    assert torch.equal(third(folders[0]), other)
    file.write_bytes((folders[1] / "002.png").read_bytes())
    os.utime(file, ns=(1, 1))
    assert not torch.equal(third(folders[0]), other)


def test_a_file_that_is_gone_is_reported_when_it_is_read(tmp_path: Path) -> None:
    samples = [Sample("a", tmp_path / "a.png", 1), Sample("b", tmp_path / "b.png", 1)]
    assert data.fingerprint(samples) != data.fingerprint(samples[:1])
    write_images(tmp_path, 1)
    (tmp_path / "000.png").rename(tmp_path / "a.png")
    assert len(data.fingerprint(samples)) == 12


def test_too_few_images_and_unknown_datasets_are_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 3)
    with pytest.raises(ParameterError, match=r"batch = 4 is more than there are images in folder \(3\)"):
        open_training_set(tiny(folder))
    with pytest.raises(ParameterError, match=r"unknown dataset 'imagenot'.*Legal: scenes"):
        open_training_set(tiny(folder, dataset="imagenot"))
