"""MoveNet's decoding against its description, written out joint by joint."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from distilpose.data import CocoKeypoints
from distilpose.evaluation.protocol import evaluate_dataset
from distilpose.teachers.convention import Convention
from distilpose.teachers.movenet import read_movenet
from distilpose.teachers.network import NetworkSource
from distilpose.teachers.onnx import OnnxNetwork
from distilpose.teachers.scoring import predict_source

ROWS, COLUMNS, JOINTS = 16, 16, 5


def random_maps(count: int) -> list[torch.Tensor]:
    """Heat maps, centre, regression and offsets."""
    draw = torch.Generator().manual_seed(0)
    heatmaps, centre = (torch.rand(count, channels, ROWS, COLUMNS, generator=draw) ** 4 for channels in (JOINTS, 1))
    regression, offsets = (
        scale * torch.randn(count, 2 * JOINTS, ROWS, COLUMNS, generator=draw) for scale in (4.0, 0.5)
    )
    return [heatmaps, centre, regression, offsets]


def decode(heatmaps, centre, regression, offsets):
    """Pixels, heights and divided maps of one crop, by the description of the network."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    weight = np.hypot(y - ROWS / 2, x - COLUMNS / 2) + 1.8
    row, column = np.unravel_index(np.argmax(centre[0] / weight), (ROWS, COLUMNS))
    pixels, heights, maps = [], [], []
    for joint in range(JOINTS):
        rough = row + regression[2 * joint, row, column], column + regression[2 * joint + 1, row, column]
        divided = heatmaps[joint] / (np.hypot(y - rough[0], x - rough[1]) + 1.8)
        i, j = np.unravel_index(divided.argmax(), divided.shape)
        pixels.append([4 * (j + offsets[2 * joint + 1, i, j]) - 0.25, 4 * (i + offsets[2 * joint, i, j]) - 0.25])
        heights.append(heatmaps[joint, i, j])
        maps.append(divided / divided.max() * heatmaps[joint, i, j])
    return np.array(pixels), np.array(heights), np.array(maps)


def check(output, maps, convention):
    for number in range(len(maps[0])):
        pixels, heights, divided = decode(*(part[number].numpy() for part in maps))
        cells = (pixels - convention.offset) / convention.stride
        np.testing.assert_allclose(output.cells[number].numpy(), cells, atol=1e-4)
        np.testing.assert_allclose(output.heatmaps[number].numpy(), divided, atol=1e-5)
        np.testing.assert_allclose(output.trust[number].numpy(), np.sqrt(heights), atol=1e-5)


def test_one_person_is_chosen_and_decoded_as_described():
    maps = random_maps(6)
    check(read_movenet(*maps), maps, Convention.by_ratio((64, 64), (ROWS, COLUMNS), offset=1.5))


def test_the_other_person_in_the_crop_is_left_out():
    """Two persons with equal heat: the map of the student has only the one whose centre is nearer to the middle."""
    heatmaps, centre = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    regression, offsets = torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 32, 32)
    centre[0, 0, 15, 14], centre[0, 0, 15, 28] = 0.6, 0.9
    heatmaps[0, 0, 5, 14], heatmaps[0, 0, 5, 28] = 0.7, 0.9
    regression[:, 0] = -10  # both joints are ten cells above the centres
    output = read_movenet(heatmaps, centre, regression, offsets)
    assert output.heatmaps[0, 0, 5, 14] == pytest.approx(0.7)
    assert output.heatmaps[0, 0, 5, 28] < 0.2
    assert output.heatmaps.flatten(2).argmax().item() == 5 * 32 + 14


@pytest.mark.parametrize(
    ("names", "last"), [("heatmaps centre regression offsets", False), ("center heatmap offset regression", True)]
)
def test_movenet_is_recognised_in_a_file_by_its_outputs(names, last, tmp_path):
    """The outputs are constants, plus nothing of the input."""
    maps = dict(zip(("heat", "cent", "regr", "offs"), random_maps(1), strict=True))
    nodes, constants, outputs = [helper.make_node("ReduceMax", ["images", "axes"], ["top"], keepdims=0)], [], []
    constants += [
        numpy_helper.from_array(np.array([0, 1, 2, 3]), "axes"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    nodes.append(helper.make_node("Mul", ["top", "zero"], ["nothing"]))
    for name in names.split():
        value = maps[name[:4]].permute(0, 2, 3, 1) if last else maps[name[:4]]
        constants.append(numpy_helper.from_array(value.numpy(), f"{name}_value"))
        nodes.append(helper.make_node("Add", [f"{name}_value", "nothing"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 64, 64, 3] if last else [1, 3, 64, 64])
    model = helper.make_model(
        helper.make_graph(nodes, "movenet", [image], outputs, constants), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    onnx.save(model, tmp_path / "movenet.onnx")
    network = OnnxNetwork(tmp_path / "movenet.onnx", [f"joint_{number}" for number in range(JOINTS)])
    assert network.convention == Convention.by_ratio((64, 64), (ROWS, COLUMNS), padding=1.0, offset=1.5)
    assert (network.mean, network.std) == ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255))
    check(network(torch.rand(1, 3, 64, 64) * 255), list(maps.values()), network.convention)


@pytest.mark.slow
def test_its_accuracy_is_that_measured_independently(shared_data):
    """56.1 AP on the COCO slice in ground-truth boxes, one view; 41.3 by its raw heat maps, which show everyone."""
    file = shared_data.parent / "weights" / "movenet_thunder.onnx"
    if not file.exists():
        pytest.skip("needs movenet_thunder.onnx beside DISTILPOSE_DATA")
    folder = shared_data / "coco-mini"
    dataset = CocoKeypoints(folder / "annotations" / "person_keypoints_val2017.json", folder / "val2017")
    raw = {"outputs": ["heatmaps"], "scale": 1.0, "offset": 1.5, "padding": 1.0}
    for settings, expected in (({}, 0.561), (raw, 0.413)):
        source = NetworkSource(OnnxNetwork(file, **settings))
        (predictions,) = predict_source(source, dataset, [False], "MoveNet")
        assert abs(evaluate_dataset(predictions, dataset).metrics["AP"] - expected) < 0.01
