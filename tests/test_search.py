"""A search: trials of real runs, stopped where they fall behind, going on after a kill, past those that fail."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.search import Search

optuna = pytest.importorskip("optuna")
State = optuna.trial.TrialState


def parse(*texts):
    return OverridesParser.create().parse_overrides(list(texts))


def returned(value):
    failed = isinstance(value, Exception)
    return JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED, _return_value=value)


def parabola(batch, number):
    """Jobs whose value is highest at x = 3."""
    given = [dict(text.split("=") for text in overrides) for overrides in batch]
    return [returned(-((float(values["x"]) - 3) ** 2)) for values in given]


def test_it_finds_what_is_best_and_goes_on_where_it_was_stopped(tmp_path):
    overrides = parse("x=interval(0.0,10.0)", "seed=1")

    class StoppedError(Exception):
        pass

    def stopped(batch, number):
        if number >= 6:
            raise StoppedError
        return parabola(batch, number)

    with pytest.raises(StoppedError):
        Search(tmp_path, overrides, trials=25, jobs=2).run(stopped)
    launched = []
    found = Search(tmp_path, overrides, trials=25, jobs=2).run(
        lambda batch, number: (launched.extend(batch), parabola(batch, number))[1]
    )
    assert len(launched) == 25 - 6
    assert [overrides[-1] for overrides in launched] == [
        f"trial={n}" for n in range(6, 25)
    ]  # the two that ran come first
    assert abs(float(found["overrides"][1].removeprefix("x=")) - 3) < 1
    assert found["overrides"][0] == "seed=1"
    assert OmegaConf.load(tmp_path / "best.yaml") == found
    assert len((tmp_path / "trials.md").read_text().splitlines()) == 2 + 25


def test_a_failed_trial_does_not_stop_the_rest(tmp_path, capsys):
    def sometimes(batch, number):
        return [returned(ValueError("no such thing")) if number == 1 else job for job in parabola(batch, number)]

    search = Search(tmp_path, parse("x=range(0,10)"), trials=4)
    search.run(sometimes)
    assert [trial.state for trial in search.study.trials] == [
        State.COMPLETE,
        State.FAIL,
        State.COMPLETE,
        State.COMPLETE,
    ]
    assert "Trial 1 failed: no such thing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("x=interval(1,9)", 1, 9), ("x=tag(log,interval(1e-4,1e-2))", 1e-4, 1e-2), ("x=range(2,5)", 2, 4)],
)
def test_ranges(tmp_path, text, low, high):
    (kind,) = Search(tmp_path, parse(text)).space.values()
    assert (kind.low, kind.high) == (low, high)
    assert getattr(kind, "log", False) == ("log" in text)


def test_choices(tmp_path):
    space = Search(tmp_path, parse("a=choice(b,c)", "d=1,2.5")).space
    assert [kind.choices for kind in space.values()] == [("b", "c"), ("1", "2.5")]


def test_nothing_to_search(tmp_path):
    with pytest.raises(DistilPoseError, match="There is nothing to search"):
        Search(tmp_path, parse("seed=1"))


@pytest.mark.slow
def test_trials_are_trainings(run_train, tiny_coco, tmp_path):
    settings = [
        "-m", "sweep=search", "data=custom", f"data.root={tiny_coco()}", "data.batch_size=4", "data.num_workers=0",
        "model=student_xs", "model.depth=1", "model.width=32", "model.heads=2", "model.input_size=[64,48]",
        "loss=regression", "augmentation=none", "logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=3",
        "trainer.check_val_every_n_epoch=1", "trainer.num_sanity_val_steps=0", "scheduler.warmup_steps=0",
        "~callbacks.pictures", "~callbacks.health", "hydra.sweep.dir=found", "hydra.sweeper.params=null",
        "optimizer.lr=choice(5e-3,0.0)", "hydra.sweeper.startup=2",
    ]  # fmt: skip
    for trials in (3, 5):
        status, told = run_train(*settings, f"hydra.sweeper.trials={trials}")
        assert status == 0, told
        rows = (tmp_path / "found" / "trials.md").read_text().splitlines()[2:]
        assert len(rows) == trials
        assert all((tmp_path / "found" / f"trial{n}" / "metrics.csv").is_file() for n in range(trials))
    best = OmegaConf.load(tmp_path / "found" / "best.yaml")
    assert "optimizer.lr=0.005" in best.overrides
    assert "~callbacks.pictures" in best.overrides
    assert best.value > 0
