"""The printed numbers of COMUS and LOST beside ours: read off their tables, and absent for other conditions."""

import pytest

from foundling.parameters import validate
from foundling.report.beside_clusters import is_comus, is_retrieval, printed_corret, printed_miou, printed_saliency
from foundling.report.published import published
from foundling.studies import load_study, published_selectors

FOUR = "04_clustering"


def test_what_is_printed():
    assert printed_miou() == {"spectral": 41.8, "kmeans": 40.8}
    assert printed_saliency() == {"network": 51.0, "lost": 34.8, "dino_seg": 24.5}
    assert printed_corret() == {"rOSD, VGG16": 64, "LOD, VGG16": 70, "LOST, VGG16": 68, "LOST, DINO": 72}


def test_the_studies_repeat_the_papers_and_nothing_else_does():
    comus, lost = (load_study(name).run(FOUR).parameters for name in ("comus_voc12", "lost_retrieval_voc07"))
    assert is_comus(comus) and not is_retrieval(comus)
    assert is_retrieval(lost) and not is_comus(lost)
    embedded = validate(FOUR, {})
    assert not is_comus(embedded) and not is_retrieval(embedded)


@pytest.mark.parametrize(
    "change",
    [{"limit": 9}, {"backbone": "dino_vits16"}, {"descriptor": "mean"}, {"colour": False}, {"clusters": 30},
     {"source": "lost"}, {"neighbours": 20}, {"split": "seg_train"}, {"min_area": 0}, {"precision": "bf16"}],
)  # fmt: skip
def test_other_conditions_have_no_published_number(change):
    comus = load_study("comus_voc12").run(FOUR)
    assert not is_comus(validate(FOUR, {**comus.given, **change}))


def test_the_studies_declare_what_their_notebook_shows():
    claims = {
        name: sorted(row["value"] for selector in published_selectors()[name] for row in published(**selector))
        for name in ("comus_voc12", "lost_retrieval_voc07")
    }
    assert claims["lost_retrieval_voc07"] == [72]
    assert claims["comus_voc12"] == sorted([41.8, *printed_miou().values(), *printed_saliency().values()])
