"""A registry entry → an untrained network, built by timm or torchvision."""

import timm
import torch
import torchvision
from torch import nn

from foundling.backbones.registry import Entry

_DILATION = [False, False, True]  # the last stage only: output stride 16, LOST's resnet_dilate 2
_RESNET_TRUNK = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def build_network(entry: Entry, seed: int = 0) -> nn.Module:
    """The network of ``entry`` in evaluation mode, its parameters drawn from ``seed`` and frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _trunk(entry) if entry.family == "cnn" else _transformer(entry)
    return network.eval().requires_grad_(False)


def _transformer(entry: Entry) -> nn.Module:
    return timm.create_model(entry.architecture, pretrained=False, num_classes=0, **entry.options)


def _trunk(entry: Entry) -> nn.Module:
    """A convolutional network up to its last stage: ``layer4`` of a ResNet, the last ReLU of a VGG (LOST, networks).

    Those with ``options`` are timm's.
    """
    if entry.options:
        return timm.create_model(entry.architecture, pretrained=False, num_classes=0, global_pool="", **entry.options)
    trunk = nn.Sequential()
    if entry.architecture.startswith("vgg"):
        trunk.add_module("features", torchvision.models.get_model(entry.architecture, weights=None).features[:-1])
        return trunk
    network = torchvision.models.get_model(entry.architecture, weights=None, replace_stride_with_dilation=_DILATION)
    for name in _RESNET_TRUNK:
        trunk.add_module(name, getattr(network, name))
    return trunk
