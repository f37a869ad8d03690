"""Every path of the project, in one place. ``FOUNDLING_DATA`` overrides the data folder."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent.parent  # the checkout: lib/foundling/ is two folders below it
NOTEBOOKS = ROOT / "notebooks"
STUDIES = ROOT / "studies"
REPORTS = ROOT / "reports"
RESOURCES = PACKAGE / "resources"  # data files that travel with the package
EMBEDDED_WEIGHTS = RESOURCES / "weights"


def data_dir() -> Path:
    """The folder that holds datasets and weights: ``$FOUNDLING_DATA`` or ``data/`` of the checkout."""
    return Path(os.environ.get("FOUNDLING_DATA") or ROOT / "data").expanduser().resolve()


def weights_dir() -> Path:
    """Where published checkpoints are downloaded to, or put by hand."""
    return data_dir() / "weights"
