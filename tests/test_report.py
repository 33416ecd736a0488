"""The report command on run folders written by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from matplotlib.figure import Figure
from run_folders import ALONE, cells, composed, write_run

from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.report import ReportSettings, arguments, main, report

WITHOUT, WITH = {0: 0.50, 1: 0.54, 2: 0.46}, {0: 0.60, 1: 0.66, 5: 0.90}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs without a teacher and three with one."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    for seed, value in WITHOUT.items():
        write_run(folder / f"a{seed}", seed, [0.2, None, value], "regression", settings=ALONE)
    for seed, value in WITH.items():
        write_run(folder / f"b{seed}", seed, [0.9, None, value])
    return folder


@pytest.fixture
def reported(tmp_path, capsys, monkeypatch):
    """Runs the command and returns its result and output. Curves are drawn only with drawn=True, because it is slow."""

    def call(*words, output="out", drawn=False):
        if not drawn:
            monkeypatch.setattr("distilpose.report.draw_curves", lambda table, metric: Figure(figsize=(1, 1)))
        cfg = composed("report", *arguments([*map(str, words)]), f"output={tmp_path / output}")
        content = report.__wrapped__(cfg)
        return content, capsys.readouterr().out

    return call


def test_table_and_files(runs, reported, tmp_path):
    content, printed = reported(runs, drawn=True)
    column, published = "val/PCK, mean ± sd", "published (the authors', COCO val2017 AP)"
    assert cells(printed, "regression") == {
        "name": "regression", "seeds": "0, 1, 2", "epochs": "3", "steps": "20", column: "50.0 ± 4.0",
        "each seed": "50.0, 54.0, 46.0", "difference to regression": "-", "minutes": "1.5", published: "56.0",
    }  # fmt: skip
    row = cells(printed, "distilpose")
    assert (row["seeds"], row[column], row[published]) == ("0, 1, 5", "72.0 ± 15.9", "71.6")
    assert row["difference to regression"] == "+11.0 ± 1.4 (2 seeds)"  # 10 and 12
    for fact in ("last epoch", "crop 64 x 48", "no flip test", "ground-truth boxes", "3 epochs", "Not measured here"):
        assert fact in printed
    assert f"`python -m distilpose.report {runs}`" in printed

    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written == json.loads(json.dumps(content))
    assert [line["values"] for line in written["rows"]] == [list(WITHOUT.values()), list(WITH.values())]
    assert [line["mean"] for line in written["rows"]] == pytest.approx([np.mean(list(WITHOUT.values())), 0.72])
    page = (tmp_path / "out" / "report.md").read_text()
    assert cells(page, "distilpose") == row
    assert "![curves.png](curves.png)" in page
    assert cv2.imread(str(tmp_path / "out" / "curves.png")).shape[0] > 300
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curves.png", "report.json", "report.md"]
    with pytest.raises(DistilPoseError, match=f"output={tmp_path / 'out'}"):
        reported(runs)


def test_a_loss_is_not_shown_in_per_cent(runs, reported):
    _, printed = reported(runs, "metric=train/total", "at=best")
    assert cells(printed, "distilpose")["train/total, mean ± sd"] == "0.3333 ± 0"
    assert "published" not in printed.partition("Made by")[0]
    assert "selected on the validation data itself" in printed


def test_a_setting_on_an_axis(reported, tmp_path):
    for name, offset, settings in (("distilpose", 0.5, {}), ("regression", 0.3, ALONE)):
        for share in (0.02, 1.0):
            changed = {**settings, "data.label_share": share}
            write_run(tmp_path / "runs" / f"{name}{share}", 0, [offset + share / 10], name, settings=changed)
    _, printed = reported(tmp_path / "runs", "x=data.label_share")
    for share in (0.02, 1.0):
        row = cells(printed, f"distilpose, data.label_share={share}")
        assert row["difference to regression at the same data.label_share"] == "+20.0 ± - (1 seed)"
    assert cv2.imread(str(tmp_path / "out" / "by_data.label_share.png")) is not None


def test_runs_that_are_left_out_are_noted(runs, reported, tmp_path):
    diverged = write_run(tmp_path / "diverged", seed=7)
    table = (diverged / "metrics.csv").read_text()
    (diverged / "metrics.csv").write_text(table.replace("0.5,", "nan,"))  # the loss after the second epoch
    other = write_run(tmp_path / "other", seed=8, metric="val/AP")
    _, printed = reported(runs, diverged, other, tmp_path / "gone")
    notes = {line.partition(" is left out")[0]: line for line in printed.splitlines() if "is left out" in line}
    assert set(notes) == {str(diverged), str(other), str(tmp_path / "gone")}
    assert "train/total" in notes[str(diverged)]
    assert "epoch 2" in notes[str(diverged)]
    assert "val/PCK" in notes[str(other)]
    for note in notes.values():
        assert note in (tmp_path / "out" / "report.md").read_text()


def test_cocos_minus_one_is_no_value(reported, tmp_path):
    write_run(tmp_path / "a", values=[-1.0], metric="val/APL")
    write_run(tmp_path / "b", values=[0.5], metric="val/APL", seed=1)
    content, printed = reported(tmp_path / "a", tmp_path / "b", "metric=val/APL")
    assert content["rows"][0]["seeds"] == [1]
    assert f"{tmp_path / 'a'} is left out: its val/APL is -1" in printed


def test_unfinished_runs(reported, tmp_path):
    write_run(tmp_path / "runs" / "whole", seed=0, values=[0.1, 0.2, 0.3, 0.4])
    write_run(tmp_path / "runs" / "part", seed=1, values=[0.1, 0.6], planned=4)
    content, printed = reported(tmp_path / "runs", "unfinished=true")
    assert content["rows"][0]["values"] == [0.4, 0.6]
    assert cells(printed, "distilpose")["epochs"] == "4, 2 of 4 (unfinished)"


def test_tables_without_times(reported, tmp_path):
    place = write_run(tmp_path / "run")
    text = (place / "metrics.csv").read_text()
    (place / "metrics.csv").write_text(text.replace(",seconds,", ",moments,"))
    _, printed = reported(place)
    assert "minutes" not in printed


@pytest.mark.parametrize(
    "wrong",
    [
        "at=first", "published=5", "published={regression: high}", "ignore=foo", "ignore=null", "published_as=null",
        "metric=[a]", "unfinished=perhaps", "runs=a",
    ],
)  # fmt: skip
def test_wrong_settings_are_named(wrong):
    validate(composed("report"), ReportSettings)
    with pytest.raises(DistilPoseError, match=wrong.partition("=")[0]):
        validate(composed("report", wrong), ReportSettings)


@pytest.mark.parametrize(
    ("override", "facts"),
    [
        ("metric=val/AQ", "no column val/AQ"),
        ("x=data.sahre", r"x=data\.sahre .*config\.yaml"),
        ("x=seed", "x=seed "),
    ],
)
def test_settings_that_no_run_has(runs, reported, tmp_path, override, facts):
    with pytest.raises(DistilPoseError, match=facts):
        reported(runs, override)
    assert not (tmp_path / "out").exists()


def test_without_any_run_there_is_no_report(reported, tmp_path):
    with pytest.raises(DistilPoseError, match=r"no run .*gone .*lost .*runs/\*"):
        reported("gone", "lost")
    assert not (tmp_path / "out").exists()


AWKWARD = ["a b", "c,d", "e[1]", "it's", 'q"x', "${now}", "$x", "ü{}", "a:b", "k=v", "back\\slash", "(1)", "12", "null"]


def test_folders_of_any_name_beside_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in AWKWARD:
        (tmp_path / name).mkdir()
    words = arguments([*AWKWARD, "metric=val/AP", "~published.regression", "baseline=a, loss=b", "--cfg", "job", "-m"])
    assert words[-3:] == ["--cfg", "job", "-m"]
    cfg = composed("report", *words[:-3])
    validate(cfg, ReportSettings)
    assert list(cfg.runs) == AWKWARD
    assert (cfg.metric, cfg.baseline) == ("val/AP", "a, loss=b")
    assert "regression" not in cfg.published
    assert arguments(["metric=val/AP"]) == ["metric=val/AP"]
    with pytest.raises(SystemExit, match="both as folders and by runs"):
        arguments(["there", "runs=[here]"])


def test_the_command(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
        GlobalHydra.instance().clear()
        try:
            main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().out
        return 0, capsys.readouterr().out

    place = write_run(tmp_path / "runs" / "lr=0.1, [a]", name="distilpose, [a]")
    status, printed = run(place.relative_to(tmp_path), "gone", "at=best", "baseline=distilpose, [a]", "output=out")
    assert status == 0, printed
    assert "gone is left out" in printed
    line = "python -m distilpose.report 'runs/lr=0.1, [a]' gone at=best 'baseline=distilpose, [a]' output=out"
    assert f"`{line}`" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"curves.png", "report.json", "report.md"}
    status, printed = run("gone", "output=other")
    assert "gone" in status  # the message, which the interpreter prints on its way out, with status 1
    assert printed == ""
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}


@pytest.mark.slow
def test_help_as_a_process(tmp_path):
    line = [sys.executable, "-m", "distilpose.report", "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "python -m distilpose.report RUNS" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_negative_values_and_the_persons_of_a_limited_validation(reported, tmp_path):
    place = write_run(tmp_path / "a", values=[-0.5, -0.25], metric="train/likelihood")
    lines = (place / "metrics.csv").read_text().splitlines()
    (place / "metrics.csv").write_text("\n".join([lines[0] + ",val/persons", *(f"{n},150" for n in lines[1:]), ""]))
    _, printed = reported(place, "metric=train/likelihood")
    assert cells(printed, "distilpose")["train/likelihood, mean ± sd"] == "-0.25 ± -"
    assert "Validation: 150 persons of" in printed
