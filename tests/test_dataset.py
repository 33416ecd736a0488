"""The command: what it prints, writes and returns."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from distilpose import dataset


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command: exit status, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            dataset.main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        code = stop.value.code
        return (1, told.out, code) if isinstance(code, str) else (code, told.out, told.err)

    return call


def test_check_tells_and_writes_what_it_found(run, tiny_coco, tmp_path):
    root = tiny_coco()
    file = root / "annotations/train.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "[red]<b>|no`.jpg"
    file.write_text(json.dumps(content))
    status, out, _ = run(
        "check",
        file,
        root / "train",
        "--split",
        root / "annotations/val.json",
        root / "val",
        "--report",
        tmp_path / "r",
    )
    assert status == 1
    assert "[red]<b>|no`.jpg" in out
    assert "1 error," in out
    report = json.loads((tmp_path / "r/check.json").read_text())
    first = report["findings"][0]
    assert (first["severity"], first["code"], first["count"]) == ("error", "image-missing", 1)
    assert first["examples"] == ["[red]<b>|no`.jpg"]
    assert report["facts"]["train.json"]["images"] == 8
    text = (tmp_path / "r/check.md").read_text()
    assert "\\[red]&lt;b&gt;\\|no\\`.jpg" in text
    assert "<b>" not in text

    status, _, told = run("check", file, root / "train", "--report", tmp_path / "r")
    assert (status, told.startswith("error: --report ")) == (1, True)


def test_check_of_a_sound_set_succeeds(run, tiny_coco):
    root = tiny_coco()
    status, out, _ = run("check", root / "annotations/val.json", root / "val")
    assert status == 0
    assert "0 errors" in out


def test_convert_then_check_then_browse(run, tiny_coco, tmp_path):
    root = tiny_coco()
    output = tmp_path / "out/set.json"
    status, out, _ = run(
        "convert", "crowdpose", root / "annotations/train.json", "--images", root / "train", "--output", output
    )
    assert status == 0
    assert out.startswith("11 persons on 7 images, 17 joints: ")
    assert run("check", output, root / "train")[0] == 0
    gallery = tmp_path / "gallery"
    status, out, _ = run("browse", output, root / "train", "--output", gallery, "--persons", 2, "--input-size", 64, 48)
    assert (status, out) == (0, f"2 persons shown in {gallery / 'index.html'}\n")
    status, _, told = run("convert", "lsp", output, "--images", root / "train", "--output", output)
    assert (status, told) == (
        1,
        f"error: --output {output} exists and is not overwritten: choose another name or remove it first.",
    )


def test_convert_with_the_label_of_persons_boxes(run, tiny_coco, tmp_path):
    root = tiny_coco()
    image = json.loads((root / "annotations/val.json").read_text())["images"][0]
    boxes = (
        '<box label="person" xtl="2" ytl="2" xbr="40" ybr="40"/><box label="hat" xtl="4" ytl="4" xbr="30" ybr="30"/>'
    )
    shapes = f'<points label="nose" points="9,9"/>{boxes}'
    (tmp_path / "a.xml").write_text(
        f'<annotations><image name="{image["file_name"]}">{shapes}</image></annotations>', encoding="utf-8"
    )
    command = ["convert", "cvat", tmp_path / "a.xml", "--images", root / "val", "--output", tmp_path / "new.json"]
    status, _, told = run(*command)
    assert (status, "'hat', 'person': name by --box-label" in told) == (1, True)
    status, _, _ = run(*command, "--box-label", "person")
    assert status == 0
    (row,) = json.loads((tmp_path / "new.json").read_text())["annotations"]
    assert (row["bbox"], row["num_keypoints"]) == ([2, 2, 38, 38], 1)


def test_sigmas_of_one_file_against_itself(run, tiny_coco):
    root = tiny_coco()
    file = root / "annotations/train.json"
    status, out, _ = run("sigmas", file, file)
    assert status == 0
    assert out.startswith("nose: 0.0000 (labelled twice in 11 persons)")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "absent.json", "."],
        ["check", "absent.json", ".", "--split", "a", "b", "c"],
        ["browse", "absent.json", ".", "--output", "new"],
        ["convert", "cvat", "absent.xml", "--images", ".", "--output", "new.json"],
        ["sigmas", "absent.json", "absent.json"],
    ],
)
def test_mistakes_are_one_sentence(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    status, out, told = run(*arguments)
    assert (status, out) == (1, "")
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs():
    done = subprocess.run(
        [sys.executable, "-m", "distilpose.dataset", "--help"], capture_output=True, text=True, check=True
    )
    assert "check|browse|convert|sigmas" in done.stdout


def test_the_commands_of_the_documentation_are_understood():
    text = (Path(__file__).resolve().parents[1] / "docs/own_data.md").read_text()
    lines = re.findall(r"^python -m distilpose\.dataset ([^\[\n]+)$", text, re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        assert dataset._parser().parse_args(shlex.split(line)).run in (dataset.check, dataset.browse)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("coco-mini/annotations/person_keypoints_val2017.json", "coco-mini/val2017"),
        ("lspet/annotations/lspet_val.json", "lspet/val"),
    ],
)
def test_real_sets_have_no_errors_and_no_changed_sides(run, shared_data, tmp_path, annotations, images):
    status, _, _ = run("check", shared_data / annotations, shared_data / images, "--report", tmp_path / "report")
    assert status == 0
    findings = json.loads((tmp_path / "report/check.json").read_text())["findings"]
    (one,) = [finding for finding in findings if finding["code"] == "sides-disagree"]
    assert one["severity"] == "note"
