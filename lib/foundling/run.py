"""The contract of a notebook run: checked parameters in; figures, tables, metrics and provenance out.

In a notebook, after the cell tagged ``parameters``::

    run = start("02_single_object_discovery", globals())
    dataset, backbone = run.open_dataset(), run.load_backbone()
    run.figure(fig, "gallery", "Boxes that hit.")
    run.metric("corloc.lost", 61.9, 60.5, 63.2)
    run.finish()

As a batch: ``python -m foundling.run 02_single_object_discovery --study voc07``.
"""

import argparse
import json
import math
import os
import random
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsFloat

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from foundling import provenance
from foundling.errors import FoundlingError, ParameterError
from foundling.files import write_bytes
from foundling.parameters import Parameters, check_names, dataset_options, from_root, model_of, split_backbone, validate
from foundling.paths import REPORTS, ROOT
from foundling.report.display import BATCH as BATCH
from foundling.report.display import show_saved
from foundling.report.style import save_figure
from foundling.report.tables import read_captions, write_caption, write_table

NAME = re.compile(r"[A-Za-z0-9_@:+-]+(\.[A-Za-z0-9_@:+-]+)*")


@dataclass
class Run:
    """One run of one notebook: its parameters, and where its results go.

    Cells may be run again: a figure, table or metric of the same name takes the place of the earlier one.
    """

    notebook: str
    parameters: Any  # the notebook's own model of foundling.parameters
    folder: Path
    started: str = field(default_factory=provenance.now)
    clock: float = field(default_factory=time.perf_counter)
    metrics: dict[str, float] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def open_dataset(self) -> Any:
        """The dataset the parameters name, cut to ``limit`` images; raises if it holds none."""
        from foundling.datasets import open_dataset

        dataset = open_dataset(self.parameters.dataset, **dataset_options(self.parameters))
        dataset = dataset.subset(limit=self.parameters.limit or None)
        if not len(dataset):
            raise ParameterError(f"dataset {dataset.name!r} holds no images: check root and split")
        self.note(dataset={"name": dataset.name, "split": dataset.split, "images": len(dataset)})
        for problem in dataset.problems:
            print(f"{dataset.name}: {problem}")
        return dataset

    def load_backbone(self, name: str | None = None) -> Any:
        """The backbone the parameters name, or another (``"dino_vits16"``, ``"scenes_odin:random"``)."""
        from foundling.backbones import load_backbone

        base, weights = split_backbone(name) if name else (self.parameters.backbone, self.parameters.weights)
        weights = weights if weights in ("pretrained", "random") else str(from_root(weights))
        device = None if self.parameters.device == "auto" else self.parameters.device
        backbone = load_backbone(base, weights=weights, device=device, seed=self.parameters.seed)
        self.weights(backbone, label=name)
        return backbone

    def weights(self, backbone: Any, label: str | None = None) -> None:
        """Note which weights a backbone carries (``load_backbone`` of this class does so itself)."""
        entry = {"weights": _shown(Path(backbone.weights)), "checksum": backbone.checksum}
        self.facts.setdefault("weights", {})[label or backbone.name] = entry
        self.facts["device"] = provenance.device_name(str(backbone.device))

    def figure(self, fig: Figure, name: str, caption: str) -> None:
        """Save ``fig`` as ``figures/<name>.png`` with its caption, show it below the cell, and close it."""
        path = save_figure(fig, self.folder / "figures" / f"{_file_name(name)}.png")
        write_caption(path, caption)
        plt.close(fig)
        show_saved(path, caption)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], caption: str, **options: Any) -> None:
        """Save ``rows`` as ``tables/<name>.csv`` with its caption and show them; ``options`` as for ``write_table``."""
        path = write_table(self.folder / "tables" / _file_name(name), rows, caption, **options)
        show_saved(path, caption)

    def metric(
        self,
        name: str,
        value: SupportsFloat | None,
        low: SupportsFloat | None = None,
        high: SupportsFloat | None = None,
        reason: str = "",
    ) -> None:
        """Note a number under a dotted name, with its interval if it has one.

        ``None`` means not available (``reason`` says why): it is left out of the metrics and listed in the provenance.
        Raises :class:`ParameterError` for a number that is not finite, half an interval, or a name that is not dotted
        words.
        """
        if not NAME.fullmatch(name):
            raise ParameterError(f"metric name {name!r}: use words of letters, digits and _, joined by dots")
        if (low is None) != (high is None):
            raise ParameterError(f"metric {name!r} has half an interval (low {low}, high {high}): give both or neither")
        for key in (name, f"{name}.low", f"{name}.high"):
            self.metrics.pop(key, None)
        self.unavailable.pop(name, None)
        if value is None:
            self.unavailable[name] = reason or "not available"
            return
        self.metrics[name] = _finite(name, value)
        if low is not None and high is not None:
            self.metrics[f"{name}.low"] = _finite(f"{name}.low", low)
            self.metrics[f"{name}.high"] = _finite(f"{name}.high", high)

    def published(self, settings: Mapping[str, Any], backbone: str | None = None) -> float | None:
        """The CorLoc a paper prints for a method's ``settings``, if this run repeats the paper's conditions.

        Those are all images, at native size, in fp32, with published weights, and the last block with its bias (the
        final norm reaches tokens only, of which no paper prints anything); ``backbone`` (``name:random`` is none)
        defaults to the run's own. Otherwise, and where no paper has the setting, ``None``.
        """
        from foundling.report.beside import published_corloc

        given = self.parameters
        name, weights = split_backbone(backbone) if backbone else (given.backbone, given.weights)
        if weights != "pretrained" or given.limit or given.max_side or given.precision != "fp32":
            return None
        if getattr(given, "block", -1) != -1 or not getattr(given, "bias", True):
            return None
        return published_corloc(given.dataset, given.split, name, settings)

    def note(self, **facts: Any) -> None:
        """Add facts to the provenance: ``run.note(seconds_per_image=0.08, failures=[…])``."""
        self.facts |= facts

    def finish(self) -> None:
        """Write provenance and metrics; raises if there are none, for a run that measures nothing has gone wrong."""
        if not self.metrics and not self.unavailable:
            raise ParameterError(f"{self.notebook} finishes without a single metric: call run.metric(…) before")
        seconds = time.perf_counter() - self.clock
        _write_json(self.folder / "provenance.json", self._provenance(seconds))
        _write_json(self.folder / os.environ.get(BATCH, "metrics.json"), self.metrics)
        print(f"{self.notebook}: {len(self.metrics)} metrics in {seconds:.0f} s, in {_shown(self.folder)}")

    def _provenance(self, seconds: float) -> dict[str, Any]:
        return {
            "notebook": self.notebook,
            "study": self.parameters.study,
            "parameters": self.parameters.model_dump(mode="json", exclude={"out"}),
            "versions": provenance.versions(),
            **provenance.commit(),
            "device": None,
            "seeds": dict.fromkeys(("python", "numpy", "torch"), self.parameters.seed),
            "weights": {},
            "dataset": None,
            "seconds_per_image": None,
            **self.facts,
            "not_available": self.unavailable,
            "started": self.started,
            "finished": provenance.now(),
            "seconds": round(seconds, 1),
        }


def start(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Check the parameters found in ``namespace`` (a notebook's ``globals()``), seed everything, and open a run.

    Results of an earlier run in the same folder are removed. Raises :class:`ParameterError` that lists every
    parameter that is missing or wrong.
    """
    parameters = read_parameters(notebook, namespace)
    check_names(parameters, f"notebook {notebook}")
    run = Run(notebook, parameters, output_folder(notebook, parameters))
    seed_everything(parameters.seed)
    clear_results(run.folder)
    state = provenance.commit()
    modified = ", modified" if state["modified"] else ""
    print(f"study {parameters.study} · {notebook} · seed {parameters.seed} · results in {_shown(run.folder)}")
    found = provenance.versions()
    print(
        f"foundling {found['foundling']} (commit {(state['commit'] or 'unknown')[:9]}{modified}) · "
        f"Python {found['python']} · torch {found['torch']} · timm {found['timm']}"
    )
    return run


def read_parameters(notebook: str, namespace: Mapping[str, Any]) -> Parameters:
    """The parameters of ``notebook`` among a notebook's variables; all must be there."""
    fields = model_of(notebook).model_fields
    if absent := [name for name in fields if name not in namespace]:
        raise ParameterError(
            f"notebook {notebook}: the parameters cell lacks {', '.join(absent)}: run it, or restore it"
        )
    return validate(notebook, {name: namespace[name] for name in fields})


def output_folder(notebook: str, parameters: Parameters) -> Path:
    """Where the results go: ``out``, or ``reports/<study>/<notebook>``."""
    return Path(parameters.out).expanduser().absolute() if parameters.out else REPORTS / parameters.study / notebook


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and ask torch for results that repeat."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


def clear_results(folder: Path) -> None:
    """Remove what an earlier run left: its metrics, provenance, figures and tables (those it listed, no others)."""
    for part, suffix in (("figures", ".png"), ("tables", ".csv")):
        for name in read_captions(folder / part):
            (folder / part / f"{name}{suffix}").unlink(missing_ok=True)
        (folder / part / "captions.json").unlink(missing_ok=True)
    for name in ("metrics.json", "provenance.json"):
        (folder / name).unlink(missing_ok=True)
    for pattern in (".*.part", "figures/.*.part", "tables/.*.part"):  # half-written by a process that was killed
        for path in folder.glob(pattern):
            path.unlink()


def _file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ParameterError(f"{name!r} names a file: use letters, digits, _ and - only")
    return name


def _finite(name: str, value: SupportsFloat) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ParameterError(
            f"metric {name!r} is {number}: a metric is a finite number, or None if it is not available"
        )
    return number


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m foundling.run NOTEBOOK --study STUDY [--point POINT] [--set NAME=VALUE …]``: returns the code."""
    from foundling.execution import CellFailed, notebook_path, run_notebook
    from foundling.studies import load_study

    parser = argparse.ArgumentParser(prog="python -m foundling.run", description="Run one notebook of a study.")
    parser.add_argument("notebook", help="name (01_features) or path of the notebook")
    parser.add_argument("--study", default="demo", help="name of a file in studies/, or a path (default: demo)")
    parser.add_argument("--point", default="", help="which run of a sweep: its name, such as block--1__bias-true")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a parameter (YAML)")
    parser.add_argument("--checked", action="store_true", help="names in registries were checked (the Snakefile does)")
    options = parser.parse_args(arguments)
    try:
        path, study = notebook_path(options.notebook), load_study(options.study)
        run = study.run(path.stem, options.point)
        given = {
            **run.given,
            "study": study.name,
            **({"out": str(REPORTS / study.name / run.name)} if run.point else {}),
        }
        given |= read_settings(options.set)
        folder = run_notebook(path, given, f"study {study.name}", names=not options.checked)
    except CellFailed as error:
        print(error, file=sys.stderr)
        return 1
    except FoundlingError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{path.stem}: {_shown(folder / 'notebook.html')}")
    return 0


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Texts such as ``blocks=[0, 3]`` as parameters; values are YAML. Raises :class:`ParameterError` for any other."""
    import yaml

    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ParameterError(f"--set {text}: write NAME=VALUE")
        try:
            settings[name] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError as error:
            raise ParameterError(f"--set {text}: {' '.join(str(error).split())}") from None
    return settings


if __name__ == "__main__":
    sys.exit(main())
