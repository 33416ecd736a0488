from __future__ import annotations

import functools
import hashlib
import json
from types import SimpleNamespace

import pytest
import torch

from distilpose import create_model
from distilpose.callbacks import Provenance
from distilpose.losses import DistillationLoss, HeatmapMSE
from distilpose.modules import DistillationModule, HeatmapModule
from distilpose.teachers.labels import LabelTeacher
from distilpose.teachers.module import ModuleNetwork
from distilpose.teachers.network import NetworkTeacher
from distilpose.teachers.several import SeveralTeachers


class Logger:
    def __init__(self):
        self.logged = []

    def log_hyperparams(self, params):
        self.logged.append(params)


@pytest.fixture
def start(trainer, tmp_path):
    """A function that starts or resumes a run in tmp_path."""
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    module = HeatmapModule(create_model("teacher_xs", depth=1, width=32, heads=2), HeatmapMSE(), optimizer=adam)
    vars(trainer).update(ckpt_path=None, world_size=3, loggers=[Logger()])

    def call(**changes):
        vars(trainer).update(changes)
        Provenance(tmp_path).on_fit_start(trainer, module)
        return SimpleNamespace(file=tmp_path / "environment.json", logged=trainer.loggers[0].logged)

    return call


def test_the_start_and_every_resume(start):
    first = json.loads(start().file.read_text())
    assert first["resumed"] == []
    assert first["started"]["processes"] == 3
    assert set(first["started"]["digests"]) == {"train_annotations", "val_annotations"}
    for count in (1, 2):
        content = json.loads(start(ckpt_path="last.ckpt", world_size=count).file.read_text())
        assert content["started"] == first["started"]
        assert [resumed["processes"] for resumed in content["resumed"]] == list(range(1, count + 1))


def test_a_run_without_the_file_can_be_resumed(start):
    assert json.loads(start(ckpt_path="last.ckpt").file.read_text())["resumed"] == []


def test_a_new_run_replaces_an_old_file(start):
    start()
    assert json.loads(start(world_size=1).file.read_text())["started"]["processes"] == 1


def test_a_damaged_file_is_quarantined(start):
    file = start().file
    file.write_text('{"started"')
    content = json.loads(start(ckpt_path="last.ckpt").file.read_text())
    assert content["started"] is None
    assert [resumed["processes"] for resumed in content["resumed"]] == [3]
    assert file.with_name("environment.damaged.json").read_text() == '{"started"'


def test_loggers_get_the_configuration_too(start, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 3\nmodel: {name: teacher_xs}\n")
    (params,) = start().logged
    assert (params["seed"], params["model"]) == (3, {"name": "teacher_xs"})
    assert params["environment"]["processes"] == 3


def test_other_processes_do_nothing(start):
    other = start(is_global_zero=False)
    assert not other.file.exists()
    assert other.logged == []


def test_a_file_that_has_changed_between_two_starts_is_named(start, trainer, caplog):
    """The path is the same and the content is not: the digests of both starts are in the file, and are compared."""
    file = trainer.datamodule.train_dataset().annotations_file
    start()
    start(ckpt_path="last.ckpt")
    assert "has changed" not in caplog.text
    before = file.read_bytes()
    file.write_bytes(before + b" ")
    try:
        start(ckpt_path="last.ckpt")
    finally:
        file.write_bytes(before)
    assert f"train_annotations ({file}) has changed" in caplog.text
    assert hashlib.sha256(before).hexdigest()[:12] in caplog.text


def test_the_networks_of_several_teachers_and_a_change(trainer, tmp_path, caplog):
    networks = [ModuleNetwork(lambda crops: torch.zeros(len(crops), 17, 16, 12), name, (64, 48)) for name in "ab"]
    parts = {"first": LabelTeacher(), **{f"the_{one.name}": NetworkTeacher(one) for one in networks}}
    loss = DistillationLoss(visual_token=0, keypoint_token=0)
    student = create_model("student_xs", depth=1, width=32, heads=2)
    module = DistillationModule(student, loss, SeveralTeachers(parts), optimizer=torch.optim.Adam)
    vars(trainer).update(ckpt_path=None, world_size=1, loggers=[])
    networks[0].about, networks[1].about = {"revision": "a1b2"}, {"sha256": "0f"}
    Provenance(tmp_path).on_fit_start(trainer, module)
    started = json.loads((tmp_path / "environment.json").read_text())["started"]
    assert started["teacher"] == {
        "the_a": {"name": "a", "revision": "a1b2"}, "the_b": {"name": "b", "sha256": "0f"}
    }  # fmt: skip
    networks[0].about = {"revision": "c3d4"}
    vars(trainer).update(ckpt_path="last.ckpt")
    Provenance(tmp_path).on_fit_start(trainer, module)
    assert "the_a.revision a1b2 then, c3d4 now" in caplog.text
    assert "the_b" not in caplog.text


def test_the_teachers_network_and_its_change(trainer, tmp_path, caplog):
    network = ModuleNetwork(lambda crops: torch.zeros(len(crops), 17, 16, 12), "zeros", (64, 48))
    loss = DistillationLoss(visual_token=0, keypoint_token=0)
    student = create_model("student_xs", depth=1, width=32, heads=2)
    module = DistillationModule(student, loss, NetworkTeacher(network), optimizer=torch.optim.Adam)
    vars(trainer).update(ckpt_path=None, world_size=1, loggers=[])
    network.about = {"repository": "someone/vitpose", "revision": "a1b2"}
    Provenance(tmp_path).on_fit_start(trainer, module)
    vars(trainer).update(ckpt_path="last.ckpt")
    Provenance(tmp_path).on_fit_start(trainer, module)
    assert "changed" not in caplog.text
    network.about = {**network.about, "revision": "c3d4"}
    Provenance(tmp_path).on_fit_start(trainer, module)
    assert "a1b2" in caplog.text
    assert "c3d4" in caplog.text
    content = json.loads((tmp_path / "environment.json").read_text())
    assert content["started"]["teacher"] == {"name": "zeros", "repository": "someone/vitpose", "revision": "a1b2"}
    assert content["resumed"][-1]["teacher"]["revision"] == "c3d4"
