"""The journal of a prediction, beyond what tests of the command show."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilpose.errors import DistilPoseError
from distilpose.inference.results_journal import ResultsJournal


def test_the_changed_setting_is_named(tmp_path):
    detector = {"_target_": "distilpose.inference.onnx_detector.OnnxDetector", "file": "x" * 200, "threshold": 0.3}
    ResultsJournal(tmp_path / "out", {"detector": detector, "boxes": None}, resume=False)
    with pytest.raises(DistilPoseError) as error:
        ResultsJournal(tmp_path / "out", {"detector": {**detector, "threshold": 0.5}, "boxes": None}, resume=True)
    assert "(detector.threshold was 0.3, is 0.5)" in str(error.value)


@pytest.mark.parametrize("line", [b'{"number": 1}', b'{"number": "\xff"}', b"5", b'"text"', b"{"])
def test_a_damaged_journal(tmp_path, line):
    (tmp_path / "journal.jsonl").write_bytes(b'{"settings": {}}\n' + line + b"\n")
    with pytest.raises(DistilPoseError, match=r"journal\.jsonl.*damaged.*output="):
        ResultsJournal(tmp_path, {}, resume=True)


def test_a_full_disk(tmp_path):
    journal = ResultsJournal(tmp_path / "out", {}, resume=False)
    journal.path = Path("/dev/full")
    with pytest.raises(DistilPoseError, match=r"/dev/full cannot be written .*No space left.*resume=auto"):
        journal.add([(1, [])])
