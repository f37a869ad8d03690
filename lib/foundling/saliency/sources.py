"""Where saliency comes from: unsupervised methods on a backbone's features, or a saliency network, all alike."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from foundling.backbones import Backbone
from foundling.discovery.methods import METHODS
from foundling.discovery.stream import Found, discover_images
from foundling.errors import ParameterError
from foundling.saliency.masks import SaliencyMasks, union_mask
from foundling.saliency.network import SaliencyNetwork, load_saliency_network
from foundling.saliency.predict import predict_masks
from foundling.types import Sample

NETWORK = "network"
PREDICTION = ("scale", "batch_size")  # its settings that predict_masks takes
SALIENCY: dict[str, str] = {  # source -> method of discovery, or the saliency network
    "spectral": "saliency",
    "dino_seg": "dino_seg",
    "lost": "lost",
    "tokencut": "tokencut",
    NETWORK: NETWORK,
}


def saliency_masks(
    sources: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Sample],
    backbone: Backbone | None = None,
    network: SaliencyNetwork | None = None,
    *,
    out: Path | None = None,
    progress: bool = True,
    **options: Any,
) -> dict[str, SaliencyMasks]:
    """One mask an image from each of ``sources``, in the order in which they are given.

    ``sources`` maps a label to settings, with the name of the source under ``"source"`` (the label itself if absent):
    one of :data:`SALIENCY`, or as a control any method of :data:`foundling.discovery.METHODS`. Those of methods are the
    method's, and all methods share one pass of ``backbone``; those of ``"network"`` are ``scale`` and ``batch_size`` of
    :func:`foundling.saliency.predict_masks`, and ``weights``, by which :func:`load_saliency_network` finds another
    network than ``network``.

    With ``out``, results are kept in folders of it, and used again. ``options`` are those of
    :func:`foundling.discovery.discover_images`. Raises :class:`ParameterError`, before any image is read, for a source
    or setting that there is not, or without the backbone or the network that a source needs, and
    :class:`WeightsError` for weights that cannot be had.
    """
    plan = {label: _resolve(label, settings) for label, settings in sources.items()}
    if not plan:
        raise ParameterError(f"no source of saliency given: choose one or more of {', '.join(SALIENCY)}")
    methods = {label: settings for label, settings in plan.items() if settings["method"] != NETWORK}
    looks = {label: settings for label, settings in plan.items() if settings["method"] == NETWORK}
    if methods and backbone is None:
        raise ParameterError(f"the source {next(iter(methods))!r} needs a backbone: pass backbone=")
    device = next((given.device for given in (network, backbone) if given is not None), "cpu")
    networks = {label: _network(label, settings, network, device) for label, settings in looks.items()}
    found: dict[str, SaliencyMasks] = {}
    if methods and backbone is not None:
        folder = None if out is None else out / "discovery"
        discovered = discover_images(backbone, samples, methods, out=folder, progress=progress, **options)
        found |= {label: masks_of(discovered, label) for label in methods}
    for label, settings in looks.items():
        chosen = {name: value for name, value in settings.items() if name in PREDICTION}
        folder = None if out is None else out / "networks" / label
        found[label] = predict_masks(networks[label], samples, out=folder, progress=progress, **chosen)
    return {label: found[label] for label in plan}


def _network(
    label: str, settings: Mapping[str, Any], given: SaliencyNetwork | None, device: str | torch.device
) -> SaliencyNetwork:
    """The network of a source: of its own weights, or else the one that was passed."""
    if "weights" in settings:
        return load_saliency_network(settings["weights"], device)
    if given is None:
        raise ParameterError(f"the source {label!r} needs a network: pass network=, or name its 'weights'")
    return given


def masks_of(found: Found, label: str) -> SaliencyMasks:
    """What the method ``label`` of a run of ``discover_images`` found, one mask an image: the union of its objects.

    Raises :class:`ParameterError` for a label that was not run.
    """
    if label not in found.boxes:
        raise ParameterError(f"no results under {label!r}: choose one of {', '.join(found.boxes)}")
    masks: list[dict[str, Any] | None] = [None] * len(found.names)
    for record in found.records:
        masks[record["index"]] = union_mask(record, label)
    return SaliencyMasks(label, found.names, found.sizes, tuple(masks), tuple(found.failures))


def _resolve(label: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a source with the name of its method (or the network) under ``"method"``."""
    rest = dict(settings)
    name = rest.pop("source", label)
    if name not in SALIENCY and name not in METHODS:
        raise ParameterError(
            f"unknown source of saliency {name!r} (for {label!r}): choose one of {', '.join(SALIENCY)}; "
            f"or, as a control, a method such as centre_box"
        )
    if name == NETWORK and (unknown := sorted(rest.keys() - {*PREDICTION, "weights"})):
        raise ParameterError(
            f"{label}: the saliency network has no setting {unknown[0]!r}: legal are {', '.join(PREDICTION)}, weights"
        )
    return {"method": SALIENCY.get(name, name), **rest}
