from __future__ import annotations

import copy

import pytest
import torch

from distilpose import create_model
from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.losses import DistillationLoss
from distilpose.modules import DistillationModule, LabelTeacher
from distilpose.outputs import PoseBatch
from distilpose.skeleton import COCO

SIZE = {"depth": 1, "width": 32, "heads": 2}
NO_TOKENS = {"visual_token": 0.0, "keypoint_token": 0.0}


def batch_of(n: int = 3) -> PoseBatch:
    draw = torch.Generator().manual_seed(0)
    weights = torch.ones(n, 17)
    weights[0, 4] = 0
    keypoints = 0.2 + 0.6 * torch.rand(n, 17, 2, generator=draw)
    blank = torch.zeros(n)
    return PoseBatch(
        torch.randn(n, 3, 64, 48, generator=draw), keypoints, weights, weights, torch.eye(2, 3).expand(n, 2, 3), blank,
        blank, torch.ones(n, 4), blank,
    )  # fmt: skip


def test_maps_are_gaussians_at_the_labels():
    batch, teacher = batch_of(), LabelTeacher(sigma=1.0)
    teacher.set_student(create_model("student_xs", **SIZE))
    output = teacher(batch)
    assert output.heatmaps.shape == (3, 17, 16, 12)
    positions, peaks = decode_heatmaps(output.heatmaps)
    labelled = batch.weights > 0
    assert ((positions - batch.keypoints).abs() * torch.tensor([12, 16]))[labelled].max() < 0.5
    assert (peaks[~labelled] == 0).all()
    # the second moment about the joint is the Gaussian's variance, if the map contains all of it
    x = torch.arange(12.0)
    along = output.heatmaps[1, 0].sum(0) / output.heatmaps[1, 0].sum()
    assert (along * (x - batch.keypoints[1, 0, 0] * 12) ** 2).sum() == pytest.approx(1.0, rel=0.1)
    assert output.visual_tokens is None
    assert output.trust is None


def test_a_student_is_trained_without_a_network():
    teacher = LabelTeacher()
    module = DistillationModule(
        create_model("student_xs", **SIZE), DistillationLoss(**NO_TOKENS), teacher, optimizer=torch.optim.Adam
    )
    assert teacher.skeleton.names == COCO.names
    _, terms = module.terms(batch_of())
    terms["total"].backward()
    assert terms["simulated_heatmap"] > 0
    assert copy.deepcopy(module).teacher is teacher
    assert not [name for name in module.state_dict() if "teacher" in name]


def test_labels_have_no_tokens():
    with pytest.raises(DistilPoseError, match=r"loss\.visual_token=0"):
        DistillationModule(create_model("student_xs", **SIZE), DistillationLoss(), LabelTeacher(), optimizer=None)
