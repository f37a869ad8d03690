"""Odin: object discovery and representation networks, at the size that a laptop trains.

An image is cut into masks by k-means on the features of a *discovery network* tau; an *online network* theta learns
to tell every mask from all other masks, of this image and of the others, across two augmented views, against an
exponentially averaged *target network* xi; tau slowly follows theta, so that better features make better masks.
Names and equation numbers are the paper's. What is smaller than in the paper: the network (ViT, width 192, depth 4,
patch 8), the resolution, the number of masks, the heads' width, the batch, and the length of training.

    python -m foundling.training.odin --out scenes_odin.safetensors
"""

import argparse
import math
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from tqdm import tqdm

from foundling.datasets.scenes import VERSION
from foundling.discovery.kmeans import kmeans
from foundling.training.odin_files import centre_keys, export, load_state, save_state, training_scenes
from foundling.training.odin_views import MEAN, STD, Views, carry_masks, make_views

ARCHITECTURE = {"img_size": 96, "patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3, "num_classes": 0}


@dataclass(frozen=True)
class Settings:
    """One training run; the defaults are those of the embedded checkpoint. Sides are in pixels, rates are per step."""

    steps: int = 2600
    batch: int = 24
    masks: int = 6  # K; the paper has 16 on photographs
    span_side: int = 96
    view_side: int = 64
    min_area: float = 0.3  # of a window; the paper has 0.08
    strength: float = 0.3  # of the colour changes between views; the paper has 1: too hard a task for so short a run
    alpha: float = 0.1  # temperature of Eq. 2
    target_decay: float = 0.99  # 1 - lambda_xi at the start; rises to 1 on a cosine (BYOL's base for short runs)
    discovery_rate: float = 0.005  # lambda_tau; the paper has 0.001 over far more steps
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 150
    hidden: int = 1024
    projection: int = 128
    scenes: int = 12000
    scene_side: int = 128
    multi_share: float = 0.2
    seed: int = 0


def make_networks(settings: Settings) -> nn.ModuleDict:
    """theta = (f, g, q), xi = (f, g) and tau = (f), all from the settings' seed; xi and tau start as theta."""
    width, hidden, out = ARCHITECTURE["embed_dim"], settings.hidden, settings.projection
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        f, g, q = make_vit(), _mlp(width, hidden, out), _mlp(out, hidden, out)
    networks = nn.ModuleDict({"theta_f": f, "theta_g": g, "theta_q": q})
    networks.update({"xi_f": deepcopy(f), "xi_g": deepcopy(g), "tau_f": deepcopy(f)})
    for name in ("xi_f", "xi_g", "tau_f"):
        networks[name].requires_grad_(False)
    return networks


def make_vit() -> VisionTransformer:
    """The backbone f, freshly initialised."""
    return VisionTransformer(**ARCHITECTURE, dynamic_img_size=True)  # type: ignore[arg-type]


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs, bias=False)
    )


def patch_features(f: nn.Module, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image patch channel"]:
    """h = f(v): the patch tokens after the last block's norm."""
    with torch.autocast("cpu", torch.bfloat16):
        tokens: Tensor = f.forward_features(images)  # type: ignore[operator]
    return tokens[:, 1:].float()


def pool(
    features: Float[Tensor, "image patch channel"], masks: Float[Tensor, "image mask patch"]
) -> tuple[Float[Tensor, "image mask channel"], Bool[Tensor, "image mask"]]:
    """Eq. 1: the mean feature under every mask, and which masks have any patch (the others give zeros, to discard)."""
    area = masks.sum(-1)
    return masks @ features / area.clamp(min=1)[..., None], area > 0


def on_present(
    network: nn.Module, vectors: Float[Tensor, "image mask i"], present: Bool[Tensor, "image mask"]
) -> Float[Tensor, "image mask o"]:
    """Apply an MLP to the vectors that are present, so that empty masks touch no batch statistics; zeros elsewhere."""
    rows = network(vectors[present])
    return rows.new_zeros(*present.shape, rows.shape[-1]).index_put((present,), rows)


def contrastive_loss(
    online: Float[Tensor, "image mask channel"],
    target_same: Float[Tensor, "image mask channel"],
    target_other: Float[Tensor, "image mask channel"],
    present_same: Bool[Tensor, "image mask"],
    present_other: Bool[Tensor, "image mask"],
    alpha: float = 0.1,
) -> Float[Tensor, ""]:
    """Eq. 2-4 in one direction: predictions of one view against the targets of the other view.

    ``online`` are q(z_theta) of a view, ``target_same`` the z_xi of that view, ``target_other`` those of the other
    view. The positive is the same mask of the same image in the other view; negatives are all other masks of both
    views, but not the same mask in the own view. A mask that is absent from a view is no anchor, positive or
    negative there. Returns the mean over anchors (the paper's 1/K, with K the masks that have a positive).
    """
    anchor = (present_same & present_other).flatten()
    q, same, other = (F.normalize(t.flatten(0, 1), dim=-1) for t in (online, target_same, target_other))
    across = (q @ other.T / alpha).masked_fill(~present_other.flatten(), -torch.inf)
    within = (q @ same.T / alpha).masked_fill(~present_same.flatten(), -torch.inf)
    within = within.masked_fill(torch.eye(len(q), dtype=torch.bool), -torch.inf)
    logits = torch.cat([across, within], 1)[anchor]
    return F.cross_entropy(logits, torch.arange(len(q))[anchor])


def odin_loss(networks: nn.ModuleDict, views: Views, settings: Settings, generator: Generator) -> Tensor:
    """The loss of one batch: discover masks with tau, carry them into both views, contrast the pooled features."""
    with torch.no_grad():
        labels = kmeans(patch_features(networks["tau_f"], views.span), settings.masks, generator)
    patch = ARCHITECTURE["patch_size"]
    side = settings.span_side // patch
    spanning = F.one_hot(labels, settings.masks).transpose(1, 2).float().unflatten(-1, (side, side))
    online, targets, presents = [], [], []
    for image, window, flips in zip(views.images, views.windows, views.flips, strict=True):
        masks = carry_masks(spanning, window, flips, settings.view_side // patch)
        pooled, present = pool(patch_features(networks["theta_f"], image), masks)
        online.append(on_present(networks["theta_q"], on_present(networks["theta_g"], pooled, present), present))
        with torch.no_grad():
            targets.append(
                on_present(networks["xi_g"], pool(patch_features(networks["xi_f"], image), masks)[0], present)
            )
        presents.append(present)
    losses = [
        contrastive_loss(online[i], targets[i], targets[1 - i], presents[i], presents[1 - i], settings.alpha)
        for i in (0, 1)
    ]
    return losses[0] + losses[1]


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    """Eq. 6-7: slow <- (1 - rate) slow + rate fast, for parameters and running statistics."""
    leaders = fast.state_dict()
    for name, value in slow.state_dict().items():
        if value.is_floating_point():
            value.lerp_(leaders[name], rate)
        else:
            value.copy_(leaders[name])


def target_rate(step: int, settings: Settings) -> float:
    """lambda_xi at a step: from 1 - target_decay down to 0 on BYOL's cosine."""
    return (1 - settings.target_decay) * (1 + math.cos(math.pi * step / settings.steps)) / 2


def learning_rate(step: int, settings: Settings) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


def make_optimiser(networks: nn.ModuleDict, settings: Settings) -> torch.optim.AdamW:
    """AdamW with the paper's betas for ViT; biases, norms and embeddings are not decayed."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in networks.named_parameters():
        if parameter.requires_grad:
            kept = parameter.ndim < 2 or name.endswith(("pos_embed", "cls_token"))
            (others if kept else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95))


def train_step(
    networks: nn.ModuleDict,
    optimiser: torch.optim.Optimizer,
    images: UInt8[np.ndarray, "scene h w 3"],
    step: int,
    settings: Settings,
) -> float:
    """Step number ``step``: a function of the networks, the settings and the number alone. Returns the loss."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    chosen = torch.randperm(len(images), generator=generator)[: settings.batch].sort().values
    batch = torch.from_numpy(images[chosen.numpy()]).permute(0, 3, 1, 2)
    views = make_views(batch, generator, settings.span_side, settings.view_side, settings.min_area, settings.strength)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, settings)
    loss = odin_loss(networks, views, settings, generator)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in networks.parameters() if p.requires_grad], 1.0)
    optimiser.step()  # Eq. 5
    follow(networks["xi_f"], networks["theta_f"], target_rate(step, settings))
    follow(networks["xi_g"], networks["theta_g"], target_rate(step, settings))
    follow(networks["tau_f"], networks["theta_f"], settings.discovery_rate)
    return loss.item()


def train(settings: Settings, out: Path, minutes: float = math.inf, save_every: int = 100) -> bool:
    """Train, or go on training, and export theta's f to ``out``; the state for resuming lies beside it.

    ``minutes`` bounds this call, not the schedule: call again to go on. Returns whether all steps are done; a run that
    was interrupted and resumed gives the same parameters as an undisturbed one.
    """
    start, state = time.monotonic(), out.with_suffix(".state")
    images = training_scenes(settings.scenes, settings.scene_side, settings.multi_share)
    networks = make_networks(settings).train()
    optimiser = make_optimiser(networks, settings)
    done = load_state(state, networks, optimiser, asdict(settings))
    progress = tqdm(range(done, settings.steps), "odin", initial=done, total=settings.steps, mininterval=10)
    for step in progress:
        loss = train_step(networks, optimiser, images, step, settings)
        progress.set_postfix(loss=f"{loss:.3f}")
        done = step + 1
        if done % save_every == 0:
            save_state(state, networks, optimiser, done, asdict(settings))
        if time.monotonic() - start > 60 * minutes:
            break
    save_state(state, networks, optimiser, done, asdict(settings))
    backbone = make_vit().eval()
    backbone.load_state_dict(networks["theta_f"].state_dict())
    centre_keys(backbone, images[:: max(1, len(images) // 1000)], ARCHITECTURE["img_size"])
    export(out, backbone, provenance(settings, done))
    return done == settings.steps


def provenance(settings: Settings, steps: int) -> dict[str, object]:
    """What the exported file says of itself."""
    changed = [f for f in fields(Settings) if f.name == "seed" or getattr(settings, f.name) != f.default]
    options = " ".join(f"--{f.name.replace('_', '-')} {getattr(settings, f.name)}" for f in changed)
    return {
        "architecture": "timm.models.vision_transformer.VisionTransformer",
        "arguments": ARCHITECTURE,
        "command": f"python -m foundling.training.odin --out FILE {options}",
        "data": f"scenes version {VERSION}, splits single_train and multi_train",
        "key_bias": "set after training so that the mean key over training scenes is zero; changes no output",
        "images_seen": steps * settings.batch,
        "mean": MEAN,
        "method": "Odin, scaled down",
        "seed": settings.seed,
        "settings": asdict(settings),
        "std": STD,
        "steps": steps,
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; every setting is an option."""
    parser = argparse.ArgumentParser(prog="python -m foundling.training.odin", description="Train Odin on scenes.")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; run again to go on")
    for f in fields(Settings):
        kind = type(f.default)
        parser.add_argument(f"--{f.name.replace('_', '-')}", type=kind, default=f.default, help=f"default {f.default}")
    options = vars(parser.parse_args(arguments))
    out, minutes = options.pop("out"), options.pop("minutes")
    done = train(Settings(**options), out, minutes)
    print(f"{out}: {'all steps done' if done else 'not all steps done; run again to go on'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
