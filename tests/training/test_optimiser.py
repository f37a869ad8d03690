"""Which parameters are decayed, LARS by its definition, the learning rate over a run."""

from pathlib import Path

import pytest
import torch
from tiny_objective import TinyObjective, tiny

from foundling.training.networks import make_network
from foundling.training.optimiser import learning_rate, make_optimiser


def test_learning_rate_over_a_run(tmp_path: Path) -> None:
    settings = tiny(tmp_path, steps=110, warmup=10, learning_rate=2.0)
    rates = [learning_rate(step, settings) for step in (0, 4, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0, 0.0])
    assert learning_rate(0, tiny(tmp_path, warmup=0)) == tiny(tmp_path).learning_rate


@pytest.mark.parametrize(
    ("architecture", "kept"),
    [
        ("vit_tiny_patch16_224", {"pos_embed", "cls_token", "blocks.0.norm1.weight", "blocks.0.attn.qkv.bias"}),
        ("resnet18", {"bn1.weight", "layer1.0.bn1.bias"}),
        ("swin_tiny_patch4_window7_224", {"layers.0.blocks.0.attn.relative_position_bias_table", "norm.bias"}),
    ],
)
def test_biases_norms_and_embeddings_are_not_decayed(tmp_path: Path, architecture: str, kept: set[str]) -> None:
    options = tiny(tmp_path).options if "vit" in architecture else {"img_size": 32} if "swin" in architecture else {}
    backbone = make_network(architecture, options, 0).backbone
    decayed, others = make_optimiser(backbone, tiny(tmp_path, weight_decay=0.3)).param_groups
    names = {id(p): name for name, p in backbone.named_parameters()}
    assert kept <= {names[id(p)] for p in others["params"]}
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0)


def test_slow_copies_are_not_optimised(tmp_path: Path) -> None:
    objective = TinyObjective(tiny(tmp_path), 10)
    given = {id(p) for group in make_optimiser(objective, tiny(tmp_path)).param_groups for p in group["params"]}
    assert not given & {id(p) for p in objective.slow.parameters()}
    assert {id(p) for p in objective.network.parameters()} <= given


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lars_by_its_definition(tmp_path: Path, decay: float) -> None:
    """Two steps by hand: trust ratio on the weight, plain momentum on the bias."""
    settings = tiny(tmp_path, optimiser="lars", learning_rate=0.5, weight_decay=decay, trust=0.01)
    layer = torch.nn.Linear(3, 2)
    optimiser = make_optimiser(layer, settings)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    moved, moved_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for step in (1.0, 2.0):
        layer.weight.grad = torch.arange(6.0).view(2, 3) * step
        layer.bias.grad = torch.tensor([1.0, -2.0]) * step
        gradient = layer.weight.grad.clone()
        trust = 0.01 * weight.norm() / (gradient.norm() + decay * weight.norm())
        moved = 0.9 * moved + trust * (gradient + decay * weight)
        moved_bias = 0.9 * moved_bias + layer.bias.grad
        weight, bias = weight - 0.5 * moved, bias - 0.5 * moved_bias
        optimiser.step()
    torch.testing.assert_close(layer.weight.detach(), weight)
    torch.testing.assert_close(layer.bias.detach(), bias)
