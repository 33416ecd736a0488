"""Joints of a training: those of weights=FILE in another order, those of a resumed run, and the pairs it logs."""

from __future__ import annotations

import random

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from distilpose import create_model, train
from distilpose.cli.paths import CONFIG_DIR
from distilpose.errors import DistilPoseError
from distilpose.models import save_model
from distilpose.skeleton import COCO, COCO_NAMES, Skeleton

SMALL = {"depth": 1, "width": 32, "heads": 2, "input_size": (64, 48)}
ORDER = random.Random(3).sample(range(17), 17)
MOVED = Skeleton.from_names([COCO_NAMES[index] for index in ORDER])


def composed(root, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", [
            "data=custom", f"data.root={root}", "data.num_workers=0", "model=student_xs", "model.depth=1", "model.width=32",
            "model.heads=2", "model.input_size=[64,48]", "loss=regression", "logger=none", "folder=unused",
            "trainer.accelerator=cpu", *overrides,
        ])  # fmt: skip


def test_weights_of_joints_in_another_order(tiny_coco, tmp_path, caplog):
    """The predictions of a fine-tuned start are those of the file, joint by joint."""
    source = create_model("student_xs", **SMALL).eval()
    file = save_model(source, tmp_path / "start.safetensors")
    cfg = composed(tiny_coco(train=2, skeleton=MOVED), f"weights={file}")
    with caplog.at_level("INFO"):
        model = train.build_module(cfg, instantiate(cfg.data)).model.eval()
    assert "8 flip pairs: " in caplog.text
    assert "17 of 17 joints start from" in caplog.text
    crops = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(model(crops).keypoints, source(crops).keypoints[:, ORDER])


def test_a_run_resumes_with_its_own_joints_only(tiny_coco, tiny_run):
    """A file whose joints were sorted anew fits the checkpoint's shapes, but not its joints."""
    cfg = composed(tiny_coco(train=2, skeleton=MOVED))
    with pytest.raises(
        DistilPoseError, match=r"last\.ckpt has 17 joints \(nose, left_eye, right_eye, …\), but .*train\.json"
    ):
        train.fit(cfg, tiny_run / "checkpoints" / "last.ckpt")


def test_no_pairs_are_logged(tiny_coco, caplog):
    cfg = composed(tiny_coco(train=2, skeleton=Skeleton.from_names(["handle", "spout"])), "data.monitor=val/PCK")
    with caplog.at_level("INFO"):
        train.build_module(cfg, instantiate(cfg.data))
    assert "No flip pairs: none of the 2 joints has a left or right counterpart" in caplog.text
    assert COCO.describe_pairs() not in caplog.text
