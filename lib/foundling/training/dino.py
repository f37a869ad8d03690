"""DINO (Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021): self-distillation.

A student sees large and small crops of an image, a teacher only the large ones; the student learns to name the same
prototype of a large vocabulary that the teacher names on another crop. The teacher follows the student by a moving
average (§3.1). Centring keeps it from naming one prototype always, a low temperature from naming none (§3.1, "Avoiding
collapse"). Unlike in the paper, the weight decay is constant.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from foundling.training.batches import Batch
from foundling.training.networks import check_sides, follow, make_network, slow_copy, target_rate
from foundling.training.objective import Objective
from foundling.training.processes import add_up, largest, world_size
from foundling.training.settings import Dino as Settings
from foundling.training.views import (
    BLUR_PROBABILITY,
    SOLARISE_PROBABILITY,
    augment,
    crop,
    normalise,
    sample_windows,
    uniform,
    warn_if_enlarged,
)

LOCAL_BLUR = 0.5  # probability for a small view; none is solarised (BYOL's and DINO's augmentations)


class Crops(NamedTuple):
    """Two large views of every image, and some small ones."""

    large: Float[Tensor, "2 image 3 g g"]
    small: Float[Tensor, "view image 3 l l"]


class Head(nn.Module):
    """The projection head (§3.1, appendix C): a three-layer MLP with GELU, unit vectors, cosines to unit prototypes.

    Weights start with a deviation of 1 / sqrt(inputs), the paper's 0.02 at its width of 2048. In a narrow head 0.02
    shrinks vectors from layer to layer, until the biases alone say where they point: the same for all images.
    """

    def __init__(self, inputs: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.in_features**-0.5)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(
        self, features: Float[Tensor, "image channel"], frozen: Tensor | bool = False
    ) -> Float[Tensor, "image prototype"]:
        """Cosines in fp32; where ``frozen``, no gradient reaches the prototypes (it is zero: DDP expects one)."""
        vectors = self.mlp(features).float()
        frozen = torch.as_tensor(frozen, device=vectors.device)
        directions = torch.where(frozen, self.prototypes.detach(), self.prototypes)
        with torch.autocast(vectors.device.type, enabled=False):
            return F.linear(F.normalize(vectors, dim=-1), F.normalize(directions, dim=-1))


class Dino(Objective):
    """``network`` is the teacher's, as the paper evaluates and publishes it; the student's is ``student``."""

    step: Tensor
    centre: Tensor

    def __init__(self, settings: Settings, images_count: int) -> None:
        """Raises ParameterError if the views' sides do not fit the network."""
        super().__init__()
        self.settings = settings
        self.student = make_network(settings.architecture, settings.options, settings.seed)
        if self.student.fpn is None:
            check_sides(settings, self.student, "global_side", "local_side")
        else:
            self.student.fpn.requires_grad_(False)  # no image feature depends on it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed + 2**31)
            self.student_head = Head(
                self.student.backbone.num_features, settings.hidden, settings.bottleneck, settings.prototypes
            )
        self.network = slow_copy(self.student)
        self.teacher_head = slow_copy(self.student_head)
        self.register_buffer("centre", torch.zeros(settings.prototypes))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def make_views(self, batch: Batch, generator: Generator) -> Crops:
        """Multi-crop with BYOL's changes of colour (§3.1, §3.2). Whatever is smaller than a view is enlarged."""
        s, pixels = self.settings, batch.images.float() / 255

        def view(side: int, areas: tuple[float, float], blur: float, solarise: float) -> Tensor:
            windows = sample_windows(len(pixels), generator, *areas)
            cut = crop(pixels, windows, side, uniform(generator, (len(pixels),)) < 0.5)
            return normalise(augment(cut, generator, blur, solarise, s.strength))

        warn_if_enlarged(min(pixels.shape[-2:]), max(s.global_side, s.local_side))
        wide, narrow = (s.global_min_area, 1.0), (s.local_min_area, s.global_min_area)
        chances = zip(BLUR_PROBABILITY, SOLARISE_PROBABILITY, strict=True)
        large = [view(s.global_side, wide, blur, solarise) for blur, solarise in chances]
        small = [view(s.local_side, narrow, LOCAL_BLUR, 0.0) for _ in range(s.local_crops)]
        nothing = pixels.new_zeros(0, len(pixels), 3, s.local_side, s.local_side)
        return Crops(torch.stack(large), torch.stack(small) if small else nothing)

    def forward(self, views: Crops) -> dict[str, Tensor]:
        """Eq. 3 and what it consists of: the teacher's entropy, and the divergence of the student from the teacher.

        A divergence near 0 says that all images are named alike; the entropy then says which collapse it is: 0 if all
        have one prototype, log(prototypes) if all are uniform (§5.3, Fig. 7).
        """
        s = self.settings
        with torch.no_grad():
            cosines = self.teacher_head(self.network.image_features(views.large.flatten(0, 1)))
            targets = self.balanced(cosines).unflatten(0, (2, -1))
        frozen = self.step < s.frozen_steps
        outputs = [
            self.student_head(self.student.image_features(crops.flatten(0, 1)), frozen).unflatten(0, (len(crops), -1))
            for crops in views
            if len(crops)
        ]
        loss = cross_view_loss(torch.cat(outputs), targets, s.student_temperature)
        spread = entropy(targets).mean()
        return {"loss": loss, "teacher_entropy": spread, "divergence": loss.detach() - spread}

    @torch.no_grad()
    def balanced(self, cosines: Float[Tensor, "image prototype"]) -> Float[Tensor, "image prototype"]:
        """The teacher's distributions: centred and sharpened (Eq. 1, Eq. 4), or by Sinkhorn and Knopp.

        In training mode this moves the centre, after it was used.
        """
        s = self.settings
        warm = (self.step / max(1, s.teacher_warmup)).clamp(max=1)
        temperature = s.teacher_temperature_start + (s.teacher_temperature - s.teacher_temperature_start) * warm
        if s.balance == "sinkhorn":
            return sinkhorn(cosines / temperature, s.sinkhorn_iterations)
        targets = ((cosines - self.centre) / temperature).softmax(-1)
        if self.training:
            self.centre.lerp_(add_up(cosines.mean(0)) / world_size(), 1 - s.centre_decay)
        return targets

    def after_step(self, step: int) -> None:
        """The teacher follows the student (§3.1), at a rate that falls to 0 on a cosine."""
        rate = target_rate(step, self.settings.steps, self.settings.teacher_decay)
        follow(self.network, self.student, rate, statistics_rate=0.0)  # the teacher's batches give its statistics
        follow(self.teacher_head, self.student_head, rate)
        self.step.fill_(step + 1)

    def to_compile(self) -> list[nn.Module]:
        """The backbones: an image's features are their own output."""
        return [self.student.backbone, self.network.backbone]

    def trained_parts(self) -> dict[str, nn.Module]:
        """The backbone: where there is a feature pyramid, it is as it was drawn."""
        return {"backbone.": self.network.backbone}


def cross_view_loss(
    student: Float[Tensor, "view image prototype"],
    targets: Float[Tensor, "large image prototype"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Eq. 3: the mean cross-entropy over images and over all pairs of a target and a view, other than its own.

    ``student`` are cosines; its first views are those that ``targets`` are of.
    """
    with torch.autocast(student.device.type, enabled=False):
        names = (student.float() / temperature).log_softmax(-1)
        pairs = -torch.einsum("tip,vip->tv", targets, names) / student.shape[1]
    others = 1 - torch.eye(*pairs.shape, device=pairs.device)
    return (pairs * others).sum() / others.sum()


def entropy(distributions: Float[Tensor, "*many prototype"]) -> Float[Tensor, "*many"]:
    """In nats."""
    return torch.special.entr(distributions).sum(-1)


def sinkhorn(scores: Float[Tensor, "image prototype"], iterations: int) -> Float[Tensor, "image prototype"]:
    """Distributions whose prototypes are used about equally often by the images of all processes.

    exp(``scores``) with columns and rows scaled in turn to equal sums (Cuturi 2013, as in SwAV), in logarithms. Rows
    come last, and sum to 1.
    """
    for _ in range(iterations):
        peak = largest(scores.amax(0))
        scores = scores - peak - add_up((scores - peak).exp().sum(0)).log()
        scores = scores.log_softmax(-1)
    return scores.exp()
