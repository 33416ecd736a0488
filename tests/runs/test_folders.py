"""Reading runs back from their folders, and skipping those that cannot be read."""

from __future__ import annotations

import pytest
import yaml
from omegaconf import OmegaConf
from run_folders import recipe, write_run

from distilpose.runs.folders import NOT_COMPARED, collect_runs, read_run


def test_settings_that_are_not_compared_exist():
    known = OmegaConf.create(recipe())
    for name in NOT_COMPARED:
        assert OmegaConf.select(known, name, default="absent") != "absent", name


def truncate(name, characters):
    def damage(place):
        (place / name).write_text((place / name).read_text()[:-characters])

    return damage


def written(name, content):
    return lambda place: (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())


DAMAGE = {
    "config": (written("config.yaml", "name: [\n"), "config.yaml"),
    "not a training's": (written("config.yaml", "name: something\n"), "seed"),
    "no config": (lambda place: (place / "config.yaml").unlink(), "config.yaml"),
    "config of a number": (written("config.yaml", "5\n"), "config.yaml"),
    "config cut off": (truncate("config.yaml", 2), "cut off"),
    "no table": (lambda place: (place / "metrics.csv").unlink(), "unfinished"),
    "empty table": (written("metrics.csv", ""), "unfinished"),
    "text for a number": (written("metrics.csv", "epoch,val/PCK\n0,high\n"), "metrics.csv"),
    "binary": (written("metrics.csv", bytes(range(128, 256))), "metrics.csv"),
    "order": (written("metrics.csv", "epoch,val/PCK\n0,0.5\n2,0.5\n1,0.5\n"), "ascend"),
    "table cut off in a number": (truncate("metrics.csv", 2), "cut off"),
    "row cut off": (written("metrics.csv", "epoch,step,val/PCK\n2,20\n"), "row 1"),
    "row too long": (written("metrics.csv", "epoch,val/PCK\n2,0.5,0.6\n"), "row 1"),
    "no epochs": (written("metrics.csv", "val/PCK\n0.5\n"), "has no epoch"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_run_is_left_out_with_its_reason(tmp_path, kind):
    damage, fact = DAMAGE[kind]
    good = write_run(tmp_path / "runs" / "good")
    bad = write_run(tmp_path / "runs" / "bad", seed=1)
    damage(bad)
    runs, (note,) = collect_runs([str(tmp_path / "runs")])
    assert [run.folder for run in runs] == [good]
    assert note.startswith(f"{bad} is left out")
    assert fact in note


def test_a_table_cut_off_is_left_out_also_if_unfinished_runs_count(tmp_path):
    truncate("metrics.csv", 2)(write_run(tmp_path / "a"))
    assert collect_runs([str(tmp_path)], unfinished=True)[0] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", "abc"), ("seed", True), ("trainer.max_epochs", "two"), ("trainer.max_epochs", -1), ("name", ["a"])],
)
def test_settings_with_wrong_types(tmp_path, key, value):
    place = write_run(tmp_path / "a")
    config = yaml.safe_load((place / "config.yaml").read_text())
    group, _, name = key.rpartition(".")
    (config[group] if group else config)[name] = value
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    runs, (note,) = collect_runs([str(place)], unfinished=True)
    assert runs == []
    assert f"{key}: {value}" in note


def test_unfinished_runs(tmp_path):
    write_run(tmp_path / "finished", values=[0.1, 0.2, 0.3, 0.4])
    write_run(tmp_path / "part", seed=1, values=[0.1, 0.6], planned=4)
    runs, (note,) = collect_runs([str(tmp_path)])
    assert [run.seed for run in runs] == [0]
    assert "part is left out" in note
    assert "epoch 4" in note
    assert "unfinished=true" in note
    assert {run.seed for run in collect_runs([str(tmp_path)], unfinished=True)[0]} == {0, 1}


def test_folders_without_runs(tmp_path):
    good = write_run(tmp_path / "runs" / "good")
    for name in ("empty", "runs/failed"):
        (tmp_path / name).mkdir()
    (good / "pictures").mkdir()  # an empty folder inside a run is not a failed job
    folders = [tmp_path / "runs", tmp_path / "empty", good / "metrics.csv", tmp_path / "gone"]
    runs, notes = collect_runs(map(str, folders))
    assert [run.folder for run in runs] == [good]
    left_out = [note.partition(" is left out")[0] for note in notes]
    assert left_out == [str(tmp_path / "runs" / "failed"), *map(str, folders[1:])]


def test_runs_below_a_folder_are_sorted_and_counted_once(tmp_path):
    names = ("2_a", "10_a", "0.1_b", "0.02_b", "deeper/0_a", "too/deep/a/0_a")
    for seed, name in enumerate(names):
        write_run(tmp_path / "sweep" / name, seed)
    runs, notes = collect_runs([str(tmp_path / "sweep"), str(tmp_path / "sweep" / "2_a")])
    assert [run.folder.name for run in runs] == ["0.02_b", "0.1_b", "2_a", "10_a", "0_a"]
    assert notes == []


def test_the_digest_of_the_validation_annotations(tmp_path):
    place = write_run(tmp_path / "run")
    assert read_run(place).val_digest is None
    (place / "environment.json").write_text('{"started": null}')
    assert read_run(place).val_digest is None
    (place / "environment.json").write_text('{"started": {"digests": {"val_annotations": {"sha256": "ab"}}}}')
    assert read_run(place).val_digest == "ab"
