"""What the studies of segmenters claim, against what notebook 06 shows beside its own numbers."""

from types import SimpleNamespace

import pytest

from foundling.parameters import validate
from foundling.report import beside_segmenters as beside
from foundling.report.published import published
from foundling.studies import load_study, published_selectors

SIX = "06_segmenter_training"
COMUS = ("comus_voc12_self_training", "comus_voc12_supervised_saliency", "comus_coco_self_training")
INSTANCES = tuple(
    f"instanceness_{name}"
    for name in ("segmenters", "segmenters_k", "segmenters_saliency", "segmenters_split", "mask_rcnn")
)
CLAIMED_ELSEWHERE = {40.8, 41.8, 18.2}  # before self-training: comus_voc12 and comus_coco have them
Number = tuple[str, float]


def shown(study: str) -> set[Number]:
    """Every printed number, with its metric, that notebook 06 sets beside what the runs of a study measure."""
    numbers: set[Number] = set()
    for run in load_study(study).runs:
        p = run.parameters
        if p.semantic:
            values = [*beside.semantic_beside(p).values(), *beside.majority_beside(p).values()]
            values += [value for entry in p.further if (value := beside.further_beside(p, entry)) is not None]
            numbers |= {("mIoU", value) for value in values if value not in CLAIMED_ELSEWHERE}
            numbers |= {pair for row in beside.discovered_beside(p).values() for pair in row.items()}
        if p.instances:
            numbers |= set(beside.instances_beside(p).items())
            numbers |= {pair for entry in p.further for pair in beside.further_instances_beside(p, entry).items()}
    return numbers


def claimed(study: str) -> set[Number]:
    rows = [row for one in load_study(study).published for row in published(**one)]
    return {("AR100" if row["metric"] == "AR" else row["metric"], row["value"]) for row in rows}


@pytest.mark.parametrize("study", COMUS)
def test_what_a_study_of_comus_claims_is_what_it_shows(study):
    assert claimed(study) == shown(study)


@pytest.mark.parametrize("study", INSTANCES)
def test_what_a_study_of_instances_claims_it_shows(study):
    lacking = {("AP50", 12.0)} if study == "instanceness_segmenters" else set()  # Table 2 has 12.1 for the same
    assert claimed(study) - shown(study) == lacking
    assert shown(study)


def test_each_row_of_the_tables_is_claimed_once():
    claims = [
        (name, row) for name in (*COMUS, *INSTANCES) for one in published_selectors()[name] for row in published(**one)
    ]
    after = [row for n in (2, 3, 4, 5, 7, 8) for row in published(paper="comus", table=f"Table {n}")]
    after = [row for row in after if row["method"].startswith("COMUS") and "self-learning=no; f" not in row["setting"]]
    ours = ("Ours (MAE)", *beside.EXTRACTORS.values())
    instances = [row for n in range(2, 8) for row in published(paper="instanceness", table=f"Table {n}")]
    for row in [*after, *(row for row in instances if row["method"] in ours)]:
        assert len([name for name, one in claims if one == row]) == 1, row
    wanted = [
        row for row in published(paper="comus") if row["table"].startswith("Text 4") and "Iteration" in row["method"]
    ]
    assert all(row in [one for _, one in claims] for row in wanted)


@pytest.mark.parametrize(
    "change",
    [{"limit": 9}, {"backbone": "dino_vits16"}, {"description": {"side": 64}}, {"clusters": 21}, {"neighbours": 20},
     {"min_area": 0}, {"later_limit": 5}, {"describer": "scenes_objects"},
     {"share": 1.0}, {"train_on": ["voc12:seg_val"]}, {"train_limit": 9}, {"later_on": []}, {"precision": "bf16"},
     {"saliency": {"source": "lost"}}, {"saliency": {"source": "network", "weights": "basnet_unsupervised"}},
     {"semantic": [{"settings": "comus_semantic_1"}]},
     {"semantic": [{"settings": "comus_semantic_1", "learning_rate": 1e-4}, {"settings": "comus_semantic_2"}]}],
)  # fmt: skip
def test_label_maps_of_other_conditions_have_no_published_number(change):
    run = load_study("comus_voc12_self_training").runs[0]
    given = {
        **run.given,
        "clusters": 20,
        **({"later_on": []} if len(change.get("semantic", [1, 2])) < 2 else {}),
        **change,
    }
    p = validate(SIX, given)
    assert not beside.semantic_beside(p) and not beside.majority_beside(p)
    assert beside.further_beside(p, "voc07:seg_test") is None


@pytest.mark.parametrize(
    "change",
    [{"limit": 9}, {"proposal_backbone": "scenes_odin"}, {"nms": 0.7}, {"most": 5}, {"smallest": 0.01},
     {"facet": "tokens"}, {"max_side": 500},
     {"instance_train_on": ["coco:train2017"]}, {"instance_train_limit": 10}, {"split": "train2017"},
     {"instances": {"settings": "instanceness_solo", "steps": 50000}}, {"saliency_backbone": "none"},
     {"instances": {"settings": "instanceness_solo", "rounds": 2}}, {"upsample": "bilinear"}],
)  # fmt: skip
def test_instances_of_other_conditions_have_no_published_number(change):
    run = load_study("instanceness_segmenters").runs[0]
    p = validate(SIX, {**run.given, **change})
    assert not beside.instances_beside(p) and not beside.further_instances_beside(p, "uvo:val")


def test_what_stopped_early_has_no_published_number():
    voc, coco = (load_study(name).runs[0].parameters for name in (COMUS[0], INSTANCES[0]))
    stopped, done = SimpleNamespace(finished=False), SimpleNamespace(finished=True)
    kept = beside.semantic_beside(voc, {"iteration1": [done], "iteration2": [done, stopped]})
    assert kept["iteration1"] == 45.2 and "iteration2" not in kept
    assert beside.further_beside(voc, "voc07:seg_test", [stopped]) is None
    assert not beside.instances_beside(coco, [done, stopped]) and beside.instances_beside(coco, [done])
    assert not beside.further_instances_beside(coco, "uvo:val", [stopped])


def test_tables_for_orientation_are_the_papers():
    assert [row["mIoU"] for row in beside.printed_rounds()] == [40.8, 41.8, 44.5, 45.2, 47.3]
    assert beside.printed_extractors()[0] == {
        "proposals of": "MAE", "AP50": 12.1, "AP75": 3.7, "AP": 5.2, "AR1": 3.8, "AR10": 10.9, "AR100": 18.3
    }  # fmt: skip
    assert [(row["segmenter"], row["AP50"]) for row in beside.printed_segmenters()] == [
        ("Mask R-CNN", 6.8),
        ("SOLOv2", 10.7),
    ]


def test_the_small_settings_have_nothing_printed_beside_them():
    p = validate(SIX, {})
    assert not beside.semantic_beside(p) and not beside.majority_beside(p) and not beside.instances_beside(p)
    assert not beside.discovered_beside(p)
