"""A name and a source of weights → a frozen network, ready for :func:`foundling.backbones.extract`."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foundling.backbones.checkpoint import fit_state
from foundling.backbones.networks import build_network
from foundling.backbones.registry import BACKBONES, Entry
from foundling.backbones.weights import fetch_weights
from foundling.errors import ParameterError, WeightsError
from foundling.files import checksum


@dataclass(frozen=True)
class Backbone:
    """A frozen network and what is needed to feed it.

    ``patch_size`` is in pixels (the output stride of a CNN), ``mean`` and ``std`` are for RGB in 0..1, ``channels`` is
    the width of a feature, ``heads`` and ``blocks`` are 0 and 1 for a CNN, ``family`` is ``"vit"`` or ``"cnn"``,
    ``facets`` lists what :func:`extract` can take from it, ``weights`` says where the weights came from and
    ``checksum`` identifies them (the first 12 hexadecimal digits of the file's SHA-256, or ``random(seed)``).
    """

    name: str
    network: nn.Module
    patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: int
    heads: int
    blocks: int
    family: str
    facets: tuple[str, ...]
    weights: str
    checksum: str
    device: torch.device


def load_backbone(
    name: str,
    weights: str | Path = "pretrained",
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Backbone:
    """The backbone ``name`` of the registry with its weights, on ``device`` (default: a CUDA GPU if there is one).

    ``weights`` is ``"pretrained"`` (the package's own file, else one in the weights folder, else a download into it),
    ``"random"`` (drawn from ``seed``) or the path of a checkpoint as its authors publish it.

    Raises :class:`ParameterError` for an unknown name or device and :class:`WeightsError` for weights that are missing
    or do not fit.
    """
    entry = _entry(name)
    where = choose_device(device)
    if weights == "random":
        return describe(entry, build_network(entry, seed).to(where), "random", f"random({seed})", where)
    path = fetch_weights(entry) if weights == "pretrained" else _given(weights)
    network = build_network(entry, seed)
    network.load_state_dict(fit_state(entry, network, path))
    return describe(entry, network.to(where), str(path), checksum(path)[:12], where)


def describe(entry: Entry, network: Any, source: str, identity: str, device: torch.device) -> Backbone:
    """A network of ``entry``'s architecture, frozen and on its device, as a backbone.

    ``source`` says where its weights came from, ``identity`` which they are.
    """
    if entry.family == "cnn":
        channels = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
        heads, blocks = 0, 1
    else:
        channels, heads, blocks = network.embed_dim, network.blocks[0].attn.num_heads, len(network.blocks)
    return Backbone(
        name=entry.name,
        network=network,
        patch_size=entry.patch_size,
        mean=entry.mean,
        std=entry.std,
        channels=channels,
        heads=heads,
        blocks=blocks,
        family=entry.family,
        facets=entry.facets,
        weights=source,
        checksum=identity,
        device=device,
    )


def _entry(name: str) -> Entry:
    if name not in BACKBONES:
        close = difflib.get_close_matches(name, BACKBONES, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ParameterError(f"unknown backbone {name!r}{hint}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def _given(weights: str | Path) -> Path:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"weights={str(weights)!r}: there is no such file; give 'pretrained', 'random' or the path of a checkpoint"
        )
    return path


def choose_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ParameterError(f"unknown device {device!r}: choose 'cpu', 'cuda' or 'cuda:N'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"device {str(device)!r} asked for, but PyTorch finds no CUDA GPU here: choose 'cpu'")
    return found
