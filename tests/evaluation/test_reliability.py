from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from distilpose.data.annotations import load_annotations
from distilpose.errors import DistilPoseError
from distilpose.evaluation import ScoreMap, calibration, fit_score_map, reliability
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton

NAMES = ("snout", "tail")


def drawn(count, seed=0):
    """Scores and similarities whose expectation is known: the score squared for one joint, half of it for the other."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, (count, 2))
    expected = np.stack([scores[:, 0] ** 2, scores[:, 1] / 2], axis=1)
    return scores, np.clip(expected + rng.normal(0, 0.05, expected.shape), 0, 1)


def test_the_curves_are_the_expectations_of_each_joint():
    scores, similarity = drawn(2000)
    score_map = fit_score_map(scores, similarity, np.ones_like(scores, bool), NAMES)
    places = torch.tensor([[0.2, 0.2], [0.5, 0.5], [0.9, 0.9]])
    assert score_map(places).numpy() == pytest.approx(np.array([[0.04, 0.1], [0.25, 0.25], [0.81, 0.45]]), abs=0.03)
    grid = score_map(torch.linspace(-1, 2, 50)[:, None].repeat(1, 2))
    assert (grid.diff(dim=0) >= 0).all()
    assert ((grid >= 0) & (grid <= 1)).all()


def test_held_out_scores_are_reliable_afterwards():
    scores, similarity = drawn(1000)
    score_map = fit_score_map(scores, similarity, np.ones_like(scores, bool), NAMES)
    scores, similarity = drawn(1000, seed=1)
    before, after = (
        calibration(table.ravel(), similarity.ravel())[3] for table in (scores, score_map(torch.tensor(scores)).numpy())
    )
    assert before > 0.15
    assert after < 0.02


def test_a_rare_joint_takes_the_curve_of_all():
    scores, similarity = drawn(500)
    labelled = np.ones_like(scores, bool)
    labelled[5:, 1] = False
    score_map = fit_score_map(scores, similarity, labelled, NAMES)
    assert float(score_map(torch.tensor([[0.9, 0.9]]))[0, 1]) == pytest.approx(0.81, abs=0.05)
    with pytest.raises(DistilPoseError, match=r"at least 20 labelled joints .* there are 0"):
        fit_score_map(scores, similarity, labelled & False, NAMES)


def test_no_image_is_in_both_halves(tiny_coco):
    """Predictions on every other image are perfect, all others are wrong: the map predicts 1 and is always wrong."""
    annotations = load_annotations(tiny_coco(val=12) / "annotations" / "val.json")
    ids = torch.from_numpy(annotations.image_ids)
    first = torch.isin(ids, ids.unique()[::2])
    away = 1e4 * (~first).float()[:, None, None]
    count = len(ids)
    predictions = Predictions(
        torch.from_numpy(annotations.keypoints) + away,
        torch.full((count, 17), 0.5),
        ids,
        torch.from_numpy(annotations.annotation_ids),
        torch.from_numpy(annotations.boxes).float(),
        torch.ones(count),
    )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    result = reliability(Predictions(*(field[order] for field in predictions)), annotations, annotations.skeleton)
    assert result.persons == (int(first.sum()), int((~first).sum()))
    assert (result.before, result.after) == (0.5, 1.0)
    single = reliability(
        Predictions(*(field[ids == ids[0]] for field in predictions)), annotations, annotations.skeleton
    )
    assert (single.before, single.after) == (None, None)


def test_written_and_read_back(tmp_path):
    skeleton = Skeleton.from_names(NAMES)
    scores, similarity = drawn(100)
    score_map = fit_score_map(scores, similarity, np.ones_like(scores, bool), NAMES)
    path = score_map.save(tmp_path / "calibration.json", error_after=0.1)
    assert ScoreMap.load(path, skeleton) == score_map
    with pytest.raises(DistilPoseError, match=r"2 joints \(snout, tail, …\), but the model has 1"):
        ScoreMap.load(path, Skeleton.from_names(["nose"]))


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [[1, 0], [0]]},
        {"expected": None},
        {"expected": [[0.1], [0.2]]},
        {"joints": 3},
        {"scores": [[1, 0]] * 2},
    ],
)
def test_invalid_calibration_files(change, tmp_path):
    content = {"joints": NAMES, "scores": [[0, 1], [0, 1]], "expected": [[0, 1], [0, 1]], "persons": 9, **change}
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(DistilPoseError, match=r"calibration=.*bad\.json"):
        ScoreMap.load(tmp_path / "bad.json", Skeleton.from_names(NAMES))
