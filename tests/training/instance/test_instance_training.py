"""Instance segmenters on masks: that they learn, go on after a stop, teach themselves; what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masked import SIDE, labelled, masked_images, rectangles, small, small_mask_rcnn
from pydantic import ValidationError
from safetensors.torch import save_file

from foundling.discovery.export import decode_mask
from foundling.errors import DataMissing, ImageError, ParameterError, WeightsError
from foundling.evaluation.detection import to_results
from foundling.evaluation.precision import class_agnostic
from foundling.proposals import ImageProposals, ProposalSet, propose
from foundling.training.detection.bodies import named_body
from foundling.training.instance.images import MaskedImages, MaskedSet
from foundling.training.instance.labels import labels_of_proposals, labels_of_segmenter, without_small
from foundling.training.instance.predict import load_instances, segment_instances
from foundling.training.instance.settings import MaskRcnn, Solo
from foundling.training.instance.train import train_instances
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels, labels_of_targets
from foundling.types import Failure, Sample, Target

LEARNING = {"steps": 40, "freeze_at": 0, "learning_rate": 4e-3, "log_every": 10}
UNSURE = {"score_threshold": 0.001}  # of a network that has learned next to nothing


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Sample], PseudoLabels]:
    return masked_images(tmp_path_factory.mktemp("pictures"))


def with_truth(samples: list[Sample], labels: PseudoLabels) -> list[Sample]:
    """The samples with what they are labelled with as their truth."""
    none = np.zeros(1, dtype=bool)
    return [
        replace(s, target=Target(i.boxes, i.labels, none, none, none, list(i.masks or ())))
        for s, i in zip(samples, labels.images, strict=True)
    ]


def results_of(file: Path, samples: list[Sample]) -> list[dict[str, Any]]:
    found = segment_instances(load_instances(file), samples, workers=1)
    return to_results({sample.image_id: those for sample, those in found})


# Learning


def test_solo_learns_the_squares(pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path) -> None:
    """About 5 s. From true masks, which `labels_of_targets` gives, what it finds is what was to be found."""
    samples = with_truth(*pictures)
    outcome = train_instances(samples, labels_of_targets(samples), small(**LEARNING), tmp_path / "run", progress=False)
    history = outcome.history
    assert outcome.finished and history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert {"category", "dice", "projection", "average", "pairwise"} <= set(history[0])
    marks = class_agnostic(results_of(outcome.file, samples), samples, resamples=0)
    assert marks.values["AP50"].value is not None and marks.values["AP50"].value > 60


def test_mask_rcnn_learns_and_is_read_back(pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path) -> None:
    settings = small_mask_rcnn(steps=20, freeze_at=0)
    outcome = train_instances(*pictures, settings, tmp_path / "run", progress=False)
    assert outcome.history[-1]["loss_mask"] < outcome.history[0]["loss_mask"]
    found = dict(segment_instances(load_instances(outcome.file), pictures[0][:2], workers=1, batch_size=1))
    for sample, those in found.items():
        assert those.masks is not None and all(mask["size"] == [SIDE, SIDE] for mask in those.masks)
        assert (those.labels == 0).all() and (np.diff(those.scores) <= 0).all(), sample


@pytest.mark.parametrize("make", [small, small_mask_rcnn])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    make: Any, pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path
) -> None:
    settings = make(steps=3)
    whole = train_instances(*pictures, settings, tmp_path / "whole", progress=False, cpu=True)
    first = train_instances(*pictures, settings, tmp_path / "parts", minutes=0.0, progress=False, cpu=True)
    assert not first.finished and first.steps == 1
    last = train_instances(*pictures, settings, tmp_path / "parts", progress=False, cpu=True)
    assert last.finished and last.file.read_bytes() == whole.file.read_bytes()


def test_parts_of_a_batch_are_taken_one_after_the_other(
    pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path
) -> None:
    outcome = train_instances(*pictures, small(accumulate=2, steps=2), tmp_path / "run", progress=False)
    assert outcome.finished


# Rounds


def test_another_round_learns_from_what_the_first_finds(
    pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path
) -> None:
    samples, labels = pictures
    fewer = PseudoLabels(labels.images[:5])  # the second round sees all
    settings = small(rounds=2, round_score=0.0, round_most=3, **UNSURE)
    outcome = train_instances(samples, fewer, settings, tmp_path / "run", progress=False)
    once = train_instances(samples, fewer, small(**UNSURE), tmp_path / "once", progress=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert outcome.finished and {"run.safetensors", "run_round1.safetensors", "run.state"} <= names
    first, single = (load_instances(f).network.state_dict() for f in (tmp_path / "run_round1.safetensors", once.file))
    assert all(torch.equal(first[name], single[name]) for name in single)  # the first round is that of a single one
    [file] = tmp_path.glob("run_round1_labels_*.json")
    told = json.loads(file.read_bytes())
    assert len(told["images"]) == len(samples) and 0 < len(told["annotations"]) <= 3 * len(samples)
    again = train_instances(samples, fewer, settings, tmp_path / "run", progress=False)
    assert again.steps == outcome.steps and again.file.read_bytes() == outcome.file.read_bytes()


def test_a_round_that_finds_nothing_ends_the_run(pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"finds nothing with a score of 1.0 or more in 8 images.*round_score"):
        train_instances(*pictures, small(steps=2, rounds=2, round_score=1.0), tmp_path / "run", progress=False)


def test_minutes_bound_all_rounds(pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path) -> None:
    outcome = train_instances(*pictures, small(rounds=3), tmp_path / "run", minutes=0.0, progress=False)
    assert not outcome.finished and outcome.file.name == "run_round1.safetensors"


# Using it


@pytest.fixture(scope="module")
def trained(pictures: tuple[list[Sample], PseudoLabels], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    return train_instances(*pictures, small(steps=2, **UNSURE), out, progress=False).file


def test_batches_change_nothing_and_a_broken_image_fails_alone(
    trained: Path, pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    samples = [*pictures[0][:2], Sample("broken.png", broken, 99), *pictures[0][2:4]]
    segmenter, failures = load_instances(trained), list[Failure]()
    single = list(segment_instances(segmenter, samples, failures=failures, batch_size=1, workers=1))
    assert [f.name for f in failures] == ["broken.png"] and failures[0].index == 2
    together = list(segment_instances(segmenter, samples, failures=[], batch_size=3, workers=1))
    assert [s.name for s, _ in single] == [s.name for s, _ in together] == ["0.png", "1.png", "2.png", "3.png"]
    for (_, a), (_, b) in zip(single, together, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-4)
        assert (a.boxes == b.boxes).all() and a.masks == b.masks
    with pytest.raises(ImageError, match=r"broken\.png"):
        list(segment_instances(segmenter, samples, workers=1))
    with pytest.raises(ParameterError, match="batch_size=0: must be at least 1"):
        segment_instances(segmenter, samples, batch_size=0)


def test_labels_of_a_segmenter_are_its_surest(
    trained: Path, pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path
) -> None:
    segmenter = load_instances(trained)
    labels = labels_of_segmenter(segmenter, pictures[0][:3], score=0.0, most=2, workers=1)
    found = [those for _, those in segment_instances(segmenter, pictures[0][:3], workers=1)]
    for image, those in zip(labels.images, found, strict=True):
        assert len(image) == min(2, len(those))
        assert image.masks == (those.masks or ())[: len(image)] if len(image) else image.masks is None
    none = labels_of_segmenter(segmenter, pictures[0][:3], score=1.0, workers=1)
    assert len(none.without) == 3


def test_proposals_are_labels_with_tight_boxes() -> None:
    masks = rectangles([(1, 2, 5, 8), (0, 0, 3, 3), (4, 4, 9, 6)], (10, 12)).numpy()
    steps = propose(masks, np.array([2, 2, 2]), None, nms=None)
    samples = [Sample(f"{i}.png", Path(f"{i}.png"), 10 + i) for i in range(3)]
    image = ImageProposals("1.png", 1, 11, steps.masks, steps.scores, steps.levels, steps)
    proposals = ProposalSet([image], [Failure("2.png", 2, "broken")])
    sizes = np.array([[10, 12]] * 3)
    labels = labels_of_proposals(proposals, samples, sizes=sizes)
    assert [len(one) for one in labels.images] == [0, 3] and labels.failures[0].name == "2.png"
    assert labels.images[1].masks is not None
    for box, mask in zip(labels.images[1].boxes, labels.images[1].masks, strict=True):
        y, x = np.nonzero(decode_mask(mask))
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    first = labels_of_proposals(proposals, samples, most=1, sizes=sizes)
    assert first.images[1].masks == labels.images[1].masks[:1]


def test_small_masks_are_left_out_and_told() -> None:
    whole = labelled(0, "0.png", rectangles([(0, 0, 4, 4), (0, 0, 5, 4), (8, 8, 20, 20)], (20, 20)))  # 16, 20, 144
    lone = labelled(1, "1.png", rectangles([(0, 0, 3, 3)], (20, 20)))
    empty = ImageLabels("2.png", 2, (20, 20), np.zeros((0, 4)), np.zeros(0, np.int64))
    labels = PseudoLabels((whole, lone, empty))
    kept = without_small(labels, 0.05)
    assert [len(image) for image in kept.images] == [2, 0, 0] and kept.without == ("1.png", "2.png")
    assert whole.masks is not None and kept.images[0].masks == whole.masks[1:]
    assert kept.images[0].boxes.tolist() == [[0, 0, 5, 4], [8, 8, 20, 20]]
    assert kept.problems == ("2 × mask of less than 5 % of its image (left out): 0.png, 1.png",)
    assert without_small(labels, 0.0).identity == labels.identity != kept.identity
    assert not without_small(labels, 0.0).problems
    with pytest.raises(ParameterError, match=r"least = 1.5: give a share of the image from 0 to 1"):
        without_small(labels, 1.5)
    with pytest.raises(ParameterError, match=r"0\.png: its 3 objects have boxes but no masks"):
        without_small(PseudoLabels((replace(whole, masks=None),)), 0.05)


def test_files_of_other_kinds_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no such file; name one that train_instances wrote"):
        load_instances(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(trained.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="no safetensors file, or damaged"):
        load_instances(damaged)
    other, tensors = tmp_path / "other.safetensors", {"a": torch.zeros(2)}
    save_file(tensors, other, {"foundling": json.dumps({"method": "detector"})})
    with pytest.raises(WeightsError, match="no instance segmenter but a network of the kind 'detector'"):
        load_instances(other)
    save_file(tensors, other)
    with pytest.raises(WeightsError, match="holds no instance segmenter: name"):
        load_instances(other)
    save_file(tensors, other, {"foundling": json.dumps({"method": "instances"})})
    with pytest.raises(WeightsError, match=r"does not say how to make its network \(architecture"):
        load_instances(other)
    about = {"architecture": "resnet50", "arguments": {}, "classes": ["object"], "mean": [0.5] * 3, "std": [0.2] * 3}
    for settings in ({"objective": "odin"}, small().model_dump()):
        told = {"method": "instances", "settings": settings, **about}
        save_file(tensors, other, {"foundling": json.dumps(told)})
        with pytest.raises(WeightsError, match="does not hold what its header says"):
            load_instances(other)


# Labels that will not do


def one_image(drawn: torch.Tensor, **changes: Any) -> PseudoLabels:
    return PseudoLabels((replace(labelled(0, "0.png", drawn), **changes),))


def test_masks_that_will_not_do_are_refused(pictures: tuple[list[Sample], PseudoLabels]) -> None:
    square = rectangles([(2, 2, 9, 9)], (SIDE, SIDE))
    other = labelled(0, "0.png", rectangles([(2, 2, 9, 9)], (16, 20))).masks
    with pytest.raises(ParameterError, match=r"0\.png: a mask of 20×16 pixels in an image of 32×32"):
        MaskedImages(pictures[0], one_image(square, masks=other))
    with pytest.raises(ParameterError, match="its 1 objects have boxes but no masks"):
        MaskedImages(pictures[0], one_image(square, masks=None))
    with pytest.raises(ParameterError, match="a box of class 1, but there are classes 0 to 0"):
        MaskedImages(pictures[0], one_image(square, labels=np.ones(1, np.int64)))
    with pytest.raises(ParameterError, match="no mask of any image has a pixel"):
        MaskedImages(pictures[0], one_image(square & False))
    empty = ImageLabels("0.png", 0, (SIDE, SIDE), np.zeros((0, 4)), np.zeros(0, np.int64))
    with pytest.raises(ParameterError, match="none of the 1 images has a box"):
        MaskedImages(pictures[0], PseudoLabels((empty,)))


def test_images_without_a_mask_and_masks_without_a_pixel_are_left_out(
    pictures: tuple[list[Sample], PseudoLabels],
) -> None:
    samples, labels = pictures
    empty = ImageLabels("1.png", 1, (SIDE, SIDE), np.zeros((0, 4)), np.zeros(0, np.int64))
    both = labelled(2, "2.png", rectangles([(0, 0, 0, 0), (3, 4, 9, 9)], (SIDE, SIDE)))
    none = labelled(3, "3.png", rectangles([(0, 0, 0, 0)], (SIDE, SIDE)))
    images = MaskedImages(samples, PseudoLabels((labels.images[0], empty, both, none)))
    assert [sample.name for sample, *_ in images.pairs] == ["0.png", "2.png"]
    assert torch.equal(images[1].masks, rectangles([(3, 4, 9, 9)], (SIDE, SIDE))) and len(images[1].labels) == 1
    assert any("mask without a pixel (dropped)" in line and "2" in line for line in images.problems)


def test_another_image_stands_in_for_one_that_cannot_be_read(
    pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path
) -> None:
    samples, labels = pictures
    gone = [replace(samples[0], path=tmp_path / "gone.png"), *samples[1:]]
    images = MaskedSet(MaskedImages(gone, labels))
    with pytest.warns(UserWarning, match="gone.png.*the next image that can be read stands in for it"):
        [batch] = images.batches([[0, 3]])
    assert torch.equal(batch.masks[0], MaskedImages(samples, labels)[1].masks)
    nothing = [replace(sample, path=tmp_path / "gone.png") for sample in samples]
    with pytest.raises(DataMissing, match="none of the 8 training images can be read"):
        MaskedImages(nothing, labels)[0]


def test_too_few_images_and_too_many_classes_are_refused(
    pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path
) -> None:
    samples, labels = pictures
    with pytest.raises(ParameterError, match=r"batch = 9 is more than there are images with a mask \(8\)"):
        train_instances(samples, labels, small(batch=9), tmp_path / "run", progress=False)
    several = replace(labels, classes=("cat", "dog"))
    with pytest.raises(ParameterError, match="the labels have 2 classes, the network 1: make class-agnostic labels"):
        train_instances(samples, several, small(), tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_run_does_not_go_on_with_other_masks(pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path) -> None:
    samples, labels = pictures
    train_instances(samples, labels, small(steps=2), tmp_path / "run", progress=False)
    with pytest.raises(ParameterError, match="belongs to a run with other settings"):
        train_instances(samples, PseudoLabels(labels.images[:6]), small(steps=2), tmp_path / "run", progress=False)


def test_a_run_does_not_go_on_with_another_head(pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path) -> None:
    train_instances(*pictures, small(steps=2), tmp_path / "run", progress=False)
    with pytest.raises(ParameterError, match="belongs to a run with other settings"):
        train_instances(*pictures, small_mask_rcnn(steps=2), tmp_path / "run", progress=False)


def test_classes_without_a_mask_are_no_error(pictures: tuple[list[Sample], PseudoLabels], tmp_path: Path) -> None:
    """Labels that name two classes and have masks of the second alone."""
    samples, labels = pictures
    second = tuple(replace(image, labels=np.ones(len(image), np.int64)) for image in labels.images)
    alone = PseudoLabels(second, ("cat", "dog"))
    assert alone.empty == ("cat",)
    settings = small_mask_rcnn(steps=2, classes=2)
    outcome = train_instances(samples, alone, settings, tmp_path / "run", progress=False)
    assert outcome.finished and load_instances(outcome.file).classes == ("cat", "dog")


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": [6]}, "the maps of vit are 2, give each a grid"),
        ({"network": "r50_fpn"}, "the maps of r50_fpn are 5"),
        ({"strides": [4, 16]}, "each must be twice the one before"),
        ({"scales": [[1.0, 24.0], [24.0, 12.0]]}, r"scales: \[24.0, 12.0\] must rise"),
        ({"max_size": 16}, "max_size = 16 must be at least the largest shorter side, 32"),
        ({"dice_weight": 0.0, "projection_weight": 0.0}, "nothing would say where a mask is"),
        ({"width": 10}, "multiple of 8"),
        ({"rounds": 0}, "greater than or equal to 1"),
        ({"warmup": 4}, "warmup = 4 must be less than steps = 4"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**changes)


def test_a_backbone_is_that_which_the_network_stands_on() -> None:
    assert named_body("r101_fpn", "random").architecture == "resnet101"
    assert named_body("r50_fpn", "random").architecture == "resnet50"
    with pytest.raises(WeightsError, match="scenes_odin is not what network = r101_fpn stands on, a ResNet-101"):
        named_body("r101_fpn", "scenes_odin")


def test_mask_rcnn_takes_no_c4() -> None:
    with pytest.raises(ValidationError, match="r50_fpn"):
        small_mask_rcnn(network="r50_c4")
    assert Solo().rounds == MaskRcnn().rounds == 1 and MaskRcnn().score_threshold == 0
