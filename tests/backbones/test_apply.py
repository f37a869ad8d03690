"""A network's input, number by number, and its mode, which comes back whatever happens."""

import numpy as np
import pytest
import torch
from torch import nn

from foundling.backbones.apply import evaluating, normalise

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def test_channels_have_their_own_mean_and_deviation():
    images = torch.tensor([0.7, 0.9, 0.3]).view(1, 3, 1, 1).repeat(2, 1, 2, 3)
    images[1, 0, 1, 2] = 0.1
    found = normalise(images, MEAN, STD)
    np.testing.assert_allclose(found[0].flatten(1).T, [[1.0, 2.0, 0.0]] * 6, atol=1e-6)
    assert found[1, 0, 1, 2].item() == pytest.approx(-2.0)
    assert images[0, 0, 0, 0].item() == pytest.approx(0.7)  # what was given stays as it is


def test_precision_stays():
    assert normalise(torch.ones(1, 3, 1, 1, dtype=torch.float64), MEAN, STD).dtype == torch.float64


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_after_an_error(training):
    network = nn.Sequential(nn.BatchNorm2d(3)).train(training)
    with pytest.raises(ZeroDivisionError), evaluating(network):
        assert not network.training and not network[0].training
        raise ZeroDivisionError
    assert network.training is training and network[0].training is training
