from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.runs import preflight
from distilpose.skeleton import COCO, Skeleton


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that the machine has this number of GPUs and no other accelerator."""

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
        (0, {"accelerator": "tpu", "devices": 4}, 4),  # checked by Lightning
    ],
)
def test_devices_counted(gpus, available, options, expected):
    gpus(available)
    assert preflight.count_devices(trainer(**options)) == expected


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
    with pytest.raises(DistilPoseError, match=rf"asks for {wanted} GPUs but this machine has {available}") as error:
        preflight.count_devices(trainer(**options))
    assert "trainer.accelerator=cpu" in str(error.value)
    assert f"pass trainer.devices={available}" in str(error.value) or available == 0


@pytest.mark.parametrize("options", [{"devices": 1}, {"devices": 2, "num_nodes": 2}, {"devices": 8}])
def test_torchrun_must_start_one_process_for_each_device(monkeypatch, options):
    asked = trainer(accelerator="cpu", **options)
    preflight.check_devices(asked)
    monkeypatch.setenv("WORLD_SIZE", "8")  # set by another launcher, or a leftover
    preflight.check_devices(asked)
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    preflight.check_devices(trainer(accelerator="cpu", devices=4, num_nodes=2))
    if options != {"devices": 8}:
        printed = r"WORLD_SIZE=8 processes, but trainer\.devices=\d .*: pass trainer\.devices=4 trainer\.num_nodes=2\."
        with pytest.raises(DistilPoseError, match=printed):
            preflight.check_devices(asked)


def configured(**options):
    settings = {
        "data": {"batch_size": 32},
        "trainer": {"accelerator": "auto", "devices": 8},
        "optimizer": {"lr": 1e-3},
        "scale_lr": False,
        "reference_batch": 256,
    }
    return OmegaConf.merge(OmegaConf.create(settings), OmegaConf.create(options))


def test_the_papers_effective_batch_is_eight_times_32(gpus):
    gpus(8)
    assert preflight.effective_batch(configured()) == 256


def test_nodes_and_accumulation_multiply_the_batch(gpus):
    gpus(8)
    assert (
        preflight.effective_batch(configured(trainer={"devices": 2, "num_nodes": 3, "accumulate_grad_batches": 4}))
        == 768
    )


@pytest.mark.parametrize(("devices", "expected"), [(8, 1e-3), (1, 1.25e-4), (2, 2.5e-4)])
def test_linear_scaling(gpus, caplog, devices, expected):
    gpus(8)
    cfg = configured(trainer={"devices": devices}, scale_lr=True)
    with caplog.at_level("INFO"):
        assert preflight.scaled_rate(cfg) == pytest.approx(expected)
    assert cfg.optimizer.lr == 1e-3  # unchanged: a resumed run scales it again
    assert all(fact in caplog.text for fact in (f"{32 * devices}/256", f"{expected:.3g}"))


def test_the_rate_is_not_scaled_by_default(gpus, caplog):
    gpus(1)
    cfg = configured(trainer={"devices": 1})
    with caplog.at_level("INFO"):
        assert preflight.scaled_rate(cfg) == 1e-3
    assert all(fact in caplog.text for fact in ("32", "0.001"))


def test_a_monitored_metric_must_exist():
    preflight.check_monitor("val/AP", COCO)
    preflight.check_monitor("val/PCK", Skeleton.unnamed(3))
    with pytest.raises(
        DistilPoseError, match=r"data\.monitor=val/AP is not a metric .* expected val/PCK, and AP needs OKS"
    ):
        preflight.check_monitor("val/AP", Skeleton.unnamed(3))


def test_best_score():
    def score(callback):
        return preflight.best_score(SimpleNamespace(checkpoint_callback=callback))

    assert score(SimpleNamespace(best_model_score=torch.tensor(0.5))) == 0.5
    assert score(SimpleNamespace(best_model_score=None)) is None
    assert score(None) is None
