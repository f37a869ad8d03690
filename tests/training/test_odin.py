"""Odin: the contrastive loss, pooling, discovery, the slow networks, both schedules, several processes, bad inputs."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_objective import write_images
from torch import Tensor, nn

from foundling.discovery.kmeans import kmeans
from foundling.errors import ParameterError
from foundling.training import odin
from foundling.training.batches import Batch
from foundling.training.networks import mlp, target_rate
from foundling.training.objectives import make_objective
from foundling.training.odin import Odin, contrastive_loss, on_present, pool
from foundling.training.settings import Odin as Settings
from foundling.training.settings import settings_from
from foundling.training.views import augment, crop, normalise, relative, sample_windows, spanning_window, whole

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
TINY: dict[str, Any] = {
    "options": VIT, "masks": 3, "span_side": 48, "view_side": 32, "hidden": 16, "projection": 8,
    "images": 6, "batch": 4, "steps": 4, "warmup": 1, "precision": "fp32",
}  # fmt: skip
PYRAMID: dict[str, Any] = TINY | {"architecture": "resnet10t", "options": {}, "cluster_on": "projections"}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Images:
    """A training set in memory: random blocks of 8 pixels, so that there is something to see."""

    def __init__(self, count: int = 6, side: int = 48) -> None:
        small = torch.randint(0, 256, (count, 3, side // 8, side // 8), generator=torch.Generator().manual_seed(9))
        self.pixels = small.to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: Tensor) -> Batch:
        return Batch(self.pixels[indices], indices)

    def batches(self, plan: Iterable[Sequence[int]]) -> Iterator[Batch]:
        return (self.batch(torch.tensor(list(indices))) for indices in plan)


def make(changes: dict[str, Any] | None = None, base: dict[str, Any] = TINY) -> Odin:
    return Odin(Settings(**(base | (changes or {}))), 6)


# The loss, Eq. 2-4


def naive_losses(
    online: Tensor, same: Tensor, other: Tensor, present_same: Tensor, present_other: Tensor, alpha: float, first: int
) -> list[float]:
    """Mask by mask, logit by logit."""

    def score(a: Tensor, b: Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()) / alpha)

    everything, masks = present_same.shape
    losses = []
    for i in range(first, first + len(online)):
        for k in range(masks):
            if not (present_same[i, k] and present_other[i, k]):
                continue
            anchor = online[i - first, k]
            logits = [score(anchor, other[i, k])]
            for j in range(everything):
                for m in range(masks):
                    if (i, k) == (j, m):
                        continue
                    if present_other[j, m]:
                        logits.append(score(anchor, other[j, m]))
                    if present_same[j, m]:
                        logits.append(score(anchor, same[j, m]))
            scores = np.exp(logits)
            losses.append(-np.log(scores[0] / scores.sum()))
    return losses


def loss_inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
    vectors = [torch.randn(3, 4, 5, generator=generator) for _ in range(3)]
    present = [torch.rand(3, 4, generator=generator) < 0.7 for _ in range(2)]
    return (*vectors, *present)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize(("first", "count"), [(0, 3), (0, 1), (1, 2)])
def test_loss_equals_mask_by_mask(generator: torch.Generator, alpha: float, first: int, count: int) -> None:
    online, *rest = loss_inputs(generator)
    assert 0 < (rest[2] & rest[3]).sum() < rest[2].numel()
    online = online[first : first + count]
    losses = contrastive_loss(online, *rest, alpha, first)
    np.testing.assert_allclose(losses, naive_losses(online, *rest, alpha, first), rtol=1e-4)


def test_loss_by_hand() -> None:
    """Two images, one mask each, orthogonal: positive 1, negatives 0 from either view; alpha 1: -log(e / (e + 2))."""
    vectors, present = torch.eye(2)[:, None], torch.ones(2, 1, dtype=torch.bool)
    losses = contrastive_loss(vectors, vectors, vectors, present, present, alpha=1.0)
    assert losses.tolist() == pytest.approx([-np.log(np.e / (np.e + 2))] * 2, rel=1e-5)


def test_what_an_absent_mask_holds_does_not_matter(generator: torch.Generator) -> None:
    online, same, other, present_same, present_other = loss_inputs(generator)
    before = contrastive_loss(online, same, other, present_same, present_other)
    online, same, other = online.clone(), same.clone(), other.clone()
    online[~present_same], same[~present_same], other[~present_other] = 7.0, -3.0, 11.0
    assert torch.equal(contrastive_loss(online, same, other, present_same, present_other), before)


def test_loss_does_not_depend_on_the_order_of_images_or_masks(generator: torch.Generator) -> None:
    inputs = loss_inputs(generator)
    shuffled = [x[[2, 0, 1]][:, [3, 1, 0, 2]] for x in inputs]
    torch.testing.assert_close(contrastive_loss(*shuffled).sort().values, contrastive_loss(*inputs).sort().values)


# Pooling and heads


def test_pooling_is_the_mean_under_the_mask(generator: torch.Generator) -> None:
    features = torch.randn(2, 5, 3, 4, generator=generator)
    labels = torch.randint(0, 3, (2, 3, 4), generator=generator)
    labels[0][labels[0] == 1] = 0
    pooled, present = pool(features, F.one_hot(labels, 3).permute(0, 3, 1, 2).flatten(2).float())
    assert present.tolist() == [[True, False, True], [True, True, True]]
    for image in range(2):
        for k in range(3):
            cells = [features[image, :, r, c] for r in range(3) for c in range(4) if labels[image, r, c] == k]
            expected = torch.stack(cells).mean(0) if cells else torch.zeros(5)
            torch.testing.assert_close(pooled[image, k], expected)


def test_empty_masks_reach_no_batch_statistics(generator: torch.Generator) -> None:
    vectors, present = torch.randn(2, 3, 4, generator=generator), torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    head = mlp(4, 8, 5).train()
    out = on_present(head, vectors, present)
    assert out.shape == (2, 3, 5)
    assert (out[~present] == 0).all()
    vectors[~present] = 1000.0
    assert torch.equal(on_present(head, vectors, present), out)
    torch.testing.assert_close(out[present], head(vectors[present]))


@pytest.mark.parametrize("count", [0, 1])
def test_heads_take_fewer_vectors_than_batch_statistics_need(count: int) -> None:
    present = torch.tensor([[False] * 3, [count == 1, False, False]])
    out = on_present(mlp(4, 8, 5).train(), torch.ones(2, 3, 4), present)
    assert out.shape == (2, 3, 5) and out.isfinite().all()
    assert (out[~present] == 0).all() and out[present].shape == (count, 5)


# Discovery


def test_masks_of_a_vit_are_kmeans_of_its_features(generator: torch.Generator) -> None:
    objective, images = make(), torch.randn(2, 3, 48, 48, generator=generator)
    labels = objective.segment(images, 5)
    assert labels.shape == (2, 6, 6) and set(labels.unique().tolist()) <= {0, 1, 2}
    tokens = objective.network.backbone.forward_features(images)[:, 1:]
    assert torch.equal(labels.flatten(1), kmeans(tokens.detach(), 3, torch.Generator().manual_seed(5), 10))


def test_kmeans_takes_as_many_iterations_as_the_settings_say() -> None:
    images = normalise(Images().pixels / 255)
    seen = [make({"masks": 5, "iterations": n}).segment(images, 5) for n in (1, 3, 10)]
    tokens = make().network.backbone.forward_features(images)[:, 1:].detach()
    for labels, n in zip(seen, (1, 3, 10), strict=True):
        assert torch.equal(labels.flatten(1), kmeans(tokens, 5, torch.Generator().manual_seed(5), n))
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_masks_of_a_pyramid_are_kmeans_of_its_projections(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, images = make(base=PYRAMID), torch.randn(2, 3, 48, 48, generator=generator)
    nn.init.normal_(objective.discovery_projector[0].weight)  # type: ignore[index, union-attr, arg-type]
    monkeypatch.setattr(odin, "PROJECTED_AT_ONCE", 37)  # of 2 x 12 x 12 places
    labels = objective.segment(images, 5)
    with torch.no_grad():
        h = objective.discovery(images).permute(0, 2, 3, 1).reshape(2 * 144, 256)
        z = objective.discovery_projector(h).view(2, 144, 8)  # type: ignore[misc]
    assert torch.equal(labels, kmeans(z, 3, torch.Generator().manual_seed(5), 10).view(2, 12, 12))


def test_discovery_network_is_always_in_evaluation_mode() -> None:
    objective = make(base=PYRAMID).train()
    assert objective.network.training and objective.projector.training and objective.target.training
    assert not objective.discovery.training and not objective.discovery_projector.training  # type: ignore[union-attr]


# A step


def run_step(objective: Odin, step: int = 0, rate: float = 0.1) -> dict[str, Tensor]:
    views = objective.make_views(Images().batch(torch.tensor([3, 0, 5, 1])), torch.Generator().manual_seed(step))
    parts = objective(views)
    learned = [p for p in objective.parameters() if p.requires_grad]
    for parameter, gradient in zip(learned, torch.autograd.grad(parts["loss"], learned), strict=True):
        parameter.data -= rate * gradient
    objective.after_step(step)
    return parts


def test_views_are_drawn_as_the_settings_say() -> None:
    """Areas of 0.8 to 1; colours changed or not; with colours of strength 0.6, those that strength gives."""
    batch = Images().batch(torch.tensor([3, 0, 5, 1]))

    def drawn(**changes: float) -> odin.Views:
        return make({"min_area": 0.8, **changes}).make_views(batch, torch.Generator().manual_seed(2)).views

    seen, plain = drawn(strength=0.6), drawn(strength=0.0)
    g = torch.Generator().manual_seed(2)
    windows = [sample_windows(4, g, 0.8) for _ in range(2)]
    frame = spanning_window(*windows)
    flips = [torch.rand(4, generator=g) < 0.5 for _ in range(2)]
    for i, (blur, solarise) in enumerate(((1.0, 0.0), (0.1, 0.2))):
        torch.testing.assert_close(seen.windows[i], relative(windows[i], frame))
        cut = crop(batch.images / 255, windows[i], 32, flips[i])
        torch.testing.assert_close(seen.images[i], normalise(augment(cut, g, blur, solarise, 0.6)))
    assert not torch.equal(seen.images[0], plain.images[0]) and torch.equal(seen.windows[0], plain.windows[0])


def naive_step_loss(objective: Odin, inputs: odin.Inputs) -> float:
    """From the views to the loss, image by image and mask by mask; heads in one batch, for their statistics."""
    views, k = inputs.views, objective.settings.masks
    labels = objective.segment(views.span, inputs.seed)  # type: ignore[arg-type]
    pooled: list[list[Tensor]] = [[], []]
    where: list[list[tuple[int, int]]] = [[], []]
    for v in (0, 1):
        h = objective.network(views.images[v])
        for i in range(len(labels)):
            one_hot = F.one_hot(labels[i : i + 1].long(), k).permute(0, 3, 1, 2).float()
            window, flips = views.windows[v][i : i + 1], views.flips[v][i : i + 1]
            carried = odin.carry_masks(one_hot, window, flips, h.shape[-1])[0]
            for m in range(k):
                if carried[m].any():
                    pooled[v].append(h[i][:, carried[m].bool()].mean(1))
                    where[v].append((i, m))
    z = [objective.projector(torch.stack(p)) for p in pooled]  # xi is theta before the first step
    q = [objective.predictor(x) for x in z]
    total, anchors = 0.0, 0
    for v in (0, 1):
        for a, place in enumerate(where[v]):
            if place not in where[1 - v]:
                continue
            target = torch.cat([z[1 - v], z[v][:a], z[v][a + 1 :]])
            logits = F.cosine_similarity(q[v][a][None], target) / objective.settings.alpha
            total += (logits.logsumexp(0) - logits[where[1 - v].index(place)]).item()
            anchors += v
    return total / anchors


@pytest.mark.parametrize("base", [TINY, PYRAMID, TINY | {"alpha": 0.7}])
def test_loss_of_a_step_is_that_of_the_equations(base: dict[str, Any]) -> None:
    objective = make(base=base)
    inputs = objective.make_views(Images().batch(torch.tensor([3, 0, 5, 1])), torch.Generator().manual_seed(1))
    expected = naive_step_loss(objective, inputs)
    parts = objective(inputs)
    assert parts["loss"].item() == pytest.approx(expected, rel=1e-4)
    assert 1 <= parts["masks"] <= 3 and parts["skipped"] == 0
    assert 0 < parts["spread"] < 1.5


def test_one_step_moves_each_network_as_the_equations_say() -> None:
    objective = make({"discovery_rate": 0.25})
    before = {n: p.clone() for n, p in objective.named_parameters()}
    run_step(objective, step=1)
    after = dict(objective.named_parameters())
    rate = target_rate(1, 4, 0.99)
    for slow, fast, share in (
        ("target.", "network.", rate), ("target_projector.", "projector.", rate), ("discovery.", "network.", 0.25)
    ):  # fmt: skip
        names = [n for n in after if n.startswith(slow)]
        assert len(names) >= 5
        for name in names:
            leader = after[fast + name.removeprefix(slow)]
            torch.testing.assert_close(after[name], (1 - share) * before[name] + share * leader)
    learned = {n for n, p in after.items() if p.requires_grad}
    assert {n.partition(".")[0] for n in learned} == {"network", "projector", "predictor"}
    assert [n for n in learned if torch.equal(after[n], before[n])] == []


def test_running_statistics_of_the_discovery_network_begin_as_an_average() -> None:
    objective, seen = make(PYRAMID | {"discovery_rate": 1e-3}), []
    for step in range(3):
        run_step(objective, step, rate=0.01)
        seen.append(objective.network.backbone.bn1.running_mean.clone())
    torch.testing.assert_close(objective.discovery.backbone.bn1.running_mean, torch.stack(seen).mean(0))


def test_training_lowers_the_loss() -> None:
    objective = make({"steps": 40})
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], 3e-3)
    losses = []
    for step in range(40):
        views = objective.make_views(Images().batch(torch.arange(6)), torch.Generator().manual_seed(step))
        parts = objective(views)
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        objective.after_step(step)
        losses.append(float(parts["loss"].detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_a_step_is_a_function_of_its_images_and_its_generator() -> None:
    first, second = make(), make()
    losses = [run_step(o, step)["loss"].item() for o in (first, second) for step in (0, 1)]
    assert losses[:2] == losses[2:] and losses[0] != losses[1]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_reduced_precision_leaves_masks_and_losses_in_full() -> None:
    objective = make()
    views = objective.make_views(Images().batch(torch.arange(4)), torch.Generator().manual_seed(1))
    full = objective(views)
    with torch.autocast("cpu", torch.bfloat16):
        parts = objective(views)
    assert {p.dtype for p in parts.values()} == {torch.float32}
    assert parts["loss"].item() == pytest.approx(full["loss"].item(), rel=0.1)


def test_views_that_share_no_mask_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Top half and bottom half, with a mask in each: no mask is in both."""
    objective = make({"masks": 2})
    views = objective.make_views(Images().batch(torch.arange(4)), torch.Generator().manual_seed(1))
    halves = [torch.tensor([box]).expand(4, -1) for box in ([0.0, 0, 1, 0.5], [0, 0.5, 1, 1])]
    rows = torch.tensor([0, 0, 0, 1, 1, 1])[None, :, None].expand(4, 6, 6)
    monkeypatch.setattr(Odin, "segment", lambda self, images, seed: rows)
    parts = objective(views._replace(views=views.views._replace(windows=tuple(halves))))
    assert parts["skipped"] == 1 and parts["loss"] == 0 and parts["masks"] == 0
    parts["loss"].backward()
    assert all(not p.grad.any() for p in objective.parameters() if p.grad is not None)


# The periodic schedule

PERIODIC = {"discovery": "periodic", "discovery_every": 2}


def test_periodic_masks_are_those_of_whole_images_cached() -> None:
    images, objective = Images(), make(PERIODIC)
    objective.begin_epoch(0, images)
    assert objective.labels is not None and objective.labels.shape == (6, 6, 6)
    for start, stop in ((0, 4), (4, 6)):  # batches of 4
        seen = normalise(crop(images.pixels[start:stop] / 255, whole(stop - start), 48))
        seed = int(np.random.SeedSequence([0, 0, start]).generate_state(1)[0])
        assert torch.equal(objective.labels[start:stop].long(), objective.segment(seen, seed))
    inputs = objective.make_views(images.batch(torch.tensor([5, 2])), torch.Generator().manual_seed(1))
    assert inputs.views.span is None
    assert inputs.labels is not None and torch.equal(inputs.labels, objective.labels[[5, 2]])


def test_periodic_masks_are_made_of_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the batches are."""
    monkeypatch.setattr(odin, "LABELLED_AT_ONCE", 2)
    segment, counts = Odin.segment, []

    def counted(self: Odin, images: Tensor, seed: int) -> Tensor:
        counts.append(len(images))
        return segment(self, images, seed)

    monkeypatch.setattr(Odin, "segment", counted)
    objective, small = make(PERIODIC), make(PERIODIC | {"batch": 2})
    for each in (objective, small):
        each.begin_epoch(0, Images())
    assert counts == [2] * 6
    assert torch.equal(objective.labels, small.labels)  # type: ignore[arg-type]


def test_cached_masks_lie_where_the_spanning_views_would(generator: torch.Generator) -> None:
    """Carried from the whole image by absolute windows, or from a spanning view of it by relative ones: the same."""
    objective = make(PERIODIC)
    objective.begin_epoch(0, Images())
    inputs = objective.make_views(Images().batch(torch.arange(6)), generator)
    windows = inputs.views.windows
    masks = F.one_hot(inputs.labels.long(), 3).permute(0, 3, 1, 2).float()  # type: ignore[union-attr]
    frame = spanning_window(*windows)
    fine = odin.carry_masks(masks, frame, torch.zeros(6, dtype=torch.bool), 480)
    for window, flips in zip(windows, inputs.views.flips, strict=True):
        direct = odin.carry_masks(masks, window, flips, 4)
        through = odin.carry_masks(fine, relative(window, frame), flips, 4)
        assert (direct != through).any(1).float().mean() < 0.03  # cells that two masks halve


def test_periodic_discovery_copies_every_few_epochs_and_stands_still_between() -> None:
    images, objective = Images(), make(PERIODIC)

    def same() -> bool:
        pairs = zip(objective.discovery.parameters(), objective.network.parameters(), strict=True)
        return all(torch.equal(a, b) for a, b in pairs)

    copied = []
    for epoch in range(5):
        objective.begin_epoch(epoch, images)
        copied.append(same())
        run_step(objective, epoch)
        assert not same()
    assert copied == [True, False, True, False, True]


def test_resumed_periodic_run_makes_the_masks_it_had() -> None:
    images, objective = Images(), make(PERIODIC)
    for epoch in range(4):
        objective.begin_epoch(epoch, images)
        run_step(objective, epoch)
    again = make(PERIODIC)
    again.load_state_dict(objective.state_dict())
    again.begin_epoch(3, images)
    assert again.labels is not None and objective.labels is not None
    assert torch.equal(again.labels, objective.labels)
    fresh = make(PERIODIC)
    fresh.begin_epoch(0, images)
    assert not torch.equal(fresh.labels, objective.labels)  # type: ignore[arg-type]


@pytest.mark.slow  # 10 s
@pytest.mark.parametrize("schedule", [{}, PERIODIC])
def test_interrupted_run_ends_as_an_undisturbed_one(tmp_path: Path, schedule: dict[str, Any]) -> None:
    """Three steps an epoch, a stop after every step: between copies of tau, and in the epoch of one."""
    from foundling.training.representation import train

    root = write_images(tmp_path / "images", count=12, side=48)
    changes = {"dataset": "folder", "root": str(root), "images": 0, "image_side": 48, "workers": 0, "steps": 8}
    settings = Settings(**(TINY | schedule | changes))
    while not train(settings, tmp_path / "parts", minutes=0.0, progress=False, cpu=True).finished:
        pass
    assert train(settings, tmp_path / "whole", progress=False, cpu=True).finished
    states = [torch.load(tmp_path / f"{n}.state", weights_only=True)["task"] for n in ("parts", "whole")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert int(states[0]["discovered_in"]) == (2 if schedule else 0)


def test_continuous_discovery_caches_nothing() -> None:
    objective = make()
    objective.begin_epoch(0, Images())
    assert objective.labels is None


# Several processes


def _share_of_two(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    objective, inputs = _plain_heads(), _half(number)
    parallel = nn.parallel.DistributedDataParallel(objective)
    parallel(inputs)["loss"].backward()
    grads = {n: p.grad for n, p in objective.named_parameters() if p.requires_grad}
    record = {"grads": grads, "loss": objective(inputs)["loss"].detach(), "labels": _labels(number), "files": []}
    os.environ["LOCAL_RANK"] = str(number)  # from here on as processes of one machine, which share a file
    memmap = np.memmap

    def noted(file: str, *rest: Any, **shape: Any) -> np.ndarray:
        record["files"].append(file)
        return memmap(file, *rest, **shape)

    np.memmap = noted  # type: ignore[misc, assignment]
    record["shared"] = _labels(number)
    torch.save(record, f"{folder}/{number}")
    torch.distributed.destroy_process_group()


def _labels(number: int) -> Tensor:
    """Masks by a discovery network whose running statistics are those of process ``number``."""
    objective = make(PERIODIC | {"batch": 2}, PYRAMID)
    generator = torch.Generator().manual_seed(number)
    for name, buffer in objective.named_buffers():
        if name.startswith(("discovery.", "discovery_projector.")) and name.endswith("running_mean"):
            buffer += torch.randn(buffer.shape, generator=generator)
    objective.begin_epoch(0, Images())
    assert objective.labels is not None
    return objective.labels.clone()


def _plain_heads() -> Odin:
    """Without batch statistics, which differ between one process and two."""
    objective = make()
    for head in (objective.projector, objective.predictor, objective.target_projector):
        head[1] = nn.Identity()
    return objective


def _half(number: int) -> odin.Inputs:
    """One or the other two of four images, with masks of their own."""
    g = torch.Generator().manual_seed(4)
    images = [torch.randn(4, 3, 32, 32, generator=g) for _ in range(2)]
    windows = [sample_windows(4, g, 0.3) for _ in range(2)]
    labels = torch.randint(0, 3, (4, 6, 6), generator=g)
    part = slice(2 * number, 2 * number + 2) if number < 2 else slice(None)
    flips = torch.tensor([True, False, False, True])[part]
    views = odin.Views((images[0][part], images[1][part]), (windows[0][part], windows[1][part]), (flips, flips), None)
    return odin.Inputs(views, labels[part], 0)


@pytest.mark.slow  # 20 s: two processes start
def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(_share_of_two, (str(tmp_path),), nprocs=2, start_method="spawn")
    objective = _plain_heads()
    loss = objective(_half(2))["loss"]
    loss.backward()
    parts = [torch.load(tmp_path / str(number)) for number in (0, 1)]
    assert float(sum(p["loss"] for p in parts) / 2) == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            for part in parts:
                torch.testing.assert_close(part["grads"][name], parameter.grad, atol=1e-6, rtol=1e-3)
    alone, other = _labels(0), _labels(1)
    assert (alone != other).float().mean() > 0.05
    assert all(torch.equal(part[name], alone) for part in parts for name in ("labels", "shared"))
    assert parts[0]["files"] == parts[1]["files"] and len(parts[0]["files"]) == 1


# Bad inputs


def test_sides_and_masks_that_do_not_fit_are_named() -> None:
    with pytest.raises(
        ParameterError, match="masks = 37 is more than the 36 patches of a spanning view of span_side = 48"
    ):
        make({"masks": 37})
    with pytest.raises(
        ParameterError, match=r"view_side = 36 must be a multiple of 8, the pixels .* of vit_tiny.*: use 32"
    ):
        make({"view_side": 36})
    with pytest.raises(ParameterError, match=r"span_side = 50 must be a multiple of 4, .* of resnet10t: use 48"):
        make({"span_side": 50}, PYRAMID)


def test_images_smaller_than_a_view_are_enlarged_with_a_warning() -> None:
    odin.warn_if_enlarged.cache_clear()
    with pytest.warns(UserWarning, match="images 24 pixels wide are enlarged to views of 32"):
        inputs = make().make_views(Images(4, 24).batch(torch.arange(4)), torch.Generator())
    assert inputs.views.images[0].shape == (4, 3, 32, 32)


def test_periodic_masks_are_asked_for_after_they_are_made() -> None:
    with pytest.raises(RuntimeError, match="begin_epoch"):
        make(PERIODIC).make_views(Images().batch(torch.arange(4)), torch.Generator())


@pytest.mark.parametrize("name", ["odin", "dino", "mae"])
def test_objectives_are_found_by_their_names(name: str) -> None:
    settings = settings_from({"objective": name, "options": VIT}, "x.yaml")
    objective = make_objective(settings, 6)
    assert type(objective).__name__.lower() == name
    assert objective.network.channels == 24


def test_a_place_sees_the_mean_of_the_places_around_it() -> None:
    """Against loops over the places inside the image; a side of 1 changes nothing."""
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for side in (1, 3, 5):
        got, reach = odin.smooth(maps, side), side // 2
        for r in range(4):
            for c in range(5):
                around = maps[:, :, max(0, r - reach) : r + reach + 1, max(0, c - reach) : c + reach + 1]
                torch.testing.assert_close(got[:, :, r, c], around.mean((2, 3)))


def test_kmeans_sees_smoothed_features() -> None:
    made, image = make({"smooth": 3}), torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    places = odin.smooth(made.discovery(image), 3).flatten(2).transpose(1, 2).detach()
    wanted = kmeans(places, 3, torch.Generator().manual_seed(5), 10)
    assert torch.equal(made.segment(image, 5).flatten(1), wanted)
    assert not torch.equal(make().segment(image, 5).flatten(1), wanted)


def test_a_square_has_a_middle() -> None:
    with pytest.raises(ParameterError, match="smooth = 2 must be odd"):
        settings_from({"smooth": 2}, "here")
