"""User errors at the start of a training: each message is one sentence with the name, the value and the way out."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from distilpose import create_model, train
from distilpose.cli.command import USER_ERRORS, error_message
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.models import save_model
from distilpose.runs.train_settings import TrainSettings

SMALL = ["model.depth=1", "model.width=32", "model.heads=2"]
TINY = ["data=custom", "data.num_workers=0", *SMALL, "logger=none"]
ALONE = ["model=student_xs", "loss=regression"]


def composed(*overrides: object):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("train", [*map(str, overrides), "folder=run"])


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (["seed=-1"], ["seed=-1", "from 0 to"]),
        (["optimizer.lr=fast"], ["optimizer.lr=fast", "a number of at least 0"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1", "at least 0"]),
        (["optimizer=adamw", "optimizer.weight_decay=-1"], ["optimizer.weight_decay=-1", "at least 0"]),
        (["+optimizer.beta=2"], ["optimizer.beta ", "Adam", "optimizer.betas"]),
        (["scheduler.warmup_steps=abc"], ["scheduler.warmup_steps=abc", "whole number of at least 0 steps"]),
        (["scale_lr=yes please"], ["scale_lr=yes please", "true or false"]),
        (["reference_batch=0"], ["reference_batch=0", "at least 1"]),
        (["threads=0"], ["threads=0", "from 1 to"]),
        (["threads=1000000"], ["threads=1000000", "from 1 to"]),
        (["data.num_workers=100000"], ["data.num_workers=100000", "from 0 to"]),
        (["data.score_threshold=7"], ["data.score_threshold=7", "from 0 to 1"]),
        (["+optimizer.betas=[0.9]"], ["optimizer.betas=[0.9]", "a list of 2"]),
        (["+trainer.max_time=5"], ["trainer.max_time=5", "text"]),
        (["callbacks.checkpoint.mode=best"], ["callbacks.checkpoint.mode=best", "max or min"]),
        (["resume=true"], ["resume=true", "null or text"]),
        (["resume=[a]"], ["resume=['a']", "null or text"]),
        (["weights_kind=mean"], ["weights_kind=mean", "averaged or raw"]),
        (["check=1"], ["check=1", "true or false"]),
        (["trainer.precision=bf61"], ["trainer.precision=bf61", "bf16-mixed"]),
        (["trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches=0", "at least 1"]),
        (["trainer.accumulate_grad_batches=2.5"], ["trainer.accumulate_grad_batches=2.5", "whole"]),
        (["trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1", "null or a number of at least 0"]),
        (["trainer.limit_train_batches=abc"], ["trainer.limit_train_batches=abc", "above 0"]),
        (["trainer.limit_train_batches=0"], ["trainer.limit_train_batches=0", "above 0"]),
        (["trainer.limit_val_batches=0"], ["trainer.limit_val_batches=0", "above 0"]),
        (["+trainer.val_check_interval=0"], ["trainer.val_check_interval=0", "above 0"]),
        (["trainer.max_epochs=null"], ["trainer.max_epochs=null", "at least 1 epochs"]),
        (["+trainer.max_steps=0"], ["trainer.max_steps=0", "-1 or a whole number of at least 1 steps"]),
        (["trainer.devices=0"], ["trainer.devices=0", "at least 1"]),
        (["trainer.num_nodes=abc"], ["trainer.num_nodes=abc", "whole number"]),
        (["trainer.num_sanity_val_steps=-2"], ["trainer.num_sanity_val_steps=-2", "at least -1"]),
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=-1"], ["patience=-1", "at least 0"]),
        (["method.frozen=backbone"], ["method.frozen=backbone", "a list"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_settings(overrides, facts):
    with pytest.raises(DistilPoseError) as error:
        validate(composed(*overrides), TrainSettings)
    assert all(fact in str(error.value) for fact in facts), str(error.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An untrained student and an untrained teacher."""
    place = tmp_path_factory.mktemp("models")
    small = {"depth": 1, "width": 32, "heads": 2}
    return {
        kind: save_model(create_model(f"{kind}_xs", **small), place / f"{kind}.safetensors")
        for kind in ("student", "teacher")
    }


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (["data.root=absent", *ALONE], ["absent", "data.root"]),
        (["model=student_xs", "loss=distilpose"], ["teacher.checkpoint"]),
        (["model=student_xs", "loss=distilpose", "teacher.checkpoint=absent.ckpt"], ["absent.ckpt"]),
        (["model=student_xs", "loss=distilpose", "teacher.checkpoint={student}"], ["student_xs"]),
        (["model=student_xs", "loss=heatmap_mse"], ["HeatmapMSE"]),
        ([*ALONE, "weights=absent.ckpt"], ["absent.ckpt"]),
        ([*ALONE, "weights={teacher}"], ["teacher.safetensors", "student_xs", "another model"]),
        ([*ALONE, "+model.num_keypoints=5"], ["num_keypoints=5", "17 joints"]),
        (["loss=regression", "model=student_timm", "model.backbone=resnet81"], ["'resnet81'", "timm.list_models"]),
        ([*ALONE, "method.frozen=[backbon]"], ["method.frozen=['backbon']", "student_xs", "backbone"]),
        ([*ALONE, "loss.regression=0"], ["weights", "loss.regression=1"]),
        (
            ["model=student_xs", "loss.ramps={{confidence:[0.5,0.2]}}"],
            ["loss.ramps.confidence=[0.5, 0.2]", "ascending"],
        ),
        (["model=student_xs", "teacher=recorded", "teacher.file=absent"], ["absent", "distilpose.record"]),
        ([*ALONE, "model.input_size=[65,48]"], ["65 x 48"]),
        ([*ALONE, "data.monitor=val/oks"], ["data.monitor=val/oks", "val/PCK"]),
        (
            [*ALONE, "callbacks=early_stopping", "callbacks.early_stopping.monitor=val/foo"],
            ["callbacks.early_stopping.monitor=val/foo", "val/PCK"],
        ),
        (
            [*ALONE, "callbacks=early_stopping", "callbacks.early_stopping.monitor=foo"],
            ["callbacks.early_stopping.monitor=foo", "val/PCK"],
        ),
        ([*ALONE, "callbacks.checkpoint.monitor=val/none"], ["callbacks.checkpoint.monitor=val/none", "val/PCK"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_errors_while_data_and_module_are_built(tiny_coco, files, overrides, facts):
    cfg = composed(*TINY, f"data.root={tiny_coco(train=2, val=3)}", *(word.format(**files) for word in overrides))
    with pytest.raises(USER_ERRORS) as error:
        train.build(cfg)
    message = error_message(error.value)
    assert all(fact in message for fact in facts), message


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (
            ["model=student_xs", "loss=distilpose", "teacher.checkpoint={teacher}", "trainer.max_epochs=1"],
            ["teacher.check=false"],
        ),
        (
            [*ALONE, "optimizer.lr=1e30", "scheduler.warmup_steps=0", "trainer.max_epochs=9"],
            ["diverged", "optimizer.lr"],
        ),
        ([*ALONE, "+trainer.val_check_interval=50"], ["Lightning", "val_check_interval"]),
        ([*ALONE, "trainer.accelerator=tpu"], ["Lightning", "torch_xla"]),
        ([*ALONE, "logger=wandb", "logger.wandb.mode=offline", "+logger.wandb.group=7"], ["W&B", "group"]),
    ],
    ids=["untrained teacher", "divergence", "interval beyond the epoch", "accelerator", "W&B"],
)
def test_errors_in_training_are_one_line(run_train, tiny_coco, files, overrides, facts):
    arguments = [*TINY, f"data.root={tiny_coco(train=2, val=3)}", "trainer.accelerator=cpu"]
    status, printed = run_train(*arguments, *(word.format(**files) for word in overrides))
    assert status == 1, printed
    message = printed.splitlines()[-1]
    assert message.startswith("error: ")
    assert all(fact in message for fact in facts), message
    assert "Traceback" not in printed
    assert "Error executing job" not in printed


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_error_in_a_worker_is_one_line(run_train, tiny_coco, tmp_path, split):
    root = tiny_coco(train=2, val=3)
    photo = root / split / "000001.jpg"
    photo.write_bytes(photo.read_bytes()[:500])
    arguments = [*TINY, *ALONE, f"data.root={root}", "data.num_workers=1", "trainer.max_epochs=1"]
    status, printed = run_train(*arguments, "model.input_size=[64,48]", "trainer.accelerator=cpu", "hydra.run.dir=run")
    assert status == 1
    (message,) = [line for line in printed.splitlines() if "error: " in line]
    assert str(photo) in message
    assert "Traceback" not in printed
    assert not (tmp_path / "run" / "config.yaml").exists()
