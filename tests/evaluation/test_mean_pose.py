"""The mean-pose baseline."""

from __future__ import annotations

import numpy as np
import torch

from distilpose.data.coco import CocoKeypoints
from distilpose.evaluation import mean_pose, predict_mean_pose
from distilpose.outputs import PoseBatch


def split(root, name, **options):
    return CocoKeypoints(root / "annotations" / f"{name}.json", root / name, input_size=(64, 48), **options)


def test_mean_of_the_targets_the_network_sees(tiny_coco):
    dataset = split(tiny_coco(train=12), "train")
    batch = PoseBatch(*map(torch.stack, zip(*(dataset[i] for i in range(len(dataset))), strict=True)))
    labelled = batch.labelled.bool().numpy()[..., None]
    expected = np.ma.masked_array(batch.keypoints.numpy(), ~np.broadcast_to(labelled, (*labelled.shape[:2], 2))).mean(0)
    assert np.allclose(mean_pose(dataset).numpy(), expected, atol=1e-5)


def test_a_joint_without_labels_is_in_the_middle(tiny_coco):
    dataset = split(tiny_coco(), "train")
    dataset.instances.labelled[:, 3] = False
    assert mean_pose(dataset)[3].tolist() == [0.5, 0.5]


def test_it_is_the_same_in_every_crop(tiny_coco):
    root = tiny_coco()
    pose, dataset = mean_pose(split(root, "train")), split(root, "val")
    predictions = predict_mean_pose(pose, dataset)
    for index in range(len(dataset)):
        matrix = dataset[index].warp.double()
        crop = predictions.keypoints[index].double() @ matrix[:, :2].T + matrix[:, 2]
        assert torch.allclose(crop / torch.tensor([48, 64]), pose, atol=1e-4)
    assert predictions.annotation_id.tolist() == dataset.instances.annotation_ids.tolist()
    assert predictions.image_id.tolist() == dataset.instances.image_ids.tolist()
    assert (predictions.scores == 1).all()
