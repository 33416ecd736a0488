"""Values of a row, and differences to the baseline."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf
from run_folders import RECIPE, composed

from distilpose.errors import DistilPoseError
from distilpose.reporting.values import (
    VALIDATION,
    compare,
    differing_files,
    row_values,
    scale_of,
    validation_differences,
)


def test_mean_and_standard_deviation_over_seeds(row, report_cfg):
    seeds = {0: [0.2, None, 0.50], 1: [0.2, None, 0.54], 2: [0.6, None, 0.46]}
    values = row_values(row("a", seeds), report_cfg())
    last = [0.50, 0.54, 0.46]
    assert values["values"] == last
    assert values["mean"] == pytest.approx(np.mean(last))
    assert values["sd"] == pytest.approx(np.std(last, ddof=1))
    assert (values["seeds"], values["epochs"], values["steps"]) == ([0, 1, 2], [3, 3, 3], [20, 20, 20])
    assert values["minutes"] == 1.5
    assert values["curve"]["epochs"] == [1, 3]
    assert values["curve"]["minutes"] == [0.5, 1.5]
    assert values["curve"]["mean"] == pytest.approx([1 / 3, 0.5])
    assert row_values(row("a", {0: [0.1]}), report_cfg())["sd"] is None


def test_last_and_best_epoch(row, report_cfg):
    one = row("a", {0: [0.3, 0.7, 0.5, None]})
    for at, value, epoch in (("last", 0.5, 3), ("best", 0.7, 2)):
        values = row_values(one, report_cfg(at=at))
        assert (values["values"], values["at_epochs"]) == ([value], [epoch])
    assert row_values(one, report_cfg(at="best", metric="train/total"))["values"] == [0.25]  # a loss is best when low


def test_the_curve_of_seeds_of_different_length(row, report_cfg):
    values = row_values(row("a", {0: [0.1, 0.2, 0.3, 0.4], 1: [0.1, 0.6]}, planned=4), report_cfg())
    assert values["values"] == [0.4, 0.6]
    assert (values["epochs"], values["planned_epochs"]) == ([4, 2], [4, 4])
    assert values["curve"]["epochs"] == [1, 2]  # a mean of all seeds


def test_differences_are_paired_by_seed(row, report_cfg):
    cfg = report_cfg()
    baseline = row_values(row("regression", {0: [0.50], 1: [0.54], 2: [0.46]}), cfg)
    distilled = row_values(row("distilpose", {0: [0.60], 1: [0.66], 5: [0.90]}), cfg)
    assert compare([baseline, distilled], cfg) == []
    assert distilled["difference"]["seeds"] == [0, 1]
    assert distilled["difference"]["mean"] == pytest.approx(0.11)
    assert distilled["difference"]["sd"] == pytest.approx(np.std([0.10, 0.12], ddof=1))
    assert "difference" not in baseline


def test_rows_on_different_numbers_of_persons_are_not_compared(table, report_cfg):
    # trainer.limit_val_batches=2 with another batch size; None are all persons
    for counts, said in (((64, 32), "32 persons, not 64"), ((None, 32), "32 persons, not all"), ((32, 32), None)):
        lines = table(("regression", 0.5, {}), ("distilpose", 0.6, {}))
        for line, count in zip(lines, counts, strict=True):
            line["persons"] = [count]
        notes = compare(lines, report_cfg())
        assert ("difference" in lines[1]) == (said is None)
        assert notes == (
            [] if said is None else [f"No difference for distilpose: its validation differs from regression ({said})."]
        )


def test_validation_files_that_changed_between_runs_are_told(row):
    def rows(**settings):
        made = [
            row(name, {0: [0.5], 1: [0.6]}, {"data.val_annotations": "val.json", **settings}) for name in ("a", "b")
        ]
        for number, run in enumerate([run for one in made for run in one.runs.values()]):
            object.__setattr__(run, "val_digest", ("1" * 64, "1" * 64, None, "2" * 64)[number])
        return made

    (note,) = differing_files(rows())
    assert f"2 contents (SHA-256 {'1' * 12} in a_0, {'2' * 12} in b_1)" in note
    assert differing_files(rows(**{"data.num_val": 300})) == []  # drawn persons depend on the settings alone
    assert differing_files(rows()[:1]) == []


def test_the_baseline_is_chosen_by_name(table, report_cfg):
    lines = [("s0, loss=distilpose", 0.3, {}), ("s0, loss=regression", 0.4, {}), ("s1", 0.5, {})]
    chosen = {
        None: "s0, loss=regression", "s1": "s1", "s0, loss=distilpose": "s0, loss=distilpose",
        "loss=distilpose": "s0, loss=distilpose",
    }  # fmt: skip
    for baseline, name in chosen.items():
        rows = table(*lines)
        compare(rows, report_cfg(baseline=baseline))
        assert {row["difference"]["baseline"] for row in rows if "difference" in row} == {name}
        assert sum("difference" in row for row in rows) == 2
    with pytest.raises(DistilPoseError, match=r"baseline=s7 .*s0, loss=distilpose; "):
        compare(table(*lines), report_cfg(baseline="s7"))
    (note,) = compare(table(*lines), report_cfg(baseline="s0"))
    assert "2 rows" in note
    assert "baseline='s0, loss=distilpose'" in note
    assert "x=SETTING" in note


def test_a_complete_name_that_is_a_part_of_others(table, report_cfg):
    rows = table(("distilpose, a=1", 0.3, {"a": 1}), ("distilpose", 0.4, {}))
    compare(rows, report_cfg(baseline="distilpose"))
    assert rows[0]["difference"]["mean"] == pytest.approx(-0.1)


def test_of_several_baselines_the_one_at_the_same_x_counts(table, report_cfg):
    lines = [
        (f"{name}, data.label_share={share}", offset + share, {"data.label_share": share})
        for name, offset in (("regression", 0.3), ("distilpose", 0.5))
        for share in (0.02, 0.1)
    ]
    rows = table(*lines, ("heatmaps", 0.8, {}))
    (note,) = compare(rows, report_cfg(x="data.label_share"))
    assert [row["difference"]["mean"] for row in rows if "difference" in row] == pytest.approx([0.2, 0.2])
    assert "heatmaps" in note
    assert "2 rows" in note
    assert "baseline='regression, data.label_share=0.02'" in note


def test_of_several_baselines_the_one_with_the_same_validation_counts(table, report_cfg):
    lines = [
        (f"{name}, data.num_val={count}", value or count / 100, {"data.num_val": count})
        for name, value in (("regression", None), ("distilpose", 0.5))
        for count in (20, 30)
    ]
    rows = table(*lines)
    assert compare(rows, report_cfg()) == []
    gains = [row["difference"]["mean"] for row in rows if "difference" in row]
    assert gains == pytest.approx([0.3, 0.2])


@pytest.mark.parametrize(
    ("key", "value"),
    {
        "data.num_val": 20, "data.limit_val": 20, "data.padding": 1.5, "data.category": "dog", "data.variety": 0.1,
        "data.drawing_seed": 1, "data.skeleton.sigmas": [0.1], "method.flip_test": True, "trainer.limit_val_batches": 2,
        "data._target_": "distilpose.data.CocoDataModule",
    }.items(),
)  # fmt: skip
def test_rows_with_another_validation_are_not_compared(table, report_cfg, key, value):
    rows = table(("regression", 0.3, {}), ("other", 0.4, {}), ("distilpose", 0.5, {key: value}))
    (note,) = compare(rows, report_cfg())
    assert [row["name"] for row in rows if "difference" in row] == ["other"]
    assert "distilpose" in note
    assert f"{key}=" in note


def test_only_the_first_differences_of_the_validation_are_named(table, report_cfg):
    sports = {"data.root": "lspet", "data.limit_val": 50, "data.padding": 1.5, "data.category": "person"}
    (note,) = compare(table(("regression", 0.3, {"data.num_val": 7}), ("teacher", 0.5, sports)), report_cfg())
    assert "data.root=lspet, not null; data.limit_val=50, not null; data.num_val=null, not 7; …" in note


@pytest.mark.parametrize(
    "settings",
    [
        {"model.input_size": [8, 6]},
        {"data.num_train": 5, "data.root": "elsewhere", "data.num_val": 9},
        {"data.label_share": 0.1, "augmentation.scale": 0.9},
        {"data.val_images": None},
    ],
    ids=["crop", "training pictures", "training", "null and absent"],
)
def test_settings_that_do_not_change_the_validation(settings):
    assert validation_differences({"data.num_val": 9}, {"data.num_val": 9, **settings}) == []


def test_validation_settings_are_those_of_the_data_modules():
    known = [composed("train", *RECIPE), *(composed("train", *RECIPE, f"data={name}") for name in ("coco", "lspet"))]
    for name in VALIDATION:
        assert any(OmegaConf.select(config, name, default="absent") != "absent" for config in known), name
    assert validation_differences({"data.root": "a"}, {}) == ["data.root"]


@pytest.mark.parametrize(
    ("metric", "scale"),
    [
        ("val/AP", 100), ("val/PCK_other", 100), ("val/PCK_box", 100), ("train/share_regression", 100), ("train/likelihood", 1),
        ("val/persons", 1), ("val/my_error", 1), ("health/sigma_median", 1), ("train/learning_rate", 1),
    ],
)  # fmt: skip
def test_only_shares_are_in_per_cent(metric, scale):
    assert scale_of(metric) == scale


def test_the_persons_of_a_limited_validation(row, report_cfg):
    made = row("a", {0: [0.1, 0.2]})
    assert row_values(made, report_cfg())["persons"] == [None]
    for line in made.runs[0].rows:
        line["val/persons"] = 150.0
    assert row_values(made, report_cfg())["persons"] == [150.0]
