"""A search: what optuna draws, told as trials, going on after a kill at any place, past those that fail."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from distilpose.callbacks import Pruning
from distilpose.callbacks.pruning import JOURNAL, open_study
from distilpose.cli.paths import CONFIG_DIR
from distilpose.errors import DistilPoseError
from distilpose.sweeps import trials
from distilpose.sweeps.search import Search
from distilpose.sweeps.trials import DONE, FAILED, WAITING, Trial, write_trials

optuna = pytest.importorskip("optuna")
State = optuna.trial.TrialState
DEFAULTS = OmegaConf.load(CONFIG_DIR / "sweep" / "search.yaml").hydra.sweeper
NAMES = ("trials", "jobs", "startup", "warmup", "seed")
OVERRIDES = ("x=interval(0.0,10.0)", "y=interval(0.0,10.0)", "seed=1")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Without the picture, which is drawn after each trial and tested with the tables."""
    monkeypatch.setattr(trials, "draw_trials", lambda *arguments: None)


def made(launcher, overrides, **options):
    """A search with the values of conf/sweep/search.yaml where none are given."""
    return Search(launcher, overrides, **{name: DEFAULTS[name] for name in NAMES} | options)


def parse(*texts):
    return OverridesParser.create().parse_overrides(list(texts))


class StoppedError(BaseException):
    """As the SystemExit of a trial that a signal stops."""


class Parabola:
    """In the place of `distilpose.sweeps.grid.Jobs`: trials whose value is highest at x = 3, in no time."""

    def __init__(self, place, fail=(), stop_at=None):
        self.place, self.fail, self.stop_at, self.monitor = Path(place), set(fail), stop_at, "val/PCK"
        self.launched = []

    def launch(self, batch, number):
        told = []
        for overrides in batch:
            values = dict(word.split("=") for word in overrides)
            trial = int(values["trial"])
            if self.stop_at is not None and trial >= self.stop_at:
                raise StoppedError
            self.launched.append(overrides)
            failed = trial in self.fail
            value = None if failed else -((float(values["x"]) - 3) ** 2)
            folder = str(self.place / f"trial{trial}")
            told.append(Trial(folder, overrides, FAILED if failed else DONE, value, "no such thing" if failed else ""))
        return told

    def look(self, overrides, number):
        return Trial(str(self.place / f"trial{number}"), list(overrides), WAITING)

    def write(self, told, names):
        return write_trials(self.place, told, self.monitor, names)


def search(place, *overrides, **options):
    return made(Parabola(place), parse(*(overrides or OVERRIDES)), **options)


def params(place):
    return [trial.params for trial in open_study(place).trials]


def test_it_finds_what_is_best(tmp_path):
    found = search(tmp_path, trials=25).run()
    assert abs(float(found.settings["x"]) - 3) < 1
    assert found.overrides[0] == "seed=1"
    (best,) = [trial for trial in open_study(tmp_path).trials if trial.number == open_study(tmp_path).best_trial.number]
    assert found.value == best.value
    assert len((tmp_path / "trials.md").read_text().split("\n\n")[0].splitlines()) == 2 + 25


@pytest.mark.parametrize("stop_at", [0, 2, 7])
def test_stopped_and_started_again_it_draws_what_it_would_have_drawn(tmp_path, stop_at):
    search(tmp_path / "whole", trials=10).run()
    jobs = Parabola(tmp_path / "stopped", stop_at=stop_at)
    with pytest.raises(StoppedError):
        made(jobs, parse(*OVERRIDES), trials=10).run()
    assert f"| trial{stop_at} | not begun |" in (tmp_path / "stopped" / "trials.md").read_text()
    again = Parabola(tmp_path / "stopped")
    made(again, parse(*OVERRIDES), trials=10).run()
    assert len(jobs.launched) == stop_at
    assert [words[-1] for words in again.launched] == [f"trial={n}" for n in range(stop_at, 10)]
    assert params(tmp_path / "stopped") == params(tmp_path / "whole")
    assert len({json.dumps(one) for one in params(tmp_path / "whole")}) == 10


def test_several_at_a_time(tmp_path):
    jobs = Parabola(tmp_path, stop_at=5)
    with pytest.raises(StoppedError):
        made(jobs, parse(*OVERRIDES), trials=11, jobs=2).run()
    again = Parabola(tmp_path)
    made(again, parse(*OVERRIDES), trials=11, jobs=2).run()
    assert [words[-1] for words in again.launched] == [
        f"trial={n}" for n in range(4, 11)
    ]  # the two that ran come first
    assert len(params(tmp_path)) == 11


def test_what_failed_is_told_and_drawn_anew_by_the_next_command(tmp_path):
    with pytest.raises(DistilPoseError, match=r"1 of 4 jobs failed, .*trial1 \(no such thing\)"):
        made(Parabola(tmp_path, fail=[1]), parse("x=range(0,10)"), trials=4).run()
    states = [trial.state for trial in open_study(tmp_path).trials]
    assert states == [State.COMPLETE, State.FAIL, State.COMPLETE, State.COMPLETE]
    assert "trial1 failed: no such thing" in (tmp_path / "trials.md").read_text()
    again = Parabola(tmp_path)
    made(again, parse("x=range(0,10)"), trials=4).run()
    assert [words[-1] for words in again.launched] == ["trial=4"]
    assert made(Parabola(tmp_path), parse("x=range(0,10)"), trials=4).run() is not None
    assert len(open_study(tmp_path).trials) == 5


def test_more_trials_go_on_and_another_search_is_refused(tmp_path):
    search(tmp_path, trials=2).run()
    search(tmp_path, *OVERRIDES, "logger=none", trials=3).run()
    assert len(params(tmp_path)) == 3
    with pytest.raises(DistilPoseError, match=r"then x=interval\(0.0,10.0\), now x=interval\(0.0,20.0\)"):
        search(tmp_path, "x=interval(0.0,20.0)", *OVERRIDES[1:])
    with pytest.raises(DistilPoseError, match=r"then seed=1, now seed=2"):
        search(tmp_path, *OVERRIDES[:2], "seed=2")


def test_a_trial_that_was_being_stopped_stays_stopped(tmp_path):
    """A kill after the run was told to stop, before the search was."""
    jobs = Parabola(tmp_path, stop_at=0)
    with pytest.raises(StoppedError):
        made(jobs, parse(*OVERRIDES), trials=1).run()
    study = open_study(tmp_path)
    trial = optuna.trial.Trial(study, study.trials[0]._trial_id)
    trial.report(0.25, 1)
    trial.set_user_attr("pruned", True)
    again = Parabola(tmp_path)
    made(again, parse(*OVERRIDES), trials=2).run()
    assert [trial.state for trial in open_study(tmp_path).trials] == [State.PRUNED, State.COMPLETE]
    assert [words[-1] for words in again.launched] == ["trial=1"]
    assert "| pruned | 0.2500 |" in (tmp_path / "trials.md").read_text()


def test_a_study_killed_at_any_byte_of_its_file_goes_on(tmp_path):
    """Every place where a kill or a full disk can leave the journal, half-written lines included."""
    search(tmp_path / "whole", trials=3).run()
    content, drawn = (tmp_path / "whole" / JOURNAL).read_bytes(), params(tmp_path / "whole")
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    # each line once: whole, without its end, in its middle
    cuts = [0, *(end - (0, 1, 30)[index % 3] for index, end in enumerate(ends))]
    for cut in cuts:
        place = tmp_path / f"cut{cut}"
        place.mkdir()
        (place / JOURNAL).write_bytes(content[:cut])
        search(place, trials=3).run()
        got = params(place)
        assert len(got) == 3, cut
        assert all(one.keys() == {"x", "y"} for one in got), cut
        assert all(line.endswith("}") for line in (place / JOURNAL).read_text().splitlines())
        # but for a trial that was half asked for, whose second number comes from another place of the same sequence
        assert sum(one != whole for one, whole in zip(got, drawn, strict=True)) <= 1, cut


def test_a_lock_that_a_kill_left_is_void_after_a_while(tmp_path, monkeypatch):
    from optuna.storages.journal import JournalFileOpenLock

    monkeypatch.setattr(JournalFileOpenLock.__init__, "__defaults__", (1,))
    monkeypatch.chdir(tmp_path)
    Path("found").mkdir()
    search("found", trials=1).run()
    Path("found", f"{JOURNAL}.lock").touch()
    done = threading.Event()
    thread = threading.Thread(target=lambda: (search("found", trials=2).run(), done.set()), daemon=True)
    began = time.monotonic()
    thread.start()
    assert done.wait(30)
    assert time.monotonic() - began > 0.9


def test_a_damaged_study_is_told(tmp_path):
    search(tmp_path, trials=1).run()
    content = (tmp_path / JOURNAL).read_text().splitlines()
    (tmp_path / JOURNAL).write_text("\n".join([content[0], content[1][:9], *content[2:]]) + "\n")
    with pytest.raises(DistilPoseError, match="is damaged"):
        search(tmp_path, trials=2)


def test_without_a_trial_nothing_is_reported(tmp_path):
    Pruning(tmp_path, trial=None, monitor="val/PCK", startup=5, warmup=0).on_validation_end(
        type("T", (), {"sanity_checking": False})(), None
    )
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("x=interval(1,9)", 1, 9), ("x=tag(log,interval(1e-4,1e-2))", 1e-4, 1e-2), ("x=range(2,5)", 2, 4)],
)
def test_ranges(tmp_path, text, low, high):
    (kind,) = search(tmp_path, text).space.values()
    assert (kind.low, kind.high) == (low, high)
    assert getattr(kind, "log", False) == ("log" in text)


@pytest.mark.parametrize("text", ["x=interval(9,1)", "x=tag(log,interval(1e-2,1e-4))", "x=tag(log,interval(0,1))"])
def test_intervals_without_a_number_are_told(tmp_path, text):
    with pytest.raises(DistilPoseError, match=r"cannot be searched: expected interval\(low,high\) with low < high"):
        search(tmp_path, text)


def test_the_command_line_fixes_what_the_file_searches(tmp_path):
    found = search(tmp_path, "x=interval(0.0,1.0)", "y=interval(0.0,1.0)", "y=0.5")
    assert list(found.space) == ["x"]
    assert found.fixed == ["y=0.5"]


def test_choices(tmp_path):
    space = search(tmp_path, "a=choice(b,c)", "d=1,2.5").space
    assert [kind.choices for kind in space.values()] == [("b", "c"), ("1", "2.5")]


def test_nothing_to_search(tmp_path):
    with pytest.raises(DistilPoseError, match="There is nothing to search"):
        search(tmp_path, "seed=1")
