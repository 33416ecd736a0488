"""The result files of a sweep."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.sweeps.trials import Trial, best_of, draw_trials, raise_if_failed, write_trials


def trial(place, name, *overrides, state="done", value=None, note="", command=""):
    (place / name).mkdir(parents=True, exist_ok=True)
    return Trial(str(place / name), ["loss=l1", *overrides, f"trial={name[-1]}"], state, value, note, command)


def test_a_row_for_each_job_with_the_settings_that_differ(tmp_path):
    trials = [
        trial(tmp_path, "a0", "optimizer.lr=0.00123456789", "seed=0", value=0.25, command="python -m again"),
        trial(tmp_path, "a1", "optimizer.lr=0.01", "seed=0", state="pruned", value=0.75, note="after epoch 2"),
        trial(tmp_path, "a2", "seed=1", state="failed", note="no disk"),
    ]
    text = write_trials(tmp_path, trials, "val/AP")
    assert text.split("\n\n")[0].splitlines() == [
        "| run | state | val/AP | optimizer.lr | seed |",
        "| --- | --- | --- | --- | --- |",
        "| a0 | done | **0.2500** | 0.001235 | 0 |",
        "| a1 | pruned | 0.7500 | 0.01 | 0 |",
        "| a2 | failed | - | - | 1 |",
    ]
    assert f"{tmp_path / 'a2'} failed: no disk" in text
    assert (tmp_path / "trials.md").read_text() == text + "\n"
    best = OmegaConf.load(tmp_path / "best.yaml")
    assert (best.folder, best.value, best.command) == (str(tmp_path / "a0"), 0.25, "python -m again")
    assert "optimizer.lr=0.00123456789" in best.overrides


def test_a_later_command_adds_its_rows_and_the_best_is_of_all(tmp_path):
    first = [
        trial(tmp_path, f"a{n}", f"seed={n}", value=value, command=f"again {n}") for n, value in enumerate((0.5, 0.1))
    ]
    write_trials(tmp_path, first, "val/AP")
    again = [trial(tmp_path, f"a{n}", f"seed={n}", value=value) for n, value in ((1, 0.2), (2, 0.3))]
    text = write_trials(tmp_path, again, "val/AP")
    assert [line.split(" | ")[2].strip("*") for line in text.splitlines()[2:5]] == ["0.5000", "0.2000", "0.3000"]
    best = OmegaConf.load(tmp_path / "best.yaml")
    assert (best.folder, best.command) == (str(tmp_path / "a0"), "again 0")
    assert len(write_trials(tmp_path, again, "val/PCK").split("\n\n")[0].splitlines()) == 2 + 2  # another metric


def test_a_table_of_an_earlier_version(tmp_path):
    write_trials(tmp_path, [trial(tmp_path, f"a{n}", f"seed={n}", state=s) for n, s in enumerate(("x", "y"))], "val/AP")
    rows = (tmp_path / "trials.json").read_text().replace('"x"', '"left off"').replace('"y"', '"not begun"')
    (tmp_path / "trials.json").write_text(rows)
    text = write_trials(tmp_path, [trial(tmp_path, "a2", "seed=2")], "val/AP")
    assert [line.split(" | ")[1] for line in text.splitlines()[2:4]] == ["interrupted", "not started"]


@pytest.mark.parametrize("content", ["", "[]", '{"trials": [{}], "monitor": "val/AP"}'])
def test_a_damaged_table_is_quarantined(tmp_path, content):
    (tmp_path / "trials.json").write_text(content)
    text = write_trials(tmp_path, [trial(tmp_path, "a0", "seed=0", value=0.5)], "val/AP")
    assert "| a0 | done |" in text
    assert (tmp_path / "trials.damaged.json").read_text() == content


def test_the_command_is_that_of_the_best_trial(tmp_path):
    """Also if trials share a folder, as in a table of an earlier version."""
    trials = [trial(tmp_path, "a", f"seed={n}", value=n, command=f"train {n}") for n in (1, 3, 2)]
    write_trials(tmp_path, trials, "val/AP")
    best = OmegaConf.load(tmp_path / "best.yaml")
    assert (best.overrides[1], best.command) == ("seed=3", "train 3")


def test_trials_without_a_finite_value_are_not_the_best(tmp_path):
    trials = [trial(tmp_path, "a0", value=float("nan")), trial(tmp_path, "a1"), trial(tmp_path, "a2", state="failed")]
    assert best_of(trials) is None
    write_trials(tmp_path, trials, "val/AP")
    assert not (tmp_path / "best.yaml").exists()
    assert not (tmp_path / "trials.png").exists()


def test_all_failed_trials_are_named(tmp_path):
    raise_if_failed(tmp_path, [trial(tmp_path, "a0", value=1.0)], "try again")
    failed = [trial(tmp_path, f"a{n}", state="failed", note=f"why {n}.") for n in (1, 2)]
    with pytest.raises(DistilPoseError, match=r"2 of 3 jobs failed, .*a1, .*a2 \(see .*trials.md\): try again\."):
        raise_if_failed(tmp_path, [*failed, trial(tmp_path, "a0", value=1.0)], "try again")


def test_the_picture_has_a_panel_for_each_setting(tmp_path):
    trials = [
        trial(tmp_path, f"a{n}", f"optimizer.lr={10.0**-n}", f"loss.kind={kind}", state=state, value=0.1 * n)
        for n, (kind, state) in enumerate([("a", "done"), ("b", "pruned"), ("a", "done"), ("c", "interrupted")])
    ]
    rate, kind = draw_trials(trials, ["optimizer.lr", "loss.kind"], "val/AP", best_of(trials)).axes
    assert (rate.get_xscale(), kind.get_xscale()) == ("log", "linear")
    assert [label.get_text() for label in kind.get_xticklabels()] == ["a", "b", "c"]
    drawn = {points.get_label(): points.get_offsets().tolist() for points in rate.collections}
    assert drawn["done"] == [[1.0, 0.0], [0.01, pytest.approx(0.2)]]
    assert drawn["pruned"] == [[0.1, pytest.approx(0.1)]]
    assert drawn["best"] == [[0.01, pytest.approx(0.2)]]
