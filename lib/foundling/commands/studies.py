"""list the studies

Each study file with the number of notebook runs it stands for (a sweep has one at every point), how many of them have
results in the reports folder, and its title. `make study STUDY=name` runs one.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="study whose runs are listed; without it, all studies")


def run(args: argparse.Namespace) -> int:
    from foundling.commands.published import print_columns
    from foundling.paths import REPORTS
    from foundling.studies import load_study, study_names

    def done(study: str, name: str) -> bool:  # the demo's metrics come with the project, its pages do not
        return all((REPORTS / study / name / file).is_file() for file in ("metrics.json", "notebook.html"))

    if args.name is not None:
        study = load_study(args.name)
        print(study.title)
        print_columns(
            [["run", "state"], *([r.name, "done" if done(study.name, r.name) else "to do"] for r in study.runs)]
        )
        return 0
    rows = [["study", "runs", "done", "title"]]
    for study in map(load_study, study_names()):
        finished = sum(done(study.name, one.name) for one in study.runs)
        rows.append([study.name, str(len(study.runs)), str(finished), study.title])
    print_columns(rows)
    return 0
