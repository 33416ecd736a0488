"""Prediction from an ONNX file: with few packages, equal to PyTorch, and safe with foreign files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from distilpose.data.synthetic.scene import draw_scene
from distilpose.errors import DistilPoseError
from distilpose.exporting import formats
from distilpose.exporting.graph import output_names, trace
from distilpose.exporting.metadata import describe
from distilpose.inference import Predictor
from distilpose.models import create_model, save_model
from distilpose.runtime import Runtime, main
from distilpose.skeleton import Skeleton

# an environment without these packages: their import fails
WITHOUT_PACKAGES = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from distilpose.runtime import main
main(sys.argv[1:])
"""
ABSENT = {"torch", "torchvision", "lightning", "hydra", "omegaconf", "albumentations", "timm", "wandb", "rich", "scipy",
          "pycocotools", "matplotlib", "safetensors", "huggingface_hub", "onnx", "pydantic",
          "annotated_types", "filelock"}  # fmt: skip


def exported(folder: Path, name: str, normalise: bool, **options):
    torch.manual_seed(0)
    model = create_model(name, **(options or {"width": 32, "depth": 1})).eval()
    model.head.linear.weight.data *= 20  # spreads the joints over the crop
    checkpoint = save_model(model, folder / f"{name}.safetensors")
    about = describe(model, checkpoint, "averaged", "float32", normalise, False, 1.25)
    names = output_names(model.kind, model.kind == "teacher")
    built = formats.build("onnx", trace(model, normalise, len(names) > 2), names)
    formats.save("onnx", built, folder / f"{name}.onnx", about)
    return model, folder / f"{name}.onnx"


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("runtime"), "student_xs", normalise=False)


@pytest.fixture(scope="module")
def photograph():
    image, persons = draw_scene(np.random.default_rng(3), 200, 3)
    return image, [person["bbox"] for person in persons] + [[-20, 50, 90, 60], [10, 10, 30, 150]]


@pytest.mark.parametrize("flip_test", [False, True])
def test_student_agrees_with_the_predictor(student, photograph, flip_test):
    model, file = student
    poses = Runtime(file, batch_size=2, flip_test=flip_test)(*photograph)
    expected = Predictor(model, "cpu", flip_test=flip_test)(*photograph)
    assert np.ptp(poses.keypoints, axis=1).max() > 20
    np.testing.assert_allclose(poses.keypoints, expected.keypoints.numpy(), atol=0.01)
    np.testing.assert_allclose(poses.scores, expected.scores.numpy(), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["student_lite", "student_base", "student_timm"])
def test_students_on_timms_networks(tmp_path, photograph, name):
    model, file = exported(tmp_path, name, normalise=True, input_size=(128, 96), depth=1)
    poses, expected = Runtime(file)(*photograph), Predictor(model, "cpu")(*photograph)
    np.testing.assert_allclose(poses.keypoints, expected.keypoints.numpy(), atol=0.02)
    np.testing.assert_allclose(poses.scores, expected.scores.numpy(), atol=1e-3)


@pytest.mark.slow
def test_teacher_with_normalisation_inside(tmp_path, photograph):
    model, file = exported(tmp_path, "teacher_xs", normalise=True)
    poses, expected = Runtime(file)(*photograph), Predictor(model, "cpu")(*photograph)
    near = np.abs(poses.keypoints - expected.keypoints.numpy()).max(-1) < 0.05
    assert near.mean() > 0.98  # untrained teachers have maps in which two cells are equally high
    np.testing.assert_allclose(poses.scores, expected.scores.numpy(), atol=1e-3)
    with pytest.raises(DistilPoseError, match="flip_test=False"):
        Runtime(file, flip_test=True)


def test_whole_image_and_no_boxes(student, photograph):
    runtime = Runtime(student[1])
    height, width = photograph[0].shape[:2]
    poses = runtime(photograph[0])
    assert np.array_equal(poses.keypoints, runtime(photograph[0], [[0, 0, width, height]]).keypoints)
    assert runtime(photograph[0], []).keypoints.shape == (0, 17, 2)
    with pytest.raises(DistilPoseError, match=r"0\.0, 0\.0, 0\.0, 5\.0"):
        runtime(photograph[0], [[0, 0, 0, 5]])
    with pytest.raises(DistilPoseError, match="RGB image"):
        runtime(photograph[0][..., 0])


def test_runs_where_torch_is_not_installed(student, photograph, tmp_path):
    image, boxes = photograph
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    numbers = [str(number) for box in boxes for number in box]
    script = WITHOUT_PACKAGES.format(absent=sorted(ABSENT))
    arguments = [str(student[1]), str(tmp_path / "photo.png"), "--json", "--boxes", *numbers]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    poses = json.loads(done.stdout)
    expected = Predictor(student[0], "cpu")(image, boxes)
    np.testing.assert_allclose(poses["keypoints"], expected.keypoints.numpy(), atol=0.01)
    assert poses["names"][0] == "nose"


def test_the_command_prints_a_table(student, photograph, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "photo.png"), photograph[0])
    main([str(student[1]), str(tmp_path / "photo.png")])
    assert "left_wrist" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(student[1]), str(tmp_path / "photo.png"), "--boxes", "1", "2", "3"])
    assert "four numbers for each person (x, y, width, height), got 3" in capsys.readouterr().err
    (tmp_path / "notes.png").write_text("not an image")
    for name, reason in (("missing.png", "No such file or directory"), ("notes.png", "100 million pixels")):
        with pytest.raises(SystemExit) as error:
            main([str(student[1]), str(tmp_path / name)])
        assert str(error.value).startswith("error: ")
        assert name in str(error.value)
        assert reason in str(error.value)
    with pytest.raises(SystemExit, match=r"missing\.onnx cannot be read"):
        main([str(tmp_path / "missing.onnx"), str(tmp_path / "photo.png")])


def test_onnxruntime_is_not_installed(student, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DistilPoseError, match="pip install onnxruntime"):
        Runtime(student[1])


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error(student, photograph, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), photograph[0])
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "distilpose.runtime", student[1], tmp_path / "photo.png"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_command_decodes_no_huge_image(student, tmp_path):
    photo = tmp_path / "huge.png"
    Image.new("1", (10_001, 10_000)).save(photo)
    done = subprocess.run(
        [sys.executable, "-m", "distilpose.runtime", student[1], photo], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "more than 100 million pixels" in done.stderr


def test_metadata_may_contain_the_word_location(student, tmp_path):
    checkpoint = {"file": "location.safetensors", "of": ["location"]}
    file = changed(student[1], tmp_path / "location.onnx", about_with(checkpoint=checkpoint))
    assert Runtime(file).about["checkpoint"] == checkpoint


def test_references_to_other_files_in_any_encoding(student, tmp_path):
    content = changed(student[1], tmp_path / "outside.onnx", outside).read_bytes()
    for length in (b"\x88\x00", b"\x88\x80\x00"):  # 8, in more bytes than it needs
        (tmp_path / "other.onnx").write_bytes(content.replace(b"\x08location", length + b"location"))
        with pytest.raises(DistilPoseError, match=r"other\.onnx refers to weights in other files"):
            Runtime(tmp_path / "other.onnx")


def changed(source: Path, target: Path, change) -> Path:
    model = onnx.load(source)
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def about_with(**values):
    def change(model):
        about = json.loads(model.metadata_props[0].value) | values
        onnx.helper.set_model_props(model, {"distilpose": json.dumps(about)})

    return change


def outside(model):
    """One tensor kept in a file above the folder."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: onnx.helper.set_model_props(model, {}), "no metadata of distilpose"),
        (lambda model: onnx.helper.set_model_props(model, {"distilpose": "[" * 9}), "malformed metadata"),
        (lambda model: onnx.helper.set_model_props(model, {"distilpose": "[]"}), "malformed metadata"),
        (about_with(input_size=[10**6, 10**6]), "metadata"),
        (about_with(std=[0, 1, 1]), "malformed metadata"),
        (about_with(skeleton={"names": []}), "metadata"),
        (about_with(format=2), "this version reads 1"),
        (about_with(input_size=[128, 96]), "other inputs or outputs"),
        (about_with(padding=10**400), "malformed metadata"),
        (about_with(skeleton=Skeleton.from_names(["left_paw", "right_paw"]).to_dict()), "other inputs or outputs"),
        (outside, "weights in other files"),
    ],
)
def test_foreign_files(student, tmp_path, change, words):
    with pytest.raises(DistilPoseError, match=words):
        Runtime(changed(student[1], tmp_path / "foreign.onnx", change))


def test_files_that_are_not_onnx(student, tmp_path):
    content = student[1].read_bytes()
    for bad in (b"", b"not a model", content[: len(content) // 2]):
        (tmp_path / "bad.onnx").write_bytes(bad)
        with pytest.raises(DistilPoseError, match=r"bad\.onnx"):
            Runtime(tmp_path / "bad.onnx")
