"""Predictions and targets in, numbers out: one file a metric family."""

from foundling.evaluation.bootstrap import (
    Figures,
    Interval,
    mean_interval,
    paired_difference,
    precision_difference,
    seeds_interval,
)
from foundling.evaluation.boxes import iou
from foundling.evaluation.class_aware import ClassAware, class_aware
from foundling.evaluation.corloc import CorLoc, corloc, corloc_by_class
from foundling.evaluation.detection import from_results, to_results, top_boxes, without_difficult
from foundling.evaluation.odap import OdAP, mean_of_aps, od_ap
from foundling.evaluation.overlap import Overlap, overlap_difference
from foundling.evaluation.precision import ClassAgnostic, class_agnostic
from foundling.evaluation.recall import GroupRecall, MeanRecall, instance_recall, recall_difference
from foundling.evaluation.saliency import SaliencyScores, saliency_counts, saliency_difference, score_saliency
from foundling.evaluation.video import VideoScores, score_videos
from foundling.evaluation.voc_ap import VocPrecision, voc_precision

__all__ = [
    "ClassAgnostic",
    "ClassAware",
    "CorLoc",
    "Figures",
    "GroupRecall",
    "Interval",
    "MeanRecall",
    "OdAP",
    "Overlap",
    "SaliencyScores",
    "VideoScores",
    "VocPrecision",
    "class_agnostic",
    "class_aware",
    "corloc",
    "corloc_by_class",
    "from_results",
    "instance_recall",
    "iou",
    "mean_interval",
    "mean_of_aps",
    "od_ap",
    "overlap_difference",
    "paired_difference",
    "precision_difference",
    "recall_difference",
    "saliency_counts",
    "saliency_difference",
    "score_saliency",
    "score_videos",
    "seeds_interval",
    "to_results",
    "top_boxes",
    "voc_precision",
    "without_difficult",
]
