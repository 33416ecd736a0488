"""Teachers in ONNX files: exported by torch.onnx as other projects do, and read through pixels like the networks themselves."""

from __future__ import annotations

import logging
import pickle
import sys

import numpy as np
import onnx
import pytest
import torch
from dots import FACE, DotFinder
from onnx import TensorProto, helper
from teachers.test_convention import NETWORKS, SIZES, SMALL, expectation, persons, views  # noqa: F401 - a fixture
from torch import nn

from distilpose import create_model, load_model
from distilpose.errors import DistilPoseError
from distilpose.modules import load_onnx
from distilpose.teachers.network import NetworkSource
from distilpose.teachers.onnx import OnnxNetwork
from distilpose.teachers.recorded import RecordedTeacher
from distilpose.teachers.recorder import record

IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


def export(module, path, input_size=(256, 192), batch=None, names=None, dtype=torch.float32, last=False, sizes=False):
    """Export a network as other projects do; a batch of None is dynamic."""
    shape = (batch or 2, *input_size, 3) if last else (batch or 2, 3, *input_size)
    image = torch.rand(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 255, shape, dtype=dtype)
    height, width = (1, 2) if last else (2, 3)
    dynamic = ({} if batch else {0: "batch"}) | ({height: "height", width: "width"} if sizes else {})
    torch.onnx.export(
        module.eval(), (image,), path, dynamo=False, input_names=["input"], output_names=names,
        dynamic_axes={"input": dynamic, **{name: {0: "batch"} for name in names or () if not batch}} if dynamic else None,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The perfect teacher of each convention in a file."""
    folder, files = tmp_path_factory.mktemp("dots"), {}
    for kind, (convention, ratio) in NETWORKS.items():
        names = ["heatmaps"] if ratio is None else ["simcc_x", "simcc_y"]
        file = folder / f"{kind.replace(' ', '_')}.onnx"
        files[kind] = export(DotFinder(convention, ratio), file, convention.input_size, names=names)
    return files


def load(exported, kind: str, **settings):
    """The teacher; what shapes do not say is set."""
    convention = NETWORKS[kind][0]
    said = {"joints": FACE.names, "padding": convention.padding} | ({"rule": "udp"} if convention.unbiased else {})
    said |= {"offset": convention.offset[0]} if max(convention.offset) else {}
    return load_onnx(exported[kind], **said, pad=True, check=False, **settings)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_convention_is_read_from_shapes_and_settings(kind, exported):
    assert load(exported, kind).network.convention == NETWORKS[kind][0]


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_perfect_file_is_perfect_live(kind, exported, persons):  # noqa: F811
    teacher = load(exported, kind)
    for size in SIZES:
        teacher.set_student(create_model("student_xs", skeleton=FACE, input_size=size, **SMALL))
        for mirrored, rotation in ((False, 0.0), (True, -40.0)):
            batch, truth = views(*persons, size, mirrored, rotation)
            output = teacher(batch)
            assert output.trust.min() > 0.8
            assert (expectation(output.heatmaps) - truth).abs().max() < 0.05


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_perfect_file_is_perfect_recorded(kind, exported, persons, tmp_path):  # noqa: F811
    source = NetworkSource(load(exported, kind).network)
    recorded = RecordedTeacher(record(source, persons[0], tmp_path / "recording"), check=False)
    for size in SIZES:
        recorded.set_student(create_model("student_xs", skeleton=FACE, input_size=size, **SMALL))
        for mirrored, rotation in ((False, 0.0), (True, -40.0)):
            batch, truth = views(*persons, size, mirrored, rotation)
            assert (expectation(recorded(batch).heatmaps) - truth).abs().max() < 0.05


class Wrapped(nn.Module):
    """A network with another input or other outputs."""

    def __init__(self, network, before=lambda crops: crops, after=lambda output: output):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, crops):
        """See the class."""
        return self.after(self.network(self.before(crops)))


RELEASE = NETWORKS["release"][0]
INPUTS = {
    # name: (export settings, loader settings, mean and std of the network, from input to float32 NCHW)
    "nhwc": ({"last": True}, {}, {}, lambda x: x.permute(0, 3, 1, 2)),
    "uint8": ({"dtype": torch.uint8}, {}, RAW, lambda x: x.float()),
    "int32, nhwc": ({"dtype": torch.int32, "last": True}, {}, RAW, lambda x: x.permute(0, 3, 1, 2).float()),
    "float16": ({"dtype": torch.float16}, {}, {}, lambda x: x.float()),
    "batch of 1": ({"batch": 1}, {}, {}, lambda x: x),
    "batch of 3": ({"batch": 3}, {}, {}, lambda x: x),
    "0 to 1": ({}, {"scale": 255.0}, IDENTITY, lambda x: x),
    "0 to 255, bgr": ({}, {"scale": 1.0, "bgr": True}, RAW, lambda x: x.flip(1)),
    "mmpose, bgr": (
        {},
        {"scale": 1.0, "bgr": True, "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)},
        {},
        lambda x: x.flip(1),
    ),
    "any size": ({"sizes": True}, {"input_size": (256, 192)}, {}, lambda x: x),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_of_every_kind_give_the_same_maps(kind, persons, tmp_path):  # noqa: F811
    exporting, settings, normalisation, before = INPUTS[kind]
    finder = DotFinder(RELEASE, **normalisation)
    file = export(Wrapped(finder, before), tmp_path / "dots.onnx", names=["maps"], **exporting)
    network = OnnxNetwork(file, FACE.names, **settings)
    assert network.convention == RELEASE
    dataset, joints = persons
    images = [dataset.read_image(int(number)) for number in dataset.instances.image_ids]
    output = NetworkSource(network)(images, dataset.instances.boxes)  # eight persons, more than each fixed batch
    cells = np.einsum("nij,nkj->nki", output.warps[:, :, :2], joints) + output.warps[:, None, :, 2]
    assert len(output.heatmaps) == 8
    assert np.abs(expectation(torch.from_numpy(output.heatmaps)).numpy() - cells).max() < 0.05


def test_a_batch_of_one_inside_a_file_that_states_any(tmp_path):
    finder = Wrapped(DotFinder(RELEASE), before=lambda crops: crops.reshape(1, 3, 256, 192))
    file = export(finder, tmp_path / "dots.onnx", names=["maps"])
    network = OnnxNetwork(file, FACE.names)
    crops = torch.rand(3, 3, 256, 192)
    together = network(crops).heatmaps
    assert together.shape == (3, 3, 64, 48)
    for one, crop in zip(together, crops, strict=True):
        assert (one == network(crop[None]).heatmaps[0]).all()


def test_maps_with_joints_last(tmp_path):
    finder = Wrapped(DotFinder(RELEASE), after=lambda maps: maps.permute(0, 2, 3, 1))
    network = OnnxNetwork(export(finder, tmp_path / "dots.onnx", names=["maps"]), FACE.names)
    assert network.convention == RELEASE
    crops = torch.rand(2, 3, 256, 192)
    torch.testing.assert_close(network(crops).heatmaps, DotFinder(RELEASE)(crops), atol=1e-4, rtol=1e-4)


class Simcc(nn.Module):
    """A small random network with SimCC outputs, as RTMPose has."""

    def __init__(self, joints: int = 17, size=(256, 192), ratio: float = 2.0, reverse=False, softmax=False, sharp=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, joints, 16, stride=16)
        cells = size[0] * size[1] // 256
        self.across, self.down = (nn.Linear(cells, int(ratio * side)) for side in (size[1], size[0]))
        self.reverse, self.softmax, self.sharp = reverse, softmax, sharp

    def forward(self, crops):
        """Distributions for x and y."""
        features = self.features(crops).flatten(2)
        outputs = [self.sharp * self.across(features), self.sharp * self.down(features)]
        outputs = [axis.softmax(-1) for axis in outputs] if self.softmax else outputs
        return tuple(outputs[::-1] if self.reverse else outputs)


def rtmlib(x, y, boxes, size=(256, 192), ratio=2.0, padding=1.25):
    """Keypoints in image pixels and scores by rtmlib's rule: the highest bin of each axis / ratio, and the mean of both."""
    bins = np.stack([x.argmax(-1), y.argmax(-1)], -1).astype(np.float32)
    crop, scores = bins / ratio, (x.max(-1) + y.max(-1)) / 2
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    width, height = boxes[:, 2], boxes[:, 3]
    aspect = size[1] / size[0]
    wide = width > height * aspect
    width, height = np.where(wide, width, height * aspect), np.where(wide, width / aspect, height)
    scale = padding * np.stack([width, height], -1)
    image = crop / [size[1], size[0]] * scale[:, None] + centre[:, None] - scale[:, None] / 2
    return crop, image, scores


@pytest.mark.parametrize("joints", [17, 26, 133])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("names", [["simcc_x", "simcc_y"], ["a", "b"]])
def test_simcc_is_decoded_as_rtmlib_does(joints, reverse, names, tmp_path):
    names = names[::-1] if reverse else names
    model = Simcc(joints, reverse=reverse)
    network = OnnxNetwork(export(model, tmp_path / "rtmpose.onnx", names=names))
    assert network.skeleton.num_keypoints == joints
    assert network.skeleton.names[:3] == ("nose", "left_eye", "right_eye")
    images = list(np.random.default_rng(0).integers(0, 255, (2, 240, 200, 3), np.uint8))
    boxes = np.array([[20.0, 30, 90, 150], [50, 10, 120, 90]])
    output = NetworkSource(network)(images, boxes)
    pixels = output.cells * 4
    kept = []
    torch.manual_seed(1)
    crops = torch.randn(3, 3, 256, 192)
    with torch.no_grad():
        x, y = (axis.numpy() for axis in (model(crops)[::-1] if reverse else model(crops)))
    crop, _, scores = rtmlib(x, y, boxes.repeat(2, axis=0)[:3])
    mine = network(crops)
    assert np.abs(4 * mine.cells.numpy() - crop).max() == 0
    np.testing.assert_allclose(mine.trust.numpy(), scores.clip(0, 1), atol=1e-5)
    # in image pixels, on the crops that the source made
    network_call = network.__call__
    del kept, network_call, pixels
    seen = {}

    class Spy(OnnxNetwork):
        def __call__(self, crops):
            seen["crops"] = crops
            return super().__call__(crops)

    spied = NetworkSource(Spy(tmp_path / "rtmpose.onnx"))
    output = spied(images, boxes)
    with torch.no_grad():
        x, y = (axis.numpy() for axis in (model(seen["crops"])[::-1] if reverse else model(seen["crops"])))
    _, image, _ = rtmlib(x, y, boxes)
    mine = np.linalg.solve(output.warps[:, None, :, :2], (output.cells - output.warps[:, None, :, 2])[..., None])[..., 0]
    assert np.abs(mine - image).max() < 1e-3
