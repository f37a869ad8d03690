"""Predictions and targets in, numbers out: one file a metric family."""

from foundling.evaluation.bootstrap import Interval, mean_interval, paired_difference
from foundling.evaluation.boxes import iou
from foundling.evaluation.corloc import CorLoc, corloc, corloc_by_class
from foundling.evaluation.overlap import Overlap, overlap_difference
from foundling.evaluation.precision import ClassAgnostic, class_agnostic, precision_difference
from foundling.evaluation.recall import GroupRecall, MeanRecall, instance_recall, recall_difference
from foundling.evaluation.saliency import SaliencyScores, saliency_counts, saliency_difference, score_saliency
from foundling.evaluation.video import VideoScores, score_videos

__all__ = [
    "ClassAgnostic",
    "CorLoc",
    "GroupRecall",
    "Interval",
    "MeanRecall",
    "Overlap",
    "SaliencyScores",
    "VideoScores",
    "class_agnostic",
    "corloc",
    "corloc_by_class",
    "instance_recall",
    "iou",
    "mean_interval",
    "overlap_difference",
    "paired_difference",
    "precision_difference",
    "recall_difference",
    "saliency_counts",
    "saliency_difference",
    "score_saliency",
    "score_videos",
]
