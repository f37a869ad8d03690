"""A saliency network and its weights: a file, published or trained here, to a network that is ready to look."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from foundling.backbones.checkpoint import fitted, read_state
from foundling.backbones.registry import IMAGENET_MEAN, IMAGENET_STD, Entry
from foundling.backbones.weights import fetch_weights, find_weights, how_to_get
from foundling.errors import ParameterError, WeightsError
from foundling.files import checksum
from foundling.saliency.basnet import STRIDE, WIDTH, Basnet
from foundling.saliency.unet import SMALLEST, STEM, Unet

SIDE = 256  # pixels that images are resized to, whatever their shape (configs/dataset of COMUS)
_STEM = "inconv.weight"  # says how wide a network is


def _published(name: str, file: str, page: str, notes: str, wrappers: tuple[str, ...] = ()) -> Entry:
    return Entry(
        name=name,
        architecture="BASNet",
        file=file,
        licence="see its page",
        patch_size=STRIDE,
        page=page,
        family="saliency",
        wrappers=wrappers,
        dropped=(),
        notes=notes,
    )


NETWORKS: dict[str, Entry] = {
    "scenes_saliency": Entry(
        name="scenes_saliency",
        architecture="U-Net",
        file="scenes_saliency.safetensors",
        licence="mit",
        patch_size=STRIDE,
        family="saliency",
        dropped=(),
        embedded=True,
        sha256="0cc1ed7d6e5b7a71214ad4b7f66ae0729b155662637eee8ff56a29e8da5908f0",
        notes="A small U-Net on what LOST finds in synthetic scenes; trained by this project, comes with the package.",
    ),
    "basnet_unsupervised": _published(
        "basnet_unsupervised",
        "basnet_unsupervised.pth",
        "https://github.com/wvangansbeke/Unsupervised-Semantic-Segmentation (folder saliency, Google Drive)",
        "BASNet on DeepUSPS' masks of MSRA-B, by MaskContrast: the saliency of COMUS.",
        ("net",),
    ),
    "basnet_supervised": _published(
        "basnet_supervised",
        "basnet.pth",
        "https://github.com/xuebinqin/BASNet (Google Drive)",
        "BASNet on annotated masks, by its authors: the supervised rows of COMUS, Tables 6 and 7.",
    ),
}


@dataclass(frozen=True)
class SaliencyNetwork:
    """A network in evaluation mode on its device, and what is needed to feed it.

    ``side`` is that of the squares which images are resized to, in pixels; ``weights`` says where the parameters came
    from and ``checksum`` which they are: the first 12 hexadecimal digits of the file's SHA-256, or ``random(seed)``.
    """

    network: Basnet | Unet
    side: int
    weights: str
    checksum: str
    device: torch.device
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def load_saliency_network(
    weights: str | Path, device: str | torch.device = "cpu", seed: int = 0, width: int = WIDTH, side: int | None = None
) -> SaliencyNetwork:
    """BASNet, or the small U-Net, with its weights, on ``device``.

    ``weights`` is a name of :data:`NETWORKS` (whose file is then expected in the weights folder, unless it comes with
    the package), the path of a checkpoint as its authors publish it or as it was trained here, or ``"random"`` (BASNet
    drawn from ``seed``, ``width`` channels: a control). ``side`` is that of the network's input, by default what the
    file says, or else 256.

    Raises :class:`WeightsError` for weights that are missing, unreadable or of another architecture, and
    :class:`ParameterError` for a ``side`` that is no multiple of 32 (BASNet), or below 32.
    """
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Basnet(width)
        return _ready(network, SIDE if side is None else side, "random", f"random({seed})", device)
    entry, path = _file(weights)
    state = read_state(entry, path)
    stem = STEM if STEM in state else _STEM
    if stem not in state or state[stem].ndim != 4:
        raise WeightsError(
            f"{path}: no BASNet, for it has no {_STEM} (it has {', '.join(sorted(state)[:3])}, …): give a checkpoint "
            f"of BASNet, or of the U-Net that is trained here, or one of {', '.join(NETWORKS)}"
        )
    channels = len(state[stem])
    trained: Basnet | Unet = Unet(channels) if stem == STEM else Basnet(channels)
    trained.load_state_dict(fitted(entry, trained, state, path))
    chosen = int(_arguments(path).get("side", SIDE)) if side is None else side
    return _ready(trained, chosen, str(path), checksum(path)[:12], device)


def _ready(
    network: Basnet | Unet, side: int, weights: str, identity: str, device: str | torch.device
) -> SaliencyNetwork:
    if isinstance(network, Unet) and side < SMALLEST:
        raise ParameterError(f"side = {side}: the network takes squares whose side is {SMALLEST} pixels or more")
    if isinstance(network, Basnet) and (side < STRIDE or side % STRIDE):
        raise ParameterError(f"side = {side}: the network takes squares whose side is a multiple of {STRIDE} pixels")
    where = torch.device(device)
    return SaliencyNetwork(network.eval().requires_grad_(False).to(where), side, weights, identity, where)


def _file(weights: str | Path) -> tuple[Entry, Path]:
    if str(weights) in NETWORKS:
        entry = NETWORKS[str(weights)]
        if entry.embedded:
            return entry, fetch_weights(entry)
        if (found := find_weights(entry)) is None:
            raise WeightsError(f"{entry.name}: the weights are not on this machine; {how_to_get(entry)}")
        return entry, found
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"weights={str(weights)!r}: there is no such file; give the path of a BASNet checkpoint, "
            f"{', '.join(map(repr, NETWORKS))} or 'random'"
        )
    return NETWORKS["basnet_unsupervised"], path


def _arguments(path: Path) -> dict[str, Any]:
    """What a file that was trained here says of its network; nothing for others."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        about = (file.metadata() or {}).get("foundling", "{}")
    arguments: dict[str, Any] = json.loads(about).get("arguments", {})
    return arguments
