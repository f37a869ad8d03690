"""Odin: masks by k-means, masks carried into views, the contrastive loss, the slow networks, resuming."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from foundling.errors import ParameterError
from foundling.training import odin
from foundling.training.odin import Settings
from foundling.training.odin_files import centre_keys, load_state, save_state, training_scenes
from foundling.training.odin_views import (
    augment,
    carry_masks,
    crop,
    flip,
    make_views,
    normalise,
    relative,
    sample_windows,
    spanning_window,
    turn_colours,
)

TINY = Settings(
    steps=4, batch=4, masks=4, span_side=48, view_side=32, warmup=1, hidden=16, projection=8, scenes=6, scene_side=96
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    small = odin.ARCHITECTURE | {"embed_dim": 24, "depth": 1}
    monkeypatch.setattr(odin, "ARCHITECTURE", small)


def pixels(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


# The loss, Eq. 2-4


def naive_loss(online, same, other, present_same, present_other, alpha):  # type: ignore[no-untyped-def]
    """Mask by mask, logit by logit."""

    def score(a, b):  # type: ignore[no-untyped-def]
        return float(a @ b / (a.norm() * b.norm()) / alpha)

    images, masks = present_same.shape
    losses = []
    for i in range(images):
        for k in range(masks):
            if not (present_same[i, k] and present_other[i, k]):
                continue
            positive = score(online[i, k], other[i, k])
            negatives = []
            for j in range(images):
                for m in range(masks):
                    if (i, k) == (j, m):
                        continue
                    if present_other[j, m]:
                        negatives.append(score(online[i, k], other[j, m]))
                    if present_same[j, m]:
                        negatives.append(score(online[i, k], same[j, m]))
            everything = np.exp([positive, *negatives])
            losses.append(-np.log(everything[0] / everything.sum()))
    return np.mean(losses)


def loss_inputs(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    vectors = [torch.randn(3, 4, 5, generator=generator) for _ in range(3)]
    present = [torch.rand(3, 4, generator=generator) < 0.7 for _ in range(2)]
    return (*vectors, *present)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_loss_equals_mask_by_mask(generator: torch.Generator, alpha: float) -> None:
    inputs = loss_inputs(generator)
    assert 0 < (inputs[3] & inputs[4]).sum() < inputs[3].numel()
    assert float(odin.contrastive_loss(*inputs, alpha)) == pytest.approx(naive_loss(*inputs, alpha), rel=1e-4)


def test_loss_by_hand() -> None:
    """Two images, one mask each, orthogonal: positive 1, negatives 0 from either view; alpha 1: -log(e / (e + 2))."""
    vectors = torch.eye(2)[:, None]
    present = torch.ones(2, 1, dtype=torch.bool)
    loss = odin.contrastive_loss(vectors, vectors, vectors, present, present, alpha=1.0)
    assert float(loss) == pytest.approx(-np.log(np.e / (np.e + 2)), rel=1e-5)


def test_what_an_absent_mask_holds_does_not_matter(generator: torch.Generator) -> None:
    online, same, other, present_same, present_other = loss_inputs(generator)
    before = odin.contrastive_loss(online, same, other, present_same, present_other)
    online, same, other = online.clone(), same.clone(), other.clone()
    online[~present_same], same[~present_same], other[~present_other] = 7.0, -3.0, 11.0
    assert torch.equal(odin.contrastive_loss(online, same, other, present_same, present_other), before)


def test_loss_does_not_depend_on_the_order_of_images_or_masks(generator: torch.Generator) -> None:
    inputs = loss_inputs(generator)
    before = odin.contrastive_loss(*inputs)
    shuffled = [x[[2, 0, 1]][:, [3, 1, 0, 2]] for x in inputs]
    torch.testing.assert_close(odin.contrastive_loss(*shuffled), before)


# Masks: k-means, pooling, carrying


def test_kmeans_finds_separate_groups_in_every_image(generator: torch.Generator) -> None:
    groups = torch.tensor([[0, 0, 1, 1, 2, 2, 0, 1], [2, 1, 0, 0, 0, 1, 2, 2]])
    noise = 0.05 * torch.randn(2, 8, 6, generator=generator)
    features = torch.nn.functional.one_hot(groups, 6).float() * 3 + noise
    best = max(_agreement(odin.kmeans(features, 3, torch.Generator().manual_seed(s)), groups) for s in range(20))
    assert best == 1.0


def _agreement(labels: torch.Tensor, groups: torch.Tensor) -> float:
    return float(((labels[:, :, None] == labels[:, None]) == (groups[:, :, None] == groups[:, None])).float().mean())


def test_kmeans_ends_where_no_patch_is_nearer_to_another_mean(generator: torch.Generator) -> None:
    features = torch.randn(3, 30, 4, generator=generator)
    labels = odin.kmeans(features, 4, generator, iterations=100)
    x = torch.nn.functional.normalize(features, dim=-1)
    for image in range(3):
        present = labels[image].unique()
        means = torch.stack([x[image][labels[image] == k].mean(0) for k in present])
        nearest = present[torch.cdist(x[image], means).argmin(1)]
        assert torch.equal(nearest, labels[image])


def test_kmeans_looks_at_directions_only(generator: torch.Generator) -> None:
    features = torch.randn(2, 20, 4, generator=generator)
    scaled = features * (0.5 + torch.rand(2, 20, 1, generator=generator))
    runs = [odin.kmeans(x, 3, torch.Generator().manual_seed(1)) for x in (features, scaled)]
    assert torch.equal(*runs)


def test_pooling_is_the_mean_under_the_mask_and_marks_empty_ones() -> None:
    features = torch.tensor([[[1.0, 0], [3, 2], [5, 4]]])
    masks = torch.tensor([[[1.0, 1, 0], [0, 0, 0], [0, 0, 1]]])
    pooled, present = odin.pool(features, masks)
    assert pooled.tolist() == [[[2, 1], [0, 0], [5, 4]]]
    assert present.tolist() == [[True, False, True]]


def test_empty_masks_reach_no_batch_statistics(generator: torch.Generator) -> None:
    vectors, present = torch.randn(2, 3, 4, generator=generator), torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    head = odin._mlp(4, 8, 5).train()
    out = odin.on_present(head, vectors, present)
    assert out.shape == (2, 3, 5)
    assert (out[~present] == 0).all()
    vectors[~present] = 1000.0
    assert torch.equal(odin.on_present(head, vectors, present), out)
    torch.testing.assert_close(out[present], head(vectors[present]))


def windows(*corners: float) -> torch.Tensor:
    return torch.tensor([corners], dtype=torch.float32)


def test_masks_carried_by_hand() -> None:
    """Labels 0 1 / 2 3 in quarters; the right half is 1 over 3, mirrored it stays so; the top half mirrored is 1 0."""
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    masks = torch.nn.functional.one_hot(labels, 4).permute(2, 0, 1)[None].float()
    no, yes = torch.tensor([False]), torch.tensor([True])
    for flips in (no, yes):
        assert carry_masks(masks, windows(0.5, 0, 1, 1), flips, 2).argmax(1).tolist() == [[1, 1, 3, 3]]
    assert carry_masks(masks, windows(0, 0, 1, 0.5), no, 2).argmax(1).tolist() == [[0, 1, 0, 1]]
    assert carry_masks(masks, windows(0, 0, 1, 0.5), yes, 2).argmax(1).tolist() == [[1, 0, 1, 0]]


@pytest.mark.parametrize("seed", range(12))
def test_masks_follow_the_picture_through_crop_and_flip(seed: int) -> None:
    """A picture painted with its own labels: after crop and flip its pixels say which mask each cell belongs to."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.nn.functional.one_hot(torch.randint(0, 3, (4, 6, 6), generator=generator), 3)
    masks = labels.permute(0, 3, 1, 2).float()
    painted = masks.repeat_interleave(16, -1).repeat_interleave(16, -2)  # 96 pixels, label = channel
    first, second = (sample_windows(4, generator, 0.2) for _ in range(2))
    frame = spanning_window(first, second)
    span = crop(painted, frame, 48)
    flips = torch.rand(4, generator=generator) < 0.5
    carried = carry_masks(span, relative(first, frame), flips, 8).view(4, 3, 8, 8)
    direct = flip(crop(painted, first, 8), flips)
    assert (carried.sum(1) == 1).all()
    sure = direct.max(1).values > 0.8  # cells that one label fills
    assert sure.any()
    assert torch.equal(carried.argmax(1)[sure], direct.argmax(1)[sure])


# Views


def test_windows_are_inside_and_of_legal_area_and_aspect(generator: torch.Generator) -> None:
    window = sample_windows(2000, generator, 0.2)
    assert window.min() >= 0 and window.max() <= 1 + 1e-6
    width, height = (window[:, 2:] - window[:, :2]).unbind(1)
    inner = (width < 0.999) & (height < 0.999)  # not clipped
    area, aspect = (width * height)[inner], (width / height)[inner]
    assert area.min() >= 0.2 - 1e-5 and area.max() > 0.8
    assert 0.75 - 1e-4 <= aspect.min() < 0.8 and 1.25 < aspect.max() <= 4 / 3 + 1e-4


def test_spanning_window_is_the_smallest_that_holds_both() -> None:
    first, second = windows(0.1, 0.5, 0.4, 0.9), windows(0.3, 0.2, 0.8, 0.6)
    frame = spanning_window(first, second)
    torch.testing.assert_close(frame, windows(0.1, 0.2, 0.8, 0.9))
    torch.testing.assert_close(relative(first, frame), windows(0, 3 / 7, 3 / 7, 1))


def test_crop_cuts_what_the_window_says() -> None:
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    torch.testing.assert_close(crop(maps, windows(0.25, 0.125, 0.75, 0.625), 4), maps[..., 1:5, 2:6])
    torch.testing.assert_close(crop(maps, windows(0, 0, 1, 1), 4)[0, 0, 1, 1], maps[0, 0, 2:4, 2:4].mean())


def test_views_have_their_sizes_and_the_span_keeps_its_colours(generator: torch.Generator) -> None:
    plain = torch.full((3, 3, 96, 96), 128, dtype=torch.uint8)
    views = make_views(plain, generator, 48, 32, 0.2)
    assert views.span.shape == (3, 3, 48, 48)
    assert [v.shape for v in views.images] == [(3, 3, 32, 32)] * 2
    grey = (128 / 255 - torch.tensor(odin.MEAN)) / torch.tensor(odin.STD)
    torch.testing.assert_close(views.span, grey.view(1, 3, 1, 1).expand_as(views.span))
    assert any(not torch.allclose(v[0], v[1]) for v in views.images)  # each image has its own jitter


def test_turned_colours_keep_grey_and_a_third_of_a_turn_permutes_roughly() -> None:
    grey = torch.full((1, 3, 2, 2), 0.4)
    turned = turn_colours(grey, torch.tensor([1.3]), torch.tensor([0.3]))
    torch.testing.assert_close(turned, grey, atol=2e-3, rtol=0)
    red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1)
    same = turn_colours(red, torch.ones(1), torch.zeros(1))
    torch.testing.assert_close(same, red, atol=1e-5, rtol=0)
    away = [turn_colours(red, torch.ones(1), torch.tensor([t])).flatten().argmax().item() for t in (1 / 3, 2 / 3)]
    assert sorted(away) == [1, 2]  # green and blue


def test_augmented_pictures_stay_in_range_and_blur_lowers_contrast(generator: torch.Generator) -> None:
    noisy = torch.rand(16, 3, 64, 64, generator=generator)
    out = augment(noisy, generator, blur=1.0, solarise=0.2)
    assert out.min() >= 0 and out.max() <= 1
    sharp = augment(noisy, torch.Generator().manual_seed(5), blur=0.0, solarise=0.0)
    soft = augment(noisy, torch.Generator().manual_seed(5), blur=1.0, solarise=0.0)
    assert (soft.std((1, 2, 3)) <= sharp.std((1, 2, 3)) + 1e-4).all()
    assert soft.std() < 0.95 * sharp.std()


# The slow networks, Eq. 5-7


def test_slow_network_follows_by_hand() -> None:
    slow, fast = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(slow.weight, 1.0)
    torch.nn.init.constant_(fast.weight, 3.0)
    fast.running_mean[:] = 10.0
    odin.follow(slow, fast, 0.25)
    assert slow.weight.tolist() == [1.5, 1.5]
    assert slow.running_mean.tolist() == [2.5, 2.5]
    assert fast.weight.tolist() == [3.0, 3.0]


def test_rates_over_a_run() -> None:
    settings = Settings(steps=100, warmup=10, target_decay=0.9, learning_rate=1.0)
    assert odin.target_rate(0, settings) == pytest.approx(0.1)
    assert odin.target_rate(50, settings) == pytest.approx(0.05)
    assert odin.target_rate(100, settings) == pytest.approx(0.0)
    rates = [odin.learning_rate(step, settings) for step in (0, 9, 10, 55, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])


@pytest.mark.usefixtures("tiny_network")
def test_one_step_moves_each_network_as_the_equations_say() -> None:
    networks = odin.make_networks(TINY).train()
    optimiser = odin.make_optimiser(networks, TINY)
    before = {name: value.clone() for name, value in networks.named_parameters()}
    odin.train_step(networks, optimiser, pixels(), 1, TINY)
    after = dict(networks.named_parameters())
    checked = 0
    for slow, rate in (("xi_f", odin.target_rate(1, TINY)), ("xi_g", odin.target_rate(1, TINY)), ("tau_f", 0.005)):
        for name in [n for n in after if n.startswith(slow)]:
            leader = after["theta_" + slow[-1] + name[len(slow) :]]
            torch.testing.assert_close(after[name], (1 - rate) * before[name] + rate * leader, atol=1e-6, rtol=1e-5)
            checked += 1
    assert checked > 20
    moved = [n for n in after if n.startswith("theta") and not torch.equal(after[n], before[n])]
    assert {"theta_f.blocks.0.attn.qkv.weight", "theta_g.0.weight", "theta_q.3.weight"} <= set(moved)
    assert all(p.grad is None for n, p in after.items() if not n.startswith("theta"))


@pytest.mark.usefixtures("tiny_network")
def test_training_lowers_the_loss() -> None:  # about 4 s
    settings = replace(TINY, steps=40, warmup=4, learning_rate=3e-3, batch=6)
    networks = odin.make_networks(settings).train()
    optimiser = odin.make_optimiser(networks, settings)
    losses = [odin.train_step(networks, optimiser, pixels(), step, settings) for step in range(40)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3


# Resuming and exporting


@pytest.mark.usefixtures("tiny_network")
def test_centred_keys_have_mean_zero_and_change_no_output() -> None:
    network = odin.make_vit().eval()
    torch.nn.init.normal_(network.blocks[0].attn.qkv.bias)
    images, keys = pixels(), []
    batch = normalise(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    with torch.no_grad():
        before = network.forward_features(batch)
        centre_keys(network, images, 96)
        network.blocks[0].attn.qkv.register_forward_hook(lambda _, __, qkv: keys.append(qkv[:, 1:, 24:48]))
        after = network.forward_features(batch)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert keys[0].mean((0, 1)).abs().max() < 1e-5 < 0.01 < keys[0].std()


@pytest.mark.usefixtures("tiny_network")
def test_resumed_run_equals_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    assert odin.train(TINY, tmp_path / "whole.safetensors")
    calls = 0
    while not odin.train(TINY, tmp_path / "parts.safetensors", minutes=0.0):  # one step a call
        calls += 1
        assert calls < 10
    assert calls == TINY.steps - 1
    assert (tmp_path / "whole.safetensors").read_bytes() == (tmp_path / "parts.safetensors").read_bytes()
    states = [torch.load(tmp_path / f"{n}.state", weights_only=True)["networks"] for n in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


@pytest.mark.usefixtures("tiny_network")
def test_state_of_another_run_is_refused(tmp_path: Path) -> None:
    networks = odin.make_networks(TINY)
    optimiser = odin.make_optimiser(networks, TINY)
    save_state(tmp_path / "a.state", networks, optimiser, 3, asdict(TINY))
    assert load_state(tmp_path / "a.state", networks, optimiser, asdict(TINY)) == 3
    with pytest.raises(ParameterError, match=r"a\.state belongs to a run with other settings \(masks=4\)"):
        load_state(tmp_path / "a.state", networks, optimiser, asdict(replace(TINY, masks=5)))


@pytest.mark.usefixtures("tiny_network")
def test_command_line_writes_half_precision_with_its_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    options = {name: value for name, value in asdict(TINY).items() if name != "steps"}
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    out = tmp_path / "weights" / "odin.safetensors"
    assert odin.main(["--out", str(out), "--steps", "1", *arguments]) == 0
    tensors = load_file(out)
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    odin.make_vit().load_state_dict({n: t.float() for n, t in tensors.items()}, strict=True)
    with safe_open(out, "pt") as file:
        provenance = json.loads(file.metadata()["foundling"])
    assert provenance["steps"] == 1 and provenance["images_seen"] == TINY.batch
    assert provenance["settings"] == asdict(replace(TINY, steps=1))
    assert "--masks 4" in provenance["command"] and str(tmp_path) not in json.dumps(provenance)


def test_training_scenes_are_those_of_the_training_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foundling.datasets.scenes import render_scene, split_seeds

    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    images = training_scenes(5, 96, 0.4)
    assert images.shape == (5, 96, 96, 3)
    np.testing.assert_array_equal(images[2], render_scene(split_seeds("single_train", 3)[2], 96, "single")[0])
    np.testing.assert_array_equal(images[4], render_scene(split_seeds("multi_train", 2)[1], 96, "multi")[0])
    assert len(list((tmp_path / "scenes").iterdir())) == 1
    np.testing.assert_array_equal(training_scenes(5, 96, 0.4), images)
