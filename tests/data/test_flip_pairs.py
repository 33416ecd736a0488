"""Pairs of a training: joints without a counterpart, and two files that disagree."""

from __future__ import annotations

import json
import logging

import pytest

from distilpose.data import CocoDataModule
from distilpose.data.augmentation import PoseAugmentation
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO, Skeleton

PATHS = ("annotations/train.json", "train", "annotations/val.json", "val")
ONE_ARM = Skeleton.from_names(["nose", "left_shoulder", "right_shoulder", "left_wrist"])


def module(root, **options):
    return CocoDataModule(root, *PATHS, input_size=(64, 48), num_workers=0, **options)


def change_category(root, split, **fields):
    file = root / "annotations" / f"{split}.json"
    content = json.loads(file.read_text())
    content["categories"][0].update(fields)
    file.write_text(json.dumps(content))


def test_a_side_without_its_counterpart_is_an_error(tiny_coco):
    root = tiny_coco(train=2, skeleton=ONE_ARM)
    facts = r"1 joints of .*train\.json .*\(left_wrist\).*data\.skeleton\.flip_pairs.*\[\[1, 2\]\].*augmentation\.flip_prob=0"
    with pytest.raises(DistilPoseError, match=facts):
        module(root, augmentation=PoseAugmentation()).train_dataset()


@pytest.mark.parametrize(
    "options",
    [
        {"augmentation": PoseAugmentation(flip_prob=0)},
        {"augmentation": None},
        {"augmentation": PoseAugmentation(), "skeleton": {"flip_pairs": [[1, 2]]}},
        {"augmentation": PoseAugmentation(), "skeleton": {"flip_pairs": []}},
        {"augmentation": PoseAugmentation(), "skeleton": ONE_ARM},
    ],
)
def test_ways_out(tiny_coco, options):
    assert len(module(tiny_coco(train=2, skeleton=ONE_ARM), **options).train_dataset())


def test_a_placeholder_in_one_file_only(tiny_coco, caplog):
    """The names decide in both files, so they agree; without a log of it nobody would know."""
    root = tiny_coco(train=2)
    names = [name.replace("_", "-") for name in COCO.names]
    change_category(root, "train", flip_pairs=[], keypoints=names)
    change_category(root, "val", keypoints=names)
    with caplog.at_level(logging.WARNING):
        data = module(root, augmentation=PoseAugmentation())
        assert data.train_dataset().skeleton.flip_pairs == data.skeleton.flip_pairs == COCO.flip_pairs
    assert "lists 0 pairs and the joints' names state 8" in caplog.text


def test_two_files_with_other_pairs(tiny_coco):
    root = tiny_coco(train=2, skeleton=Skeleton.from_names(["a", "b", "c"]))
    change_category(root, "train", flip_pairs=[[0, 1]])
    with pytest.raises(DistilPoseError, match=r"1 flip pairs of .*train\.json differ from the 0 of .*val\.json"):
        module(root).train_dataset()
    assert module(root, skeleton={"flip_pairs": [[0, 2]]}).train_dataset().skeleton.flip_pairs == ((0, 2),)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, True),
        ({"augmentation": PoseAugmentation(flip_prob=0)}, False),
        ({"skeleton": {"flip_pairs": []}}, False),
        ({"skeleton": {"flip_pairs": [[0, 1]]}}, False),
    ],
)
def test_mirrored_views_that_swap_nothing_are_a_warning(tiny_coco, caplog, options, warned):
    root = tiny_coco(train=2, skeleton=Skeleton.from_names(["ankle1", "ankle2", "chin"]))
    module(root, **{"augmentation": PoseAugmentation(), **options}).train_dataset()
    assert ("Mirrored views swap none of the 3 joints" in caplog.text) == warned
