"""The interface of teachers, tested for every kind: add a new kind to `KINDS`, and its source to `SOURCES`."""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dots import export_onnx
from torch.utils.data import default_collate
from vitposes import small_vitpose

from distilpose import create_model
from distilpose.data import CocoKeypoints
from distilpose.errors import DistilPoseError
from distilpose.modules import FrozenTeacher, LabelTeacher, load_blazepose, load_recorded
from distilpose.outputs import PoseBatch
from distilpose.skeleton import Skeleton
from distilpose.teachers import blazepose
from distilpose.teachers.base import Source, Teacher
from distilpose.teachers.blazepose import BlazePoseSource
from distilpose.teachers.blazepose_network import BLAZEPOSE, BlazePoseOutput
from distilpose.teachers.frozen import CheckpointSource
from distilpose.teachers.module import ModuleNetwork
from distilpose.teachers.network import NetworkSource, NetworkTeacher
from distilpose.teachers.onnx import OnnxNetwork
from distilpose.teachers.recorder import record
from distilpose.teachers.several import SeveralSources, SeveralTeachers
from distilpose.teachers.vitpose import VitPoseNetwork

SMALL = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2}
# joints of COCO in another order, and one that no teacher knows
BODY = Skeleton.from_names(["right_knee", "left_knee", "nose", "left_wrist", "tail"])
KINDS = ["checkpoint", "checkpoint at another size", "recorded", "blazepose", "labels", "module", "onnx", "several"]
KINDS += ["vitpose", "vitpose recorded"]
SOURCES = ["checkpoint", "blazepose", "module", "onnx", "several", "vitpose"]


class StubBlazePose:
    """BlazePose with fixed outputs, in place of the network in a file."""

    skeleton, digest = BLAZEPOSE, "stub"

    def __init__(self, *_):
        pass

    def __call__(self, crop):
        logits = np.full((64, 64, 33), -6, np.float32)
        logits[20:24, 30:34] = 3
        return BlazePoseOutput(logits, np.array([[128, 128], [128, 30]], np.float32))


def make_network():
    torch.manual_seed(0)
    return create_model("teacher_xs", **SMALL)


def make_module() -> ModuleNetwork:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 17, 4, stride=4)
    return ModuleNetwork(lambda crops: layer(crops.float()), "module", (64, 48))


@cache
def make_file() -> OnnxNetwork:
    torch.manual_seed(0)
    folder = tempfile.TemporaryDirectory()
    network = OnnxNetwork(export_onnx(torch.nn.Conv2d(3, 17, 4, stride=4), Path(folder.name) / "conv.onnx", (64, 48)))
    network.folder = folder  # kept as long as the network
    return network


def make_vitpose() -> VitPoseNetwork:
    return VitPoseNetwork(small_vitpose(experts=3), "vitpose", {"sha256": "digest"}, expert=1)


def make_source(kind: str) -> Source:
    if kind == "several":
        return SeveralSources([make_source("checkpoint"), make_source("module")])
    makers = {
        "checkpoint": lambda: CheckpointSource(make_network(), "digest"),
        "blazepose": lambda: BlazePoseSource(StubBlazePose(), 2, 1),
        "module": lambda: NetworkSource(make_module()),
        "onnx": lambda: NetworkSource(make_file()),
        "vitpose": lambda: NetworkSource(make_vitpose()),
    }
    return makers[kind]()


@pytest.fixture
def persons(tiny_coco):
    root = tiny_coco(train=4, skeleton=BODY)
    return CocoKeypoints(root / "annotations" / "train.json", root / "train", input_size=(64, 48))


@pytest.fixture
def batch(persons):
    return PoseBatch(*default_collate([persons[index] for index in range(len(persons))]))


@pytest.fixture
def student():
    return create_model("student_xs", skeleton=BODY, **SMALL)


@pytest.fixture(params=KINDS)
def teacher(request, persons, tmp_path, monkeypatch) -> Teacher:
    if request.param == "checkpoint":
        return FrozenTeacher(make_network(), check=False)
    if request.param == "checkpoint at another size":
        return FrozenTeacher(create_model("teacher_xs", input_size=(96, 72), **SMALL), check=False, resize=True)
    if request.param == "recorded":
        return load_recorded(record(make_source("checkpoint"), persons, tmp_path / "recording").path, check=False)
    if request.param == "module":
        return NetworkTeacher(make_module(), check=False)
    if request.param == "onnx":
        return NetworkTeacher(make_file(), check=False)
    if request.param == "vitpose":
        return NetworkTeacher(make_vitpose(), check=False)
    if request.param == "vitpose recorded":
        return load_recorded(record(make_source("vitpose"), persons, tmp_path / "recording").path, check=False)
    if request.param == "several":
        return SeveralTeachers(
            {"one": FrozenTeacher(make_network(), check=False), "two": NetworkTeacher(make_module(), check=False)}
        )
    if request.param == "blazepose":
        monkeypatch.setattr(blazepose, "BlazePose", StubBlazePose)
        data = SimpleNamespace(prepare_data=lambda: None, train_dataset=lambda: persons)
        return load_blazepose("file", data, folder=tmp_path, turns=2, passes=1, check=False)
    return LabelTeacher()


def test_output_is_in_the_students_joints_and_cells(teacher, student, batch):
    teacher.set_student(student)
    images = batch.image.clone().requires_grad_()
    output = teacher(batch._replace(image=images))
    assert output.heatmaps.shape == (len(batch.image), 5, *student.heatmap_size)
    assert output.heatmaps.isfinite().all()
    assert not any(field.requires_grad for field in output if field is not None)
    assert (output.visual_tokens is None) == (teacher.token_shape is None)
    assert (output.keypoint_tokens is None) == (teacher.model is None)
    if output.visual_tokens is not None:
        rows, columns, width = teacher.token_shape
        assert output.visual_tokens.shape == (len(batch.image), rows * columns, width)
    if output.keypoint_tokens is not None:
        assert output.keypoint_tokens.shape[:2] == (len(batch.image), 5)
    if output.trust is not None:
        assert output.trust.shape == batch.weights.shape
        assert ((output.trust >= 0) & (output.trust <= 1)).all()
        assert (output.trust[:, BODY.names.index("tail")] == 0).all()  # the teacher does not know it
    # the output can be used in autograd
    weight = torch.ones_like(output.heatmaps, requires_grad=True)
    (weight * output.heatmaps).sum().backward()


def test_attributes(teacher, student):
    teacher.set_student(student)
    assert isinstance(teacher, Teacher)
    assert teacher.name
    assert any(joint is not None for joint in BODY.matching(teacher.skeleton))
    assert 0 <= teacher.floor < 1
    assert teacher.student is student
    assert teacher.has_keypoint_tokens == (teacher.model is not None)
    assert all(isinstance(part, Teacher) for part in teacher.parts)


def test_cost(teacher, student):
    teacher.set_student(student)
    runs_a_network = any(part.model is not None or part.network is not None for part in teacher.parts)
    assert (teacher.gmacs() > 0) == runs_a_network


def test_a_module_does_not_own_its_teacher(teacher, student):
    teacher.set_student(student)
    holder = torch.nn.Module()
    holder.teacher = teacher
    assert not list(holder.parameters())
    assert holder.state_dict() == {}
    assert copy.deepcopy(holder).teacher is teacher


def test_move(teacher, student, batch):
    teacher.set_student(student)
    teacher.move(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    doubled = batch._replace(image=batch.image.double(), keypoints=batch.keypoints.double())
    assert teacher(doubled).heatmaps.isfinite().all()


def test_prepare_and_check(teacher, student, persons):
    teacher.set_student(student)
    data = SimpleNamespace(unlabelled=True, train_dataset=lambda: persons, val_dataset=lambda: persons)
    teacher.prepare(data)
    message = teacher.check(data)
    assert message is None or teacher.name in message


def test_joints_without_a_common_name_are_an_error(teacher):
    other_body = create_model("student_xs", skeleton=Skeleton.from_names(["beak", "wing"]), **SMALL)
    if isinstance(teacher, LabelTeacher):
        pytest.skip("labels have the student's joints")
    with pytest.raises(DistilPoseError, match=r"beak"):
        teacher.set_student(other_body)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_sources_warps_map_persons_into_their_maps(kind):
    source = make_source(kind)
    images = [np.zeros((120, 160, 3), np.uint8), np.full((90, 80, 3), 60, np.uint8)]
    output = source(images, np.array([[10.0, 20, 50, 80], [5, 5, 60, 70]]))
    count = source.skeleton.num_keypoints
    assert output.heatmaps.shape == (2, count, *source.map_size)
    assert output.heatmaps.dtype == np.float32
    assert output.warps.shape == (2, 2, 3)
    assert output.trust.shape == (2, count)
    assert (output.trust >= 0).all()
    assert (output.trust <= 1).all()
    # the person's centre lies on the map
    for warp, middle in zip(output.warps, ([35, 60, 1], [35, 40, 1]), strict=True):
        cell = warp @ middle
        assert (cell >= 0).all()
        assert (cell <= np.array(source.map_size[::-1]) - 1).all()
    assert source.about["name"] == source.name
