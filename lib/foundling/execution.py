"""Run a notebook as a batch: parameters checked before the kernel starts, executed by papermill, rendered to HTML.

While it runs, the notebook is ``notebook.running.ipynb`` in the run's folder, saved after every cell. If a cell fails
it stays as ``notebook.failed.ipynb``. ``metrics.json`` appears last, so that its presence means a complete run.
"""

import fcntl
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from foundling.errors import FoundlingError, ParameterError
from foundling.parameters import Parameters, check_names, model_of, suggest, validate
from foundling.paths import NOTEBOOKS, ROOT
from foundling.run import BATCH, clear_results, output_folder

KERNEL = "python3"
RUNNING, FAILED = "notebook.running.ipynb", "notebook.failed.ipynb"
PATIENCE = 600  # seconds for the kernel to start, and for its last messages to arrive: machines can be busy
PENDING_METRICS = ".metrics.pending.json"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class CellFailed(FoundlingError):
    """A cell of the notebook raised, or the kernel died."""


def notebook_path(name: str) -> Path:
    """The notebook called ``name`` (``01_features``, or a path); raises :class:`ParameterError` if it is not there."""
    path = Path(name) if name.endswith(".ipynb") else NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        present = sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb"))
        raise ParameterError(f"no notebook {name!r} ({path} is not there){suggest(Path(name).stem, present)}")
    return path.resolve()


def check_parameters(path: Path, given: Mapping[str, Any], where: str, names: bool = True) -> Parameters:
    """The parameters of the notebook at ``path`` with the values ``given``, checked against its cell and its model.

    Raises :class:`ParameterError` if the notebook has no cell tagged ``parameters``, if that cell and the model
    disagree on names, or if a value is wrong. Starts no kernel. Without ``names`` the names that registries hold are
    left to the run's first cell, and torch is not imported.
    """
    import papermill

    notebook = path.stem
    parameters = validate(notebook, given, where)
    cell = papermill.inspect_notebook(str(path))
    if not cell:
        raise ParameterError(f"{path.name} has no cell tagged 'parameters' (or an empty one)")
    expected = model_of(notebook).model_fields
    for name in [*(n for n in cell if n not in expected), *(n for n in expected if n not in cell)]:
        side = "is unknown" if name in cell else "is missing"
        raise ParameterError(f"{path.name}, cell tagged 'parameters': {name!r} {side}{suggest(name, expected)}")
    if names:
        check_names(parameters, f"{where}, notebook {notebook}")
    return parameters


def run_notebook(path: Path, given: Mapping[str, Any], where: str, names: bool = True) -> Path:
    """Execute the notebook at ``path`` with the parameters ``given`` (the others keep their defaults).

    ``where`` names where the values come from, for messages; ``names`` is that of :func:`check_parameters`. Returns
    the run's folder, which then holds ``notebook.ipynb``, ``notebook.html``, ``metrics.json`` and what the notebook
    wrote.

    Raises :class:`ParameterError` before the kernel starts, :class:`CellFailed` if the notebook fails.
    """
    from foundling.files import write_bytes
    from foundling.report.notebook_html import notebook_html

    parameters = check_parameters(path, given, where, names)
    folder = output_folder(path.stem, parameters)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        clear_results(folder)
        running, failed, pending = folder / RUNNING, folder / FAILED, folder / PENDING_METRICS
        failed.unlink(missing_ok=True)
        pending.unlink(missing_ok=True)
        try:
            _execute(path, running, {**given, "out": str(folder)} if parameters.out else given)
            if not pending.is_file():
                raise CellFailed(f"{path.stem} ran to its end but wrote no metrics: its last cell must be run.finish()")
        except CellFailed:
            running.replace(failed)
            raise
        write_bytes(folder / "notebook.html", notebook_html(running).encode())
        running.replace(folder / "notebook.ipynb")
        pending.replace(folder / "metrics.json")
    return folder


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process runs a notebook into ``folder``, and keep others waiting.

    The lock ends with the process that holds it, however that ends. (If only Snakemake was killed, the notebook that it
    had started still runs: the same command again then waits for it.)
    """
    path = folder / ".lock"
    with ExitStack() as stack:
        while True:
            lock = stack.enter_context(path.open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process is running a notebook into {folder}: waiting for it to end", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:  # some network file systems have no locks
                print(f"{folder} cannot be locked ({error}): do not start the same study twice", file=sys.stderr)
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:  # not removed while we waited
                break
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _execute(path: Path, output: Path, values: Mapping[str, Any]) -> None:
    """Run papermill with a kernel of this interpreter; a failure becomes :class:`CellFailed`, told plainly."""
    import papermill
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError

    with _own_kernel():
        try:
            papermill.execute_notebook(
                str(path),
                str(output),
                parameters=dict(values),
                kernel_name=KERNEL,
                cwd=str(path.parent),
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                autosave_cell_every=30,
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,
                on_cell_execute=_Progress(path.stem),
            )
        except PapermillExecutionError as error:
            raise CellFailed(_plain_error(path.stem, error, output)) from None
        except (RuntimeError, CellTimeoutError) as error:  # how nbclient and jupyter_client report a kernel that ended
            raise CellFailed(f"{path.stem}: the kernel died ({error}). If memory ran out, lower batch_size") from None


class _Progress:
    """One line a code cell: its number, the seconds since the start, and how it begins."""

    def __init__(self, notebook: str) -> None:
        self.notebook, self.start = notebook, time.perf_counter()

    def __call__(self, cell: Any, cell_index: int) -> None:
        if cell.cell_type != "code" or not cell.source.strip():
            return
        lines = [line for line in cell.source.splitlines() if line.strip()]
        seconds = time.perf_counter() - self.start
        print(f"{self.notebook} {seconds:6.1f} s  cell {cell_index + 1}: {lines[0][:80]}", flush=True)


def _plain_error(notebook: str, error: Any, output: Path) -> str:
    """What failed, where, and the last lines of the traceback without terminal colours."""
    trace = ANSI.sub("", "\n".join(error.traceback)).splitlines()
    kept = [line for line in trace if line.strip()][-12:]
    shown = output.with_name(FAILED)
    shown = shown.relative_to(ROOT) if shown.is_relative_to(ROOT) else shown
    return "\n".join(
        [
            f"{notebook}, cell {error.cell_index + 1}: {error.ename}: {error.evalue}",
            *(f"  | {x}" for x in kept),
            f"The notebook as far as it came: {shown}",
        ]
    )


@contextmanager
def _own_kernel() -> Iterator[None]:
    """Make the kernel ``python3`` mean this interpreter, whatever kernels are registered on the machine."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        # Sets iterate in the same order in every run; cuBLAS repeats its results.
        "env": {BATCH: PENDING_METRICS, "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
    }
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "kernels" / KERNEL
        home.mkdir(parents=True)
        (home / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, (folder, before)))
        try:
            yield
        finally:
            os.environ.pop("JUPYTER_PATH")
            if before is not None:
                os.environ["JUPYTER_PATH"] = before
