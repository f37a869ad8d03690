"""The nouns: facets asked for but absent, one image out of a batch, moving between devices, paths."""

import numpy as np
import pytest
import torch
from PIL import Image

from foundling import paths
from foundling.types import FoundlingError, ParameterError, PatchFeatures, Target


@pytest.fixture
def features() -> PatchFeatures:
    sizes = torch.tensor([[32, 48], [30, 41]])
    return PatchFeatures(
        grid=(2, 3),
        patch_size=16,
        image_sizes=sizes,
        original_sizes=sizes,
        names=("a", "b"),
        indices=(4, 7),
        keys=torch.arange(2 * 6 * 5, dtype=torch.float32).reshape(2, 6, 5),
        attention=torch.full((2, 3, 6), 1 / 6),
        images=(Image.new("RGB", (48, 32)), Image.new("RGB", (41, 30))),
    )


def test_facet_returns_what_was_extracted(features):
    assert features.facet("keys") is features.keys


def test_absent_facet_says_what_is_present_and_how_to_add_it(features):
    with pytest.raises(ParameterError, match=r"'values' was not extracted.*facets=\('keys', .*'values'"):
        features.facet("values")


def test_unknown_facet_lists_the_legal_ones(features):
    with pytest.raises(ParameterError, match=r"'key'.*keys, queries, values, tokens, cls, attention, images"):
        features.facet("key")


@pytest.mark.parametrize("i", [0, 1, -1])
def test_one_image_is_a_batch_of_one(features, i):
    one = features[i]
    assert len(one) == 1
    assert one.names == (features.names[i],)
    assert one.indices == (features.indices[i],)
    assert torch.equal(one.keys[0], features.keys[i])
    assert torch.equal(one.image_sizes[0], features.image_sizes[i])
    assert one.images[0].size == features.images[i].size
    assert one.values is None


def test_indexing_past_the_end_raises(features):
    with pytest.raises(IndexError):
        features[2]


def test_iterating_over_a_batch_ends(features):
    assert [one.names[0] for one in features] == ["a", "b"]


def test_moving_keeps_everything(features):
    moved = features.to("cpu")
    assert torch.equal(moved.keys, features.keys)
    assert moved.images is features.images
    assert moved.values is None


def test_wrong_shape_is_caught_where_checks_are_on():
    # (a jaxtyping check, as in every test run: the message names the field)
    with pytest.raises(Exception, match="boxes"):
        Target(
            boxes=np.zeros((2, 3)),
            labels=np.zeros(2, dtype=np.int64),
            difficult=np.zeros(2, dtype=bool),
            truncated=np.zeros(2, dtype=bool),
            crowd=np.zeros(2, dtype=bool),
        )


def test_data_folder_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "elsewhere"))
    assert paths.data_dir() == (tmp_path / "elsewhere").resolve()
    assert paths.weights_dir().parent == paths.data_dir()
    monkeypatch.setenv("FOUNDLING_DATA", "")
    assert paths.data_dir() == paths.ROOT / "data"


def test_every_error_of_ours_is_one_family():
    from foundling import types

    errors = [v for v in vars(types).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(errors) >= 5 and all(issubclass(e, FoundlingError) for e in errors)
