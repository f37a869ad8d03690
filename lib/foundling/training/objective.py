"""What an objective is: a task that learns a representation from images alone."""

import warnings
from pathlib import Path

from torch import Tensor, nn

from foundling.training.checkpoints import beside
from foundling.training.exports import dense_file, export_dense, export_run, is_dense_wanted
from foundling.training.monitor import COLLAPSED, watch
from foundling.training.networks import DenseNetwork
from foundling.training.running import Row, Run, spread_over
from foundling.training.task import Task


class Objective(Task):
    """Networks and a loss on views of images, from a :class:`~foundling.training.batches.Batch`.

    Parameters that follow others by an average have ``requires_grad`` off. Its training set has ``batch(indices)`` as
    well, the images at some positions. It is watched for collapse.
    """

    network: DenseNetwork
    """The network being trained (theta's f): what is exported and evaluated."""
    _probes: Tensor | None = None

    def to_compile(self) -> list[nn.Module]:
        return [self.network]

    def trained_parts(self) -> dict[str, nn.Module]:
        """What is of use after training, by the prefix of the names in ``<run>_dense.safetensors``.

        A module whose parameters were never trained has no place here.
        """
        return {"": self.network}

    def is_look_due(self, run: Run) -> bool:
        return run.done in (1, run.settings.steps) or run.done % run.settings.monitor_every == 0

    def look(self, run: Run) -> Row:
        """What the features of a fixed set of training images vary with; warns of a collapse when it begins."""
        with run.accelerator.autocast():
            spread = watch(self.network, self._probed(run))
        before = last_look(run)
        if spread.feature_variance < COLLAPSED and (before is None or before["feature_variance"] >= COLLAPSED):
            warnings.warn(
                f"step {run.done}: the features have collapsed: their variance is {spread.feature_variance:.2g} (of 1)",
                stacklevel=2,
            )
        return spread._asdict()

    def _probed(self, run: Run) -> Tensor:
        """The images that the look is at, read once."""
        if self._probes is None:
            self._probes = run.images.batch(spread_over(len(run.images), run.settings.probes)).images
        return self._probes

    def export(self, run: Run, file: Path) -> None:
        """The backbone as others read it; beside the last one, the whole network where that is asked for."""
        export_run(self, run, file)
        if file == beside(run.out, ".safetensors"):
            export_dense(self, run)

    def is_exported(self, run: Run, file: Path) -> bool:
        """Likewise, with the whole network where that is asked for."""
        files = [file, dense_file(run)] if is_dense_wanted(self, run) else [file]
        return all(super(Objective, self).is_exported(run, one) for one in files)


def last_look(run: Run) -> Row | None:
    """The last row of the history that has a look for collapse."""
    return next((row for row in reversed(run.history) if "feature_variance" in row), None)
