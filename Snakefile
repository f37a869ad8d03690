# The notebooks of one or more studies as a graph:  snakemake --cores 2 --config study=demo   (or study=voc07,voc12)
# Each notebook runs when its file, its parameters or the version of the library has changed, or its results are missing.
import json
import sys

from snakemake.exceptions import WorkflowError

import foundling
from foundling.errors import FoundlingError
from foundling.paths import NOTEBOOKS, REPORTS
from foundling.studies import describe_missing, load_study, missing

try:
    STUDIES = [load_study(name) for name in str(config.get("study", "demo")).split(",")]
except FoundlingError as error:
    raise WorkflowError(str(error))


def results(study, notebook):
    return REPORTS / study.name / notebook


onstart:
    if problems := describe_missing({study.name: missing(study) for study in STUDIES}):
        raise WorkflowError(problems)


rule all:
    default_target: True
    input:
        [REPORTS / study.name / "index.html" for study in STUDIES],


for study in STUDIES:
    for notebook, parameters in study.notebooks.items():

        rule:
            name:
                f"{study.name}_{notebook}"
            input:
                notebook=NOTEBOOKS / f"{notebook}.ipynb",
            output:
                notebook=results(study, notebook) / "notebook.ipynb",
                html=results(study, notebook) / "notebook.html",
                metrics=results(study, notebook) / "metrics.json",
            params:
                python=sys.executable,
                study=study.path,
                parameters=json.dumps(parameters.model_dump(mode="json"), sort_keys=True),
                version=foundling.__version__,
            threads: study.threads
            resources:
                **study.resources,
            message:
                f"{study.name}: {notebook}"
            shell:
                "{params.python:q} -m foundling.run {input.notebook:q} --study {params.study:q} --checked"

    rule:
        name:
            f"{study.name}_report"
        input:
            [results(study, notebook) / "metrics.json" for notebook in study.notebooks],
        output:
            REPORTS / study.name / "index.html",
        params:
            python=sys.executable,
            folder=REPORTS / study.name,
            study=study.path,
            words=json.dumps([study.title, study.description, study.published]),
        message:
            f"{study.name}: report"
        shell:
            "{params.python:q} -m foundling.report.page {params.folder:q} --study {params.study:q}"
