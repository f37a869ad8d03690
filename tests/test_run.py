"""The contract of a notebook run, in a notebook and as a batch."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from foundling import provenance
from foundling.errors import FoundlingError, ParameterError
from foundling.execution import PENDING_METRICS, check_parameters
from foundling.parameters import validate
from foundling.run import BATCH, main, output_folder, read_settings, start
from tiny import parameters_source, start_source, write_notebook

ONE, TEN = "01_features", "10_ablations"


@pytest.fixture
def namespace(tmp_path):
    """What ``globals()`` of a notebook holds after its parameters cell."""
    return {**validate(ONE, {}).model_dump(), "out": str(tmp_path / "run"), "np": np, "_": None}


@pytest.fixture(autouse=True)
def ordinary_torch():
    yield
    torch.use_deterministic_algorithms(False)


def files_of(folder: Path) -> dict[str, bytes]:
    """The results that must be the same in every run: name -> bytes."""
    paths = [folder / "metrics.json", *(folder / "figures").glob("*"), *(folder / "tables").glob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def a_figure(slope: float = 1.0):
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, slope])
    return fig


def three_draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), torch.rand(1).item()  # noqa: NPY002 - the global state is meant


# --- in a notebook ----------------------------------------------------------------------------------------------------


def test_start_names_parameters_that_are_missing_or_wrong(namespace):
    del namespace["limit"], namespace["seed"]
    with pytest.raises(ParameterError, match="notebook 01_features: the parameters cell lacks limit, seed"):
        start(ONE, namespace)
    with pytest.raises(ParameterError, match="limit = '3', of type str, is not legal"):
        start(ONE, {**namespace, "limit": "3", "seed": 0})
    with pytest.raises(ParameterError, match="unknown backbone 'scenes_odn': did you mean 'scenes_odin'"):
        start(ONE, {**namespace, "limit": 3, "seed": 0, "backbone": "scenes_odn"})


def test_start_seeds_everything_and_says_where_it_is(namespace, capsys):
    drawn = []
    for _ in range(2):
        start(ONE, {**namespace, "seed": 5})
        drawn.append(three_draws())
    start(ONE, {**namespace, "seed": 6})
    other = three_draws()
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], other, strict=True))
    assert torch.are_deterministic_algorithms_enabled()
    said = capsys.readouterr().out
    assert "study lab · 01_features · seed 5" in said and f"torch {torch.__version__}".split("+")[0] in said


def test_results_go_to_the_folder_of_study_and_notebook(namespace):
    from foundling.paths import REPORTS

    assert output_folder(ONE, validate(ONE, {"study": "mine"})) == REPORTS / "mine" / ONE
    assert start(ONE, namespace).folder == Path(namespace["out"])


def test_a_run_leaves_metrics_provenance_figures_and_tables(namespace):
    run = start(ONE, namespace)
    run.figure(a_figure(), "a-line", "A line.")
    run.table("corloc", [{"method": "lost", "CorLoc": (50.0, 40.0, 60.0)}], "A table.")
    run.metric("b.value", np.float32(0.5))
    run.metric("a.corloc", 61.9, 60.5, 63.2)
    run.metric("a.count", 3)
    run.metric("c.absent", None, reason="the dataset has no annotations")
    run.note(seconds_per_image=0.08)
    run.finish()
    assert (run.folder / "figures" / "a-line.png").read_bytes()[:4] == b"\x89PNG"
    assert (run.folder / "tables" / "corloc.csv").read_text().splitlines()[1] == 'lost,"50.0 [40.0, 60.0]"'
    text = (run.folder / "metrics.json").read_text()
    assert json.loads(text) == {
        "a.corloc": 61.9, "a.corloc.high": 63.2, "a.corloc.low": 60.5, "a.count": 3.0, "b.value": 0.5
    }  # fmt: skip
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert json.loads((run.folder / "figures" / "captions.json").read_text()) == {"a-line": "A line."}
    known = json.loads((run.folder / "provenance.json").read_text())
    assert known["not_available"] == {"c.absent": "the dataset has no annotations"}
    assert known["seeds"] == {"python": 0, "numpy": 0, "torch": 0}
    assert known["seconds_per_image"] == 0.08 and known["seconds"] > 0
    assert known["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert known["parameters"]["backbone"] == "scenes_odin" and "out" not in known["parameters"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.inf])
def test_a_metric_that_is_not_finite_is_refused_by_name(namespace, value):
    run = start(ONE, namespace)
    with pytest.raises(ParameterError, match=r"metric 'corloc\.lost' is -?(nan|inf)"):
        run.metric("corloc.lost", value)
    with pytest.raises(ParameterError, match=r"metric 'corloc\.lost\.low' is"):
        run.metric("corloc.lost", 1.0, value, 2.0)


def test_half_an_interval_and_a_name_with_spaces_are_refused(namespace):
    run = start(ONE, namespace)
    with pytest.raises(ParameterError, match="half an interval"):
        run.metric("a", 1.0, low=0.5)
    with pytest.raises(ParameterError, match="metric name 'a b'"):
        run.metric("a b", 1.0)
    run.metric("recall.scenes_odin:random.3+", 1.0)
    with pytest.raises(ParameterError, match="'a/b' names a file"):
        run.figure(a_figure(), "a/b", "x")


def test_a_cell_that_is_run_again_replaces_what_it_wrote(namespace):
    run = start(ONE, namespace)
    run.metric("a", 1.0, 0.5, 2.0)
    run.metric("a", 3.0)
    run.metric("b", 1.0, 0.0, 2.0)
    run.metric("b", None)
    run.metric("c", None)
    run.metric("c", 4.0)
    line = run.folder / "figures" / "line.png"
    run.figure(a_figure(1), "line", "One.")
    first = line.read_bytes()
    run.figure(a_figure(2), "line", "Two.")
    assert line.read_bytes() != first
    run.finish()
    run.finish()
    assert json.loads((run.folder / "metrics.json").read_text()) == {"a": 3.0, "c": 4.0}
    assert json.loads((run.folder / "provenance.json").read_text())["not_available"] == {"b": "not available"}
    assert json.loads((run.folder / "figures" / "captions.json").read_text()) == {"line": "Two."}


def test_a_run_without_a_metric_has_gone_wrong(namespace):
    run = start(ONE, namespace)
    with pytest.raises(ParameterError, match="finishes without a single metric"):
        run.finish()
    assert not (run.folder / "metrics.json").exists()


def test_a_new_run_removes_the_results_of_the_last_and_nothing_else(namespace):
    run = start(ONE, namespace)
    run.figure(a_figure(), "old", "Old.")
    run.table("old", [{"a": 1}], "Old.")
    run.metric("a", 1.0)
    run.finish()
    mine = run.folder / "figures" / "mine.png"
    mine.write_bytes(b"x")
    (run.folder / "tables" / ".old.csv.123.part").write_bytes(b"half")  # of a killed process
    chunk = run.folder / "boxes" / "chunk.json"
    chunk.parent.mkdir()
    chunk.write_text("{}")
    again = start(ONE, namespace)
    left = {str(p.relative_to(again.folder)) for p in again.folder.rglob("*") if p.is_file()}
    assert left == {"figures/mine.png", "boxes/chunk.json"}


def test_the_same_run_twice_gives_the_same_bytes(namespace, tmp_path):
    seen = []
    for name in ("one", "two"):
        run = start(ONE, {**namespace, "out": str(tmp_path / name)})
        run.figure(a_figure(three_draws()[1]), "line", "A line.")
        run.table("t", [{"x": torch.rand(1).item()}], "T.")
        run.metric("x", random.random())
        run.finish()
        seen.append(files_of(run.folder))
    assert len(seen[0]) == 5 and seen[0] == seen[1]


def test_open_dataset_obeys_limit_and_notes_what_it_opened(namespace, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.new("RGB", (32, 32), (i * 80, 0, 0)).save(photos / f"{i}.png")
    (photos / "broken.txt").write_text("not an image")
    given = {**namespace, "dataset": "folder", "root": str(photos), "limit": 2}
    run = start(ONE, given)
    assert [sample.path.name for sample in run.open_dataset()] == ["0.png", "1.png"]
    assert run.facts["dataset"] == {"name": "folder", "split": "all", "images": 2}
    assert len(start(ONE, {**given, "limit": 0}).open_dataset()) == 3


def test_an_empty_folder_is_an_error(namespace, tmp_path):
    (tmp_path / "empty").mkdir()
    run = start(ONE, {**namespace, "dataset": "folder", "root": str(tmp_path / "empty")})
    with pytest.raises(FoundlingError, match="empty"):
        run.open_dataset()


def test_load_backbone_notes_weights_and_device(namespace):
    run = start(ONE, {**namespace, "weights": "random", "seed": 3, "device": "cpu"})
    first = run.load_backbone()
    run.load_backbone("dino_vits16:random")
    assert first.name == "scenes_odin" and set(run.facts["weights"]) == {"scenes_odin", "dino_vits16:random"}
    assert run.facts["weights"]["scenes_odin"]["checksum"] == first.checksum
    assert run.facts["device"].startswith("cpu (")


def test_commit_is_none_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == {"commit": None, "modified": None}


def test_commit_says_whether_tracked_files_differ_reports_apart(monkeypatch, tmp_path):
    import subprocess

    def git(*arguments):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True
        )

    (tmp_path / "reports").mkdir()
    for name in ("code.py", "reports/metrics.json"):
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "reports" / "metrics.json").write_text("2")
    assert provenance.commit()["modified"] is False and len(provenance.commit()["commit"]) == 40
    (tmp_path / "code.py").write_text("2")
    assert provenance.commit()["modified"] is True


def test_settings_of_the_command_line_are_yaml():
    assert read_settings(["limit=4", "blocks=[0, 3]", "root=a b", "split="]) == {
        "limit": 4, "blocks": [0, 3], "root": "a b", "split": ""
    }  # fmt: skip
    with pytest.raises(ParameterError, match="--set limit: write NAME=VALUE"):
        read_settings(["limit"])
    with pytest.raises(ParameterError, match="--set blocks=\\[0: "):
        read_settings(["blocks=[0"])


# --- as a batch -------------------------------------------------------------------------------------------------------

BODY = [
    "import os, sys\nprint('kernel', sys.executable)\nprint('folder', os.getcwd())",
    "print('hash', os.environ['PYTHONHASHSEED'])",
    "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([0, seed])\nrun.figure(fig, 'line', 'A line.')",
    "run.table('t', [{'x': 0.25}], 'T.')\nrun.metric('x.y', seed / 3)",
    "hidden_input = 'visible ' + 'output'\nprint(hidden_input)",
    "print('hidden ' + 'cell')",
    "run.finish()",
]


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("title: T\nnotebooks:\n  01_features: {limit: 3, seed: 2}\n")
    return path


@pytest.mark.notebook  # 10 s
def test_a_batch_run_leaves_the_whole_contract(study, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "jupyter" / "kernels" / "python3"  # a kernel of the same name that cannot start
    broken.mkdir(parents=True)
    (broken / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.chdir(tmp_path)
    tags = [[], [], [], [], [], ["hide-input"], ["hide"]]
    path = write_notebook(tmp_path / "notebooks", ONE, [start_source(ONE), *BODY], tags=tags)
    out = tmp_path / "out"
    assert main([str(path), "--study", str(study), "--set", f"out={out}"]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "figures", "metrics.json", "notebook.html", "notebook.ipynb", "provenance.json", "tables"
    ]  # fmt: skip
    assert json.loads((out / "metrics.json").read_text()) == {"x.y": 2 / 3}
    said = capsys.readouterr().out
    assert f"kernel {sys.executable}\n" in said
    assert "hash 0\n" in said
    assert f"folder {path.parent}\n" in said
    assert f"{ONE} " in said and "cell 5: import os, sys" in said
    page = (out / "notebook.html").read_text()
    assert "visible output" in page and "hidden_input" not in page and "hidden cell" not in page
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "jupyter")


@pytest.mark.notebook
def test_a_failing_cell_is_told_plainly_and_keeps_the_notebook(study, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text("{}")  # of an earlier run: must not survive
    path = write_notebook(
        tmp_path, ONE, ["print('before')", "def f():\n    raise KeyError('no such thing')\nf()", "print('after')"]
    )
    assert main([str(path), "--study", str(study), "--set", f"out={out}"]) == 1
    error = capsys.readouterr().err
    assert "01_features, cell 5: KeyError: 'no such thing'" in error  # papermill adds a cell
    assert "\x1b" not in error and len(error.splitlines()) < 20
    assert [p.name for p in out.iterdir()] == ["notebook.failed.ipynb"]
    outputs = [o for c in nbformat.read(out / "notebook.failed.ipynb", 4).cells for o in c.get("outputs", [])]
    assert "before\n" in [o.get("text") for o in outputs] and "after\n" not in [o.get("text") for o in outputs]


@pytest.mark.notebook
def test_a_kernel_that_dies_is_reported(study, tmp_path, capsys):
    path = write_notebook(tmp_path, ONE, ["import os\nos._exit(9)"])
    assert main([str(path), "--study", str(study), "--set", f"out={tmp_path / 'out'}"]) == 1
    assert "01_features: the kernel died" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notebook.failed.ipynb"]


@pytest.mark.notebook
def test_a_notebook_that_never_finishes_its_run_fails(study, tmp_path, capsys):
    path = write_notebook(tmp_path, ONE, ["print('nothing')"])
    assert main([str(path), "--study", str(study), "--set", f"out={tmp_path / 'out'}"]) == 1
    assert "its last cell must be run.finish()" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("limitt=3", "unknown parameter 'limitt' (value 3): did you mean 'limit'?"),
        ("limit=three", "limit = 'three', of type str, is not legal: it should be a valid integer"),
        ("backbone=dino_vits61", "unknown backbone 'dino_vits61': did you mean 'dino_vits16'?"),
        ("gallery=3", "unknown parameter 'gallery'"),
    ],
)
def test_wrong_parameters_stop_a_batch_before_the_kernel_starts(study, tmp_path, capsys, monkeypatch, setting, message):
    import papermill

    def never(*arguments, **options):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(papermill, "execute_notebook", never)
    path = write_notebook(tmp_path, ONE, ["print('never')"])
    out = tmp_path / "out"
    assert main([str(path), "--study", str(study), "--set", f"out={out}", "--set", setting]) == 2
    error = capsys.readouterr().err
    assert message in error and "notebook 01_features" in error
    assert not out.exists()


def test_a_second_run_into_the_same_folder_waits_for_the_first(study, tmp_path, capsys, monkeypatch):
    import fcntl
    import threading

    import papermill

    def leave_a_result(path, output, **options):
        Path(output).with_name(PENDING_METRICS).write_text("{}")
        shutil.copy(path, output)

    monkeypatch.setattr(papermill, "execute_notebook", leave_a_result)
    path, out = write_notebook(tmp_path, ONE, ["print('x')"]), tmp_path / "out"
    arguments = [str(path), "--study", str(study), "--checked", "--set", f"out={out}"]
    out.mkdir()
    codes = []
    second = threading.Thread(target=lambda: codes.append(main(arguments)))
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second.start()
        second.join(timeout=2)
        assert second.is_alive() and not (out / "metrics.json").exists()
        (out / ".lock").unlink()  # as a run does when it ends
    second.join(timeout=120)
    assert codes == [0]
    assert f"another process is running a notebook into {out}: waiting" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "notebook.html", "notebook.ipynb"]


def test_a_parameters_cell_that_disagrees_with_the_model_is_refused(tmp_path):
    source = parameters_source(ONE)
    extra = write_notebook(tmp_path / "a", ONE, [], parameters=source + "\nlimitt = 3")
    with pytest.raises(ParameterError, match="'limitt' is unknown: did you mean 'limit'"):
        check_parameters(extra, {}, "x")
    short = write_notebook(tmp_path / "b", ONE, [], parameters=source.replace("limit = 100\n", ""))
    with pytest.raises(ParameterError, match=r"01_features\.ipynb, cell tagged 'parameters': 'limit' is missing"):
        check_parameters(short, {}, "x")
    none = write_notebook(tmp_path / "c", ONE, [], parameters="")
    with pytest.raises(ParameterError, match="has no cell tagged 'parameters'"):
        check_parameters(none, {}, "x")


def test_unknown_notebooks_and_studies_are_refused(capsys):
    assert main(["01_feature", "--study", "demo"]) == 2
    assert "no notebook '01_feature'" in capsys.readouterr().err
    assert main([ONE, "--study", "demoo"]) == 2
    assert "did you mean 'demo'" in capsys.readouterr().err


def test_a_batch_keeps_the_metrics_back_until_all_is_written(namespace, monkeypatch):
    monkeypatch.setenv(BATCH, ".metrics.pending.json")
    run = start(ONE, namespace)
    run.metric("a", 1.0)
    run.finish()
    assert sorted(p.name for p in run.folder.iterdir()) == [".metrics.pending.json", "provenance.json"]


def test_a_printed_number_stands_only_beside_a_run_under_the_papers_conditions(namespace):
    voc = {"dataset": "voc07", "split": "trainval", "backbone": "dino_vits16", "limit": 0, "max_side": 0}
    lost = {"method": "lost", "k": 100}
    run = start(ONE, {**namespace, **voc})
    assert run.published(lost) == 61.9
    assert run.published(lost, "dino_vitb16") == 60.1
    assert run.published(lost, "dino_vits16:random") is None
    for other in ({"limit": 50}, {"max_side": 480}, {"precision": "bf16"}, {"weights": "random"}):
        assert start(ONE, {**namespace, **voc, **other}).published(lost) is None


@pytest.mark.parametrize(
    ("read", "printed"),
    [({}, 61.9), ({"norm": "all"}, 61.9), ({"norm": "none"}, 61.9), ({"block": -2}, None), ({"bias": False}, None)],
)
def test_a_printed_number_is_of_the_last_block_with_its_bias(namespace, read, printed):
    voc = {"dataset": "voc07", "split": "trainval", "backbone": "dino_vits16", "limit": 0, "proposal_ks": []}
    run = start(TEN, validate(TEN, {"out": namespace["out"], **voc, **read}).model_dump())
    assert run.published({"method": "lost", "k": 100}) == printed
    assert run.published({"method": "lost", "k": 100, "facet": "tokens"}) is None
