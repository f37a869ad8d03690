"""The printed recall beside ours: read off Table 1, and absent for other images, networks and settings."""

import pytest

from foundling.report.beside_instances import published_recall

GROUPS = ("1", "2", "3", "4", "5", "6+")


@pytest.mark.parametrize(
    ("dataset", "split", "backbone", "printed"),
    [
        ("coco", "val2017", "dino_vitb16", (21.0, 5.9, 3.3, 1.9, 1.9, 0.6)),
        ("coco", "val2017", "mae_vitb16", (16.8, 8.6, 6.3, 3.2, 2.9, 1.1)),
        ("voc12", "seg_val", "mae_vitb16", (31.7, 18.1, 9.3, 4.5, 4.1, 2.2)),
        ("voc12", "seg_val", "selfpatch_vits16", (32.8, 13.9, 7.1, 4.3, 3.4, 1.5)),
        ("coco", "val2017", "densecl_resnet101", (13.3, 3.2, 1.8, 0.9, 0.9, 0.3)),
        ("coco", "val2017", "msn_vitb16", (19.8, 5.7, 3.4, 1.9, 1.8, 0.6)),
        ("voc12", "seg_val", "mocov3_vitb16", (37.3, 9.1, 4.3, 1.6, 1.6, 0.7)),
    ],
)
def test_a_row_of_table_1(dataset, split, backbone, printed):
    assert published_recall(dataset, split, backbone) == dict(zip(GROUPS, printed, strict=True))


@pytest.mark.parametrize(
    ("dataset", "split", "backbone", "settings"),
    [
        ("scenes", "multi_val", "dino_vitb16", {}),
        ("voc12", "seg_trainval", "dino_vitb16", {}),
        ("voc12", "trainval", "dino_vitb16", {}),
        ("coco", "val2017", "dino_vits16", {}),
        ("coco", "val2017", "dino_vitb16", {"ks": [2, 3, 4, 5]}),
        ("coco", "val2017", "dino_vitb16", {"facet": "tokens"}),
    ],
)
def test_nothing_is_printed_for_other_settings(dataset, split, backbone, settings):
    assert published_recall(dataset, split, backbone, **settings) == {}
