"""DINO-seg: by hand, against the definition, both component rules, the ways of choosing a head."""

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import torch
from oracles import make_features, naive_attended, naive_dino_seg, naive_iou

from foundling.discovery import METHODS, dino_seg
from foundling.discovery.dino_seg import attended, mean_overlaps
from foundling.types import ParameterError

# Two rows of five. Largest first: 20, 15, 12, 11 make 58 of 100; with the 9 they pass 60.
HAND = np.array([20, 15, 4, 9, 12, 11, 7, 8, 6, 8]) / 100


def test_by_hand() -> None:
    (found,) = dino_seg(make_features((2, 5), attention=[[HAND]]), head=0)
    assert found.masks.tolist() == [[[True, True, False, False, False], [True, False, False, False, False]]]
    assert found.boxes.tolist() == [[0, 0, 32, 32]]
    np.testing.assert_allclose(found.maps["attention"].ravel(), HAND, rtol=1e-6)
    assert found.values == {"head": 0}
    assert found.flags == ()


def test_the_share_of_the_mass_is_relative_to_the_patches_own_sum() -> None:
    """The rest of the attention goes to the CLS token."""
    whole, part = dino_seg(make_features((2, 5), attention=[[HAND], [HAND / 3]]), head=0)
    assert part.masks.tolist() == whole.masks.tolist()


def holding(picture: str) -> np.ndarray:
    """Attention whose largest 60 % lie on the patches marked # (at least two of them, and enough others)."""
    marked = np.array([cell == "#" for cell in picture])
    each = 0.6 / (marked.sum() - 0.5)
    rest = (0.4 - each / 2) / (~marked).sum()
    assert rest < each
    return np.where(marked, each, rest)


def test_the_published_codes_component_rule() -> None:
    """The component labelled last never competes, and one alone yields the background."""
    pictures = ["#....#####..", "######......", "###...##...#", "##.#.##..##."]
    features = make_features((1, 12), sizes=[(16, 182)] * 4, attention=[[holding(picture)] for picture in pictures])
    found = [(d.boxes[0] / 16).tolist() for d in dino_seg(features, 0)]
    assert found == [[5, 0, 10, 1], [0, 0, 6, 1], [0, 0, 3, 1], [0, 0, 2, 1]]
    found = [(d.boxes[0] / 16).tolist() for d in dino_seg(features, 0, rule="reference")]
    assert found == [[0, 0, 1, 1], [6, 0, 12, 1], [0, 0, 3, 1], [0, 0, 2, 1]]  # 12 patches: not clipped to 182 pixels


@pytest.mark.parametrize("rule", ["largest", "reference"])
def test_against_the_definition(rule: str, rng: np.random.Generator) -> None:
    for _ in range(60):
        grid = (int(rng.integers(1, 7)), int(rng.integers(1, 7)))
        attention = rng.random((1, 3, grid[0] * grid[1])) ** 3 + 1e-3
        size = (grid[0] * 8 - int(rng.integers(0, 8)), grid[1] * 8 - int(rng.integers(0, 8)))
        features = make_features(grid, 8, [size], attention=attention)
        heads = [naive_dino_seg(a, grid, 8, size, rule) for a in attention[0].astype(np.float32)]
        for head, (box, patches) in enumerate(heads):
            (found,) = dino_seg(features, head=head, rule=rule)
            assert found.boxes.tolist() == [box]
            assert found.masks.sum() == patches
        most = max(range(3), key=lambda h: heads[h][1])
        assert dino_seg(features, "bcc", rule)[0].boxes.tolist() == [heads[most][0]]
        agreement = [np.mean([naive_iou(a[0], b[0]) for b in heads if b is not a]) for a in heads]
        best = [h for h in range(3) if agreement[h] > max(agreement) - 1e-9]
        chosen = dino_seg(features, "haiou", rule)[0]
        assert chosen.values["head"] in best
        assert chosen.boxes.tolist() == [heads[int(chosen.values["head"])][0]]


@pytest.mark.parametrize("mistake", [{"count_not_mass": True}, {"diagonal": True}, {"mass": 0.5}])
def test_a_broken_method_is_told_apart(mistake: dict[str, float], rng: np.random.Generator) -> None:
    differing = 0
    for _ in range(30):
        attention = rng.random(42).astype(np.float32) ** 2
        broken = naive_dino_seg(attention, (6, 7), 16, (90, 110), "largest", **mistake)[0]
        features = make_features((6, 7), sizes=[(90, 110)], attention=[[attention]])
        differing += dino_seg(features, 0)[0].boxes.tolist() != [broken]
    assert differing >= 5, differing


def test_head_choice_by_hand() -> None:
    """Head 2 has the largest component; head 1's box agrees best with the others'."""
    pictures = ["###.......", ".##.......", ".####....."]
    features = make_features((1, 10), attention=[[holding(picture) for picture in pictures]])
    overlaps = [(2 / 3 + 2 / 5) / 2, (2 / 3 + 1 / 2) / 2, (2 / 5 + 1 / 2) / 2]
    boxes = np.array([[0.0, 0, 48, 16], [16, 0, 48, 16], [16, 0, 80, 16]])
    np.testing.assert_allclose(mean_overlaps(boxes), overlaps, rtol=1e-12)
    assert dino_seg(features, "bcc")[0].values["head"] == 2
    assert dino_seg(features, "haiou")[0].values["head"] == 1
    np.testing.assert_allclose(mean_overlaps(boxes[:1]), [1])


def test_ties_between_heads_go_to_the_lowest(rng: np.random.Generator) -> None:
    attention = np.repeat(rng.random((1, 1, 12)), 4, axis=1)
    for head in ("bcc", "haiou"):
        assert dino_seg(make_features((3, 4), attention=attention), head)[0].values["head"] == 0


def test_of_equal_values_at_the_limit_the_later_patches_are_kept() -> None:
    kept = attended(make_features((1, 8), attention=[[[1.0] * 8]]).attention)[0, 0].tolist()
    assert kept == [False] * 3 + [True] * 5  # from the fourth on more than 40 % lie behind
    assert kept == naive_attended(np.ones(8)).tolist()


def test_mirroring_and_rescaling_and_batching(rng: np.random.Generator) -> None:
    attention = rng.random((5, 2, 42)).astype(np.float32)
    plain = dino_seg(make_features((6, 7), attention=attention), 1)
    mirrored = attention.reshape(5, 2, 6, 7)[..., ::-1].reshape(5, 2, 42)
    order = rng.permutation(5)
    permuted = dino_seg(make_features((6, 7), attention=attention[order]), 1)
    for i, found in enumerate(plain):
        (flipped,) = dino_seg(make_features((6, 7), attention=mirrored[i : i + 1].copy()), 1)
        x0, y0, x1, y1 = found.boxes[0]
        assert flipped.boxes.tolist() == [[112 - x1, y0, 112 - x0, y1]]
        (scaled,) = dino_seg(make_features((6, 7), attention=attention[i : i + 1] * 0.25), 1)
        assert scaled.boxes.tolist() == found.boxes.tolist()
        assert permuted[int(np.flatnonzero(order == i)[0])].boxes.tolist() == found.boxes.tolist()


def test_attention_that_says_nothing_gives_the_whole_image() -> None:
    attention = np.zeros((2, 1, 6))
    attention[1, 0, 2] = np.nan
    nothing, broken = dino_seg(make_features((2, 3), sizes=[(30, 40)] * 2, attention=attention), 0)
    assert nothing.boxes.tolist() == broken.boxes.tolist() == [[0, 0, 40, 30]]
    assert broken.flags == ("not_finite",)
    assert nothing.flags == ("no_component",)


def test_a_head_without_a_component_is_not_the_biggest() -> None:
    features = make_features((2, 3), attention=[[np.zeros(6), holding("##....")]])
    (found,) = dino_seg(features, "bcc")
    assert found.values["head"] == 1
    assert found.flags == ()


@pytest.mark.parametrize(
    ("head", "rule", "message"),
    [
        (2, "largest", "head is 2: this network has heads 0 to 1"),
        (-1, "largest", "head is -1: give a head's number, from 0, or 'bcc' or 'haiou'"),
        ("best", "largest", "head is 'best': give a head's number"),
        (True, "largest", "head is True"),
        (0, "first", "rule is 'first': choose one of largest, reference"),
    ],
)
def test_errors_name_the_value_and_the_choices(head: int | str, rule: str, message: str) -> None:
    features = make_features((2, 3), attention=np.ones((1, 2, 6)))
    with pytest.raises(ParameterError, match=message):
        dino_seg(features, head, rule)


def test_attention_on_a_gpu_is_summed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cumulative sums on a GPU differ from run to run. The GPU here is make-believe: its tensors hold no numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    devices: list[str] = []

    def summed(attention: Any) -> Any:
        devices.append(attention.device.type)
        raise InterruptedError

    monkeypatch.setattr(sys.modules["foundling.discovery.dino_seg"], "attended", summed)
    features = make_features((2, 3), attention=np.ones((1, 2, 6)))
    with FakeTensorMode() as fake:
        on_gpu = torch.empty(1, 2, 6, device="cuda")
        assert on_gpu.device.type == "cuda" and fake is not None
        with pytest.raises(InterruptedError):
            dino_seg(dataclasses.replace(features, attention=on_gpu), head=0)
    assert devices == ["cpu"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_the_cpu_finds(rng: np.random.Generator) -> None:
    features = make_features((6, 7), attention=rng.random((3, 2, 42)))
    torch.use_deterministic_algorithms(True)
    try:
        found = dino_seg(features.to("cuda"), head=1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert [d.boxes.tolist() for d in found] == [d.boxes.tolist() for d in dino_seg(features, head=1)]


def test_the_attention_must_have_been_extracted() -> None:
    with pytest.raises(ParameterError, match="facet 'attention' was not extracted"):
        dino_seg(make_features((1, 2), keys=[[[1.0], [2.0]]]))
    with pytest.raises(ParameterError, match=r"head is 1\.5"):
        METHODS["dino_seg"].facets(head=1.5)
    assert METHODS["dino_seg"].facets(head="bcc") == ("attention",)
