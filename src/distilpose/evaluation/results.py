"""COCO keypoint results: one row per detected person, written and read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distilpose.data.annotations import read_json
from distilpose.data.units import check_pixels
from distilpose.errors import DistilPoseError
from distilpose.evaluation.coco_ap import COCO_METRICS, RESULT_FIELDS
from distilpose.outputs import Predictions

# columns whose numbers are shares: COCO's metrics, and PCK of all persons and by orientation
SHARES = (*COCO_METRICS, "PCK", "PCK_box", "PCK_upright", "PCK_other", "PCK up", "PCK other")


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


def has_value(metric: str, value: float | None) -> bool:
    """Whether a metric has a value: a finite number, and not COCO's -1 for a set without such persons.

    Args:
        metric: its name, with or without "val/".
        value: its number, if any.
    """
    absent = value == -1 and metric.removeprefix("val/") in COCO_METRICS
    return value is not None and math.isfinite(value) and not absent


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], shares: Collection[str] = SHARES) -> str:
    """Rows as an aligned Markdown table. Missing values are '-', and so is COCO's -1 for a set without such persons.

    Args:
        rows: values by column.
        columns: the columns, in their order.
        shares: columns whose floats are shown in per cent with one decimal. Other floats have four digits.
    """

    def cell(column: str, value: Any) -> str:
        if not isinstance(value, float):
            return "-" if value is None else str(value)
        if not has_value(column, value):
            return "-"
        return f"{100 * value:.1f}" if column in shares else f"{value:.4g}"

    lines = [list(columns), *([cell(column, row.get(column)) for column in columns] for row in rows)]
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
        raise DistilPoseError(f"Results file {path} is no list: expected rows of {', '.join(RESULT_FIELDS)}.")
    image_ids, category_ids = set(image_ids), set(category_ids)
    for number, row in enumerate(rows):
        problem = _problem_of(row, num_keypoints, image_ids, category_ids)
        if problem:
            raise DistilPoseError(f"Row {number} of {path} {problem}.")
    points = [row["keypoints"][axis::3] for row in rows for axis in (0, 1)]
    check_pixels(points, f"Results file {path}", "keypoints", "x and y")
    return rows


def of_category(rows: Sequence[dict[str, Any]], category_id: int, source: str | Path) -> list[dict[str, Any]]:
    """The rows of a category.

    Args:
        rows: result rows of any categories.
        category_id: the category.
        source: the results file, for the message.

    Raises:
        DistilPoseError: there are rows, but none is of the category.
    """
    chosen = [row for row in rows if row["category_id"] == category_id]
    if rows and not chosen:
        others = Counter(row["category_id"] for row in rows).most_common()
        present = ", ".join(f"{count} have {number}" for number, count in others)
        raise DistilPoseError(
            f"0 of {len(rows)} rows of {source} have category_id {category_id} ({present}): write that category_id into the "
            "rows, or choose their category by data.category."
        )
    return chosen


def _problem_of(row: Any, num_keypoints: int, image_ids: set[int], category_ids: set[int]) -> str | None:
    """What is wrong with a row, as the end of the error message; None if it is valid."""
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}: expected a list of objects with {', '.join(RESULT_FIELDS)}"
    missing = [field for field in RESULT_FIELDS if field not in row]
    if missing:
        return f"has no {', '.join(missing)}: expected {', '.join(RESULT_FIELDS)}"
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
