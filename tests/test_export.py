"""The command as a person runs it: each format, what its file says of itself, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from distilpose import export
from distilpose.exporting import formats
from distilpose.exporting.formats import EXTRA_FILE
from distilpose.exporting.onnx_file import network_input
from distilpose.models import create_model, list_models, load_model, save_model
from distilpose.runtime import Runtime

SUFFIX = {"onnx": "onnx", "torch_export": "pt2", "openvino": "xml"}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    (folder / "metrics.json").write_text(json.dumps({"best": {"val/AP": 0.5}}))
    (folder / "config.yaml").write_text("data: {padding: 1.5}\n")
    return save_model(
        create_model("student_xs", width=32, depth=1), folder / "checkpoints" / "student.safetensors"
    ).resolve()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command's main in tmp_path: exit status, and all it says."""

    def call(*arguments) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        GlobalHydra.instance().clear()
        status, said = 0, ""
        try:
            export.main()
        except SystemExit as stop:
            status, said = (1, stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), "")
        told = capsys.readouterr()
        return status, told.out + told.err + said

    return call


def read_about(name: str, path) -> dict:
    if name == "onnx":
        import onnx

        model = onnx.load(path)
        onnx.checker.check_model(model)
        return json.loads({prop.key: prop.value for prop in model.metadata_props}["distilpose"])
    if name == "openvino":
        import openvino

        return json.loads(openvino.Core().read_model(path).get_rt_info(["distilpose"]).astype(str))
    files = {EXTRA_FILE: ""}
    torch.export.load(path, extra_files=files)
    return json.loads(files[EXTRA_FILE])


@pytest.mark.parametrize("name", SUFFIX)
def test_each_format(run, student, tmp_path, name):
    output = tmp_path / f"out.{SUFFIX[name]}"
    status, told = run(f"checkpoint={student}", f"format={name}", f"output={output}", "normalise=true", "limit=12")
    assert status == 0, told
    assert "keypoints differ by" in told
    about = read_about(name, output)
    model = load_model(student)
    assert about["skeleton"]["names"] == list(model.skeleton.names)
    assert len(about["skeleton"]["flip_pairs"]) == 8
    assert about["skeleton"]["sigmas"][0] == 0.026
    assert (about["input_size"], about["padding"], about["model"]) == ([64, 48], 1.5, "student_xs")
    assert about["checkpoint"]["sha256"] == hashlib.sha256(student.read_bytes()).hexdigest()
    assert about["metrics"]["best"]["val/AP"] == 0.5
    assert 0 <= about["difference"]["pixels_largest"] < 0.0025
    crops = np.random.default_rng(0).integers(0, 256, (5, 64, 48, 3), dtype=np.uint8)
    keypoints, scores = formats.load(name, output)(crops)
    with torch.no_grad():
        expected = model(torch.from_numpy(network_input(crops, {**about, "normalise": False})))
    np.testing.assert_allclose(keypoints, expected.keypoints.numpy(), atol=1e-5)
    np.testing.assert_allclose(scores, expected.scores.numpy(), atol=1e-4)
    assert b"/src/distilpose" not in output.read_bytes()
    assert sorted(path.name for path in tmp_path.glob(".*part*")) == []
    status, told = run(f"checkpoint={student}", f"format={name}", f"output={output}")
    assert status == 1
    assert "not overwritten" in told


def test_a_shared_folder(run, student, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "model.safetensors").write_bytes(student.read_bytes())
    status, told = run(f"checkpoint={shared}", "output=a.onnx", "limit=2")
    assert status == 0, told
    about = Runtime(tmp_path / "a.onnx").about["checkpoint"]
    assert (about["file"], about["sha256"]) == ("model.safetensors", hashlib.sha256(student.read_bytes()).hexdigest())


def test_int8_with_calibration(run, student, tmp_path, tiny_coco):
    root = tiny_coco(val=6)
    status, told = run(
        f"checkpoint={student}", "output=int8.onnx", "precision=int8",
        f"calibration.images={root / 'val'}", f"calibration.annotations={root / 'annotations' / 'val.json'}",
        f"images={root / 'val'}", f"annotations={root / 'annotations' / 'val.json'}",
    )  # fmt: skip
    assert status == 0, told
    assert "PCK" in told
    assert "give 50 or more" in told
    import onnx

    model = onnx.load(tmp_path / "int8.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") > 5
    assert any(value.data_type == onnx.TensorProto.INT8 and len(value.dims) == 4 for value in model.graph.initializer)
    assert "of val.json" in read_about("onnx", tmp_path / "int8.onnx")["calibration"]


def test_what_is_kept_can_be_opened(run, student, tmp_path, tiny_coco):
    images = (tiny_coco(val=2) / "val").rename(tmp_path / "locations")
    named = tmp_path / "location.safetensors"
    named.write_bytes(student.read_bytes())
    status, told = run(f"checkpoint={named}", f"images={images}", "output=a.onnx")
    assert status == 0, told
    assert Runtime(tmp_path / "a.onnx").about["difference"]["crops"].startswith("2 images of locations")


def test_a_file_that_differs_is_not_kept(run, student, tmp_path, monkeypatch):
    opened = formats.load

    def shifted(name, path):
        run = opened(name, path)
        return lambda images: [one + np.float32(0.01) for one in run(images)]

    monkeypatch.setattr(formats, "load", shifted)
    status, told = run(f"checkpoint={student}", "format=onnx", "output=out.onnx")
    assert status == 1
    assert "not kept" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["format=tflite", "output=a.onnx"], "format=tflite is not known"),
        (["format=openvino", "precision=int8", "output=a.xml"], "int8 is for format=onnx"),
        (["format=torch_export", "precision=int8", "output=a.pt2"], "precision=int8 is not there"),
        (["format=onnx", "output=a.pt2"], "must end in .onnx"),
        (["precision=int8", "output=a.onnx"], "calibration.images=FOLDER"),
        (["output=a.onnx", "limit=0"], "limit=0"),
        (["output=a.onnx", "images=nowhere"], "neither an image nor a folder"),
    ],
)
def test_mistakes_are_told_in_a_sentence(run, student, tmp_path, arguments, words):
    status, told = run(f"checkpoint={student}", *arguments)
    assert status == 1
    assert words in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in list_models() if one.endswith(("_xs", "_timm"))])
def test_small_models_in_every_format(run, tmp_path, name):
    torch.manual_seed(0)
    small = {} if name.endswith("_xs") else {"input_size": (128, 96)}
    save_model(create_model(name, **small), tmp_path / "model.safetensors")
    for kind, suffix in SUFFIX.items():
        status, told = run("checkpoint=model.safetensors", f"format={kind}", f"output=out.{suffix}")
        assert status == 0, told
