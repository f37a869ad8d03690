"""A detector of the engine that its settings name: both take and give what torchvision's detectors do."""

from torch import nn

from foundling.training.detection.bodies import Body
from foundling.training.detection.networks import make_detector
from foundling.training.detection.settings import Detector


def make_engine(settings: Detector, body: Body) -> nn.Module:
    """The detector that ``settings`` describe, on ``body``; its heads are drawn by PyTorch's generator.

    In training it takes images (RGB in 0..1, of any size) and targets (``boxes`` in pixels, ``labels`` from 1), and
    gives losses by name; else it takes images, and gives ``boxes``, ``scores`` and ``labels`` of each.

    Raises ParameterError if the engine is not installed, or cannot do what ``settings`` say.
    """
    if settings.engine == "detectron2":
        from foundling.training.detection.detectron2_engine import Detectron2Network

        return Detectron2Network(settings, body)
    return make_detector(settings, body)
