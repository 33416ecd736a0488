"""The small version of a run: what is reduced for a large network on a CPU."""

from types import SimpleNamespace

import torch
from omegaconf import OmegaConf

from distilpose.models import create_model
from distilpose.runs import small_run
from distilpose.teachers.frozen import FrozenTeacher


def test_a_large_network_on_a_cpu_gets_fewer_crops(monkeypatch):
    monkeypatch.setattr(small_run, "BUDGET", 0.5)  # GMACs
    small = {"input_size": (64, 48)}
    teacher = FrozenTeacher(create_model("teacher_xs", **small), check_persons=300)
    module = SimpleNamespace(model=create_model("student_xs", **small), teacher=teacher)
    datamodule = SimpleNamespace(batch_size=64, val_batch_size=256)
    callback = SimpleNamespace(persons=500)
    trainer = SimpleNamespace(callbacks=[callback], strategy=SimpleNamespace(root_device=torch.device("cpu")))
    cfg = OmegaConf.create({"trainer": {"accumulate_grad_batches": 2}})
    factors = small_run.shrink_batches(cfg, module, datamodule, trainer)
    assert factors == (64 / datamodule.batch_size, 256 / datamodule.val_batch_size)
    assert 2 <= datamodule.batch_size < 64
    assert 16 <= teacher.check_persons < 300
    assert 2 <= callback.persons < 500
