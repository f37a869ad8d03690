"""Extraction: pixels as the reference pads them, batches of one grid, order, failures, memory, and the golden keys."""

import runpy
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.backbones import Backbone, extract, load_backbone
from foundling.backbones import extraction as extracting
from foundling.backbones.vit import transformer_facets
from foundling.errors import ImageError, ParameterError
from foundling.types import Failure, PatchFeatures, Sample

Photo = Callable[..., Path]


def naive_keys(backbone: Backbone, image: Image.Image, block: int = -1) -> torch.Tensor:
    """One image, written out: scale to 0..1, normalise, pad with zeros, forward."""
    x = np.asarray(image, dtype=np.float32) / 255
    x = (x - np.array(backbone.mean, dtype=np.float32)) / np.array(backbone.std, dtype=np.float32)
    rows, columns = -(-x.shape[0] // 16), -(-x.shape[1] // 16)
    padded = np.zeros((rows * 16, columns * 16, 3), dtype=np.float32)
    padded[: x.shape[0], : x.shape[1]] = x
    pixels = torch.from_numpy(padded).permute(2, 0, 1)[None]
    return transformer_facets(backbone.network, pixels, ["keys"], block % 3)["keys"][0]


def by_index(batches: Iterator[PatchFeatures]) -> dict[int, PatchFeatures]:
    return {b.indices[i]: b[i] for b in batches for i in range(len(b))}


def test_each_image_as_if_alone(tiny: Backbone, photo: Photo) -> None:
    """Sizes that share a grid without being equal, and others: every image gets what it would get alone."""
    sizes = [(48, 64), (41, 64), (48, 50), (33, 49), (70, 20), (16, 16), (1, 1), (17, 16)]
    files = [photo(f"{i}.png", *size) for i, size in enumerate(sizes)]
    found = by_index(extract(tiny, files, batch_size=3))
    assert sorted(found) == list(range(8))
    for i, (file, size) in enumerate(zip(files, sizes, strict=True)):
        one = found[i]
        assert one.grid == (-(-size[0] // 16), -(-size[1] // 16))
        assert one.image_sizes.tolist() == one.original_sizes.tolist() == [list(size)]
        assert one.names == (str(file),)
        assert torch.allclose(one.facet("keys")[0], naive_keys(tiny, Image.open(file)), atol=1e-5)


def test_padding_is_the_mean_colour_not_black(tiny: Backbone, photo: Photo) -> None:
    file = photo("a.png", 40, 40)
    (found,) = extract(tiny, [file])
    black = Image.new("RGB", (48, 48))
    black.paste(Image.open(file))
    assert not torch.allclose(found.facet("keys")[0], naive_keys(tiny, black), atol=1e-2)


def test_facets_and_blocks(tiny: Backbone, photo: Photo) -> None:
    files = [photo(f"{i}.png", 32, 48) for i in range(2)]
    names = ("keys", "queries", "values", "tokens", "cls", "attention", "images")
    (last,) = extract(tiny, files, facets=names)
    for name in names[:4]:
        assert last.facet(name).shape == (2, 6, 48)
    assert last.facet("cls").shape == (2, 48) and last.facet("attention").shape == (2, 2, 6)
    assert [i.size for i in last.facet("images")] == [(48, 32), (48, 32)]
    (same,) = extract(tiny, files, block=2)
    (first,) = extract(tiny, files, block=-3)
    assert torch.equal(same.facet("keys"), last.facet("keys"))
    assert torch.allclose(first.facet("keys")[1], naive_keys(tiny, Image.open(files[1]), block=0), atol=1e-5)
    assert not torch.allclose(first.facet("keys"), last.facet("keys"), atol=1e-2)
    with pytest.raises(ParameterError, match="facet 'tokens' was not extracted"):
        same.facet("tokens")


def test_features_are_ordinary_tensors(tiny: Backbone, photo: Photo) -> None:
    """They can be trained on (inference tensors cannot) and own their memory (no view of a larger product)."""
    (found,) = extract(tiny, [photo("a.png", 32, 32)], facets=("keys", "cls", "attention"))
    for value in (found.facet("keys"), found.facet("cls"), found.facet("attention")):
        assert not value.is_inference() and not value.requires_grad and value.is_contiguous()
        assert value.untyped_storage().nbytes() == value.numel() * 4
    weight = torch.ones(48, requires_grad=True)
    (found.facet("keys") * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision(tiny: Backbone, photo: Photo, precision: str) -> None:
    file = photo("a.png", 64, 64)
    (exact,) = extract(tiny, [file], facets=("keys", "attention"))
    (rough,) = extract(tiny, [file], facets=("keys", "attention"), precision=precision)
    keys, rough_keys = exact.facet("keys"), rough.facet("keys")
    assert rough_keys.dtype == rough.facet("attention").dtype == torch.float32
    assert not torch.equal(keys, rough_keys)
    assert (keys - rough_keys).norm() < 0.02 * keys.norm()
    assert next(tiny.network.parameters()).dtype == torch.float32


def test_order_depends_on_the_input_alone(tiny: Backbone, photo: Photo) -> None:
    """Two grids alternate, one comes once: a full batch goes out when it is full, the rest by their first images."""
    sizes = [(16, 16), (32, 16), (48, 16), (16, 16), (32, 16), (32, 16), (32, 16)]
    files = [photo(f"{i}.png", *s) for i, s in enumerate(sizes)]
    for workers in (1, 4):
        order = [b.indices for b in extract(tiny, files, batch_size=2, workers=workers)]
        assert order == [(0, 3), (1, 4), (5, 6), (2,)]


def test_rare_grids_do_not_pile_up(tiny: Backbone, photo: Photo) -> None:
    """Every image of its own grid: the oldest go out once four batches' worth wait, not at the end."""
    files = [photo(f"{i}.png", 16 * (i + 1), 16) for i in range(12)]
    taken: list[int] = []

    def counted() -> Iterator[Path]:
        for i, file in enumerate(files):
            taken.append(i)
            yield file

    stream = extract(tiny, counted(), batch_size=1)
    assert next(stream).indices == (0,)
    assert len(taken) <= 4
    stream = extract(tiny, files, batch_size=2)
    assert [b.indices for b in stream] == [(i,) for i in range(12)]


def test_decoding_ahead_is_bounded(tiny: Backbone, photo: Photo) -> None:
    file, taken = photo("a.png", 16, 16), []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(len(taken))
            yield file

    stream = extract(tiny, endless(), batch_size=4)
    for _ in range(3):
        assert len(next(stream)) == 4
    assert len(taken) <= 3 * 4 + 2 * 4 + 1
    before = threading.active_count()
    stream.close()
    assert threading.active_count() < before  # the decoding threads are gone


def test_samples_and_pictures(tiny: Backbone, tmp_path: Path) -> None:
    """Samples bring their name and orientation; Pillow images of any mode work; all kinds mix."""
    upright = Image.effect_noise((48, 16), 80).convert("RGB")
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(path, exif=exif)
    grey = Image.effect_noise((20, 20), 80)
    images = [Sample("as stored", path, 1), Sample("as seen", path, 2, orient=True), grey, path]
    found = by_index(extract(tiny, images))
    assert [found[i].names[0] for i in range(4)] == ["as stored", "as seen", "image_2", str(path)]
    assert [found[i].grid for i in range(4)] == [(1, 3), (3, 1), (2, 2), (1, 3)]
    assert torch.allclose(found[2].facet("keys")[0], naive_keys(tiny, grey.convert("RGB")), atol=1e-5)


def test_max_side_shrinks(tiny: Backbone, photo: Photo) -> None:
    files = [photo("large.png", 100, 300), photo("small.png", 20, 64), photo("thin.png", 2, 400)]
    found = by_index(extract(tiny, files, facets=("keys", "images"), max_side=64))
    assert [found[i].image_sizes.tolist()[0] for i in range(3)] == [[21, 64], [20, 64], [1, 64]]
    assert [found[i].original_sizes.tolist()[0] for i in range(3)] == [[100, 300], [20, 64], [2, 400]]
    assert [found[i].facet("images")[0].size for i in range(3)] == [(64, 21), (64, 20), (64, 1)]
    shrunk = Image.open(files[0]).resize((64, 21), Image.Resampling.LANCZOS)
    assert torch.allclose(found[0].facet("keys")[0], naive_keys(tiny, shrunk), atol=1e-5)


def test_an_image_too_large_is_refused_before_it_is_decoded(
    tiny: Backbone, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = photo("huge.png", 160, 320)
    monkeypatch.setattr("foundling.backbones.prepare.read_image", lambda *a, **k: pytest.fail("decoded"))
    message = (
        r"huge.png: 320×160 pixels make 200 patches of 16 px, more than max_patches=100: shrink it with max_side=224"
    )
    with pytest.raises(ImageError, match=message):
        list(extract(tiny, [file], max_patches=100))


def test_the_advice_fits(tiny: Backbone, photo: Photo) -> None:
    """The max_side that the message names makes the image pass."""
    for height, width in ((160, 320), (333, 170), (20, 2000), (161, 161)):
        file = photo("huge.png", height, width)
        with pytest.raises(ImageError) as caught:
            list(extract(tiny, [file], max_patches=64))
        advice = int(str(caught.value).partition("max_side=")[2].partition(" ")[0])
        (found,) = extract(tiny, [file], max_patches=64, max_side=advice)
        assert found.grid[0] * found.grid[1] <= 64


def test_failures_are_listed_and_the_rest_goes_on(tiny: Backbone, photo: Photo, tmp_path: Path) -> None:
    good = [photo(f"{i}.png", 16, 16) for i in range(3)]
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "half.png").write_bytes(photo("whole.png", 64, 64).read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("not an image")
    bad = [tmp_path / n for n in ("empty.jpg", "half.png", "text.jpg", "none.jpg")]
    images = [bad[0], good[0], bad[1], bad[2], good[1], bad[3], good[2], photo("large.png", 64, 64)]
    failures: list[Failure] = []
    found = by_index(extract(tiny, images, failures=failures, max_patches=9, batch_size=2))
    assert sorted(found) == [1, 4, 6]
    assert [(f.name, f.index) for f in failures] == [
        *((str(bad[0]), 0), (str(bad[1]), 2), (str(bad[2]), 3), (str(bad[3]), 5)),
        (str(tmp_path / "large.png"), 7),
    ]
    assert all(f.name in f.error for f in failures)
    with pytest.raises(ImageError, match=r"empty\.jpg"):
        list(extract(tiny, images))


def test_a_picture_without_pixels(tiny: Backbone) -> None:
    failures: list[Failure] = []
    assert not list(extract(tiny, [Image.new("RGB", (0, 5))], failures=failures))
    assert failures == [Failure("image_0", 0, "image_0: has no pixels (0×5); leave it out")]


def test_no_images(tiny: Backbone) -> None:
    assert list(extract(tiny, [])) == []


class Small:
    """A forward that runs out of memory above ``fits`` images, as a GPU or as the CPU allocator."""

    def __init__(self, forward: Callable[..., Any], fits: int, error: BaseException) -> None:
        self.forward, self.fits, self.error, self.sizes = forward, fits, error, []

    def __call__(self, backbone: Backbone, pixels: torch.Tensor, *args: Any) -> Any:
        self.sizes.append(len(pixels))
        if len(pixels) > self.fits:
            raise self.error
        return self.forward(backbone, pixels, *args)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
def test_batches_halve_themselves(
    tiny: Backbone, photo: Photo, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    files = [photo(f"{i}.png", 16, 32) for i in range(19)]
    expected = by_index(extract(tiny, files))
    small = Small(extracting._forward, 3, error)
    monkeypatch.setattr(extracting, "_forward", small)
    batches = list(extract(tiny, files, batch_size=8))
    assert [i for b in batches for i in b.indices] == list(range(19))
    assert small.sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]  # tried twice, then remembered
    found = by_index(iter(batches))
    assert all(torch.allclose(found[i].facet("keys"), expected[i].facet("keys"), atol=1e-5) for i in range(19))


def test_not_even_one_fits(tiny: Backbone, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [photo(f"{i}.png", 16, 32) for i in range(3)]
    monkeypatch.setattr(extracting, "_forward", Small(extracting._forward, 0, OUT_OF_MEMORY[0]))
    failures: list[Failure] = []
    assert not list(extract(tiny, files, failures=failures))
    assert [f.index for f in failures] == [0, 1, 2]
    message = r"0\.png: out of memory even for this image alone \(32×16 pixels, 1×2 patches\): shrink it with max_side"
    with pytest.raises(ImageError, match=message):
        list(extract(tiny, files))


def test_other_errors_are_not_taken_for_lack_of_memory(
    tiny: Backbone, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Small(extracting._forward, 1, RuntimeError("sizes do not match"))
    monkeypatch.setattr(extracting, "_forward", small)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        list(extract(tiny, [photo(f"{i}.png", 16, 16) for i in range(2)]))
    assert small.sizes == [2]


def test_large_images_make_small_batches(tiny: Backbone, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extracting._Budget, "__init__", lambda self: setattr(self, "patches", 10))
    files = [photo(f"{i}.png", 32, 32) for i in range(5)]
    assert [len(b) for b in extract(tiny, files)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"facets": ("keyz",)},
            "unknown facet 'keyz': choose among keys, queries, values, tokens, cls, attention, images",
        ),
        ({"facets": ()}, r"facets=\(\): give a tuple of names"),
        ({"block": 3}, r"block=3: dino_vits16 has blocks 0 to 2 \(or -3 to -1\)"),
        ({"block": -4}, r"block=-4: dino_vits16 has blocks 0 to 2"),
        ({"norm": "first"}, "unknown norm 'first': choose one of last, all, none"),
        ({"precision": "fp8"}, "unknown precision 'fp8': choose one of fp32, bf16, fp16"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"max_side": -5}, "max_side=-5: must be at least 1"),
        ({"max_patches": 0}, "max_patches=0: must be at least 1"),
        ({"workers": 0}, "workers=0: must be at least 1"),
    ],
)
def test_wrong_parameters_are_refused_at_once(tiny: Backbone, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        extract(tiny, [], **wrong)  # not even iterated


def test_bias_and_norm_reach_the_network(tiny: Backbone, photo: Photo) -> None:
    file = photo("a.png", 32, 48)
    pixels = torch.from_numpy(np.asarray(Image.open(file), dtype=np.float32) / 255)
    pixels = ((pixels - torch.tensor(tiny.mean)) / torch.tensor(tiny.std)).permute(2, 0, 1)[None]
    with torch.no_grad():
        tiny.network.blocks[1].attn.qkv.bias.copy_(torch.linspace(-1, 1, 144))
    for options in ({"bias": False}, {"norm": "all"}, {"norm": "none"}, {}):
        (found,) = extract(tiny, [file], ("keys", "tokens"), block=1, **options)
        expected = transformer_facets(tiny.network, pixels, ("keys", "tokens"), 1, **options)
        for name in expected:
            assert torch.allclose(found.facet(name), expected[name], atol=1e-5), (options, name)


@pytest.mark.parametrize("wrong", [{"bias": False}, {"norm": "all"}])
def test_a_cnn_has_neither_a_bias_of_keys_nor_a_final_norm(wrong: dict[str, Any]) -> None:
    cnn = load_backbone("dino_resnet50", weights="random", device="cpu")
    with pytest.raises(ParameterError, match=r"dino_resnet50 is a CNN, .*: leave bias=True and norm='last'"):
        extract(cnn, [], **wrong)


def test_selfpatch_has_no_cls(small: Callable[..., Any], photo: Photo) -> None:
    small("selfpatch_vits16")
    backbone = load_backbone("selfpatch_vits16", weights="random", device="cpu")
    (found,) = extract(backbone, [photo("a.png", 32, 48)], facets=("keys", "tokens"))
    assert found.facet("keys").shape == (1, 6, 48)
    with pytest.raises(ParameterError, match=r"selfpatch_vits16 has no facet 'cls' \(its blocks see no CLS token\)"):
        extract(backbone, [], facets=("cls",))


def test_a_flat_image_has_defined_features(tiny: Backbone) -> None:
    (found,) = extract(tiny, [Image.new("RGB", (64, 64))], facets=("keys", "attention"))
    assert torch.isfinite(found.facet("keys")).all() and torch.isfinite(found.facet("attention")).all()


@pytest.mark.photos
def test_golden_keys(shared: Path, tmp_path: Path) -> None:
    """The last block's keys of three photos as the authors' code computes them, kept in half precision."""
    weights = tmp_path / "golden.pth"
    make = runpy.run_path(str(shared / "golden" / "make_weights.py"))
    torch.save(make["state"](np.load(shared / "golden" / "key_bias.npy")), weights)
    backbone = load_backbone("dino_vits16", weights=weights, device="cpu")
    golden = np.load(shared / "golden" / "golden_keys.npz")
    files = [shared / "photos" / "images" / name for name in golden.files]
    found = by_index(extract(backbone, files))
    for i, name in enumerate(golden.files):
        reference = golden[name][1:].astype(np.float64)  # CLS first
        difference = np.abs(found[i].facet("keys")[0].numpy() - reference)
        rounding = np.spacing(np.abs(golden[name][1:])).astype(np.float64) / 2  # up to 0.002 for values above 4
        assert (difference <= rounding + 2e-5).all()
        assert difference.mean() < 1e-3
