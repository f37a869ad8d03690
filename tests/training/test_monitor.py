"""What the features of the probe images vary with."""

import math

import numpy as np
import pytest
import torch

from foundling.backbones.apply import evaluating
from foundling.training.monitor import decompose, watch
from foundling.training.networks import make_network

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}


def naive(features: torch.Tensor) -> list[float]:
    """Sums of squares, vector by vector."""
    images, _, rows, columns = features.shape
    x = {
        (i, r, c): (v := features[i, :, r, c].double().numpy()) / np.linalg.norm(v)
        for i in range(images)
        for r in range(rows)
        for c in range(columns)
    }
    mean = np.mean(list(x.values()), axis=0)
    total = sum(((v - mean) ** 2).sum() for v in x.values())
    position = image = 0.0
    for i, r, c in x:
        here = np.mean([x[j, r, c] for j in range(images)], axis=0)
        of_image = np.mean([x[i, s, d] for s in range(rows) for d in range(columns)], axis=0)
        position += ((here - mean) ** 2).sum()
        image += ((of_image - mean) ** 2).sum()
    return [total / len(x), position / total, image / total]


def test_decomposition_equals_the_sums_of_squares() -> None:
    features = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    assert list(decompose(features)) == pytest.approx(naive(features), rel=1e-5)


def test_by_hand() -> None:
    """Two images, two places, two channels: what only the place, only the image, or only both together decide."""
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.2])

    def spread(*vectors: torch.Tensor) -> tuple[float, float, float]:
        return decompose(torch.stack(vectors).view(2, 2, 2).transpose(1, 2)[..., None])

    assert spread(a, b, a, b) == pytest.approx((0.5, 1.0, 0.0), abs=1e-6)
    assert spread(a, a, b, b) == pytest.approx((0.5, 0.0, 1.0), abs=1e-6)
    assert spread(a, b, b, a) == pytest.approx((0.5, 0.0, 0.0), abs=1e-6)
    # m = (1/4, 3/4), |m|² = 5/8; m[p] = (1/2, 1/2), (0, 1): |m[p] - m|² = 1/8 each, as is |m[i] - m|²
    assert spread(a, b, b, b) == pytest.approx((3 / 8, 1 / 3, 1 / 3))


def test_shares_do_not_depend_on_the_order_of_images_or_places_nor_on_lengths() -> None:
    features = torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(1))
    lengths = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(2)) + 0.1
    other = (features * lengths)[[2, 0, 3, 1]].flip(-1).transpose(-1, -2)
    assert decompose(other) == pytest.approx(decompose(features))


def test_a_collapsed_network_has_no_variance_and_no_shares() -> None:
    spread = decompose(torch.ones(3, 4, 2, 2))
    assert spread.feature_variance == 0.0
    assert math.isnan(spread.by_position) and math.isnan(spread.by_image)


def test_watching_changes_neither_the_mode_nor_the_network() -> None:
    network = make_network("resnet18", {}, seed=0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randint(0, 256, (3, 3, 33, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    spread = watch(network, images)
    assert 0 < spread.feature_variance < 1
    assert network.training and all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_that_sees_only_places_is_found_out() -> None:
    network = make_network("vit_tiny_patch16_224", SMALL, seed=0)
    torch.nn.init.normal_(network.backbone.pos_embed, std=20.0)
    images = torch.randint(0, 256, (8, 3, 35, 35), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert watch(network, images).by_position > 0.9
    torch.nn.init.zeros_(network.backbone.pos_embed)
    assert watch(network, images).by_position < 0.4


def test_evaluating_puts_the_mode_back_after_an_error() -> None:
    network = torch.nn.Dropout().train()
    with pytest.raises(ZeroDivisionError), evaluating(network):
        assert not network.training
        raise ZeroDivisionError
    assert network.training
