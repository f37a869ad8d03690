"""h: a network that looks at a map, whatever it shows, and says where boxes are (section 3.1)."""

import difflib
from collections.abc import Mapping
from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

from foundling.backbones import load_backbone
from foundling.backbones.registry import BACKBONES
from foundling.backbones.transfer import read_trained
from foundling.errors import ParameterError, WeightsError
from foundling.training.refinement.boxes import NUMBERS, decode

RGB = 3


class BoxNetwork(nn.Module):
    """h: a classifier of images whose last layer gives six numbers for each of k boxes.

    A map of one channel is shown three times over (section 3.1); one of three is an image as it is; for any other
    number the first layer has that many inputs.
    """

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body, self.channels = body, channels

    def forward(
        self, maps: Float[Tensor, "image channel rows columns"]
    ) -> tuple[Float[Tensor, "image slot 4"], Float[Tensor, "image slot 2"]]:
        """The boxes of each map as centres and sizes in 0..1, and their logits: object, no object."""
        if maps.shape[1] != self.channels:
            raise ParameterError(f"h takes maps of {self.channels} channels, and this one has {maps.shape[1]}")
        seen = maps.expand(-1, RGB, -1, -1) if self.channels == 1 else maps
        return decode(self.body(seen).float())


def make_box_network(
    name: str, options: Mapping[str, Any], boxes: int, channels: int, weights: str = "random"
) -> BoxNetwork:
    """h on maps of ``channels``, with ``boxes`` boxes, from timm's network ``name`` with the keyword arguments
    ``options``; new parameters are drawn by PyTorch's generator.

    ``weights`` are "random", a name of the registry or the path of a file of `foundling train`; the last layer is new,
    and the first if it sees other than three channels. Raises ParameterError if timm has no such network or does not
    know an option, WeightsError if the weights are missing or of another network.
    """
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), 3, cutoff=0.4))
        raise ParameterError(
            f"network = {name!r} is no network of timm's: use a ResNet, such as resnet50"
            + (f" (near this name: {near})" if near else "")
        )
    inputs = RGB if channels == 1 else channels
    try:
        body = timm.create_model(name, pretrained=False, num_classes=NUMBERS * boxes, in_chans=inputs, **dict(options))
    except (TypeError, ValueError, AssertionError) as error:
        raise ParameterError(f"network_options {dict(options)} do not fit network = {name!r}: {error}") from error
    if weights != "random":
        _fill(body, weights, inputs)
    return BoxNetwork(body, channels)


def _fill(body: Any, weights: str, inputs: int) -> None:
    """Load all but the last layer, and the first if it is new."""
    if weights in BACKBONES:
        given = load_backbone(weights, device="cpu").network.state_dict()
    else:
        given = read_trained(weights).backbone
    config = body.pretrained_cfg
    firsts = [config["first_conv"]] if isinstance(config["first_conv"], str) else config["first_conv"]
    lasts = [config["classifier"]] if isinstance(config["classifier"], str) else config["classifier"]
    new = [f"{layer}." for layer in [*lasts, *(firsts if inputs != RGB else [])]]
    own = body.state_dict()
    wanted = {key for key in own if not key.startswith(tuple(new))}
    fitting = {key: value.to(own[key].dtype) for key, value in given.items() if key in wanted}
    wrong = [key for key in fitting if fitting[key].shape != own[key].shape]
    if missing := sorted(wanted - fitting.keys()) + wrong:
        raise WeightsError(
            f"network_weights = {weights} are not of this network ({len(missing)} of {len(wanted)} parameters are not "
            f"there, or of another shape: {', '.join(missing[:3])}): choose others, or network and network_options "
            "that they are of"
        )
    body.load_state_dict({**own, **fitting})
