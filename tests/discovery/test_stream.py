"""The pass over the images: every method, bad images, resized images, interruption and resumption."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foundling import paths
from foundling.backbones import Backbone, extract, load_backbone
from foundling.discovery import METHODS, discover_images
from foundling.discovery.export import decode_mask
from foundling.discovery.progress import progress
from foundling.types import ImageError, ParameterError, Sample

STREAM = sys.modules["foundling.discovery.stream"]
PREPARE = sys.modules["foundling.backbones.prepare"]
METHOD_SETTINGS = {
    "lost": {"method": "lost", "k": 20},
    "queries": {"method": "lost", "facet": "queries"},
    "tokencut": {},
    "dino_seg": {"head": "bcc"},
    "centre_box": {},
    "whole_image": {"method": "whole_image"},
}
SIZES = [(48, 64), (40, 60), (64, 48), (48, 64), (37, 51), (48, 64), (8, 8)]  # heights and widths


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("scenes_odin", weights="random", device="cpu")


@pytest.fixture
def samples(tmp_path: Path, rng: np.random.Generator) -> list[Sample]:
    folder = tmp_path / "photos"
    folder.mkdir()
    made = []
    for i, (height, width) in enumerate(SIZES):
        small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR).save(folder / f"{i}.png")
        made.append(Sample(f"{i}.png", folder / f"{i}.png", i + 1))
    return made


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_each_method_gets_what_it_would_get_alone(backbone: Backbone, samples: list[Sample]) -> None:
    found = discover_images(backbone, samples, METHOD_SETTINGS, batch_size=2, chunk=3, progress=False)
    assert found.names == tuple(sample.name for sample in samples)
    assert found.sizes.tolist() == [list(size) for size in SIZES]
    for label, given in METHOD_SETTINGS.items():
        settings = {key: value for key, value in given.items() if key != "method"}
        method = METHODS[given.get("method", label)]
        facets = method.facets(**settings) or ("keys",)
        for i, sample in enumerate(samples):
            (features,) = extract(backbone, [sample], facets)
            (alone,) = method.run(features, **settings)
            np.testing.assert_allclose(found.boxes[label][i], alone.boxes[0], atol=1e-9)
            result = found.records[i]["methods"][label]
            assert result["flags"] == list(alone.flags)
            assert result["seed"] == (None if alone.seed is None else list(alone.seed))
            assert result["values"].keys() == alone.values.keys()
            if alone.masks is not None:
                assert np.array_equal(decode_mask(result["masks"][0]), alone.masks[0])


def test_the_network_sees_every_image_once(
    backbone: Backbone, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(STREAM, "extract", watched(seen))
    discover_images(backbone, samples, METHOD_SETTINGS, chunk=3, progress=False)
    assert sorted(seen) == sorted(sample.name for sample in samples)


def watched(seen: list[str]) -> Any:
    """``extract``, with the names of the images that come out of it added to ``seen``."""

    def watch(*args: Any, **kwargs: Any) -> Any:
        for features in extract(*args, **kwargs):
            seen.extend(features.names)
            yield features

    return watch


def test_bad_images_are_reported_and_the_rest_goes_on(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    samples[1].path.write_bytes(b"not an image")
    samples[4].path.unlink()
    found = discover_images(backbone, samples, {"lost": {}}, out=tmp_path / "out", chunk=3, progress=False)
    assert [(f.name, f.index) for f in found.failures] == [("1.png", 1), ("4.png", 4)]
    assert "1.png" in found.failures[0].error
    assert np.isnan(found.boxes["lost"]).all(axis=1).tolist() == [False, True, False, False, True, False, False]
    assert [record["index"] for record in found.records] == [0, 2, 3, 5, 6]
    assert found.sizes[[1, 4]].tolist() == [[0, 0], [0, 0]]
    assert found.seconds["images"] == 5


def test_images_that_a_method_cannot_serve_are_reported_and_the_rest_goes_on(
    backbone: Backbone, samples: list[Sample]
) -> None:
    methods = {"parts": {"method": "spectral", "ks": [2, 6]}, "whole_image": {}}
    found = discover_images(backbone, samples, methods, batch_size=2, chunk=3, progress=False)
    assert [record["index"] for record in found.records] == [0, 1, 2, 3, 4, 5]
    (failure,) = found.failures  # 8 × 8 pixels are one patch
    assert (failure.name, failure.index) == ("6.png", 6)
    assert failure.error.startswith("6.png: k is 6, but an image has 1 patches")
    assert found.sizes[6].tolist() == [0, 0] and np.isnan(found.boxes["whole_image"][6]).all()


def test_an_image_that_failed_is_tried_again(
    backbone: Backbone, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure was not the file's: a drive that was out of reach for a while, say."""
    whole = discover_images(backbone, samples, {"lost": {}}, out=tmp_path / "whole", chunk=4, progress=False)

    def unreachable(path: Path, orient: bool = False) -> Image.Image:
        if path == samples[2].path:
            raise ImageError(f"{path}: out of reach")
        return read(path, orient)

    read = PREPARE.read_image
    monkeypatch.setattr(PREPARE, "read_image", unreachable)
    first = discover_images(backbone, samples, {"lost": {}}, out=tmp_path / "out", chunk=4, progress=False)
    assert [f.index for f in first.failures] == [2]
    monkeypatch.setattr(PREPARE, "read_image", read)
    second = discover_images(backbone, samples, {"lost": {}}, out=tmp_path / "out", chunk=4, progress=False)
    assert second.failures == []
    assert second.seconds["images"] == 1
    assert second.boxes["lost"].tolist() == whole.boxes["lost"].tolist()
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_boxes_of_shrunk_images_are_in_original_pixels(backbone: Backbone, samples: list[Sample]) -> None:
    found = discover_images(backbone, samples, METHOD_SETTINGS, max_side=32, progress=False)
    assert found.sizes.tolist() == [list(size) for size in SIZES]
    for i, (height, width) in enumerate(SIZES):
        assert found.boxes["whole_image"][i].tolist() == [0, 0, width, height]
        (features,) = extract(backbone, [samples[i]], ("keys",), max_side=32)
        seen = features.image_sizes[0].tolist()
        assert max(seen) == min(32, max(height, width))
        box = METHODS["lost"].run(features, k=20)[0].boxes[0]
        expected = box * np.tile([width / seen[1], height / seen[0]], 2)
        np.testing.assert_allclose(found.boxes["lost"][i], expected, rtol=1e-12)
        assert (found.boxes["lost"][i][2:] <= [width, height]).all()


def test_a_second_run_reads_what_the_first_wrote(
    backbone: Backbone, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "out"
    first = discover_images(backbone, samples, METHOD_SETTINGS, out=out, chunk=3, progress=False)
    before = written(out)
    assert list(before) == ["boxes_000000.json", "boxes_000003.json", "boxes_000006.json"]
    seen: list[str] = []
    monkeypatch.setattr(STREAM, "extract", watched(seen))
    second = discover_images(backbone, samples, METHOD_SETTINGS, out=out, chunk=3, progress=False)
    assert seen == []
    assert second.records == first.records
    assert second.seconds == {"images": 0}
    for label in METHOD_SETTINGS:
        np.testing.assert_array_equal(second.boxes[label], first.boxes[label])
    assert written(out) == before


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    backbone: Backbone, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    undisturbed = discover_images(backbone, samples, METHOD_SETTINGS, out=calm, chunk=2, progress=False)
    write, calls = STREAM.write_chunk, []

    def interrupted(path: Path, *args: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            path.with_name(f".{path.name}.99.part").write_text('{"settings"')  # killed while writing
            raise KeyboardInterrupt
        write(path, *args)

    monkeypatch.setattr(STREAM, "write_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        discover_images(backbone, samples, METHOD_SETTINGS, out=out, chunk=2, progress=False)
    assert len(written(out)) == 3
    monkeypatch.setattr(STREAM, "write_chunk", write)
    resumed = discover_images(backbone, samples, METHOD_SETTINGS, out=out, chunk=2, progress=False)
    assert resumed.seconds["images"] == len(SIZES) - 4
    assert resumed.records == undisturbed.records
    assert written(out) == written(calm)


CHANGES: dict[str, Mapping[str, Any]] = {
    "a method's setting": {"methods": {"lost": {"k": 21}}},
    "a label": {"methods": {"mine": {"method": "lost"}}},
    "max_side": {"max_side": 40},
    "precision": {"precision": "bf16"},
    "batch_size": {"batch_size": 3},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_settings_are_computed_anew(
    change: str, backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": {"lost": {}}, "chunk": 3, "progress": False}
    samples = samples[:4]
    out = tmp_path / "out"
    discover_images(backbone, samples, **{**options, "out": out})
    found = discover_images(backbone, samples, **{**options, "out": out, **CHANGES[change]})
    assert found.seconds["images"] == 4
    fresh = discover_images(backbone, samples, **{**options, "out": tmp_path / "fresh", **CHANGES[change]})
    assert fresh.records == found.records
    assert written(out) == written(tmp_path / "fresh")


def test_another_network_or_changed_files_are_computed_anew(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    samples, out = samples[:4], tmp_path / "out"
    options: dict[str, Any] = {"methods": {"lost": {}}, "out": out, "chunk": 2, "progress": False}
    discover_images(backbone, samples, **options)
    other = load_backbone("scenes_odin", weights="random", seed=1, device="cpu")
    assert discover_images(other, samples, **options).seconds["images"] == 4
    Image.new("RGB", (50, 40), "red").save(samples[3].path)
    assert discover_images(other, samples, **options).seconds["images"] == 2  # the chunk of the changed file


def test_a_file_rewritten_at_the_same_size_is_computed_anew(backbone: Backbone, tmp_path: Path) -> None:
    path, out = tmp_path / "photo.bmp", tmp_path / "out"
    picture = Image.radial_gradient("L").resize((64, 48)).convert("RGB")
    picture.save(path)
    options: dict[str, Any] = {"methods": {"lost": {}}, "progress": False}
    discover_images(backbone, [Sample("photo.bmp", path, 1)], out=out, **options)
    size = path.stat().st_size
    picture.transpose(Image.Transpose.ROTATE_180).point(lambda v: 255 - v).save(path)
    assert path.stat().st_size == size
    found = discover_images(backbone, [Sample("photo.bmp", path, 1)], out=out, **options)
    assert found.seconds["images"] == 1


def test_the_same_files_elsewhere_and_later_give_the_same_bytes(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": {"lost": {}}, "progress": False}
    discover_images(backbone, samples, out=tmp_path / "out", **options)
    shutil.copytree(tmp_path / "photos", tmp_path / "copy", copy_function=shutil.copyfile)
    moved = [Sample(s.name, tmp_path / "copy" / s.name, s.image_id) for s in samples]
    assert moved[0].path.stat().st_mtime_ns != samples[0].path.stat().st_mtime_ns
    assert discover_images(backbone, moved, out=tmp_path / "out", **options).seconds["images"] == 0
    discover_images(backbone, moved, out=tmp_path / "other", **options)
    assert written(tmp_path / "out") == written(tmp_path / "other")


@pytest.mark.parametrize("source", ["datasets/images.py", "backbones/vit.py", "discovery/lost.py"])
def test_another_state_of_the_code_computes_anew(
    source: str, backbone: Backbone, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(paths.PACKAGE, tmp_path / "code", ignore=shutil.ignore_patterns("resources", "__pycache__"))
    options: dict[str, Any] = {"methods": {"whole_image": {}}, "out": tmp_path / "out", "progress": False}
    discover_images(backbone, samples[:2], **options)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "code")
    assert discover_images(backbone, samples[:2], **options).seconds["images"] == 0  # the same code elsewhere
    with (tmp_path / "code" / source).open("a") as file:
        file.write("K = 101\n")
    assert discover_images(backbone, samples[:2], **options).seconds["images"] == 2


def test_chunks_of_a_longer_run_and_damaged_ones_do_not_stay(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"methods": {"centre_box": {}}, "out": out, "chunk": 2, "progress": False}
    discover_images(backbone, samples, **options)
    (out / "notes.txt").write_text("kept")
    (out / "boxes_000000.json").write_text("{ half of")
    (out / "boxes_000002.json").write_text("[]")
    found = discover_images(backbone, samples[:4], **options)
    assert found.seconds["images"] == 4
    assert list(written(out)) == ["boxes_000000.json", "boxes_000002.json", "notes.txt"]
    assert json.loads((out / "boxes_000000.json").read_text())["records"][1]["name"] == "1.png"


def test_another_thread_ahead_changes_nothing(backbone: Backbone, samples: list[Sample]) -> None:
    """On a GPU the network works on the next batch while the methods work on this one."""
    batches = extract(backbone, samples, ("keys",), batch_size=2)
    ahead = list(STREAM._ahead(extract(backbone, samples, ("keys",), batch_size=2)))
    for plain, early in zip(batches, ahead, strict=True):
        assert plain.names == early.names
        assert torch.equal(plain.facet("keys"), early.facet("keys"))


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_the_clock_waits_for_the_networks_own_device(
    device: str, backbone: Backbone, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever other devices the machine has."""
    waited: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
    if device == "cpu":
        discover_images(backbone, samples[:1], {"whole_image": {}}, progress=False)
        assert waited == []
        return
    spent = {"network": 0.0}
    batches = STREAM._timed(extract(backbone, samples[:1], ("keys",)), torch.device(device), spent)
    assert len(list(batches)) == 1 and spent["network"] > 0
    assert waited == [torch.device(device)]


def test_no_images_is_no_error(backbone: Backbone, tmp_path: Path) -> None:
    found = discover_images(backbone, [], {"lost": {}}, out=tmp_path / "out")
    assert found.boxes["lost"].shape == (0, 4)
    assert found.records == found.failures == []


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        ({}, {}, "no method given: choose one or more of lost, tokencut"),
        ({"lots": {}}, {}, "unknown method 'lots'"),
        ({"lost": {}, "cut": {"method": "tokencut", "t": 1}}, {}, "cut: method tokencut has no setting 't'"),
        ({"dino_seg": {"head": 3}}, {}, "dino_seg: head is 3, but scenes_odin has heads 0 to 2"),
        ({"lost": {}}, {"chunk": 0}, "chunk=0: must be at least 1 image"),
        ({"lost": {}}, {"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"lost": {}}, {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_errors_come_before_any_image_is_read(
    methods: Mapping[str, Mapping[str, Any]], options: dict[str, Any], message: str, backbone: Backbone, tmp_path: Path
) -> None:
    missing = Sample("gone.png", tmp_path / "gone.png", 1)
    with pytest.raises(ParameterError, match=message):
        discover_images(backbone, [missing], methods, out=tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


def test_a_network_without_attention_cannot_serve_dino_seg(tmp_path: Path) -> None:
    convolutional = load_backbone("dino_resnet50", weights="random", device="cpu")
    with pytest.raises(ParameterError, match="attention"):
        discover_images(convolutional, [], {"dino_seg": {}}, out=tmp_path / "out")


def test_every_image_is_counted_once_whether_found_known_or_failed(
    backbone: Backbone, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    @contextmanager
    def counting(total: int, *args: object) -> Iterator[Callable[[int], None]]:
        yield counted.append
        assert sum(counted) == total == len(SIZES)

    monkeypatch.setattr(STREAM, "show_progress", counting)
    samples[1].path.write_bytes(b"")
    options: dict[str, Any] = {"methods": {"lost": {}}, "out": tmp_path / "out", "batch_size": 2}
    discover_images(backbone, samples, **options)
    assert max(counted) == 2  # by batches, not by chunks
    counted.clear()
    discover_images(backbone, samples, **options)


def test_progress_is_a_line_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(4, "discovering") as advance:
        advance(1)
        advance(3)
        advance(0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # not one a step
    assert lines[0].startswith("discovering: 4 of 4 images, 0.00 s each")
    with progress(4, "discovering", shown=False) as advance:
        advance(4)
    assert capsys.readouterr().err == ""


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(3, "discovering") as advance:
        advance(3)
    assert "3/3" in capsys.readouterr().err


def test_block_bias_and_norm_are_those_of_the_network_and_part_of_what_is_resumed(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    methods = {"tokens": {"method": "lost", "facet": "tokens"}, "keys": {"method": "lost", "k": 5}}
    seen = []
    for given in ({}, {"block": 1}, {"bias": False}, {"norm": "none"}):
        found = discover_images(backbone, samples, methods, out=tmp_path, progress=False, **given)
        assert found.seconds["images"] == len(samples), f"{given}: taken from another pass"
        for label, settings in (("tokens", {"facet": "tokens"}), ("keys", {"k": 5})):
            for i, sample in enumerate(samples):
                (features,) = extract(backbone, [sample], (settings.get("facet", "keys"),), **given)
                (alone,) = METHODS["lost"].run(features, **settings)
                np.testing.assert_allclose(found.boxes[label][i], alone.boxes[0], atol=1e-9)
        seen.append(found.boxes["keys"].tolist())
    last = {"block": backbone.blocks - 1, "norm": "none"}  # the same block, counted from the other end
    again = discover_images(backbone, samples, methods, out=tmp_path, progress=False, **last)
    assert again.seconds["images"] == 0
    assert seen[0] != seen[1]
    with pytest.raises(ParameterError, match="block=9: scenes_odin has blocks 0 to 3"):
        discover_images(backbone, samples, methods, block=9)
