from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pycocotools import coco as pycoco
from pycocotools.cocoeval import COCOeval

from distilpose.evaluation.oks import oks, oks_nms, oks_nms_per_image, padded_area
from distilpose.skeleton import COCO


def release_nms(keypoints, scores, areas, sigmas, threshold):
    """The published greedy loop."""
    variances = (np.asarray(sigmas) * 2) ** 2
    order, keep = np.argsort(scores, kind="stable")[::-1], []
    while len(order):
        first, rest = order[0], order[1:]
        keep.append(int(first))
        values = []
        for other in rest:
            d2 = ((keypoints[other] - keypoints[first]) ** 2).sum(-1)
            e = d2 / variances / ((areas[first] + areas[other]) / 2 + np.spacing(1)) / 2
            values.append(np.exp(-e).sum() / len(e))
        order = rest[np.array(values, dtype=float) <= threshold]
    return keep


def crowd(seed: int, persons: int = 30):
    generator = torch.Generator().manual_seed(seed)
    poses = 100 + 60 * torch.rand(5, 17, 2, generator=generator)
    keypoints = poses[torch.arange(persons) % 5] + 1.5 * torch.randn(persons, 17, 2, generator=generator)
    scores = torch.rand(persons, generator=generator)
    areas = 2000 + 8000 * torch.rand(persons, generator=generator)
    return keypoints, scores, areas


def test_oks_of_a_known_distance():
    # one joint off by d = 2 sigma sqrt(area), the others exact: (16 + exp(-1/2)) / 17
    target = torch.zeros(17, 2, dtype=torch.float64)
    predicted = target.clone()
    predicted[5, 0] = 2 * COCO.sigmas[5] * 50
    value = oks(predicted, target, torch.tensor(2500.0, dtype=torch.float64), COCO.sigmas)
    assert float(value) == pytest.approx((16 + np.exp(-0.5)) / 17, abs=1e-12)


def test_oks_counts_labelled_joints_only():
    target = torch.zeros(2, 17, 2)
    predicted = target + 1000
    predicted[:, 3] = 0
    labelled = torch.zeros(2, 17)
    labelled[0, 3] = 1
    value = oks(predicted, target, torch.tensor([100.0, 100.0]), COCO.sigmas, labelled)
    assert value.tolist() == [1.0, 0.0]


def test_oks_agrees_with_pycocotools():
    generator = np.random.default_rng(0)
    truth = generator.uniform(0, 200, (3, 17, 2))
    visible = generator.integers(0, 3, (3, 17))
    poses = truth[:, None] + generator.normal(0, 8, (3, 4, 17, 2))

    def coco_of(poses, marks, **fields):
        coco = pycoco.COCO()
        rows = [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 9000.0,
                "bbox": [0, 0, 9, 9],
                "score": -i,
                "num_keypoints": int((mark > 0).sum()),
                "keypoints": np.concatenate([pose, mark[:, None]], 1).ravel().tolist(),
            }
            for i, (pose, mark) in enumerate(zip(poses, marks, strict=True))
        ]
        coco.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": rows}
        coco.createIndex()
        return coco

    flat = poses.reshape(12, 17, 2)
    evaluation = COCOeval(coco_of(truth, visible), coco_of(flat, np.ones((12, 17))), "keypoints")
    evaluation._prepare()
    expected = evaluation.computeOks(1, 1)
    similarity = oks(
        torch.tensor(flat)[:, None],
        torch.tensor(truth)[None],
        torch.tensor(9000.0),
        COCO.sigmas,
        torch.tensor(visible)[None],
    )
    assert np.abs(similarity.numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_nms_keeps_what_the_published_loop_keeps(seed):
    keypoints, scores, areas = crowd(seed)
    kept = oks_nms(keypoints, scores, areas, COCO.sigmas, 0.9)
    expected = release_nms(keypoints.double().numpy(), scores.numpy(), areas.numpy(), COCO.sigmas, 0.9)
    assert kept.tolist() == expected
    assert 5 <= len(expected) < 30


def test_nms_of_equal_scores_equals_the_published_loop():
    keypoints, _, areas = crowd(0, persons=12)
    scores = torch.ones(12)
    expected = release_nms(keypoints.double().numpy(), scores.numpy(), areas.numpy(), COCO.sigmas, 0.9)
    assert oks_nms(keypoints, scores, areas, COCO.sigmas, 0.9).tolist() == expected


def test_nms_stays_within_images():
    keypoints = torch.zeros(4, 17, 2)
    scores, areas = torch.tensor([0.1, 0.9, 0.5, 0.2]), torch.full((4,), 100.0)
    image_id = torch.tensor([7, 3, 7, 3])
    kept = oks_nms_per_image(keypoints, scores, areas, image_id, COCO.sigmas)
    assert kept.tolist() == [1, 2]


def test_nms_without_persons():
    empty = torch.zeros(0)
    kept = oks_nms_per_image(torch.zeros(0, 17, 2), empty, empty, empty.long(), COCO.sigmas)
    assert kept.tolist() == []


def test_area_is_that_of_the_padded_crop(release_fixtures):
    sample = json.loads((release_fixtures / "pipeline_sample.json").read_text())
    for person in sample["instances"]:
        width, height = (200 * side for side in person["scale"])
        area = padded_area(torch.tensor([person["bbox"]], dtype=torch.float64), (256, 192))
        assert float(area) == pytest.approx(width * height, rel=1e-6)
