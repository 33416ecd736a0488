"""The configuration in a run's folder: written, restored, and read back after the folder was moved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.runs.folders import CONFIG
from distilpose.runs.saved_config import rebase_paths, saved_config

LAST = Path("checkpoints") / "last.ckpt"


def save(folder, step=1):
    """Write a checkpoint with that number of steps into a run's folder."""
    (folder / LAST).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": step}, folder / LAST)


def test_the_configuration_is_written_resolved_and_once(tmp_path):
    cfg = OmegaConf.create({"folder": str(tmp_path / "run"), "name": "a", "again": "${name}", "resume": None})
    path = tmp_path / "run" / CONFIG
    with saved_config(cfg):
        assert OmegaConf.load(path) == {"folder": cfg.folder, "name": "a", "again": "a", "resume": None}
    cfg.name = "b"
    with pytest.raises(DistilPoseError, match=r"already holds a run: remove .*hydra\.run\.dir"), saved_config(cfg):
        pass
    save(path.parent)
    for checkpoint in (None, tmp_path / "other" / "checkpoints" / "last.ckpt"):
        raises = pytest.raises(DistilPoseError, match=r"already holds a run: .*resume=")
        with raises, saved_config(cfg, checkpoint):
            pass
        assert OmegaConf.load(path).name == "a"
    with pytest.raises(KeyError), saved_config(cfg, path.parent / LAST):
        raise KeyError
    assert OmegaConf.load(path).name == "a"  # restored
    with saved_config(cfg, Path(os.path.relpath(path.parent / LAST))):
        assert OmegaConf.load(path).name == "b"


@pytest.mark.parametrize("saved", [False, True])
def test_a_run_without_any_checkpoint_may_be_started_again(tmp_path, saved):
    cfg = OmegaConf.create({"folder": str(tmp_path), "resume": None})
    with pytest.raises(KeyboardInterrupt), saved_config(cfg):  # noqa: PT012  (saves the checkpoint inside)
        if saved:
            save(tmp_path)
        raise KeyboardInterrupt
    assert (tmp_path / CONFIG).exists() == saved


@pytest.mark.parametrize("folder", ["/d/a", "/d/a b c" + " long" * 30, "/d/it's: 'a'", "/d/a\ttab", "runs/a", "a"])
def test_paths_in_a_moved_folder_move_and_no_others(folder):
    values = {
        "folder": folder, "list": [f"{folder}/checkpoints", {"in": f"sqlite:///{folder}/mlflow.db"}],
        "other": [f"{folder}b", f"/x{folder}" if folder[0] == "/" else f"/x/{folder}", f"{folder} b", 3, None, True, "word"],
    }  # fmt: skip
    rebased = OmegaConf.to_container(rebase_paths(OmegaConf.create(values), folder, Path("/new/place")))
    assert rebased["folder"] == "/new/place"
    assert rebased["list"] == ["/new/place/checkpoints", {"in": "sqlite:////new/place/mlflow.db"}]
    assert rebased["other"] == values["other"]
