"""COCO results: boxes, masks, and that pycocotools reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from foundling.discovery import Found, coco_results
from foundling.discovery.export import decode_mask, decode_memberships, encode_mask, encode_memberships, pixel_mask
from foundling.types import ParameterError, Sample

SAMPLES = [Sample("a.png", Path("a.png"), 7), Sample("bad.png", Path("bad.png"), 8), Sample("b.png", Path("b.png"), 9)]
MASK = np.array([[False, True, False], [False, True, True]])


def result(box: list[float], masks: bool = True) -> dict[str, object]:
    return {"boxes": [box], "scores": [1.0], "masks": [encode_mask(MASK)] if masks else []}


@pytest.fixture
def found() -> Found:
    records = [
        {"name": "a.png", "index": 0, "size": [30, 40], "seen": [30, 40], "grid": [2, 3], "patch_size": 16},
        {"name": "b.png", "index": 2, "size": [60, 80], "seen": [30, 40], "grid": [2, 3], "patch_size": 16},
    ]
    boxes = [[16.0, 0.0, 40.0, 30.0], [32.0, 0.0, 96.0, 60.0]]  # the second reaches into the padding
    for record, box in zip(records, boxes, strict=True):
        record["methods"] = {"lost": result(box), "centre_box": result(box, masks=False)}
    array = np.array([boxes[0], [np.nan] * 4, boxes[1]])
    sizes = np.array([[30, 40], [0, 0], [60, 80]])
    return Found(("a.png", "bad.png", "b.png"), sizes, {"lost": array, "centre_box": array}, records, [], {})


def test_boxes_are_corner_and_size_inside_the_image(found: Found) -> None:
    entries = coco_results(found, SAMPLES, "lost")
    assert [e["image_id"] for e in entries] == [7, 9]
    assert [e["bbox"] for e in entries] == [[16, 0, 24, 30], [32, 0, 48, 60]]
    assert all(e["category_id"] == 1 and e["score"] == 1 for e in entries)
    assert "segmentation" not in coco_results(found, SAMPLES, "centre_box")[0]


def test_masks_cover_their_patches_in_original_pixels(found: Found) -> None:
    first, second = (decode_mask(e["segmentation"]) for e in coco_results(found, SAMPLES, "lost"))
    expected = np.zeros((30, 40), dtype=bool)
    expected[:, 16:32] = expected[16:, 32:] = True
    assert np.array_equal(first, expected)
    assert np.array_equal(second, expected.repeat(2, axis=0).repeat(2, axis=1))


def test_a_pixel_belongs_to_the_patch_its_centre_falls_into(rng: np.random.Generator) -> None:
    mask = rng.random((3, 4)) < 0.5
    drawn = pixel_mask(mask, 8, (20, 30), (7, 45))
    for y in range(7):
        for x in range(45):
            assert drawn[y, x] == mask[int((y + 0.5) * 20 / 7) // 8, int((x + 0.5) * 30 / 45) // 8]


def test_masks_survive_json(rng: np.random.Generator) -> None:
    mask = rng.random((23, 17)) < 0.4
    assert np.array_equal(decode_mask(json.loads(json.dumps(encode_mask(mask)))), mask)


def test_pycocotools_reads_the_results(found: Found, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    images = [{"id": 7, "height": 30, "width": 40}, {"id": 9, "height": 60, "width": 80}]
    truth.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "object"}]}))
    results.write_text(json.dumps(coco_results(found, SAMPLES, "lost")))
    read = COCO(truth).loadRes(str(results))
    assert [a["image_id"] for a in read.dataset["annotations"]] == [7, 9]
    area = coco_mask.area(read.dataset["annotations"][0]["segmentation"])
    assert area == 16 * 30 + 8 * 14


def test_an_unknown_label_is_named(found: Found) -> None:
    with pytest.raises(ParameterError, match="no results under 'tokencut': choose one of lost, centre_box"):
        coco_results(found, SAMPLES, "tokencut")


def test_memberships_survive_json_to_half_a_step() -> None:
    maps = np.random.default_rng(0).uniform(size=(3, 4, 5))
    again = decode_memberships(json.loads(json.dumps(encode_memberships(maps))))
    assert again.shape == maps.shape
    assert np.abs(again - maps).max() <= 0.5 / 255 + 1e-7
