"""Rounds of self-training: each begins anew, the later ones learn from predictions, and a stopped one goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_discs import CLUSTERS, settings, write_discs

from foundling.datasets.base import Dataset
from foundling.errors import ParameterError
from foundling.training.semantic.predict import load_segmenter, segment
from foundling.training.semantic.rounds import join, self_train
from foundling.training.semantic.task import train_semantic


def test_two_rounds(tmp_path: Path) -> None:
    samples, masks = write_discs(tmp_path / "few", 8)
    more, _ = write_discs(tmp_path / "more", 4, first=50)
    images = [samples, join(Dataset("discs", "few", tuple(samples)), Dataset("discs", "more", tuple(more)))]
    told = [settings(steps=20, learning_rate=0.01, backbone_rate=0.0), settings(steps=3, keep_empty=True)]
    with pytest.raises(ParameterError, match="2 sets of images for 1 rounds"):
        self_train(images, masks, told[:1], tmp_path / "run", progress=False)
    first = self_train(images, masks, told, tmp_path / "run", minutes=1e-9, progress=False)
    assert len(first) == 1 and first[0].outcome.steps == 1 and not first[0].outcome.finished

    one, two = self_train(images, masks, told, tmp_path / "run", progress=False)
    assert one.masks is masks and one.outcome.finished and two.outcome.finished
    assert (one.outcome.file.name, two.outcome.file.name) == ("run_1.safetensors", "run_2.safetensors")
    assert two.masks.clusters == CLUSTERS and len(two.masks.files) == 12
    assert two.masks.files[8] == tmp_path / "run_2_masks" / "discs_more" / "50.png"
    for i, (_, labels) in enumerate(segment(load_segmenter(one.outcome.file), images[1])):
        np.testing.assert_array_equal(two.masks.read(i), labels)

    # The second round is a run of its own on these maps, and does not begin where the first has ended.
    alone = train_semantic(images[1], two.masks, told[1], tmp_path / "alone", progress=False)
    assert alone.file.read_bytes() == two.outcome.file.read_bytes()
    again = self_train(images, masks, told, tmp_path / "run", progress=False)
    assert [r.outcome.file.read_bytes() for r in again] == [r.outcome.file.read_bytes() for r in (one, two)]


def test_a_round_may_begin_with_what_its_teacher_learned(tmp_path: Path) -> None:
    samples, masks = write_discs(tmp_path, 8)
    first = settings(steps=20, learning_rate=0.01)
    still = settings(steps=2, warmup=1, learning_rate=1e-12, begin="teacher", keep_empty=True)
    one, two = self_train([samples] * 2, masks, [first, still], tmp_path / "run", progress=False)
    before, after = (dict(load_segmenter(r.outcome.file).network.named_parameters()) for r in (one, two))
    anew = self_train(
        [samples] * 2, masks, [first, still.model_copy(update={"begin": "encoder"})], tmp_path / "anew", progress=False
    )[1]
    other = dict(load_segmenter(anew.outcome.file).network.named_parameters())
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items())
    assert not all(torch.allclose(other[name], value, atol=1e-3) for name, value in before.items())
    with pytest.raises(ParameterError, match="begin is teacher, but there is none"):
        train_semantic(samples, masks, still, tmp_path / "none", progress=False)
    wider = still.model_copy(update={"channels": 16})
    with pytest.raises(ParameterError, match=r"run_1\.safetensors is another network than this round trains"):
        train_semantic(samples, masks, wider, tmp_path / "wider", teacher=one.outcome.file, progress=False)


def test_datasets_joined(tmp_path: Path) -> None:
    samples, _ = write_discs(tmp_path, 2)
    parts = [Dataset("scenes", split, tuple(samples)) for split in ("a", "b")]
    joined = join(*parts)
    assert [sample.name for sample in joined] == [
        "scenes_a/0.png",
        "scenes_a/1.png",
        "scenes_b/0.png",
        "scenes_b/1.png",
    ]
    assert [sample.image_id for sample in joined] == [1, 2, 3, 4]
    assert [sample.path for sample in joined] == [sample.path for sample in samples] * 2
    with pytest.raises(ParameterError, match="give each dataset and split once"):
        join(parts[0], parts[0])
