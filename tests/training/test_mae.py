"""MAE: the partition of patches, the encoder of visible patches, the loss over hidden ones, what is exported."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from foundling.errors import ParameterError
from foundling.training.batches import Batch
from foundling.training.mae import (
    Decoder,
    Mae,
    choose_patches,
    encode_visible,
    hidden_patches,
    normalise_patches,
    patches_of,
    take,
)
from foundling.training.networks import make_network
from foundling.training.settings import Mae as Settings

VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
NAME = "vit_tiny_patch16_224"


def settings(**changes: Any) -> Settings:
    small = {"options": VIT, "batch": 4, "precision": "fp32", "view_side": 32, "decoder_width": 24, "decoder_depth": 1}
    return Settings(**(small | changes))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def batch(count: int = 4, side: int = 40) -> Batch:
    """Ramps from one colour to another, of every image's own."""
    rng = np.random.default_rng(0)
    first, last = rng.uniform(0, 255, (2, count, 3, 1, 1))
    ramp = np.linspace(0, 1, side)
    images = np.broadcast_to(first + (last - first) * ramp, (count, 3, side, side))
    return Batch(torch.from_numpy(images.astype(np.uint8)), torch.arange(count))


def network_input(generator: torch.Generator, count: int = 3, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=generator)


# Which patches are hidden


@pytest.mark.parametrize(("patches", "ratio", "hidden"), [(196, 0.75, 147), (100, 0.9, 90), (16, 0.6, 10), (2, 0.5, 1)])
def test_partition_is_exact(generator: torch.Generator, patches: int, ratio: float, hidden: int) -> None:
    visible, unseen = choose_patches(5, patches, ratio, generator)
    assert visible.shape == (5, patches - hidden) and unseen.shape == (5, hidden)
    both = torch.cat([visible, unseen], 1).sort(1).values
    assert torch.equal(both, torch.arange(patches).expand(5, -1))


def test_every_patch_is_hidden_as_often(generator: torch.Generator) -> None:
    """Of 4000 images, a quarter of 8 patches: 1000 times each, with a standard deviation of 27."""
    _, unseen = choose_patches(4000, 8, 0.25, generator)
    counts = torch.bincount(unseen.flatten(), minlength=8)
    assert (counts - 1000).abs().max() < 100


@pytest.mark.parametrize(("patches", "ratio", "hidden"), [(4, 0.05, 0), (4, 0.95, 4)])
def test_some_patches_must_be_hidden_and_some_visible(patches: int, ratio: float, hidden: int) -> None:
    with pytest.raises(ParameterError, match=f"mask_ratio = {ratio} hides {hidden} of the 4 patches.*view_side"):
        hidden_patches(patches, ratio)
    with pytest.raises(ParameterError, match="mask_ratio"):
        Mae(settings(view_side=16, mask_ratio=ratio), 4)


# The encoder

VARIANTS: list[dict[str, Any]] = [
    {},
    {"reg_tokens": 2},
    {"class_token": False, "global_pool": "avg"},
    {"no_embed_class": True, "pre_norm": True},
    {"pos_embed": "none"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("side", [32, 48])
def test_with_every_patch_visible_it_is_the_vits_own_pass(
    generator: torch.Generator, variant: dict[str, Any], side: int
) -> None:
    vit = make_network(NAME, VIT | variant, 0).backbone.eval()
    images = network_input(generator, side=side)
    order = torch.rand(3, (side // 8) ** 2, generator=generator).argsort(1)
    whole, prefix = vit.forward_features(images), vit.num_prefix_tokens
    told = encode_visible(vit, images, order)
    torch.testing.assert_close(told[:, :prefix], whole[:, :prefix])
    for i in range(3):
        for place, patch in enumerate(order[i]):
            torch.testing.assert_close(told[i, prefix + place], whole[i, prefix + patch])


def test_visible_patches_attend_to_each_other_alone(generator: torch.Generator) -> None:
    """The same as the full pass in which no token may look at a hidden patch."""
    vit = make_network(NAME, VIT, 0).backbone.eval()
    images = network_input(generator)
    visible, unseen = choose_patches(3, 16, 0.6, generator)
    told = encode_visible(vit, images, visible)
    assert told.shape == (3, 1 + 6, 24)
    for i in range(3):
        allowed = torch.ones(17, 17, dtype=torch.bool)
        allowed[:, 1 + unseen[i]] = False
        whole = vit.forward_features(images[i : i + 1], attn_mask=allowed)[0]
        torch.testing.assert_close(told[i], torch.cat([whole[:1], whole[1 + visible[i]]]))


def test_what_hidden_patches_show_changes_no_guess(generator: torch.Generator) -> None:
    mae = Mae(settings(), 4).eval()
    views = mae.make_views(batch(), generator)
    repainted = views.images.clone()
    for i in range(4):
        for patch in views.hidden[i].tolist():
            row, column = divmod(patch, 4)
            repainted[i, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 3.0
    assert (repainted != views.images).float().mean() > 0.5

    def guess(images: Tensor) -> Tensor:
        tokens = encode_visible(mae.network.backbone, images, views.visible)
        return mae.decoder(tokens, views.visible, views.hidden)

    assert torch.equal(guess(repainted), guess(views.images))


# The decoder


def test_the_guess_of_a_patch_does_not_depend_on_the_order_of_patches(generator: torch.Generator) -> None:
    decoder = Decoder(6, 12, 2, 3, 4, 8).eval()
    visible, unseen = choose_patches(2, 16, 0.75, generator)
    tokens = torch.randn(2, 5, 6, generator=generator)
    guess = decoder(tokens, visible, unseen)
    turned = torch.cat([tokens[:, :1], tokens[:, 1:].flip(1)], 1)
    torch.testing.assert_close(decoder(turned, visible.flip(1), unseen), guess)
    torch.testing.assert_close(decoder(tokens, visible, unseen.flip(1)), guess.flip(1))


def test_hidden_patches_differ_by_their_place_alone(generator: torch.Generator) -> None:
    decoder = Decoder(6, 12, 1, 3, 4, 8).eval()
    tokens, visible = torch.randn(1, 5, 6, generator=generator), torch.arange(4)[None]
    guess = decoder(tokens, visible, torch.tensor([[7, 9, 7]]))[0]
    torch.testing.assert_close(guess[0], guess[2])
    assert (guess[0] - guess[1]).abs().max() > 1e-3


def test_no_two_places_have_one_position() -> None:
    positions = Decoder(6, 14, 1, 2, 5, 8).positions  # a width that is no multiple of four
    apart = torch.cdist(positions, positions) + 10 * torch.eye(25)
    assert positions.shape == (25, 14) and apart.min() > 0.1


# The loss


def naive_patch(image: np.ndarray, number: int, patch: int) -> list[float]:
    """Pixel by pixel, row by row, colours side by side."""
    per_row = image.shape[2] // patch
    values = []
    for y in range(patch):
        for x in range(patch):
            for colour in range(3):
                values.append(image[colour, number // per_row * patch + y, number % per_row * patch + x])
    return values


def naive_loss(images: np.ndarray, guess: np.ndarray, hidden: np.ndarray, patch: int, normalise: bool) -> float:
    """Patch by patch and pixel by pixel, over the hidden patches of all images."""
    errors = []
    for i, numbers in enumerate(hidden):
        for place, number in enumerate(numbers):
            truth = naive_patch(images[i], number, patch)
            if normalise:
                mean = sum(truth) / len(truth)
                deviation = (sum((v - mean) ** 2 for v in truth) / (len(truth) - 1) + 1e-6) ** 0.5
                truth = [(v - mean) / deviation for v in truth]
            errors.append(np.mean([(t - g) ** 2 for t, g in zip(truth, guess[i, place], strict=True)]))
    return float(np.mean(errors))


def test_patches_equal_pixel_by_pixel(generator: torch.Generator) -> None:
    images = network_input(generator, 2, 24)
    which = torch.tensor([[0, 5, 8], [7, 2, 2]])
    told = patches_of(images, which, 8)
    for i in range(2):
        for place, number in enumerate(which[i].tolist()):
            torch.testing.assert_close(told[i, place], torch.tensor(naive_patch(images[i].numpy(), number, 8)))


@pytest.mark.parametrize("normalised", [False, True])
def test_loss_equals_patch_by_patch(generator: torch.Generator, normalised: bool) -> None:
    mae = Mae(settings(normalise_pixels=normalised), 4).eval()
    views = mae.make_views(batch(), generator)
    parts = mae(views)
    tokens = encode_visible(mae.network.backbone, views.images, views.visible)
    guess = mae.decoder(tokens, views.visible, views.hidden).detach().double().numpy()
    arguments = views.images.double().numpy(), guess, views.hidden.numpy(), 8, normalised
    assert float(parts["loss"].detach()) == pytest.approx(naive_loss(*arguments), rel=1e-5)
    truth = patches_of(views.images, views.hidden, 8)
    variance = float((normalise_patches(truth) if normalised else truth).double().numpy().var())
    assert float(parts["unexplained"]) == pytest.approx(naive_loss(*arguments) / variance, rel=1e-5)


def test_normalised_patches_forget_brightness_and_contrast(generator: torch.Generator) -> None:
    patches = torch.randn(2, 3, 192, generator=generator)
    told = normalise_patches(patches)
    torch.testing.assert_close(told.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(told.std(-1), torch.ones(2, 3))
    torch.testing.assert_close(normalise_patches(3 * patches + 7), told, atol=1e-4, rtol=0)
    assert not normalise_patches(torch.full((1, 1, 192), 0.3)).any()  # a flat patch has no contrast to divide by


def test_visible_patches_are_not_in_the_loss(generator: torch.Generator) -> None:
    """Nothing that the decoder draws there is read: the gradient of the guess is that of the hidden patches."""
    mae = Mae(settings(), 4)
    views = mae.make_views(batch(), generator)
    drawn: list[Tensor] = []
    with mae.decoder.register_forward_hook(lambda _module, _inputs, out: drawn.append(out)):
        loss = mae(views)["loss"]
    (gradient,) = torch.autograd.grad(loss, drawn[0])
    assert gradient.shape == (4, 12, 192)
    torch.testing.assert_close(gradient, 2 * (drawn[0] - patches_of(views.images, views.hidden, 8)) / gradient.numel())


# Views


def test_views_are_a_function_of_the_generators_seed() -> None:
    mae = Mae(settings(), 4)
    first, again, other = (mae.make_views(batch(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_views_are_crops_in_their_own_colours(generator: torch.Generator) -> None:
    """Images of one colour each stay so; ramps become parts of ramps, some of them mirrored."""
    plain = torch.arange(0, 240, 10, dtype=torch.uint8)[:, None, None, None].expand(24, 3, 40, 40).contiguous()
    mae = Mae(settings(), 24)
    views = mae.make_views(Batch(plain, torch.arange(24)), generator)
    expected = (plain[:, :, 0, 0] / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(views.images, expected[..., None, None].expand(24, 3, 32, 32), atol=1e-5, rtol=0)
    ramps = torch.arange(0, 240, 6, dtype=torch.uint8).expand(24, 3, 40, 40).contiguous()
    views = mae.make_views(Batch(ramps, torch.arange(24)), generator)
    mirrored = views.images[:, 0, 0, 0] > views.images[:, 0, 0, -1]
    assert 4 < mirrored.sum() < 20


def test_views_are_as_large_as_the_settings_say(generator: torch.Generator) -> None:
    """On a ramp, the range of a view's values is its width: sqrt(0.9 x 3/4) of the image or more."""
    ramps = torch.arange(0, 240, 6, dtype=torch.uint8).expand(24, 3, 40, 40).contiguous()
    images = Mae(settings(min_area=0.9), 24).make_views(Batch(ramps, torch.arange(24)), generator).images[:, 0]
    width = (images.amax((1, 2)) - images.amin((1, 2))) * 0.229 * 255 / 234
    assert 0.8 < width.min() < width.max() <= 1.01


def test_views_larger_than_the_images_are_enlarged_with_a_warning(generator: torch.Generator) -> None:
    with pytest.warns(UserWarning, match="images 22 pixels wide are enlarged to views of 32"):
        views = Mae(settings(), 4).make_views(batch(side=22), generator)
    assert views.images.shape == (4, 3, 32, 32)


# The objective


def test_seeds_decide_the_parameters() -> None:
    first, again, other = (Mae(settings(seed=seed), 4).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder.pixels.weight"], other["decoder.pixels.weight"])


@pytest.mark.parametrize("autocast", [False, True])
def test_all_that_is_trained_has_a_gradient(generator: torch.Generator, autocast: bool) -> None:
    mae = Mae(settings(), 4)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        parts = mae(mae.make_views(batch(), generator))
    assert parts["loss"].dtype == torch.float32
    parts["loss"].backward()
    assert all(p.grad is not None for p in mae.parameters())


def test_the_network_is_a_plain_vit() -> None:
    """What is exported loads into timm's own, and is no larger for having been trained here."""
    mae = Mae(settings(), 4)
    plain = timm.create_model(NAME, num_classes=0, **VIT)
    plain.load_state_dict(mae.network.backbone.state_dict(), strict=True)


@pytest.mark.parametrize("architecture", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_networks_that_are_no_vit_are_refused(architecture: str) -> None:
    with pytest.raises(ParameterError, match=f"mae hides patches from a ViT.*{architecture}.*odin or dino"):
        Mae(settings(architecture=architecture, options={}), 4)


def test_sides_must_be_whole_patches() -> None:
    with pytest.raises(ParameterError, match=r"view_side = 30 must be a multiple of 8, .* use 24"):
        Mae(settings(view_side=30), 4)


@pytest.mark.parametrize("normalised", [False, True])
def test_it_learns(normalised: bool) -> None:
    """16 ramps: what is hidden follows from what is seen."""
    images = batch(16)
    mae = Mae(settings(batch=16, normalise_pixels=normalised, mask_ratio=0.5), 16)
    optimiser = torch.optim.AdamW(mae.parameters(), 5e-3, betas=(0.9, 0.95))
    losses = []
    for step in range(30):
        parts = mae(mae.make_views(images, torch.Generator().manual_seed(step)))
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        losses.append(float(parts["loss"].detach()))
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    assert float(parts["unexplained"]) < 0.5


def test_take_by_hand() -> None:
    tokens = torch.arange(12.0).view(2, 3, 2)
    told = take(tokens, torch.tensor([[2, 0], [1, 1]]))
    assert told.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
