"""What detections that are kept on disk depend on."""

import sys

from foundling import paths
from foundling.training.detected import SOURCES
from foundling.training.detection import predict


def test_kept_detections_depend_on_the_code_that_makes_them():
    files = {path for pattern in SOURCES for path in paths.PACKAGE.glob(pattern)}
    assert all(list(paths.PACKAGE.glob(pattern)) for pattern in SOURCES)
    called = [predict.detect, predict.in_batches, predict.rebuild, predict.make_engine]
    assert {paths.PACKAGE / sys.modules[one.__module__].__file__ for one in called} <= files
