"""Every option of every configuration group composes and is instantiated."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import LightningDataModule, Trainer
from omegaconf import OmegaConf

from distilpose import list_models, train
from distilpose.cli.paths import CONFIG_DIR
from distilpose.data.augmentation import PoseAugmentation
from distilpose.losses import DistillationLoss, HeatmapCrossEntropy, HeatmapMSE
from distilpose.losses.term_names import LABELS_ONLY, PAPER
from distilpose.modules import DistillationModule, HeatmapModule
from distilpose.runs import preflight
from distilpose.skeleton import COCO


def options(group):
    names = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
    assert names, group
    return names


def configured(*overrides, name="train"):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(name, [*overrides, *(["folder=run"] if name == "train" else [])])


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG_DIR.glob("*.yaml")))
def test_commands(name):
    cfg = configured(*(["hydra.run.dir=run"] if name == "train" else []), name=name)
    assert cfg
    assert find_spec(f"distilpose.{name}") is not None


def test_every_group_is_tested_here():
    groups = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()}
    assert groups == {
        "augmentation", "callbacks", "data", "detector", "experiment", "hydra", "launcher", "logger", "loss", "method", "model",
        "optimizer", "photometric", "scheduler", "sweep", "teacher", "trainer",
    }  # fmt: skip


def test_each_model_of_the_registry_has_a_configuration():
    assert options("model") == list_models()


@pytest.mark.parametrize("name", options("model"))
def test_models(name):
    cfg = configured(f"model={name}", "model.pretrained=false")
    with torch.device("meta"):  # shapes only: no time for random weights
        model = instantiate(cfg.model, _partial_=True)(skeleton=COCO)
    assert model.name == name
    assert model.kind == name.split("_")[0]
    assert list(model.input_size) == cfg.model.input_size == cfg.data.input_size
    loss = instantiate(cfg.loss)
    assert isinstance(loss, DistillationLoss if model.kind == "student" else HeatmapMSE)
    assert cfg.method._target_.endswith("DistillationModule" if model.kind == "student" else "HeatmapModule")


@pytest.mark.parametrize("name", options("model"))
def test_model_configurations_have_the_registrys_defaults(name):
    from distilpose.models import model_spec

    cfg, spec = OmegaConf.to_container(configured(f"model={name}").model), model_spec(name)
    assert tuple(cfg["input_size"]) == tuple(spec.input_size)
    for option, default in spec.options.items():
        if option in cfg:
            assert cfg[option] == default, option
    assert set(cfg) <= {"_target_", "_convert_", "name", "input_size", "pretrained", "mean", "std", *spec.options}


@pytest.mark.parametrize("name", options("loss"))
def test_losses(name):
    loss = instantiate(configured("model=student_xs", f"loss={name}").loss)
    if name.startswith("heatmap"):
        assert isinstance(loss, {"heatmap_ce": HeatmapCrossEntropy, "heatmap_mse": HeatmapMSE}[name])
        return
    # exactly the terms in the file's name have a weight
    terms = {term for term, weight in loss.weights.items() if weight > 0}
    promised = {"likelihood"} if "rle" in name or "plus" in name else {name} & {*LABELS_ONLY} or {"regression"}
    if "tokens" in name and name != "without_tokens":
        promised |= {"visual_token", "keypoint_token"}
    promised |= {term for term in ("simulated_heatmap", "confidence") if term in name}
    if name.startswith("distilpose_"):
        # these replace the squared difference of maps, or smooth L1
        other = {term for term in ("marginal", "divergence", "moment") if term in name}
        promised |= {"visual_token", "keypoint_token", "confidence"} | (other or {"simulated_heatmap"})
    if name == "without_tokens":
        promised |= {"simulated_heatmap", "confidence", "divergence"}
    assert terms == (set(PAPER) if name in ("distilpose", "released") else promised)
    assert (loss.agreement > 0) == (name in ("distilpose_agreement", "without_tokens"))
    assert loss.needs_teacher == (not terms <= {*LABELS_ONLY})
    assert loss.needs_teacher or name in ("regression", "l1", "rle", *LABELS_ONLY)
    assert loss.released == (name == "released")
    assert loss.beta == ("l1" not in name)


@pytest.mark.parametrize("name", options("photometric"))
def test_photometric_changes_leave_the_geometry(name):
    plain, changed = (
        configured("augmentation=moderate", *more).augmentation for more in ([], [f"+photometric={name}"])
    )
    assert {**changed, "photometric": []} == dict(plain)
    assert instantiate(changed).photometric


@pytest.mark.parametrize("name", options("augmentation"))
def test_augmentations(name):
    cfg = configured(f"augmentation={name}")
    augmentation = instantiate(cfg.augmentation)
    assert isinstance(augmentation, PoseAugmentation)
    assert isinstance(instantiate(cfg.data).augmentation, PoseAugmentation)


@pytest.mark.parametrize("name", options("data"))
def test_data(name, tmp_path):
    cfg = configured(f"data={name}", f"data.root={tmp_path}", "model=student_xs", "seed=5")
    datamodule = instantiate(cfg.data)
    assert isinstance(datamodule, LightningDataModule)
    assert datamodule.input_size == (64, 48)
    assert datamodule.seed == 5
    assert datamodule.monitor in ("val/AP", "val/PCK")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", options("optimizer"))
@pytest.mark.parametrize("schedule", [*options("scheduler"), None])
def test_optimizers_and_schedules(name, schedule):
    cfg = configured(f"optimizer={name}", "~scheduler" if schedule is None else f"scheduler={schedule}")
    optimizer = instantiate(cfg.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.param_groups[0]["lr"] == cfg.optimizer.lr == 1e-3
    if schedule is not None:
        instantiate(cfg.scheduler)(optimizer, steps_per_epoch=10, total_steps=1000)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("trainer", "callbacks", "logger"),
    [
        *((trainer, "default", "none") for trainer in options("trainer")),
        *(("default", callbacks, "none") for callbacks in options("callbacks") if callbacks != "default"),
        *(("default", "default", logger) for logger in options("logger")),
    ],
)
def test_trainers(trainer, callbacks, logger, tmp_path):
    cfg = configured(f"trainer={trainer}", f"callbacks={callbacks}", f"logger={logger}", "trainer.accelerator=cpu")
    cfg.folder = str(tmp_path)
    built = train.build_trainer(cfg)
    assert isinstance(built, Trainer)
    assert built.max_epochs == {"debug": 2, "limit": 20}.get(trainer, 300)
    assert len(built.loggers) == (logger != "none")
    assert {type(callback).__name__ for callback in built.callbacks} >= {
        "ModelCheckpoint", "MetricsTable", "Pictures", "DistillationHealth", "TQDMProgressBar"
    }  # fmt: skip
    assert built.checkpoint_callback.monitor == cfg.data.monitor


@pytest.mark.parametrize("name", options("launcher"))
def test_launchers(name):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", [f"launcher={name}", "hydra.sweep.dir=runs/s"], return_hydra_config=True)
    assert cfg.hydra.launcher._target_.endswith("SlurmLauncher" if name == "slurm" else "JoblibLauncher")
    assert cfg.resume == ("auto" if name == "slurm" else None)


@pytest.mark.parametrize("name", options("sweep"))
def test_sweeps(name):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", [f"sweep={name}"], return_hydra_config=True)
    assert cfg.hydra.sweeper._target_.endswith("SearchSweeper" if name == "search" else "GridSweeper")
    assert cfg.resume == "auto"
    assert set(cfg.hydra.sweeper.params)


@pytest.mark.parametrize("name", ["checkpoint", "ablation", "lspet", "several"])
def test_a_teacher_needs_a_checkpoint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a folder without trained teachers
    with pytest.raises(Exception, match=r"teacher\.(first\.)?checkpoint is not set|runs/.* is not a model file"):
        instantiate(configured(f"teacher={name}").teacher)(data=None)  # only that of several is called


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (["teacher=vitpose", "teacher.name=someone/pose"], ["vitpose someone/pose"]),
        (["teacher.checkpoint=some.ckpt"], ["checkpoint some.ckpt"]),
        (
            ["teacher=several", "teacher@teacher.first=labels", "teacher.second.checkpoint=b"],
            ["labels", "checkpoint b"],
        ),
        ([], []),
    ],
)
def test_a_teacher_that_the_loss_does_not_use_is_told(teacher, said, caplog):
    caplog.set_level("INFO", "distilpose")
    cfg = configured("model=student_xs", "loss=regression", "trainer.accelerator=cpu", *teacher)
    train.build_module(cfg, type("Data", (), {"skeleton": COCO}))
    messages = [record.message for record in caplog.records if "does not use a teacher" in record.message]
    assert [message.partition(": ")[2] for message in messages] == [f"{one} is not read." for one in said]


@pytest.mark.parametrize("name", options("method"))
def test_methods(name, tmp_path):
    model, loss = ("student_xs", "regression") if name == "distillation" else ("teacher_xs", "heatmap_mse")
    cfg = configured(f"method={name}", f"model={model}", f"loss={loss}", "trainer.accelerator=cpu")
    module = train.build_module(cfg, type("Data", (), {"skeleton": COCO}))
    assert isinstance(module, {"distillation": DistillationModule, "heatmap": HeatmapModule}[name])


@pytest.mark.parametrize("name", options("experiment"))
def test_experiments(name):
    cfg = configured(f"experiment={name}")
    for group in ("data", "loss", "optimizer", "augmentation", "scheduler"):
        instantiate(cfg[group])
    # the command line overrides groups and values of the experiment
    changed = configured(f"experiment={name}", "data=lspet", "trainer.max_epochs=7", "optimizer=adamw")
    assert changed.data.train_images == "train"
    assert changed.trainer.max_epochs == 7
    assert changed.optimizer._target_.endswith("AdamW")


@pytest.mark.parametrize("name", ["ablation", "lspet"])
def test_another_teacher_in_an_experiment(name):
    cfg = configured(f"experiment={name}", "teacher=recorded", "teacher.file=somewhere")
    assert set(cfg.teacher) == {"_target_", "file", "sigma", "least_trust", "check"}


def test_a_student_without_its_teacher_in_an_experiment():
    assert not instantiate(configured("experiment=demo_student", "loss=regression").loss).needs_teacher


def test_the_defaults_are_the_papers_recipe():
    cfg = configured("trainer.accelerator=cpu", "trainer.devices=8")
    assert cfg.model.name == "student_s"
    assert cfg.optimizer._target_ == "torch.optim.Adam"
    assert (cfg.trainer.max_epochs, cfg.scheduler.milestones, cfg.scheduler.warmup_steps) == (300, [200, 260], 500)
    assert preflight.effective_batch(cfg) == cfg.reference_batch == 256
