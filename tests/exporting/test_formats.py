"""Versions of an ONNX file: as old as possible by default, and as asked for."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.exporting import formats
from distilpose.exporting.graph import output_names, trace
from distilpose.exporting.onnx_file import network_input
from distilpose.models import create_model

# highest operator set and IR version that runtimes of June 2023 and of April 2024 read: measured with their wheels
RUNTIMES = {"1.15.1": (18, 8), "1.17.3": (20, 9)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None), (18, 8)),
        ((18, 9), (18, 9)),
        ((20, None), (20, 9)),
        ((19, None), (19, 9)),
        ((21, None), (21, 10)),
    ],
)
def test_versions(given, expected):
    assert tuple(formats.onnx_versions("onnx", *given).values()) == expected


def test_the_default_is_read_by_a_runtime_of_two_years_ago():
    opset, ir_version = formats.onnx_versions("onnx", None, None).values()
    assert all(opset <= newest and ir_version <= newest_ir for newest, newest_ir in RUNTIMES.values())


@pytest.mark.parametrize(
    ("name", "given", "facts"),
    [
        ("torch_export", (18, None), ["opset=18", "format=onnx", "format=torch_export"]),
        ("openvino", (None, 8), ["ir_version=8", "format=openvino"]),
        ("onnx", (20, 8), ["ir_version=8", "opset=20", "9"]),
        ("onnx", (18, 99), ["ir_version=99", str(onnx.IR_VERSION)]),
        ("onnx", (999, None), ["opset=999", str(onnx.defs.onnx_opset_version())]),
    ],
)
def test_versions_that_do_not_fit(name, given, facts):
    with pytest.raises(DistilPoseError) as error:
        formats.onnx_versions(name, *given)
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize(
    ("kind", "all_versions"),
    [("student", [(None, None), (20, 9)]), ("teacher", [(None, None)])],  # versions are set after the network is traced
)
def test_a_file_has_the_versions_and_computes_as_the_model(tmp_path, kind, all_versions):
    torch.manual_seed(0)
    model = create_model(f"{kind}_xs", width=32, depth=1).eval()
    program = trace(model, False, True)
    for given in all_versions:
        versions = formats.onnx_versions("onnx", *given)
        about = {
            "format": 1, "kind": kind, "input_size": list(model.input_size), "padding": 1.25, "mean": list(model.mean),
            "std": list(model.std), "normalise": False, "skeleton": model.skeleton.to_dict(), **versions,
        }  # fmt: skip
        built = formats.build("onnx", program, output_names(kind, True), versions["opset"])
        formats.save("onnx", built, tmp_path / "a.onnx", about)
        read = onnx.load(tmp_path / "a.onnx")
        onnx.checker.check_model(read, full_check=True)
        assert read.ir_version == versions["ir_version"]
        assert [entry.version for entry in read.opset_import if not entry.domain] == [versions["opset"]]
        assert not [node.name for node in read.graph.node if node.metadata_props]  # a field of IR 10
        properties = {prop.key: prop.value for prop in read.metadata_props}
        assert json.loads(properties["distilpose"])["opset"] == versions["opset"]
        crops = np.random.default_rng(0).integers(0, 256, (3, *model.input_size, 3), dtype=np.uint8)
        images = network_input(crops, about)
        with torch.no_grad():
            expected = model(torch.from_numpy(images))
        outputs = formats.load("onnx", tmp_path / "a.onnx")(images)
        reference = expected.keypoints if kind == "student" else expected.heatmaps
        np.testing.assert_allclose(outputs[0 if kind == "student" else 2], reference.numpy(), atol=1e-5)
