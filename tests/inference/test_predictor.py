from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from distilpose.data.coco import CocoKeypoints
from distilpose.errors import DistilPoseError
from distilpose.evaluation import predict_batches
from distilpose.inference import Predictor
from distilpose.inference.boxes import Boxes
from distilpose.models import create_model, save_model
from distilpose.outputs import PoseBatch


@pytest.fixture(scope="module", params=["student_xs", "teacher_xs"])
def model(request):
    torch.manual_seed(0)
    return create_model(request.param)


@pytest.mark.parametrize("flip_test", [False, True])
def test_agrees_with_the_evaluation_of_the_same_boxes(tiny_coco, model, flip_test):
    root = tiny_coco(val=4)
    dataset = CocoKeypoints(root / "annotations" / "val.json", root / "val", input_size=model.input_size)
    items = [item for item in map(dataset.__getitem__, range(len(dataset))) if item.image_id == 1]
    (expected,) = predict_batches(model, [PoseBatch(*map(torch.stack, zip(*items, strict=True)))], [flip_test])
    image = cv2.cvtColor(cv2.imread(str(root / "val" / "000001.jpg")), cv2.COLOR_BGR2RGB)
    predictor = Predictor(model, device="cpu", batch_size=1, flip_test=flip_test)
    boxes = dataset.instances.boxes[dataset.instances.image_ids == 1]
    predictions = predictor(image, boxes, image_id=1)
    assert len(boxes) == 2
    assert (predictions.keypoints - expected.keypoints).abs().max() < 1e-2
    assert torch.allclose(predictions.scores, expected.scores, atol=1e-4)
    assert predictions.image_id.tolist() == [1, 1]
    assert predictions.bbox.tolist() == expected.bbox.tolist()


def test_from_a_file_without_boxes(model, tmp_path):
    predictor = Predictor(save_model(model, tmp_path / "model.safetensors"), device="cpu")
    predictions = predictor(np.zeros((90, 120, 3), np.uint8))
    assert predictions.keypoints.shape == (1, 17, 2)
    assert predictions.bbox.tolist() == [[0, 0, 120, 90]]
    assert predictor.skeleton.num_keypoints == 17


def test_without_boxes_there_are_no_persons(model):
    predictions = Predictor(model, device="cpu")(np.zeros((90, 120, 3), np.uint8), boxes=[])
    assert predictions.keypoints.shape == (0, 17, 2)
    assert predictions.bbox.shape == (0, 4)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), [[1, 2]]]
)
def test_images_that_are_not_rgb(model, image):
    with pytest.raises(DistilPoseError, match="Expected an RGB image"):
        Predictor(model, device="cpu")(image)


def test_boxes_that_cannot_be_cropped(model):
    predictor, image = Predictor(model, device="cpu"), np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DistilPoseError, match="empty, huge, not finite"):
        predictor(image, [[0, 0, 4, 4], [0, 0, 0, 5]])
    predictor.detector = lambda _: Boxes(np.array([[0, 0, 5, np.nan], [0, 0, 4, 4]]), np.ones(2))
    predictor.detector.every = 1
    assert predictor(image).bbox.tolist() == [[0, 0, 4, 4]]


def test_scores_of_the_boxes(model):
    predictor, image = Predictor(model, device="cpu"), np.zeros((8, 8, 3), np.uint8)
    boxes = [[0, 0, 4, 4], [1, 1, 5, 5]]
    assert predictor(image, boxes, scores=[0.5, 0.25]).bbox_score.tolist() == [0.5, 0.25]
    for scores in ([0.5], [0.5, 0.5, 0.5], [[0.5, 0.5]], 0.5, [0.5, np.nan], ["a", "b"], [[1], [1, 2]]):
        with pytest.raises(DistilPoseError, match=r"scores .* each of the 2 boxes"):
            predictor(image, boxes, scores=scores)
    with pytest.raises(DistilPoseError, match="without boxes"):
        predictor(image, scores=[0.5])


@pytest.mark.parametrize("options", [{"padding": 0}, {"padding": -1.25}, {"padding": float("nan")}, {"batch_size": 0}])
def test_options_that_no_crop_can_have(options):
    with pytest.raises(DistilPoseError, match=f"{next(iter(options))}=.*above 0"):
        Predictor(create_model("student_xs", depth=1, width=32, heads=2), "cpu", **options)
