"""The command: each format, its metadata, and its errors."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from distilpose import export
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.export import ExportSettings
from distilpose.exporting import formats
from distilpose.exporting.formats import EXTRA_FILE
from distilpose.exporting.onnx_file import network_input
from distilpose.models import create_model, load_model, save_model

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
    """Runs the command's main in tmp_path: exit status and output."""

    def call(*arguments) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        GlobalHydra.instance().clear()
        status, message = 0, ""
        try:
            export.main()
        except SystemExit as stop:
            status, message = (1, stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), "")
        printed = capsys.readouterr()
        return status, printed.out + printed.err + message

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


@pytest.mark.parametrize("name", ["onnx", "torch_export", pytest.param("openvino", marks=pytest.mark.slow)])
def test_each_format(run, student, tmp_path, name):
    output = tmp_path / f"out.{SUFFIX[name]}"
    status, output_text = run(
        f"checkpoint={student}", f"format={name}", f"output={output}", "normalise=true", "limit=12"
    )
    assert status == 0, output_text
    assert "keypoints differ by" in output_text
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
    status, output_text = run(f"checkpoint={student}", f"format={name}", f"output={output}")
    assert status == 1
    assert "not overwritten" in output_text


def test_a_shared_folder(run, student, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "model.safetensors").write_bytes(student.read_bytes())
    status, output_text = run(f"checkpoint={shared}", "format=torch_export", "output=a.pt2", "limit=2")
    assert status == 0, output_text
    about = read_about("torch_export", tmp_path / "a.pt2")["checkpoint"]
    assert (about["file"], about["sha256"]) == ("model.safetensors", hashlib.sha256(student.read_bytes()).hexdigest())


def test_int8_with_calibration(run, student, tmp_path, tiny_coco):
    root = tiny_coco(val=6)
    status, output_text = run(
        f"checkpoint={student}", "output=int8.onnx", "precision=int8",
        f"calibration.images={root / 'val'}", f"calibration.annotations={root / 'annotations' / 'val.json'}",
        f"images={root / 'val'}", f"annotations={root / 'annotations' / 'val.json'}",
    )  # fmt: skip
    assert status == 0, output_text
    assert "PCK" in output_text
    import onnx

    model = onnx.load(tmp_path / "int8.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") > 5
    assert any(value.data_type == onnx.TensorProto.INT8 and len(value.dims) == 4 for value in model.graph.initializer)
    assert "of val.json" in read_about("onnx", tmp_path / "int8.onnx")["calibration"]


def test_a_file_that_differs_is_not_kept(run, student, tmp_path, monkeypatch):
    opened = formats.load

    def shifted(name, path):
        run = opened(name, path)
        return lambda images: [one + np.float32(0.01) for one in run(images)]

    monkeypatch.setattr(formats, "load", shifted)
    status, output_text = run(f"checkpoint={student}", "format=torch_export", "output=out.pt2")
    assert status == 1
    assert "not kept" in output_text
    assert list(tmp_path.iterdir()) == []


SETTINGS = ["checkpoint=a.ckpt", "output=a.onnx"]


def configured(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("export", [*SETTINGS, *overrides])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("format=tflite", "torch_export"),
        ("precision=int4", "int8"),
        ("limit=0", "1"),
        ("calibration.limit=many", "whole"),
        ("padding=0", "0"),
        ("normalise=2", "true"),
        ("output=null", "path"),
    ],
)
def test_settings_that_are_not_as_declared(override, expected):
    validate(configured(), ExportSettings)
    with pytest.raises(DistilPoseError) as error:
        validate(configured(override), ExportSettings)
    assert override in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (["format=openvino", "precision=int8", "output=a.xml"], ["precision=int8", "format=openvino", "format=onnx"]),
        (["output=a.pt2"], ["output=a.pt2", ".onnx"]),
        (["precision=int8"], ["precision=int8", "calibration.images=FOLDER"]),
        (["images=nowhere"], ["nowhere"]),
    ],
)
def test_settings_that_do_not_fit_together(student, tmp_path, monkeypatch, overrides, facts):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DistilPoseError) as error:
        export.main.__wrapped__(configured(f"checkpoint={student}", *overrides))
    assert all(fact in str(error.value) for fact in facts)
    assert list(tmp_path.iterdir()) == []


OF_TIMM = ["student_base", "student_lite", "student_timm"]
# in each format: what the others of the tests do not have, positions that are resampled to the crop
TRANSFORMERS = {
    "dinov2": {"backbone": "vit_small_patch14_dinov2", "strides": [14], "input_size": (112, 84)},
    "vit": {"backbone": "vit_tiny_patch16_224", "strides": [16], "input_size": (128, 96)},
    "dinov3": {"backbone": "vit_small_patch16_dinov3", "strides": [16], "input_size": (128, 96)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher_timm", *OF_TIMM, *TRANSFORMERS])
def test_small_models(run, tmp_path, name):
    """Students on timm's networks in every format. `test_each_format` covers student_xs, `tests/teachers` teacher_xs."""
    torch.manual_seed(0)
    small = {"input_size": (128, 96)} | ({"depth": 1} if name in OF_TIMM else {})
    if name in TRANSFORMERS:
        if (backbone := TRANSFORMERS[name]["backbone"]) not in timm.list_models():
            pytest.skip(f"timm {timm.__version__} has no {backbone}")
        small = {**TRANSFORMERS[name], "patch_size": (1, 1), "depth": 1, "backbone_options": {"depth": 3}}
    model = create_model("student_timm" if name in TRANSFORMERS else name, **small)
    save_model(model, tmp_path / "model.safetensors")
    for kind, suffix in SUFFIX.items() if name in (*OF_TIMM, *TRANSFORMERS) else [("onnx", SUFFIX["onnx"])]:
        status, output_text = run("checkpoint=model.safetensors", f"format={kind}", f"output=out.{suffix}")
        assert status == 0, output_text
