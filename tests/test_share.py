from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub import hub
from hydra.core.global_hydra import GlobalHydra

from distilpose import Predictor, create_model, load_model, share
from distilpose.files import sha256_of
from distilpose.models import save_model
from distilpose.runtime import Runtime

TINY = [
    "data=custom", "data.num_workers=0", "data.batch_size=4", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "loss=regression", "logger=none", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1",
    "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0", "data.monitor=val/PCK",
]  # fmt: skip


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the share command's main: exit status and what it told."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["share", *map(str, arguments)])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        try:
            share.main()
        except SystemExit as stop:
            return (1, stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), capsys.readouterr().err)
        return 0, capsys.readouterr().out

    return call


@pytest.fixture
def run(trained_by):
    return trained_by(TINY)("mine")


def parts(card):
    """Of a card: its header as the hub reads it, and its text."""
    _, header, text = card.split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_card_tells_what_the_run_knows(command, run, tmp_path):
    status, told = command(
        f"run={run}", f"output={tmp_path / 'out'}", "licence=cc-by-4.0", "data_note='Taken by <b>us</b> | all'"
    )
    assert status == 0, told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "curves.png",
        "model.safetensors",
    ]
    header, text = parts((tmp_path / "out" / "README.md").read_text())
    assert (header["license"], header["library_name"], header["pipeline_tag"]) == (
        "cc-by-4.0",
        "distilpose",
        "keypoint-detection",
    )
    assert sha256_of(tmp_path / "out" / "model.safetensors") in text
    digests = json.loads((run / "environment.json").read_text())["started"]["digests"]
    assert all(one["sha256"][:16] in text for one in digests.values())
    pck = json.loads((run / "metrics.json").read_text())["best"]["val/PCK"]
    assert f"{100 * pck:.1f}" in text.partition("## Figures")[2]
    assert "regression 1.0" in text
    assert "Taken by &lt;b&gt;us&lt;/b&gt; \\| all" in text
    assert str(tmp_path) not in text, "folders of this machine are nobody's business"
    assert "Nothing trained its scores" in text
    shared, trained = load_model(tmp_path / "out"), load_model(run / "checkpoints" / "best.ckpt")
    assert all(torch.equal(value, shared.state_dict()[name]) for name, value in trained.state_dict().items())
    assert shared.skeleton == trained.skeleton


def test_the_padding_of_the_run_goes_with_the_weights(command, trained_by, tmp_path):
    run = trained_by([*TINY, "data.padding=1.4"])("wide")
    assert command(f"run={run}", f"output={tmp_path / 'out'}")[0] == 0
    assert Predictor(tmp_path / "out").padding == 1.4
    assert command(f"checkpoint={tmp_path / 'out'}", f"output={tmp_path / 'again'}")[0] == 0
    assert Predictor(tmp_path / "again").padding == 1.4


def test_figures_of_an_evaluation_go_into_the_header(command, run, tmp_path):
    row = {"model": "student_xs", "boxes": "gt", "flip": "true", "persons": 5, "AP": 0.25, "PCK": 0.5}
    evaluation = {
        "source": f"student_xs ({run / 'checkpoints' / 'best.ckpt'})",
        "annotations": "/home/somebody/data/mine/annotations/val.json",
        "rows": [row],
        "notes": ["A note.", "Of detector boxes 'x' does not exist under '/home/somebody/data'."],
    }
    (tmp_path / "ev").mkdir()
    (tmp_path / "ev" / "metrics.json").write_text(json.dumps(evaluation))
    status, told = command(f"run={run}", f"output={tmp_path / 'out'}", f"evaluations=[{tmp_path / 'ev'}]")
    assert status == 0, told
    header, text = parts((tmp_path / "out" / "README.md").read_text())
    (result,) = header["model-index"][0]["results"][:1]
    assert {one["type"]: one["value"] for one in result["metrics"]} == {"AP": 0.25, "PCK": 0.5}
    assert result["dataset"]["name"] == "mine/val"
    assert "A note." in text
    assert "Whether it beats the mean pose" in text
    evaluation["rows"].append({"model": "mean training pose", "boxes": "gt", "persons": 5, "AP": 0.0, "PCK": 0.125})
    (tmp_path / "ev" / "metrics.json").write_text(json.dumps(evaluation))
    assert command(f"run={run}", f"output={tmp_path / 'both'}", f"evaluations=[{tmp_path / 'ev'}]")[0] == 0
    both = (tmp_path / "both" / "README.md").read_text()
    assert re.search(r"\| mean training pose +\|.* 12.5 ", both)
    assert "Whether it beats the mean pose" not in both
    assert "somebody" not in text
    assert "licence" in told


def test_figures_are_of_the_checkpoint_that_is_shared(command, run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    copy = run / "checkpoints" / "another.ckpt"
    copy.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    for number, given in enumerate(([f"checkpoint={copy}"], ["weights_kind=raw"])):
        command(f"run={run}", f"output={tmp_path / str(number)}", *given)
        assert "None were measured." in (tmp_path / str(number) / "README.md").read_text()
    evaluation = {"source": f"student_xs ({copy})", "annotations": "a.json", "rows": [{"AP": 0.5}], "notes": []}
    for content, words in ((evaluation, "holds figures of"), ({**evaluation, "rows": []}, "holds no figures")):
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        status, told = command(f"run={run}", f"output={tmp_path / 'out'}", f"evaluations=[{tmp_path / 'metrics.json'}]")
        assert status == 1
        assert words in told
        assert told.startswith(f"error: {tmp_path / 'metrics.json'} holds")
        assert not (tmp_path / "out").exists()


def test_the_card_of_a_run_is_for_its_own_checkpoints(command, run, tmp_path):
    copy = Path(shutil.copyfile(run / "checkpoints" / "best.ckpt", tmp_path / "another.ckpt"))
    status, told = command(f"run={run}", f"checkpoint={copy}", f"output={tmp_path / 'out'}")
    assert status == 1
    assert f"checkpoint={copy} is not in run={run}, whose card it would get" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give what to share"),
        (["run=nowhere"], "is no folder"),
        (["checkpoint=nowhere.ckpt"], "is not a file"),
        (["checkpoint={file}", "evaluations=[nowhere]"], "nowhere cannot be read"),
        (["checkpoint={file}", "evaluations=nowhere"], "nowhere cannot be read"),
        (["checkpoint={file}", "output={folder}"], "not an empty folder"),
        (["checkpoint={file}", "private=maybe"], "private=maybe"),
    ],
)
def test_mistakes_are_told_in_a_sentence(command, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    file = save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "full" / "model.safetensors")
    given = [one.format(file=file, folder=file.parent) for one in arguments]
    status, told = command("output=out", *given)
    assert status == 1
    assert words in told
    assert not (tmp_path / "out").exists()


USE = """
import sys
from distilpose import export, predict
name, source = sys.argv[1:]
for main, *words in ((predict.main, f"source={source}", "output=found", "device=cpu"), (export.main, "output=net.onnx")):
    sys.argv[1:] = [f"checkpoint={name}", *words]
    main()
"""


@pytest.mark.slow
def test_commands_take_a_name_of_the_hub(tmp_path, tiny_coco):
    """And keep the digest of the weights it means."""
    file = save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "student.safetensors")
    with hub() as (address, files):
        files["me/mine"] = {"model.safetensors": file.read_bytes()}
        told = subprocess.run(
            [sys.executable, "-c", USE, "me/mine", tiny_coco(val=2) / "val"],
            env=os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache")},
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert told.returncode == 0, told.stderr
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
def test_it_goes_to_the_hub_and_comes_back(tmp_path, writable):
    """The hub's own client, in a process that learns from its environment where the hub is."""
    file = save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "model.safetensors")
    with hub(writable) as (address, files):
        told = subprocess.run(
            [sys.executable, "-c", SEND, f"checkpoint={file}", f"output={tmp_path / 'out'}", "push=me/mine"],
            env=os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_none"},
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    if writable:
        assert told.returncode == 0, told.stderr
        assert "loaded student_xs" in told.stdout
        sent = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert {name: files["me/mine"][name] for name in sent} == sent
    else:
        assert told.returncode == 1
        assert told.stderr.strip().splitlines()[-1].startswith("error: The Hugging Face hub does not take 'me/mine'")
        assert (tmp_path / "out" / "model.safetensors").is_file()
