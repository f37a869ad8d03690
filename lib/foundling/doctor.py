"""What ``foundling doctor`` checks: each check says in one line what it found, and what to do if that is not enough."""

import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from foundling.errors import FoundlingError
from foundling.paths import data_dir

MODULES = {  # distributions whose module has another name
    "opencv-contrib-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
BROKEN = (ImportError, OSError, AttributeError, RuntimeError, ValueError)  # what a damaged installation raises
REPAIR = "run `make env` (or update the conda environment)"
KERNEL_SECONDS = 60


@dataclass(frozen=True)
class Check:
    """One line of the report; ``level`` is ok, none (not there, nor needed), warn (usable without) or fail."""

    level: str
    name: str
    text: str


def examine() -> Iterator[Check]:
    """Every check, in the order in which a failure explains the ones after it."""
    yield check_python()
    for line in requires("foundling") or ():
        yield check_dependency(Requirement(line))
    yield guarded("opencv contrib", check_opencv)
    yield guarded("pycocotools masks", check_pycocotools)
    yield guarded("detectron2", check_detectron2)
    yield guarded("notebook kernel", check_kernel)
    yield from check_devices()
    yield guarded("embedded weights", check_embedded)
    yield guarded("scenes", check_scenes)
    yield check_data_folder(data_dir())
    yield from list_data()
    yield from list_weights()


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """The outcome of ``check``; what it raises is its failure."""
    try:
        return check()
    except (*BROKEN, FoundlingError) as error:
        return Check("fail", name, f"{type(error).__name__}: {error}")


def check_python() -> Check:
    """Python is recent enough."""
    found, allowed = platform.python_version(), SpecifierSet(metadata("foundling")["Requires-Python"])
    level = "ok" if allowed.contains(found, prereleases=True) else "fail"
    return Check(level, "Python", f"{found} ({allowed} is needed), {sys.executable}")


def check_dependency(requirement: Requirement) -> Check:
    """A dependency can be imported and its version lies in the range that the package asks for."""
    name = requirement.name
    try:
        module = importlib.import_module(MODULES.get(name, name.replace("-", "_")))
    except BROKEN as error:
        return Check("fail", name, f"cannot be imported ({type(error).__name__}: {error}): {REPAIR}")
    try:
        found = version(name)
    except PackageNotFoundError:  # conda-forge's OpenCV goes by another name
        found = getattr(module, "__version__", "")
    return check_version(name, found, requirement.specifier)


def check_version(name: str, found: str, allowed: SpecifierSet) -> Check:
    """The version ``found`` lies in the range ``allowed``."""
    if not found:
        return Check("warn", name, f"does not say its version; {allowed} is needed")
    if allowed.contains(found, prereleases=True):
        return Check("ok", name, found)
    return Check("fail", name, f"{found} does not satisfy {allowed}: {REPAIR}")


def check_opencv() -> Check:
    """OpenCV has the contrib modules, which hold Selective Search."""
    import cv2

    if hasattr(cv2, "ximgproc") and hasattr(cv2.ximgproc, "segmentation"):
        return Check("ok", "opencv contrib", "Selective Search is there")
    return Check("fail", "opencv contrib", "cv2.ximgproc is missing: uninstall every opencv-* package, then " + REPAIR)


def check_pycocotools() -> Check:
    """pycocotools' compiled part works with this NumPy: encoding a mask and back keeps it."""
    import numpy as np
    from pycocotools import mask as coco_mask

    mask = np.asfortranarray(np.eye(5, dtype=np.uint8))
    if (coco_mask.decode(coco_mask.encode(mask)) == mask).all():
        return Check("ok", "pycocotools masks", "encoded and decoded")
    return Check("fail", "pycocotools masks", f"decoding does not invert encoding: {REPAIR}")


def check_detectron2() -> Check:
    """Detectron2, which only conda users have, is optional."""
    try:
        found = importlib.import_module("detectron2").__version__
    except ModuleNotFoundError:
        return Check("none", "detectron2", "not installed (optional; environment.yml brings it)")
    return Check("ok", "detectron2", found)


def check_kernel() -> Check:
    """A notebook kernel starts in this environment and can import foundling."""
    from jupyter_client.manager import start_new_kernel

    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager, client = start_new_kernel(startup_timeout=KERNEL_SECONDS, **quiet)
    try:
        reply = client.execute_interactive(
            "import foundling", timeout=KERNEL_SECONDS, silent=True, output_hook=lambda message: None
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    content = reply["content"]
    if content["status"] == "ok":
        return Check("ok", "notebook kernel", "starts and imports foundling")
    return Check("fail", "notebook kernel", f"{content['ename']}: {content['evalue']}: {REPAIR}")


def check_devices() -> Iterator[Check]:
    """Each device that PyTorch sees multiplies two matrices."""
    import torch

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    for device in devices:
        yield guarded(device, partial(check_device, device))
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        yield Check("warn", "cuda", f"there is an NVIDIA driver, but PyTorch {torch.__version__} cannot use it")


def check_device(device: str) -> Check:
    """``device`` computes what it should."""
    import torch

    ones = torch.ones(8, 8, device=device)
    if not bool((ones @ ones == 8).all()):
        return Check("fail", device, "a product of two matrices is wrong")
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return Check("ok", device, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return Check("ok", device, f"{torch.get_num_threads()} threads" if device == "cpu" else "works")


def check_scenes() -> Check:
    """The procedural scenes can be rendered."""
    from foundling.datasets.scenes import render_scene

    image, _, labels = render_scene(0, 96, "multi")
    return Check("ok", "scenes", f"rendered one of {image.shape[1]}×{image.shape[0]} pixels with {len(labels)} objects")


def check_data_folder(folder: Path) -> Check:
    """The data folder, or the nearest folder above it that exists, can be written to."""
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Check("fail", "data folder", f"{folder}: {error.strerror}; name another in FOUNDLING_DATA")
    free = shutil.disk_usage(nearest).free / 2**30
    chosen = "FOUNDLING_DATA" if os.environ.get("FOUNDLING_DATA") else "the default; FOUNDLING_DATA chooses another"
    return Check("ok", "data folder", f"{folder} ({chosen}), {free:.0f} GiB free")


def check_embedded() -> Check:
    """The weights in the package load, and are those that were published with it."""
    from foundling.backbones import BACKBONES, load_backbone
    from foundling.saliency import NETWORKS, load_saliency_network

    loaded = {}  # name -> checksum; files are compared with those of the registries
    for networks, load in ((BACKBONES, load_backbone), (NETWORKS, load_saliency_network)):
        for name, entry in networks.items():
            if entry.embedded:
                loaded[name] = load(name, device="cpu").checksum
    return Check(
        "ok", "embedded weights", ", ".join(f"{name} loads, checksum {digest}" for name, digest in loaded.items())
    )


def list_data() -> Iterator[Check]:
    """Which datasets are in the data folder; none of them is needed for the demo."""
    from foundling.datasets.download import expected

    for row in expected():
        state = "here" if row.present else f"not here (`{row.command}` brings it, {row.size})"
        yield Check("ok" if row.present else "none", f"dataset {row.name}", f"{state}: {row.where}")


def list_weights() -> Iterator[Check]:
    """Which published weights are in the data folder."""
    from foundling.backbones.weights import expected_weights

    present = [str(row["name"]) for row in expected_weights() if row["present"]]
    yield Check(
        "ok" if present else "none", "published weights here", ", ".join(present) or "`foundling weights` lists them"
    )
