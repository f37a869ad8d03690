"""train a network without labels

Reads settings from a YAML file (objective, network, images, steps, …; what is left out has its default). Objectives
odin, dino and mae train a backbone; saliency trains a saliency network on the masks of the sources that the file names,
segmenter a head on a backbone that stays as it is, contrast a network that tells the objects in such masks apart;
semantic trains a segmenter for classes on a folder of label maps, or on what another predicts; detector trains one on
boxes, such as `foundling discover` found in your photos (--set labels=found --set root=photos); solo and mask_rcnn
train an instance segmenter on masks, such as `foundling propose` wrote (likewise); refinement trains a detector on the
features of a backbone, and the backbone through it.

Writes:

  RUN.safetensors         the backbone in half precision, under timm's names; or another network as its objective has it
  RUN_dense.safetensors   feature pyramid and projector as well, where a pyramid was trained
  RUN_h.safetensors       of refinement: the detector
  RUN_masks/              masks of the sources of saliency, segmenter or contrast; label maps that a segmenter predicts
  RUN.state               what an interrupted run goes on from: give the same command again
  RUN.history.csv         losses, images a second, and what the features vary with (a collapsed run shows here)

Several GPUs, or machines: accelerate launch -m foundling.training FILE --out RUN
"""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundling.errors import ParameterError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="YAML file of settings")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="path of the results, without an ending")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="in place of the file's, as in steps=100",
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="stop after so long; the same command goes on"
    )
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")


def run(args: argparse.Namespace) -> int:
    if not args.minutes > 0:
        raise ParameterError(f"--minutes {args.minutes}: give more than 0")
    settings = read_settings(args.file, args.set)
    import torch

    if settings.objective in ("saliency", "segmenter"):
        from foundling.training.saliency import train_on_sources

        outcome = train_on_sources(settings, args.out, args.minutes, cpu=args.cpu)
    elif settings.objective == "contrast":
        from foundling.training.contrast import train_contrast

        outcome = train_contrast(settings, args.out, args.minutes, cpu=args.cpu)
    elif settings.objective == "semantic":
        from foundling.training.semantic.runs import train_on_maps

        outcome = train_on_maps(settings, args.out, args.minutes, cpu=args.cpu)
    elif settings.objective == "detector":
        from foundling.training.detection_runs import train_on_labels

        outcome = train_on_labels(settings, args.out, args.minutes, cpu=args.cpu)
    elif settings.objective in ("solo", "mask_rcnn"):
        from foundling.training.instance.runs import train_on_masks

        outcome = train_on_masks(settings, args.out, args.minutes, cpu=args.cpu)
    elif settings.objective == "refinement":
        from foundling.training.refinement.runs import refine_on_dataset

        outcome = refine_on_dataset(settings, args.out, args.minutes, cpu=args.cpu)
    else:
        from foundling.training.representation import train

        outcome = train(settings, args.out, args.minutes, cpu=args.cpu)
    if int(os.environ.get("RANK", 0)) == 0:
        left = f"{settings.steps - outcome.steps} of {settings.steps} steps left"
        if getattr(settings, "epochs", 0):  # how many steps these take, the images say
            left = f"{outcome.steps} steps done"
        print(f"{outcome.file}: {'all steps done' if outcome.finished else f'{left}, run again to go on'}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


def read_settings(file: Path, given: Sequence[str] = ()) -> Any:
    """The settings in a YAML file, and in place of the file's those ``given`` as KEY=VALUE; values are read as YAML.

    Raises ParameterError naming the file, and every key that is unknown or whose value is not legal.
    """
    import yaml

    from foundling.studies import read_mapping
    from foundling.training.contrast_settings import ContrastOnSources
    from foundling.training.detection_runs import DetectorOnLabels
    from foundling.training.instance.settings import RUNS
    from foundling.training.refinement.settings import RefinementOnDataset
    from foundling.training.saliency_settings import SaliencyOnSources, SegmentationOnSources
    from foundling.training.semantic.settings import SemanticOnMaps
    from foundling.training.settings import OBJECTIVES, Common, checked

    values: dict[str, Any] = read_mapping(file, str(file), "training", Common)
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise ParameterError(f"--set {text}: write KEY=VALUE")
        values[key] = yaml.safe_load(value)
    models: dict[str, Any] = {
        **OBJECTIVES,
        "saliency": SaliencyOnSources,
        "segmenter": SegmentationOnSources,
        "contrast": ContrastOnSources,
        "semantic": SemanticOnMaps,
        "detector": DetectorOnLabels,
        "refinement": RefinementOnDataset,
        **RUNS,
    }
    return checked(models, values, str(file))
