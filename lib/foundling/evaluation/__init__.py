"""Predictions and targets in, numbers out: one file a metric family."""

from foundling.evaluation.bootstrap import Interval, mean_interval, paired_difference
from foundling.evaluation.boxes import iou
from foundling.evaluation.corloc import CorLoc, corloc, corloc_by_class

__all__ = ["CorLoc", "Interval", "corloc", "corloc_by_class", "iou", "mean_interval", "paired_difference"]
