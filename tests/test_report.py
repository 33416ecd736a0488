"""Run folders are written here by hand, so that every figure of a report can be worked out beside it."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from matplotlib import pyplot as plt
from omegaconf import OmegaConf

from distilpose.cli.paths import CONFIG_DIR
from distilpose.errors import DistilPoseError
from distilpose.report import arguments, draw_by, draw_curves, main, report
from distilpose.reporting.rows import group_runs, tell_apart
from distilpose.reporting.values import VALIDATION, validated_otherwise
from distilpose.runs.config import NOT_COMPARED
from distilpose.runs.folders import collect_runs

ALONE = {f"loss.{term}": 0.0 for term in ("visual_token", "keypoint_token", "confidence", "simulated_heatmap")}
RECIPE = ["experiment=demo_student", "seed=0", "folder=somewhere", "name=distilpose", "teacher.checkpoint=teacher.ckpt"]


def composed(name, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(name, list(map(str, overrides)))


@pytest.fixture(scope="module")
def recipe():
    """A whole configuration, as training writes it."""
    return OmegaConf.to_container(composed("train", *RECIPE), resolve=True)


@pytest.fixture
def make_run(tmp_path, recipe):
    """Writes runs/<folder>: a value of val/PCK (None: not validated) an epoch, 30 seconds each."""

    def call(folder, seed=0, values=(0.1, None, 0.3), name="distilpose", planned=None, metric="val/PCK", **changes):
        config = copy.deepcopy(recipe)
        place = tmp_path / "runs" / folder
        changed = {"trainer.max_epochs": planned or len(values), "data.seed": seed, "folder": str(place)}
        for key, value in {**changed, **changes.pop("settings", {})}.items():
            *groups, last = key.split(".")
            part = config
            for group in groups:
                part = part.setdefault(group, {})
            part[last] = value
        place.mkdir(parents=True)
        (place / "config.yaml").write_text(yaml.safe_dump({**config, "name": name, "seed": seed}))
        with open(place / "metrics.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["epoch", "step", "seconds", "train/total", metric])
            for epoch, value in enumerate(values):
                table.writerow([epoch, 10 * epoch, 30.0, 1 / (1 + epoch), "" if value is None else value])
        return place

    return call


@pytest.fixture
def reported(tmp_path, capsys, monkeypatch):
    """Makes a report of runs/*: what it returns, and what it printed; the curves cost time and are not always drawn."""

    def call(*overrides, output="out", runs=None, drawn=False):
        if not drawn:
            monkeypatch.setattr("distilpose.report.draw_curves", lambda table, metric: plt.figure(figsize=(1, 1)))
        given = sorted((tmp_path / "runs").iterdir()) if runs is None else runs
        cfg = composed("report", *arguments([*map(str, given), *overrides]), f"output={tmp_path / output}")
        content = report.__wrapped__(cfg)
        return content, capsys.readouterr().out

    return call


@pytest.fixture
def grouped(tmp_path):
    """The rows that runs/* make, without a report."""

    def call(*ignore):
        runs, notes = collect_runs([str(tmp_path / "runs")])
        assert notes == []
        return group_runs(runs, ignore)[0]

    return call


def cells(text, name):
    """The table's cells of a row, by column."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    found = [line for line in lines[2:] if line[0] == name]
    assert len(found) == 1, (name, text)
    return dict(zip(lines[0], found[0], strict=True))


def test_runs_of_a_configuration_are_one_row_and_differ_from_the_baseline_by_seed(make_run, reported, tmp_path):
    alone, taught = {0: 0.50, 1: 0.54, 2: 0.46}, {0: 0.60, 1: 0.66, 5: 0.90}
    for seed, value in alone.items():
        make_run(f"a{seed}", seed, [0.2, None, value], "regression", settings=ALONE)
    for seed, value in taught.items():
        make_run(f"b{seed}", seed, [0.9, None, value])
    content, printed = reported(drawn=True)
    column = "val/PCK, mean ± sd"
    assert cells(printed, "regression") == {
        "name": "regression", "seeds": "0, 1, 2", "epochs": "3", "steps": "20", column: "50.0 ± 4.0",
        "each seed": "50.0, 54.0, 46.0",
        "difference to regression": "-", "minutes": "1.5", "published (the authors', COCO val2017 AP)": "56.0",
    }  # fmt: skip
    row = cells(printed, "distilpose")
    assert (row["seeds"], row[column]) == ("0, 1, 5", "72.0 ± 15.9")
    assert row["difference to regression"] == "+11.0 ± 1.4 (2 seeds)"  # 10 and 12
    assert row["published (the authors', COCO val2017 AP)"] == "71.6"
    for said in ("last epoch", "crop 64 x 48", "no flip test", "ground-truth boxes", "3 epochs", "Not measured here"):
        assert said in printed
    assert f"Made by `python -m distilpose.report {tmp_path / 'runs' / 'a0'} " in printed

    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written == json.loads(json.dumps(content))
    first, second = written["rows"]
    for line, values in ((first, alone), (second, taught)):
        assert line["values"] == list(values.values())
        assert line["mean"] == pytest.approx(np.mean(line["values"]))
        assert line["sd"] == pytest.approx(np.std(line["values"], ddof=1))
    assert second["difference"]["seeds"] == [0, 1]
    assert second["difference"]["sd"] == pytest.approx(np.std([0.10, 0.12], ddof=1))
    page = (tmp_path / "out" / "report.md").read_text()
    assert cells(page, "distilpose") == row
    assert "![curves.png](curves.png)" in page
    assert cv2.imread(str(tmp_path / "out" / "curves.png")).shape[0] > 300
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curves.png", "report.json", "report.md"]
    with pytest.raises(DistilPoseError, match="is not an empty folder"):
        reported()


def test_one_seed_has_no_spread_and_a_loss_is_no_percentage(make_run, reported):
    make_run("a", values=[0.1, 0.2])
    _, printed = reported()
    assert cells(printed, "distilpose")["val/PCK, mean ± sd"] == "20.0 ± -"
    assert "difference" not in printed.split("\n\n")[0]
    _, printed = reported("metric=train/total", "at=best", output="loss")
    assert cells(printed, "distilpose")["train/total, mean ± sd"] == "0.5 ± -"
    assert "published" not in printed


def test_last_is_the_last_validation_and_best_is_said_to_be_selected(make_run, reported):
    make_run("a", values=[0.3, 0.7, 0.5, None])
    content, printed = reported()
    assert content["rows"][0]["values"] == [0.5]
    assert "distilpose was last validated after epoch 3." in printed
    content, printed = reported("at=best", output="best")
    assert (content["rows"][0]["values"], content["rows"][0]["at_epochs"]) == ([0.7], [2])
    assert "selected on the data it is told of" in printed


def test_what_is_not_counted_as_configuration_is_there_to_be_left_out(recipe):
    known = OmegaConf.create(recipe)
    for name in NOT_COMPARED:
        assert OmegaConf.select(known, name, default="absent") != "absent", name


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"threads": 7, "data.num_workers": 3, "resume": "there", "logger.wandb.name": "x"}, 1),
        ({"callbacks.pictures": None, "callbacks.checkpoint.dirpath": "x", "trainer.default_root_dir": "x"}, 1),
        ({"callbacks.ema._target_": "lightning.pytorch.callbacks.EMAWeightAveraging", "callbacks.ema.decay": 0.9}, 2),
        ({"teacher.checkpoint": "better.ckpt"}, 2),
        ({"trainer.max_epochs": 2}, 2),
        ({"trainer.devices": 8}, 2),
        ({"weights": "start.ckpt"}, 2),
    ],
    ids=["machine", "watching", "averaging", "teacher", "epochs", "batch", "weights"],
)
def test_which_settings_make_another_configuration(make_run, settings, rows, grouped):
    make_run("a", seed=0)
    make_run("b", seed=1, settings=settings)
    assert len(grouped()) == rows
    assert len(grouped(*settings)) == 1


def test_the_same_data_elsewhere_is_the_same_and_other_data_is_not(make_run, reported):
    for folder, seed, root in (("a", 0, "data/paws"), ("b", 1, "/elsewhere/paws"), ("c", 2, "data/hooves")):
        make_run(folder, seed, settings={"data.root": root, "data.num_val": None})
    content, printed = reported()
    assert [row["name"] for row in content["rows"]] == ["distilpose, data.root=paws", "distilpose, data.root=hooves"]
    assert "Validation: all persons of paws or all persons of hooves, " in printed


def test_a_teacher_that_the_loss_does_not_ask_makes_no_difference(make_run, grouped):
    for seed, file in enumerate(("one.ckpt", None)):
        make_run(f"{seed}", seed, settings={**ALONE, "teacher.checkpoint": file})
    assert [list(row.runs) for row in grouped()] == [[0, 1]]


def test_a_setting_that_came_later_had_its_default_in_earlier_runs(make_run, grouped):
    for seed, later in enumerate(({}, {"loss.label_sigma": 0.0}, {"loss.label_sigma": 2.0})):
        place = make_run(f"{seed}", seed, settings=later)
        config = yaml.safe_load((place / "config.yaml").read_text())
        assert seed or "label_sigma" not in config["loss"] or config["loss"].pop("label_sigma") == 0
        (place / "config.yaml").write_text(yaml.safe_dump(config))
    assert [list(row.runs) for row in grouped()] == [[0, 1], [2]]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([{}, {"loss.visual_token": 0.01}], ["loss.visual_token=0.0005", "loss.visual_token=0.01"]),
        ([{}, ALONE], ["loss=distilpose", "loss=regression"]),
        (
            [{}, ALONE, {"loss": {"_target_": "distilpose.losses.HeatmapMSE"}}],
            ["loss=distilpose", "loss=regression", "loss=heatmap_mse"],
        ),
        ([{}, {"loss": {"_target_": "distilpose.losses.Mine"}}], ["loss=DistillationLoss", "loss=Mine"]),
        ([{"data.augmentation.scale": 0.5, "augmentation.scale": 0.5}, {}], ["augmentation.scale=0.5"]),
        ([{"weights": "a/x/last.ckpt"}, {"weights": "a/y/last.ckpt"}, {}], ["weights=x", "weights=y", "weights=null"]),
        ([{"a_new_one": 1}, {}], ["a_new_one=1", ""]),
        (
            [{"model.width": 32, "model.depth": 2}, {"model.width": 48, "model.depth": 1}],
            ["model.depth=2, model.width=32", "model.depth=1, model.width=48"],
        ),
        ([{"model.input_size": [8, 6], "data.input_size": [8, 6]}, {}], ["model.input_size=[8, 6]"]),
    ],
    ids=[
        "value",
        "file of the group",
        "files of several classes",
        "class",
        "composed copy",
        "paths",
        "unknown to the other",
        "values of no file",
        "list",
    ],
)
def test_rows_of_one_name_are_told_apart(make_run, grouped, changes, names):
    for number, settings in enumerate(changes):
        make_run(f"{number}", settings=settings)
    told = [row.name for row in grouped()]
    assert told[: len(names)] == [f"distilpose, {name}" if name else "distilpose" for name in names]
    assert len(set(told)) == len(changes)


def test_names_hold_nothing_that_all_share():
    assert tell_apart([{"name": "a", "x": 1, "y": 2}, {"name": "b", "x": 3, "y": 2}]) == ["a", "b"]
    assert tell_apart([{"name": "a", "x": 1, "y": 2}, {"name": "a", "x": 3, "y": 2}]) == ["a, x=1", "a, x=3"]


def damage(place, kind):
    if kind == "config":
        (place / "config.yaml").write_text("name: [\n")
    elif kind == "not a training's":
        (place / "config.yaml").write_text("name: something\n")
    elif kind == "no config":
        (place / "config.yaml").unlink()
    elif kind == "no table":
        (place / "metrics.csv").unlink()
    elif kind == "empty table":
        (place / "metrics.csv").write_text("")
    elif kind == "table":
        (place / "metrics.csv").write_text("epoch,val/PCK\n0,high\n")
    elif kind == "binary":
        (place / "metrics.csv").write_bytes(bytes(range(128, 256)))
    elif kind == "order":
        (place / "metrics.csv").write_text("epoch,val/PCK\n" + "".join(f"{e},0.5\n" for e in (0, 2, 1)))
    elif kind == "cut off":  # in mid-number of the last row, which is a number all the same
        text = (place / "metrics.csv").read_text()
        (place / "metrics.csv").write_text(text[: text.rindex(".") + 1])
    elif kind == "a row cut off":
        (place / "metrics.csv").write_text("epoch,step,val/PCK\n2,20\n")
    elif kind == "a row too long":
        (place / "metrics.csv").write_text("epoch,val/PCK\n2,0.5,0.6\n")
    elif kind == "no epochs":
        (place / "metrics.csv").write_text("val/PCK\n0.5\n")
    elif kind == "config cut off":
        text = (place / "config.yaml").read_text()
        (place / "config.yaml").write_text(text[:-2])
    elif kind == "config of a number":
        (place / "config.yaml").write_text("5\n")
    elif kind == "without it":
        (place / "metrics.csv").write_text("epoch,val/AP\n2,0.5\n")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("config", "its config.yaml cannot be read"),
        ("not a training's", "its config.yaml says no seed"),
        ("no config", "its config.yaml cannot be read"),
        ("no table", "it is unfinished"),
        ("empty table", "it is unfinished"),
        ("table", "its metrics.csv cannot be read"),
        ("binary", "its metrics.csv cannot be read"),
        ("order", "the epochs in its metrics.csv do not ascend"),
        ("cut off", "its metrics.csv cannot be read (it is cut off in its last line"),
        ("a row cut off", "its metrics.csv cannot be read (it is cut off or damaged: row 1 has not as many fields"),
        ("a row too long", "its metrics.csv cannot be read (it is cut off or damaged: row 1 has not as many fields"),
        ("no epochs", "its metrics.csv cannot be read (row 1 has no epoch)"),
        ("config cut off", "its config.yaml cannot be read (it is cut off in its last line"),
        ("config of a number", "its config.yaml cannot be read"),
        ("without it", "its table has no val/PCK"),
    ],
)
def test_a_broken_run_is_told_and_the_others_are_reported(make_run, reported, kind, said, tmp_path):
    make_run("good")
    damage(make_run("bad", seed=1), kind)
    content, printed = reported()
    (row,) = content["rows"]
    assert row["folders"] == [str(tmp_path / "runs" / "good")]
    told = [line for line in printed.splitlines() if line.startswith(str(tmp_path / "runs" / "bad"))]
    assert len(told) == 1
    assert told[0].startswith(f"{tmp_path / 'runs' / 'bad'} is left out: {said}")
    assert told[0] in (tmp_path / "out" / "report.md").read_text()


def test_a_cut_off_run_does_not_take_the_place_of_a_whole_one(make_run, reported):
    make_run("whole", values=[0.1, None, 0.345])
    damage(make_run("copy", values=[0.1, None, 0.345]), "cut off")  # of the same seed, and later
    content, _ = reported("unfinished=true")
    assert content["rows"][0]["values"] == [0.345]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": "abc"}, "its config.yaml says seed: abc, which is no whole number"),
        ({"seed": True}, "its config.yaml says seed: True, which is no whole number"),
        ({"seed": None}, "its config.yaml says no seed, so it is not of a training"),
        ({"trainer.max_epochs": "two"}, "its config.yaml says trainer.max_epochs: two, which is no number of epochs"),
        ({"trainer.max_epochs": -1}, "its config.yaml says trainer.max_epochs: -1, which is no number of epochs"),
        ({"name": ["a"]}, "its config.yaml says name: ['a'], which is no name"),
    ],
)
def test_settings_that_no_training_has_are_told_with_their_value(make_run, tmp_path, settings, said):
    place = make_run("a")
    config = yaml.safe_load((place / "config.yaml").read_text())
    for key, value in settings.items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = value
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    assert collect_runs([str(place)], unfinished=True) == ([], [f"{place} is left out: {said}."])


@pytest.mark.parametrize(("column", "value"), [("val/PCK", "nan"), ("val/PCK", "-inf"), ("train/total", "nan")])
def test_a_run_that_diverged_is_left_out(make_run, reported, column, value):
    make_run("good")
    place = make_run("bad", seed=1)
    lines = (place / "metrics.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[lines[0].split(",").index(column)] = value
    (place / "metrics.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:], ""]))
    content, printed = reported()
    assert content["rows"][0]["seeds"] == [0]
    assert f"bad is left out: its {column} is {value} after epoch 1." in printed


def test_cocos_minus_one_is_no_figure(make_run, reported):
    make_run("a", values=[-1.0], metric="val/APL")
    make_run("b", values=[0.5], metric="val/APL", seed=1)
    content, printed = reported("metric=val/APL")
    assert content["rows"][0]["seeds"] == [1]
    assert "a is left out: its val/APL is -1" in printed


def test_unfinished_runs_are_left_out_unless_asked_for(make_run, reported):
    make_run("whole", seed=0, values=[0.1, 0.2, 0.3, 0.4])
    make_run("part", seed=1, values=[0.1, 0.6], planned=4)
    content, printed = reported()
    assert content["rows"][0]["values"] == [0.4]
    assert "part is left out: it is unfinished, without epoch 4 in its metrics.csv (with unfinished=true" in printed
    content, printed = reported("unfinished=true", output="all")
    assert content["rows"][0]["values"] == [0.4, 0.6]
    assert cells(printed, "distilpose")["epochs"] == "4, 2 of 4 (unfinished)"
    assert content["rows"][0]["curve"]["epochs"] == [1, 2]  # a mean of all its seeds, or none
    with pytest.raises(DistilPoseError, match="unfinished=perhaps must be true or false"):
        reported("unfinished=perhaps", output="words")


def test_missing_folders_are_told(make_run, reported, tmp_path):
    good = make_run("good")
    (tmp_path / "empty").mkdir()
    _, printed = reported(runs=[good, tmp_path / "empty", good / "metrics.csv", tmp_path / "gone"])
    assert f"{tmp_path / 'empty'} is left out: it holds no run." in printed
    assert f"{good / 'metrics.csv'} is left out: it is no folder." in printed
    assert f"{tmp_path / 'gone'} is left out: it does not exist." in printed


def test_of_a_seed_trained_twice_the_later_counts(make_run, reported, tmp_path):
    for folder, value, time in (("a", 0.2, 2000), ("b", 0.4, 1000)):
        make_run(folder, values=[value])
        os.utime(tmp_path / "runs" / folder / "metrics.csv", (time, time))
    content, printed = reported()
    assert content["rows"][0]["values"] == [0.2]
    runs = tmp_path / "runs"
    assert f"distilpose has seed 0 twice: {runs / 'a'} is used, being later than {runs / 'b'}." in printed


@pytest.mark.parametrize("values", [[0.9], [0.9, None, None]], ids=["cut off", "not validated at its end"])
def test_of_a_seed_trained_twice_the_run_that_came_further_counts(make_run, reported, tmp_path, values):
    make_run("whole", values=[0.1, None, 0.3])
    make_run("less", values=values, planned=3)
    os.utime(tmp_path / "runs" / "whole" / "metrics.csv", (1000, 1000))
    content, printed = reported("unfinished=true")
    assert content["rows"][0]["values"] == [0.3]
    runs = tmp_path / "runs"
    assert f"seed 0 twice: {runs / 'whole'} is used, having come further than {runs / 'less'}." in printed


def test_an_empty_folder_of_a_job_that_failed_is_told(make_run, reported, tmp_path):
    (make_run("sweep/done") / "pictures").mkdir()  # a run's own empty folder is no job
    (tmp_path / "runs" / "sweep" / "failed").mkdir()
    _, notes = collect_runs([str(tmp_path / "runs" / "sweep")])
    assert notes == [f"{tmp_path / 'runs' / 'sweep' / 'failed'} is left out: it is empty."]
    assert collect_runs([str(tmp_path / "runs" / "sweep" / "done")])[1] == []


def test_a_folder_of_runs_stands_for_them_and_none_counts_twice(make_run, tmp_path):
    for number, folder in enumerate(
        ("sweep/2_a", "sweep/10_a", "sweep/0.1_b", "sweep/0.02_b", "sweep/deeper/0_a", "sweep/too/deep/a/0_a")
    ):
        make_run(folder, seed=number)
    runs, notes = collect_runs([str(tmp_path / "runs" / "sweep"), str(tmp_path / "runs" / "sweep" / "2_a")])
    assert [run.folder.name for run in runs] == ["0.02_b", "0.1_b", "2_a", "10_a", "0_a"]
    assert notes == []


def shares(make_run, name, offset, settings):
    for share in (0.02, 0.1, 1.0):
        for seed in (0, 1):
            changed = {**settings, "data.label_share": share}
            make_run(f"{name}_{share}_{seed}", seed, [offset + share / 10 + seed / 50], name, settings=changed)


def test_a_setting_on_an_axis(make_run, reported, tmp_path):
    shares(make_run, "distilpose", 0.5, {})
    shares(make_run, "regression", 0.3, ALONE)
    make_run("whole", values=[0.8], name="heatmaps")
    config = yaml.safe_load((tmp_path / "runs" / "whole" / "config.yaml").read_text())
    config["data"].pop("label_share", None)
    (tmp_path / "runs" / "whole" / "config.yaml").write_text(yaml.safe_dump(config))
    content, printed = reported("x=data.label_share")
    # each against the baseline at its own share: 0.2 at every one
    for share in (0.02, 0.1, 1.0):
        row = cells(printed, f"distilpose, data.label_share={share}")
        assert row["difference to regression at the same data.label_share"] == "+20.0 ± 0.0 (2 seeds)"
    told = "No difference is told for heatmaps: 3 rows go by the baseline's name, none or several at the same data.label_share"
    way = "; give the whole name of one, such as baseline='regression, data.label_share=0.02'."
    assert told + way in printed
    assert cv2.imread(str(tmp_path / "out" / "by_data.label_share.png")) is not None

    (axes,) = draw_by(content["rows"], "val/PCK", "data.label_share").axes
    lines = {bars.get_label(): bars.lines for bars in axes.containers}
    assert set(lines) == {"distilpose", "regression"}
    line, _, (bars,) = lines["regression"]
    np.testing.assert_allclose(line.get_xdata(), [0.02, 0.1, 1.0])
    np.testing.assert_allclose(line.get_ydata(), [31.2, 32.0, 41.0])
    heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, math.sqrt(2))  # of two values 2 apart
    assert axes.get_xscale() == "log"
    (level,) = [line for line in axes.lines if "not set" in str(line.get_label())]
    np.testing.assert_allclose(level.get_ydata(), 80)
    plt.close("all")


def test_an_axis_of_files_is_told_by_what_differs_in_them(make_run, reported):
    for number, folder in enumerate(("runs/small", "runs/large")):
        file = f"{folder}/checkpoints/last.ckpt"
        make_run(f"{number}", values=[0.3 + number / 10], settings={"teacher.checkpoint": file})
    content, _ = reported("x=teacher.checkpoint")
    (axes,) = draw_by(content["rows"], "val/PCK", "teacher.checkpoint").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["small", "large"]
    assert [bars.get_label() for bars in axes.containers] == ["distilpose"]
    plt.close("all")


def test_curves_are_means_over_epochs_and_time(make_run, reported):
    for seed, values in enumerate(([0.1, None, 0.3], [0.2, None, 0.6])):
        make_run(f"{seed}", seed, values)
    content, _ = reported()
    left, right = draw_curves(content["rows"], "val/PCK").axes
    for axes, x in ((left, [1, 3]), (right, [0.5, 1.5])):
        np.testing.assert_allclose(axes.lines[0].get_xdata(), x)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [15, 45])
        (band,) = axes.collections
        edges = band.get_paths()[0].vertices
        top = max(edges[edges[:, 0] == x[1], 1])
        assert top == pytest.approx(45 + 100 * np.std([0.3, 0.6], ddof=1))
    assert right.get_xlabel() == "minutes of training"
    plt.close("all")


def test_ten_rows_and_tables_without_times_are_drawn(make_run, reported, tmp_path):
    for number in range(12):
        place = make_run(f"{number}", name=f"student_{number}" + " of a long name" * number)
        text = (place / "metrics.csv").read_text()
        (place / "metrics.csv").write_text(text.replace(",seconds,", ",moments,"))
    _, printed = reported(drawn=True)
    assert "minutes" not in printed
    assert cv2.imread(str(tmp_path / "out" / "curves.png")) is not None


def test_the_baseline_is_a_row(make_run, reported):
    for number, settings in enumerate(({}, ALONE, {"loss.regression": 2.0, **ALONE})):
        make_run(f"{number}", values=[0.3 + number / 10], settings=settings, name=f"s{number // 2}")
    content, _ = reported()  # loss=regression is the only one of its kind
    assert [row.get("difference", {}).get("baseline") for row in content["rows"]] == [
        "s0, loss=regression", None, "s0, loss=regression"
    ]  # fmt: skip
    for number, name in enumerate(("s1", "s0, loss=distilpose", "loss=distilpose")):
        content, printed = reported(f"baseline={name}", output=f"{number}")
        assert sum("difference" in row for row in content["rows"]) == 2
        column = f"difference to {'s1' if name == 's1' else 's0, loss=distilpose'}"
        assert cells(printed, "s0, loss=regression")[column] == f"{'-' if name == 's1' else '+'}10.0 ± - (1 seed)"
    with pytest.raises(DistilPoseError, match=r"baseline=s7 is no row: expected s0, loss=distilpose; "):
        reported("baseline=s7", output="s7")
    _, printed = reported("baseline=s0", output="s0")
    told = "No difference is told for s0, loss=distilpose; s0, loss=regression; s1: 2 rows go by the baseline's name; "
    way = "give the whole name of one, such as baseline='s0, loss=distilpose', or x=SETTING"
    assert told + way in printed


def test_a_whole_name_picks_its_row_also_where_it_is_a_part_of_others(make_run, reported):
    for number, settings in enumerate(({"a_new_one": 1}, {})):
        make_run(f"{number}", values=[0.3 + number / 10], settings=settings)
    content, _ = reported("baseline=distilpose")
    assert [row["name"] for row in content["rows"]] == ["distilpose, a_new_one=1", "distilpose"]
    assert content["rows"][0]["difference"]["mean"] == pytest.approx(-0.1)


OTHERWISE = {
    "data.num_val": 20, "data.limit_val": 20, "data.padding": 1.5, "data.category": "dog", "data.variety": 0.1,
    "data.drawing_seed": 1, "data.skeleton.sigmas": [0.1], "method.flip_test": True, "trainer.limit_val_batches": 2,
    "data._target_": "distilpose.data.CocoDataModule",
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), OTHERWISE.items(), ids=OTHERWISE)
def test_rows_validated_otherwise_are_not_compared(make_run, reported, key, value):
    make_run("alone", values=[0.3], name="regression")
    make_run("alike", values=[0.4], name="other")
    make_run("otherwise", values=[0.5], settings={key: value})
    content, printed = reported()
    assert [row["name"] for row in content["rows"] if "difference" in row] == ["other"]
    assert f"No difference is told for distilpose: validated otherwise than regression ({key}=" in printed


def test_other_data_is_told_by_the_first_of_its_differences(make_run, reported):
    drawn = {f"data.{key}": None for key in ("num_val", "image_size", "max_persons", "variety", "drawing_seed")}
    sports = {**drawn, "data.root": "data/lspet", "data._target_": "distilpose.data.CocoDataModule"}
    make_run("alone", values=[0.3], name="regression", settings={"data.num_val": 7})
    make_run("sports", values=[0.5], name="teacher", settings={**sports, "data.limit_val": 50})
    content, printed = reported()
    assert not any("difference" in row for row in content["rows"])
    why = "data.root=lspet, not null; data.limit_val=50, not null; data.num_val=null, not 7; …"
    assert f"No difference is told for teacher: validated otherwise than regression ({why})." in printed
    assert "Validation: all persons of 7 synthetic pictures or the first 50 persons of lspet, crop " in printed


@pytest.mark.parametrize(
    "settings",
    [
        {"model.input_size": [8, 6], "data.input_size": [8, 6]},
        {"data.num_train": 5, "data.root": "elsewhere"},
        {"data.label_share": 0.1, "augmentation.scale": 0.9},
        {"data.val_images": None},
    ],
    ids=["crop", "training pictures", "training", "absent in the other"],
)
def test_what_does_not_decide_validation_leaves_rows_comparable(make_run, reported, settings):
    make_run("alone", values=[0.3], name="regression")
    make_run("other", values=[0.5], settings=settings)
    content, _ = reported()
    assert content["rows"][1]["difference"]["mean"] == pytest.approx(0.2)


def test_of_several_baselines_the_one_validated_alike_counts(make_run, reported):
    for number in (20, 30):
        make_run(f"alone_{number}", values=[number / 100], name="regression", settings={"data.num_val": number})
        make_run(f"taught_{number}", values=[0.5], settings={"data.num_val": number})
    content, printed = reported()
    gains = {row["name"]: row["difference"]["mean"] for row in content["rows"] if "difference" in row}
    assert gains == {
        "distilpose, data.num_val=20": pytest.approx(0.3), "distilpose, data.num_val=30": pytest.approx(0.2)
    }  # fmt: skip
    column = "difference to regression on the same validation persons"
    assert cells(printed, "distilpose, data.num_val=30")[column] == "+20.0 ± - (1 seed)"
    assert "No difference" not in printed


def test_settings_that_decide_validation_are_those_of_the_data_modules(recipe):
    known = [OmegaConf.create(recipe), *(composed("train", *RECIPE, f"data={name}") for name in ("coco", "lspet"))]
    for name in VALIDATION:
        assert any(OmegaConf.select(config, name, default="absent") != "absent" for config in known), name
    assert validated_otherwise({"data.root": "a"}, {}) == ["data.root"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["at=first"], "at=first is not known: expected last or best."),
        (["metric=val/AQ"], "metric=val/AQ is in no run's table: expected one of train/total, val/PCK."),
        (["x=data.sahre"], "x=data.sahre is no setting that tells runs apart"),
        (["x=seed"], "x=seed is no setting that tells runs apart"),
        (["published=5"], "published=5 must be figures by name of a row: give published={regression: 56.0}, or null."),
        (["published={regression: high}"], "published.regression=high must be a number."),
        (["ignore=foo"], "ignore=foo must be a list: put what it holds in brackets, ignore=[…]."),
        (["ignore=null"], "ignore=None must be a list"),
        (["published_as=null"], "published_as=None must be a word"),
        (["metric=[a]"], "metric=['a'] must be a word"),
    ],
)
def test_mistakes_are_one_sentence(make_run, reported, overrides, message, tmp_path):
    make_run("a")
    with pytest.raises(DistilPoseError, match=re.escape(message)):
        reported(*overrides)
    assert not (tmp_path / "out").exists()


def test_what_is_ignored_to_no_effect_is_told(make_run, reported):
    make_run("a", seed=0)
    make_run("b", seed=1, settings={"teacher.checkpoint": "better.ckpt", "name": "other"})
    content, printed = reported("ignore=[teacher.chekpoint,teacher.checkpoint,loss]")
    assert [row["seeds"] for row in content["rows"]] == [[0, 1]]
    (told,) = [line for line in printed.splitlines() if "changes nothing" in line]
    assert told.startswith("ignore=[teacher.chekpoint] changes nothing: it is no setting that tells runs apart")


def test_runs_of_any_name_are_one_row_where_names_are_ignored(make_run, grouped):
    for seed, name in enumerate(("monday", "tuesday")):
        make_run(name, seed, name=name)
    assert [(row.name, list(row.runs)) for row in grouped("name")] == [("runs", [0, 1])]


@pytest.mark.parametrize("name", ["_a", "", "$\\foo$", "a\nb"])
def test_names_are_drawn_as_they_are(make_run, reported, tmp_path, name):
    make_run("a", name=name)
    content, _ = reported("x=name", drawn=True)
    for figure in (draw_curves(content["rows"], "val/PCK"), draw_by(content["rows"], "val/PCK", "name")):
        figure.savefig(tmp_path / "figure.png")
        (legend,) = figure.legends
        assert len(legend.get_texts()) == 1
    plt.close("all")


def test_without_any_run_there_is_no_report(make_run, reported, tmp_path):
    with pytest.raises(DistilPoseError, match=r"no run to report: give folders of runs, such as runs/\*\.$"):
        reported(runs=[])
    with pytest.raises(DistilPoseError, match=r"no run to report: gone is left out: it does not exist; lost .*\.$"):
        reported(runs=["gone", "lost"])
    assert not (tmp_path / "out").exists()


AWKWARD = ["a b", "c,d", "e[1]", "it's", 'q"x', "${now}", "$x", "ü{}", "a:b", "k=v", "back\\slash", "(1)", "12", "null"]


def test_folders_of_any_name_are_taken_beside_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in AWKWARD:
        (tmp_path / name).mkdir()
    words = arguments([*AWKWARD, "metric=val/AP", "~published.regression", "baseline=a, loss=b", "--cfg", "job", "-m"])
    assert words[-3:] == ["--cfg", "job", "-m"]
    cfg = composed("report", *words[:-3])
    assert list(cfg.runs) == AWKWARD
    assert (cfg.metric, cfg.baseline) == ("val/AP", "a, loss=b")
    assert "regression" not in cfg.published
    assert arguments(["metric=val/AP"]) == ["metric=val/AP"]
    with pytest.raises(SystemExit, match="both as folders and by runs"):
        arguments(["there", "runs=[here]"])


def test_the_command(make_run, tmp_path, monkeypatch, capsys):
    def ran(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["report", *map(str, words)])
        GlobalHydra.instance().clear()
        try:
            main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().out
        return 0, capsys.readouterr().out

    place = make_run("lr=0.1, [a]", name="distilpose, [a]")
    status, printed = ran(place.relative_to(tmp_path), "gone", "at=best", "baseline=distilpose, [a]", "output=out")
    assert status == 0, printed
    assert "gone is left out: it does not exist." in printed
    line = "python -m distilpose.report 'runs/lr=0.1, [a]' gone at=best 'baseline=distilpose, [a]' output=out"
    assert f"Made by `{line}`." in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"curves.png", "report.json", "report.md"}
    told = (
        "error: There is no run to report: gone is left out: it does not exist; give folders of runs, such as runs/*."
    )
    assert ran("gone", "output=other") == (told, "")  # which the interpreter prints on its way out, with status 1
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "out"}


@pytest.mark.slow
def test_help_as_a_process(tmp_path):
    line = [sys.executable, "-m", "distilpose.report", "--help"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "python -m distilpose.report RUNS" in done.stdout
    assert list(tmp_path.iterdir()) == []
