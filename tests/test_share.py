"""Sharing: weights, the card and its facts, and the hub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub import hub
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from distilpose import Predictor, create_model, load_model, share
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.files import sha256_of, write_json
from distilpose.models import save_model
from distilpose.runtime import Runtime


def configured(**settings):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("share")
    return OmegaConf.merge(
        cfg, {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    )


def shared(**settings) -> Path:
    return share.main.__wrapped__(configured(**settings))


@pytest.fixture
def file(tmp_path):
    """The weights of a model outside of a run."""
    return save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "own" / "student.safetensors")


def parts(folder):
    """The header of a card as the hub reads it, and its text."""
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_card_of_a_run(tiny_run, tmp_path):
    run = tiny_run
    (run / "pictures").mkdir(exist_ok=True)
    (run / "pictures" / "curves.png").write_bytes(b"a plot")
    out = shared(checkpoint=run, output=tmp_path / "out", licence="cc-by-4.0", data_note="Taken by <b>us</b> | all")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "curves.png", "model.safetensors"]
    header, text = parts(out)
    assert (header["license"], header["library_name"], header["pipeline_tag"]) == (
        "cc-by-4.0", "distilpose", "keypoint-detection"
    )  # fmt: skip
    assert sha256_of(out / "model.safetensors") in text
    digests = json.loads((run / "environment.json").read_text())["started"]["digests"]
    assert all(one["sha256"][:16] in text for one in digests.values())
    pck = json.loads((run / "metrics.json").read_text())["best"]["val/PCK"]
    assert f"{100 * pck:.1f}" in text.partition("## Figures")[2]
    assert "regression 1.0" in text
    assert "![curves](curves.png)" in text
    assert "Taken by &lt;b&gt;us&lt;/b&gt; \\| all" in text
    assert str(tmp_path) not in text, "a card must not name folders of this machine"
    assert "scores were not trained" in text
    weights, trained = load_model(out), load_model(run / "checkpoints" / "best.ckpt")
    assert all(torch.equal(value, weights.state_dict()[name]) for name, value in trained.state_dict().items())
    assert weights.skeleton == trained.skeleton

    # the run's figures are those of its best checkpoint, with averaged weights
    copy = run / "checkpoints" / "another.ckpt"
    copy.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    _, text = parts(shared(checkpoint=copy, output=tmp_path / "copy"))
    assert "regression 1.0" in text
    assert "None were measured." in text
    assert "None were measured." in parts(shared(checkpoint=run, weights_kind="raw", output=tmp_path / "raw"))[1]


def test_the_padding_of_the_run_is_kept(file, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint = file.rename(run / "checkpoints" / "student.safetensors")
    (run / "config.yaml").write_text("name: wide\ndata: {padding: 1.4, root: /home/somebody/paws}\n")
    out = shared(checkpoint=checkpoint, output=tmp_path / "out")
    assert "# wide" in parts(out)[1]
    assert Predictor(out).padding == 1.4
    again = shared(checkpoint=out, output=tmp_path / "again", half=True)
    assert Predictor(again).padding == 1.4
    assert (again / "model.safetensors").stat().st_size < 0.6 * (out / "model.safetensors").stat().st_size


TAUGHT = {
    "vitpose": (
        {"_target_": "distilpose.modules.load_vitpose", "name": "someone/pose-huge@main", "revision": None},
        {"name": "pose-huge", "repository": "someone/pose-huge", "revision": "a1b2c3d4e5f6a7b8"},
        ["vitpose someone/pose-huge@a1b2c3d4e5f6"],
    ),
    "several": (
        {
            "_target_": "distilpose.modules.load_several",
            "first": {"_target_": "distilpose.modules.load_onnx", "file": "/home/somebody/rtmpose.onnx"},
            "second": {"_target_": "distilpose.modules.load_teacher", "checkpoint": "/home/somebody/own.ckpt"},
        },
        {"first": {"name": "rtmpose", "files": {"rtmpose.onnx": "0f"}}},
        ["onnx rtmpose.onnx", "checkpoint own.ckpt"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAUGHT)
@pytest.mark.parametrize("used", [True, False])
def test_the_card_names_the_teachers_and_their_licence(file, tmp_path, kind, used):
    settings, about, expected = TAUGHT[kind]
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "student.safetensors"
    checkpoint.parent.mkdir(parents=True)
    file.rename(checkpoint)
    loss = {"_target_": "distilpose.losses.DistillationLoss", "regression": 1.0, "divergence": float(used)}
    OmegaConf.save(
        {"name": "taught", "teacher": settings, "loss": loss, "data": {"padding": 1.25}}, run / "config.yaml"
    )
    write_json({"started": {"teacher": about}, "resumed": []}, run / "environment.json")
    _, text = parts(shared(checkpoint=checkpoint, output=tmp_path / "out"))
    for teacher in expected:
        assert (f"| {teacher}" in text) == used
        assert (teacher in text.partition("## Limits")[2].partition("licence too")[0]) == used
    assert ("licence too" in text) == used
    assert "somebody" not in text


def test_figures_of_an_evaluation(file, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "distilpose")
    monkeypatch.setattr(share.log, "disabled", False)  # Hydra disables loggers, and other tests start it here
    row = {"model": "student_xs", "boxes": "gt", "flip": "true", "persons": 5, "AP": 0.25, "PCK": 0.5}
    evaluation = {
        "source": f"student_xs ({file})",
        "annotations": "/home/somebody/data/mine/annotations/val.json",
        "rows": [row],
        "notes": ["A note.", "Of detector boxes 'x' does not exist under '/home/somebody/data'."],
    }
    write_json(evaluation, tmp_path / "ev" / "metrics.json")
    header, text = parts(shared(checkpoint=file, output=tmp_path / "out", evaluations=[str(tmp_path / "ev")]))
    (result,) = header["model-index"][0]["results"][:1]
    assert {one["type"]: one["value"] for one in result["metrics"]} == {"AP": 0.25, "PCK": 0.5}
    assert result["dataset"]["name"] == "mine/val"
    assert "A note." in text
    assert "mean-pose baseline" in text
    assert "somebody" not in text
    assert "licence=" in caplog.text
    evaluation["rows"].append({"model": "mean training pose", "boxes": "gt", "persons": 5, "AP": 0.0, "PCK": 0.125})
    write_json(evaluation, tmp_path / "ev" / "metrics.json")
    _, text = parts(shared(checkpoint=file, output=tmp_path / "both", evaluations=str(tmp_path / "ev")))
    assert re.search(r"\| mean training pose +\|.* 12.5 ", text)
    assert "mean-pose baseline" not in text


def test_figures_belong_to_a_digest_and_not_to_a_path(file, tmp_path, caplog):
    """After an evaluation the file is replaced: its path is the same, and the figures are another model's."""
    evaluation = {
        "source": f"student_xs ({file})",
        "rows": [{"model": "student_xs", "AP": 0.25}],
        "annotations": "a.json",
    }
    checkpoint = {"sha256": sha256_of(file), "weights_kind": "averaged"}
    write_json({**evaluation, "checkpoint": checkpoint}, tmp_path / "metrics.json")
    place = str(tmp_path / "metrics.json")
    shared(checkpoint=file, output=tmp_path / "same", evaluations=[place])
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(file.read_bytes())
    _, text = parts(shared(checkpoint=moved, output=tmp_path / "moved", evaluations=[place]))
    assert "25.0" in text
    with pytest.raises(DistilPoseError, match="weights_kind=raw"):
        shared(checkpoint=file, output=tmp_path / "raw", evaluations=[place], weights_kind="raw")
    save_model(create_model("student_xs", depth=1, width=32, heads=2), file, overwrite=True)
    with pytest.raises(DistilPoseError, match="other weights") as error:
        shared(checkpoint=file, output=tmp_path / "other", evaluations=[place])
    assert str(file) in str(error.value)
    write_json(evaluation, tmp_path / "metrics.json")  # of an earlier version
    shared(checkpoint=file, output=tmp_path / "old", evaluations=[place])
    assert "does not state the digest" in caplog.text


def test_figures_of_a_run_are_those_of_the_step_of_its_checkpoint(tiny_run, tmp_path, caplog):
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    metrics["best"]["step"] += 1  # the checkpoint was replaced by another one
    (tiny_run / "metrics.json").write_text(json.dumps(metrics))
    _, text = parts(shared(checkpoint=tiny_run, output=tmp_path / "out"))
    assert f"{100 * metrics['best']['val/PCK']:.1f}" not in text.partition("## Figures")[2].partition("##")[0]
    assert "left out" in caplog.text


def test_an_unknown_padding_is_not_shared_as_a_known_one(file, tmp_path, caplog):
    out = shared(checkpoint=file, output=tmp_path / "out")
    assert load_model(out).padding is None
    assert "does not state the padding" in caplog.text


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ({"source": "student_xs (other.ckpt)", "rows": [{"AP": 0.5}]}, ["other.ckpt", "student.safetensors"]),
        ({"source": "student_xs (other.ckpt)", "rows": []}, ["no figures"]),
        ([], ["no figures"]),
        (None, ["cannot be read"]),
    ],
)
def test_evaluations_of_another_model(content, facts, file, tmp_path):
    place = tmp_path / "metrics.json"
    if content is not None:
        place.write_text(json.dumps(content))
    with pytest.raises(DistilPoseError) as error:
        shared(checkpoint=file, output=tmp_path / "out", evaluations=[str(place)])
    assert all(fact in str(error.value) for fact in [str(place), *facts])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"checkpoint": "nowhere"}, ["nowhere"]),
        ({"checkpoint": "nowhere.ckpt"}, ["nowhere.ckpt"]),
        ({"output": "own"}, ["output=own"]),
    ],
)
def test_nothing_is_written_after_an_error(settings, facts, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DistilPoseError) as error:
        shared(**{"checkpoint": file, "output": "out", **settings})
    assert all(fact in str(error.value) for fact in facts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"private": "maybe"}, ["private=maybe", "true"]),
        ({"evaluations": None}, ["evaluations=null"]),
        ({"weights_kind": "mean"}, ["weights_kind=mean", "averaged"]),
    ],
)
def test_settings_that_are_not_as_declared(settings, expected):
    validate(configured(checkpoint="a", output="b"), share.ShareSettings)
    with pytest.raises(DistilPoseError) as error:
        validate(configured(checkpoint="a", output="b", **settings), share.ShareSettings)
    assert all(fact in str(error.value) for fact in expected)


USE = """
import sys
from distilpose import export, predict
name, source = sys.argv[1:]
for main, *words in ((predict.main, f"source={source}", "output=found", "device=cpu"), (export.main, "output=net.onnx")):
    sys.argv[1:] = [f"checkpoint={name}", *words]
    main()
"""


@pytest.mark.slow
def test_commands_take_a_name_on_the_hub(file, tmp_path, tiny_coco):
    """The commands record the digest of its weights."""
    with hub() as (address, files):
        files["me/mine"] = {"model.safetensors": file.read_bytes()}
        done = subprocess.run(
            [sys.executable, "-c", USE, "me/mine", tiny_coco(val=2) / "val"],
            env=os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")},
            cwd=tmp_path, capture_output=True, text=True, timeout=400,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "found" / "journal.jsonl").read_text().splitlines()[0])["settings"]
    assert settings["checkpoint"] == f"model.safetensors {sha256_of(file)[:12]}"
    assert Runtime(tmp_path / "net.onnx").about["checkpoint"]["sha256"] == sha256_of(file)


SEND = """
from distilpose import create_model, load_model, share
share.main()
name = [word[5:] for word in __import__("sys").argv if word.startswith("push=")][0]
print("loaded", load_model(name).name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("writable", [True, False])
def test_upload_and_download(file, tmp_path, writable):
    """With the hub's client, in a process whose environment has the address of a test server."""
    with hub(writable) as (address, files):
        done = subprocess.run(
            [sys.executable, "-c", SEND, f"checkpoint={file}", f"output={tmp_path / 'out'}", "push=me/mine"],
            env=os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_none"},
            cwd=tmp_path, capture_output=True, text=True, timeout=400,
        )  # fmt: skip
    if writable:
        assert done.returncode == 0, done.stderr
        assert "loaded student_xs" in done.stdout
        sent = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert {name: files["me/mine"][name] for name in sent} == sent
    else:
        assert done.returncode == 1
        assert "push=me/mine" in done.stderr.strip().splitlines()[-1]
        assert "error: " in done.stderr.strip().splitlines()[-1]
        assert (tmp_path / "out" / "model.safetensors").is_file()
