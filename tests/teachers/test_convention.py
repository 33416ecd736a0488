"""Conventions of foreign teachers: a perfect map in theirs must be a perfect map in ours, seen through real pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dots import FACE, NETWORKS, SMALL, DotFinder, expectation, export_onnx, make_network, views, write_persons
from vitposes import perfect_vitpose

from distilpose import create_model
from distilpose.teachers.network import NetworkSource, NetworkTeacher
from distilpose.teachers.onnx import OnnxNetwork
from distilpose.teachers.recorded import RecordedTeacher
from distilpose.teachers.recorder import record
from distilpose.teachers.vitpose import VitPoseNetwork

VITPOSES = {"vitpose": (256, 192), "vitpose, square": (256, 256)}
KINDS = [*NETWORKS, *VITPOSES]
SIZES = [(256, 192), (128, 96)]


@pytest.fixture
def persons(tmp_path):
    return write_persons(tmp_path)


@pytest.fixture(scope="module", params=["module", "onnx"])
def network_of(request, tmp_path_factory):
    """Makes the perfect teacher, as a module or exported to a file; what shapes do not say is set."""
    folder = tmp_path_factory.mktemp("files")

    def make(kind):
        if kind in VITPOSES and request.param == "onnx":
            pytest.skip("transformers runs it")
        if kind in VITPOSES:  # its convention is what it read itself
            return VitPoseNetwork(perfect_vitpose(FACE.names, DotFinder, VITPOSES[kind]), kind, {})
        if request.param == "module":
            return make_network(kind)
        convention, ratio = NETWORKS[kind]
        file = folder / f"{kind.replace(' ', '_')}.onnx"
        if not file.exists():
            export_onnx(DotFinder(convention, ratio), file, convention.input_size)
        rule = None if ratio else "udp" if convention.unbiased else "ratio"
        network = OnnxNetwork(file, FACE.names, rule, convention.offset[0] or None, convention.padding)
        assert network.convention == convention
        return network

    return make


@pytest.mark.parametrize(("mirrored", "rotation"), [(False, 0.0), (True, 0.0), (False, 30.0), (True, -40.0)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_live_teacher_is_perfect_in_the_students_cells(kind, size, mirrored, rotation, persons, network_of):
    batch, truth = views(*persons, size, mirrored, rotation)
    teacher = NetworkTeacher(network_of(kind), pad=True)
    teacher.set_student(create_model("student_xs", skeleton=FACE, input_size=size, **SMALL))
    output = teacher(batch)
    assert output.trust.min() > 0.8
    assert (expectation(output.heatmaps) - truth).abs().max() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_recorded_teacher_is_perfect_in_every_view(kind, persons, network_of, tmp_path):
    source = NetworkSource(network_of(kind))
    recorded = RecordedTeacher(record(source, persons[0], tmp_path / "recording"), check=False)
    for size in SIZES:
        recorded.set_student(create_model("student_xs", skeleton=FACE, input_size=size, **SMALL))
        for mirrored, rotation in ((False, 0.0), (True, 0.0), (False, 30.0), (True, -40.0)):
            batch, truth = views(*persons, size, mirrored, rotation)
            output = recorded(batch)
            assert output.trust.min() > 0.8
            assert (expectation(output.heatmaps) - truth).abs().max() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_cells_are_the_joints_in_the_image(kind, persons, network_of):
    dataset, joints = persons
    images = [dataset.read_image(int(number)) for number in dataset.instances.image_ids]
    output = NetworkSource(network_of(kind))(images, dataset.instances.boxes)
    cells = np.einsum("nij,nkj->nki", output.warps[:, :, :2], joints) + output.warps[:, None, :, 2]
    assert np.abs(expectation(torch.from_numpy(output.heatmaps)).numpy() - cells).max() < 0.05
    # SimCC: the highest bin, half a bin of 1 / 8 cell off at most; ViTPose: one Newton step
    if output.cells is not None:
        assert np.abs(output.cells - cells).max() < 0.08
