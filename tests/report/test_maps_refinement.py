"""Rows of maps: one for each method and network, of the images as the networks see them; masks of a segmenter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from foundling.backbones import extract, load_backbone
from foundling.discovery import lost
from foundling.report.maps_refinement import MASK, map_rows, pictures
from foundling.training.refinement.settings import Refinement
from foundling.types import Sample
from small_datasets import write_noise

METHODS = {"lost": {"k": 1, "facet": "keys", "centre": True}, "tokencut": {"tau": 0.4, "facet": "keys"}}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return write_noise(tmp_path_factory.mktemp("images"))


def test_a_row_for_each_method_and_network(samples: list[Sample], tmp_path: Path) -> None:
    network = load_backbone("scenes_odin", device="cpu")
    file = tmp_path / "other.pth"
    torch.manual_seed(0)
    state = network.network.state_dict()
    torch.save({name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}, file)
    box = np.array([[1.0, 2, 3, 4]])
    rows = map_rows(
        Refinement(), {"f": "pretrained", "g": file}, samples, METHODS, {"g": [box, None]}, device="cpu", max_side=32
    )
    assert [(row.name, row.kind) for row in rows] == [
        ("f, LOST: 1 / degree", "inverse_degree"), ("g, LOST: 1 / degree", "inverse_degree"),
        ("f, TokenCut: eigenvector", "eigenvector"), ("g, TokenCut: eigenvector", "eigenvector"),
    ]  # fmt: skip
    assert rows[0].others is None and rows[1].others == [box, None] and rows[3].others is None  # h is of LOST
    (features,) = extract(network, samples, ("keys",), max_side=32)
    for i, found in enumerate(lost(features, **METHODS["lost"])):
        np.testing.assert_array_equal(rows[0].maps[i], found.maps["inverse_degree"])
        assert rows[0].boxes is not None and rows[0].boxes[i].tolist() == found.boxes.tolist()
    assert rows[0].maps[0].shape == (3, 4) and rows[0].patch_size == 8
    assert not np.array_equal(rows[0].maps[0], rows[1].maps[0])
    assert [image.size for image in pictures(samples, 32)] == [(32, 24)] * 2
    assert pictures(samples)[0].size == (64, 48)


def test_a_segmenter_has_masks(samples: list[Sample]) -> None:
    settings = Refinement(method="segmenter", weights="random", side=64)
    (row,) = map_rows(settings, {"f": "random"}, samples, METHODS, device="cpu")
    assert (row.kind, row.patch_size) == (MASK, 1) and row.maps[0].shape == (48, 64)
    assert row.boxes is not None and row.boxes[0].shape == (1, 4)
