"""foundling: unsupervised object discovery. Objects without labels, found by networks trained without labels.

The verbs live in the subpackages, so that importing the package costs nothing::

    from foundling.datasets import open_dataset
    from foundling.backbones import extract, load_backbone
    from foundling.discovery import lost, tokencut, dino_seg
    from foundling.evaluation import corloc
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("foundling")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
