# The notebooks of one or more studies as a graph:  snakemake --cores 2 --config study=demo   (or study=voc07,voc12)
# Each run of a notebook starts when its file, its parameters, the embedded weights it uses or the version of the library
# has changed, or its results are missing. What --keep-going leaves out, the study's page lists as missing.
import json
import sys

from snakemake.exceptions import WorkflowError

import foundling
from foundling.errors import FoundlingError
from foundling.needs import describe_missing, embedded_weights, missing
from foundling.paths import NOTEBOOKS, REPORTS
from foundling.studies import load_study

try:
    STUDIES = [load_study(name) for name in str(config.get("study", "demo")).split(",")]
except FoundlingError as error:
    raise WorkflowError(str(error))


def results(study, run):
    folder = REPORTS / study.name / run.name
    return [folder / name for name in ("notebook.ipynb", "notebook.html", "metrics.json")]


def report(study):
    swept = [notebook for notebook, points in study.swept().items() if points]
    folder = REPORTS / study.name
    return [folder / "index.html", *(folder / "tables" / f"{notebook}.csv" for notebook in swept)]


onstart:
    if problems := describe_missing({study.name: missing(study) for study in STUDIES}):
        raise WorkflowError(problems)


onerror:
    from foundling.report.page import write_report  # here, not above: it takes seconds

    for study in STUDIES:
        if (REPORTS / study.name).is_dir():
            try:
                print("some runs are missing:", write_report(REPORTS / study.name, study.path))
            except FoundlingError as error:
                print(error, file=sys.stderr)


rule all:
    default_target: True
    input:
        [report(study) + [file for run in study.runs for file in results(study, run)] for study in STUDIES],


for study in STUDIES:
    for run in study.runs:

        rule:
            name:
                f"{study.name}_{run.name}"
            input:
                notebook=NOTEBOOKS / f"{run.notebook}.ipynb",
            output:
                results(study, run),
            params:
                python=sys.executable,
                study=study.path,
                point=run.point,
                parameters=json.dumps(run.parameters.model_dump(mode="json"), sort_keys=True),
                weights=json.dumps(embedded_weights(run.parameters), sort_keys=True),
                version=foundling.__version__,
            threads: study.threads
            resources:
                **study.resources,
            message:
                f"{study.name}: {run.name}"
            shell:
                "{params.python:q} -m foundling.run {input.notebook:q} --study {params.study:q} --point={params.point:q}"
                " --checked"

    rule:
        name:
            f"{study.name}_report"
        input:
            [file for run in study.runs for file in results(study, run)],
        output:
            report(study),
        params:
            python=sys.executable,
            folder=REPORTS / study.name,
            study=study.path,
            words=json.dumps([study.title, study.description, study.published]),
        message:
            f"{study.name}: report"
        shell:
            "{params.python:q} -m foundling.report.page {params.folder:q} --study {params.study:q}"
