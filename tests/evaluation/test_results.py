from __future__ import annotations

import json

import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.evaluation.results import has_value, load_results, markdown_table, of_category, to_rows
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


def test_joints_in_fractions_are_refused(tmp_path):
    path = write_json([{**GOOD, "keypoints": [0.25, 0.5, 0.9, 0.75, 1.0, 0.8]}], tmp_path / "results.json")
    with pytest.raises(DistilPoseError, match=r"results\.json has no coordinate above 1 in 'keypoints'.*fractions"):
        load_results(path, 2, [42], [1])


def test_rows_of_other_categories_are_left_out():
    rows = [GOOD, {**GOOD, "category_id": 2}, {**GOOD, "category_id": 0}]
    assert of_category(rows, 0, "file") == [rows[2]]
    assert of_category([], 1, "file") == []
    with pytest.raises(DistilPoseError, match=r"0 of 3 rows of file have category_id 9 .*1 have 2.*data\.category"):
        of_category(rows, 9, "file")


def test_a_table_shows_shares_in_per_cent_and_other_numbers_as_they_are():
    row = {"AP": 0.5, "APM": -1.0, "PCK up": float("nan"), "loss": -1.0, "rate": 0.00123456}
    row |= {"change": -0.25, "n": -3, "no": None}
    (line,) = markdown_table([row], list(row), shares=("AP", "APM", "PCK up", "change")).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    assert cells == ["50.0", "-", "-", "-1", "0.001235", "-25.0", "-3", "-"]


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("val/AP", 0.0, True), ("val/APM", -1.0, False), ("APM", -1.0, False), ("val/PCK", float("nan"), False),
        ("val/PCK", float("-inf"), False), ("val/score", -1.0, True), ("train/likelihood", -1.0, True), ("val/AP", None, False),
    ],
)  # fmt: skip
def test_which_numbers_are_values(metric, value, expected):
    assert has_value(metric, value) is expected
