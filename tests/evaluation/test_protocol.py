from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from distilpose.data.coco import CocoKeypoints
from distilpose.data.codec import keypoints_to_image
from distilpose.errors import DistilPoseError
from distilpose.evaluation import (
    choose_device,
    concatenate,
    evaluate_dataset,
    predict_batches,
    result_rows,
    score_dataset,
    truth_of,
)
from distilpose.outputs import PoseBatch, Predictions, StudentOutput
from distilpose.skeleton import COCO, Skeleton


def val_set(root, **options) -> CocoKeypoints:
    options = {"input_size": (64, 48), **options}
    return CocoKeypoints(root / "annotations" / "val.json", root / "val", **options)


def batches(dataset: CocoKeypoints, size: int = 3) -> list[PoseBatch]:
    items = [dataset[index] for index in range(len(dataset))]
    pieces = (items[start : start + size] for start in range(0, len(items), size))
    return [PoseBatch(*map(torch.stack, zip(*piece, strict=True))) for piece in pieces]


def truth_as_predictions(dataset: CocoKeypoints) -> Predictions:
    """Predictions of a perfect model: the targets of each crop, taken back to the image."""
    return concatenate(
        Predictions(
            keypoints_to_image(batch.keypoints, batch.warp, dataset.input_size),
            torch.ones(batch.weights.shape),
            batch.image_id,
            batch.annotation_id,
            batch.bbox,
            batch.bbox_score,
        )
        for batch in batches(dataset)
    )


def unlabel(file, *names):
    """Remove the labels of joints from an annotation file."""
    content = json.loads(file.read_text())
    for person in content["annotations"]:
        for name in names:
            joint = COCO.names.index(name)
            person["keypoints"][3 * joint : 3 * joint + 3] = [0, 0, 0]
        person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    file.write_text(json.dumps(content))


def noisy(predictions: Predictions, noise: float = 2.0, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    jitter = noise * torch.randn(predictions.keypoints.shape, generator=generator)
    scores = torch.randn(predictions.scores.shape, generator=generator)
    return predictions._replace(keypoints=predictions.keypoints + jitter, scores=scores)


def published_rows(predictions: Predictions, sigmas, input_size) -> list[dict]:
    """The published evaluator's loops: rescoring over joints, then greedy suppression in each image."""
    variances, aspect = (np.asarray(sigmas) * 2) ** 2, input_size[1] / input_size[0]
    images = defaultdict(list)
    for points, scores, image_id, _, bbox, box_score in zip(*predictions, strict=True):
        width, height = bbox[2:].tolist()
        width, height = max(width, height * aspect), max(height, width / aspect)
        valid = [float(score) for score in scores if score > 0.2]
        mean = sum(valid) / len(valid) if valid else 0
        images[int(image_id)].append(
            (float(box_score) * mean, points.double().numpy(), width * height * 1.25**2, scores.double().numpy())
        )
    rows = []
    for image_id, persons in sorted(images.items()):
        rest = sorted(persons, key=lambda person: -person[0])
        while rest:
            (score, points, area, scores), *others = rest
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": np.c_[points, scores].ravel().tolist(),
                    "score": score,
                }
            )
            rest = []
            for other in others:
                e = ((other[1] - points) ** 2).sum(-1) / variances / ((area + other[2]) / 2 + np.spacing(1)) / 2
                if np.exp(-e).mean() <= 0.9:
                    rest.append(other)
    return rows


def test_truth_fed_back_through_the_crops_scores_one(tiny_coco):
    dataset = val_set(tiny_coco(val=6))
    figures = evaluate_dataset(truth_as_predictions(dataset), dataset).metrics
    assert figures["AP"] == figures["AR"] == figures["PCK"] == 1.0


def test_validation_has_pck_by_orientation(tiny_coco):
    root = tiny_coco(val=6)
    file = root / "annotations" / "val.json"
    content = json.loads(file.read_text())
    torso = [COCO.names.index(name) for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")]
    head_first = next(person for person in content["annotations"] if all(person["keypoints"][3 * j + 2] for j in torso))
    _, y, _, height = head_first["bbox"]
    head_first["keypoints"][1::3] = [2 * y + height - down for down in head_first["keypoints"][1::3]]
    file.write_text(json.dumps(content))
    dataset = val_set(root)
    predictions = truth_as_predictions(dataset)
    predictions.keypoints[predictions.annotation_id != head_first["id"]] += 1000
    figures = evaluate_dataset(predictions, dataset).metrics
    assert (figures["PCK_upright"], figures["PCK_other"]) == (0, 1)
    assert 0 < figures["PCK"] < 1
    upright = val_set(tiny_coco(val=6))
    assert "PCK_other" not in evaluate_dataset(truth_as_predictions(upright), upright).metrics


def test_rows_equal_those_of_the_published_loops(tiny_coco):
    dataset = val_set(tiny_coco(val=6))
    truth = truth_as_predictions(dataset)
    # each person three times, twice almost at the same place, so that there are duplicates to remove
    predictions = concatenate([noisy(truth, 0.3, 1), noisy(truth, 0.2, 2), noisy(truth, 6.0, 3)])
    rows = result_rows(predictions, COCO, dataset.input_size)
    expected = published_rows(predictions, COCO.sigmas, dataset.input_size)
    assert len(truth.scores) < len(rows) < len(predictions.scores)
    assert [(row["image_id"], row["keypoints"]) for row in rows] == [
        (row["image_id"], row["keypoints"]) for row in expected
    ]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], rel=1e-6)


def test_order_and_number_of_processes_do_not_matter(tiny_coco):
    dataset = val_set(tiny_coco(val=6))
    predictions = noisy(truth_as_predictions(dataset))._replace(scores=torch.ones(len(dataset), 17))
    shuffled = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1))
    again = Predictions(*(field[shuffled] for field in predictions))
    assert result_rows(predictions, COCO, (64, 48)) == result_rows(again, COCO, (64, 48))
    assert score_dataset(predictions, dataset).metrics == score_dataset(again, dataset).metrics


def test_a_person_whose_scores_are_negative_is_kept_with_score_zero(tiny_coco):
    dataset = val_set(tiny_coco(val=4))
    truth = truth_as_predictions(dataset)
    rows = result_rows(truth._replace(scores=-torch.ones_like(truth.scores)), COCO, (64, 48))
    assert [row["score"] for row in rows] == [0.0] * len(truth.scores)
    # they still count as detected, so the recall is 1
    assert evaluate_dataset(truth._replace(scores=-torch.ones_like(truth.scores)), dataset).metrics["AR"] == 1.0


def test_without_rescoring_the_box_scores_count(tiny_coco):
    dataset = val_set(tiny_coco(val=4))
    predictions = truth_as_predictions(dataset)
    predictions = predictions._replace(
        bbox_score=torch.linspace(0.1, 0.9, len(predictions.scores)), scores=0.5 * predictions.scores
    )
    plain = result_rows(predictions, COCO, (64, 48), rescored=False)
    assert sorted(row["score"] for row in plain) == predictions.bbox_score.double().tolist()


def test_a_limited_set_is_scored_on_its_persons_only(tiny_coco):
    dataset = val_set(tiny_coco(val=6), limit=3)
    figures = evaluate_dataset(truth_as_predictions(dataset), dataset).metrics
    assert figures["AP"] == figures["AR"] == figures["PCK"] == 1.0


@pytest.mark.parametrize("chosen", [slice(4), slice(3, None), slice(1, None, 2)], ids=["first", "last", "every other"])
def test_persons_that_were_not_shown_do_not_count_as_missed(tiny_coco, chosen):
    dataset = val_set(tiny_coco(val=6))
    part = Predictions(*(field[chosen] for field in truth_as_predictions(dataset)))
    result = evaluate_dataset(part, dataset)
    assert result.metrics["AP"] == result.metrics["AR"] == result.metrics["PCK"] == 1.0
    assert result.counted == f"{len(part.scores)} of {len(dataset)} persons"
    whole = evaluate_dataset(truth_as_predictions(dataset), dataset)
    assert whole.counted == f"{len(dataset)} persons"


def test_a_limited_set_says_of_how_many(tiny_coco):
    root = tiny_coco(val=6)
    dataset = val_set(root, limit=3)
    assert evaluate_dataset(truth_as_predictions(dataset), dataset).counted == f"3 of {len(val_set(root))} persons"


def test_some_of_the_detections_cannot_be_scored(tiny_coco):
    root = tiny_coco(val=6)
    predictions = truth_as_predictions(val_set(root))._replace(annotation_id=torch.arange(len(val_set(root))))
    part = Predictions(*(field[:3] for field in predictions))
    with pytest.raises(DistilPoseError, match="Only 3 of the detector's boxes"):
        score_dataset(part, val_set(root, boxes=root / "detections.json"))
    with pytest.raises(DistilPoseError, match="Only 3 of the detector's boxes"):
        score_dataset(part, val_set(root, boxes=root / "detections.json", limit=3))


def test_pck_by_the_box_has_a_value_without_hips(tiny_coco):
    root = tiny_coco(val=6)
    unlabel(root / "annotations" / "val.json", "left_hip", "right_hip")
    dataset = val_set(root)
    predictions = truth_as_predictions(dataset)
    predictions.keypoints[:, 5] += 1000
    figures = evaluate_dataset(predictions, dataset).metrics
    labelled = dataset.instances.labelled
    assert np.isnan(figures["PCK"])
    assert figures["PCK_box"] == pytest.approx(1 - labelled[:, 5].sum() / labelled.sum())


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_a_person_with_an_empty_box_counts_as_missed(tiny_coco, place):
    root = tiny_coco(val=6)
    path = root / "annotations" / "val.json"
    content = json.loads(path.read_text())
    content["annotations"][place]["bbox"][2] = 0
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="are skipped"):
        dataset = val_set(root)
    people = len(content["annotations"])
    assert len(dataset) == people - 1
    assert evaluate_dataset(truth_as_predictions(dataset), dataset).metrics["AR"] == pytest.approx(
        (people - 1) / people
    )


def test_detector_boxes_are_scored_on_all_images_and_have_no_pck(tiny_coco):
    root = tiny_coco(val=6)
    labelled = truth_as_predictions(val_set(root))
    dataset = val_set(root, boxes=root / "detections.json")
    predictions = labelled._replace(annotation_id=torch.arange(len(labelled.scores)))
    assert truth_of(dataset).getImgIds() == dataset.image_ids
    result = score_dataset(predictions, dataset)
    assert result.pck is None
    assert "PCK" not in result.metrics
    assert result.metrics["AP"] == 1.0


def test_a_skeleton_without_sigmas_has_pck_only(tiny_coco):
    skeleton = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    dataset = val_set(tiny_coco(val=4, skeleton=skeleton))
    result = score_dataset(truth_as_predictions(dataset), dataset)
    assert result.metrics == {"PCK": 1.0}  # by the box already
    assert result.pck.reference == "0.1 of the box's longer side"
    assert len(result.rows) == len(dataset)


def test_coco_slice_fed_back(shared_data):
    root = shared_data / "coco-mini"
    dataset = CocoKeypoints(root / "annotations" / "person_keypoints_val2017.json", root / "val2017")
    keypoints = torch.from_numpy(dataset.instances.keypoints)
    predictions = Predictions(
        keypoints,
        torch.ones(keypoints.shape[:2]),
        torch.from_numpy(dataset.instances.image_ids),
        torch.from_numpy(dataset.instances.annotation_ids),
        torch.from_numpy(dataset.instances.boxes),
        torch.ones(len(dataset)),
    )
    # all unlabelled joints are at (0, 0), so persons with few labels look like duplicates: remove none here
    figures = score_dataset(predictions, dataset, nms_threshold=1.0).metrics
    assert {figures[name] for name in ("AP", "AP50", "AP75", "APM", "APL", "AR", "PCK")} == {1.0}


class Middle(nn.Module):
    """A student that predicts the middle of every crop and records its mode."""

    skeleton, scores_trained, input_size = COCO, True, (64, 48)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        count = len(images)
        assert not self.training
        assert not torch.is_grad_enabled()
        keypoints = torch.full((count, 17, 2), 0.5)
        return StudentOutput(keypoints, torch.full((count, 17), 0.7), *[self.weight] * 3)


def test_all_batches_of_a_loader(tiny_coco):
    dataset = val_set(tiny_coco(val=6))
    straight, flipped = predict_batches(Middle().train(), batches(dataset), [False, True])
    assert straight.annotation_id.tolist() == dataset.instances.annotation_ids.tolist()
    boxes = torch.from_numpy(dataset.instances.boxes)
    middle = boxes[:, None, :2] + boxes[:, None, 2:] / 2
    assert (straight.keypoints - middle).abs().max() < 1e-3
    # a constant prediction in the middle moves half a crop pixel to the left in the flip test
    moved = (flipped.keypoints - straight.keypoints)[..., 0]
    assert (moved < 0).all()


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("cuda:99", "abacus"):
        with pytest.raises(DistilPoseError, match=f"Device '{name}' cannot be used"):
            choose_device(name)
