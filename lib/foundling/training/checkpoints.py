"""What a run leaves: its state, to go on from, its history, and the networks it exports."""

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from foundling import provenance
from foundling.backbones.apply import evaluating
from foundling.errors import ParameterError, WeightsError
from foundling.files import write_bytes
from foundling.training.monitor import AT_ONCE, prepare
from foundling.training.networks import make_network
from foundling.training.settings import MAY_CHANGE, Common, Steps
from foundling.training.views import MEAN, STD

NETWORK = ("architecture", "options")  # settings that say what the tensors of a state belong to
PROGRESS = ("done", "seconds", "history", "pending")  # what a state says of where the run was
FIRST_COLUMNS = ("step", "loss")
LAST_COLUMNS = (
    "learning_rate", "images_per_second", "waiting", "seconds", "feature_variance", "by_position", "by_image",
)  # fmt: skip


def beside(out: Path, ending: str) -> Path:
    """A file of the run ``out``: ``beside("runs/a", ".state")`` is ``runs/a.state``."""
    return out.with_name(out.name.removesuffix(".safetensors") + ending)


# The state


def save_state(file: Path, state: Mapping[str, Any], settings: Steps, images: str) -> None:
    """Write all that a run needs to go on; the previous state stays until this one is whole and on the disk.

    Raises FoundlingError if the disk is full; the previous state is then still there.
    """
    content = io.BytesIO()
    torch.save({**state, "settings": settings.model_dump(), "images": images}, content)
    write_bytes(file, content.getbuffer())


def load_state(file: Path, settings: Steps, images: str) -> dict[str, Any] | None:
    """What :func:`save_state` wrote, on the CPU; None if there is no such file.

    Raises WeightsError if the file is damaged or of another network, ParameterError if it is of a run with other
    settings or other images.
    """
    if not file.is_file():
        return None
    state, theirs, their_images = _read_state(file)
    mine = settings.model_dump()
    other = [name for name in {**theirs, **mine} if name not in MAY_CHANGE and theirs.get(name) != mine.get(name)]
    told = ", ".join(f"{name} = {theirs.get(name)!r}, not {mine.get(name)!r}" for name in other)
    if set(other) & set(NETWORK):
        raise WeightsError(
            f"{file} holds another network ({told}): use the settings it was made with, another --out, or delete it "
            "to start anew"
        )
    if other or their_images != images:
        told = told or f"{their_images}, not {images}"
        raise ParameterError(
            f"{file} belongs to a run with other settings ({told}): use the same, another --out, or delete it to "
            "start anew"
        )
    return state


def _read_state(file: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The content of a state file, the settings and the name of the images of its run."""
    try:
        content = io.BytesIO(file.read_bytes())
    except OSError as error:
        raise WeightsError(
            f"{file} cannot be read ({error.strerror or error}): see to it that it can, or delete it to start anew"
        ) from error
    try:
        if broken := zipfile.ZipFile(content).testzip():  # torch does not look at the checksums that it writes
            raise ValueError(f"{broken} has changed")
        content.seek(0)
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
        return state, dict(state.pop("settings")), str(state.pop("images"))
    except Exception as error:  # whatever reading broken bytes runs into
        raise WeightsError(
            f"{file} is no state of a training run, or damaged ({type(error).__name__}): delete it to start anew"
        ) from error


def restore(file: Path, state: Mapping[str, Any], task: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Load the tensors of a state; returns what it says of :data:`PROGRESS`.

    Raises WeightsError if the tensors do not fit the networks or the optimiser, or a part is missing.
    """
    try:
        task.load_state_dict(state["task"])
        optimiser.load_state_dict(state["optimiser"])
        return {name: state[name] for name in PROGRESS}
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{file} does not fit these networks ({reason}): it is from another version; delete it to start anew"
        ) from error


def write_history(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the history of a run as CSV; what a row does not have stays empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    parts = [name for name in names if name not in FIRST_COLUMNS + LAST_COLUMNS]
    last = [name for name in LAST_COLUMNS if name in names or not rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIRST_COLUMNS, *parts, *last], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_bytes(file, text.getvalue().encode())


# The networks


def export(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], half: bool = True) -> None:
    """Write tensors in half precision, or as they are, as safetensors, ``about`` as JSON in the header's entry
    ``foundling``.

    The same tensors give the same bytes. Raises FoundlingError if the disk is full; an older file is then unchanged.
    """
    written = {
        name: (t.half() if half and t.is_floating_point() else t).cpu().contiguous().clone()
        for name, t in tensors.items()
    }
    write_bytes(file, save(written, {"foundling": json.dumps(about, sort_keys=True)}))


def is_exported(file: Path, settings: Steps, steps: int, images: str) -> bool:
    """Whether ``file`` says that it was exported after ``steps`` steps by a run with these settings and images."""
    try:
        with safe_open(file, framework="pt") as content:
            told = json.loads((content.metadata() or {}).get("foundling", "null"))
    except (SafetensorError, OSError, ValueError):  # not there, or damaged
        return False
    if not isinstance(told, dict) or (told.get("steps"), told.get("data")) != (steps, images):
        return False
    mine, theirs = json.loads(json.dumps(settings.model_dump())), told.get("settings")
    return isinstance(theirs, dict) and all(mine.get(name) == theirs[name] for name in theirs if name not in MAY_CHANGE)


def exported(network: nn.Module, settings: Common, images: UInt8[Tensor, "image 3 side side"]) -> dict[str, Tensor]:
    """The backbone's parameters as timm names them, a ViT's keys centred over ``images`` (on the network's device)."""
    backbone = make_network(settings.architecture, settings.options, settings.seed).backbone.to(images.device)
    backbone.load_state_dict(network.state_dict())
    if isinstance(backbone, VisionTransformer):
        centre_keys(backbone, images)
    return dict(backbone.state_dict())


@torch.no_grad()
def centre_keys(vit: VisionTransformer, images: UInt8[Tensor, "image 3 side side"]) -> None:
    """Set the key biases of a ViT so that the mean patch key over ``images`` is zero in every block.

    The images are shown at the size the ViT was made for. What is added to all keys is ignored by the softmax over
    keys: the network's output does not depend on a key bias, and training leaves it where it started. Methods that
    look at the signs of products of keys do depend on it. Blocks that normalise their keys, or have no bias, are left
    as they are.
    """
    blocks: Any = vit.blocks
    attentions = [b.attn for b in blocks if isinstance(b.attn.k_norm, nn.Identity) and b.attn.qkv.bias is not None]
    means = [torch.zeros_like(a.qkv.bias.chunk(3)[1], dtype=torch.float32) for a in attentions]

    def add_keys(mean: Tensor, qkv: nn.Module, inputs: Any, output: Tensor) -> None:
        keys = output[:, vit.num_prefix_tokens :].chunk(3, dim=-1)[1].float()
        mean += keys.mean(1).sum(0) / len(images)

    hooks = [a.qkv.register_forward_hook(partial(add_keys, mean)) for a, mean in zip(attentions, means, strict=True)]
    sides: Any = vit.patch_embed.img_size
    side = int(sides[0])
    with evaluating(vit):
        for part in images.split(AT_ONCE):
            vit.forward_features(prepare(part, side))
    for hook, attention, mean in zip(hooks, attentions, means, strict=True):
        hook.remove()
        attention.qkv.bias.chunk(3)[1].sub_(mean)


def about_run(settings: Any, steps: int, images: str) -> dict[str, Any]:
    """What an exported file says of itself: how to make it again. ``settings`` are those of a network of timm's."""
    versions = provenance.versions()
    return {
        "architecture": settings.architecture,
        "arguments": dict(settings.options),
        "command": "foundling train FILE.yaml --out RUN, with these settings",
        "data": images,
        "images_seen": steps * settings.batch,
        "mean": MEAN,
        "method": settings.objective,
        "precision": "half",
        "seed": settings.seed,
        "settings": settings.model_dump(exclude={"root"}),  # a path of this machine
        "std": STD,
        "steps": steps,
        "versions": {name: versions[name] for name in ("foundling", "torch", "timm", "numpy")},
    }
