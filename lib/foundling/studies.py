"""Study files: which notebooks run with which parameters, what they need, and which published numbers they regenerate.

A study file (``studies/<name>.yaml``)::

    title: DINO ViT-S/16 on VOC07
    description: What is asked, and what to expect.
    shared:                        # parameters of every notebook
      dataset: voc07
      split: trainval
    notebooks:
      02_single_object_discovery:  # parameters of this one
        limit: 0
    published:                     # selectors into the published results: column -> value
      - {paper: lost, table: Table 1, method: LOST, eval_set: VOC07_trainval}
    resources: {threads: 2, mem_mb: 8000, runtime: 240, gpu: 1}  # of each notebook; minutes; for clusters
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from foundling import paths
from foundling.errors import FoundlingError, ParameterError
from foundling.parameters import (
    NOTEBOOKS,
    Parameters,
    RepresentationLearning,
    check_model,
    check_names,
    dataset_options,
    from_root,
    split_backbone,
    suggest,
    validate,
)

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
    published: list[dict[str, str]] = []
    resources: Resources = Resources.model_validate({})


@dataclass(frozen=True)
class Study:
    """A study file that has been read and checked.

    ``given`` holds, for each notebook, the parameters that the file sets; ``notebooks`` all of them, as checked.
    """

    name: str
    path: Path
    title: str
    description: str
    notebooks: dict[str, Parameters]
    given: dict[str, dict[str, Any]]
    published: list[dict[str, str]]
    threads: int
    resources: dict[str, int]


@dataclass(frozen=True)
class Need:
    """Something a study needs that is not there, and the command or step that brings it."""

    what: str
    remedy: str


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
    given = {notebook: _given(file, notebook, where) for notebook in file.notebooks}
    _check_published(file.published, where)
    resources = file.resources.model_dump(exclude={"threads"}, exclude_none=True)
    return Study(
        name=path.stem,
        path=path,
        title=file.title,
        description=file.description.strip(),
        notebooks={
            notebook: validate(notebook, {**values, "study": path.stem}, where) for notebook, values in given.items()
        },
        given=given,
        published=file.published,
        threads=file.resources.threads,
        resources=resources,
    )


def parameters_given(study: Study, notebook: str) -> dict[str, Any]:
    """What the study sets for ``notebook``; raises :class:`ParameterError` if it does not run that notebook."""
    if notebook not in study.given:
        raise ParameterError(f"the study {study.name!r} does not run {notebook!r}{suggest(notebook, study.given)}")
    return study.given[notebook]


def published_selectors() -> dict[str, list[dict[str, str]]]:
    """The ``published`` part of every study file, by study."""
    return {name: load_study(name).published for name in study_names()}


def missing(study: Study) -> list[Need]:
    """Everything that keeps the study from starting: names that no registry holds, absent data, weights and packages.

    Opens the datasets (their images are not read) and imports torch.
    """
    needs: list[Need] = []
    for notebook, parameters in study.notebooks.items():
        try:
            check_names(parameters, notebook)
        except ParameterError as error:
            needs += [
                Need(line, f"correct {study.path.name}, or do what the line says") for line in str(error).splitlines()
            ]
        if not (paths.NOTEBOOKS / f"{notebook}.ipynb").is_file():
            needs.append(Need(f"the notebook {notebook}.ipynb", f"restore it in {paths.NOTEBOOKS}"))
        needs += [*_missing_data(parameters), *_missing_weights(parameters)]
        if isinstance(parameters, RepresentationLearning):
            needs += [*_missing_videos(parameters), *_missing_training_images(parameters)]
    return list(dict.fromkeys(needs))


def describe_missing(studies: Mapping[str, list[Need]]) -> str:
    """The message about everything that is missing, by study; empty if nothing is."""
    lines = []
    for name, needs in studies.items():
        if needs:
            lines += [f"The study {name!r} cannot start yet; it needs:"]
            lines += [f"  - {need.what}\n      {need.remedy}" for need in needs]
    return "\n".join(lines)


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


def _check_published(selectors: list[dict[str, str]], where: str) -> None:
    from foundling.report.published import published

    for selector in selectors:
        try:
            rows = published(**selector)
        except ParameterError as error:
            raise ParameterError(f"{where}: published: {error}") from None
        if not rows or not selector:
            raise ParameterError(f"{where}: published: no published number matches {selector}")


def _missing_data(parameters: Parameters) -> list[Need]:
    from foundling.datasets import DATASETS, open_dataset

    if parameters.dataset not in DATASETS:  # told by check_names
        return []
    try:
        dataset = open_dataset(parameters.dataset, **dataset_options(parameters))
    except FoundlingError as error:
        remedy = "put the images there" if parameters.root else f"foundling data {parameters.dataset}"
        return [Need(f"the dataset {parameters.dataset!r}: {' '.join(str(error).split())}", remedy)]
    if not len(dataset):
        return [Need(f"images: the dataset {parameters.dataset!r} is empty", "check root and split")]
    return []


def _missing_videos(parameters: RepresentationLearning) -> list[Need]:
    from foundling.datasets import VIDEOS, open_videos

    if parameters.videos in ("", "scenes_video") or parameters.videos not in VIDEOS:  # made on first use; told before
        return []
    try:
        open_videos(parameters.videos, root=from_root(parameters.video_root))
    except FoundlingError as error:
        remedy = "put the videos there" if parameters.video_root else f"foundling data {parameters.videos}"
        return [Need(f"the videos {parameters.videos!r}: {' '.join(str(error).split())}", remedy)]
    return []


def _missing_training_images(parameters: RepresentationLearning) -> list[Need]:
    from foundling.datasets import DATASETS, open_dataset

    needs = []
    for label, settings in parameters.runs().items():
        if settings.dataset == "scenes" or settings.dataset not in DATASETS:  # drawn on first use; told by check_names
            continue
        try:
            open_dataset(settings.dataset, split=settings.split or None, root=from_root(settings.root))
        except FoundlingError as error:
            remedy = "put the images there" if settings.root else f"foundling data {settings.dataset}"
            needs.append(Need(f"the training images of {label}: {' '.join(str(error).split())}", remedy))
    return needs


def _missing_weights(parameters: Parameters) -> list[Need]:
    from foundling.backbones.weights import expected_weights

    rows = {row["name"]: row for row in expected_weights()}
    wanted = [(parameters.backbone, parameters.weights), *map(split_backbone, parameters.compare_backbones)]
    needs = []
    for name, weights in wanted:
        if (row := rows.get(name)) is None:  # told by check_names
            continue
        if weights == "pretrained" and not row["present"]:
            gated = "; the repository is gated" if row["gated"] else ""
            needs.append(Need(f"the weights of {name} at {row['where']}{gated}", str(row["command"])))
        elif weights not in ("pretrained", "random") and not (paths.ROOT / Path(weights).expanduser()).is_file():
            needs.append(Need(f"the checkpoint {weights}", "put it there, or change the parameter weights"))
    return needs
