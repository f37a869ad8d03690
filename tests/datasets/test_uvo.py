"""UVO-Sparse in small: frames in folders of videos, one category whatever the file says, and what is missing."""

import json

import numpy as np
import pytest

from foundling.datasets import open_dataset
from foundling.errors import DataMissing
from small_datasets import coco_annotation, make_coco


@pytest.fixture
def uvo(tmp_path):
    home = tmp_path / "uvo/UVOv1.0"
    frames = {3: "-0abc/30.png", 1: "-0abc/0.png", 2: "xyz/60.png"}
    objects = [
        coco_annotation(1, (2, 3, 10, 8), category_id=7), coco_annotation(1, (20, 3, 10, 8)),
        coco_annotation(3, (5, 5, 4, 4), category_id=7), coco_annotation(3, (30, 5, 4, 4), iscrowd=1),
    ]  # fmt: skip
    make_coco(home / "uvo_videos_sparse_frames", frames, objects, home / "FrameSet/UVO_frame_val.json")
    return home


def test_frames_and_their_objects_of_one_category(uvo, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(uvo.parents[1]))
    for root in (None, uvo, uvo.parent):
        dataset = open_dataset("uvo", root=root)
        assert (dataset.name, dataset.split, dataset.problems, dataset.annotated) == ("uvo", "val", (), True)
        assert [sample.name for sample in dataset] == ["-0abc/0.png", "xyz/60.png", "-0abc/30.png"]
    assert (dataset.categories, dataset.category_ids) == (("object",), (1,))
    assert [sample.target.labels.tolist() for sample in dataset] == [[0, 0], [], [0, 0]]
    np.testing.assert_array_equal(dataset[2].target.crowd, [False, True])
    np.testing.assert_array_equal(dataset[0].target.boxes, [[2, 3, 12, 11], [20, 3, 30, 11]])
    assert [len(sample.target.masks) for sample in dataset] == [2, 0, 2]
    assert open_dataset("uvo", root=uvo, masks=False)[0].target.masks is None


def test_masks_as_run_lengths(uvo):
    """UVO writes run lengths, not polygons."""
    file = uvo / "FrameSet/UVO_frame_val.json"
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        entry["segmentation"] = {"size": [40, 60], "counts": [40 * 60 - 9, 9]}
    file.write_text(json.dumps(content))
    assert open_dataset("uvo", root=uvo)[0].target.masks[0]["size"] == [40, 60]


def test_frames_not_yet_taken_from_their_videos(uvo):
    frames = uvo / "uvo_videos_sparse_frames"
    (frames / "xyz/60.png").unlink()
    dataset = open_dataset("uvo", root=uvo)
    assert len(dataset) == 2
    assert dataset.problems == ("1 × image missing on disk (dropped): xyz/60.png",)
    for file in frames.glob("*/*.png"):
        file.unlink()
    with pytest.raises(DataMissing, match=r"uvo_videos_sparse_frames: none of the 3 images that .*UVO_frame_val\.json"):
        open_dataset("uvo", root=uvo)


def test_nothing_there(uvo, tmp_path):
    with pytest.raises(DataMissing) as caught:
        open_dataset("uvo", "train", root=uvo)
    for part in ("looked for FrameSet/UVO_frame_train.json and uvo_videos_sparse_frames in:\n", "foundling data uvo"):
        assert part in str(caught.value)
    with pytest.raises(DataMissing, match=r"UVO-Sparse not found; (?s:.)*\n  .*/nowhere/UVOv1\.0\n"):
        open_dataset("uvo", root=tmp_path / "nowhere")
