"""What a resumed run reads, what it says when it had ended, and the same batch in other parts in the middle of an epoch."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import nullcontext

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import Callback
from omegaconf import OmegaConf

from distilpose import train
from distilpose.callbacks.metrics_table import read_table
from distilpose.cli.paths import CONFIG_DIR
from distilpose.errors import DistilPoseError
from distilpose.files import sha256_of
from distilpose.models import create_model, load_model, save_model
from distilpose.runs import resume

TINY = [
    "data=custom", "data.num_workers=0", "augmentation=none", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "loss=regression", "optimizer.lr=5e-3", "scheduler.warmup_steps=0", "logger=none",
    "trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=1", "trainer.num_sanity_val_steps=0",
    "~callbacks.pictures", "~callbacks.health", "~callbacks.details", "~callbacks.progress",
]  # fmt: skip


@pytest.fixture
def trained(trained_by):
    return trained_by(["data.batch_size=4", "trainer.max_epochs=1", *TINY], train=12)


def test_the_file_of_the_first_weights_may_be_gone(run_train, trained, tmp_path):
    start = save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "start.safetensors")
    trained("run", f"weights={start}")
    start.unlink()
    status, printed = run_train("resume=run", "trainer.max_epochs=2")
    assert status == 0, printed
    assert "start.safetensors is not read" in printed
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert "weights" in environment["started"]["digests"]
    assert "weights" not in environment["resumed"][0]["digests"]
    assert [row["epoch"] for row in read_table(tmp_path / "run" / "metrics.csv")] == [0, 1]


def test_the_file_of_pretrained_weights_may_be_gone(run_train, tiny_coco, tmp_path):
    """A resumed run takes weights, and the mean and std that they expect, from its checkpoint."""
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), file := tmp_path / "a=1 (2).safetensors")
    options = ["model=student_timm", "model.backbone=tf_efficientnet_lite0", "model.strides=[16]", "model.patch_size=[1,1]",
               "model.input_size=[64,48]", f"data.root={tiny_coco(train=4, val=3)}", "data.batch_size=4"]  # fmt: skip
    settings = [option for option in TINY if option != "model=student_xs"]
    status, printed = run_train(
        *settings, *options, f"model.pretrained={file}", "trainer.max_epochs=1", "hydra.run.dir=run"
    )
    assert status == 0, printed
    assert printed.count("GMACs") == 1
    assert "4 x 3 visual tokens" in printed
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert load_model(checkpoint).network_mean == (0.5, 0.5, 0.5)
    digest = sha256_of(file)
    file.unlink()
    status, printed = run_train("resume=run", "trainer.max_epochs=2")
    assert status == 0, printed
    assert load_model(checkpoint).network_mean == (0.5, 0.5, 0.5)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["started"]["digests"]["model_pretrained"] == {"file": str(file), "sha256": digest}
    assert "model_pretrained" not in environment["resumed"][0]["digests"]


def test_a_resumed_run_reads_neither_imagenet_weights_nor_the_teachers_backbone(tiny_coco, monkeypatch, tmp_path):
    teacher = save_model(create_model("teacher_xs", depth=1, width=32, heads=2), tmp_path / "teacher.safetensors")
    overrides = [
        *TINY[:-4], f"data.root={tiny_coco()}", "model=student_timm", "model.depth=1", "model.width=32", "model.heads=2",
        "model.pretrained=true", "model.input_size=[64,48]", "loss=distilpose", f"teacher.checkpoint={teacher}",
        "method.backbone_from_teacher=true", "weights=absent.ckpt", "folder=unused",
    ]  # fmt: skip
    overrides.remove("loss=regression")
    overrides.remove("model=student_xs")
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", overrides)
    pretrained = []
    create = train.instantiate

    def watch(config, *args, **options):
        made = create(config, *args, **options)
        return (
            made
            if config is not cfg.model
            else lambda **more: pretrained.append(more.get("pretrained")) or made(**more)
        )

    monkeypatch.setattr(train, "instantiate", watch)
    module = train.build_module(cfg, instantiate(cfg.data), resumes=True)
    assert pretrained == [False]
    assert module.teacher is not None


def test_a_finished_run_says_that_it_has_ended(run_train, trained, tmp_path):
    folder = trained("run")
    before = sorted(tmp_path.rglob("*"))
    for source in ("run", "run/checkpoints/last.ckpt"):
        status, printed = run_train(
            f"resume={source}", *(() if source == "run" else (*TINY, "data.batch_size=4", f"data.root={trained.root}")),
            *(() if source == "run" else ("trainer.max_epochs=1", "hydra.run.dir=fresh")),
        )  # fmt: skip
        assert status == 0, printed
        assert "has ended" in printed
        assert "trainer.max_epochs=1" in printed
        assert f"resume='{source}' trainer.max_epochs=N" in printed
    assert [path for path in sorted(tmp_path.rglob("*")) if "fresh" not in str(path)] == before
    (folder / "metrics.json").unlink()  # copied without it
    status, printed = run_train("resume=run")
    assert status == 0, printed
    assert "has ended" in printed


def test_a_lower_number_of_epochs_is_an_end_too(run_train, trained):
    trained("run", "trainer.max_epochs=2")
    status, printed = run_train("resume=run", "trainer.max_epochs=1")
    assert status == 0
    assert "has ended, as trainer.max_epochs=1 is reached" in printed


class Persons(Callback):
    """Records the annotation ids of each optimizer step, and stops the run by a signal within step `stop`."""

    seen: list = []
    stop: int | None = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        while len(self.seen) <= trainer.global_step:
            self.seen.append([])
        self.seen[trainer.global_step] += batch.annotation_id.tolist()
        if trainer.global_step == self.stop:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("stage", ["middle", "end"])
@pytest.mark.parametrize("parts", [(8, 1), pytest.param((2, 4), marks=pytest.mark.slow)], ids=["larger", "smaller"])
def test_the_same_batch_in_other_parts_takes_the_same_steps(run_train, trained_by, tmp_path, monkeypatch, stage, parts):
    """Batches of 4 accumulated twice, stopped, then batches of 8 or of 2: every step has the persons of the whole run."""
    settings = [*TINY, f"+callbacks.persons._target_={__name__}.Persons", "trainer.max_epochs=2"]
    settings += ["data.batch_size=4", "trainer.accumulate_grad_batches=2"]
    training = trained_by(settings, train=40)
    monkeypatch.setattr(Persons, "seen", [])
    reference = training("reference")
    wanted = [sorted(step) for step in Persons.seen]
    assert {len(step) for step in wanted} == {8}
    half = len(wanted) // 2

    monkeypatch.setattr(Persons, "seen", [])
    if stage == "end":
        training("run", "trainer.max_epochs=1")
    else:
        monkeypatch.setattr(Persons, "stop", 1)
        arguments = [*settings, f"data.root={training.root}", "hydra.run.dir=run"]
        assert run_train(*arguments)[0] == 128 + signal.SIGUSR1
        monkeypatch.setattr(Persons, "stop", None)
        assert 1 < len(Persons.seen) == 2 < half
    changes = [f"data.batch_size={parts[0]}", f"trainer.accumulate_grad_batches={parts[1]}", "trainer.max_epochs=2"]
    status, printed = run_train("resume=run", *changes)
    assert status == 0, printed
    assert "effective batch stays 8" in printed
    assert [sorted(step) for step in Persons.seen] == wanted
    rows, expected = (read_table(folder / "metrics.csv") for folder in (tmp_path / "run", reference))
    assert [(row["epoch"], row["step"]) for row in rows] == [(row["epoch"], row["step"]) for row in expected]
    assert rows[0]["train/total"] == pytest.approx(
        expected[0]["train/total"], rel=0.02
    )  # batch norms see other batches


@pytest.mark.slow
def test_another_effective_batch_is_an_error_unless_it_is_asked_for(run_train, trained, tmp_path):
    folder = trained("run")
    for name in ("other", "smaller"):
        shutil.copytree(folder, tmp_path / name)
    status, printed = run_train("resume=run", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2")
    assert status == 1
    assert all(fact in printed for fact in ("effective batch of 4 ", "has 8 ", "batch_may_change=true")), printed
    status, printed = run_train("resume=run", "trainer.max_epochs=2", "data.batch_size=8")
    assert status == 0, printed
    assert "changes from 4 " in printed
    status, printed = run_train(
        "resume=other", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "batch_may_change=true"
    )
    assert status == 0, printed
    assert "changes from 4 " in printed
    status, printed = run_train("resume=smaller", "trainer.max_epochs=2", "data.batch_size=2")
    assert status == 0, printed
    persons = 4 * int(read_table(tmp_path / "run" / "metrics.csv")[0]["step"])
    for name, batch in (("run", 8), ("other", 8), ("smaller", 2)):
        rows = read_table(tmp_path / name / "metrics.csv")
        assert [row["epoch"] for row in rows] == [0, 1]
        assert abs(int(rows[1]["step"] - rows[0]["step"]) * batch - persons) < 8, (
            name
        )  # a complete epoch of the new steps


def test_the_same_command_resumes_with_the_same_batch_in_other_parts(run_train, trained, tmp_path):
    """resume=auto compares the product, not its parts."""
    trained("run", "resume=auto")
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    for changes, effective, fine in (
        ({"data.batch_size": 2, "trainer.accumulate_grad_batches": 2}, 4, True),
        ({"data.batch_size": 8}, 8, False),
        ({"trainer.accumulate_grad_batches": 2}, 8, False),
    ):
        cfg = config.copy()
        for key, value in {**changes, "resume": "auto", "trainer.max_epochs": 1}.items():
            OmegaConf.update(cfg, key, value)
        checkpoint = resume.find_checkpoint(cfg)
        assert checkpoint == tmp_path / "run" / "checkpoints" / "last.ckpt"
        with nullcontext() if fine else pytest.raises(DistilPoseError, match=f"of 4 .*has {effective} "):
            resume.check_resumed(cfg, checkpoint, "auto")
