"""The journal of a prediction, where it is not seen from the command."""

from __future__ import annotations

import pytest

from distilpose.errors import DistilPoseError
from distilpose.inference.journal import Journal


def test_the_setting_that_differs_is_named(tmp_path):
    detector = {"_target_": "distilpose.inference.onnx_detector.OnnxDetector", "file": "x" * 200, "threshold": 0.3}
    Journal(tmp_path / "out", {"detector": detector, "boxes": None}, resume=False)
    with pytest.raises(DistilPoseError, match=r"other settings \(detector.threshold was 0.3, is 0.5\)"):
        Journal(tmp_path / "out", {"detector": {**detector, "threshold": 0.5}, "boxes": None}, resume=True)
