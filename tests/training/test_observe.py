"""Runs looked at from outside: their networks as backbones, their stages, and the cosines that the loss compares."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_objective import write_images

from foundling.backbones import extract, load_backbone
from foundling.discovery.overlap_sources import at_stride_32
from foundling.errors import ParameterError, WeightsError
from foundling.training import checkpoints, observe
from foundling.training.batches import Batch
from foundling.training.data import open_training_set
from foundling.training.exports import dense_tensors
from foundling.training.objectives import make_objective
from foundling.training.odin import Odin
from foundling.training.representation import train
from foundling.training.settings import Odin as Settings
from foundling.training.views import normalise

TINY: dict[str, Any] = {
    "options": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3},
    "masks": 3, "span_side": 48, "view_side": 32, "hidden": 16, "projection": 8, "dataset": "folder", "workers": 0,
    "images": 6, "batch": 4, "steps": 4, "warmup": 1, "precision": "fp32", "image_side": 48, "probes": 4,
    "export_at": [2, 9],
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(**TINY, root=str(write_images(tmp_path / "photos")))


def picture(seed: int = 0, side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def normalised(image: Image.Image) -> torch.Tensor:
    return normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255)


def test_an_untrained_network_is_the_one_that_the_run_starts_from(settings):
    backbone = observe.run_backbone("mine", settings, None)
    (features,) = extract(backbone, [picture()], ("tokens",))
    expected = make_objective(settings, 6).network.eval()(normalised(picture()))
    torch.testing.assert_close(features.tokens, expected.flatten(2).transpose(1, 2))
    assert (backbone.name, backbone.patch_size, backbone.heads, backbone.blocks) == ("mine", 8, 3, 1)
    assert (backbone.channels, backbone.checksum, backbone.family) == (24, "random(0)", "vit")


def test_the_stages_of_a_run_and_their_networks(settings, tmp_path):
    outcome = train(settings, tmp_path / "run" / "a", progress=False)
    files = observe.stages(settings, tmp_path / "run" / "a", outcome.steps)
    assert {step: file and file.name for step, file in files.items()} == {
        0: None,
        2: "a_2.safetensors",
        4: "a.safetensors",
    }
    maps = [
        next(extract(observe.run_backbone("a", settings, file), [picture()], ("tokens",))).tokens
        for file in files.values()
    ]
    assert not torch.allclose(maps[0], maps[1]) and not torch.allclose(maps[1], maps[2])
    trained = observe.odin_objective(settings, open_training_set(settings), tmp_path / "run" / "a").network.eval()
    expected = trained(normalised(picture())).flatten(2).transpose(1, 2)
    torch.testing.assert_close(maps[2], expected, atol=2e-2, rtol=0)  # half precision in the file
    assert torch.dist(maps[2], expected) < 0.1 * torch.dist(maps[1], expected)


def test_a_run_is_kept_apart_from_one_with_other_settings_or_scenes(settings, monkeypatch):
    def path(**changes: Any) -> Path:
        return observe.run_path(Path("x"), "a", settings.model_copy(update=changes))

    assert path().parent == Path("x") and path().name.startswith("a-")
    assert path(workers=3, export_at=[1], root="elsewhere") == path()  # no step depends on them
    scenes, others = path(dataset="scenes"), path()
    assert len({path(), path(seed=1), path(masks=4), scenes}) == 4
    monkeypatch.setattr(observe, "VERSION", 99)
    assert path(dataset="scenes") != scenes
    assert path() == others


def test_a_run_without_steps_has_only_its_untrained_network(settings, tmp_path):
    assert observe.stages(settings, tmp_path / "nothing", 0) == {0: None}


def test_an_architecture_without_features_here_and_a_file_of_another_network(settings, tmp_path):
    with pytest.raises(
        ParameterError, match=r"mine: features cannot be taken from 'resnet10t': use a ViT or one of resnet50"
    ):
        observe.run_backbone("mine", settings.model_copy(update={"architecture": "resnet10t", "options": {}}), None)
    train(settings, tmp_path / "a", progress=False)
    wider = settings.model_copy(update={"options": {**settings.options, "embed_dim": 48}})
    with pytest.raises(WeightsError, match=r"a\.safetensors: does not fit"):
        observe.run_backbone("mine", wider, tmp_path / "a.safetensors")


def test_the_state_of_a_run_that_is_not_there(settings, tmp_path):
    with pytest.raises(WeightsError, match="train first"):
        observe.odin_objective(settings, open_training_set(settings), tmp_path / "none")


def test_pictures_of_normalised_images_are_the_images():
    image = picture(3)
    np.testing.assert_array_equal(np.array(observe.pictures(normalised(image))[0]), np.array(image))


def test_only_resnets_are_taken_at_another_stride():
    vit = load_backbone("scenes_odin", weights="random", device="cpu")
    assert observe.as_published(vit) is vit
    resnet = load_backbone("dino_resnet50", weights="random", device="cpu")
    ours, theirs = observe.as_published(resnet), at_stride_32(resnet)
    pixels = normalised(picture(side=64))
    assert ours.patch_size == 32
    torch.testing.assert_close(ours.network(pixels), theirs.network(pixels))


# What the loss compares


@pytest.fixture
def batch() -> Batch:
    pixels = torch.randint(0, 256, (4, 3, 6, 6), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Batch(pixels.repeat_interleave(8, 2).repeat_interleave(8, 3), torch.arange(4))


def loss_of_rows(compared: observe.Contrast, alpha: float) -> torch.Tensor:
    """Eq. 3 term by term, from the cosines alone."""
    count, total = len(compared.similarity), torch.zeros(())
    for i in range(count):
        positive = torch.exp(compared.similarity[i, i] / alpha)
        negatives = sum(
            torch.exp(compared.similarity[i, j] / alpha) for j in range(2 * count) if j not in (i, count + i)
        )
        total -= torch.log(positive / (positive + negatives))
    return total


def test_the_cosines_give_the_loss_that_is_trained_on(settings, batch):
    objective = Odin(
        settings.model_copy(update={"min_area": 1.0}), 6
    )  # both views show all of the image, and all masks
    inputs = objective.make_views(batch, torch.Generator().manual_seed(0))
    views = inputs.views
    turned = inputs._replace(
        views=views._replace(images=views.images[::-1], windows=views.windows[::-1], flips=views.flips[::-1])
    )
    there, back = observe.contrast(objective, inputs), observe.contrast(objective, turned)
    assert len(there.similarity) == int(objective(inputs)["masks"] * 4)
    expected = (loss_of_rows(there, settings.alpha) + loss_of_rows(back, settings.alpha)) / len(there.similarity)
    torch.testing.assert_close(objective(inputs)["loss"].detach(), expected, rtol=1e-4, atol=1e-4)


def test_masks_are_listed_with_their_images_and_only_if_both_views_show_them(settings, batch):
    objective = Odin(settings.model_copy(update={"min_area": 0.1}), 6)
    compared = observe.contrast(objective, objective.make_views(batch, torch.Generator().manual_seed(2)))
    count = len(compared.mask)
    assert compared.similarity.shape == (count, 2 * count)
    assert 0 < count < 4 * settings.masks
    pairs = list(zip(compared.image.tolist(), compared.mask.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert compared.similarity.abs().max() <= 1 + 1e-5


# Projections of a feature pyramid


def test_projections_are_the_projector_at_every_place(tmp_path):
    pyramid = Settings(**{**TINY, "architecture": "resnet10t", "options": {}, "root": "unused"})
    objective = Odin(pyramid, 6)
    for module in (objective.network, objective.projector):  # running statistics that differ from the initial ones
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value += 0.1
    checkpoints.export(tmp_path / "run_dense.safetensors", dense_tensors(objective), {})
    (features,) = observe.run_projections(pyramid, tmp_path / "run")([picture(side=64)])
    assert (features.grid, features.tokens.shape) == ((16, 16), (1, 256, 8))
    objective.eval()
    maps = objective.network(normalised(picture(side=64)))[0]
    for row, column in ((0, 0), (3, 7), (15, 15)):
        expected = objective.projector(maps[:, row, column][None])[0]
        assert F.cosine_similarity(features.tokens[0, row * 16 + column], expected, dim=0) > 0.999


def test_projections_need_their_file_and_one_that_fits(tmp_path):
    pyramid = Settings(**{**TINY, "architecture": "resnet10t", "options": {}, "root": "unused"})
    with pytest.raises(WeightsError, match=r"run_dense\.safetensors is not there"):
        observe.run_projections(pyramid, tmp_path / "run")
    checkpoints.export(tmp_path / "run_dense.safetensors", dense_tensors(Odin(pyramid, 6)), {})
    with pytest.raises(WeightsError, match="does not fit its settings"):
        observe.run_projections(pyramid.model_copy(update={"projection": 16}), tmp_path / "run")
