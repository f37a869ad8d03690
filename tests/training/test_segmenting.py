"""What notebook 06 is made of: found objects, label maps, names of runs, proposals, and finding failures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foundling.backbones import load_backbone
from foundling.datasets import open_dataset
from foundling.datasets.coco import coco20k_ids
from foundling.datasets.semantic import semantic_truth
from foundling.discovery.export import encode_mask
from foundling.evaluation.segmentation import confusion, segmentation_scores
from foundling.parameters import validate
from foundling.training import segmenting
from foundling.training.semantic.settings import Semantic
from foundling.types import Sample, Target
from small_datasets import VocObject, coco_annotation, make_coco, make_voc

SMALL = {"size": 96, "min_area": 50, "batch_size": 4, "saliency_backbone": ""}
TINY = {
    "network": "vit", "weights": "random", "channels": 8, "detail": 4, "side": 32, "test_side": 96, "steps": 2,
    "warmup": 1, "batch": 2, "workers": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def data_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path_factory.getbasetemp() / "scenes"))


@pytest.fixture(scope="module")
def network():
    return load_backbone("scenes_odin", device="cpu")


def given(**values):
    return validate("06_segmenter_training", {**SMALL, **values})


@pytest.fixture
def dataset():
    return open_dataset("scenes", "single_train", size=96, count=8)


@pytest.fixture
def found(dataset, network, tmp_path):
    describer = load_backbone("scenes_objects", device="cpu")
    return segmenting.found_objects(given(), (network, describer), dataset.samples, tmp_path / "saliency", [])


def test_objects_become_label_maps_and_tables(dataset, found, tmp_path):
    assert len(found.objects) == len(found.descriptors) > 4 and np.isfinite(found.descriptors).all()
    groups = segmenting.group(found, 3, 0, 4, 0.7)
    assert set(groups.clusters.labels) == {0, 1, 2} and (groups.sure == -1).any()
    sure = groups.sure >= 0
    assert (groups.sure[sure] == groups.clusters.labels[sure]).all()
    maps = segmenting.write_maps(tmp_path / "maps", dataset.samples, found.objects, groups.sure, 3)
    taught = {int(found.objects.images[row]) for row in np.flatnonzero(sure)}
    assert {i for i, file in enumerate(maps.files) if file is not None} == taught
    for i in taught:
        np.testing.assert_array_equal(maps.read(i), segmenting.map_of(found, groups.clusters.labels, i))
    lost = []
    tables = segmenting.own_tables(dataset, found, {"all": groups.clusters.labels}, 3, lost)["all"]
    assert not lost and tables.shape == (8, 4, 13)
    drawn = [segmenting.map_of(found, groups.clusters.labels, i) for i in range(8)]
    for i, labels in enumerate(drawn):
        truth = semantic_truth(dataset[i], dataset)
        np.testing.assert_array_equal(tables[i], confusion(labels.astype(int), truth.astype(int), 4, 13))


def test_images_without_an_object_teach_nothing_and_those_that_fail_have_no_map(dataset, found, tmp_path):
    nothing = found._replace(objects=found.objects[np.zeros(0, dtype=np.int64)], descriptors=found.descriptors[:0])
    labels = np.zeros(0, dtype=np.int64)
    maps = segmenting.write_maps(tmp_path / "none", dataset.samples, nothing.objects, labels, 3)
    assert maps.files == (None,) * 8
    assert segmenting.map_of(nothing, labels, 0).max() == 0
    sizes = found.masks.sizes.copy()
    sizes[2] = 0  # what could not be read
    assert segmenting.map_of(nothing._replace(masks=replace(found.masks, sizes=sizes)), labels, 2) is None


@pytest.mark.parametrize(
    ("changes", "images"),
    [({}, 5), ({"later_limit": 0, "train_on": ["multi_train"]}, 2000), ({"later_on": ["multi_val", "single_val"]}, 10),
     ({"semantic": [{}]}, 3), ({"train_on": []}, 8)],
)  # fmt: skip
def test_later_rounds_may_see_more_images(dataset, changes, images):
    told = given(**{"semantic": [{}, {}], "train_limit": 3, "later_limit": 5, **changes})
    first = dataset if not told.train_on else dataset.subset(limit=3)
    assert len(segmenting.later_images(told, dataset, first)) == images


def test_another_encoder_under_the_same_name_is_another_run(dataset, found, tmp_path, monkeypatch):
    passed = []
    monkeypatch.setattr(segmenting, "self_train", lambda *args, **options: passed.append(args[3]) or [])
    maps = segmenting.write_maps(
        tmp_path / "maps", dataset.samples, found.objects, np.arange(len(found.objects)) % 2, 2
    )
    file = tmp_path / "encoder.safetensors"
    for content in (b"one", b"one", b"another"):
        file.write_bytes(content)
        settings = [Semantic(**{**TINY, "weights": str(file)})]
        segmenting.train_rounds([dataset.samples], maps, settings, tmp_path, "a", 0)
    assert passed[0] == passed[1] != passed[2]


def test_rounds_have_files_of_their_own_and_are_found_again(dataset, found, tmp_path):
    labels = np.arange(len(found.objects)) % 2
    maps = segmenting.write_maps(tmp_path / "maps", dataset.samples, found.objects, labels, 2)
    images, settings = [dataset.samples], [Semantic(**TINY)]

    def train(masks=maps, told=settings, seed=0):
        where = tmp_path / "runs"
        return segmenting.train_rounds(images, masks, told, where, "semantic", seed, cpu=True)

    first = train()
    assert [one.outcome.finished for one in first] == [True]
    assert [one.outcome.file for one in train()] == [one.outcome.file for one in first]
    files = {first[0].outcome.file, train(seed=1)[0].outcome.file}
    files.add(train(told=[Semantic(**{**TINY, "learning_rate": 3e-3})])[0].outcome.file)
    other = segmenting.write_maps(tmp_path / "others", dataset.samples, found.objects, 1 - labels, 2)
    files.add(train(masks=other)[0].outcome.file)
    assert len(files) == 4
    lost = []
    looked = segmenting.look(first[0].outcome.file, dataset, True, tmp_path / "looked", lost, cpu=True)
    assert looked.tables.shape == (8, 3, 13) and looked.tables.sum() == 8 * 96 * 96 and not lost
    assert segmenting.look(first[0].outcome.file, dataset, False, tmp_path / "looked", lost, cpu=True).tables is None


def test_what_is_stopped_is_told(dataset, found, tmp_path, capsys):
    labels = np.arange(len(found.objects)) % 2
    maps = segmenting.write_maps(tmp_path / "maps", dataset.samples, found.objects, labels, 2)
    settings = [Semantic(**{**TINY, "steps": 30}), Semantic(**TINY)]
    rounds = segmenting.train_rounds(
        [dataset.samples] * 2, maps, settings, tmp_path / "runs", "semantic", 3, minutes=1e-9, cpu=True
    )
    assert len(rounds) == 1 and not rounds[0].outcome.finished
    assert "semantic_seed3, round 1: stopped after" in capsys.readouterr().out


def test_ious_of_images_by_hand():
    tables = np.zeros((3, 3, 2), dtype=np.int64)
    tables[0] = [[6, 1], [0, 3], [0, 0]]  # background 6 of 7, the class 3 of 4
    tables[1] = [[4, 0], [0, 0], [2, 0]]  # cluster 2 has no class: its pixels are wrong
    found = segmenting.image_ious(tables, np.array([0, 1, -1]))
    assert found[0] == pytest.approx((6 / 7 + 3 / 4) / 2) and found[1] == pytest.approx(4 / 6)
    assert np.isnan(found[2])  # nothing was looked at
    merged = segmenting.image_ious(tables[:1], np.array([0, 1, 1]))
    assert merged[0] == pytest.approx(found[0])
    whole = segmentation_scores(tables[:1], resamples=0)
    assert 100 * found[0] == pytest.approx(whole.miou.value)


def test_recalls_of_images_by_hand():
    def mask(*rows):
        inside = np.zeros((4, 4), dtype=bool)
        inside[list(rows)] = True
        return encode_mask(inside)

    none = np.zeros(2, dtype=bool)
    target = Target(np.zeros((2, 4)), np.zeros(2, np.int64), none, none, none, [mask(0), mask(1, 2)])
    crowd = replace(target, crowd=np.ones(2, dtype=bool))
    samples = [Sample(f"{i}.png", Path(f"{i}.png"), i, one) for i, one in enumerate([target, target, crowd, None])]
    found = segmenting.object_recalls([[mask(1), mask(3)], [], [], []], samples)
    np.testing.assert_array_equal(found, [0.5, 0.0, np.nan, np.nan])  # half of the second object is 0.5
    assert segmenting.object_recalls([[mask(1)]], samples[:1], threshold=0.6)[0] == 0
    unmasked = replace(samples[0], target=replace(target, masks=None))
    assert [one.target for one in segmenting.judged([unmasked, samples[1]])] == [None, target]


def test_proposals_are_those_of_the_parameters(network, tmp_path):
    scenes = open_dataset("scenes", "multi_train", size=96, count=3)
    networks = {"scenes_odin": network}
    assert segmenting.proposal_networks(given()) == ["scenes_odin"]
    found, whole = segmenting.mask_proposals(given(), networks, scenes.samples, tmp_path / "a")
    assert len(found.records) == 3 and {int(k) for one in whole.images for k in one.levels} <= {2, 3, 4, 5}
    _, fewer = segmenting.mask_proposals(given(proposal_ks=[2], nms=0.5), networks, scenes.samples, tmp_path / "b")
    assert sum(len(one.masks) for one in fewer.images) < sum(len(one.masks) for one in whole.images)
    unfiltered = given(saliency_backbone="none", upsample="bilinear")
    assert segmenting.proposal_networks(unfiltered) == ["scenes_odin"]
    found, many = segmenting.mask_proposals(unfiltered, networks, scenes.samples, tmp_path / "c")
    assert set(found.boxes) == {"spectral"}
    assert sum(len(one.masks) for one in many.images) > sum(len(one.masks) for one in whole.images)


def test_further_datasets_are_opened_as_they_are_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    make_voc(tmp_path / "voc", {"000001": [VocObject("cat", (1, 1, 20, 20))]})
    boxes = segmenting.further_dataset(given(), "voc07", "trainval", False, True, [])
    assert boxes[0].target.masks is not None
    assert segmenting.further_dataset(given(), "voc07", "trainval", False, False, [])[0].target.masks is None
    ids = coco20k_ids()[:1]
    home = tmp_path / "coco"
    names = {i: f"COCO_train2014_{i:012}.jpg" for i in ids}
    make_coco(
        home / "train2014",
        names,
        [coco_annotation(ids[0], (0, 0, 9, 9))],
        home / "annotations/instances_train2014.json",
    )
    assert segmenting.further_dataset(given(), "coco20k", "train", False, True, [])[0].target.masks is not None


def test_instances_are_measured_where_the_parameters_say(dataset):
    assert segmenting.instance_images(given(instance_part=""), dataset) is dataset
    other = segmenting.instance_images(given(instance_part="multi_train", instance_limit=2), dataset)
    assert (other.split, len(other)) == ("multi_train", 2)
