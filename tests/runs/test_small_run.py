"""The small version of a run: what is reduced for a large network on a CPU."""

import time
from types import SimpleNamespace

import torch
from omegaconf import OmegaConf

from distilpose.models import create_model
from distilpose.runs import small_run
from distilpose.teachers.cost import RATE
from distilpose.teachers.frozen import FrozenTeacher
from distilpose.teachers.labels import LabelTeacher
from distilpose.teachers.module import ModuleNetwork
from distilpose.teachers.network import NetworkTeacher
from distilpose.teachers.several import SeveralTeachers


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


def test_each_of_several_foreign_teachers_counts(monkeypatch):
    monkeypatch.setattr(small_run, "BUDGET", 5)
    monkeypatch.setattr(small_run, "count_gmacs", lambda model: 0.001)
    layer = torch.nn.Conv2d(3, 17, 32, stride=4, padding=16)  # 0.16 GMACs
    parts = [NetworkTeacher(ModuleNetwork(layer, name, (256, 192)), check_persons=300) for name in "ab"]
    labels = LabelTeacher()
    batches = []
    for teacher in (labels, parts[0], SeveralTeachers({"labels": labels, "a": parts[0], "b": parts[1]})):
        module = SimpleNamespace(model=None, teacher=teacher)
        datamodule = SimpleNamespace(batch_size=64, val_batch_size=256)
        trainer = SimpleNamespace(callbacks=[], strategy=SimpleNamespace(root_device=torch.device("cpu")))
        cfg = OmegaConf.create({"trainer": {"accumulate_grad_batches": 1}})
        small_run.shrink_batches(cfg, module, datamodule, trainer)
        batches.append(datamodule.batch_size)
    assert batches[0] == 64
    assert 2 <= batches[1] < 64
    assert 2 <= batches[2] <= batches[1] / 2
    assert all(part.check_persons == 16 for part in parts)


def test_a_network_that_torch_does_not_run_is_timed():
    def waits(crops):
        time.sleep(0.1)
        return torch.zeros(len(crops), 17, 16, 12)

    teacher = NetworkTeacher(ModuleNetwork(waits, "waits", (64, 48)))
    assert teacher.gmacs() >= 0.1 * RATE
