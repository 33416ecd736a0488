"""Resuming a run: its configuration, its checkpoint, and what may change between starts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.runs import resume
from distilpose.runs.config import deciding_settings
from distilpose.runs.folders import CONFIG
from distilpose.runs.plan import Action, decide

LAST = Path("checkpoints") / "last.ckpt"


def save(folder, step=1):
    """Write a checkpoint with that number of steps into a run's folder."""
    (folder / LAST).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": step}, folder / LAST)


def test_no_resume_no_change(tmp_path):
    file = tmp_path / "some.ckpt"
    torch.save({"state_dict": {}}, file)
    for place, checkpoint in ((None, None), (str(file), file)):
        cfg = OmegaConf.create({"resume": place})
        assert resume.own_configuration(cfg) is cfg
        assert resume.find_checkpoint(cfg) == checkpoint


@pytest.mark.parametrize("place", ["absent", "empty"])
def test_resuming_what_is_no_run(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilPoseError, match=f"resume=.*{place}.*config.yaml"):
        resume.own_configuration(OmegaConf.create({"resume": str(tmp_path / place)}))


@pytest.fixture
def own_run(tmp_path):
    """A run's configuration with resume=auto, and its folder as a run of that configuration leaves it."""
    folder = tmp_path / "run"
    cfg = OmegaConf.create(
        {
            "folder": str(folder),
            "resume": "auto",
            "out": "${folder}/x",
            "loss": {"beta": 1.0},
            "trainer": {"max_epochs": 3},
        }
    )
    (folder / LAST).parent.mkdir(parents=True)
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    return cfg, folder


def test_auto_starts_and_resumes(own_run, tmp_path):
    cfg, folder = own_run
    assert resume.find_checkpoint(OmegaConf.merge(cfg, {"folder": str(tmp_path / "fresh")})) is None
    assert resume.find_checkpoint(cfg) is None  # killed before its first checkpoint
    save(folder)
    assert resume.find_checkpoint(cfg) == folder / LAST
    moved = folder.rename(tmp_path / "moved")
    assert resume.find_checkpoint(OmegaConf.merge(cfg, {"folder": str(moved)})) == moved / LAST


def test_auto_does_not_resume_another_configuration(own_run):
    cfg, folder = own_run
    cfg.loss.beta = 0.5
    with pytest.raises(DistilPoseError) as error:
        resume.find_checkpoint(cfg)
    assert all(fact in str(error.value) for fact in (str(folder), "loss.beta=1.0", f"resume='{folder}' setting=value"))


def test_auto_accepts_what_does_not_change_figures(own_run):
    cfg, folder = own_run
    cfg.data = {"num_workers": 8, "val_batch_size": 4}
    cfg.trainer.log_every_n_steps = 50
    cfg.logger = {"wandb": {"mode": "offline"}}
    cfg.callbacks = {"progress": {"_target_": "lightning.pytorch.callbacks.TQDMProgressBar"}}
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    save(folder)
    cfg.data.num_workers, cfg.trainer.log_every_n_steps, cfg.logger, cfg.callbacks = 0, 10, None, {}
    assert resume.find_checkpoint(cfg) == folder / LAST
    for changed in ({"data": {"val_batch_size": 8}}, {"seed": 1}, {"trainer": {"max_epochs": 4}}):
        OmegaConf.save(OmegaConf.merge(cfg, {"seed": 0}), folder / CONFIG, resolve=True)
        with pytest.raises(DistilPoseError, match="another configuration"):
            resume.find_checkpoint(OmegaConf.merge(cfg, {"seed": 0}, changed))


def test_auto_ignores_settings_that_a_later_version_has_added(own_run):
    cfg, _ = own_run
    cfg.loss.invented = 3
    assert resume.find_checkpoint(cfg) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": {"ramps": {"simulated_heatmap": [0.2, 0.5]}}},
        {"callbacks": {"ema": {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging"}}},
    ],
    ids=["null before", "a callback that trains"],
)
def test_auto_compares_new_settings_that_change_what_is_trained(own_run, changed):
    cfg, folder = own_run
    cfg.loss.ramps = None
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    assert resume.find_checkpoint(cfg) is None
    for old, new in ((cfg, OmegaConf.merge(cfg, changed)), (OmegaConf.merge(cfg, changed), cfg)):
        OmegaConf.save(old, folder / CONFIG, resolve=True)
        with pytest.raises(DistilPoseError, match="another configuration"):
            resume.find_checkpoint(new)
    # a callback that only observes may be added or removed
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    watched = OmegaConf.merge(cfg, {"callbacks": {"health": {"_target_": "distilpose.callbacks.DistillationHealth"}}})
    assert resume.find_checkpoint(watched) is None


def test_auto_recognises_a_finished_run(own_run):
    cfg, folder = own_run
    metrics = {"monitor": "val/PCK", "best": {"val/PCK": 0.5}, "last": {"epoch": 1, "step": 20}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    save(folder, 20)
    assert resume.finished(cfg) is None
    metrics["last"]["epoch"] = 2
    (folder / "metrics.json").write_text(json.dumps(metrics))
    save(folder, 10)
    assert resume.finished(cfg) is None  # killed between the two writes: the checkpoint is one epoch older
    save(folder, 20)
    os.utime(folder / LAST, (0, 0))  # modification times must not matter
    assert resume.finished(cfg) == metrics
    assert resume.finished(OmegaConf.merge(cfg, {"resume": None})) is None
    cfg.trainer = {"max_epochs": 9, "max_steps": 20}
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    assert resume.finished(cfg) == metrics
    cfg.trainer.max_steps = 21
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    assert resume.finished(cfg) is None


def test_a_plan_for_each_kind_of_start(own_run):
    cfg, folder = own_run
    settings = {
        "check": False,
        "lr_find": False,
        "teacher": {"may_record": True, "first": {"may_record": True, "file": "???"}, "second": {"file": "???"}},
        "optimizer": {"lr": 1.0},
        "scheduler": None,
    }
    cfg = OmegaConf.merge(cfg, settings)
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    check = decide(OmegaConf.merge(cfg, {"check": True}))
    assert (check.action, check.cfg.teacher.may_record) == (Action.CHECK, False)
    assert check.cfg.teacher.first.may_record is False
    assert "may_record" not in check.cfg.teacher.second
    assert cfg.teacher.first.may_record is True
    search = decide(OmegaConf.merge(cfg, {"lr_find": True}))
    assert search.action is Action.FIND_RATE
    assert search.cfg.scheduler._target_.endswith("rising")
    assert decide(cfg, needs_process=True).action is Action.START_PROCESS
    plan = decide(cfg)
    assert (plan.action, plan.cfg, plan.checkpoint) == (Action.TRAIN, cfg, None)
    save(folder, 30)
    assert decide(cfg).checkpoint == folder / LAST
    metrics = {"monitor": "val/PCK", "best": {"val/PCK": 0.5}, "last": {"epoch": 2, "step": 30}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for needs_process in (False, True):
        plan = decide(cfg, needs_process)
        assert (plan.action, plan.best) == (Action.SKIP, 0.5)


@pytest.mark.parametrize(
    ("setting", "auto", "folder"),
    [
        ("data.num_workers", True, True),
        ("logger.wandb.mode", True, True),
        ("callbacks.progress.refresh_rate", True, True),
        ("trainer.max_epochs", False, True),
        ("data.num_workers_of_another", False, True),
        ("teacher.check", True, True),
        ("teacher.first.check_persons", True, True),
        ("teacher.check.file", False, True),
        ("seed", False, True),
        ("optimizer.lr", False, False),
    ],
)
def test_the_rules(setting, auto, folder):
    assert (resume.rule_of(setting).auto, resume.rule_of(setting).folder) == (auto, folder)


def test_the_check_of_one_of_several_teachers_is_not_compared():
    config = {"teacher.first.check": True, "teacher.first.check_persons": 3, "teacher.first.file": "a", "check.it": 1}
    assert deciding_settings(config, ()) == {"teacher.first.file": "a", "check.it": 1}


def test_a_finished_run_is_only_trained_longer_on_request(run_train, tiny_run):
    before = {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()}
    status, printed = run_train("resume=run")
    assert status == 0
    assert "trainer.max_epochs" in printed
    assert {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()} == before
    status, printed = run_train("resume=run", "trainer.max_epochs=3")
    assert status == 0, printed
    assert json.loads((tiny_run / "metrics.json").read_text())["last"]["epoch"] == 2


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ("model=student_s", ["model=student_s cannot be changed", "weights=FILE"]),
        ("~callbacks.pictures", ["~callbacks.pictures cannot be changed"]),
        ("optimizer.lr=0.5", ["optimizer.lr=0.5 cannot be changed", "rate"]),
        ("trainer.precision=bf61", ["trainer.precision=bf61", "bf16-mixed"]),
        ("model.stem_channels=32", ["model.stem_channels"]),
    ],
)
def test_what_a_resumed_run_may_not_change(run_train, tiny_run, change, facts):
    before = {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()}
    status, printed = run_train("resume=run", "trainer.max_epochs=4", change)
    assert status == 1
    assert all(fact in printed.splitlines()[-1] for fact in facts), printed
    assert {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()} == before
