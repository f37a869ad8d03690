"""What the studies of box refinement claim, against what their notebook shows beside its own numbers."""

import pytest

from foundling.report.beside import EVAL_SETS
from foundling.report.beside_refinement import (
    NAMES,
    ablation_beside,
    cad_beside,
    corloc_beside,
    hours_beside,
    preset_of,
)
from foundling.report.published import published
from foundling.studies import load_study, study_names

SETS = ("voc07", "voc12", "coco20k")
STUDIES = [f"box_refinement_{part}{name}" for part in ("", "ablation_") for name in SETS]

Number = tuple[str, str, float]  # metric, as the paper calls it, what it was measured on, value


def shown(study: str) -> set[Number]:
    """Every printed number that notebook 07 sets beside what the runs of a study measure."""
    numbers: set[Number] = set()
    for run in load_study(study).runs:
        p = run.parameters
        settings, where = p.runs(), EVAL_SETS[p.dataset, p.split]
        plain = settings["refined"]
        row = [*corloc_beside(p, plain).values()]
        row += [*cad_beside(p, plain, p.detector()).values()] if p.cad else []
        row += (
            [value for one in settings.values() if (value := ablation_beside(p, one)) is not None] if p.ablation else []
        )
        numbers |= {("CorLoc", where, value) for value in row}
        numbers |= {("hours", "", value) for value in hours_beside(p, plain).values()}
        assert preset_of(plain) == "code"
    return numbers


def claimed(study: str) -> set[Number]:
    rows = [row for one in load_study(study).published for row in published(**one)]
    return {(row["metric"], row["eval_set"], row["value"]) for row in rows}


@pytest.mark.parametrize("study", STUDIES)
def test_what_a_study_claims_is_what_it_shows(study):
    assert claimed(study) and claimed(study) <= shown(study)


def test_each_row_of_the_tables_is_claimed():
    rows = [row for study in STUDIES for one in load_study(study).published for row in published(**one)]
    ours = [name for method in NAMES.values() for name in (method, f"{method} + CAD")]
    ours += [f"Box refinement (Ours) using {name}" for name in ours]
    wanted = [row for row in published(paper="box_refinement", table="Table 4") if row["method"] in ours]
    wanted += published(paper="box_refinement", table="Table 6")
    wanted += [
        row
        for row in published(paper="box_refinement", table="Table 7")
        if "grounding" not in row["setting"] and "original" not in row["method"]
    ]
    assert len(wanted) == 45 + 15 + 4
    assert all(row in rows for row in wanted) and all(row in wanted for row in rows)
    others = [name for name in study_names() if name not in STUDIES]
    claims = [row for name in others for one in load_study(name).published for row in published(**one)]
    assert not [row for row in claims if row["paper"] == "box_refinement"]


def test_the_variants_of_the_ablation_are_the_papers():
    for name in SETS:
        (run,) = load_study(f"box_refinement_ablation_{name}").runs
        p = run.parameters
        found = {label: ablation_beside(p, one) for label, one in p.runs().items()}
        rows = {
            row["setting"].rpartition("; ")[2]: row["value"]
            for row in published(paper="box_refinement", table="Table 6", eval_set=EVAL_SETS[p.dataset, p.split])
        }
        names = {"refined": "k=10", "without_l_f": "w/o reg.", "k1": "k=1", "k5": "k=5", "k15": "k=15"}
        assert found == {label: rows[setting] for label, setting in names.items()}
