from __future__ import annotations

import json

import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.evaluation.results import load_results, to_rows
from distilpose.files import write_json
from distilpose.outputs import Predictions


def predictions() -> Predictions:
    return Predictions(
        keypoints=torch.tensor([[[1.5, 2.5], [3.0, 4.0]]]),
        scores=torch.tensor([[0.5, -0.25]]),
        image_id=torch.tensor([42]),
        annotation_id=torch.tensor([7]),
        bbox=torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        bbox_score=torch.tensor([1.0]),
    )


GOOD = {"image_id": 42, "category_id": 1, "keypoints": [1.5, 2.5, 0.5, 3.0, 4.0, -0.25], "score": 0.5}


def test_rows_written_and_read_back(tmp_path):
    rows = to_rows(predictions(), torch.tensor([0.5]), category_id=1)
    assert rows == [GOOD]
    path = write_json(rows, tmp_path / "new" / "results.json")
    assert load_results(path, 2, [42], [1]) == rows
    assert [place.name for place in path.parent.iterdir()] == ["results.json"]


def test_a_number_that_is_not_finite_is_null_in_json(tmp_path):
    path = write_json({"PCK": float("nan"), "list": [1.0, float("inf")]}, tmp_path / "metrics.json")
    assert json.loads(path.read_text()) == {"PCK": None, "list": [1.0, None]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GOOD, "keypoints": [1.0] * 51}, "has 51 keypoint numbers: expected 6"),
        ({**GOOD, "keypoints": None}, "expected 6"),
        ({**GOOD, "image_id": 43}, "image_id 43"),
        ({**GOOD, "image_id": [42]}, r"image_id \[42\]"),
        ({**GOOD, "category_id": 9}, "category_id 9"),
        ({**GOOD, "score": float("nan")}, "not a finite number"),
        ({**GOOD, "keypoints": [1.0, 2.0, None, 1.0, 2.0, 3.0]}, "not a finite number"),
        ({"image_id": 42, "category_id": 1}, "no keypoints, score"),
        ([1, 2], "is a list"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD, row]))
    with pytest.raises(DistilPoseError, match=message) as caught:
        load_results(path, 2, [42], [1])
    assert "Row 1 of" in str(caught.value)


def test_invalid_results_files(tmp_path):
    with pytest.raises(DistilPoseError, match=r"absent\.json does not exist"):
        load_results(tmp_path / "absent.json", 2, [42], [1])
    path = tmp_path / "results.json"
    for text, message in (("[{", "is not JSON"), ('{"rows": []}', "is no list"), ("7", "is no list")):
        path.write_text(text)
        with pytest.raises(DistilPoseError, match=message):
            load_results(path, 2, [42], [1])
