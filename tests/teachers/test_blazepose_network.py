from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from distilpose.data import CocoKeypoints
from distilpose.data.coco import read_image
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region, warp_points
from distilpose.errors import DistilPoseError
from distilpose.evaluation import pck
from distilpose.skeleton import COCO, Skeleton
from distilpose.teachers.blazepose import BlazePoseSource
from distilpose.teachers.blazepose_network import BLAZEPOSE, BlazePose

LEEDS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
)  # fmt: skip
SOLITARY = (442619, 474484, 219454)  # annotations of large upright persons, one a photograph


@pytest.fixture(scope="module")
def network():
    file = os.environ.get("DISTILPOSE_BLAZEPOSE")
    if not file or not Path(file).is_file():
        pytest.skip("DISTILPOSE_BLAZEPOSE names no file (python scripts/fetch_blazepose.py FILE)")
    if find_spec("ai_edge_litert") is None:
        pytest.skip("LiteRT is not installed (pip install 'distilpose[blazepose]')")
    return BlazePose(file)


def test_joints_are_matched_by_name():
    matched = COCO.matching(BLAZEPOSE)
    assert [BLAZEPOSE.names[joint] for joint in matched] == list(COCO.names)
    matched = Skeleton.from_names(LEEDS).matching(BLAZEPOSE)
    assert [joint if joint is None else BLAZEPOSE.names[joint] for joint in matched] == [*LEEDS[:12], None, None]


@pytest.mark.parametrize("name", ["left_hip", "LeftHip", "hip.L", "hip_l", "L-Hip"])
def test_names_match_in_any_style(name):
    assert Skeleton.from_names([name, "RightAnkle", "Headtop"]).matching(Skeleton.from_names(LEEDS)) == [3, 0, 13]
    assert COCO.matching(COCO) == list(range(17))


def test_all_joints_but_the_nose_have_a_partner():
    order = BLAZEPOSE.flip_order
    assert [index for index in range(33) if order[index] == index] == [0]
    assert [order[index] for index in order] == list(range(33))


def test_the_error_for_a_missing_file_names_the_download():
    with pytest.raises(DistilPoseError, match=r"nowhere\.tflite.*python scripts/fetch_blazepose\.py"):
        BlazePose("nowhere.tflite")


def test_the_error_for_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "model.tflite").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(DistilPoseError, match=r"pip install 'distilpose\[blazepose\]'"):
        BlazePose(tmp_path / "model.tflite")


def test_another_file_is_no_model(network, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"any")
    with pytest.raises(DistilPoseError, match="LiteRT"):
        BlazePose(tmp_path / "model.tflite")


def test_fetching_takes_one_checked_file_out_of_the_wheel(load_script, tmp_path, monkeypatch):
    script = load_script("fetch_blazepose")

    def download(folder):
        with zipfile.ZipFile(folder / "mediapipe.whl", "w") as wheel:
            wheel.writestr(script.MEMBER, b"model")
        return folder / "mediapipe.whl"

    monkeypatch.setattr(script, "download", download)
    file = tmp_path / "new" / "model.tflite"
    with pytest.raises(SystemExit, match=r"9372c470eead….*e9a5c5cb17f7…"):
        script.main([str(file)])
    assert not file.exists()
    monkeypatch.setattr(script, "SHA256", hashlib.sha256(b"model").hexdigest())
    script.main([str(file)])
    assert file.read_bytes() == b"model"
    assert list(file.parent.iterdir()) == [file]
    script.main([str(file)])
    file.write_bytes(b"another")
    with pytest.raises(SystemExit, match=r"model\.tflite"):
        script.main([str(file)])


@pytest.fixture
def solitary(shared_data):
    """The persons of SOLITARY and their photographs."""
    root = shared_data / "coco-mini"
    dataset = CocoKeypoints(root / "annotations" / "person_keypoints_val2017.json", root / "val2017")
    numbers = dataset.instances.annotation_ids.tolist()
    people = dataset.instances.take([numbers.index(number) for number in SOLITARY])
    return people, [read_image(dataset.image_file(number)) for number in people.image_ids.tolist()]


def test_body_points_are_the_hips_and_a_point_above_them(network, solitary):
    people, images = solitary
    hips = [COCO.names.index(name) for name in ("left_hip", "right_hip")]
    for image, box, joints in zip(images, people.boxes, people.keypoints, strict=True):
        warp = warp_of_region(region_of_box(box, (256, 256)), (256, 256))
        body = network(cv2.cvtColor(warp_image(image, warp, (256, 256)), cv2.COLOR_BGR2RGB)).body
        np.testing.assert_allclose(body[0], warp_points(joints[hips].mean(0, keepdims=True), warp)[0], atol=12)
        across, down = body[1] - body[0]
        assert down < -80
        assert abs(across) < 0.3 * -down


def peaks(result, joints):
    """(N, K, 2) image pixels of the highest cell of each of these joints' maps."""
    maps = result.heatmaps[:, joints]
    best = maps.reshape(*maps.shape[:2], -1).argmax(-1)
    cells = np.stack([best % maps.shape[-1], best // maps.shape[-1]], -1) - result.warps[:, None, :, 2]
    return np.linalg.solve(result.warps[:, None, :, :2], cells[..., None])[..., 0]


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_joints_of_rotated_photographs(network, solitary, turns):
    """Joints are within 7 % of the box's diagonal of COCO's labels, in photographs rotated by 0, 90 and 180 degrees."""
    people, images = solitary
    source = BlazePoseSource(network)
    joints = COCO.matching(source.skeleton)
    boxes, truth = people.boxes, people.keypoints.astype(np.float64)
    for _ in range(turns):
        widths = np.array([image.shape[1] for image in images])[:, None]
        images = [np.ascontiguousarray(np.rot90(image)) for image in images]  # (x, y) goes to (y, width - 1 - x)
        truth = np.stack([truth[..., 1], widths - 1 - truth[..., 0]], -1)
        x, y, w, h = boxes.T
        boxes = np.stack([y, widths[:, 0] - 1 - x - w, h, w], -1)
    result = source(images, boxes)
    positions = peaks(result, joints)
    assert result.heatmaps[:, joints].max() == 1
    error = np.linalg.norm(positions - truth, axis=-1) / np.hypot(boxes[:, 2], boxes[:, 3])[:, None]
    labelled = people.labelled
    assert np.median(error[labelled]) < 0.03
    assert (error[labelled] < 0.07).mean() > 0.97
    assert result.trust[:, joints][labelled].mean() > 0.6


@pytest.mark.slow
def test_joints_of_athletes_in_any_pose(network, shared_data):
    """24 of 30 persons of Leeds Sports have a torso. PCK is 0.68; with pixels in [-1, 1] instead of [0, 1] it is 0.59."""
    root = shared_data / "lspet"
    dataset = CocoKeypoints(root / "annotations" / "lspet_val.json", root / "val", limit=30)
    people, joints = dataset.instances, dataset.skeleton.matching(BLAZEPOSE)
    images = [read_image(dataset.image_file(number)) for number in people.image_ids.tolist()]
    result = BlazePoseSource(network)(images, people.boxes)
    matched = [joint is not None for joint in joints]
    assert sum(matched) == 12  # all but neck and top of the head
    positions = peaks(result, [joint or 0 for joint in joints])
    arrays = (positions, people.keypoints, people.labelled & matched, people.boxes)
    result = pck(*map(torch.from_numpy, arrays), dataset.skeleton)
    assert result.persons == 24
    assert result.value > 0.63
