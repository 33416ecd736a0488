"""Which runs are one row, and the names that distinguish rows."""

from __future__ import annotations

import os

import pytest
import yaml
from run_folders import ALONE, write_run

from distilpose.reporting.rows import group_runs, name_configurations
from distilpose.runs.folders import collect_runs


@pytest.fixture
def make_run(tmp_path):
    return lambda folder, *args, **options: write_run(tmp_path / "runs" / folder, *args, **options)


@pytest.fixture
def grouped(tmp_path):
    """The rows of runs/*, and notes."""

    def call(*ignore):
        runs, notes = collect_runs([str(tmp_path / "runs")], unfinished=True)
        assert notes == []
        return group_runs(runs, ignore, "val/PCK")

    return call


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
def test_which_settings_make_another_configuration(make_run, grouped, settings, rows):
    make_run("a", seed=0)
    make_run("b", seed=1, settings=settings)
    assert len(grouped()[0]) == rows
    assert len(grouped(*settings)[0]) == 1


def test_the_same_data_in_another_folder(make_run, grouped):
    for seed, root in enumerate(("data/paws", "/elsewhere/paws", "data/hooves")):
        make_run(f"{seed}", seed, settings={"data.root": root, "data.num_val": None})
    rows, _ = grouped()
    assert [row.name for row in rows] == ["distilpose, data.root=paws", "distilpose, data.root=hooves"]


def test_a_teacher_that_the_loss_does_not_need_makes_no_difference(make_run, grouped):
    for seed, file in enumerate(("one.ckpt", None)):
        make_run(f"{seed}", seed, settings={**ALONE, "teacher.checkpoint": file})
    assert [list(row.runs) for row in grouped()[0]] == [[0, 1]]


def test_runs_from_before_a_setting_existed_had_its_default(make_run, grouped):
    for seed, later in enumerate(({}, {"loss.label_sigma": 0.0}, {"loss.label_sigma": 2.0})):
        place = make_run(f"{seed}", seed, settings=later)
        if seed == 0:
            config = yaml.safe_load((place / "config.yaml").read_text())
            config["loss"].pop("label_sigma", None)
            (place / "config.yaml").write_text(yaml.safe_dump(config))
    assert [list(row.runs) for row in grouped()[0]] == [[0, 1], [2]]


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
        "value", "file of the group", "files of several classes", "class", "composed copy", "paths",
        "unknown to the other", "values of no file", "list",
    ],
)  # fmt: skip
def test_names_of_rows_are_unique(make_run, grouped, changes, names):
    for number, settings in enumerate(changes):
        make_run(f"{number}", settings=settings)
    row_names = [row.name for row in grouped()[0]]
    assert row_names[: len(names)] == [f"distilpose, {name}" if name else "distilpose" for name in names]
    assert len(set(row_names)) == len(changes)


def test_names_are_as_short_as_possible():
    assert name_configurations([{"name": "a", "x": 1, "y": 2}, {"name": "b", "x": 3, "y": 2}]) == ["a", "b"]
    assert name_configurations([{"name": "a", "x": 1, "y": 2}, {"name": "a", "x": 3, "y": 2}]) == ["a, x=1", "a, x=3"]


def test_ignored_names(make_run, grouped):
    for seed, name in enumerate(("monday", "tuesday")):
        make_run(name, seed, name=name)
    assert [(row.name, list(row.runs)) for row in grouped("name")[0]] == [("runs", [0, 1])]


def test_an_ignored_setting_that_does_not_exist_is_noted(make_run, grouped):
    make_run("a")
    _, (note,) = grouped("teacher.chekpoint", "teacher.checkpoint", "loss")
    assert "ignore=[teacher.chekpoint]" in note


@pytest.mark.parametrize(
    ("values", "time"),
    [([0.9], 3000), ([0.9, None, None], 3000), ([0.9, None, 0.9], 1000)],
    ids=["fewer epochs", "not validated at its end", "earlier"],
)
def test_of_two_runs_of_a_seed_the_one_with_more_epochs_or_the_later_is_used(make_run, grouped, values, time):
    used, other = make_run("used", values=[0.1, None, 0.3]), make_run("other", values=values, planned=3)
    for place, written in ((used, 2000), (other, time)):
        os.utime(place / "metrics.csv", (written, written))
    (row,), (note,) = grouped()
    assert row.runs[0].folder == used
    assert f"{used} is used" in note
    assert str(other) in note
