"""Predictions of teachers in their own crops, against the truth in the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dots import NETWORKS, make_network, write_persons

from distilpose.data import CocoKeypoints
from distilpose.evaluation import load_coco, score_dataset
from distilpose.evaluation.known_joints import KnownJoints
from distilpose.teachers.network import NetworkSource
from distilpose.teachers.scoring import predict_source

MIDDLE = ("nose", "neck", "head_top")  # no sides, so that mirror images look alike


def make_source(kind, names=MIDDLE):
    return NetworkSource(make_network(kind, names))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_perfect_teacher_is_perfect_with_and_without_flip_test(kind, tmp_path):
    dataset, joints = write_persons(tmp_path, MIDDLE)
    straight, both = predict_source(make_source(kind), dataset, [False, True], "persons")
    bins = 0.5 if kind.startswith("simcc") else 0  # its decoding is the best bin, half a pixel of the crop wide
    for predictions in (straight, both):
        assert np.abs(predictions.keypoints.numpy() - joints).max() < 0.15 + bins
        assert predictions.scores.min() > 0.85
        assert predictions.annotation_id.tolist() == dataset.instances.annotation_ids.tolist()
    assert kind.startswith("simcc") or not torch.equal(
        straight.keypoints, both.keypoints
    )  # bins are the same in a mirror


def test_sides_are_exchanged_in_the_mirror_image(tmp_path):
    """Its left eye is the red dot, in the mirror image too: an error that the flip test has to show."""
    dataset, joints = write_persons(tmp_path, ("left_eye", "right_eye", "nose"))
    source = make_source("release", dataset.skeleton.names)
    straight, both = predict_source(source, dataset, [False, True], "persons")
    assert np.abs(straight.keypoints.numpy() - joints).max() < 0.15
    assert both.scores.max() > 0.85
    nose, left = dataset.skeleton.names.index("nose"), dataset.skeleton.names.index("left_eye")
    error = np.abs(both.keypoints.numpy() - joints).max(-1)
    assert error[:, nose].max() < 0.15
    assert error[:, left].max() > 5


def test_sides_are_those_of_the_data_where_names_do_not_tell_them(tmp_path):
    """As the landmarks of a face: in the mirror image, the first dot is what the teacher calls the second."""
    names = ("face_36", "face_45", "nose")
    write_persons(tmp_path, names)
    pairs = {"flip_pairs": [[0, 1]]}
    dataset = CocoKeypoints(tmp_path / "dots.json", tmp_path, input_size=(256, 192), skeleton=pairs)
    source = make_source("release", names)
    assert source.skeleton.flip_pairs == ()
    assert dataset.skeleton.flip_pairs == ((0, 1),)
    (unpaired,) = predict_source(source, write_persons(tmp_path, names)[0], [True], "persons")
    (paired,) = predict_source(source, dataset, [True], "persons")
    (sided,) = predict_source(
        make_source("release", ("left_eye", "right_eye", "nose")),
        write_persons(tmp_path, ("left_eye", "right_eye", "nose"))[0], [True], "persons",
    )  # fmt: skip
    assert torch.equal(paired.keypoints, sided.keypoints)
    assert not torch.equal(paired.keypoints, unpaired.keypoints)


def test_unknown_joints_do_not_count(tmp_path):
    names = ("nose", "neck", "tail")
    dataset, _ = write_persons(tmp_path, names)
    source = make_source("release")  # it knows nose, neck and head_top
    (predictions,) = predict_source(source, dataset, [False], "persons")
    assert (predictions.scores[:, 2] == 0).all()
    box = dataset.instances.boxes
    np.testing.assert_allclose(predictions.keypoints[:, 2].numpy(), box[:, :2] + box[:, 2:] / 2, rtol=1e-5)
    truth = KnownJoints(source.skeleton, dataset.skeleton, "it").truth(load_coco(dataset.annotations_file))
    assert all(row["keypoints"][8] == 0 and row["keypoints"][2] == 2 for row in truth.dataset["annotations"])
    file = json.loads(Path(dataset.annotations_file).read_text())
    assert file["annotations"][0]["keypoints"][8] == 2  # it is as before
    result = score_dataset(predictions, dataset, truth=truth)
    assert result.pck.value == 1
    assert score_dataset(predictions, dataset).pck.value < 1
