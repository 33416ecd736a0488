"""The journal of a prediction, beyond what tests of the command show."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from distilpose.errors import DistilPoseError
from distilpose.inference.results_journal import ResultsJournal, image_marks


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


@pytest.fixture
def cameras(tmp_path):
    """Two folders of photographs with the same names; and their marks with running ids."""
    random = np.random.default_rng(0)
    marks = {}
    for camera in ("cam1", "cam2"):
        (tmp_path / camera).mkdir()
        paths = [tmp_path / camera / f"000{number}.bmp" for number in (1, 2)]
        for path in paths:
            cv2.imwrite(str(path), random.integers(0, 255, (60, 40, 3), dtype=np.uint8))  # files of equal size
        marks[camera] = lambda paths=paths: image_marks(paths, {path: number for number, path in enumerate(paths, 1)})
    return marks


def test_images_of_the_same_name_are_not_the_same_images(cameras, tmp_path):
    """A prediction on cam1 is not resumed as one on cam2: its rows are of other photographs."""
    journal = ResultsJournal(tmp_path / "out", {"source": cameras["cam1"]()}, resume=False)
    journal.add([(2, [])])
    ResultsJournal(tmp_path / "out", {"source": cameras["cam1"]()}, resume=True)
    with pytest.raises(DistilPoseError, match="source was"):
        ResultsJournal(tmp_path / "out", {"source": cameras["cam2"]()}, resume=True)
    # an image without rows, which could not be read, may be repaired
    (tmp_path / "cam1" / "0001.bmp").write_bytes((tmp_path / "cam2" / "0001.bmp").read_bytes())
    ResultsJournal(tmp_path / "out", {"source": cameras["cam1"]()}, resume=True)
    (tmp_path / "cam1" / "0002.bmp").write_bytes((tmp_path / "cam2" / "0002.bmp").read_bytes())
    with pytest.raises(DistilPoseError, match="source was"):
        ResultsJournal(tmp_path / "out", {"source": cameras["cam1"]()}, resume=True)


def test_the_folder_of_an_image_is_part_of_its_mark(cameras, tmp_path):
    files = [tmp_path / camera / "0001.bmp" for camera in ("cam1", "cam2")]
    assert [mark[:2] for mark in image_marks(files, dict.fromkeys(files, 7))] == [
        ["cam1/0001.bmp", 7],
        ["cam2/0001.bmp", 7],
    ]
    assert image_marks([tmp_path / "gone.jpg"], {tmp_path / "gone.jpg": 1}) == [["gone.jpg", 1, None, None]]


def test_a_journal_of_an_earlier_version_is_resumed(cameras, tmp_path):
    """It has names and ids only."""
    ResultsJournal(tmp_path / "out", {"source": [["0001.bmp", 1], ["0002.bmp", 2]]}, resume=False)
    ResultsJournal(tmp_path / "out", {"source": cameras["cam1"]()}, resume=True)
    with pytest.raises(DistilPoseError, match="source was"):
        ResultsJournal(tmp_path / "out", {"source": cameras["cam1"]()[:1]}, resume=True)
