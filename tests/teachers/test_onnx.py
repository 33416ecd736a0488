"""Teachers in ONNX files of every kind. `test_convention` shows that their maps lie where the joints are."""

from __future__ import annotations

import hashlib
import logging
import pickle
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from dots import FACE, SMALL, DotFinder, export_onnx
from hydra import compose, initialize_config_dir
from onnx import TensorProto, helper
from torch import nn

from distilpose import create_model
from distilpose.cli.paths import CONFIG_DIR
from distilpose.data import CocoKeypoints
from distilpose.data.geometry import warp_image
from distilpose.errors import DistilPoseError
from distilpose.export import main as export_command
from distilpose.models import save_model
from distilpose.modules import FrozenTeacher, load_onnx
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD
from distilpose.record import main as record_command
from distilpose.skeleton import Skeleton
from distilpose.teachers.convention import Convention
from distilpose.teachers.heatmaps import peak_confidence
from distilpose.teachers.module import ModuleNetwork
from distilpose.teachers.network import NetworkSource
from distilpose.teachers.onnx import OnnxNetwork

RELEASE = Convention.by_ratio((256, 192), (64, 48))
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


class Wrapped(nn.Module):
    """A network with another input or other outputs."""

    def __init__(self, network, before=lambda crops: crops, after=lambda output: output):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, crops):
        return self.after(self.network(self.before(crops)))


def dots(file, before=lambda crops: crops, after=lambda output: output, normalisation=None, convention=RELEASE, **kind):
    """The perfect teacher of three dots in a file."""
    finder = Wrapped(DotFinder(convention, **(normalisation or {})), before, after)
    return export_onnx(finder, file, convention.input_size, names=kind.pop("names", ["maps"]), **kind)


INPUTS = {
    # (the file, from its input to RGB (N, 3, H, W), what normalises that, settings)
    "nhwc": ({"last": True}, lambda x: x.permute(0, 3, 1, 2), {}, {}),
    "uint8": ({"dtype": torch.uint8}, lambda x: x.float(), RAW, {}),
    "int32 nhwc": ({"dtype": torch.int32, "last": True}, lambda x: x.permute(0, 3, 1, 2).float(), RAW, {}),
    "float16": ({"dtype": torch.float16}, lambda x: x.float(), {}, {}),
    "batch of 1": ({"batch": 1}, lambda x: x, {}, {}),
    "batch of 3": ({"batch": 3}, lambda x: x, {}, {}),
    "0 to 1": ({}, lambda x: x, {"mean": (0.0,) * 3, "std": (1.0,) * 3}, {"scale": 255.0}),
    "0 to 255 bgr": ({}, lambda x: x.flip(1), RAW, {"scale": 1.0, "bgr": True}),
    "mmpose bgr": (
        {}, lambda x: x.flip(1), {},
        {"scale": 1.0, "bgr": True, "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)},
    ),
    "any size": ({"free": True}, lambda x: x, {}, {"input_size": (256, 192)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_of_every_kind_give_the_maps_of_the_network(kind, tmp_path):
    exporting, before, normalisation, settings = INPUTS[kind]
    network = OnnxNetwork(
        dots(tmp_path / "dots.onnx", before, normalisation=normalisation, **exporting), FACE.names, **settings
    )
    assert network.convention == RELEASE
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (5, 3, 256, 192)) / 255  # more persons than each fixed batch, and no multiple of it
    mean, std = (torch.tensor(value)[:, None, None] for value in (network.mean, network.std))
    maps = network((pixels - mean) / std).heatmaps
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    expected = DotFinder(RELEASE)((pixels - mean) / std)
    torch.testing.assert_close(maps, expected, atol=5e-3 if "16" in kind else 1e-3, rtol=0)


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        (
            {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
            torch.float32,
        ),  # of 0 to 255, without scale=1
        ({"scale": 1.0, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}, torch.float32),  # of 0 to 1
        ({"std": (58.395, 57.12, 57.375)}, torch.float32),
        ({"mean": IMAGENET_MEAN, "std": IMAGENET_STD}, torch.uint8),  # rounded, almost nothing is left
        ({"scale": 255.0}, torch.int32),
        ({"scale": 1.0, "mean": (128.0, 128.0, 128.0)}, torch.int32),
    ],
)
def test_a_normalisation_that_the_input_cannot_mean_is_an_error(settings, dtype, tmp_path):
    file = dots(tmp_path / "dots.onnx", lambda x: x.float(), dtype=dtype)
    with pytest.raises(DistilPoseError) as error:
        OnnxNetwork(file, FACE.names, **settings)
    assert "dots.onnx" in str(error.value)
    assert all(f"teacher.{name}={value}" in str(error.value) for name, value in settings.items())


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 255.0}, {"scale": 1.0}, {"scale": 127.5, "mean": (1.0, 1.0, 1.0)}, {"mean": IMAGENET_MEAN},
        {"scale": 256.0, "mean": (0.5, 0.5, 0.5)},  # OpenPose
        {"scale": 1.0, "mean": (128.0, 128.0, 128.0), "std": (256.0, 256.0, 256.0)},
    ],
)  # fmt: skip
def test_usual_normalisations_are_taken(settings, tmp_path):
    network = OnnxNetwork(dots(tmp_path / "dots.onnx"), FACE.names, **settings)
    pixel = (1 - network.mean[0]) / network.std[0]
    scale, mean, std = (
        settings.get(name, default) for name, default in (("scale", 255.0), ("mean", (0,)), ("std", (1,)))
    )
    assert pixel == pytest.approx((255 / scale - mean[0]) / std[0])


def test_a_file_that_states_any_batch_and_has_one_inside(tmp_path):
    model = onnx.load(dots(tmp_path / "dots.onnx", batch=1))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    # the batch of one inside, as exports with a fixed reshape have it
    shape = helper.make_tensor("one", TensorProto.INT64, [4], [1, 3, 256, 192])
    model.graph.initializer.append(shape)
    for node in model.graph.node:
        node.input[:] = ["reshaped" if name == "input" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Reshape", ["input", "one"], ["reshaped"]))
    onnx.save(model, tmp_path / "dots.onnx")
    network = OnnxNetwork(tmp_path / "dots.onnx", FACE.names)
    crops = torch.rand(3, 3, 256, 192)
    torch.testing.assert_close(network(crops).heatmaps, DotFinder(RELEASE)(crops), atol=1e-4, rtol=0)


def test_a_file_that_mixes_the_crops_of_a_batch_sees_one_at_a_time(tmp_path):
    """As an export that was traced with one crop, whose reshapes do not fail with two."""
    mixed = dots(tmp_path / "dots.onnx", before=lambda crops: crops[:1].expand_as(crops))
    network, whole = OnnxNetwork(mixed, FACE.names), OnnxNetwork(dots(tmp_path / "whole.onnx"), FACE.names)
    assert "run on 1 crops" in network.describe()
    assert "any number" in whole.describe()
    crops = torch.rand(3, 3, 256, 192)
    crops[1, :, 128:] = 0
    torch.testing.assert_close(network(crops).heatmaps, whole(crops).heatmaps, atol=1e-4, rtol=0)


def test_outputs_with_joints_last_and_others_beside_them(tmp_path):
    file = dots(
        tmp_path / "dots.onnx",
        after=lambda maps: (maps.amax((2, 3)), maps.permute(0, 2, 3, 1), maps + 1),
        names=["peaks", "heatmaps", "other"],
    )
    crops = torch.rand(2, 3, 256, 192)
    expected = DotFinder(RELEASE)(crops)
    torch.testing.assert_close(OnnxNetwork(file, FACE.names)(crops).heatmaps, expected, atol=1e-4, rtol=0)
    other = OnnxNetwork(file, FACE.names, outputs=["other"])
    torch.testing.assert_close(other(crops).heatmaps, expected + 1, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "settings", "unbiased"),
    [
        ("hrnet", {}, False),
        ("vitpose-b", {}, True),
        ("ViTPose_base", {"rule": "ratio"}, False),
        ("x", {"rule": "udp"}, True),
    ],
)
def test_the_cells_of_heat_maps_are_assumed_by_the_name_and_said(name, settings, unbiased, tmp_path):
    network = OnnxNetwork(dots(tmp_path / f"{name}.onnx", batch=1), FACE.names, **settings)
    assert network.convention == (Convention.udp if unbiased else Convention.by_ratio)((256, 192), (64, 48))
    assert ("teacher.rule" in network.describe()) == (not settings)


def test_what_was_assumed_is_said_with_the_way_to_say_otherwise(tmp_path):
    file = dots(tmp_path / "dots.onnx", batch=1)
    assumed = {"padding": 1.1, "rule": "ratio", "mean": (0.0, 0.0, 0.0)}
    told = OnnxNetwork(file, FACE.names, **assumed).describe()
    for setting, value in assumed.items():
        rest = {name: other for name, other in assumed.items() if name != setting}
        silent = OnnxNetwork(file, FACE.names, **rest)
        assert f"teacher.{setting}" in silent.describe()
        assert f"teacher.{setting}" not in told
        assert value is not None


class Simcc(nn.Module):
    """A small random network with SimCC outputs, as RTMPose has."""

    def __init__(self, joints=17, size=(256, 192), ratio=2.0, reverse=False, activation=lambda axis: axis):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, joints, 16, stride=16)
        cells = size[0] * size[1] // 256
        self.across, self.down = (nn.Linear(cells, int(ratio * side)) for side in (size[1], size[0]))
        self.reverse, self.activation = reverse, activation

    def forward(self, crops):
        features = self.features(crops).flatten(2)
        outputs = (self.activation(self.across(features)), self.activation(self.down(features)))
        return outputs[::-1] if self.reverse else outputs

    def distributions(self, crops):
        """For x and y, in numpy."""
        with torch.no_grad():
            outputs = self(crops)
        return [axis.numpy() for axis in (outputs[::-1] if self.reverse else outputs)]


def rtmlib_crop(x, y, ratio=2.0):
    """Crop pixels and scores by rtmlib's rule: the highest bin of each axis over the split ratio, the mean of both maxima."""
    return np.stack([x.argmax(-1), y.argmax(-1)], -1) / ratio, (x.max(-1) + y.max(-1)) / 2


def rtmlib_image(crop, boxes, size=(256, 192), padding=1.25):
    """Image pixels by rtmlib's rule: keypoints / input size * scale + centre - scale / 2."""
    centre, scale = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:] * padding
    aspect = size[1] / size[0]
    wide = (scale[:, 0] > scale[:, 1] * aspect)[:, None]
    scale = np.where(
        wide, np.stack([scale[:, 0], scale[:, 0] / aspect], -1), np.stack([scale[:, 1] * aspect, scale[:, 1]], -1)
    )
    return crop / [size[1], size[0]] * scale[:, None] + centre[:, None] - scale[:, None] / 2


@pytest.mark.parametrize(
    ("joints", "reverse", "names"),
    [
        (17, False, ["simcc_x", "simcc_y"]),
        (26, True, ["simcc_y", "simcc_x"]),
        (133, False, ["a", "b"]),
        (17, True, None),
    ],
)
def test_simcc_is_decoded_as_rtmlib_does(joints, reverse, names, tmp_path):
    model = Simcc(joints, reverse=reverse)
    network = OnnxNetwork(export_onnx(model, tmp_path / "rtmpose.onnx", names=names))
    assert network.skeleton.num_keypoints == joints
    torch.manual_seed(1)
    crops = torch.randn(3, 3, 256, 192)
    pixels, scores = rtmlib_crop(*model.distributions(crops))
    output = network(crops)
    assert (4 * output.cells.numpy() == pixels).all()
    np.testing.assert_allclose(output.trust.numpy(), scores.clip(0, 1), atol=1e-5)


def test_simcc_in_image_pixels_as_rtmlib_has_it(tmp_path):
    model = Simcc()
    source = NetworkSource(OnnxNetwork(export_onnx(model, tmp_path / "rtmpose.onnx", names=["simcc_x", "simcc_y"])))
    images = list(np.random.default_rng(0).integers(0, 255, (2, 240, 200, 3), np.uint8))
    boxes = np.array([[20.0, 30, 90, 150], [50, 10, 120, 90]])
    output = source(images, boxes)
    mine = np.linalg.solve(output.warps[:, None, :, :2], (output.cells - output.warps[:, None, :, 2])[..., None])[
        ..., 0
    ]
    convention = Convention.by_ratio((256, 192), (64, 48))
    crops = [
        warp_image(image, convention.warp_of_box(box), (256, 192)) for image, box in zip(images, boxes, strict=True)
    ]
    pixels = torch.from_numpy(np.stack(crops)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    crop, _ = rtmlib_crop(*model.distributions((pixels - mean) / std))
    assert np.abs(mine - rtmlib_image(crop, boxes)).max() < 1e-3


@pytest.mark.parametrize(("names", "certain"), [(["pred_y", "pred_x"], True), (["a", "b"], False)])
def test_simcc_of_a_square_crop_goes_by_names_or_says_that_it_goes_by_order(names, certain, tmp_path):
    model = Simcc(size=(128, 128), reverse=certain)
    network = OnnxNetwork(export_onnx(model, tmp_path / "hands.onnx", (128, 128), names=names))
    crops = torch.randn(2, 3, 128, 128)
    pixels, _ = rtmlib_crop(*model.distributions(crops))
    assert (4 * network(crops).cells.numpy() == pixels).all()
    assert ("teacher.outputs" in network.describe()) == (not certain)


@pytest.mark.parametrize("form", ["probabilities", "logits"])
def test_simcc_that_is_no_confidence_is_read_by_its_share_near_the_peak(form, tmp_path):
    """Two peaks with shares of 0.8 and 0.2, 60 pixels apart: the first is the joint, with a confidence of 0.8."""

    def mixture(count, at, other):
        bins = torch.arange(count)
        one, two = (torch.exp(-((bins - centre) ** 2) / 50) for centre in (at, other))
        return 0.8 * one / one.sum() + 0.2 * two / two.sum() + 1e-9

    class Fixed(nn.Module):
        def forward(self, crops):
            nothing = crops.mean(dim=(1, 2, 3))[:, None, None] * 0
            outputs = [mixture(384, 200, 80).expand(1, 17, -1), mixture(512, 300, 420).expand(1, 17, -1)]
            outputs = [axis.log() if form == "logits" else axis / axis.sum(-1, keepdim=True) for axis in outputs]
            return tuple(axis + nothing for axis in outputs)

    file = export_onnx(Fixed(), tmp_path / "simcc.onnx", names=["simcc_x", "simcc_y"])
    network = OnnxNetwork(file, simcc="logits" if form == "logits" else None)
    networks = [network] if form == "logits" else [network, ModuleNetwork(Fixed(), "own", (256, 192))]
    for output in (one(torch.rand(2, 3, 256, 192)) for one in networks):
        assert output.trust.sub(0.8).abs().max() < 0.01
        assert output.heatmaps.amax((2, 3)).sub(0.8).abs().max() < 0.01
        assert (output.cells == torch.tensor([200, 300]) / 8).all()
    assert "probabilities" in network.describe() or form == "logits"


def test_a_setting_of_simcc_is_an_error_for_heat_maps(tmp_path):
    with pytest.raises(DistilPoseError, match=r"dots\.onnx gives heat maps .*teacher\.simcc=logits"):
        OnnxNetwork(dots(tmp_path / "dots.onnx"), FACE.names, simcc="logits")


def test_heat_maps_after_a_softmax_are_read_by_the_share_of_their_peak(tmp_path):
    """Two peaks with shares of 0.8 and 0.2: trust is 0.8, and not the height, 0.03, at which a joint would hardly count."""

    class Softmax(nn.Module):
        def forward(self, crops):
            y, x = torch.arange(64.0)[:, None], torch.arange(48.0)
            one, two = (torch.exp(-((x - u) ** 2 + (y - v) ** 2) / 8) for u, v in ((14.3, 20.0), (32.0, 45.0)))
            maps = 0.8 * one / one.sum() + 0.2 * two / two.sum()
            return maps + torch.zeros(17, 1, 1) + 0 * crops[:, :1, :1, :1]

    file = OnnxNetwork(export_onnx(Softmax(), tmp_path / "softmax.onnx", names=["heatmaps"]))
    assert "distributions" in file.describe()
    for network in (file, ModuleNetwork(Softmax(), "own", (256, 192))):
        output = network(torch.rand(2, 3, 256, 192))
        assert output.trust.sub(0.8).abs().max() < 0.02
        torch.testing.assert_close(output.heatmaps.amax((2, 3)), torch.ones(2, 17))
        assert network.floor == 0  # maps without noise
    values = ModuleNetwork(lambda crops: 2 * Softmax()(crops), "own", (256, 192))
    assert values(torch.rand(1, 3, 256, 192)).trust.max() < 0.1


@pytest.mark.parametrize(("activation", "normalise"), [("none", True), ("softmax", False)])
def test_an_exported_teacher_says_everything(activation, normalise, tmp_path):
    body = Skeleton.from_names(["right_knee", "left_knee", "beak"])
    torch.manual_seed(0)
    normalisation = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.1)}
    model = create_model("teacher_xs", skeleton=body, input_size=(96, 72), **normalisation, **SMALL)
    model.set_heatmap_activation(activation)
    model.padding = 1.4
    checkpoint = save_model(model, tmp_path / "teacher.safetensors")
    overrides = [
        f"checkpoint={checkpoint}",
        f"output={tmp_path / 'teacher.onnx'}",
        "format=onnx",
        f"normalise={normalise}",
    ]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        export_command.__wrapped__(compose("export", overrides))
    network = OnnxNetwork(tmp_path / "teacher.onnx")
    assert network.skeleton == body
    assert network.convention == Convention.by_ratio((96, 72), (24, 18), padding=1.4)
    assert network.floor == FrozenTeacher(model).floor
    assert "assumed" not in network.describe()
    pixels = torch.randint(0, 256, (3, 3, 96, 72)) / 255
    mean, std = (torch.tensor(value)[:, None, None] for value in (network.mean, network.std))
    output = network((pixels - mean) / std)
    with torch.no_grad():
        expected = model((pixels - torch.tensor(model.mean)[:, None, None]) / torch.tensor(model.std)[:, None, None])
    torch.testing.assert_close(output.heatmaps, expected.heatmaps.clamp(min=0), atol=1e-3, rtol=1e-3)
    # the height of a softmax map's peak is no confidence, as the network's own maps say too
    trust = peak_confidence(expected.heatmaps, softmax=activation == "softmax")
    torch.testing.assert_close(output.trust, trust, atol=1e-3, rtol=1e-2)


def test_its_files_digests_are_part_of_a_recording(tmp_path):
    file = dots(tmp_path / "dots.onnx", batch=1)
    about = NetworkSource(OnnxNetwork(file, FACE.names)).about
    assert about["files"] == {"dots.onnx": hashlib.sha256(file.read_bytes()).hexdigest()}
    inside = onnx.load(file)
    onnx.save(inside, tmp_path / "large.onnx", save_as_external_data=True, location="large.data", size_threshold=0)
    about = NetworkSource(OnnxNetwork(tmp_path / "large.onnx", FACE.names)).about
    assert about["files"]["large.data"] == hashlib.sha256((tmp_path / "large.data").read_bytes()).hexdigest()
    (tmp_path / "large.data").unlink()
    with pytest.raises(DistilPoseError, match=r"large\.data"):
        OnnxNetwork(tmp_path / "large.onnx", FACE.names)


def test_weights_outside_the_folder_are_not_read(tmp_path):
    (tmp_path / "secret").write_bytes(b"0" * 400)
    (tmp_path / "model").mkdir()
    model = onnx.load(dots(tmp_path / "dots.onnx", batch=1))
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[100], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    model.graph.initializer.append(tensor)
    (tmp_path / "model" / "dots.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DistilPoseError, match=r"\.\./secret"):
        OnnxNetwork(tmp_path / "model" / "dots.onnx", FACE.names)


def graph(inputs, outputs, file, **versions):
    """A file with inputs and outputs of any shapes."""
    nodes = [
        helper.make_node("RandomNormal", [], [name], shape=list(shape), name=f"make_{name}")
        for name, shape in outputs.items()
    ]
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in group.items()]
        for group in (inputs, outputs)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", *values), opset_imports=[helper.make_opsetid("", versions.pop("opset", 17))]
    )
    model.ir_version = versions.pop("ir", 9)
    file.write_bytes(model.SerializeToString())
    return file


IMAGE = {"input": [1, 3, 256, 192]}
SHAPES = {
    "two images": ({**IMAGE, "other": [1, 3, 64, 48]}, {"maps": [1, 17, 64, 48]}, ["other", "64"]),
    "no image": ({"tokens": [1, 77]}, {"maps": [1, 17, 64, 48]}, ["tokens", "77"]),
    "grey image": ({"input": [1, 1, 256, 192]}, {"maps": [1, 17, 64, 48]}, ["[1, 1, 256, 192]"]),
    "keypoints": (IMAGE, {"keypoints": [1, 1, 17, 3]}, ["keypoints", "(1, 1, 17, 3)", "256", "192"]),
    "another aspect": (IMAGE, {"maps": [1, 17, 64, 64]}, ["(1, 17, 64, 64)"]),
    "simcc of another crop": (IMAGE, {"simcc_x": [1, 17, 512], "simcc_y": [1, 17, 576]}, ["512", "576"]),
    "two maps": (IMAGE, {"a": [1, 17, 64, 48], "b": [1, 17, 32, 24]}, ["a ", "b ", "teacher.outputs"]),
    "any size": ({"input": [1, 3, "h", "w"]}, {"maps": [1, 17, 64, 48]}, ["teacher.input_size"]),
    "unknown joints": (IMAGE, {"maps": [1, 19, 64, 48]}, ["19", "teacher.joints"]),
}


def test_a_detector_is_no_teacher_though_its_outputs_grow_with_what_it_sees(tmp_path):
    """Such as RTMO, or a YOLO with its suppression of duplicates: the number of detections depends on the images."""
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("Greater", ["flat", "half"], ["bright"]),
        helper.make_node("Gather", ["bright", "zero"], ["of_first"], axis=0),
        helper.make_node("Compress", ["flat", "of_first"], ["kept"], axis=1),
        helper.make_node("Unsqueeze", ["kept", "two"], ["dets"]),
    ]
    values = [
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
    ]
    crops = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 64, 48])
    detections = helper.make_tensor_value_info("dets", TensorProto.FLOAT, ["batch", "found", 1])
    model = helper.make_model(
        helper.make_graph(nodes, "graph", [crops], [detections], values), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(model, tmp_path / "detector.onnx")
    with pytest.raises(DistilPoseError, match=r"dets .*none of which fits"):
        load_onnx(tmp_path / "detector.onnx")


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_do_not_fit_are_named(case, tmp_path):
    inputs, outputs, facts = SHAPES[case]
    with pytest.raises(DistilPoseError) as error:
        load_onnx(graph(inputs, outputs, tmp_path / "network.onnx"))
    assert all(fact in str(error.value) for fact in ["network.onnx" if case != "unknown joints" else "", *facts])


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"joints": ["nose", "neck"]}, ["17", "2"]),
        ({"input_size": (384, 288)}, ["256", "192", "384"]),
        ({"outputs": ["heat"]}, ["heat", "maps"]),
        ({"layout": "nhwc"}, ["[1, 3, 256, 192]"]),
    ],
)
def test_settings_that_contradict_the_file(settings, facts, tmp_path):
    with pytest.raises(DistilPoseError) as error:
        load_onnx(graph(IMAGE, {"maps": [1, 17, 64, 48]}, tmp_path / "network.onnx"), **settings)
    assert all(fact in str(error.value) for fact in facts)


CONTENTS = {
    "a web page": (b"<!DOCTYPE html><html>", ["web page"]),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", ["LFS"]),
    "a pickle": (pickle.dumps({"state_dict": 1}, protocol=2), ["PyTorch", "torch.onnx"]),
    "a checkpoint": (b"PK\x03\x04" + bytes(50), ["PyTorch"]),
    "nothing": (b"", ["empty"]),
    "noise": (bytes(range(256)), ["onnxruntime"]),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_files_that_are_not_onnx(case, tmp_path):
    content, facts = CONTENTS[case]
    file = tmp_path / "network.onnx"
    file.write_bytes(content)
    with pytest.raises(DistilPoseError) as error:
        load_onnx(file)
    assert all(fact in str(error.value) for fact in ["network.onnx", *facts])


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(DistilPoseError, match=path.name):
            load_onnx(path)


@pytest.mark.parametrize("versions", [{"opset": 99}, {"ir": 99}])
def test_a_file_newer_than_this_onnxruntime(versions, tmp_path):
    file = graph(IMAGE, {"maps": [1, 17, 64, 48]}, tmp_path / "network.onnx", **versions)
    with pytest.raises(DistilPoseError, match=r"network\.onnx.*(99|till opset).*update onnxruntime"):
        load_onnx(file)


def test_without_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DistilPoseError, match=r"distilpose\[runtime\]"):
        load_onnx(dots(tmp_path / "dots.onnx", batch=1))


def test_it_runs_on_the_device_of_the_training(tmp_path, monkeypatch, caplog):
    """On a CUDA device the session is opened there; without CUDA in onnxruntime that is said."""
    network = OnnxNetwork(dots(tmp_path / "dots.onnx", batch=1), FACE.names)
    opened = []
    original = onnxruntime.InferenceSession

    def spy(file, options, providers):
        opened.append(providers)
        return original(file, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    crops = torch.rand(2, 3, 256, 192)
    before = network(crops).heatmaps
    network._file.device = torch.device("cuda", 1)
    assert (network(crops).heatmaps == before).all()
    assert opened == [[("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]]
    assert "onnxruntime-gpu" in caplog.text


def test_a_teacher_of_another_aspect_or_other_joints(tmp_path):
    square = Convention.by_ratio((256, 256), (64, 64))
    teacher = load_onnx(dots(tmp_path / "dots.onnx", convention=square, batch=1), FACE.names)
    with pytest.raises(DistilPoseError, match=r"teacher\.pad"):
        teacher.set_student(create_model("student_xs", input_size=(64, 48), **SMALL))
    teacher = load_onnx(tmp_path / "dots.onnx", ["beak", "tail", "wing"], pad=True)
    with pytest.raises(DistilPoseError, match="beak"):
        teacher.set_student(create_model("student_xs", input_size=(64, 48), **SMALL))


def test_the_command_records_a_file_and_says_what_it_assumed(tiny_coco, tmp_path, caplog):
    root = tiny_coco(train=3)
    torch.manual_seed(0)
    file = export_onnx(nn.Conv2d(3, 17, 4, stride=4), tmp_path / "vitpose.onnx", (64, 48))
    settings = ["data=custom", f"data.root={root}", "device=cpu", "teacher=onnx", f"teacher.file={file}"]
    with (
        initialize_config_dir(str(CONFIG_DIR), version_base="1.3"),
        caplog.at_level(logging.INFO, logger="distilpose"),
    ):
        recording = record_command.__wrapped__(compose("record", [*settings, f"output={tmp_path / 'recording'}"]))
    assert "teacher.rule=udp" in caplog.text
    source = NetworkSource(OnnxNetwork(file))
    dataset = CocoKeypoints(root / "annotations" / "train.json", root / "train", input_size=(64, 48))
    images = [dataset.read_image(int(number)) for number in dataset.instances.image_ids]
    expected = source(images, dataset.instances.boxes)
    np.testing.assert_allclose(recording.maps, expected.heatmaps, atol=2e-3)
    assert recording.about["source"] == source.about
