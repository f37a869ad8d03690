"""Training on what a frozen encoder says of whole images, computed once: a step is then little more than the head's."""

from collections.abc import Generator, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Generator as Draws
from torch import Tensor

from foundling.backbones.apply import normalise
from foundling.training.semantic.images import MappedImages, MappedSet
from foundling.training.semantic.networks import VitSegmenter
from foundling.training.semantic.task import SemanticTask, pixel_losses

AT_ONCE = 32  # images that the encoder looks at
LABEL_STRIDE = 2  # pixels between the labels that are learned from, on both axes


class Known(NamedTuple):
    """Tokens of images, as they are and mirrored, and their labels."""

    tokens: Float[Tensor, "image 2 width r c"]
    labels: UInt8[Tensor, "image rows columns"]


class Views(NamedTuple):
    """What a step sees: tokens of images, mirrored or not, and their labels the same way round."""

    tokens: Float[Tensor, "image width r c"]
    labels: Int[Tensor, "image rows columns"]


class Remembered:
    """The images of a run as tokens in half precision: 200 kB an image for 256 patches and a width of 192."""

    def __init__(self, source: MappedImages, task: SemanticTask, device: torch.device, workers: int) -> None:
        """The task's encoder looks at all images when the first batch is asked for: not for a run that has ended."""
        self.identity, self.source, self.task = source.identity, source, task
        self.device, self.workers = device, workers

    @cached_property
    def known(self) -> Known:
        """What the encoder, which is moved to the device, says of all images."""
        encoder, task, source = self.task.segmenter.to(self.device), self.task, self.source
        assert isinstance(encoder, VitSegmenter)  # the settings have seen to it
        side, parts = task.settings.side, list[Known]()
        plan = [range(i, min(i + AT_ONCE, len(source))) for i in range(0, len(source), AT_ONCE)]
        for images, maps in MappedSet(source, self.device, self.workers).batches(plan):
            squares = torch.cat([F.interpolate(one[None].float(), (side, side), mode="bilinear") for one in images])
            seen = normalise(squares / 255, task.body.mean, task.body.std)
            with torch.no_grad():
                tokens = torch.stack([encoder.tokens(seen), encoder.tokens(seen.flip(-1))], 1)
            size = (side // LABEL_STRIDE, side // LABEL_STRIDE)
            labels = [F.interpolate(one[None, None].float(), size, mode="nearest")[:, 0].byte() for one in maps]
            parts.append(Known(tokens.half(), torch.cat(labels)))
        return Known(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, plan: Iterable[Sequence[int]]) -> Generator[Known, None, None]:
        """What is known of the images at every list of positions in ``plan``."""
        for positions in plan:
            chosen = torch.tensor(list(positions), device=self.known.labels.device)
            yield Known(self.known.tokens[chosen], self.known.labels[chosen])


class OnRemembered(SemanticTask):
    """The head of a segmenter on tokens; every second image is mirrored."""

    def make_views(self, batch: Known, generator: Draws) -> Views:  # type: ignore[override]
        """One of the two tokens of each image, and its labels the same way round."""
        flips = (torch.rand(len(batch.labels), generator=generator) < 0.5).to(batch.labels.device)
        tokens = batch.tokens[torch.arange(len(flips), device=flips.device), flips.long()]
        labels = torch.where(flips[:, None, None], batch.labels.flip(-1), batch.labels)
        return Views(tokens.float(), labels.long())

    def forward(self, views: Views) -> dict[str, Tensor]:  # type: ignore[override]
        coarse = self.segmenter.head(views.tokens, None)
        with torch.autocast(coarse.device.type, enabled=False):
            logits = F.interpolate(coarse.float(), views.labels.shape[-2:], mode="bilinear", align_corners=False)
            return pixel_losses(logits, views.labels)
