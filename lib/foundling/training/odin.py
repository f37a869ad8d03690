"""Odin: object discovery and representation networks.

An image is cut into masks by k-means on the features of a *discovery network* tau; an *online network* theta learns
to tell every mask from all other masks, of this image and of the others, across two augmented views, against an
exponentially averaged *target network* xi; tau follows theta, so that better features make better masks. Names and
equation numbers are the paper's.

Where the paper is silent: k-means looks at unit vectors, from random places as centres, and takes 10 iterations; the
discovery network is in evaluation mode, with running statistics that follow theta's; a mask of a view is made of whole
cells of its features.

Two departures. Every image is a square before anything else, the middle of a photo that is none: the paper cuts its
views from whole photos. And the masks that the periodic schedule keeps are those of the whole square, since a spanning
view would be another one at every step.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Generator, Tensor, nn

from foundling.discovery.kmeans import kmeans
from foundling.errors import ParameterError
from foundling.training.batches import Batch
from foundling.training.masks import label_all
from foundling.training.networks import DenseNetwork, check_sides, follow, make_network, mlp, slow_copy, target_rate
from foundling.training.objective import Objective
from foundling.training.processes import gather, rank, take_over_buffers, world_size
from foundling.training.settings import Odin as Settings
from foundling.training.views import Views, carry_masks, crop, make_views, normalise, warn_if_enlarged, whole

PROJECTED_AT_ONCE = 8192  # places whose projections are computed together: the hidden layer has 4096 channels
LABELLED_AT_ONCE = 64  # images whose masks are made together under the periodic schedule, at most


class Inputs(NamedTuple):
    """What one step looks at. ``labels`` are cached masks of the whole images, if the views have no spanning view."""

    views: Views
    labels: Integer[Tensor, "image rows columns"] | None
    seed: int


class Vectors(NamedTuple):
    """The pooled vectors of each of the two views [image, mask, channel], and which masks it shows [image, mask]."""

    online: list[Tensor]  # q(z_theta)
    targets: list[Tensor]  # z_xi
    presents: list[Tensor]


class Odin(Objective):
    """theta = (network, projector, predictor), xi = (target, its projector), tau = (discovery, its projector)."""

    def __init__(self, settings: Settings, images_count: int) -> None:
        """Raises ParameterError if the sides are no multiples of the network's cells, or K is more than there are."""
        super().__init__()
        self.settings, self.images_count = settings, images_count
        self.network = make_network(settings.architecture, settings.options, settings.seed)
        check_settings(settings, self.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed + 2**31)
            self.projector = mlp(self.network.channels, settings.hidden, settings.projection)
            self.predictor = mlp(settings.projection, settings.hidden, settings.projection)
        self.target, self.target_projector = slow_copy(self.network), slow_copy(self.projector)
        self.discovery = slow_copy(self.network)
        self.discovery_projector = slow_copy(self.projector) if settings.cluster_on == "projections" else None
        self.discovered_in: Tensor
        self.register_buffer("discovered_in", torch.zeros((), dtype=torch.long))  # epoch of tau's last copy
        self.labels: Tensor | None = None  # cached masks: in a file, and made anew when a run resumes
        self.train()

    def train(self, mode: bool = True) -> "Odin":
        """Training or evaluation mode; the discovery network is always in the latter."""
        super().train(mode)
        self.discovery.eval()
        if self.discovery_projector is not None:
            self.discovery_projector.eval()
        return self

    def make_views(self, batch: Batch, generator: Generator) -> Inputs:
        """Two views and, where masks are not cached, the spanning view; images smaller than a view are enlarged."""
        s = self.settings
        warn_if_enlarged(min(batch.images.shape[-2:]), s.view_side)
        span_side = s.span_side if s.discovery == "continuous" else None
        views = make_views(batch.images, generator, s.view_side, span_side, s.min_area, s.strength)
        labels = None
        if s.discovery == "periodic":
            if self.labels is None:
                raise RuntimeError("begin_epoch makes the masks that make_views reads")
            labels = self.labels[batch.indices.cpu()].to(batch.images.device)
        return Inputs(views, labels, int(torch.randint(2**31, (), generator=generator)))

    def forward(self, views: Inputs) -> dict[str, Tensor]:
        """Eq. 1-4. ``masks`` is the mean number of masks that an image shows in both views; ``spread`` the deviation of
        the targets' directions, 1 if they point everywhere and 0 if they are all the same."""
        online, targets, presents = self.vectors(views)
        return self._compare(online, [gather(t) for t in targets], [gather(p) for p in presents])

    def vectors(self, views: Inputs) -> Vectors:
        """Eq. 1 and the heads: what the loss compares, of this process's images; targets have no gradient."""
        seen = views.views
        labels = views.labels if seen.span is None else self.segment(seen.span, views.seed)
        assert labels is not None
        masks = F.one_hot(labels.long(), self.settings.masks).permute(0, 3, 1, 2).float()
        online, targets, presents = [], [], []
        for image, window, flips in zip(seen.images, seen.windows, seen.flips, strict=True):
            features = self.network(image)
            carried = carry_masks(masks, window, flips, features.shape[-1]).flatten(2)
            pooled, present = pool(features, carried)
            online.append(on_present(nn.Sequential(self.projector, self.predictor), pooled, present))
            with torch.no_grad():
                targets.append(on_present(self.target_projector, pool(self.target(image), carried)[0], present))
            presents.append(present)
        return Vectors(online, targets, presents)

    def _compare(self, online: list[Tensor], targets: list[Tensor], presents: list[Tensor]) -> dict[str, Tensor]:
        first, processes = len(online[0]) * rank(), world_size()
        total = torch.cat(
            [
                contrastive_loss(
                    online[i], targets[i], targets[1 - i], presents[i], presents[1 - i], self.settings.alpha, first
                )
                for i in (0, 1)
            ]
        ).sum()
        both = (presents[0] & presents[1]).sum()
        directions = F.normalize(targets[0][presents[0]], dim=-1)
        return {
            # Every process divides by its share of all anchors: the mean over processes is that over all anchors.
            "loss": total * processes / both.clamp(min=1),
            "masks": both / presents[0].shape[0],
            "spread": directions.std(0, correction=0).mean() * directions.shape[-1] ** 0.5,
            "skipped": (both == 0).float(),
        }

    @torch.no_grad()
    def segment(self, images: Float[Tensor, "image 3 h w"], seed: int) -> Integer[Tensor, "image rows columns"]:
        """The masks of normalised images as labels, on the discovery network's grid: k-means of h0 or z0 (§3.1)."""
        features = self.discovery(images)
        vectors = smooth(features, self.settings.smooth).flatten(2).transpose(1, 2)
        if self.discovery_projector is not None:
            places = vectors.flatten(0, 1).split(PROJECTED_AT_ONCE)
            vectors = torch.cat([self.discovery_projector(p) for p in places]).unflatten(0, vectors.shape[:2])
        with torch.autocast(images.device.type, enabled=False):
            generator = Generator().manual_seed(seed)
            labels = kmeans(vectors.float(), self.settings.masks, generator, self.settings.iterations)
        return labels.unflatten(1, features.shape[-2:])

    def after_step(self, step: int) -> None:
        """Eq. 6, and Eq. 7 if tau follows all the time.

        The running statistics of tau begin as a plain average over steps, as they start from nothing measured.
        """
        s = self.settings
        rate = target_rate(step, s.steps, s.target_decay)
        follow(self.target, self.network, rate)
        follow(self.target_projector, self.projector, rate)
        if s.discovery == "continuous":
            self._follow_discovery(s.discovery_rate, max(s.discovery_rate, 1 / (step + 1)))

    def begin_epoch(self, epoch: int, images: Any) -> None:
        """With the periodic schedule: tau <- theta every ``discovery_every`` epochs, and all masks anew (§3.1).

        The masks are those of the whole images, resized to ``span_side``; after a resume they are made from the tau
        that the run had. :func:`foundling.training.masks.label_all` says what keeping them costs. All processes make
        them with the running statistics of process 0, which is what is saved.
        """
        s = self.settings
        if s.discovery == "continuous":
            return
        if epoch >= int(self.discovered_in) + s.discovery_every:
            self._follow_discovery(1.0, 1.0)
            self.discovered_in.fill_(epoch)
            self.labels = None
        if self.labels is None:
            self.labels = self._segment_all(images)

    def _follow_discovery(self, rate: float, statistics_rate: float) -> None:
        follow(self.discovery, self.network, rate, statistics_rate)
        if self.discovery_projector is not None:
            follow(self.discovery_projector, self.projector, rate, statistics_rate)

    def _segment_all(self, images: Any) -> Integer[Tensor, "image rows columns"]:
        """Labels of all images, the work shared among the processes; the same whatever their number."""
        s = self.settings
        take_over_buffers(self.discovery)
        if self.discovery_projector is not None:
            take_over_buffers(self.discovery_projector)
        side, at_once = s.span_side // self.network.stride, min(s.batch, LABELLED_AT_ONCE)
        shape, device = (self.images_count, side, side), next(self.parameters()).device
        return label_all(self._segment_whole, images, shape, s.masks, at_once, device)

    def _segment_whole(self, batch: Batch, first: int) -> Integer[Tensor, "image rows columns"]:
        """The masks of whole images, the first of which is number ``first`` of the training set."""
        s, device = self.settings, next(self.parameters()).device
        pixels = batch.images.to(device).float() / 255
        seen = normalise(crop(pixels, whole(len(pixels)), s.span_side))
        seed = int(np.random.SeedSequence([s.seed, int(self.discovered_in), first]).generate_state(1)[0])
        with torch.autocast(device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            return self.segment(seen, seed)

    def to_compile(self) -> list[nn.Module]:
        """The three networks; the heads see another number of masks at every step."""
        return [self.network, self.target, self.discovery]

    def trained_parts(self) -> dict[str, nn.Module]:
        """f, whole, and g."""
        return {"": self.network, "projector.": self.projector}


def check_settings(settings: Settings, network: DenseNetwork) -> None:
    """Raises ParameterError if sides and masks do not fit the network's grid."""
    check_sides(settings, network, "span_side", "view_side")
    places = (settings.span_side // network.stride) ** 2
    if settings.masks > places:
        raise ParameterError(
            f"masks = {settings.masks} is more than the {places} patches of a spanning view of span_side = "
            f"{settings.span_side}: use fewer masks or a larger span_side"
        )


def smooth(maps: Float[Tensor, "image channel r c"], side: int) -> Float[Tensor, "image channel r c"]:
    """Every place the mean of the square of ``side`` (odd) places around it, of as much as lies inside the image."""
    if side == 1:
        return maps
    return F.avg_pool2d(maps.float(), side, stride=1, padding=side // 2, count_include_pad=False)


def pool(
    features: Float[Tensor, "image channel rows columns"], masks: Float[Tensor, "image mask patch"]
) -> tuple[Float[Tensor, "image mask channel"], Bool[Tensor, "image mask"]]:
    """Eq. 1: the mean feature under every mask, and which masks have any patch (the others give zeros, to discard)."""
    with torch.autocast(features.device.type, enabled=False):
        area = masks.sum(-1)
        return masks @ features.flatten(2).transpose(1, 2).float() / area.clamp(min=1)[..., None], area > 0


def on_present(
    network: nn.Module, vectors: Float[Tensor, "image mask i"], present: Bool[Tensor, "image mask"]
) -> Float[Tensor, "image mask o"]:
    """Apply an MLP to the vectors that are present, so that empty masks touch no batch statistics; zeros elsewhere.

    Batch statistics need two vectors: where there are fewer, vectors of zeros are put beside them.
    """
    index = present.flatten().nonzero().flatten()
    chosen = vectors.flatten(0, 1)[index]
    rows = network(chosen if len(chosen) > 1 else F.pad(chosen, (0, 0, 0, 2)))[: len(chosen)].float()
    return rows.new_zeros(present.numel(), rows.shape[-1]).index_copy(0, index, rows).unflatten(0, present.shape)


def contrastive_loss(
    online: Float[Tensor, "image mask channel"],
    target_same: Float[Tensor, "every mask channel"],
    target_other: Float[Tensor, "every mask channel"],
    present_same: Bool[Tensor, "every mask"],
    present_other: Bool[Tensor, "every mask"],
    alpha: float = 0.1,
    first: int = 0,
) -> Float[Tensor, " anchor"]:
    """Eq. 2-3 in one direction: predictions of one view against the targets of the other view.

    ``online`` are q(z_theta) of a view, ``target_same`` the z_xi of that view, ``target_other`` those of the other
    view, of the images of all processes; ``online`` begins with image number ``first`` of them. The positive is the
    same mask of the same image in the other view; negatives are all other masks of both views, but not the same mask
    in the own view. A mask that is absent from a view is no anchor, positive or negative there. Returns the loss of
    every mask that both views have.
    """
    here = torch.arange(online.shape[0] * online.shape[1], device=online.device)
    there = here + first * online.shape[1]
    anchors = (present_same & present_other).flatten()[there].nonzero().flatten()
    q, same, other = (F.normalize(t.flatten(0, 1), dim=-1) for t in (online, target_same, target_other))
    with torch.autocast(online.device.type, enabled=False):
        across = (q[anchors] @ other.T / alpha).masked_fill(~present_other.flatten(), -torch.inf)
        within = (q[anchors] @ same.T / alpha).masked_fill(~present_same.flatten(), -torch.inf)
    within = within.scatter(1, there[anchors, None], -torch.inf)
    return F.cross_entropy(torch.cat([across, within], 1), there[anchors], reduction="none")
