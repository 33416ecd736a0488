"""Going on with a run: its folder, its configuration, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.runs import resume
from distilpose.runs.folders import CONFIG

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "model=student_xs", "model.depth=1",
    "model.width=32", "model.heads=2", "model.input_size=[64,48]", "loss=regression", "logger=none",
    "trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=1", "~callbacks.pictures", "~callbacks.health",
]  # fmt: skip
LAST = Path("checkpoints") / "last.ckpt"


def save(folder, step=1):
    """A checkpoint of that many steps in a run's folder."""
    (folder / LAST).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": step}, folder / LAST)


def test_the_configuration_is_written_resolved_and_once(tmp_path):
    cfg = OmegaConf.create({"folder": str(tmp_path / "run"), "name": "a", "again": "${name}", "resume": None})
    path = tmp_path / "run" / CONFIG
    with resume.saved_config(cfg):
        assert OmegaConf.load(path) == {"folder": cfg.folder, "name": "a", "again": "a", "resume": None}
    cfg.name = "b"
    with pytest.raises(DistilPoseError, match="is there but no checkpoint"), resume.saved_config(cfg):
        pass
    save(path.parent)
    for checkpoint in (None, str(tmp_path / "other" / "checkpoints" / "last.ckpt")):
        refused = pytest.raises(DistilPoseError, match="already holds a run: go on with it by resume=")
        with refused, resume.saved_config(cfg, checkpoint):
            pass
        assert OmegaConf.load(path).name == "a"
    with pytest.raises(KeyError), resume.saved_config(cfg, str(path.parent / LAST)):
        raise KeyError
    assert OmegaConf.load(path).name == "a"  # as it was: what was asked for came to nothing
    with resume.saved_config(cfg, os.path.relpath(path.parent / LAST)):
        assert OmegaConf.load(path).name == "b"


@pytest.mark.parametrize("saved", [False, True])
def test_a_run_that_came_to_nothing_may_be_started_again(tmp_path, saved):
    cfg = OmegaConf.create({"folder": str(tmp_path), "resume": None})
    with pytest.raises(KeyboardInterrupt), resume.saved_config(cfg):  # noqa: PT012  (the checkpoint comes on the way)
        if saved:
            save(tmp_path)
        raise KeyboardInterrupt
    assert (tmp_path / CONFIG).exists() == saved


def test_no_resume_no_change(tmp_path):
    cfg = OmegaConf.create({"resume": None})
    assert resume.resume(cfg) == (cfg, None)
    file = tmp_path / "some.ckpt"
    torch.save({"state_dict": {}}, file)
    cfg = OmegaConf.create({"resume": str(file)})
    assert resume.resume(cfg) == (cfg, str(file))


@pytest.mark.parametrize("place", ["absent", "empty"])
def test_resuming_what_is_no_run(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilPoseError, match=r"holds no config\.yaml with an intact checkpoint: give the folder"):
        resume.resume(OmegaConf.create({"resume": str(tmp_path / place)}))


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


def test_auto_starts_and_goes_on(own_run, tmp_path):
    cfg, folder = own_run
    assert resume.resume(OmegaConf.merge(cfg, {"folder": str(tmp_path / "fresh")}))[1] is None
    assert resume.resume(cfg) == (cfg, None)  # killed before its first checkpoint
    with resume.saved_config(cfg):
        save(folder)
    assert resume.resume(cfg) == (cfg, str(folder / LAST))
    moved = folder.rename(tmp_path / "moved")
    there = OmegaConf.merge(cfg, {"folder": str(moved)})
    assert resume.resume(there)[1] == str(moved / LAST)


def test_auto_does_not_go_on_with_another_configuration(own_run):
    cfg, _ = own_run
    cfg.loss.beta = 0.5
    with pytest.raises(
        DistilPoseError, match=r"another configuration \(loss\.beta=1\.0\), so resume=auto does not go on"
    ):
        resume.resume(cfg)


def test_auto_does_not_mind_what_no_figure_depends_on(own_run):
    cfg, folder = own_run
    cfg.data = {"num_workers": 8, "val_batch_size": 4}
    cfg.trainer.log_every_n_steps = 50
    cfg.logger = {"wandb": {"mode": "offline"}}
    cfg.callbacks = {"progress": {"_target_": "lightning.pytorch.callbacks.TQDMProgressBar"}}
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    save(folder)
    cfg.data.num_workers, cfg.trainer.log_every_n_steps, cfg.logger, cfg.callbacks = 0, 10, None, {}
    assert resume.resume(cfg) == (cfg, str(folder / LAST))
    for changed in ({"data": {"val_batch_size": 8}}, {"seed": 1}, {"trainer": {"max_epochs": 4}}):
        OmegaConf.save(OmegaConf.merge(cfg, {"seed": 0}), folder / CONFIG, resolve=True)
        with pytest.raises(DistilPoseError, match=r"single ones changed by resume='.*run' setting=value"):
            resume.resume(OmegaConf.merge(cfg, {"seed": 0}, changed))


def test_auto_does_not_mind_settings_that_a_later_version_brought_in(own_run):
    cfg, _ = own_run
    cfg.loss.invented = 3
    assert resume.resume(cfg) == (cfg, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": {"ramps": {"simulated_heatmap": [0.2, 0.5]}}},
        {"callbacks": {"ema": {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging"}}},
    ],
    ids=["what was left empty", "a callback that trains"],
)
def test_auto_does_mind_new_settings_that_change_what_is_trained(own_run, changed):
    cfg, folder = own_run
    cfg.loss.ramps = None
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    assert resume.resume(cfg) == (cfg, None)
    for old, new in ((cfg, OmegaConf.merge(cfg, changed)), (OmegaConf.merge(cfg, changed), cfg)):
        OmegaConf.save(old, folder / CONFIG, resolve=True)
        with pytest.raises(DistilPoseError, match="another configuration"):
            resume.resume(new)
    # one that only watches may come and go
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    watched = OmegaConf.merge(cfg, {"callbacks": {"health": {"_target_": "distilpose.callbacks.DistillationHealth"}}})
    assert resume.resume(watched) == (watched, None)


def test_auto_leaves_a_finished_run_alone(own_run):
    cfg, folder = own_run
    metrics = {"monitor": "val/PCK", "best": {"val/PCK": 0.5}, "last": {"epoch": 1, "step": 20}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    save(folder, 20)
    assert resume.finished(cfg) is None
    metrics["last"]["epoch"] = 2
    (folder / "metrics.json").write_text(json.dumps(metrics))
    save(folder, 10)
    assert resume.finished(cfg) is None  # killed between the two: the checkpoint is that of an epoch before
    save(folder, 20)
    os.utime(folder / LAST, (0, 0))  # the clock has no say
    assert resume.finished(cfg) == metrics
    assert resume.finished(OmegaConf.merge(cfg, {"resume": None})) is None
    cfg.trainer = {"max_epochs": 9, "max_steps": 20}
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    assert resume.finished(cfg) == metrics
    cfg.trainer.max_steps = 21
    OmegaConf.save(cfg, folder / CONFIG, resolve=True)
    assert resume.finished(cfg) is None


def test_a_folder_whose_run_is_over_is_left_alone_until_more_is_asked_for(trained_by, run_train):
    run = trained_by([*TINY, "trainer.max_epochs=1"])("run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert run_train("resume=run") == (0, "")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    status, told = run_train("resume=run", "trainer.max_epochs=2")
    assert status == 0, told
    assert json.loads((run / "metrics.json").read_text())["last"]["epoch"] == 1


@pytest.mark.parametrize("folder", ["/d/a", "/d/a b c" + " long" * 30, "/d/it's: 'a'", "/d/a\ttab", "runs/a", "a"])
def test_paths_in_a_moved_folder_move_and_no_others(folder):
    values = {
        "folder": folder, "list": [f"{folder}/checkpoints", {"in": f"sqlite:///{folder}/mlflow.db"}],
        "other": [f"{folder}b", f"/x{folder}" if folder[0] == "/" else f"/x/{folder}", f"{folder} b", 3, None, True, "word"],
    }  # fmt: skip
    found = OmegaConf.to_container(resume.rebase_paths(OmegaConf.create(values), folder, Path("/new/place")))
    assert found["folder"] == "/new/place"
    assert found["list"] == ["/new/place/checkpoints", {"in": "sqlite:////new/place/mlflow.db"}]
    assert found["other"] == values["other"]
