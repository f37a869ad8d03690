"""DINO: the loss over pairs of views, what keeps the teacher from collapse, the head, the teacher's average."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_objective import write_images
from torch import Tensor, distributed, multiprocessing, nn

from foundling.errors import ParameterError
from foundling.training.batches import Batch
from foundling.training.dino import Dino, Head, cross_view_loss, entropy, sinkhorn
from foundling.training.exports import dense_tensors
from foundling.training.settings import Dino as Settings

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}


def settings(**changes: Any) -> Settings:
    small = {"prototypes": 12, "hidden": 16, "bottleneck": 8, "global_side": 32, "local_side": 16, "local_crops": 2}
    return Settings(**({"options": VIT, "batch": 4, "precision": "fp32"} | small | changes))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch(count: int = 4, side: int = 40) -> Batch:
    """Noise around a colour of its own in every image."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 206, (count, 3, 1, 1)) + rng.integers(0, 50, (count, 3, side, side))
    return Batch(torch.from_numpy(images.astype(np.uint8)), torch.arange(count))


def distributions(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator).softmax(-1)


# The loss, Eq. 3


def naive_loss(student: np.ndarray, targets: np.ndarray, temperature: float) -> float:
    """Image by image, pair by pair, prototype by prototype."""
    losses = []
    for image in range(student.shape[1]):
        for t in range(len(targets)):
            for v in range(len(student)):
                if t == v:
                    continue
                powers = [math.exp(score / temperature) for score in student[v, image]]
                cross = 0.0
                for k, power in enumerate(powers):
                    cross -= targets[t, image, k] * math.log(power / sum(powers))
                losses.append(cross)
    return float(np.mean(losses))


@pytest.mark.parametrize(("views", "temperature"), [(2, 1.0), (5, 0.1)])
def test_loss_equals_pair_by_pair(generator: torch.Generator, views: int, temperature: float) -> None:
    student = torch.rand(views, 3, 7, generator=generator) * 2 - 1
    targets = distributions(generator, 2, 3, 7)
    expected = naive_loss(student.double().numpy(), targets.double().numpy(), temperature)
    assert float(cross_view_loss(student, targets, temperature)) == pytest.approx(expected, rel=1e-5)


def test_loss_by_hand() -> None:
    """Two views, one image, two prototypes: each view names the other's target with cosines 1 and 0."""
    student = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    targets = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    # Target 0 against view 1: -log(e / (e + 1)); target 1 against view 0: -log(1 / (e + 1)).
    expected = (math.log(math.e + 1) - 1 + math.log(math.e + 1)) / 2
    assert float(cross_view_loss(student, targets, 1.0)) == pytest.approx(expected, rel=1e-6)


def test_a_view_is_not_held_against_its_own_target(generator: torch.Generator) -> None:
    """With target 1 uniform, what target 0 says reaches every view but view 0."""
    student = torch.randn(4, 3, 5, generator=generator, requires_grad=True)
    targets = torch.stack([distributions(generator, 3, 5), torch.full((3, 5), 0.2)])
    changed = torch.stack([distributions(generator, 3, 5), torch.full((3, 5), 0.2)])
    before, after = (torch.autograd.grad(cross_view_loss(student, t, 0.1), student)[0] for t in (targets, changed))
    assert torch.equal(before[0], after[0])
    assert (before[1:] != after[1:]).any(-1).all()


def test_loss_does_not_depend_on_the_order_of_images_prototypes_and_small_views(generator: torch.Generator) -> None:
    student, targets = torch.randn(5, 3, 6, generator=generator), distributions(generator, 2, 3, 6)
    before = cross_view_loss(student, targets, 0.1)
    images, names = torch.tensor([2, 0, 1]), torch.randperm(6, generator=generator)
    shuffled = student[[0, 1, 4, 2, 3]][:, images][..., names]
    torch.testing.assert_close(cross_view_loss(shuffled, targets[:, images][..., names], 0.1), before)


def test_loss_is_in_fp32_under_autocast(generator: torch.Generator) -> None:
    student, targets = torch.randn(3, 4, 6, generator=generator), distributions(generator, 2, 4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cross_view_loss(student, targets, 0.1)
    assert torch.equal(inside, cross_view_loss(student, targets, 0.1))


def test_entropy_by_hand() -> None:
    told = entropy(torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4]))
    torch.testing.assert_close(told, torch.tensor([0, math.log(2), math.log(4)]))


# Sinkhorn and Knopp


def naive_sinkhorn(scores: np.ndarray, iterations: int) -> np.ndarray:
    """Scale every column, then every row, to the sum that it has when all are used equally."""
    table = np.exp(scores)
    images, prototypes = table.shape
    for _ in range(iterations):
        for k in range(prototypes):
            table[:, k] *= images / prototypes / table[:, k].sum()
        for i in range(images):
            table[i] /= table[i].sum()
    return table


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_equals_row_by_row(generator: torch.Generator, iterations: int) -> None:
    scores = 3 * torch.randn(5, 4, generator=generator)
    expected = torch.from_numpy(naive_sinkhorn(scores.double().numpy(), iterations)).float()
    torch.testing.assert_close(sinkhorn(scores, iterations), expected)


def test_sinkhorn_uses_all_prototypes_equally(generator: torch.Generator) -> None:
    """Even if all images prefer one; and scores as far apart as low temperatures make them give numbers."""
    scores = torch.rand(6, 3, generator=generator) / 0.01
    scores[:, 0] += 200
    plan = sinkhorn(scores, 500)
    torch.testing.assert_close(plan.sum(1), torch.ones(6))
    torch.testing.assert_close(plan.sum(0), torch.full((3,), 2.0), atol=0.02, rtol=0)


def test_sinkhorn_ignores_what_all_images_prefer(generator: torch.Generator) -> None:
    scores = torch.randn(5, 4, generator=generator)
    liked = torch.tensor([3.0, 0, -2, 1])
    torch.testing.assert_close(sinkhorn(scores + liked, 1), sinkhorn(scores, 1))


# The head


def test_head_gives_cosines_to_its_prototypes(generator: torch.Generator) -> None:
    head = Head(6, 10, 5, 7)
    x = torch.randn(3, 6, generator=generator)
    vectors = head.mlp(x)
    for i, cosines in enumerate(head(x)):
        for k, cosine in enumerate(cosines):
            prototype = head.prototypes[k]
            expected = vectors[i] @ prototype / (vectors[i].norm() * prototype.norm())
            torch.testing.assert_close(cosine, expected)


def test_head_is_three_layers_with_gelu_between() -> None:
    assert [type(layer) for layer in Head(6, 10, 5, 7).mlp] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]


def test_the_length_of_a_prototype_says_nothing(generator: torch.Generator) -> None:
    head, x = Head(6, 10, 5, 7), torch.randn(3, 6, generator=generator)
    before = head(x)
    with torch.no_grad():
        head.prototypes *= torch.rand(7, 1, generator=generator) + 0.5
    torch.testing.assert_close(head(x), before)


def test_a_frozen_head_passes_gradients_but_keeps_its_prototypes(generator: torch.Generator) -> None:
    head, x = Head(6, 10, 5, 7), torch.randn(3, 6, generator=generator)
    head(x, torch.tensor(True))[:, 0].sum().backward()
    assert head.prototypes.grad is not None and not head.prototypes.grad.any()
    assert all(layer.weight.grad.any() for layer in head.mlp[::2])
    head(x, torch.tensor(False))[:, 0].sum().backward()
    assert head.prototypes.grad.any()


# Centring and temperatures


def test_centring_by_hand() -> None:
    dino = Dino(settings(prototypes=3, centre_decay=0.75, teacher_temperature_start=0.5), 4)
    cosines = torch.tensor([[0.9, 0.1, -0.3], [0.5, 0.3, 0.1]])
    torch.testing.assert_close(dino.balanced(cosines), (cosines / 0.5).softmax(-1))  # the centre is still 0
    centre = torch.tensor([0.7, 0.2, -0.1]) / 4
    torch.testing.assert_close(dino.centre, centre)
    torch.testing.assert_close(dino.balanced(cosines), ((cosines - centre) / 0.5).softmax(-1))
    torch.testing.assert_close(dino.centre, 0.75 * centre + torch.tensor([0.7, 0.2, -0.1]) / 4)


def test_the_centre_moves_in_training_only() -> None:
    dino = Dino(settings(), 4).eval()
    dino.balanced(torch.ones(2, 12))
    assert not dino.centre.any()
    dino.train().balanced(torch.ones(2, 12))
    assert dino.centre.all()


@pytest.mark.parametrize("balance", ["centring", "sinkhorn"])
def test_the_teachers_temperature_warms_up(balance: str) -> None:
    """From 0.1 to 0.2 over four steps: the distributions at each step are those of a head at that temperature."""
    changes = {"teacher_temperature_start": 0.1, "teacher_temperature": 0.2, "teacher_warmup": 4}
    dino = Dino(settings(prototypes=3, balance=balance, **changes), 4).eval()
    cosines = torch.tensor([[0.9, 0.1, -0.3], [0.5, 0.3, 0.1]])
    for step, temperature in enumerate([0.1, 0.125, 0.15, 0.175, 0.2, 0.2]):
        expected = sinkhorn(cosines / temperature, 3) if balance == "sinkhorn" else (cosines / temperature).softmax(-1)
        torch.testing.assert_close(dino.balanced(cosines), expected)
        dino.after_step(step)


def _process(rank: int, folder: str, cosines: Tensor) -> None:
    """One of two processes, with half of the images."""
    path = Path(folder)
    distributed.init_process_group("gloo", init_method=f"file://{path}/meeting", rank=rank, world_size=2)
    mine = cosines.chunk(2)[rank]
    dino = Dino(settings(prototypes=4), 4)
    dino.balanced(mine)
    torch.save({"centre": dino.centre, "plan": sinkhorn(mine / 0.1, 3)}, path / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow  # 10 s: two processes that import torch
def test_two_processes_balance_like_one(tmp_path: Path, generator: torch.Generator) -> None:
    cosines = torch.rand(6, 4, generator=generator) * 2 - 1
    multiprocessing.spawn(_process, (str(tmp_path), cosines), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    dino = Dino(settings(prototypes=4), 4)
    dino.balanced(cosines)
    assert torch.equal(parts[0]["centre"], parts[1]["centre"])
    torch.testing.assert_close(parts[0]["centre"], dino.centre)
    torch.testing.assert_close(torch.cat([part["plan"] for part in parts]), sinkhorn(cosines / 0.1, 3))


# Views


def test_views_are_large_and_small_crops(generator: torch.Generator) -> None:
    views = Dino(settings(local_crops=3), 4).make_views(batch(), generator)
    assert views.large.shape == (2, 4, 3, 32, 32)
    assert views.small.shape == (3, 4, 3, 16, 16)
    apart = [(a - b).abs().mean() for i, a in enumerate(views.small) for b in views.small[:i]]
    assert min(apart) > 0.01


def test_views_are_a_function_of_the_generators_seed() -> None:
    dino = Dino(settings(), 4)
    first, again, other = (dino.make_views(batch(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all((a - b).abs().mean() > 0.01 for a, b in zip(first, other, strict=True))


def test_large_views_show_more_of_the_image_than_small_ones(generator: torch.Generator) -> None:
    """On a horizontal ramp, a view's range of values is the width of its window: at most sqrt(0.25 x 4/3) if small."""
    ramp = torch.arange(256, dtype=torch.uint8).expand(64, 3, 256, 256).contiguous()
    dino = Dino(settings(strength=0.0, global_min_area=0.25, local_min_area=0.05, local_crops=1), 4)
    views = dino.make_views(Batch(ramp, torch.arange(64)), generator)
    large, small = (v.amax((2, 3, 4)) - v.amin((2, 3, 4)) for v in (views.large[1:], views.small))
    full = (1 / torch.tensor([0.229, 0.224, 0.225])).max() + 0.5
    assert small.max() < 0.6 * full
    assert large.max() > 0.8 * full > large.min()


def test_colours_change_as_far_as_the_settings_say() -> None:
    """The same draws at three strengths: the further from the plain crops, the stronger."""
    plain, weak, strong = (
        Dino(settings(strength=strength), 4).make_views(batch(), torch.Generator().manual_seed(3))
        for strength in (0.0, 0.2, 0.4)
    )
    for i in (0, 1):
        assert 0.02 < (weak[i] - plain[i]).abs().mean() < 0.8 * (strong[i] - plain[i]).abs().mean()


def test_views_larger_than_the_images_are_enlarged_with_a_warning(generator: torch.Generator) -> None:
    dino = Dino(settings(), 4)
    with pytest.warns(UserWarning, match="images 23 pixels wide are enlarged to views of 32"):
        views = dino.make_views(batch(side=23), generator)
    assert views.large.shape[-1] == 32


# The objective


def test_parts_are_what_their_names_say(generator: torch.Generator) -> None:
    """In evaluation mode nothing moves, so that the parts can be put together from the networks by hand."""
    dino = Dino(settings(), 4).eval()
    views = dino.make_views(batch(), generator)
    parts = dino(views)
    targets = torch.stack([(dino.teacher_head(dino.network.image_features(v)) / 0.04).softmax(-1) for v in views.large])
    student = torch.stack([dino.student_head(dino.student.image_features(v)) for v in views.large])
    small = torch.stack([dino.student_head(dino.student.image_features(v)) for v in views.small])
    both = torch.cat([student, small]).detach()
    loss = naive_loss(both.double().numpy(), targets.double().numpy(), 0.1)
    assert float(parts["loss"].detach()) == pytest.approx(loss, rel=1e-4)
    assert float(parts["teacher_entropy"]) == pytest.approx(float(-(targets * targets.log()).sum(-1).mean()), rel=1e-4)
    divergences = [
        (targets[t] * (targets[t].log() - (both[v] / 0.1).log_softmax(-1))).sum(-1).mean()
        for t in range(2)
        for v in range(4)
        if t != v
    ]
    assert float(parts["divergence"]) == pytest.approx(float(sum(divergences) / 6), rel=1e-4)


@pytest.mark.parametrize(("collapsed", "level"), [("uniform", math.log(12)), ("one", 0.0)])
def test_collapse_shows(generator: torch.Generator, collapsed: str, level: float) -> None:
    """If everything has one name or all of them, there is nothing to tell apart, and the entropy says which it is."""
    dino = Dino(settings(student_temperature=0.04), 4).eval()
    with torch.no_grad():
        for head in (dino.student_head, dino.teacher_head):
            head.mlp[-1].weight.zero_()
            head.mlp[-1].bias.copy_(torch.eye(8)[0])
            head.prototypes.zero_()
            head.prototypes[:, 1] = 1
            if collapsed == "one":
                head.prototypes[3] = torch.eye(8)[0]
    parts = dino(dino.make_views(batch(), generator))
    assert float(parts["teacher_entropy"]) == pytest.approx(level, abs=1e-3)
    assert float(parts["divergence"]) == pytest.approx(0, abs=1e-3)


def test_without_small_views(generator: torch.Generator) -> None:
    dino = Dino(settings(local_crops=0), 4)
    parts = dino(dino.make_views(batch(), generator))
    assert float(parts["loss"].detach()) > 0


def test_the_teacher_follows_the_student(generator: torch.Generator) -> None:
    """At decay 0.9 over ten steps: the rate is 0.1 at step 0, half of that at step 5, and 0 at step 10."""
    dino = Dino(settings(steps=10, warmup=0, teacher_decay=0.9), 4)
    with torch.no_grad():
        for p in (*dino.student.parameters(), *dino.student_head.parameters()):
            p.add_(1)
    for step, rate in ((0, 0.1), (5, 0.05), (10, 0.0)):
        before = dino.network.backbone.patch_embed.proj.weight.clone(), dino.teacher_head.prototypes.clone()
        dino.after_step(step)
        leaders = dino.student.backbone.patch_embed.proj.weight, dino.student_head.prototypes
        followers = dino.network.backbone.patch_embed.proj.weight, dino.teacher_head.prototypes
        for old, new, leader in zip(before, followers, leaders, strict=True):
            torch.testing.assert_close(new, (1 - rate) * old + rate * leader)


def run_steps(dino: Dino, steps: range, images: Batch, rate: float = 3e-3) -> list[dict[str, float]]:
    optimiser = torch.optim.AdamW([p for p in dino.parameters() if p.requires_grad], rate, betas=(0.9, 0.95))
    history = []
    for step in steps:
        parts = dino(dino.make_views(images, torch.Generator().manual_seed(step)))
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        dino.after_step(step)
        history.append({name: float(value.detach()) for name, value in parts.items()})
    return history


def test_prototypes_stay_for_the_first_steps() -> None:
    dino = Dino(settings(frozen_steps=2), 4)

    def directions() -> Tensor:
        return nn.functional.normalize(dino.student_head.prototypes.detach(), dim=-1).clone()

    before, first_layer = directions(), dino.student_head.mlp[0].weight.detach().clone()
    run_steps(dino, range(2), batch())
    torch.testing.assert_close(directions(), before)
    assert not torch.equal(dino.student_head.mlp[0].weight, first_layer)
    run_steps(dino, range(2, 3), batch())
    assert (directions() - before).abs().max() > 1e-3


def test_a_state_holds_all_that_the_next_step_needs() -> None:
    changes = {"teacher_warmup": 5, "teacher_temperature": 0.07, "frozen_steps": 2}
    first, second = Dino(settings(**changes), 4), Dino(settings(**changes, seed=1), 4)
    run_steps(first, range(3), batch())
    second.load_state_dict(first.state_dict())
    views = first.make_views(batch(), torch.Generator().manual_seed(9))
    told, again = first(views), second(views)
    assert all(torch.equal(told[name], again[name]) for name in told)


def test_seeds_decide_the_parameters() -> None:
    first, again, other = (Dino(settings(seed=seed), 4).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["student_head.prototypes"], other["student_head.prototypes"])


@pytest.mark.parametrize("architecture", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_all_that_is_trained_has_a_gradient(generator: torch.Generator, architecture: str) -> None:
    """DistributedDataParallel would wait for the others for ever."""
    small: dict[str, Any] = {
        "resnet18": {},
        "swin_tiny_patch4_window7_224": {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
        "vit_tiny_patch16_224": VIT,
    }
    dino = Dino(settings(architecture=architecture, options=small[architecture], global_side=64, local_side=32), 4)
    dino(dino.make_views(batch(side=64), generator))["loss"].backward()
    trained = {name: p for name, p in dino.named_parameters() if p.requires_grad}
    assert trained and all(p.grad is not None for p in trained.values())
    assert not any(name.startswith(("network.", "teacher_head.")) for name in trained)


@pytest.mark.parametrize("name", ["global_side", "local_side"])
def test_sides_must_be_whole_patches(name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name} = 29 must be a multiple of 8, .* use 24"):
        Dino(settings(**{name: 29}), 4)


@pytest.mark.parametrize(("balance", "least"), [("centring", 3), ("sinkhorn", 8)])
def test_it_learns(balance: str, least: int) -> None:
    """16 images in colours of their own: views become predictable, and the images keep names of their own."""
    images = batch(16)
    changes = {"bottleneck": 64, "prototypes": 64, "strength": 0.0, "teacher_decay": 0.9, "steps": 60, "warmup": 0}
    dino = Dino(settings(balance=balance, batch=16, **changes), 16)
    history = run_steps(dino, range(60), images, rate=1e-3)
    early, late = ({k: np.mean([h[k] for h in part]) for k in part[0]} for part in (history[:5], history[-5:]))
    assert late["loss"] < 0.85 * early["loss"]
    assert late["divergence"] < 0.4 * early["divergence"]
    views = dino.make_views(images, torch.Generator().manual_seed(0))
    with torch.no_grad():
        names = dino.balanced(dino.teacher_head(dino.network.image_features(views.large[1]))).argmax(-1)
    assert len(names.unique()) >= least


def test_a_narrow_head_tells_inputs_apart_as_a_wide_one_does(generator: torch.Generator) -> None:
    """With the paper's 0.02 in a head of width 16, the vectors' values would be below 1e-3, and biases take over."""
    x = nn.functional.layer_norm(torch.randn(64, 192, generator=generator), (192,))
    for hidden in (16, 2048):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            lengths = Head(192, hidden, 32, 4).mlp(x).square().mean().sqrt()
        assert 0.1 < float(lengths.detach()) < 1


def test_an_untrained_pyramid_is_not_exported(generator: torch.Generator) -> None:
    """DINO trains the backbone of a network of stages: its pyramid is as it was drawn, before and after."""
    dino = Dino(settings(architecture="resnet10t", options={}), 4)
    drawn = {name: value.clone() for name, value in dino.student.fpn.state_dict().items()}  # type: ignore[union-attr]
    learned = [p for p in dino.parameters() if p.requires_grad]
    loss = dino(dino.make_views(batch(), generator))["loss"]
    for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
        parameter.data -= 0.1 * gradient
    dino.after_step(0)
    for network in (dino.student, dino.network):
        assert all(torch.equal(value, drawn[name]) for name, value in network.fpn.state_dict().items())
    expected = {f"backbone.{name}": value for name, value in dino.network.backbone.state_dict().items()}
    written = dense_tensors(dino)
    assert written.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in written.items())
    assert dense_tensors(Dino(settings(), 4)).keys() == Dino(settings(), 4).network.state_dict().keys()


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_writes_the_whole_network_where_a_pyramid_was_trained_or_it_is_asked_for(
    tmp_path: Path, asked: bool
) -> None:
    from foundling.training.representation import train

    small = {"architecture": "resnet10t", "options": {}, "dataset": "folder", "images": 0, "image_side": 32}
    root = write_images(tmp_path / "photos", 4)
    run = settings(**small, root=str(root), steps=1, warmup=0, workers=0, probes=2, export_dense=asked)
    train(run, tmp_path / "a", progress=False, cpu=True)
    assert (tmp_path / "a_dense.safetensors").exists() == asked
