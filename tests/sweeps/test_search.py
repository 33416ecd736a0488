"""A search: draws, trials, failures, and resuming after a kill at any time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from distilpose.callbacks import Pruning
from distilpose.callbacks.study import JOURNAL, SharedStudy
from distilpose.cli.paths import CONFIG_DIR
from distilpose.errors import DistilPoseError
from distilpose.sweeps import trials
from distilpose.sweeps.search import Search
from distilpose.sweeps.trials import DONE, FAILED, NOT_STARTED, Trial, write_trials

optuna = pytest.importorskip("optuna")
State = optuna.trial.TrialState
DEFAULTS = OmegaConf.load(CONFIG_DIR / "hydra" / "sweeper" / "distilpose_search.yaml")
NAMES = ("trials", "jobs", "startup", "warmup", "seed")
OVERRIDES = ("x=interval(0.0,10.0)", "y=interval(0.0,10.0)", "seed=1")


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Do not draw the picture, which takes time after each trial; test_trials tests it."""
    monkeypatch.setattr(trials, "draw_trials", lambda *arguments: None)


def new_search(sweep, overrides, **options):
    """A search with default settings except `options`."""
    return Search(sweep, overrides, **{name: DEFAULTS[name] for name in NAMES} | options)


def parse(*texts):
    return OverridesParser.create().parse_overrides(list(texts))


class StoppedError(BaseException):
    """Like the SystemExit of a trial that a signal stops."""


class Parabola:
    """Replaces `distilpose.sweeps.sweep.Sweep`: trials without training, whose value is highest at x = 3."""

    def __init__(self, folder, fail=(), stop_at=None):
        self.folder, self.fail, self.stop_at, self.monitor = Path(folder), set(fail), stop_at, "val/PCK"
        self.launched = []

    def launch(self, batch, number):
        outcomes = []
        for overrides in batch:
            values = dict(override.split("=") for override in overrides)
            trial = int(values["trial"])
            if self.stop_at is not None and trial >= self.stop_at:
                raise StoppedError
            self.launched.append(overrides)
            failed = trial in self.fail
            value = None if failed else -((float(values["x"]) - 3) ** 2)
            folder = str(self.folder / f"trial{trial}")
            outcomes.append(
                Trial(folder, overrides, FAILED if failed else DONE, value, "no such thing" if failed else "")
            )
        return outcomes

    def inspect(self, overrides, number):
        return Trial(str(self.folder / f"trial{number}"), list(overrides), NOT_STARTED)

    def write(self, results, names):
        return write_trials(self.folder, results, self.monitor, names)


def search(place, *overrides, **options):
    return new_search(Parabola(place), parse(*(overrides or OVERRIDES)), **options)


def stored(place):
    """The trials in the study's file."""
    return SharedStudy(place, startup=5, warmup=0).trials


def params(place):
    return [trial.params for trial in stored(place)]


def test_it_finds_the_best_settings(tmp_path):
    best = search(tmp_path, trials=25).run()
    assert abs(float(best.settings["x"]) - 3) < 1
    assert best.overrides[0] == "seed=1"
    assert best.value == max(trial.value for trial in stored(tmp_path))
    assert len((tmp_path / "trials.md").read_text().split("\n\n")[0].splitlines()) == 2 + 25


@pytest.mark.parametrize("stop_at", [0, 2, 7])
def test_a_resumed_search_draws_the_same_trials(tmp_path, stop_at):
    search(tmp_path / "whole", trials=10).run()
    jobs = Parabola(tmp_path / "stopped", stop_at=stop_at)
    with pytest.raises(StoppedError):
        new_search(jobs, parse(*OVERRIDES), trials=10).run()
    assert f"| trial{stop_at} | not started |" in (tmp_path / "stopped" / "trials.md").read_text()
    again = Parabola(tmp_path / "stopped")
    new_search(again, parse(*OVERRIDES), trials=10).run()
    assert len(jobs.launched) == stop_at
    assert [overrides[-1] for overrides in again.launched] == [f"trial={n}" for n in range(stop_at, 10)]
    assert params(tmp_path / "stopped") == params(tmp_path / "whole")
    assert len({json.dumps(one) for one in params(tmp_path / "whole")}) == 10


def test_several_at_a_time(tmp_path):
    jobs = Parabola(tmp_path, stop_at=5)
    with pytest.raises(StoppedError):
        new_search(jobs, parse(*OVERRIDES), trials=11, jobs=2).run()
    again = Parabola(tmp_path)
    new_search(again, parse(*OVERRIDES), trials=11, jobs=2).run()
    assert [overrides[-1] for overrides in again.launched] == [
        f"trial={n}" for n in range(4, 11)
    ]  # the two interrupted trials come first
    assert len(params(tmp_path)) == 11


def test_it_stops_when_the_first_trials_fail_for_one_reason(tmp_path):
    sweep = Parabola(tmp_path, fail=range(40))
    created = new_search(sweep, parse(*OVERRIDES), trials=40)
    with pytest.raises(DistilPoseError, match="no such thing"):
        created.run()
    assert len(sweep.launched) == 3


def test_a_failed_trial_is_replaced_by_the_next_command(tmp_path):
    with pytest.raises(DistilPoseError, match=r"1 of 4 .*trial1 \(no such thing\)"):
        new_search(Parabola(tmp_path, fail=[1]), parse("x=range(0,10)"), trials=4).run()
    states = [trial.state for trial in stored(tmp_path)]
    assert states == [State.COMPLETE, State.FAIL, State.COMPLETE, State.COMPLETE]
    assert "trial1 failed: no such thing" in (tmp_path / "trials.md").read_text()
    again = Parabola(tmp_path)
    new_search(again, parse("x=range(0,10)"), trials=4).run()
    assert [overrides[-1] for overrides in again.launched] == ["trial=4"]
    assert new_search(Parabola(tmp_path), parse("x=range(0,10)"), trials=4).run() is not None
    assert len(stored(tmp_path)) == 5


def test_more_trials_resume_a_search_and_other_settings_do_not(tmp_path):
    search(tmp_path, trials=2).run()
    search(tmp_path, *OVERRIDES, "logger=none", trials=3).run()
    assert len(params(tmp_path)) == 3
    with pytest.raises(DistilPoseError, match=r"then x=interval\(0.0,10.0\), now x=interval\(0.0,20.0\)"):
        search(tmp_path, "x=interval(0.0,20.0)", *OVERRIDES[1:])
    with pytest.raises(DistilPoseError, match=r"then seed=1, now seed=2"):
        search(tmp_path, *OVERRIDES[:2], "seed=2")


def test_a_trial_killed_after_it_was_pruned_is_marked_as_pruned(tmp_path):
    """The kill comes after the run has stopped itself, and before the search has recorded it."""
    jobs = Parabola(tmp_path, stop_at=0)
    with pytest.raises(StoppedError):
        new_search(jobs, parse(*OVERRIDES), trials=1).run()
    study = SharedStudy(tmp_path, startup=5, warmup=0)
    study.report(0, 1, 0.25)
    study.set_attribute(0, "pruned", True)
    again = Parabola(tmp_path)
    new_search(again, parse(*OVERRIDES), trials=2).run()
    assert [trial.state for trial in stored(tmp_path)] == [State.PRUNED, State.COMPLETE]
    assert [overrides[-1] for overrides in again.launched] == ["trial=1"]
    assert "| pruned | 0.2500 |" in (tmp_path / "trials.md").read_text()


def test_a_study_killed_at_any_byte_of_its_file_resumes(tmp_path):
    """Every place where a kill or a full disk can leave the journal, half-written lines included."""
    search(tmp_path / "whole", trials=3).run()
    content, drawn = (tmp_path / "whole" / JOURNAL).read_bytes(), params(tmp_path / "whole")
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    # each line once: complete, without its newline, cut in the middle
    cuts = [0, *(end - (0, 1, 30)[index % 3] for index, end in enumerate(ends))]
    for cut in cuts:
        place = tmp_path / f"cut{cut}"
        place.mkdir()
        (place / JOURNAL).write_bytes(content[:cut])
        search(place, trials=3).run()
        assert params(place) == drawn, cut
        assert all(line.endswith("}") for line in (place / JOURNAL).read_text().splitlines())


def test_an_incomplete_trial_of_an_earlier_version_is_replaced(tmp_path):
    """Earlier versions wrote one setting of a trial after the other."""
    unfinished = SharedStudy(tmp_path, startup=5, warmup=0)
    unfinished.study.set_user_attr("asked", list(OVERRIDES))
    unfinished.study.add_trial(
        optuna.trial.create_trial(
            state=State.RUNNING, params={"x": 1.0}, distributions={"x": optuna.distributions.FloatDistribution(0, 10)}
        )
    )
    search(tmp_path, trials=2).run()
    assert [trial.state for trial in stored(tmp_path)] == [State.FAIL, State.COMPLETE, State.COMPLETE]


@pytest.mark.parametrize(("value", "pruned"), [(0.4, True), (0.6, False)])
def test_a_trial_below_the_median_is_pruned(tmp_path, value, pruned):
    study = SharedStudy(tmp_path, startup=2, warmup=0)
    sampler, space = optuna.samplers.RandomSampler(seed=0), {"x": optuna.distributions.FloatDistribution(0, 10)}
    for number, earlier in enumerate((0.4, 0.6)):
        study.ask(space, sampler)
        study.report(number, 1, earlier)
        study.study.tell(number, earlier)
    study.ask(space, sampler)
    trainer = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, current_epoch=0, max_epochs=3, should_stop=False,
        callback_metrics={"val/PCK": value}, strategy=SimpleNamespace(broadcast=lambda stop: stop),
    )  # fmt: skip
    Pruning(tmp_path, trial=2, monitor="val/PCK", startup=2, warmup=0).on_validation_end(trainer, None)
    assert trainer.should_stop is pruned
    assert stored(tmp_path)[2].intermediate_values == {1: value}
    assert stored(tmp_path)[2].user_attrs == ({"pruned": True} if pruned else {})


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_ignored_after_a_while(tmp_path, monkeypatch):
    from optuna.storages.journal import JournalFileOpenLock

    monkeypatch.setattr(JournalFileOpenLock.__init__, "__defaults__", (1,))
    search(tmp_path, trials=1).run()
    Path(tmp_path, f"{JOURNAL}.lock").touch()
    search(tmp_path, trials=2).run()
    assert len(stored(tmp_path)) == 2


def test_a_damaged_study(tmp_path):
    search(tmp_path, trials=1).run()
    content = (tmp_path / JOURNAL).read_text().splitlines()
    (tmp_path / JOURNAL).write_text("\n".join([content[0], content[1][:9], *content[2:]]) + "\n")
    with pytest.raises(DistilPoseError, match="is damaged"):
        search(tmp_path, trials=2)


def test_without_a_trial_nothing_is_reported(tmp_path):
    trainer = SimpleNamespace(sanity_checking=False)
    Pruning(tmp_path, trial=None, monitor="val/PCK", startup=5, warmup=0).on_validation_end(trainer, None)
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("x=interval(1,9)", 1, 9), ("x=tag(log,interval(1e-4,1e-2))", 1e-4, 1e-2), ("x=range(2,5)", 2, 4)],
)
def test_ranges(tmp_path, text, low, high):
    (kind,) = search(tmp_path, text).space.values()
    assert (kind.low, kind.high) == (low, high)
    assert getattr(kind, "log", False) == ("log" in text)


@pytest.mark.parametrize(
    "text", ["x=interval(3,1)", "x=interval(0.2,0.1)", "x=tag(log,interval(0,1))", "x=tag(log,interval(-1.0,1.0))"]
)
def test_an_impossible_interval(tmp_path, text):
    with pytest.raises(DistilPoseError) as error:
        search(tmp_path, text)
    assert all(fact in str(error.value) for fact in (text, "LOW below HIGH"))


def test_the_command_line_fixes_what_the_file_searches(tmp_path):
    created = search(tmp_path, "x=interval(0.0,1.0)", "y=interval(0.0,1.0)", "y=0.5")
    assert list(created.space) == ["x"]
    assert created.fixed == ["y=0.5"]


def test_choices(tmp_path):
    space = search(tmp_path, "a=choice(b,c)", "d=1,2.5").space
    assert [kind.choices for kind in space.values()] == [("b", "c"), ("1", "2.5")]


def test_nothing_to_search(tmp_path):
    with pytest.raises(DistilPoseError, match="There is nothing to search"):
        search(tmp_path, "seed=1")


def test_waiting_trials_run_first_with_their_settings(tmp_path):
    created = search(tmp_path, trials=4)
    created.study.study.enqueue_trial({"x": 3.0, "y": 1.5})
    created.study.study.enqueue_trial({"x": 2.5})  # the search draws the other
    created._write_table()
    assert "| trial 0 | not started | - | 3.0 |" in (tmp_path / "trials.md").read_text()
    best = created.run()
    drawn = params(tmp_path)
    assert drawn[0] == {"x": 3.0, "y": 1.5}
    assert drawn[1]["x"] == 2.5
    assert len({json.dumps(one) for one in drawn}) == 4
    assert best.settings["x"] == "3.0"
    assert {trial.state for trial in stored(tmp_path)} == {State.COMPLETE}


def test_a_waiting_trial_killed_while_it_starts_is_replaced_or_resumed(tmp_path):
    created = search(tmp_path / "first", trials=2)
    created.study.study.enqueue_trial({"x": 3.0})
    waiting = (tmp_path / "first" / JOURNAL).read_bytes()
    created.run()
    content = (tmp_path / "first" / JOURNAL).read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n") and index + 1 > len(waiting)]
    for end in ends[:4]:  # two settings, the state, and the first attribute of its result
        place = tmp_path / f"cut{end}"
        place.mkdir()
        (place / JOURNAL).write_bytes(content[:end])
        search(place, trials=2).run()
        assert params(place)[0]["x"] == 3.0
        assert {trial.state for trial in stored(place)} == {State.COMPLETE}


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"z": 1.0}, "waiting trial 0 sets z=1.0, which is not searched: expected x, y"),
        ({"x": 99.0}, r"x=99\.0.*outside"),
    ],
)
def test_a_waiting_trial_outside_the_search(tmp_path, fixed, message):
    created = search(tmp_path, trials=2)
    created.study.study.enqueue_trial(fixed)
    with pytest.raises(DistilPoseError, match=message):
        created.run()


@pytest.mark.parametrize("value", [float("nan"), -1.0, None])
def test_a_trial_without_a_value_is_neither_reported_nor_pruned(tmp_path, value, caplog):
    study = SharedStudy(tmp_path, startup=1, warmup=0)
    sampler, space = optuna.samplers.RandomSampler(seed=0), {"x": optuna.distributions.FloatDistribution(0, 10)}
    for number, earlier in enumerate((0.4, 0.6)):
        study.ask(space, sampler)
        study.report(number, 1, earlier)
        study.study.tell(number, earlier)
    study.ask(space, sampler)
    trainer = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, current_epoch=0, max_epochs=3, should_stop=False,
        callback_metrics={} if value is None else {"val/APM": value}, strategy=SimpleNamespace(broadcast=lambda sent: sent),
    )  # fmt: skip
    Pruning(tmp_path, trial=2, monitor="val/APM", startup=1, warmup=0).on_validation_end(trainer, None)
    assert not trainer.should_stop
    assert stored(tmp_path)[2].intermediate_values == {}
    assert "Trial 2 has no val/APM after epoch 1" in caplog.text


def test_an_error_of_the_study_stops_all_processes(tmp_path):
    (tmp_path / JOURNAL).write_text('{"op_code": 0, "bad\n')
    sent = []

    def broadcast(outcome):
        sent.append(outcome)
        return outcome

    trainer = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, current_epoch=0, max_epochs=3, should_stop=False,
        callback_metrics={"val/PCK": 0.5}, strategy=SimpleNamespace(broadcast=broadcast),
    )  # fmt: skip
    pruning = Pruning(tmp_path, trial=0, monitor="val/PCK", startup=1, warmup=0)
    with pytest.raises(DistilPoseError, match="is damaged"):
        pruning.on_validation_end(trainer, None)
    assert len(sent) == 1
    trainer.is_global_zero, trainer.strategy = False, SimpleNamespace(broadcast=lambda outcome: sent[0])
    with pytest.raises(DistilPoseError, match="The first process has stopped"):
        pruning.on_validation_end(trainer, None)


@pytest.mark.parametrize(
    ("about", "shown"),
    [({"direction": "minimize"}, "minimize"), ({"directions": ["maximize", "minimize"]}, "maximize and minimize")],
)
def test_a_study_of_another_direction_is_not_used(about, shown, tmp_path):
    """Its pruner would stop the better trials."""
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name="search", **about)
    with pytest.raises(DistilPoseError, match=f"study\\.journal' is to {shown}, but .*maximises"):
        SharedStudy(tmp_path, 5, 0)
