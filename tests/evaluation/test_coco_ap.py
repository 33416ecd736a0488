from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from distilpose.evaluation.coco_ap import COCO_METRICS, coco_metrics
from distilpose.skeleton import COCO as SKELETON


def annotation_set(persons: int = 24, joints: int = 17, seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    annotations = []
    for index in range(persons):
        side = generator.uniform(40, 200)
        corner = generator.uniform(0, 200, 2)
        points = corner + side * generator.uniform(0, 1, (joints, 2))
        visible = generator.choice([0, 1, 2], joints, p=[0.2, 0.2, 0.6])
        annotations.append(
            {
                "id": index + 1,
                "image_id": 10 + index % 6,
                "category_id": 1,
                "iscrowd": int(index == 3),
                "area": float(0.5 * side**2),
                "bbox": [*corner.tolist(), side, side],
                "num_keypoints": int((visible > 0).sum()),
                "keypoints": np.concatenate([points, visible[:, None]], 1).ravel().tolist(),
            }
        )
    names = list(SKELETON.names) if joints == 17 else [f"joint_{index}" for index in range(joints)]
    return {
        "images": [{"id": 10 + index, "file_name": f"{index}.jpg"} for index in range(6)],
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}],
        "annotations": annotations,
    }


def rows_of(truth: dict, noise: float = 0.0, seed: int = 1) -> list[dict]:
    generator = np.random.default_rng(seed)
    rows = []
    for annotation in truth["annotations"]:
        points = np.array(annotation["keypoints"], float).reshape(-1, 3)
        points[:, :2] += noise * generator.standard_normal((len(points), 2))
        rows.append(
            {
                "image_id": annotation["image_id"],
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "score": float(generator.uniform()),
            }
        )
    return rows


def by_pycocotools(path, rows) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(rows), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("noise", [1.0, 4.0, 10.0])
def test_equals_pycocotools_to_the_last_bit(tmp_path, noise):
    truth = annotation_set()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    rows = rows_of(truth, noise)
    metrics = coco_metrics(path, rows, SKELETON.sigmas)
    assert list(metrics) == list(COCO_METRICS)
    assert list(metrics.values()) == by_pycocotools(path, rows)
    assert 0 < metrics["AP"] < 1


def test_truth_fed_back_scores_one(tmp_path, capsys):
    truth = annotation_set()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    figures = coco_metrics(path, rows_of(truth), SKELETON.sigmas)
    assert figures == dict.fromkeys(COCO_METRICS, 1.0)
    assert capsys.readouterr().out == ""


def test_another_skeleton_and_missing_fields(tmp_path):
    # custom sets may omit num_keypoints, iscrowd and area
    truth = annotation_set(joints=5)
    for annotation in truth["annotations"]:
        for field in ("num_keypoints", "iscrowd", "area"):
            del annotation[field]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    assert coco_metrics(path, rows_of(truth), [0.05] * 5)["AP"] == 1.0


def test_no_results_score_zero(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(annotation_set()))
    assert coco_metrics(path, [], SKELETON.sigmas)["AP"] == 0.0


def test_rows_are_left_as_they_were(tmp_path):
    truth = annotation_set()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    rows = rows_of(truth)
    before = json.dumps(rows)
    coco_metrics(path, rows, SKELETON.sigmas)
    assert json.dumps(rows) == before


def test_coco_slice(shared_data):
    path = shared_data / "coco-mini" / "annotations" / "person_keypoints_val2017.json"
    truth = json.loads(path.read_text())
    labelled = {"annotations": [a for a in truth["annotations"] if a["num_keypoints"] and not a["iscrowd"]]}
    assert len(labelled["annotations"]) == 314
    assert coco_metrics(path, rows_of(labelled), SKELETON.sigmas) == dict.fromkeys(COCO_METRICS, 1.0)
    rows = rows_of(labelled, noise=6.0)
    assert list(coco_metrics(path, rows, SKELETON.sigmas).values()) == by_pycocotools(path, rows)
