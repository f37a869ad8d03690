"""What comes out of a run: networks as others read them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from foundling.training import checkpoints
from foundling.training.checkpoints import beside
from foundling.training.running import Run, spread_over

if TYPE_CHECKING:
    from foundling.training.objective import Objective

CENTRED_OVER = 1000  # training images over which the keys of an exported ViT are centred


def export_run(objective: "Objective", run: Run, file: Path) -> None:
    """Write the backbone as others read it."""
    pixels = run.images.batch(spread_over(len(run.images), CENTRED_OVER)).images
    tensors = checkpoints.exported(objective.network.backbone, run.settings, pixels)
    keys = "set after training so that the mean key over training images is zero; changes no output"
    vit = {"key_bias": keys} if objective.network.fpn is None else {}
    checkpoints.export(file, tensors, {**about(run), **vit})


def export_dense(objective: "Objective", run: Run) -> None:
    """Write what was trained of the whole network, if that has a feature pyramid or the settings ask for it."""
    if is_dense_wanted(objective, run):
        checkpoints.export(dense_file(run), dense_tensors(objective), about(run))


def is_dense_wanted(objective: "Objective", run: Run) -> bool:
    """Whether a run leaves the whole network, too."""
    return run.settings.export_dense or any(name.startswith("fpn.") for name in dense_tensors(objective))


def dense_file(run: Run) -> Path:
    """Where the whole network is left."""
    return beside(run.out, "_dense.safetensors")


def dense_tensors(objective: "Objective") -> dict[str, Tensor]:
    """All that was trained and is of use afterwards: backbone, pyramid, projector, as far as the objective has them."""
    parts = objective.trained_parts()
    return {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}


def about(run: Run) -> dict[str, Any]:
    """What the run's files say of themselves."""
    return checkpoints.about_run(run.settings, run.done, run.images.identity)
