from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from distilpose import runs
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO, Skeleton


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that the machine has so many GPUs and nothing else."""

    def set_number(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return set_number


def trainer(**options):
    return OmegaConf.create(options)


@pytest.mark.parametrize(
    ("available", "options", "expected"),
    [
        (8, {"accelerator": "auto", "devices": 8}, 8),
        (8, {"accelerator": "gpu", "devices": "auto"}, 8),
        (8, {"accelerator": "gpu", "devices": -1}, 8),
        (8, {"accelerator": "gpu", "devices": [0, 3, 5]}, 3),
        (8, {"accelerator": "gpu", "devices": "0,3"}, 2),
        (8, {"accelerator": "gpu", "devices": "4"}, 4),
        (1, {"accelerator": "auto", "devices": 1}, 1),
        (0, {"accelerator": "auto", "devices": 1}, 1),
        (0, {"accelerator": "auto", "devices": "auto"}, 1),
        (0, {"accelerator": "cpu", "devices": "auto"}, 1),
        (0, {"accelerator": "cpu", "devices": 2}, 2),
        (8, {}, 8),
        (0, {"accelerator": "tpu", "devices": 4}, 4),  # Lightning's to judge
    ],
)
def test_devices_counted(gpus, available, options, expected):
    gpus(available)
    assert runs.count_devices(trainer(**options)) == expected


@pytest.mark.parametrize(
    ("available", "options"),
    [
        (0, {"accelerator": "auto", "devices": 8}),
        (2, {"accelerator": "auto", "devices": 8}),
        (0, {"accelerator": "gpu", "devices": 1}),
        (2, {"accelerator": "cuda", "devices": [0, 1, 2]}),
    ],
)
def test_fewer_devices_than_asked(gpus, available, options):
    gpus(available)
    wanted = options["devices"] if isinstance(options["devices"], int) else len(options["devices"])
    with pytest.raises(DistilPoseError, match=rf"asks for {wanted} GPUs but this machine has {available}") as told:
        runs.count_devices(trainer(**options))
    assert "trainer.accelerator=cpu" in str(told.value)
    assert f"pass trainer.devices={available}" in str(told.value) or available == 0


def configured(**options):
    settings = {
        "data": {"batch_size": 32},
        "trainer": {"accelerator": "auto", "devices": 8},
        "optimizer": {"lr": 1e-3},
        "scale_lr": False,
        "reference_batch": 256,
    }
    return OmegaConf.merge(OmegaConf.create(settings), OmegaConf.create(options))


def test_the_papers_batch_is_eight_times_32(gpus):
    gpus(8)
    assert runs.effective_batch(configured()) == 256


def test_nodes_and_accumulation_multiply_the_batch(gpus):
    gpus(8)
    assert runs.effective_batch(configured(trainer={"devices": 2, "num_nodes": 3, "accumulate_grad_batches": 4})) == 768


@pytest.mark.parametrize(("devices", "expected"), [(8, 1e-3), (1, 1.25e-4), (2, 2.5e-4)])
def test_linear_scaling(gpus, capsys, devices, expected):
    gpus(8)
    cfg = configured(trainer={"devices": devices}, scale_lr=True)
    assert runs.scaled_rate(cfg) == pytest.approx(expected)
    assert cfg.optimizer.lr == 1e-3  # as it is written: a resumed run scales again
    told = capsys.readouterr().out
    assert f"Effective batch {32 * devices} " in told
    assert f"scaled by {32 * devices}/256 to {expected:.3g}" in told


def test_the_rate_stays_unless_asked(gpus, capsys):
    gpus(1)
    cfg = configured(trainer={"devices": 1})
    assert runs.scaled_rate(cfg) == 1e-3
    told = capsys.readouterr().out
    assert told.startswith("Effective batch 32 ")
    assert told.endswith(", learning rate 0.001\n")


def test_a_run_goes_on_in_its_folder_and_else_takes_a_fresh_one(tmp_path):
    file = tmp_path / "last.ckpt"
    file.touch()
    assert runs.run_directory(str(tmp_path), "fresh") == str(tmp_path)
    assert runs.run_directory(str(file), "fresh") == "fresh"
    assert runs.run_directory(None, "fresh") == "fresh"


def test_the_configuration_is_written_resolved_and_once(tmp_path):
    cfg = OmegaConf.create({"folder": str(tmp_path / "run"), "name": "a", "again": "${name}"})
    path = tmp_path / "run" / runs.CONFIG
    with runs.saved_config(cfg):
        assert OmegaConf.load(path) == {"folder": cfg.folder, "name": "a", "again": "a"}
    cfg.name = "b"
    with pytest.raises(DistilPoseError, match="is there but no checkpoint"), runs.saved_config(cfg):
        pass
    (path.parent / runs.LAST_CHECKPOINT).parent.mkdir()
    (path.parent / runs.LAST_CHECKPOINT).touch()
    for checkpoint in (None, str(tmp_path / "other" / "checkpoints" / "last.ckpt")):
        refused = pytest.raises(DistilPoseError, match="already holds a run: go on with it by resume=")
        with refused, runs.saved_config(cfg, checkpoint):
            pass
        assert OmegaConf.load(path).name == "a"
    with pytest.raises(KeyError), runs.saved_config(cfg, str(path.parent / runs.LAST_CHECKPOINT)):
        raise KeyError
    assert OmegaConf.load(path).name == "a"  # as it was: what was asked for came to nothing
    with runs.saved_config(cfg, os.path.relpath(path.parent / runs.LAST_CHECKPOINT)):
        assert OmegaConf.load(path).name == "b"


@pytest.mark.parametrize("saved", [False, True])
def test_a_run_that_came_to_nothing_may_be_started_again(tmp_path, saved):
    cfg = OmegaConf.create({"folder": str(tmp_path)})
    checkpoint = tmp_path / runs.LAST_CHECKPOINT
    checkpoint.parent.mkdir()
    with pytest.raises(KeyboardInterrupt), runs.saved_config(cfg):  # noqa: PT012  (the checkpoint comes on the way)
        if saved:
            checkpoint.touch()
        raise KeyboardInterrupt
    assert (tmp_path / runs.CONFIG).exists() == saved


def test_no_resume_no_change(tmp_path):
    cfg = OmegaConf.create({"resume": None})
    assert runs.resume(cfg) == (cfg, None)
    file = tmp_path / "some.ckpt"
    torch.save({"state_dict": {}}, file)
    cfg = OmegaConf.create({"resume": str(file)})
    assert runs.resume(cfg) == (cfg, str(file))


@pytest.mark.parametrize("place", ["absent", "empty"])
def test_resuming_what_is_no_run(tmp_path, place):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DistilPoseError, match=r"holds no config\.yaml with checkpoints/last\.ckpt: give the folder"):
        runs.resume(OmegaConf.create({"resume": str(tmp_path / place)}))


def test_the_metric_to_watch_must_come():
    runs.check_monitor("val/AP", COCO)
    runs.check_monitor("val/PCK", Skeleton.unnamed(3))
    with pytest.raises(
        DistilPoseError, match=r"data\.monitor=val/AP is no metric .* expected val/PCK, and AP needs OKS"
    ):
        runs.check_monitor("val/AP", Skeleton.unnamed(3))


def test_best_score():
    def of(callback):
        return runs.best_score(SimpleNamespace(checkpoint_callback=callback))

    assert of(SimpleNamespace(best_model_score=torch.tensor(0.5))) == 0.5
    assert of(SimpleNamespace(best_model_score=None)) is None
    assert of(None) is None
