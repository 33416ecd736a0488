"""COCO keypoint results: one row per detected person, written and read."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distilpose.data.annotations import read_json
from distilpose.errors import DistilPoseError
from distilpose.outputs import Predictions

_FIELDS = ("image_id", "category_id", "keypoints", "score")


def to_rows(predictions: Predictions, scores: Tensor, category_id: int) -> list[dict[str, Any]]:
    """COCO result rows: image_id, category_id, keypoints as a flat list of K times x, y, score, and the person's score.

    Args:
        predictions: N persons.
        scores: (N,) score of each person.
        category_id: the category of all rows.
    """
    joined = torch.cat([predictions.keypoints.double(), predictions.scores.double()[..., None]], dim=-1)
    triples = joined.flatten(1).tolist()
    return [
        {"image_id": image_id, "category_id": category_id, "keypoints": triple, "score": score}
        for image_id, triple, score in zip(predictions.image_id.tolist(), triples, scores.tolist(), strict=True)
    ]


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as an aligned Markdown table. Floats are shown in per cent with one decimal, missing values as '-'.

    COCO's -1 for a set without such persons is shown as '-' too.
    """

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{100 * value:.1f}" if value >= 0 else "-"
        return "-" if value is None else str(value)

    lines = [list(columns), *([cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def load_results(
    path: str | Path,
    num_keypoints: int,
    image_ids: Collection[int],
    category_ids: Collection[int],
) -> list[dict[str, Any]]:
    """Read a COCO keypoint results file and check every row.

    Args:
        path: JSON list of rows.
        num_keypoints: K; each row has 3K numbers.
        image_ids: the images of the annotation file.
        category_ids: the categories of the annotation file.

    Raises:
        DistilPoseError: the file cannot be read, or a row is wrong; the message names the row.
    """
    rows = read_json(path, "Results file", "give a JSON list of COCO keypoint results")
    if not isinstance(rows, list):
        raise DistilPoseError(f"Results file {path} is no list: expected rows of {', '.join(_FIELDS)}.")
    image_ids, category_ids = set(image_ids), set(category_ids)
    for number, row in enumerate(rows):
        problem = _problem_of(row, num_keypoints, image_ids, category_ids)
        if problem:
            raise DistilPoseError(f"Row {number} of {path} {problem}.")
    return rows


def _problem_of(row: Any, num_keypoints: int, image_ids: set[int], category_ids: set[int]) -> str | None:
    """What is wrong with a row, as the end of the error message; None if it is valid."""
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}: expected a list of objects with {', '.join(_FIELDS)}"
    missing = [field for field in _FIELDS if field not in row]
    if missing:
        return f"has no {', '.join(missing)}: expected {', '.join(_FIELDS)}"
    keypoints = row["keypoints"]
    if not isinstance(keypoints, Sequence) or len(keypoints) != 3 * num_keypoints:
        count = len(keypoints) if isinstance(keypoints, Sequence) else "no list of"
        return (
            f"has {count} keypoint numbers: expected {3 * num_keypoints} (x, y, score for each of {num_keypoints} "
            "joints), so use the annotation file of these results"
        )
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in [*keypoints, row["score"]]):
        return "has a keypoint or score that is not a finite number: correct or remove that row"
    if not isinstance(row["image_id"], (int, str)) or row["image_id"] not in image_ids:
        return (
            f"has image_id {row['image_id']!r}, which is not in the annotation file: "
            "use the annotation file of these results"
        )
    if not isinstance(row["category_id"], int) or row["category_id"] not in category_ids:
        return f"has category_id {row['category_id']!r}: the annotation file has {sorted(category_ids)}"
    return None
