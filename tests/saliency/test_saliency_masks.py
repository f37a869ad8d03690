"""Masks of sources: at the pixels of the original image, alike for all sources; networks, resumed runs, bad files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.backbones import Backbone, load_backbone
from foundling.discovery import discover_images
from foundling.discovery.export import decode_mask, encode_mask
from foundling.errors import ParameterError, WeightsError
from foundling.saliency import (
    SALIENCY,
    SaliencyMasks,
    SaliencyNetwork,
    agreement,
    load_saliency_network,
    masks_of,
    predict_masks,
    saliency_masks,
)
from foundling.saliency.masks import box_mask, union_mask
from foundling.saliency.predict import enlarge, refined_maps, salient, squeeze
from foundling.types import Failure, Sample


@pytest.fixture(scope="module")
def network() -> SaliencyNetwork:
    """One whose maps vary: few channels die of a ReLU less easily with larger weights."""
    found = load_saliency_network("random", width=2, side=32)
    generator = torch.Generator().manual_seed(0)
    for module in found.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
    return found


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("scenes_odin")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Five images of several sizes, a bright square on noise; the fourth is no image."""
    rng = np.random.default_rng(0)
    found = []
    for i, (height, width) in enumerate([(48, 64), (64, 48), (50, 50), (9, 9), (40, 72)]):
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[height // 4 : height // 2, width // 4 : width // 2] = (250, 200, 40)
        path = tmp_path / f"{i}.png"
        Image.fromarray(pixels).save(path)
        found.append(Sample(path.name, path, i))
    found[3].path.write_bytes(b"no image")
    return found


# From maps to masks


def test_maps_are_stretched_over_an_image_or_over_a_batch() -> None:
    maps = torch.tensor([[[0.0, 0.2], [0.4, 0.3]], [[0.5, 1.0], [0.75, 0.8]], [[0.3, 0.3], [0.3, 0.3]]])
    np.testing.assert_array_equal(
        salient(maps), [[[False, False], [True, True]], [[False, True], [False, True]], np.zeros((2, 2), bool)]
    )  # 0.2 and 0.75 are the middle of their images: not above it
    np.testing.assert_array_equal(
        salient(maps, "batch"), [np.zeros((2, 2), bool), [[False, True], [True, True]], np.zeros((2, 2), bool)]
    )


def test_masks_are_enlarged_without_a_change_of_shape() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:2] = True
    np.testing.assert_array_equal(enlarge(mask, (8, 12)), np.kron(mask, np.ones((2, 3))).astype(bool))
    assert squeeze(np.zeros((30, 50, 3), dtype=np.uint8), 16).shape == (16, 16, 3)


def test_a_box_covers_the_pixels_whose_centres_it_holds() -> None:
    mask = box_mask([1.0, 0.4, 3.6, 2.0], [3, 5])
    np.testing.assert_array_equal(mask, [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    assert not box_mask([1.6, 0.0, 2.4, 3.0], [3, 5]).any()  # between two centres


def test_all_objects_of_an_image_make_one_mask() -> None:
    masks = np.zeros((2, 2, 3), dtype=bool)
    masks[0, 0, 0] = masks[1, 1, 2] = True
    record = {"size": [8, 12], "seen": [8, 12], "patch_size": 4, "index": 0, "name": "a"}
    both = record | {
        "methods": {"m": {"masks": [encode_mask(mask) for mask in masks], "boxes": [[0.0, 0.0, 1.0, 1.0]] * 2}}
    }
    found = union_mask(both, "m")
    assert found is not None
    np.testing.assert_array_equal(decode_mask(found), np.kron(masks.any(0), np.ones((4, 4))).astype(bool))
    boxes = record | {"methods": {"m": {"masks": [], "boxes": [[0.0, 0.0, 4.0, 4.0], [8.0, 4.0, 12.0, 8.0]]}}}
    assert union_mask(boxes, "m") == found
    assert union_mask(record | {"methods": {"m": {"masks": [], "boxes": []}}}, "m") is None


def test_an_image_without_a_mask_has_an_empty_one() -> None:
    mask = np.zeros((30, 20), dtype=bool)
    mask[:21] = True
    masks = SaliencyMasks("a", ("a", "b"), np.array([[30, 20]] * 2), (encode_mask(mask), None))
    np.testing.assert_array_equal(masks.mask(0), mask)
    assert masks.mask(1).shape == (30, 20) and not masks.mask(1).any()


def test_agreement_is_a_vote_of_the_sources() -> None:
    a, b, c = np.zeros((3, 4, 4), dtype=bool)
    a[:2], b[:3], c[1:3] = True, True, True  # rows 0-1, 0-2, 1-2: IoU 2/3, 1/3, 2/3; two of three have rows 0-2
    away = np.zeros((4, 4), dtype=bool)
    away[3] = True

    def source(name: str, *masks: np.ndarray | None) -> SaliencyMasks:
        found = tuple(None if mask is None else encode_mask(mask) for mask in masks)
        return SaliencyMasks(name, ("x", "y", "z", "w"), np.array([[4, 4]] * 3 + [[0, 0]]), found)

    sources = [source("p", a, a, None, None), source("q", b, b, None, None), source("r", c, away, None, None)]
    found = agreement(sources)
    assert found.source == "p and q and r" and [mask is not None for mask in found.masks] == [True, False, False, False]
    np.testing.assert_array_equal(found.mask(0), b)
    assert agreement(sources, least=0.56).masks[0] is None  # the mean IoU is 5/9
    assert agreement(sources, least=0.2).mask(1).sum() == a.sum()  # away has nobody beside it
    assert agreement(sources[::-1]).masks == found.masks
    with pytest.raises(ParameterError, match="two sources of saliency or more, and got 1"):
        agreement(sources[:1])
    with pytest.raises(ParameterError, match="of different images"):
        agreement([sources[0], replace(sources[1], names=("x", "y", "z", "v"))])
    wide = replace(sources[1], sizes=np.array([[4, 4], [4, 5], [4, 4], [0, 0]]))
    with pytest.raises(ParameterError, match="y: the sources' masks are of different sizes"):
        agreement([sources[0], wide])


def test_an_image_that_failed_in_one_source_has_no_agreement() -> None:
    mask = encode_mask(np.ones((4, 4), dtype=bool))
    names, size = ("x", "y", "z"), [4, 4]
    one = SaliencyMasks("p", names, np.array([size, [0, 0], size]), (mask, None, mask), (Failure("y", 1, "gone"),))
    two = SaliencyMasks("q", names, np.array([size, size, [0, 0]]), (mask, mask, None), (Failure("z", 2, "large"),))
    for sources in ([one, two], [two, one]):
        found = agreement(sources)
        assert found.masks == (mask, None, None) and found.sizes.tolist() == [size, [0, 0], [0, 0]]
        assert [(failure.name, failure.error) for failure in found.failures] == [("y", "gone"), ("z", "large")]


# A network over images


def test_masks_of_a_network_are_those_of_its_maps(network: SaliencyNetwork, samples: list[Sample]) -> None:
    found = predict_masks(network, samples, batch_size=2, progress=False)
    assert found.names == ("0.png", "1.png", "2.png", "3.png", "4.png")
    assert [failure.name for failure in found.failures] == ["3.png"]
    assert found.failures[0].index == 3 and "3.png" in found.failures[0].error
    np.testing.assert_array_equal(found.sizes, [[48, 64], [64, 48], [50, 50], [0, 0], [40, 72]])
    for i in (0, 1, 2, 4):
        square = squeeze(np.array(Image.open(samples[i].path)), 32)
        with torch.no_grad():
            pixels = torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255
            mean, std = (torch.tensor(x).view(3, 1, 1) for x in (network.mean, network.std))
            logits = network.network((pixels - mean) / std)[0, 0].double()
        values = logits.sigmoid().numpy()
        expected = (values - values.min()) / (values.max() - values.min())
        rows, columns = ((np.arange(n) * 32 / n).astype(int) for n in found.sizes[i])
        clear = np.abs(expected - 0.5) > 1e-4
        np.testing.assert_array_equal(
            found.mask(i)[clear[rows][:, columns]], (expected > 0.5)[rows][:, columns][clear[rows][:, columns]]
        )


def test_a_batch_shares_its_scale(network: SaliencyNetwork, samples: list[Sample]) -> None:
    squares = np.stack([squeeze(np.array(Image.open(samples[i].path)), 32) for i in (0, 1)])
    masks = salient(refined_maps(network, squares), "batch")
    found = predict_masks(network, samples[:2], scale="batch", batch_size=2, progress=False)
    for i in (0, 1):
        np.testing.assert_array_equal(found.mask(i), enlarge(masks[i], tuple(found.sizes[i].tolist())))
    alone = predict_masks(network, samples[:2], scale="batch", batch_size=1, progress=False)
    assert alone.masks == predict_masks(network, samples[:2], progress=False).masks


@pytest.mark.parametrize("scale", ["image", "batch"])
def test_an_interrupted_run_goes_on(
    network: SaliencyNetwork, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: str
) -> None:
    from foundling.saliency import predict

    calls: list[int] = []
    plain = predict.refined_maps
    monkeypatch.setattr(predict, "refined_maps", lambda n, squares: (calls.append(len(squares)), plain(n, squares))[1])
    options: dict[str, Any] = {"scale": scale, "batch_size": 2, "chunk": 2, "progress": False}
    whole = predict_masks(network, samples, **options)
    out = tmp_path / "out"
    predict_masks(network, samples[:2], out=out, **options)
    calls.clear()
    again = predict_masks(network, samples, out=out, **options)
    assert again.masks == whole.masks and calls == [1, 1]  # the third, whose neighbour is no image, and the fifth
    good = Image.open(samples[0].path)
    good.save(samples[3].path, format="PNG")
    calls.clear()
    mended = predict_masks(network, samples, out=out, **options)
    assert mended.masks[3] is not None and not mended.failures
    calls.clear()
    assert predict_masks(network, samples, out=out, **options).masks == mended.masks and not calls
    other = replace(network, checksum="another")
    predict_masks(other, samples, out=out, **options)
    assert sum(calls) == 5
    predict_masks(network, samples[:2], out=out, **options)
    assert [path.name for path in out.iterdir()] == ["boxes_000000.json"]


# Sources behind one interface


def test_sources_share_one_interface(network: SaliencyNetwork, backbone: Backbone, samples: list[Sample]) -> None:
    sources: dict[str, dict[str, Any]] = {name: {} for name in SALIENCY} | {
        "dino_seg": {"head": "bcc"}, "middle": {"source": "centre_box"}, "coarse": {"source": "lost", "k": 1},
    }  # fmt: skip
    found = saliency_masks(sources, samples, backbone, network, progress=False)
    assert list(found) == list(sources)
    for masks in found.values():
        assert masks.names == tuple(sample.name for sample in samples)
        assert [failure.name for failure in masks.failures] == ["3.png"] and masks.masks[3] is None
        for i in (0, 1, 2, 4):
            encoded = masks.masks[i]
            assert encoded is None or encoded["size"] == found["lost"].sizes[i].tolist()
    assert found["network"].masks == predict_masks(network, samples, progress=False).masks
    expected = discover_images(backbone, samples, {"tokencut": {}}, progress=False)
    assert found["tokencut"].masks == masks_of(expected, "tokencut").masks
    middle = found["middle"].mask(2)  # a box of half the area, in the middle
    np.testing.assert_array_equal(middle, middle[::-1, ::-1])
    assert abs(middle.mean() - 0.5) < 0.03


def test_results_are_kept_in_folders_of_their_own(
    network: SaliencyNetwork, backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    sources: dict[str, dict[str, Any]] = {"lost": {}, "net": {"source": "network", "scale": "batch", "batch_size": 3}}
    out = tmp_path / "out"
    first = saliency_masks(sources, samples, backbone, network, out=out, progress=False)
    files = set(out.rglob("*.json"))
    assert {path.relative_to(out).as_posix() for path in files} == {
        "discovery/boxes_000000.json", "networks/net/boxes_000000.json",
    }  # fmt: skip
    again = saliency_masks(sources, samples[:3], backbone, network, out=tmp_path / "b", progress=False)
    assert again["lost"].masks == first["lost"].masks[:3]
    kept = saliency_masks(sources, samples, backbone, network, out=out, progress=False)
    assert [masks.masks for masks in kept.values()] == [masks.masks for masks in first.values()]
    assert set(out.rglob("*.json")) == files


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "no source of saliency given: choose one or more of spectral, dino_seg"),
        ({"basnet": {}}, r"unknown source of saliency 'basnet' \(for 'basnet'\): choose one of spectral"),
        ({"lost": {"q": 1}}, r"method lost has no setting 'q'"),
        ({"network": {"threshold": 0.3}}, r"network has no setting 'threshold': legal are scale, batch_size, weights"),
        ({"network": {"scale": "set"}}, r"scale is 'set': choose one of image, batch"),
        ({"network": {"batch_size": 0}}, r"batch_size=0: must be at least 1"),
    ],
)
def test_a_wrong_source_is_named(
    network: SaliencyNetwork, backbone: Backbone, sources: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        saliency_masks(sources, [], backbone, network, progress=False)


def test_a_source_may_have_weights_of_its_own(network: SaliencyNetwork, samples: list[Sample], tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    other = load_saliency_network("random", seed=1, width=2)
    torch.save({"net": other.network.state_dict()}, file)
    sources: dict[str, Any] = {"network": {}, "other": {"source": "network", "weights": str(file), "batch_size": 2}}
    found = saliency_masks(sources, samples, network=network, progress=False)
    assert found["network"].masks == predict_masks(network, samples, progress=False).masks
    assert found["other"].masks == predict_masks(other, samples, progress=False).masks != found["network"].masks
    alone = saliency_masks({"other": sources["other"]}, samples, out=tmp_path / "out", progress=False)
    assert alone["other"].masks == found["other"].masks
    with pytest.raises(WeightsError, match="there is no such file"):
        saliency_masks({"network": {"weights": str(tmp_path / "gone.pth")}}, samples, progress=False)


def test_a_source_needs_its_network(backbone: Backbone, network: SaliencyNetwork) -> None:
    with pytest.raises(ParameterError, match="the source 'lost' needs a backbone: pass backbone="):
        saliency_masks({"lost": {}}, [], network=network)
    with pytest.raises(ParameterError, match="the source 'net' needs a network: pass network="):
        saliency_masks({"net": {"source": "network"}}, [], backbone)
    with pytest.raises(ParameterError, match="no results under 'b': choose one of a"):
        masks_of(discover_images(backbone, [], {"a": {"method": "centre_box"}}, progress=False), "b")
    empty = saliency_masks({"lost": {}}, [], backbone, progress=False)["lost"]
    assert len(empty) == 0
