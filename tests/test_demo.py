"""The demo study as a newcomer runs it: the real notebooks, through the Snakefile, in a copy of the project."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foundling import paths

PATIENCE = 1800  # seconds; a loaded machine is slow
METHODS = ("lost", "tokencut", "dino_seg", "centre_box", "whole_image", "selective_search")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project whose demo has few and small scenes."""
    shutil.copytree(paths.PACKAGE, tmp_path / "lib" / "foundling", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(paths.NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(paths.ROOT / "Snakefile", tmp_path)
    demo = (paths.STUDIES / "demo.yaml").read_text(encoding="utf-8")
    changes = [("size: 224", "size: 96"), ("limit: 16", "limit: 4"), ("limit: 100", "limit: 6")]
    changes += [
        ("limit: 60", "limit: 4"),
        ("image: 33", "image: 3"),
        ("size: 128", "size: 96"),
        ("limit: 240", "limit: 9"),
    ]
    for given, smaller in changes:
        assert demo.count(given) == 1, f"{given} is not in demo.yaml: set the smaller value here in another way"
        demo = demo.replace(given, smaller)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "demo.yaml").write_text(demo, encoding="utf-8")
    return tmp_path


@pytest.fixture
def snakemake(checkout: Path) -> Callable[[], str]:
    """Run Snakemake for the demo in the copy, in a session of its own, and return what it said."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout / "lib"),
        "OMP_NUM_THREADS": "1",
        "FOUNDLING_DATA": str(checkout / "data"),
    }
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nolock", "--config", "study=demo"]

    def run() -> str:
        with subprocess.Popen(
            command, cwd=checkout, env=environment, text=True, encoding="utf-8", start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=PATIENCE)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, said
        return said

    return run


@pytest.mark.slow  # two minutes: four notebooks and the page
@pytest.mark.notebook
def test_the_demo_from_start_to_page_and_not_again(checkout: Path, snakemake: Callable[[], str]) -> None:
    snakemake()
    report = checkout / "reports" / "demo"
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "<title>Demo: objects without labels, on embedded pictures with embedded weights" in page
    names = ("01_features", "02_single_object_discovery", "03_instanceness", "04_clustering")
    files = {name: report / name / "metrics.json" for name in names}
    metrics = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}
    assert metrics["01_features"] and "miou.pseudo_masks" in metrics["04_clustering"]
    assert "recall.scenes_odin.3+" in metrics["03_instanceness"]
    for method in METHODS:
        assert 0 <= metrics["02_single_object_discovery"][f"corloc.{method}"] <= 100, method
    before = {name: file.stat().st_mtime_ns for name, file in files.items()}
    assert "Nothing to be done" in snakemake()
    assert {name: file.stat().st_mtime_ns for name, file in files.items()} == before
