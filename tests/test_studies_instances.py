"""What the studies of instance-ness claim, against what their notebook shows beside its own numbers."""

from foundling.report.beside_instances import published_recall
from foundling.report.published import published
from foundling.studies import load_study, published_selectors

THREE = "03_instanceness"


def shown(study):
    """(method, instances, value) of every printed number that notebook 03 sets beside what it measures."""
    p = load_study(study).run(THREE).parameters
    assert (p.weights, p.limit, p.max_side, p.precision) == ("pretrained", 0, 0, "fp32")
    rows = [published_recall(p.dataset, p.split, name, p.ks, p.facet) for name, _ in p.networks()]
    return {(instances, value) for row in rows for instances, value in row.items()}, len([row for row in rows if row])


def test_each_row_of_table_1_is_declared_by_the_study_that_shows_it():
    rows = published(paper="instanceness", table="Table 1")
    assert len(rows) == 72
    claims = {
        name: [row for selector in selectors for row in published(**selector)]
        for name, selectors in published_selectors().items()
    }
    for study, eval_set in (("instanceness_coco", "COCO_val2017"), ("instanceness_voc12", "VOC12_split_not_stated")):
        numbers, networks = shown(study)
        assert networks == 6
        own = [row for row in rows if row["eval_set"] == eval_set]
        assert [row for row in claims[study] if row["table"] == "Table 1"] == own
        assert {(row["setting"].partition(";")[0].removeprefix("instances="), row["value"]) for row in own} == numbers
    assert not any(row in rows for name, claimed in claims.items() if "instanceness" not in name for row in claimed)


def test_proposals_are_those_of_the_paper():
    for study in ("instanceness_coco", "instanceness_voc12"):
        p = load_study(study).run(THREE).parameters
        assert (p.proposal_backbone, p.saliency_backbone, p.proposal_ks) == ("mae_vitb16", "dino_vitb16", [2, 3, 4, 5])
        assert (p.split_parts, p.intersection, p.nms) == (True, 0.5, 0.8)
