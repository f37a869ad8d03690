"""Study files: which notebooks run with which parameters, and which published numbers they regenerate.

A study file (``studies/<name>.yaml``)::

    title: DINO ViT-S/16 on VOC07
    description: What is asked, and what to expect.
    shared:                        # parameters of every notebook
      dataset: voc07
      split: trainval
    notebooks:
      02_single_object_discovery:  # parameters of this one
        limit: 0
    sweep:                         # every combination of these values is one run of that notebook
      02_single_object_discovery:
        backbone: [dino_vits16, dino_vitb16]
        max_side: [0, 480]
    published:                     # selectors into the published results: column -> value
      - {paper: lost, table: Table 1, method: LOST, eval_set: VOC07_trainval}
    resources: {threads: 2, mem_mb: 8000, runtime: 240, gpu: 1}  # of each notebook; minutes; for clusters
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from foundling import paths
from foundling.combinations import combinations, point_name
from foundling.errors import ParameterError
from foundling.parameters import NOTEBOOKS, Parameters, check_model, model_of, suggest, validate

SET_BY_THE_RUN = ("study", "out")


class Resources(BaseModel):
    """What one notebook of the study asks of a machine; Snakemake and its cluster profiles read it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    threads: int = Field(2, ge=1, description="processor threads")
    mem_mb: int | None = Field(None, ge=1, description="memory in MB")
    runtime: int | None = Field(None, ge=1, description="minutes")
    gpu: int | None = Field(None, ge=1, description="number of GPUs")


class StudyFile(BaseModel):
    """The keys of a study file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    title: str = Field(min_length=1)
    description: str = ""
    shared: dict[str, Any] = {}
    notebooks: dict[str, dict[str, Any] | None] = Field(min_length=1)
    sweep: dict[str, dict[str, list[Any]]] = {}
    published: list[dict[str, str]] = []
    resources: Resources = Resources.model_validate({})


@dataclass(frozen=True)
class PlannedRun:
    """One run of a notebook: ``given`` holds the parameters that the file sets, ``parameters`` all of them, as checked.

    In a sweep ``point`` names the run among those of its notebook, and ``axes`` holds the values that it stands for;
    both are empty where a notebook runs once.
    """

    notebook: str
    point: str
    axes: dict[str, Any]
    given: dict[str, Any]
    parameters: Parameters

    @property
    def name(self) -> str:
        """The folder of its results under ``reports/<study>``."""
        return f"{self.notebook}/{self.point}" if self.point else self.notebook


@dataclass(frozen=True)
class Study:
    """A study file that has been read and checked; ``runs`` are in the order of the file."""

    name: str
    path: Path
    title: str
    description: str
    runs: list[PlannedRun]
    published: list[dict[str, str]]
    threads: int
    resources: dict[str, int]

    def run(self, notebook: str, point: str = "") -> PlannedRun:
        """The run of ``notebook``, at ``point`` if it is swept; raises :class:`ParameterError` for any other."""
        runs = {run.point: run for run in self.runs if run.notebook == notebook}
        if not runs:
            raise ParameterError(f"the study {self.name!r} does not run {notebook!r}{suggest(notebook, self.swept())}")
        if point not in runs:
            if "" in runs:
                raise ParameterError(f"the study {self.name!r} runs {notebook!r} once: leave out the point {point!r}")
            said = f"{point!r} is none of them" if point else "and none was named (--point)"
            raise ParameterError(
                f"the study {self.name!r} runs {notebook!r} at {len(runs)} points, {said}{suggest(point, runs)}"
            )
        return runs[point]

    def swept(self) -> dict[str, list[PlannedRun]]:
        """The notebooks and the points of each; none for a notebook that runs once."""
        points: dict[str, list[PlannedRun]] = {run.notebook: [] for run in self.runs}
        for run in self.runs:
            points[run.notebook] += [run] if run.point else []
        return points


class _Loader(yaml.SafeLoader):
    """YAML, but a key that is written twice is an error (YAML itself would let the last one win)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", node.start_mark, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def study_names() -> list[str]:
    """The studies that there are files for, sorted."""
    return sorted(path.stem for path in paths.STUDIES.glob("*.yaml"))


def load_study(name: str | Path) -> Study:
    """Read and check a study: the name of a file in ``studies/``, or the path of a YAML file.

    Names that only registries know (datasets, backbones, methods) are checked by :func:`missing` and by the run.
    Raises :class:`ParameterError` naming the file and every key that is unknown, mistyped or of the wrong type.
    """
    path = _study_path(name)
    where = str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)
    file: StudyFile = check_model(StudyFile, read_mapping(path, where, "study", StudyFile), where)
    for notebook in file.sweep:
        if notebook not in file.notebooks:
            raise ParameterError(f"{where}: sweep: {notebook!r} is not among the notebooks: add it there")
    runs = [run for notebook in file.notebooks for run in _runs(file, notebook, path.stem, where)]
    _check_published(file.published, where)
    resources = file.resources.model_dump(exclude={"threads"}, exclude_none=True)
    return Study(
        name=path.stem,
        path=path,
        title=file.title,
        description=file.description.strip(),
        runs=runs,
        published=file.published,
        threads=file.resources.threads,
        resources=resources,
    )


def published_selectors() -> dict[str, list[dict[str, str]]]:
    """The ``published`` part of every study file, by study."""
    return {name: load_study(name).published for name in study_names()}


def _study_path(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = paths.STUDIES / f"{name}.yaml"
    if not path.is_file():
        known = study_names()
        raise ParameterError(f"no study {str(name)!r} ({path} is not there){suggest(str(name), known)}")
    return path.resolve()


def read_mapping(path: Path, where: str, kind: str, model: type[BaseModel]) -> dict[str, Any]:
    """The keys and values of a YAML file of the ``kind`` that ``model`` describes, not yet held against it.

    Raises :class:`ParameterError`, naming the file as ``where``, if it is absent, no YAML, no mapping, or has a key
    twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ParameterError(f"{where} cannot be read ({error.strerror}): check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{where} is not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        keys = ", ".join(list(model.model_fields)[:8])
        raise ParameterError(f"{where} is not a {kind} file: it needs keys such as {keys}")
    return content


def _given(file: StudyFile, notebook: str, where: str) -> dict[str, Any]:
    """The parameters the file sets for one notebook: the shared ones and its own, which win."""
    if notebook not in NOTEBOOKS:
        raise ParameterError(f"{where}: notebooks: unknown notebook {notebook!r}{suggest(notebook, NOTEBOOKS)}")
    for key in file.shared:
        if key not in Parameters.model_fields:
            raise ParameterError(f"{where}: shared: unknown parameter {key!r}{suggest(key, Parameters.model_fields)}")
    values = {**file.shared, **(file.notebooks[notebook] or {})}
    for key in SET_BY_THE_RUN:
        if key in values:
            raise ParameterError(f"{where}: {key!r} is set by the run, not by the study file: remove it")
    return values


def _runs(file: StudyFile, notebook: str, study: str, where: str) -> list[PlannedRun]:
    """The run of a notebook, or one for each point of its sweep, whose values win over shared ones."""
    given, axes = _given(file, notebook, where), file.sweep.get(notebook)
    if axes is None:
        return [PlannedRun(notebook, "", {}, given, validate(notebook, {**given, "study": study}, where))]
    there = f"{where}: sweep: {notebook}"
    if not axes:
        raise ParameterError(f"{there}: no axis: name one or more parameters, each with a list of values")
    for axis in axes:
        if axis not in (fields := [name for name in model_of(notebook).model_fields if name not in SET_BY_THE_RUN]):
            raise ParameterError(f"{there}: unknown parameter {axis!r}{suggest(axis, fields)}")
        if axis in (file.notebooks[notebook] or {}):
            raise ParameterError(f"{there}: {axis!r} has a value under notebooks, too: remove one of the two")
    runs = []
    for values in combinations(axes, there):
        point, here = point_name(values), {**given, **values}
        checked = validate(notebook, {**here, "study": study}, f"{there}: {point}")
        runs.append(PlannedRun(notebook, point, values, here, checked))
    return runs


def _check_published(selectors: list[dict[str, str]], where: str) -> None:
    from foundling.report.published import published

    for selector in selectors:
        try:
            rows = published(**selector)
        except ParameterError as error:
            raise ParameterError(f"{where}: published: {error}") from None
        if not rows or not selector:
            raise ParameterError(f"{where}: published: no published number matches {selector}")
