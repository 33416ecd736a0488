"""The command: what it prints, writes and returns."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from annotated import CVAT_BOX, cvat_file

from distilpose import dataset


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command: exit status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            dataset.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = stop.value.code
        return (1, out, code) if isinstance(code, str) else (code or 0, out, err)

    return call


def test_check_prints_and_writes_what_it_finds(run, tiny_coco, tmp_path):
    root = tiny_coco()
    file = root / "annotations/train.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "[red]<b>|no`.jpg"
    file.write_text(json.dumps(content))
    split = ["--split", root / "annotations/val.json", root / "val"]
    status, out, _ = run("check", file, root / "train", *split, "--output", tmp_path / "r")
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


def test_convert_then_check_then_browse(run, tiny_coco, tmp_path):
    root = tiny_coco()
    output, gallery = tmp_path / "out/set.json", tmp_path / "gallery"
    convert = ["convert", "crowdpose", root / "annotations/train.json", "--images", root / "train", "--output", output]
    status, out, _ = run(*convert)
    assert status == 0
    assert out.startswith("11 persons on 7 images, 17 joints: ")
    status, out, _ = run("check", output, root / "train")
    assert status == 0
    assert "0 errors" in out
    status, out, _ = run("browse", output, root / "train", "--output", gallery, "--persons", 2, "--input-size", 64, 48)
    assert (status, out) == (0, f"2 persons shown in {gallery / 'index.html'}\n")


@pytest.mark.parametrize(
    "command",
    [
        ["check", "set.json", "."],
        ["browse", "set.json", "."],
        ["convert", "crowdpose", "set.json", "--images", "."],
    ],
)
def test_nothing_is_overwritten(run, tmp_path, command):
    (tmp_path / "mine").write_text("mine")
    status, _, error = run(*command, "--output", tmp_path / "mine")
    assert status == 1
    assert f"--output {tmp_path / 'mine'} exists" in error
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "fact"),
    [(["--persons", 0], "--persons=0"), (["--input-size", 8, 64], "8"), (["--input-size", 64, 9000], "9000")],
)
def test_sizes_have_limits(run, tmp_path, option, fact):
    status, _, error = run("browse", "set.json", ".", "--output", tmp_path / "new", *option)
    assert status == 1
    assert option[0] in error
    assert fact in error


def test_convert_with_the_label_of_persons_boxes(run, tiny_coco, tmp_path):
    root = tiny_coco()
    image = json.loads((root / "annotations/val.json").read_text())["images"][0]
    shapes = '<points label="nose" points="19,19"/>' + CVAT_BOX.format("person", "") + CVAT_BOX.format("hat", "")
    source = cvat_file(tmp_path / "a.xml", shapes, size="")
    source.write_text(source.read_text().replace("1.png", image["file_name"]))
    command = ["convert", "cvat", source, "--images", root / "val", "--output", tmp_path / "new.json"]
    status, _, error = run(*command)
    assert (status, "'hat', 'person'" in error, "--box-label" in error) == (1, True, True)
    status, _, _ = run(*command, "--box-label", "person")
    assert status == 0
    (row,) = json.loads((tmp_path / "new.json").read_text())["annotations"]
    assert (row["bbox"][:2], row["num_keypoints"]) == ([10, 10], 1)


def test_sigmas_of_one_file_against_itself(run, tiny_coco):
    file = tiny_coco() / "annotations/train.json"
    status, out, _ = run("sigmas", file, file)
    assert status == 0
    assert out.startswith("nose: 0.0000 (labelled twice in 11 persons)")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "absent.json", ".", "--split", "a", "b", "c"],
        ["browse", "absent.json", ".", "--output", "new"],
        ["convert", "cvat", "absent.xml", "--images", ".", "--output", "new.json"],
        ["sigmas", "absent.json", "absent.json"],
    ],
)
def test_user_errors_are_one_line(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    status, out, error = run(*arguments)
    assert (status, out) == (1, "")
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_not_a_stack_trace(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("distilpose.curation.sigmas.estimate_sigmas", interrupt)
    assert run("sigmas", tmp_path / "a.json", tmp_path / "b.json") == (130, "", "Interrupted.\n")


@pytest.mark.slow
def test_the_module_runs():
    command = [sys.executable, "-m", "distilpose.dataset", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "check|browse|convert|sigmas" in done.stdout


def test_the_commands_of_the_documentation_are_understood():
    text = (Path(__file__).resolve().parents[1] / "docs/own_data.md").read_text()
    lines = re.findall(r"^python -m distilpose\.dataset ([^\[\n]+)$", text, re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        assert dataset.build_parser().parse_args(shlex.split(line)).run in (dataset.check, dataset.browse)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("coco-mini/annotations/person_keypoints_val2017.json", "coco-mini/val2017"),
        ("lspet/annotations/lspet_val.json", "lspet/val"),
    ],
)
def test_real_sets_have_no_errors_and_no_swapped_sides(run, shared_data, tmp_path, annotations, images):
    status, _, _ = run("check", shared_data / annotations, shared_data / images, "--output", tmp_path / "report")
    assert status == 0
    findings = json.loads((tmp_path / "report/check.json").read_text())["findings"]
    (one,) = [finding for finding in findings if finding["code"] == "sides-disagree"]
    assert one["severity"] == "note"
