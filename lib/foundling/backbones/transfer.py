"""A network trained here, for others: as a timm model, and as a file for Detectron2.

`foundling train` writes RUN.safetensors, the backbone, and RUN_dense.safetensors, the backbone and its feature pyramid;
the functions here take either. Of the dense file, all use the pyramid where they have a place for it.
:mod:`foundling.backbones.detectors` makes backbones for torchvision's detectors.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from foundling.errors import ParameterError, WeightsError
from foundling.files import write_bytes

HEADER = "foundling"  # the entry of a file's header that says how the file was made
_KEYS = ("architecture", "arguments", "mean", "std")

_ANY_SIZE: dict[str, dict[str, Any]] = {
    "vision_transformer": {"dynamic_img_size": True, "dynamic_img_pad": True},
    "swin_transformer": {"strict_img_size": False},
}

# ResNets that timm, torchvision and Detectron2 all have: depth, groups, channels a group in the first stage.
RESNETS = {
    "resnet18": (18, 1, 64),
    "resnet34": (34, 1, 64),
    "resnet50": (50, 1, 64),
    "resnet101": (101, 1, 64),
    "resnet152": (152, 1, 64),
    "resnext50_32x4d": (50, 32, 4),
    "resnext101_32x8d": (101, 32, 8),
    "resnext101_64x4d": (101, 64, 4),
    "wide_resnet50_2": (50, 1, 128),
    "wide_resnet101_2": (101, 1, 128),
}
# Options of timm's ResNets that do not change what the network computes once it is trained.
_HARMLESS = {"num_classes", "zero_init_last", "drop_rate", "drop_path_rate", "drop_block_rate"}

_CONFIG_NOTE = """\
# Merge into the config of a detector: cfg.merge_from_file("{name}"). What the backbone needs, and nothing else:
# images in RGB, this mean and deviation, and the stride in the 3x3 convolutions.
# Detectron2 freezes the first two stages and all batch normalisation unless told otherwise. To train all of it:
# MODEL.BACKBONE.FREEZE_AT: 0, and MODEL.RESNETS.NORM: SyncBN (on one GPU: BN).
"""


class Trained(NamedTuple):
    """What a file holds: timm's name and options, the mean and deviation of RGB in 0..1, and the parameters in half
    precision, of the backbone under timm's names and of the pyramid (empty if the file has none) under torchvision's.
    """

    file: Path
    architecture: str
    options: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    backbone: dict[str, Tensor]
    pyramid: dict[str, Tensor]


def read_trained(file: str | Path) -> Trained:
    """Read RUN.safetensors or RUN_dense.safetensors.

    Raises WeightsError if there is no such file, it is damaged, or does not say which network it holds.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such file; name one that `foundling train` wrote, RUN.safetensors")
    try:
        with safe_open(file, framework="pt") as content:
            about = _about(file, content.metadata() or {})
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{file} is no safetensors file, or damaged ({error}): name one that `foundling train` wrote, "
            "RUN.safetensors, or get it again"
        ) from error
    dense = any(name.startswith("backbone.") for name in tensors)
    return Trained(
        file,
        about["architecture"],
        dict(about["arguments"]),
        tuple(about["mean"]),
        tuple(about["std"]),
        _below("backbone.", tensors) if dense else tensors,
        _below("fpn.", tensors) if dense else {},
    )


def load_timm(file: str | Path, **changes: Any) -> nn.Module:
    """The backbone in ``file`` as a timm model without a classifier, in float32 and evaluation mode.

    It takes RGB images in 0..1 less the mean and divided by the deviation in the file (ImageNet's), of any size.
    ``changes`` are options for timm in place of those in the file, such as ``drop_path_rate=0.1``.

    Raises WeightsError as :func:`read_trained`, and if the file's tensors are of another network than it says.
    """
    return make_timm(read_trained(file), changes)


def make_timm(trained: Trained, changes: Mapping[str, Any]) -> nn.Module:
    """:func:`load_timm` of a file that was read."""
    file, name = trained.file, trained.architecture
    if not timm.is_model(name):
        raise WeightsError(
            f"{file} holds the architecture {name!r}, which timm {timm.__version__} does not have: "
            "use a file of `foundling train`, and the version of timm that it was made with"
        )
    family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
    options = {"num_classes": 0} | _ANY_SIZE.get(family, {}) | trained.options | dict(changes)
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise WeightsError(
            f"{file}: timm {timm.__version__} cannot make {name} with the options {options} ({error}): use the version "
            "of timm that the file was made with"
        ) from error
    fill(network, trained.backbone, trained)
    return network.eval()


def fill(network: nn.Module, tensors: Mapping[str, Tensor], trained: Trained) -> None:
    """Load all of ``tensors`` into all of ``network``; raises WeightsError if the names or shapes are others."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{trained.file} does not hold what its header says, {trained.architecture} with the options "
            f"{trained.options} ({reason}): export it again with `foundling train`"
        ) from error


def is_common_resnet(trained: Trained) -> bool:
    """Whether torchvision and Detectron2 have the very network."""
    return trained.architecture in RESNETS and set(trained.options) <= _HARMLESS


# Detectron2


def to_detectron2(file: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the ResNet in ``file`` so that Detectron2 loads it into its own, with a feature pyramid or without.

    ``out`` (``….pkl``) is what ``MODEL.WEIGHTS`` names: float32 under Detectron2's names, ``stem.conv1``, ``res2`` and
    so on; of a dense file also ``fpn_lateral2`` to ``5`` and ``fpn_output2``, the finest, which is all that training
    here uses of a pyramid. Beside it ``out`` with ``.yaml`` is the part of the config that these weights need. This
    part is returned.

    Raises WeightsError as :func:`load_timm`, and if Detectron2 has no such network; ParameterError for a name without
    ``.pkl``; FoundlingError if the disk is full.
    """
    out = Path(out).expanduser()
    if out.suffix != ".pkl":
        raise ParameterError(f"{out}: Detectron2 tells its files by their ending: give a name that ends in .pkl")
    trained = read_trained(file)
    if not is_common_resnet(trained):
        raise WeightsError(
            f"{trained.file} holds {trained.architecture} with the options {trained.options}, which is none of "
            f"Detectron2's ResNets: give a file of one of {', '.join(RESNETS)}, without options"
        )
    make_timm(trained, {})  # or an error: Detectron2 itself would only log what does not fit
    arrays = {
        name: tensor.float().numpy() for name, tensor in detectron2_names(trained.backbone, trained.pyramid).items()
    }
    content = {"model": arrays, "__author__": HEADER, "matching_heuristics": True}  # heuristics: names may get prefixes
    config = detectron2_config(trained, out)
    write_bytes(out, pickle.dumps(content, protocol=4))
    note = _CONFIG_NOTE.format(name=out.with_suffix(".yaml").name)
    write_bytes(out.with_suffix(".yaml"), (note + yaml.safe_dump(config, sort_keys=False)).encode())
    return config


def detectron2_config(trained: Trained, weights: Path) -> dict[str, Any]:
    """The keys of Detectron2's config that decide whether its ResNet computes what the one in the file does."""
    depth, groups, width = RESNETS[trained.architecture]
    resnet = {
        "DEPTH": depth,
        "NUM_GROUPS": groups,
        "WIDTH_PER_GROUP": width,
        "RES2_OUT_CHANNELS": 64 if depth < 50 else 256,
        "STRIDE_IN_1X1": False,
    }
    model = {
        "WEIGHTS": str(weights),
        "PIXEL_MEAN": [round(255 * value, 4) for value in trained.mean],
        "PIXEL_STD": [round(255 * value, 4) for value in trained.std],
        "RESNETS": resnet,
    }
    return {"MODEL": model, "INPUT": {"FORMAT": "RGB"}}


def detectron2_names(resnet: Mapping[str, Tensor], pyramid: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A ResNet's tensors, and those of the pyramid on it, under Detectron2's names instead of torchvision's."""
    renamed = {}
    for name, tensor in resnet.items():
        *path, layer, value = name.split(".")  # layer1.0.conv1.weight, layer1.0.downsample.1.bias, bn1.bias
        if value == "num_batches_tracked":  # Detectron2's frozen normalisation has no such counter
            continue
        if path and path[-1] == "downsample":
            path, layer = path[:-1], "shortcut" if layer == "0" else "shortcut.norm"
        layer = f"conv{layer[2:]}.norm" if layer.startswith("bn") else layer
        path = [f"res{int(path[0].removeprefix('layer')) + 1}", *path[1:]] if path else ["stem"]
        renamed[".".join([*path, layer, value])] = tensor
    for name, tensor in (pyramid or {}).items():  # inner_blocks.0.0.weight
        blocks, level, _, value = name.split(".")
        kind = "lateral" if blocks == "inner_blocks" else "output"
        renamed[f"fpn_{kind}{int(level) + 2}.{value}"] = tensor
    return renamed


# Reading


def _about(file: Path, header: Mapping[str, str]) -> dict[str, Any]:
    try:
        about = json.loads(header.get(HEADER, "null"))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{file}: the entry {HEADER!r} of its header is not JSON ({error}): get it again") from error
    missing = [key for key in _KEYS if key not in about] if isinstance(about, dict) else list(_KEYS)
    if missing:
        raise WeightsError(
            f"{file} does not say which network it holds (its header has no {HEADER}: {', '.join(missing)}): name a "
            "file that `foundling train` wrote, RUN.safetensors"
        )
    return dict(about)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
