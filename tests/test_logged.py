"""What a training logs to W&B, TensorBoard and MLflow, read from their files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from offline import closed_file
from processes import finish, start
from wandb_offline import read_logged

from distilpose import create_model
from distilpose.callbacks.metrics_table import read_table
from distilpose.models import save_model
from distilpose.skeleton import COCO

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "data.monitor=val/AP", "augmentation=none",
    "model.depth=1", "model.width=32", "model.heads=2", "scheduler.warmup_steps=0", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=2",
]  # fmt: skip
SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
PICTURES = {"persons", "health", "curves", "shares"}
HISTOGRAMS = {f"val_distribution/{name}" for name in ("confidence", "joint_oks", "sigma_x", "sigma_y")}


SHARED: dict[str, Path] = {}


@pytest.fixture
def student(tmp_path):
    """Overrides of a student with an untrained teacher, and the loss with the most terms."""
    torch.manual_seed(1)
    path = save_model(create_model("teacher_xs", depth=1, width=32, heads=2), tmp_path / "teacher.safetensors")
    return ["model=student_xs", "loss=distilpose_plus", f"teacher.checkpoint={path}", "teacher.check=false"]


@pytest.fixture
def trained(trained_by):
    """A function that trains on the tiny set in the folder of that name, and returns the folder."""
    return trained_by(TINY, train=10)


@pytest.fixture
def folder(trained, student):
    """The folder of a student's run with all loggers, which the tests of this file share."""
    if "run" not in SHARED:
        pytest.importorskip("mlflow")
        settings = ["callbacks=diagnosis", "method.layer_decay=0.5", "method.flip_test=false"]
        settings += ["logger=[wandb,tensorboard,mlflow]", "logger.wandb.mode=offline"]
        SHARED["run"], SHARED["data"] = trained("run", *student, *settings), trained.root
    return SHARED["run"]


@pytest.fixture
def persons(folder):
    """The annotated validation persons of the shared run."""
    return json.loads((SHARED["data"] / "annotations" / "val.json").read_text())["annotations"]


def logged(folder):
    return read_logged(closed_file(folder))


def last(run, key):
    return run.history[key][-1][1]


def test_a_students_wandb_run(folder):
    run = logged(folder)
    assert run.exit_code == 0
    assert (run.name, run.project, run.group, run.job_type, run.tags) == ("student_xs", "distilpose", "", "", [])

    kinds = run.kinds()
    assert {key for key, kind in kinds.items() if kind == "images/separated"} == PICTURES
    assert {key for key, kind in kinds.items() if kind == "histogram"} == HISTOGRAMS
    tables = {"tables/persons", "curves/precision_recall_table", "curves/calibration_table"}
    assert {key for key, kind in kinds.items() if kind == "table-file"} == tables
    assert all(len(run.history[key]) == 2 for key in (*PICTURES, *HISTOGRAMS, *tables))  # a validation each

    # the figures of the module are in the table, and those of loggers only are not
    rows = read_table(folder / "metrics.csv")
    for name in ("val/AP", "val/PCK", "health/sigma_median"):
        assert [value for _, value in run.history[name]] == pytest.approx([row[name] for row in rows]), name
    assert not [name for name in rows[0] if name.startswith(("share/", "speed/", "val_joints/"))]

    others = ("train/total", "train/learning_rate", "train/share_")
    terms = {name for name in rows[-1] if name.startswith("train/") and not name.startswith(others)}
    used = {name.removeprefix("train/") for name in terms if rows[-1][name] != 0}
    assert {key.removeprefix("share/") for key in kinds if key.startswith("share/")} == used
    assert {"likelihood", "simulated_heatmap", "confidence", "visual_token", "keypoint_token"} == used
    total = sum(abs(rows[-1][f"train/{name}"]) for name in used)
    for name in used:
        assert last(run, f"share/{name}") == pytest.approx(rows[-1][f"train/{name}"] / total, rel=1e-5)

    steps = [step for step, _ in run.history["speed/persons_per_second"]]
    assert steps == [2, 3, 5, 6]  # three batches an epoch, logged every two and at its end
    assert all(value > 0 for _, value in run.history["speed/persons_per_second"])
    assert all(0 <= value <= 1 for _, value in run.history["speed/waiting_share"])
    assert "speed/gpu_memory_gib" not in kinds

    config = run.config
    assert config["model"]["name"] == "student_xs"
    assert config["trainer"]["max_epochs"] == 2
    environment = config["environment"]
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    teacher = Path(environment["digests"]["teacher_checkpoint"]["file"])
    assert environment["digests"]["teacher_checkpoint"]["sha256"] == hashlib.sha256(teacher.read_bytes()).hexdigest()
    written = json.loads((folder / "environment.json").read_text())["started"]
    assert {name: written[name] for name in environment} == environment


def test_the_table_of_persons_and_the_joints(folder, persons):
    run = logged(folder)
    (file,) = folder.glob(f"wandb/offline-run-*/files/{last(run, 'tables/persons')['path']}")
    table = json.loads(file.read_text())
    columns, rows = table["columns"], table["data"]
    assert columns == [
        "picture",
        "epoch",
        "person",
        "image",
        "OKS",
        "score",
        *(f"error of {name}" for name in COCO.names),
    ]
    assert sorted(row[2] for row in rows) == sorted(person["id"] for person in persons)
    # the pictures, two crops side by side, are in the folder where W&B keeps a table's parts until it sends them
    parts = [cv2.imread(str(part)) for part in (folder / "wandb" / "artifacts" / "staging").iterdir()]
    assert sum(part is not None and part.shape == (64, 96, 3) for part in parts) >= len(rows)
    sigmas = np.array(COCO.sigmas)
    for row in rows:
        (person,) = (person for person in persons if person["id"] == row[2])
        w, h = person["bbox"][2:]
        # a crop of 64 x 48 pixels shows 1.25 times the box, after the box is enlarged to the crop's aspect ratio
        pixels = 64 / (1.25 * max(h, w * 64 / 48))
        labelled = np.array(person["keypoints"][2::3]) > 0
        assert [value is not None for value in row[6:]] == labelled.tolist()
        errors = np.array([value for value in row[6:] if value is not None]) / pixels
        similarity = np.exp(-(errors**2) / (2 * person["area"] * (2 * sigmas[labelled]) ** 2))
        assert row[4] == pytest.approx(similarity.mean(), rel=0.1, abs=1e-6)  # boxes are clipped by a pixel
    joints = {
        key.rpartition("/")[2]: rows[-1][1] for key, rows in run.history.items() if key.startswith("val_joints/PCK")
    }
    assert set(joints) == set(COCO.names)
    labels = {name: sum(row[6 + k] is not None for row in rows) for k, name in enumerate(COCO.names)}
    mean = sum(joints[name] * labels[name] for name in joints) / sum(labels.values())
    assert mean == pytest.approx(last(run, "val/PCK"), abs=1e-6)


def test_the_mean_of_precision_by_recall_is_ap(trained):
    settings = ["model=teacher_xs", "loss=heatmap_ce", "method.sigma=1", "optimizer.lr=5e-3", "trainer.max_epochs=12"]
    folder = trained("run", *settings, "trainer.check_val_every_n_epoch=12", "logger.wandb.mode=offline")
    run = logged(folder)
    assert last(run, "val/AP") > 0
    (file,) = folder.glob(f"wandb/offline-run-*/files/{last(run, 'curves/precision_recall_table')['path']}")
    table = json.loads(file.read_text())
    assert table["columns"] == ["step", "lineKey", "lineVal"]
    for name, figure in (("OKS 0.50", "AP50"), ("OKS 0.75", "AP75"), ("mean of 0.50 to 0.95", "AP")):
        values = [row[2] for row in table["data"] if row[1] == name]
        assert len(values) == 101
        assert np.mean(values) == pytest.approx(last(run, f"val/{figure}"), abs=1e-6)
    # a teacher has neither tokens nor sigmas, and a single term has no shares
    kinds = run.kinds()
    assert {key for key, kind in kinds.items() if kind == "images/separated"} == {"persons", "curves"}
    assert not [key for key in kinds if key.startswith(("share/", "health/"))]
    assert set(run.config["environment"]["digests"]) == {"train_annotations", "val_annotations"}


def test_tensorboard_has_the_same(folder, persons):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    assert set(tags["images"]) == PICTURES
    assert set(tags["histograms"]) == HISTOGRAMS
    rows = read_table(folder / "metrics.csv")
    assert [event.value for event in events.Scalars("val/PCK")] == pytest.approx([row["val/PCK"] for row in rows])
    assert {"speed/persons_per_second", "share/likelihood", "val_joints/PCK/nose"} <= set(tags["scalars"])
    text = events.Tensors("tables/persons/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text.count("\n") == 1 + len(persons)
    assert all(f"| {person['id']} |" in text for person in persons)
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["environment"]["processes"] == 1


def test_mlflow_has_the_same(folder, persons):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("distilpose").experiment_id])
    assert run.info.status == "FINISHED"
    (row,) = read_table(folder / "metrics.csv")[-1:]
    assert run.data.metrics["val/PCK"] == pytest.approx(row["val/PCK"])
    assert {"speed/persons_per_second", "share/likelihood", "val_joints/PCK/nose"} <= set(run.data.metrics)
    assert run.data.params["model/name"] == "student_xs"
    assert len(run.data.params["environment/digests/val_annotations/sha256"]) == 64
    pictures = {file.name.partition("+")[0] for file in folder.glob("artifacts/**/*.png")}
    assert pictures == PICTURES
    table = sorted(folder.glob("artifacts/**/tables/persons_step_*.csv"))[-1].read_text().splitlines()
    assert len(table) == 1 + len(persons)
    assert len(table[0].split(",")) == 5 + 17


def test_without_a_logger_the_folder_has_the_provenance(trained, run_train):
    folder = trained("run", "model=student_xs", "loss=regression", "logger=none", "trainer.max_epochs=1")
    content = json.loads((folder / "environment.json").read_text())
    assert content["resumed"] == []
    assert not (folder / "wandb").exists()
    assert (folder / "pictures" / "curves.png").is_file()
    status, message = run_train(f"resume={folder}", "trainer.max_epochs=2")
    assert status == 0, message
    again = json.loads((folder / "environment.json").read_text())
    assert again["started"] == content["started"]
    (resumed,) = again["resumed"]
    assert resumed["digests"] == content["started"]["digests"]


@pytest.mark.slow
def test_two_processes_log_one_run(tiny_coco, student, tmp_path):
    """Run as a command, because a process that has computed gradients cannot be forked for training."""
    two = ["trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=2", "logger.wandb.mode=offline"]
    place = [f"data.root={tiny_coco(train=10)}", "hydra.run.dir=run"]
    status, _, err = finish(start(tmp_path, *TINY, *student, *two, *place))
    assert status == 0, err
    run = logged(tmp_path / "run")
    assert run.exit_code == 0
    assert run.config["environment"]["processes"] == 2
    for key in ("tables/persons", "curves/precision_recall_table", "share/likelihood", "val_joints/PCK/nose"):
        assert [step for step, _ in run.history[key]] == [3, 6], key
    assert [step for step, _ in run.history["speed/persons_per_second"]] == [2, 3, 5, 6]


@pytest.mark.slow
def test_the_jobs_of_a_multirun_are_one_group(run_train, tiny_coco, tmp_path):
    """Jobs on several devices: tests/test_train_processes.py."""
    settings = ["model=student_xs", "loss=regression", "trainer.max_epochs=1", "logger.wandb.mode=offline", "seed=0,1"]
    undrawn = ["~callbacks.pictures", "~callbacks.health", "~callbacks.details"]
    places = [f"data.root={tiny_coco(train=10)}", "hydra.sweep.dir=rates", "hydra.sweep.subdir=${seed}"]
    status, message = run_train("-m", *TINY, *settings, *undrawn, *places)
    assert status == 0, message
    runs = [logged(tmp_path / "rates" / seed) for seed in ("0", "1")]
    assert [(run.group, run.job_type, run.tags) for run in runs] == 2 * [("rates", "sweep", ["rates"])]
    assert [run.config["seed"] for run in runs] == [0, 1]
    assert [run.config["environment"]["sweep"] for run in runs] == ["rates", "rates"]
    assert [run.config["environment"]["processes"] for run in runs] == [1, 1]


@pytest.fixture
def dashboard(load_script):
    return load_script("create_dashboard")


def test_every_panel_of_the_dashboard_has_its_key(folder, dashboard, tmp_path):
    keys = logged(folder).history
    dashboard.main(["--project", "mine", "--output", str(tmp_path / "spec.json")])
    for part in json.loads((tmp_path / "spec.json").read_text()).values():
        panel_keys = set(dashboard.keys_of(part["spec"]))
        assert len(panel_keys) > 20
        missing = {key for key in panel_keys if not any(re.fullmatch(key, name) for name in keys)}
        assert missing == {"speed/gpu_memory_gib"}  # only logged on a GPU


def test_the_document_lists_the_keys(folder):
    text = (SCRIPTS.parent / "docs" / "dashboards.md").read_text().partition("### Keys")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", text, flags=re.MULTILINE)
    patterns = [re.escape(name) for cell in cells for name in re.findall("`([^`]+)`", cell)]
    patterns = [re.sub(r"<\w+>", ".+", pattern) for pattern in patterns]
    keys = logged(folder).history
    assert [key for key in keys if not any(re.fullmatch(pattern, key) for pattern in patterns)] == []
    unlogged = [pattern for pattern in patterns if not any(re.fullmatch(pattern, key) for key in keys)]
    assert unlogged == ["speed/gpu_memory_gib"]
