"""The printed number beside ours: read off the papers' tables, and absent where no table has the setting."""

import pytest

from foundling.report.beside import published_corloc, published_overlap


@pytest.mark.parametrize(
    ("dataset", "split", "backbone", "settings", "printed"),
    [
        ("voc07", "trainval", "dino_vits16", {"method": "lost"}, 61.9),  # Table 2
        ("voc12", "trainval", "dino_vits16", {"method": "lost", "k": 100}, 64.0),
        ("coco20k", "train", "supervised_vgg16", {"method": "lost"}, 30.2),
        ("voc12", "trainval", "dino_resnet50", {"method": "lost"}, 42.7),
        ("voc07", "trainval_noh", "dino_vits16", {"method": "lost"}, 54.9),  # Table 8
        ("voc07", "trainval", "dino_vits16", {"method": "lost", "k": 1}, 38.3),  # Table 5
        ("voc07", "trainval", "dino_vits16", {"method": "lost", "facet": "values"}, 50.5),
        ("voc07", "trainval", "dino_vits16", {"method": "lost", "seed_similarity": "qk", "expansion": "values"}, 29.9),
        ("voc07", "trainval", "dino_vits16", {"method": "lost", "seed_similarity": "qk"}, 30.7),
        ("voc07", "trainval", "dino_vits16", {"method": "lost", "seed_similarity": "qk", "expansion": "qk"}, 30.8),
        ("voc07", "trainval", "dino_vits16", {"method": "dino_seg", "rule": "reference"}, 45.8),  # Table 6
        ("voc12", "trainval", "dino_vits16", {"method": "dino_seg", "head": "haiou", "rule": "reference"}, 47.6),
        ("coco20k", "train", "dino_vits16", {"method": "dino_seg", "head": "bcc", "rule": "reference"}, 28.8),
        ("voc12", "trainval", "dino_vits16", {"method": "tokencut"}, 72.1),
        ("voc07", "trainval", "scenes_odin", {"method": "selective_search"}, 18.8),  # needs no network
        ("voc07", "trainval", "deit_vits16", {"method": "lost"}, 16.9),  # text B.5
        ("voc12", "trainval", "deit_vits16", {"method": "lost"}, None),
        ("voc07", "trainval", "dino_vits16", {"method": "dino_seg"}, None),  # the sound rule is not the published one
        ("voc07", "trainval", "dino_vits16", {"method": "selective_search", "mode": "quality"}, None),
        ("voc07", "trainval", "scenes_odin", {"method": "lost"}, None),
        ("voc07", "trainval", "dino_vits16", {"method": "lost", "k": 40}, None),
        ("voc12", "trainval", "dino_vits16", {"method": "lost", "k": 1}, None),
        ("voc07", "trainval", "dino_vits16", {"method": "lost", "k": 1, "centre": True}, None),
        ("voc12", "trainval", "dino_vits16", {"method": "tokencut", "centre": True}, None),
        ("voc07", "trainval", "dino_vits16", {"method": "tokencut", "tau": 0.3}, None),
        ("voc07", "trainval", "dino_vitb16", {"method": "dino_seg"}, None),
        ("voc07", "trainval", "dino_vits16", {"method": "centre_box"}, None),
        ("scenes", "single_val", "scenes_odin", {"method": "lost"}, None),
    ],
)
def test_the_printed_number_of_the_same_setting(dataset, split, backbone, settings, printed):
    assert published_corloc(dataset, split, backbone, settings) == printed


@pytest.mark.parametrize(
    ("backbone", "grid", "settings", "printed"),
    [
        ("dino_resnet50", (32, 32), {}, (38.3, 46.5, 30.8)),  # Table 4
        ("dino_vitb8", (56, 56), {}, (42.7, 51.7, 39.7)),
        ("supervised_resnet50", (32, 32), {"method": "Random init"}, (28.1, 33.6, 17.0)),
        ("supervised_resnet50", (256, 256), {"method": "Odin†"}, (43.0, 53.0, 42.3)),
        ("supervised_resnet50", (32, 32), {"filtered": True}, (39.5, 42.4, 25.6)),  # Table A.1
        ("dino_vitb8", (56, 56), {"filtered": True, "method": "Odin"}, (49.7, 54.7, 48.2)),
    ],
)
def test_the_printed_overlap_of_the_same_setting(backbone, grid, settings, printed):
    assert published_overlap("coco", "val2017", backbone, grid, **settings) == dict(
        zip(("abo_i", "abo_c", "or"), printed, strict=True)
    )


@pytest.mark.parametrize(
    ("dataset", "split", "backbone", "grid", "settings"),
    [
        ("coco", "val2017", "dino_resnet50", (64, 64), {}),  # stride 16
        ("coco", "val2017", "dino_vits16", (28, 28), {}),
        ("coco", "train2017", "dino_vitb8", (56, 56), {}),
        ("scenes", "multi_val", "scenes_odin", (28, 28), {}),
        ("coco", "val2017", "dino_resnet50", (32, 32), {"method": "DetConB", "filtered": True}),  # not in Table A.1
    ],
)
def test_no_printed_overlap_for_other_settings(dataset, split, backbone, grid, settings):
    assert published_overlap(dataset, split, backbone, grid, **settings) is None
