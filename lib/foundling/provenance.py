"""Where a result comes from: versions, device, commit. The only place of a run that knows the date."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from foundling.paths import ROOT

PACKAGES = ("foundling", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow", "pycocotools")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on; a package that is absent reads "absent"."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def commit() -> dict[str, Any]:
    """The checkout's commit and whether tracked files differ from it, reports apart; None outside a git checkout."""
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":!reports") if head else None
    return {"commit": head, "modified": None if changes is None else bool(changes)}


def device_name(device: str) -> str:
    """The name of a resolved torch device: the GPU's, or the machine's architecture and thread count for the CPU."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):  # no git, or a file system too slow to ask
        return None
    return done.stdout.strip() if done.returncode == 0 else None
