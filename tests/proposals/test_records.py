"""Proposals of a set of images from records: levels, saliency of another network, failures, files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from foundling.discovery import Found
from foundling.discovery.export import encode_mask, encode_memberships
from foundling.evaluation import class_agnostic, instance_recall
from foundling.proposals import coco_proposals, proposals_from_records, write_proposals
from foundling.types import Failure, ParameterError, Sample, Target

SIZE = (24, 32)  # 3×4 patches of 8 pixels
TOP = np.array([[True] * 4, [False] * 4, [False] * 4])
CORNERS = np.array([[True, False, False, True], [False] * 4, [False] * 4])


def found_of(methods, names=("a", "b"), patch_size=8, failures=()) -> Found:
    """A run over images of 24×32 pixels; ``methods`` has each image's results by label (``None``: it failed)."""
    grid = [-(-side // patch_size) for side in SIZE]
    records = [
        {"name": name, "index": i, "size": [*SIZE], "seen": [*SIZE], "grid": grid, "patch_size": patch_size,
         "methods": results}
        for i, (name, results) in enumerate(zip(names, methods, strict=True)) if results is not None
    ]  # fmt: skip
    labels = {label for record in records for label in record["methods"]}
    boxes = {label: np.zeros((len(names), 4)) for label in labels}
    return Found(tuple(names), np.tile(SIZE, (len(names), 1)), boxes, records, list(failures), {})


def parts(*partitions, soft=False) -> dict:
    """The result of a method that found these partitions (lists of masks)."""
    masks = [mask for partition in partitions for mask in partition]
    result = {"masks": [encode_mask(mask) for mask in masks], "levels": [len(p) for p in partitions for _ in p]}
    return result | ({"memberships": encode_memberships(np.array(masks, dtype=float))} if soft else {})


def samples_of(*names) -> list[Sample]:
    return [Sample(name, Path(name), 10 + i) for i, name in enumerate(names)]


def pixels(mask) -> np.ndarray:
    return np.asarray(mask).repeat(8, axis=0).repeat(8, axis=1)


def decoded(masks) -> list:
    return [coco_mask.decode(mask).tolist() for mask in masks]


@pytest.fixture
def found() -> Found:
    partitions = parts([TOP, ~TOP], [CORNERS, TOP & ~CORNERS, ~TOP])
    return found_of([{"spectral": partitions, "saliency": parts([TOP])}, {"spectral": parts([TOP, ~TOP])} | {
        "saliency": parts([~TOP & (np.arange(4) < 1)])}])  # fmt: skip


def test_components_of_all_levels_filtered_in_pixels(found):
    first, second = proposals_from_records(found, samples_of("a", "b"), "spectral", (found, "saliency")).images
    corner = np.arange(4) == 0
    expected = [pixels(TOP), pixels(TOP & ~CORNERS), pixels(CORNERS & corner), pixels(CORNERS & ~corner)]
    assert decoded(first.masks) == [mask.astype(int).tolist() for mask in expected]
    assert first.levels.tolist() == [2, 3, 3, 3]
    assert first.scores.tolist() == [1, 1, 1, 1]
    assert (first.name, first.index, first.image_id) == ("a", 0, 10)
    assert second.masks == []  # the salient column is a quarter of its part
    assert first.steps.dropped.count("saliency") == 2


def test_an_image_without_proposals_is_named_and_has_no_entry(found):
    proposals = proposals_from_records(found, samples_of("a", "b"), "spectral", (found, "saliency"))
    assert proposals.without == ["b"]
    assert proposals.failures == []
    assert {entry["image_id"] for entry in coco_proposals(proposals)} == {10}
    assert [len(masks) for masks in proposals.by_index(3)] == [4, 0, 0]


def test_levels_are_chosen(found):
    proposals = proposals_from_records(found, samples_of("a", "b"), "spectral", ks=[3])
    assert proposals.images[0].levels.tolist() == [3] * 4
    assert proposals.images[1].masks == []  # it has no partition in three
    with pytest.raises(ParameterError, match=r"spectral has no masks of k = 7: choose among \[2, 3\]"):
        proposals_from_records(found, samples_of("a", "b"), "spectral", ks=[3, 7])


def test_saliency_of_a_network_with_other_patches(found):
    fine = np.zeros((6, 8), dtype=bool)
    fine[:2, :4] = True  # the first half of the top row, in patches of 4 pixels
    other = found_of([{"dino": parts([fine])}, {"dino": parts([~fine])}], patch_size=4)
    first, second = proposals_from_records(found, samples_of("a", "b"), "spectral", (other, "dino")).images
    by_mask = {str(mask): score for mask, score in zip(decoded(first.masks), first.scores.tolist(), strict=True)}
    assert by_mask[str(pixels(TOP).astype(int).tolist())] == 0.5
    assert sorted(by_mask.values()) == [0.5, 0.5, 1.0]  # the whole row, its middle, the left corner
    assert second.scores.tolist() == [1.0, 0.5]


def test_failures_of_either_run_are_reported_and_not_fatal():
    bad, worse = Failure("b", 1, "b: damaged"), Failure("c", 2, "c: too small")
    names = ("a", "b", "c", "d")
    whole = {"spectral": parts([TOP, ~TOP])}
    run = found_of([whole, None, whole, whole], names, failures=[bad])
    salient = [{"saliency": parts([TOP])}, None, None, {"saliency": {"masks": [], "levels": []}}]
    other = found_of(salient, names, failures=[bad, worse])
    proposals = proposals_from_records(run, samples_of(*names), "spectral", (other, "saliency"))
    assert [image.name for image in proposals.images] == ["a"]
    assert proposals.failures[:2] == [bad, worse]
    assert proposals.failures[2] == Failure("d", 3, "d: saliency found no salient region")


def test_features_that_are_not_finite_make_no_proposals():
    """Their masks are flagged, and say nothing about the image: neither as proposals nor as its salient region."""
    whole, odd = parts([TOP, ~TOP]), parts([TOP, ~TOP]) | {"flags": ["not_finite"]}
    run = found_of([{"spectral": odd, "saliency": whole}, {"spectral": whole, "saliency": odd}])
    proposals = proposals_from_records(run, samples_of("a", "b"), "spectral", (run, "saliency"))
    assert proposals.images == []
    assert [failure.error for failure in proposals.failures] == [
        "a: the features for spectral are not finite", "b: the features for saliency are not finite",
    ]  # fmt: skip
    assert [image.name for image in proposals_from_records(run, samples_of("a", "b"), "spectral").images] == ["b"]


def test_bilinear_needs_memberships(found):
    soft = found_of([{"spectral": parts([TOP, ~TOP], soft=True)}], ["a"])
    image = proposals_from_records(soft, samples_of("a"), "spectral", upsample="bilinear").images[0]
    assert decoded(image.masks[:1]) == [pixels(~TOP).astype(int).tolist()]  # hard memberships: half way between centres
    with pytest.raises(ParameterError, match="no memberships, which bilinear upsampling needs: run it with soft=True"):
        proposals_from_records(found, samples_of("a", "b"), "spectral", upsample="bilinear")


def test_edges_refine_what_is_kept(tmp_path):
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    image[:6] = 255  # the object ends two pixels above its patches
    Image.fromarray(image).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.png", 1)
    run = found_of([{"spectral": parts([TOP, ~TOP])}], ["a"])
    plain, refined = (
        proposals_from_records(run, [sample], "spectral", refine=how).images[0] for how in ("none", "edges")
    )
    assert coco_mask.area(plain.masks[1]) == 8 * 32
    assert coco_mask.area(refined.masks[1]) == 6 * 32
    assert refined.steps.masks == plain.masks
    assert refined.scores.tolist() == plain.scores.tolist()


def test_files_are_coco_results_and_equal_bytes(found, tmp_path):
    samples = samples_of("a", "b")
    proposals = proposals_from_records(found, samples, "spectral", (found, "saliency"))
    path = write_proposals(tmp_path / "new" / "proposals.json", proposals)
    entries = json.loads(path.read_text())
    assert entries == coco_proposals(proposals)
    assert entries[0]["bbox"] == [0, 0, 32, 8]
    assert entries[0].keys() == {"image_id", "category_id", "bbox", "score", "level", "segmentation"}
    again = proposals_from_records(found, samples, "spectral", (found, "saliency"))
    assert write_proposals(tmp_path / "again.json", again).read_bytes() == path.read_bytes()


def test_proposals_are_what_the_metrics_read(found):
    samples = samples_of("a", "b")
    proposals = proposals_from_records(found, samples, "spectral", (found, "saliency"))
    none = np.zeros(1, dtype=bool)
    target = Target(np.array([[0.0, 0, 32, 8]]), np.array([0]), none, none, none, [encode_mask(pixels(TOP))])
    assert instance_recall(proposals.by_index(2), [target, None]).groups["1"].recall.value == 100
    annotated = [Sample("a", Path("a"), 10, target), samples[1]]
    assert class_agnostic(coco_proposals(proposals), annotated).values["AP"].value == pytest.approx(100)


def test_no_masks_at_all():
    run = found_of([{"spectral": {"masks": [], "levels": []}}], ["a"])
    proposals = proposals_from_records(run, samples_of("a"), "spectral")
    assert proposals.without == ["a"]


def test_errors(found):
    samples = samples_of("a", "b")
    with pytest.raises(ParameterError, match="no results under 'tokencut': choose one of"):
        proposals_from_records(found, samples, "tokencut")
    with pytest.raises(ParameterError, match="no results under 'dino'"):
        proposals_from_records(found, samples, "spectral", (found, "dino"))
    with pytest.raises(ParameterError, match="upsample is 'cubic': choose one of nearest, bilinear"):
        proposals_from_records(found, samples, "spectral", upsample="cubic")
    with pytest.raises(ParameterError, match="refine is 'crf': choose one of none, edges"):
        proposals_from_records(found, samples, "spectral", refine="crf")
    other = found_of([{"saliency": parts([TOP])}], ["a"])
    with pytest.raises(ParameterError, match="salient regions are of 1 images, the masks of 2"):
        proposals_from_records(found, samples, "spectral", (other, "saliency"))
    smaller = found_of([{"saliency": parts([TOP])}] * 2)
    smaller.records[0]["size"] = [12, 16]
    with pytest.raises(ParameterError, match=r"a: its salient region is of an image of \[12, 16\] pixels"):
        proposals_from_records(found, samples, "spectral", (smaller, "saliency"))
