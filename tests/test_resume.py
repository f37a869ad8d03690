"""A study through Snakemake: killed in the middle and started again, it leaves the bytes of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundling import paths
from foundling.backbones import BACKBONES
from tiny import start_source, write_notebook

TWO = "02_single_object_discovery"
FLAGS = ("--cores", "2", "--rerun-incomplete", "--nolock")
PATIENCE = 900  # seconds; a loaded machine is slow

ONE_CELLS = [
    start_source("01_features"),
    "import os, pathlib\n"
    "if pathlib.Path(os.environ['TEST_BREAK']).exists() and backbone == 'scenes_mae':\n    raise ValueError('broken')",
    "run.metric('auc.keys', 50.0 + seed, 40.0, 60.0 + seed)",
    "run.metric('images', len(run.open_dataset()))",
    "run.finish()",
]
TWO_CELLS = [
    start_source(TWO),
    "from foundling.discovery import discover_images\n"
    "dataset, backbone = run.open_dataset(), run.load_backbone()\n"
    "options = {'out': run.folder / 'boxes', 'chunk': 2, 'batch_size': batch_size}\n"
    "discover_images(backbone, dataset.samples[:4], methods, **options)",
    # The test kills the run here: two chunks are on disk, the rest is to do.
    "import os, pathlib, time\n"
    "pathlib.Path(os.environ['TEST_HERE']).write_text(str(os.getpid()))\n"
    "while pathlib.Path(os.environ['TEST_WAIT']).exists():\n    time.sleep(0.05)",
    "found = discover_images(backbone, dataset.samples, methods, **options)\n"
    "print(found.seconds)\n"
    "for label, boxes in found.boxes.items():\n    run.metric(f'mean_corner.{label}', boxes.mean())",
    "import matplotlib.pyplot as plt, numpy as np\n"
    "fig, ax = plt.subplots()\nax.plot(found.boxes['lost'][:, 0], np.random.rand(len(dataset)))\n"
    "run.figure(fig, 'boxes', 'Left sides of the boxes.')\n"
    "rows = [{'image': name, 'left': box[0]} for name, box in zip(found.names, found.boxes['lost'])]\n"
    "run.table('boxes', rows, 'Left sides.')",
    "run.finish()",
]
STUDY = """\
title: A tiny study
shared: {{dataset: folder, root: {photos}, weights: random, compare_backbones: [], seed: 4, batch_size: 2}}
notebooks:
  01_features: {{limit: 3}}
  02_single_object_discovery:
    limit: 8
    lost_ks: []
    methods:
      lost: {{method: lost, k: 5}}
      tokencut: {{method: tokencut}}
      dino_seg: {{method: dino_seg, head: 0}}
resources: {{threads: 1}}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project with throw-away notebooks and one tiny study of eight random pictures."""
    home = tmp_path_factory.mktemp("checkout")
    shutil.copytree(paths.PACKAGE, home / "lib" / "foundling", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(paths.ROOT / "Snakefile", home)
    write_notebook(home / "notebooks", "01_features", ONE_CELLS)
    write_notebook(home / "notebooks", TWO, TWO_CELLS)
    (home / "photos").mkdir()
    rng = np.random.default_rng(1)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(home / "photos" / f"{i}.png")
    (home / "studies").mkdir()
    (home / "studies" / "tiny.yaml").write_text(STUDY.format(photos=home / "photos"))
    return home


@pytest.fixture
def environment(checkout) -> dict[str, str]:
    """The environment in which the copy is what runs."""
    return {
        **os.environ,
        "PYTHONPATH": str(checkout / "lib"),
        "OMP_NUM_THREADS": "1",
        "FOUNDLING_DATA": str(checkout / "data"),
        "TEST_HERE": str(checkout / "here"),
        "TEST_WAIT": str(checkout / "wait"),
        "TEST_BREAK": str(checkout / "break"),
    }


@pytest.fixture
def start(checkout, environment) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start Snakemake in the copy, in a session of its own; what still runs after the test is killed."""
    started: list[subprocess.Popen] = []

    def popen(*arguments: str, study: str = "tiny") -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", *FLAGS, *arguments, "--config", f"study={study}"]
        with (checkout / "log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        started.append(process)
        return process

    yield popen
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition: Callable[[], bool], what: str, process: subprocess.Popen | None = None) -> None:
    """Wait until ``condition`` holds; fail if ``process`` ends before, or after a long time."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, f"Snakemake ended before {what}"
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


def finish(process: subprocess.Popen, checkout: Path, well: bool = True) -> str:
    """What Snakemake said; it must end well, or not."""
    process.wait(timeout=PATIENCE)
    said = (checkout / "log").read_text()
    assert (process.returncode == 0) == well, said
    return said


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def results(folder: Path) -> dict[str, bytes]:
    """All that must not depend on the day: metrics, tables, figures and boxes."""
    kept = [*folder.glob("*/metrics.json"), *folder.glob("*/*/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(kept) if path.is_file()}


@pytest.mark.slow  # 60 s: four notebook runs
@pytest.mark.notebook
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_after_kill_9_the_same_command_gives_the_same_bytes_and_later_runs_what_has_changed(
    checkout, environment, start
):
    here, wait, report = checkout / "here", checkout / "wait", checkout / "reports" / "tiny"
    wait.touch()
    process = start()
    until(lambda: here.exists() and here.read_text() != "", "notebook 02 is half-way", process)
    until(lambda: "1 of 4 steps" in (checkout / "log").read_text(), "notebook 01 is done", process)
    first = (report / "01_features" / "metrics.json").stat().st_mtime_ns
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kernel = int(here.read_text())
    until(lambda: not alive(kernel), "the orphaned kernel ends by itself")
    assert len(list((report / TWO / "boxes").iterdir())) == 2
    assert not (report / TWO / "metrics.json").exists()
    wait.unlink()
    half_done = {path.name: path.stat().st_mtime_ns for path in (report / TWO / "boxes").iterdir()}

    finish(start(), checkout)
    assert (report / "01_features" / "metrics.json").stat().st_mtime_ns == first, "01 was done, and ran again"
    for name, when in half_done.items():
        assert (report / TWO / "boxes" / name).stat().st_mtime_ns == when, f"{name} was done, and was computed again"
    disturbed = results(report)
    assert (report / "index.html").is_file()

    alone = checkout / "undisturbed"
    command = ["foundling.run", TWO, "--study", "tiny", "--checked", "--set", f"out={alone / TWO}"]
    subprocess.run([sys.executable, "-m", *command], cwd=checkout, env=environment, check=True)
    undisturbed = results(alone)
    assert undisturbed == {name: content for name, content in disturbed.items() if name.startswith(TWO)}
    assert {f"{TWO}/metrics.json", f"{TWO}/figures/boxes.png", f"{TWO}/tables/boxes.csv"} <= set(undisturbed)
    assert len(list((alone / TWO / "boxes").iterdir())) == 4

    assert "Nothing to be done" in finish(start("--dry-run"), checkout)
    study = checkout / "studies" / "tiny.yaml"
    text = study.read_text()
    study.write_text(text.replace("{limit: 3}", "{limit: 4}"))
    said = finish(start("--dry-run"), checkout)
    assert "tiny_01_features" in said and f"tiny_{TWO}" not in said and "tiny_report" in said
    study.write_text(text.replace("title: A tiny", "title: Another"))
    said = finish(start("--dry-run"), checkout)
    assert "tiny_report" in said and "tiny_01_features" not in said and f"tiny_{TWO}" not in said
    study.write_text(text)
    write_notebook(checkout / "notebooks", TWO, [*TWO_CELLS, "print('more')"])
    said = finish(start("--dry-run"), checkout)
    assert f"tiny_{TWO}" in said and "tiny_01_features" not in said


SWEPT = """\
title: A sweep
shared: {{dataset: folder, root: {photos}, weights: random, compare_backbones: []}}
notebooks: {{01_features: {{limit: 3}}}}
sweep:
  01_features: {{backbone: [scenes_odin, scenes_mae], seed: [4, 9]}}
resources: {{threads: 1}}
"""


def test_a_sweep_is_one_job_a_point_and_asks_for_what_is_new(checkout, start):
    (checkout / "studies" / "swept.yaml").write_text(SWEPT.format(photos=checkout / "photos"))
    said = finish(start("--dry-run", study="swept"), checkout)
    for backbone in ("scenes_odin", "scenes_mae"):
        for seed in (4, 9):
            assert f"swept_01_features/backbone-{backbone}__seed-{seed}" in said
    assert "swept_report" in said


@pytest.mark.slow  # 40 s: three notebook runs
@pytest.mark.notebook
def test_what_runs_again_of_a_sweep_is_the_point_that_failed_or_has_other_weights(checkout, start):
    study, report = checkout / "studies" / "swept.yaml", checkout / "reports" / "swept"
    text = SWEPT.format(photos=checkout / "photos").replace("weights: random", "weights: pretrained")
    study.write_text(text.replace("seed: [4, 9]", "seed: [9]"))
    (checkout / "break").touch()
    said = finish(start("--keep-going", study="swept"), checkout, well=False)
    assert "ValueError: broken" in said
    well, broken = (report / "01_features" / f"backbone-{name}__seed-9" for name in ("scenes_odin", "scenes_mae"))
    assert (well / "metrics.json").is_file() and not (broken / "metrics.json").exists()
    page = (report / "index.html").read_text()
    assert "1 of 2 points are missing" in page and "missing, failed: ValueError: broken" in page
    (checkout / "break").unlink()
    first = (well / "metrics.json").stat().st_mtime_ns
    finish(start("--keep-going", study="swept"), checkout)
    assert (well / "metrics.json").stat().st_mtime_ns == first, "it was done, and ran again"
    page = (report / "index.html").read_text()
    assert "points are missing" not in page and "59.0 [40.0, 69.0]" in page
    assert (report / "tables" / "01_features.csv").is_file() and (report / "figures" / "01_features.png").is_file()
    assert "Nothing to be done" in finish(start("--dry-run", study="swept"), checkout)
    registry = checkout / "lib" / "foundling" / "backbones" / "registry.py"
    before, job = registry.read_text(), "swept_01_features/backbone-scenes_"
    registry.write_text(before.replace(str(BACKBONES["scenes_mae"].sha256), "0" * 64))
    said = finish(start("--dry-run", study="swept"), checkout)
    registry.write_text(before)
    assert f"{job}mae__seed-9" in said and f"{job}odin" not in said and "swept_report" in said
    shutil.rmtree(well)  # the page is still there
    said = finish(start("--dry-run", study="swept"), checkout)
    assert f"{job}odin__seed-9" in said and f"{job}mae" not in said and "swept_report" in said


def test_a_wrong_study_file_stops_snakemake_with_one_message(checkout, start):
    (checkout / "studies" / "wrong.yaml").write_text("title: T\nnotebooks:\n  01_features: {limt: 3}\n")
    said = finish(start(study="wrong"), checkout, well=False)
    assert "unknown parameter 'limt' (value 3): did you mean 'limit'?" in said and "Traceback" not in said


def test_all_that_is_missing_is_told_before_anything_runs(checkout, start):
    shutil.copy(paths.STUDIES / "voc07_backbones.yaml", checkout / "studies")
    said = finish(start(study="voc07_backbones"), checkout, well=False)
    for what in ("foundling data voc07", "weights of dino_vits16", "weights of supervised_vgg16"):
        assert what in said
    assert not (checkout / "reports" / "voc07_backbones").exists()
    assert "localrule" not in said and "Traceback" not in said
