"""The feature store: the same features as without it, whatever was interrupted, changed or damaged in between."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from foundling.backbones import Backbone, extract, load_backbone, store
from foundling.backbones.store import stored_features
from foundling.errors import ImageError, ParameterError
from foundling.types import Failure, PatchFeatures

Photo = Callable[..., Path]


@pytest.fixture(autouse=True)
def three_images_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD", 3)


@pytest.fixture
def files(photo: Photo) -> list[Path]:
    return [photo(f"{i}.png", *size) for i, size in enumerate([(16, 16), (32, 16), (16, 16), (48, 16), (16, 16)] * 2)]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each shard that was computed, not read."""
    counts: list[int] = []

    def counting(backbone: Backbone, images: Any, **options: Any) -> Iterator[PatchFeatures]:
        if images:
            counts.append(len(images))
        return extract(backbone, images, **options)

    monkeypatch.setattr(store, "extract", counting)
    return counts


def by_index(batches: Iterator[PatchFeatures]) -> dict[int, PatchFeatures]:
    return {b.indices[i]: b[i] for b in batches for i in range(len(b))}


def same(a: dict[int, PatchFeatures], b: dict[int, PatchFeatures]) -> bool:
    facets = ("keys", "cls", "attention", "image_sizes", "original_sizes")
    return a.keys() == b.keys() and all(
        a[i].grid == b[i].grid
        and (a[i].names, a[i].indices, a[i].patch_size) == (b[i].names, b[i].indices, b[i].patch_size)
        and all(torch.allclose(getattr(a[i], f).float(), getattr(b[i], f).float(), atol=1e-5) for f in facets)
        for i in a
    )


FACETS = ("keys", "cls", "attention")


def test_as_without_a_store(tiny: Backbone, files: list[Path], tmp_path: Path, computed: list[int]) -> None:
    direct = by_index(extract(tiny, files, facets=FACETS))
    first = by_index(stored_features(tmp_path / "s", tiny, files, facets=FACETS))
    assert computed == [3, 3, 3, 1]
    second = by_index(stored_features(tmp_path / "s", tiny, files, facets=FACETS))
    assert computed == [3, 3, 3, 1]
    assert same(direct, first) and same(direct, second)
    assert all(torch.equal(first[i].facet("keys"), second[i].facet("keys")) for i in first)
    assert second[0].values is None
    assert not list((tmp_path / "s").glob(".*"))  # nothing temporary is left


def test_resumes_where_it_stopped(tiny: Backbone, files: list[Path], tmp_path: Path, computed: list[int]) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    list(stored_features(whole, tiny, files))
    computed.clear()
    stream = stored_features(parted, tiny, files)
    next(stream)
    stream.close()
    assert computed == [3]
    list(stored_features(parted, tiny, files))
    assert computed == [3, 3, 3, 1]
    for shard in sorted(whole.iterdir()):
        assert shard.read_bytes() == (parted / shard.name).read_bytes()


def test_any_other_setting_computes_anew(
    tiny: Backbone, files: list[Path], tmp_path: Path, computed: list[int]
) -> None:
    folder, files = tmp_path / "s", files[:2]
    other = load_backbone("dino_vits16", weights="random", device="cpu", seed=4)
    list(stored_features(folder, tiny, files))
    changes: list[dict[str, Any]] = [
        *({"facets": ("keys", "cls")}, {"block": 0}, {"precision": "bf16"}, {"max_side": 24}, {"max_patches": 100}),
        {"backbone": other},
        {"images": files[::-1]},
        {"images": files[:1]},
    ]
    for change in changes:
        computed.clear()
        options = {"backbone": tiny, "images": files} | change
        list(stored_features(folder, **options))
        list(stored_features(folder, **options))
        assert len(computed) == 1, change
    computed.clear()
    list(stored_features(folder, tiny, files, block=2, workers=1))
    list(stored_features(folder, tiny, files, block=-1))
    assert len(computed) == 1  # the same block by two names, and another number of threads


def test_a_changed_file_is_read_again(tiny: Backbone, photo: Photo, tmp_path: Path) -> None:
    file = photo("a.png", 16, 16)
    (before,) = stored_features(tmp_path / "s", tiny, [file])
    photo("a.png", 16, 32)
    (after,) = stored_features(tmp_path / "s", tiny, [file])
    assert (before.grid, after.grid) == ((1, 1), (1, 2))


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_a_damaged_shard_is_replaced(
    tiny: Backbone, files: list[Path], tmp_path: Path, computed: list[int], keep: int
) -> None:
    good = by_index(stored_features(tmp_path, tiny, files[:3], facets=FACETS))
    shard = tmp_path / "features_0000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    assert same(good, by_index(stored_features(tmp_path, tiny, files[:3], facets=FACETS)))
    assert computed == [3, 3]


def test_failures_are_kept(tiny: Backbone, files: list[Path], tmp_path: Path) -> None:
    images = [*files[:4], tmp_path / "none.png"]
    lists: list[list[Failure]] = [[], []]
    for failures in lists:
        found = by_index(stored_features(tmp_path / "s", tiny, images, failures=failures))
        assert sorted(found) == [0, 1, 2, 3]
        assert [(f.name, f.index) for f in failures] == [(str(images[4]), 4)]
    assert lists[0] == lists[1]
    with pytest.raises(ImageError, match=r"none\.png"):
        list(stored_features(tmp_path / "s", tiny, images))


def test_refused_at_once(tiny: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="the facet 'images' cannot be stored"):
        stored_features(tmp_path, tiny, [], facets=("keys", "images"))
    with pytest.raises(ParameterError, match="unknown facet 'key'"):
        stored_features(tmp_path, tiny, [], facets=("key",))
