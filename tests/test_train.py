"""Complete trainings of tiny models on tiny pictures, with the train command."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from distilpose import create_model, evaluate, load_model, train
from distilpose.callbacks.metrics_table import read_table
from distilpose.cli.paths import CONFIG_DIR
from distilpose.models import save_model
from distilpose.skeleton import Skeleton

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "data.monitor=val/AP", "augmentation=none",
    "model.depth=1", "model.width=32", "model.heads=2", "optimizer.lr=5e-3", "scheduler.warmup_steps=0", "logger=none",
    "trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=2", "trainer.num_sanity_val_steps=0",
]  # fmt: skip
UNDRAWN = ["~callbacks.pictures", "~callbacks.health", "~callbacks.details"]
ALONE = ["model=student_xs", "loss=regression"]
EMA = ["+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "+callbacks.ema.decay=0.5"]
LOADED = ["data.num_workers=1"]  # a worker that prefetches


@pytest.fixture
def trained(trained_by):
    """Train in the folder of that name, on the tiny data set of the test; return the folder."""
    return trained_by(TINY)


@pytest.fixture
def teacher(tmp_path):
    """An untrained teacher's file and the overrides to distil from it."""
    torch.manual_seed(1)
    model = create_model("teacher_xs", depth=1, width=32, heads=2)
    path = save_model(model, tmp_path / "teacher.safetensors")
    return ["model=student_xs", f"teacher.checkpoint={path}", "teacher.check=false"]


def read(file):
    return torch.load(file, weights_only=True)


def scored(checkpoint, root, output, flip_test):
    """The evaluate command's metrics of a checkpoint on the tiny data set."""
    overrides = ["data=custom", f"data.root={root}", "data.num_workers=0", "device=cpu", f"checkpoint={checkpoint}"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("evaluate", [*overrides, f"output={output}", f"flip_test={str(flip_test).lower()}"])
    return evaluate.main.__wrapped__(cfg)["rows"][0]


@pytest.mark.slow
def test_teacher_then_student(trained, tmp_path):
    teacher = trained("teacher", "model=teacher_xs", "loss=heatmap_ce", "method.sigma=1", "trainer.max_epochs=12")
    student = trained(
        "student",
        "model=student_xs",
        f"teacher.checkpoint={teacher}/checkpoints/best.ckpt",
        "teacher.check=false",
        "trainer.max_epochs=12",
        "trainer.check_val_every_n_epoch=4",
        "method.flip_test=false",
    )
    for folder, flip_test in ((teacher, True), (student, False)):
        assert {path.name for path in folder.iterdir()} == {
            "config.yaml", "environment.json", "metrics.csv", "metrics.json", "checkpoints", "pictures"
        }  # fmt: skip
        assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "recent.ckpt"}
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert "${" not in (folder / "config.yaml").read_text()
        assert config["data"]["input_size"] == [64, 48]
        assert config["folder"] == str(folder)
        rows = read_table(folder / "metrics.csv")
        assert [row["epoch"] for row in rows] == list(range(12))
        summary = yaml.safe_load((folder / "metrics.json").read_text())
        assert summary["monitor"] == "val/AP"
        assert summary["last"]["epoch"] == 11
        assert summary["best"]["val/AP"] == max(row.get("val/AP", -1) for row in rows)
        for which in ("best", "last"):
            row = scored(folder / "checkpoints" / f"{which}.ckpt", trained.root, folder / which, flip_test)
            for name in ("AP", "AP50", "AR", "PCK"):
                assert summary[which][f"val/{name}"] == pytest.approx(row[name], abs=1e-6)
        assert summary["last"]["val/PCK"] > 0.3  # the same standing pose everywhere is soon learnt
    assert [row["epoch"] for row in read_table(student / "metrics.csv") if "val/AP" in row] == [3, 7, 11]
    assert {path.name for path in (student / "pictures").iterdir()} == {
        "curves.png", "health.png", *(f"persons_epoch_{epoch:04d}.png" for epoch in (3, 7, 11))
    }  # fmt: skip
    assert len(list((teacher / "pictures").iterdir())) == 7

    content = read(student / "checkpoints" / "last.ckpt")
    assert not [name for name in content["state_dict"] if "teacher" in name]
    model = load_model(student / "checkpoints" / "last.ckpt")
    assert not model.training
    assert {f"model.{name}" for name in model.state_dict()} == set(content["state_dict"])
    trainable = sum(parameter.numel() for parameter in model.parameters())
    moments = content["optimizer_states"][0]["state"].values()
    assert sum(state["exp_avg"].numel() for state in moments) == trainable


@pytest.mark.parametrize("extra", [[], [*EMA, *LOADED]], ids=["plain", "averaged, prefetched"])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(run_train, trained, teacher, extra):
    # random numbers: views of each person, and the likelihood's integral in each step
    drawing = ["augmentation=photometric", "loss.likelihood=0.01", *extra]
    reference = trained("whole", *teacher, *UNDRAWN, *drawing, "trainer.max_epochs=4")
    parts = trained("parts", *teacher, *UNDRAWN, *drawing, "trainer.max_epochs=2")
    assert read(parts / "checkpoints" / "last.ckpt")["epoch"] == 1
    status, printed = run_train(f"resume={parts}", "trainer.max_epochs=4")
    assert status == 0, printed
    first, second = (read(folder / "checkpoints" / "last.ckpt") for folder in (reference, parts))
    assert second["epoch"] == first["epoch"] == 3
    assert second["global_step"] == first["global_step"]
    states = ["state_dict", "current_model_state"] if extra else ["state_dict"]
    for state in states:
        for name, value in first[state].items():
            assert torch.equal(value, second[state][name]), name
    assert first["lr_schedulers"] == second["lr_schedulers"]
    one, other = (read_table(folder / "metrics.csv") for folder in (reference, parts))
    assert [row["epoch"] for row in other] == [0, 1, 2, 3]
    for row in (*one, *other):
        del row["seconds"]
    assert one == other
    assert yaml.safe_load((parts / "config.yaml").read_text())["trainer"]["max_epochs"] == 4


def test_a_seed_repeats_a_training_augmentation_included(trained, teacher):
    arguments = [*teacher, *UNDRAWN, "augmentation=photometric", "trainer.max_epochs=2"]
    first, again, other = (
        trained(name, *arguments, f"seed={seed}") / "checkpoints" / "last.ckpt"
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    states = [read(file)["state_dict"] for file in (first, again, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_averaged_weights_are_what_is_validated_saved_and_loaded(trained, teacher):
    folder = trained("run", *teacher, *UNDRAWN, *EMA, "trainer.max_epochs=2")
    content = read(folder / "checkpoints" / "last.ckpt")
    assert set(content["state_dict"]) == set(content["current_model_state"])
    assert all(name.startswith("model.") for name in content["state_dict"])
    assert any(
        not torch.equal(value, content["current_model_state"][key]) for key, value in content["state_dict"].items()
    )
    loaded = load_model(folder / "checkpoints" / "last.ckpt").state_dict()
    assert all(torch.equal(value, content["state_dict"][f"model.{name}"]) for name, value in loaded.items())
    (last,) = (row for row in read_table(folder / "metrics.csv") if "val/PCK" in row)
    row = scored(folder / "checkpoints" / "last.ckpt", trained.root, folder / "scored", True)
    assert last["val/PCK"] == pytest.approx(row["PCK"], abs=1e-6)


def test_a_moved_run_resumes_where_it_is_now(run_train, tiny_run, tmp_path):
    tiny_run.rename(tmp_path / "after")
    # a best score that cannot be reached: the best checkpoint must not change
    last = tmp_path / "after" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    (state,) = (state for name, state in content["callbacks"].items() if name.startswith("BestCheckpoint"))
    before = Path(state["best_model_path"]).parents[1]
    assert before != tmp_path / "after"
    state["best_model_score"] = torch.tensor(2.0)
    state["kth_value"] = torch.tensor(2.0)
    state["best_k_models"] = {state["best_model_path"]: torch.tensor(2.0)}
    torch.save(content, last)
    best = last.with_name("best.ckpt").read_bytes()
    status, printed = run_train("resume=after", "trainer.max_epochs=4")
    assert status == 0, printed
    assert last.with_name("best.ckpt").read_bytes() == best
    assert [path.name for path in last.parent.iterdir()].count("best.ckpt") == 1
    assert [row["epoch"] for row in read_table(tmp_path / "after" / "metrics.csv")] == [0, 1, 2, 3]


def test_a_checkpoint_file_is_resumed_in_a_fresh_folder(trained, tiny_run):
    before = {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()}
    new = trained("new", *ALONE, *UNDRAWN, "trainer.max_epochs=4", f"resume={tiny_run}/checkpoints/last.ckpt")
    assert [row["epoch"] for row in read_table(new / "metrics.csv")] == [2, 3]
    assert {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()} == before


def test_a_run_shorter_than_its_validation_interval_is_validated_at_its_end(trained):
    folder = trained("short", *ALONE, *UNDRAWN, "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=10")
    (row,) = read_table(folder / "metrics.csv")
    assert math.isfinite(row["val/PCK"])
    assert (folder / "checkpoints" / "best.ckpt").is_file()
    # the configured interval is saved, for a longer resumed run
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["check_val_every_n_epoch"] == 10


def test_an_epoch_that_ends_in_its_middle_has_its_own_means(trained):
    still = [*ALONE, *UNDRAWN, "optimizer.lr=0", "method.frozen=[backbone]", "trainer.max_epochs=2"]
    reference, part = trained("whole", *still), trained("part", *still, "+trainer.max_steps=3")
    batches = int(read_table(reference / "metrics.csv")[0]["step"])
    assert batches == 2
    first, second = read_table(part / "metrics.csv")
    assert (second["epoch"], second["step"]) == (1, 3)
    assert first["train/total"] == read_table(reference / "metrics.csv")[0]["train/total"]
    assert second["train/total"] not in (first["train/total"], read_table(reference / "metrics.csv")[1]["train/total"])


def test_a_checkpoint_of_another_model_is_not_resumed(run_train, tiny_coco, tiny_run):
    last = tiny_run / "checkpoints" / "last.ckpt"
    arguments = [*TINY, f"data.root={tiny_coco()}", *ALONE, f"resume={last}", "hydra.run.dir=new"]
    status, printed = run_train(*arguments, "model.width=64")
    assert status == 1
    assert "another model" in printed.splitlines()[-1]
    assert "Traceback" not in printed
    last.write_bytes(last.read_bytes()[:5000])
    status, printed = run_train(*arguments)
    assert status == 1
    assert str(last) in printed.splitlines()[-1]


def test_a_damaged_checkpoint_of_a_folder_is_skipped(run_train, tiny_run):
    old = tiny_run
    before = read_table(old / "metrics.csv")
    files = sorted((old / "checkpoints").iterdir())
    assert [file.name for file in files] == ["best.ckpt", "last.ckpt", "recent.ckpt"]
    for damaged in (files[1:2], files):
        for file in damaged:
            file.write_bytes(file.read_bytes()[:5000])
        status, printed = run_train(f"resume={old}")
        assert all(f"{file} is damaged" in printed for file in damaged)
        if damaged != files:
            assert status == 0, printed
            assert read_table(old / "metrics.csv")[-1]["val/PCK"] == before[-1]["val/PCK"]
    assert status == 1
    assert "intact checkpoint" in printed.splitlines()[-1]


def test_weights_to_start_from(run_train, trained, tiny_run):
    start = f"weights={tiny_run}/checkpoints/last.ckpt"
    new = trained("new", *ALONE, *UNDRAWN, "trainer.max_epochs=2", "optimizer.lr=0", start)
    first, second = (load_model(folder / "checkpoints" / "last.ckpt") for folder in (tiny_run, new))
    for (name, value), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(value, other), name
    arguments = [*TINY, f"data.root={trained.root}", *ALONE, "model.width=64", start, "hydra.run.dir=other"]
    status, printed = run_train(*arguments)
    assert status == 1
    assert "another model" in printed


@pytest.mark.slow
def test_weights_to_start_from_outrank_the_teachers_backbone(tiny_coco, tmp_path):
    """student_l starts from its teacher's backbone, unless weights=FILE names another start."""
    size = {"depth": 1, "width": 32, "heads": 2}
    start, teacher = create_model("student_l", **size), create_model("teacher_hrnet_w48", **size)
    overrides = [
        "model=student_l", *(f"model.{name}={value}" for name, value in size.items()), "data=custom",
        f"data.root={tiny_coco()}", f"weights={save_model(start, tmp_path / 'start.safetensors')}",
        f"teacher.checkpoint={save_model(teacher, tmp_path / 'teacher.safetensors')}", "folder=unused",
    ]  # fmt: skip
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", overrides)
    module = train.build_module(cfg, instantiate(cfg.data))
    for (name, value), wanted in zip(
        module.model.backbone.state_dict().items(), start.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(value, wanted), name


def test_a_given_mean_outranks_that_of_other_weights(tiny_coco, tmp_path):
    """Of weights=FILE and of the teacher's backbone, as of model.pretrained; without it, theirs is taken."""
    timm = {
        "backbone": "mobilenetv3_small_050",
        "input_size": (64, 48),
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }
    size = {"depth": 1, "width": 32, "heads": 2}
    start = save_model(create_model("student_timm", **size, **timm), tmp_path / "start.safetensors")
    teacher = save_model(create_model("teacher_timm", **timm), tmp_path / "teacher.safetensors")
    options = [
        "model=student_timm", "model.backbone=mobilenetv3_small_050", "model.input_size=[64,48]", "data=custom",
        f"data.root={tiny_coco()}", *(f"model.{name}={value}" for name, value in size.items()), "folder=unused",
    ]  # fmt: skip
    from_teacher = ["loss=without_tokens", f"teacher.checkpoint={teacher}", "method.backbone_from_teacher=true"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for first in (["loss=regression", f"weights={start}"], from_teacher):
            for given, expected in ([], (0.1, 0.2, 0.3)), (["model.mean=[0,0.5,0.5]"], (0.0, 0.5, 0.5)):
                cfg = compose("train", [*options, *first, *given])
                model = train.build_module(cfg, instantiate(cfg.data)).model
                assert (model.network_mean, model.network_std) == (expected, (0.4, 0.5, 0.6))


def test_mixed_precision(trained, teacher):
    arguments = [*teacher, *UNDRAWN, "trainer.max_epochs=2"]
    full = read_table(trained("full", *arguments) / "metrics.csv")
    mixed = read_table(trained("mixed", *arguments, "trainer.precision=bf16-mixed") / "metrics.csv")
    names = [f"train/{term}" for term in ("regression", "visual_token", "simulated_heatmap", "confidence", "total")]
    for a, b in zip(full, mixed, strict=True):
        assert all(math.isfinite(value) for value in b.values())
        assert [b[name] for name in names] == pytest.approx([a[name] for name in names], rel=0.1)
    assert [row["train/total"] for row in full] != [row["train/total"] for row in mixed]


def test_a_set_with_joints_of_its_own(run_train, tiny_coco, tmp_path):
    skeleton = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    root = tiny_coco(skeleton=skeleton)
    arguments = [*TINY, f"data.root={root}", "data.monitor=val/PCK", "hydra.run.dir=paws", "trainer.max_epochs=2"]
    status, printed = run_train(*arguments, *ALONE)
    assert status == 0, printed
    assert load_model(tmp_path / "paws" / "checkpoints" / "best.ckpt").skeleton.names == skeleton.names
    last = read_table(tmp_path / "paws" / "metrics.csv")[-1]
    assert 0 <= last["val/PCK"] <= 1
    assert "val/AP" not in last
