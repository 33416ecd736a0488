"""Several sets in one: joints by name, each person as its own set has it."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from distilpose.data import CocoKeypoints, MixedPersons
from distilpose.errors import DistilPoseError
from distilpose.paths import CONFIG_DIR
from distilpose.skeleton import COCO, Skeleton

LSP = Skeleton.from_names(
    [
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
        "neck",
        "head_top",
    ]
)
OPTIONS = {"input_size": (64, 48)}


def persons(root, **options):
    return CocoKeypoints(root / "annotations" / "train.json", root / "train", **OPTIONS | options)


@pytest.fixture
def two(tiny_coco):
    return persons(tiny_coco(train=5)), persons(tiny_coco(train=4, skeleton=LSP, seed=3))


def test_joints_are_matched_by_name(two):
    first, second = two
    mixed = MixedPersons(two, COCO)
    assert len(mixed) == len(first) + len(second)
    for index, person in enumerate(first):
        assert all(torch.equal(a, b) for a, b in zip(mixed[index], person, strict=True))
    known = [name for name in COCO.names if name in LSP.names]
    assert len(known) == 12
    for index, person in enumerate(second):
        found = mixed[len(first) + index]
        assert torch.equal(found.image, person.image)
        for joint, name in enumerate(COCO.names):
            if name not in LSP.names:
                assert found.weights[joint] == found.labelled[joint] == 0
                assert found.keypoints[joint].tolist() == [0, 0]
                continue
            theirs = LSP.names.index(name)
            for field in ("keypoints", "weights", "labelled"):
                assert torch.equal(getattr(found, field)[joint], getattr(person, field)[theirs])
    instances = mixed.instances
    assert len(instances.labelled) == len(mixed)
    assert not instances.labelled[len(first) :, : COCO.names.index("left_shoulder")].any()
    assert instances.labelled[len(first) :].sum() == sum(
        second.instances.labelled[:, LSP.names.index(name)].sum() for name in known
    )


def test_sets_without_a_joint_in_common(two, tiny_coco):
    other = persons(tiny_coco(skeleton=Skeleton.from_names(["tail", "horn"])))
    with pytest.raises(DistilPoseError, match="has none of the joints nose"):
        MixedPersons([two[0], other], COCO)


def test_a_student_is_trained_on_both(run_train, tiny_coco, tmp_path):
    coco, lsp = tiny_coco(train=5), tiny_coco(train=4, skeleton=LSP)
    places = [
        f"data.{part}={value}" for part, value in (
            ("root", coco), ("train_annotations", "annotations/train.json"), ("train_images", "train"),
            ("val_annotations", "annotations/val.json"), ("val_images", "val"), ("others.lspet.root", lsp),
            ("others.lspet.train_annotations", "annotations/train.json"), ("others.lspet.train_images", "train"),
            ("others.lspet.val_annotations", "annotations/val.json"), ("others.lspet.val_images", "val"),
        )
    ]  # fmt: skip
    settings = [
        "data=coco_lspet", *places, "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1",
        "model.width=32", "model.heads=2", "model.input_size=[64,48]", "loss=regression", "logger=none",
        "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.num_sanity_val_steps=0", "~callbacks.pictures",
    ]  # fmt: skip
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", [override for override in settings if override not in ("hydra.run.dir",)])
    data = instantiate(cfg.data)
    assert data.skeleton == COCO
    views = [batch.annotation_id for batch in data.train_dataloader()]
    assert len(views) == len(data.train_dataset()) // 4
    assert data.others["lspet"].augmentation is not None  # as the first set's
    status, told = run_train(*settings, "hydra.run.dir=run")
    assert status == 0, told
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
