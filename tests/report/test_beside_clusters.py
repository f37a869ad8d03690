"""The printed numbers of COMUS and LOST beside ours: read off their tables, and absent for other conditions."""

import pytest

from foundling.parameters import validate
from foundling.report.beside_clusters import (
    is_comus,
    is_comus_on_coco,
    is_retrieval,
    printed_corret,
    printed_discovered,
    printed_imagenet,
    printed_miou,
    printed_saliency,
)
from foundling.report.published import published
from foundling.studies import load_study, published_selectors

FOUR = "04_clustering"


def test_what_is_printed():
    assert printed_miou() == {"spectral": 41.8, "kmeans": 40.8}
    assert printed_saliency() == {"network": 51.0, "lost": 34.8, "dino_seg": 24.5, "supervised": 60.5}
    assert printed_discovered() == {
        "all": {"mIoU": 18.2},
        "iou20": {"n_categories": 33, "mIoU": 36.6},
        "iou0": {"n_categories": 73, "mIoU": 20.2},
    }
    assert printed_corret() == {"rOSD, VGG16": 64, "LOD, VGG16": 70, "LOST, VGG16": 68, "LOST, DINO": 72}


def test_the_studies_repeat_the_papers_and_nothing_else_does():
    names = ("comus_voc12", "comus_coco", "lost_retrieval_voc07")
    studies = [load_study(name).run(FOUR).parameters for name in names] + [validate(FOUR, {})]
    for i, same in enumerate((is_comus, is_comus_on_coco, is_retrieval)):
        assert [same(given) for given in studies] == [i == j for j in range(4)]


@pytest.mark.parametrize(
    "change",
    [{"limit": 9}, {"backbone": "dino_vits16"}, {"descriptor": "mean"}, {"colour": False}, {"clusters": 30},
     {"source": "lost"}, {"source": "supervised"}, {"neighbours": 20}, {"split": "seg_train"}, {"min_area": 0},
     {"precision": "bf16"}, {"least_labelled": 1000}],
)  # fmt: skip
def test_other_conditions_have_no_published_number(change):
    comus = load_study("comus_voc12").run(FOUR)
    assert not is_comus(validate(FOUR, {**comus.given, **change}))


def test_accuracy_is_printed_for_three_numbers_of_classes():
    points = [run.parameters for run in load_study("comus_imagenet").runs]
    assert [(given.classes, printed_imagenet(given)) for given in points] == [(50, 91.3), (100, 88.0), (200, 83.1)]
    given = load_study("comus_imagenet").runs[0].given
    for change in ({"classes": 60}, {"clusters": 60}, {"region": "mask"}, {"limit": 9}, {"colour": False}):
        assert printed_imagenet(validate(FOUR, {**given, **change})) is None
    assert printed_imagenet(validate(FOUR, {})) is None


def test_the_studies_declare_what_their_notebook_shows():
    claims = {
        name: sorted(row["value"] for selector in published_selectors()[name] for row in published(**selector))
        for name in ("comus_voc12", "comus_coco", "comus_imagenet", "lost_retrieval_voc07")
    }
    assert claims["lost_retrieval_voc07"] == [72]
    assert claims["comus_voc12"] == sorted([41.8, *printed_miou().values(), *printed_saliency().values()])
    assert claims["comus_imagenet"] == [83.1, 88.0, 91.3]
    assert claims["comus_coco"] == sorted(value for row in printed_discovered().values() for value in row.values())
