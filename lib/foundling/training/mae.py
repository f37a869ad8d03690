"""MAE (He et al., Masked Autoencoders Are Scalable Vision Learners, 2022): guess hidden patches from visible ones.

The encoder is a plain ViT that sees the visible patches alone; a light decoder sees what it made of them, with one
learned token in place of every hidden patch, and draws the pixels (§3).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Generator, Tensor, nn

from foundling.errors import ParameterError
from foundling.training.batches import Batch
from foundling.training.networks import check_sides, make_network
from foundling.training.objective import Objective
from foundling.training.settings import Mae as Settings
from foundling.training.views import crop, normalise, sample_windows, uniform, warn_if_enlarged


class MaskedViews(NamedTuple):
    """One view of every image, and the numbers of its patches: the visible and the hidden ones, in random order."""

    images: Float[Tensor, "image 3 s s"]
    visible: Int[Tensor, "image v"]
    hidden: Int[Tensor, "image u"]


class Mae(Objective):
    """``network`` is the encoder, which a ViT's own forward pass runs on all patches."""

    def __init__(self, settings: Settings, images_count: int) -> None:
        """Raises ParameterError if the network is no ViT, or the view does not fit the patches or the ratio."""
        super().__init__()
        self.settings = settings
        self.network = make_network(settings.architecture, settings.options, settings.seed)
        vit = self.network.backbone
        if not isinstance(vit, VisionTransformer):
            raise ParameterError(
                f"objective mae hides patches from a ViT, and architecture {settings.architecture!r} is none: "
                "choose a ViT (vit_small_patch16_224), or the objective odin or dino"
            )
        self.patch = self.network.stride
        check_sides(settings, self.network, "view_side")
        side = settings.view_side // self.patch
        hidden_patches(side**2, settings.mask_ratio)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed + 2**31)
            self.decoder = Decoder(
                vit.embed_dim, settings.decoder_width, settings.decoder_depth, settings.decoder_heads, side, self.patch
            )

    def make_views(self, batch: Batch, generator: Generator) -> MaskedViews:
        """A random crop, flipped or not, in its own colours (§4.1), and a random choice of patches (§3, Masking)."""
        s, count, device = self.settings, len(batch.images), batch.images.device
        warn_if_enlarged(min(batch.images.shape[-2:]), s.view_side)
        windows, flips = sample_windows(count, generator, s.min_area), uniform(generator, (count,)) < 0.5
        images = normalise(crop(batch.images.float() / 255, windows, s.view_side, flips))
        visible, hidden = choose_patches(count, (s.view_side // self.patch) ** 2, s.mask_ratio, generator)
        return MaskedViews(images, visible.to(device), hidden.to(device))

    def forward(self, views: MaskedViews) -> dict[str, Tensor]:
        """The mean squared error over the hidden patches' pixels (§3), and as a share of these pixels' variance.

        That share, ``unexplained``, is 0 for a perfect guess and 1 for the best guess that is one value for all.
        """
        tokens = encode_visible(self.network.backbone, views.images, views.visible)
        guess = self.decoder(tokens, views.visible, views.hidden)
        truth = patches_of(views.images, views.hidden, self.patch)
        if self.settings.normalise_pixels:
            truth = normalise_patches(truth)
        loss = F.mse_loss(guess.float(), truth)
        return {"loss": loss, "unexplained": loss.detach() / truth.var(correction=0)}

    def to_compile(self) -> list[nn.Module]:
        """The blocks of both transformers: hiding patches comes between the encoder's parts."""
        return [self.network.backbone.blocks, self.decoder.blocks]


class Decoder(nn.Module):
    """Transformer blocks over visible and hidden patches, and the pixels of the hidden ones (§3, MAE decoder)."""

    positions: Tensor

    def __init__(self, inputs: int, width: int, depth: int, heads: int, side: int, patch: int) -> None:
        """``inputs`` are the encoder's channels; ``side`` is that of the grid in patches, ``patch`` in pixels."""
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, 3 * patch**2)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        positions = F.pad(build_sincos2d_pos_embed([side, side], width // 4 * 4), (0, width % 4))
        self.register_buffer("positions", positions, persistent=False)

    def forward(
        self, tokens: Float[Tensor, "image token c"], visible: Int[Tensor, "image v"], hidden: Int[Tensor, "image u"]
    ) -> Float[Tensor, "image u values"]:
        """The guessed pixels of the hidden patches.

        ``tokens`` are the encoder's: prefix tokens first, then those of the ``visible`` patches, in their order.
        """
        embedded = self.embed(tokens)
        prefix, seen = embedded[:, : -visible.shape[1]], embedded[:, -visible.shape[1] :]
        seen = seen + self.positions[visible].to(seen.dtype)
        masked = (self.mask_token + self.positions[hidden]).to(seen.dtype)
        out = self.norm(self.blocks(torch.cat([prefix, seen, masked], 1)))  # attention knows no order
        return self.pixels(out[:, -hidden.shape[1] :])


def hidden_patches(patches: int, ratio: float) -> int:
    """How many of an image's ``patches`` are hidden. Raises ParameterError if that is none or all of them."""
    hidden = round(patches * ratio)
    if not 0 < hidden < patches:
        raise ParameterError(
            f"mask_ratio = {ratio} hides {hidden} of the {patches} patches of a view: at least one must be hidden "
            "and one visible; choose another ratio or a larger view_side"
        )
    return hidden


def choose_patches(
    images: int, patches: int, ratio: float, generator: Generator
) -> tuple[Int[Tensor, "image v"], Int[Tensor, "image u"]]:
    """A random partition of every image's patches into visible and hidden ones, each image with the same numbers."""
    order = torch.rand(images, patches, generator=generator).argsort(1)
    visible = patches - hidden_patches(patches, ratio)
    return order[:, :visible], order[:, visible:]


def take(
    tokens: Float[Tensor, "image patch channel"], which: Int[Tensor, "image n"]
) -> Float[Tensor, "image n channel"]:
    """The tokens that ``which`` numbers, image by image."""
    return tokens.gather(1, which[..., None].expand(-1, -1, tokens.shape[-1]))


def encode_visible(
    vit: VisionTransformer, images: Float[Tensor, "image 3 h w"], visible: Int[Tensor, "image v"]
) -> Float[Tensor, "image token channel"]:
    """The ViT's tokens after its last norm, of the visible patches alone: they attend to nothing else.

    Prefix tokens (CLS) come first, then the patches in the order of ``visible``. With every patch visible this is the
    ViT's own forward pass.
    """
    tokens: Tensor = vit._pos_embed(vit.patch_embed(images))
    prefix, patches = tokens[:, : vit.num_prefix_tokens], tokens[:, vit.num_prefix_tokens :]
    tokens = vit.norm_pre(torch.cat([prefix, take(patches, visible)], 1))
    return vit.norm(vit.blocks(tokens))


def patches_of(
    images: Float[Tensor, "image 3 h w"], which: Int[Tensor, "image n"], patch: int
) -> Float[Tensor, "image n values"]:
    """The pixels of some patches, row by row, the three colours of a pixel side by side."""
    values = F.unfold(images, patch, stride=patch)
    values = values.unflatten(1, (3, -1)).transpose(1, 2).flatten(1, 2)
    return take(values.transpose(1, 2), which)


def normalise_patches(patches: Float[Tensor, "image n values"]) -> Float[Tensor, "image n values"]:
    """Each patch less its mean, over its standard deviation (§3, Reconstruction target)."""
    variance, mean = torch.var_mean(patches, -1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
