"""The convert command: released files give the released numbers, and can be converted back."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from distilpose import convert
from distilpose.errors import DistilPoseError
from distilpose.models import create_model, load_model, save_model
from distilpose.models.released import to_released

NETS = {
    "student_s": "student_s",
    "student_l": "student_l",
    "teacher_stem": "teacher_stemnet",
    "teacher_hrnet_w48": "teacher_hr48",
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs the command in tmp_path, and returns exit status, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["convert", *arguments])
        GlobalHydra.instance().clear()
        status, message = 0, ""
        try:
            convert.main()
        except SystemExit as stop:  # for a text, the interpreter prints it and exits with status 1
            status, message = (1, stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), "")
        captured = capsys.readouterr()
        return status, captured.out, captured.err + message

    return call


@pytest.fixture(scope="module")
def stand_in(release_fixtures):
    """A function that writes a released checkpoint with the fixtures' weights, and returns their input."""
    spec = importlib.util.spec_from_file_location("filler", release_fixtures / "filler.py")
    filler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(filler)

    def write(net: str, path: Path) -> torch.Tensor:
        keys = json.loads((release_fixtures / f"keys_{net}.json").read_text())["keys"]
        state = {key: torch.from_numpy(np.asarray(value)) for key, value in filler.fill_state_dict(keys).items()}
        table = np.load(release_fixtures / "forward_student_s.npz")["pos_embedding"]
        part = "tokenhead" if "student" in net else "tokenpose"
        state[f"keypoint_head.{part}.pos_embedding"] = torch.from_numpy(table)
        assert state.keys() == keys.keys()
        torch.save({"meta": {"epoch": 300, "mmpose_version": "0.22.0"}, "state_dict": state, "optimizer": {}}, path)
        return torch.from_numpy(filler.make_input(2))

    return write


@pytest.mark.parametrize("name", ["student_s", "teacher_stem"])
def test_command_reproduces_the_release(name, release_fixtures, stand_in, tmp_path, run):
    images = stand_in(NETS[name], tmp_path / "released.pth")
    status, out, err = run("source=released.pth", f"model={name}", "output=out/ours.safetensors")
    assert status == 0, err
    assert "pos_embedding: the fixed sine table" in out
    total = len(json.loads((release_fixtures / f"keys_{NETS[name]}.json").read_text())["keys"])
    assert f"{total} tensors, {total - 1} of them loaded into {name}, 1 not" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "released.pth"]
    expected = np.load(release_fixtures / f"forward_{NETS[name]}.npz")
    with torch.no_grad():
        output = load_model(tmp_path / "out" / "ours.safetensors")(images)
    np.testing.assert_allclose(output[0].numpy(), expected["pred"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.keypoint_tokens.numpy(), expected["kpt_token"], rtol=0, atol=2e-4)

    status, out, err = run("source=out/ours.safetensors", "output=back.pth", "reverse=true")
    assert status == 0, err
    first, second = (torch.load(tmp_path / file, weights_only=True) for file in ("released.pth", "back.pth"))
    assert first["state_dict"].keys() == second["state_dict"].keys()
    assert all(torch.equal(value, second["state_dict"][key]) for key, value in first["state_dict"].items())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_all_released_networks_convert(name, stand_in, tmp_path, capsys):
    stand_in(NETS[name], tmp_path / "released.pth")
    model = convert.convert_released(tmp_path / "released.pth", tmp_path / "ours.safetensors", name=name)
    assert ", 1 not:" in capsys.readouterr().out
    loaded = load_model(tmp_path / "ours.safetensors")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.fixture
def small(tmp_path):
    """A function that writes a tiny model in the released format with some tensors changed."""
    options = {"depth": 1, "stem_channels": 8, "width": 16, "heads": 2, "input_size": [32, 24]}
    state = to_released(create_model("student_s", num_keypoints=5, **options))

    def write(**changes) -> Path:
        path = tmp_path / "small.pth"
        changed = {key: value for key, value in {**state, **changes}.items() if value is not None}
        torch.save({"meta": {}, "state_dict": changed}, path)
        return path

    return write, options, tmp_path / "ours.safetensors"


def test_the_number_of_joints_is_the_files(small, capsys):
    write, options, output = small
    convert.convert_released(write(), output, name="student_s", **options)
    assert load_model(output).num_keypoints == 5
    output.unlink()
    positions = "keypoint_head.tokenhead.pos_embedding"
    convert.convert_released(write(**{positions: None}), output, name="student_s", **options)
    assert "no pos_embedding in the file" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"], ids=["numpy 1", "numpy 2"])
def test_numpy_numbers_in_the_meta_are_read(small, module):
    write, options, output = small
    content = torch.load(write(), weights_only=True)
    content["meta"] = {"hook_msgs": {"best_score": np.float64(0.716)}, "seed": np.int64(0)}
    path = output.with_name("scored.pth")
    torch.save(content, path)
    name = np.float64(0).__reduce__()[0].__module__.encode()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(output.with_name("spelt.pth"), "w") as new:
        for item in old.namelist():
            # pickle protocol 2 names a class by two lines of text
            assert b"data.pkl" not in item.encode() or b"c" + name + b"\n" in old.read(item)
            new.writestr(item, old.read(item).replace(b"c" + name + b"\n", b"c" + module.encode() + b"\n"))
    convert.convert_released(output.with_name("spelt.pth"), output, name="student_s", **options)
    assert load_model(output).num_keypoints == 5


def test_a_teachers_hidden_width_is_the_files(tmp_path):
    # in the release it is an eighth of the map's cells (864 at 384 x 288), here it is 2 D by default
    options = {"depth": 1, "stem_channels": 8, "width": 16, "heads": 2, "input_size": [32, 24]}
    state = to_released(create_model("teacher_stem", num_keypoints=5, hidden_dim=6, **options))
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "released.pth")
    model = convert.convert_released(
        tmp_path / "released.pth", tmp_path / "a.safetensors", name="teacher_stem", **options
    )
    assert model.head.hidden.out_features == 6
    wrong = {**options, "hidden_dim": 32}
    with pytest.raises(DistilPoseError, match="shape"):
        convert.convert_released(tmp_path / "released.pth", tmp_path / "b.safetensors", name="teacher_stem", **wrong)


@pytest.mark.parametrize(
    ("name", "changes", "options", "message"),
    [
        ("student_s", {"keypoint_head.tokenhead.pos_embedding": torch.zeros(1, 4, 16)}, {}, "small.pth.*positions"),
        ("student_s", {}, {"input_size": [64, 48]}, "small.pth.*(64|16)"),
        ("student_s", {"backbone.extra": torch.zeros(1)}, {}, r"backbone\.extra"),
        ("student_s", {"keypoint_head.tokenhead.extra": torch.zeros(1)}, {}, "keypoint_head.tokenhead.extra"),
        ("student_s", {"backbone.conv1.weight": None}, {}, r"Missing.*backbone\.conv1\.weight"),
        ("student_s", {}, {"width": 32}, "shape"),
        ("teacher_stem", {}, {}, "small.pth.*teacher_stem.*another model"),
    ],
)
def test_files_that_do_not_fit_raise_and_nothing_is_written(small, name, changes, options, message):
    write, fitting, output = small
    with pytest.raises(DistilPoseError, match=message):
        convert.convert_released(write(**changes), output, name=name, **{**fitting, **options})
    assert not output.exists()


def test_files_that_are_not_released_checkpoints(small, tmp_path):
    _, options, output = small
    (tmp_path / "text.pth").write_text("hello")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    torch.save({"meta": {"config": torch.nn.ReLU()}, "state_dict": {}}, tmp_path / "objects.pth")
    torch.save({"state_dict": {"keypoint_head.tokenhead.keypoint_token": [1.0]}}, tmp_path / "numbers.pth")
    for file, message in {
        "text.pth": r"text\.pth",
        "tensor.pth": r"tensor\.pth.*'state_dict'",
        "other.pth": r"keypoint_head\.tokenhead\.",
        "numbers.pth": r"numbers\.pth.*'state_dict' of tensors",
        "objects.pth": r"objects\.pth.*state_dict",
    }.items():
        with pytest.raises(DistilPoseError, match=message):
            convert.convert_released(tmp_path / file, output, name="student_s", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "output"),
        (("source=absent.pth", "model=student_s", "output=x.safetensors"), "source=absent.pth"),
        (("source=ours.safetensors", "output=ours.safetensors", "reverse=true"), "output=ours.safetensors"),
        (("source=ours.safetensors", "output=x.safetensors"), "model=NAME"),
        (
            ("source=ours.safetensors", "output=x.safetensors", "model=studnet"),
            "student_s",
        ),
        (("source=ours.safetensors", "ouput=x.safetensors"), "output"),
    ],
)
def test_mistakes_end_the_command_and_write_nothing(run, tmp_path, arguments, message):
    save_model(create_model("student_xs"), tmp_path / "ours.safetensors")
    before = (tmp_path / "ours.safetensors").read_bytes()
    status, _, err = run(*arguments)
    assert status != 0
    assert message in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]
    assert (tmp_path / "ours.safetensors").read_bytes() == before


@pytest.mark.slow
def test_back_from_a_shared_folder(run, tmp_path):
    save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "shared" / "model.safetensors")
    status, _, err = run("source=shared", "output=back.pth", "reverse=true")
    assert status == 0, err
    assert "state_dict" in torch.load(tmp_path / "back.pth", weights_only=True)


@pytest.mark.slow
def test_the_command_from_another_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "distilpose.convert", "source=absent.pth", "model=teacher_xs", "output=a.safetensors"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 1
    assert "source=absent.pth" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_softmax_teacher_has_no_released_form():
    teacher = create_model("teacher_stem", heatmap_activation="softmax", depth=1)
    with pytest.raises(DistilPoseError, match=r"softmax.*loss=heatmap_mse"):
        to_released(teacher)
