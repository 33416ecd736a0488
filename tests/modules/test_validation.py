"""The validation of a training: the persons shown, agreement of processes, and what is logged once."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import pytest
import torch

from distilpose import create_model
from distilpose.data import CocoDataModule
from distilpose.errors import DistilPoseError
from distilpose.losses import HeatmapMSE
from distilpose.modules import HeatmapModule
from distilpose.modules.validation import Validation, check_monitors
from distilpose.outputs import Predictions
from distilpose.skeleton import COCO

FILES = ("annotations/train.json", "train", "annotations/val.json", "val")


@pytest.fixture
def data(tiny_coco):
    """Makes the data of a tiny set after a change of its validation annotations."""

    def make(change=lambda content: None, **options):
        root = tiny_coco(val=6)
        file = root / "annotations" / "val.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        return CocoDataModule(root, *FILES, input_size=(64, 48), num_workers=0, **options)

    return make


def labels(dataset, chosen=slice(None)):
    people = dataset.instances.take(chosen)
    keypoints = torch.from_numpy(people.keypoints)
    ids = (torch.from_numpy(field) for field in (people.image_ids, people.annotation_ids))
    boxes = torch.from_numpy(people.boxes).float()
    return Predictions(keypoints, torch.ones(keypoints.shape[:2]), *ids, boxes, torch.ones(len(keypoints)))


def test_a_part_of_the_persons_is_logged_and_a_metric(data, caplog):
    dataset, validation = data().val_dataset(), Validation()
    for _ in range(3):
        figures = validation(labels(dataset, slice(4)), dataset).metrics
    assert (figures["AP"], figures["PCK"], figures["persons"]) == (1.0, 1.0, 4.0)
    assert caplog.text.count(f"on 4 of {len(dataset)} persons") == 1
    assert "persons" not in Validation()(labels(dataset), dataset).metrics


def test_a_crowded_image_is_logged_once(data, caplog):
    def crowd(content):
        first = content["annotations"][0]
        content["annotations"] = [
            {**first, "id": n, "keypoints": [v + 60 * n * (k % 3 == 0) for k, v in enumerate(first["keypoints"])]}
            for n in range(30)
        ]

    dataset, validation = data(crowd).val_dataset(), Validation()
    for _ in range(2):
        assert validation(labels(dataset), dataset).metrics["AR"] == pytest.approx(20 / 30)
    assert caplog.text.count("30 persons on image 1: COCO counts 20") == 1


def stub_trainer(datamodule, *monitors):
    callbacks = [SimpleNamespace(monitor=monitor) for monitor in monitors]
    return SimpleNamespace(datamodule=datamodule, callbacks=[SimpleNamespace(), *callbacks])


def without_hips(content, persons=slice(None)):
    for person in content["annotations"][persons]:
        for hip in (COCO.names.index("left_hip"), COCO.names.index("right_hip")):
            person["keypoints"][3 * hip : 3 * hip + 3] = [0, 0, 0]


def test_a_monitor_without_a_value_is_an_error_at_the_start(data, caplog):
    with pytest.raises(DistilPoseError, match=r"val/PCK has no value .*val/PCK_box"):
        check_monitors(stub_trainer(data(without_hips), None, "val/PCK"))
    check_monitors(stub_trainer(data(without_hips), "val/PCK_box", "train/total_epoch", "val/mine"))
    caplog.set_level("INFO")
    some = data(functools.partial(without_hips, persons=slice(3)))
    check_monitors(stub_trainer(some, "val/PCK", "val/PCK"))
    assert caplog.text.count(f"of {len(some.val_dataset())} validation persons") == 1


def module_of(trainer, datamodule, own):
    module = HeatmapModule(create_model("teacher_xs", depth=1, width=32, heads=2), HeatmapMSE(), optimizer=None)
    module._trainer = SimpleNamespace(datamodule=datamodule, sanity_checking=False, current_epoch=2, **trainer)
    module._predictions = [own]
    module.log_dict = lambda *arguments, **options: None
    return module


@pytest.mark.parametrize("rank", [0, 1])
def test_numbers_that_are_not_finite_are_an_error_in_all_processes(data, monkeypatch, rank):
    """Also in the process whose own are finite: it would wait in the gather for the one that has raised."""
    datamodule = data()
    parts = [labels(datamodule.val_dataset(), slice(number, None, 2)) for number in (0, 1)]
    parts[0].keypoints[1] = float("nan")
    gathered = []

    def gather(into, own):
        gathered.append(own)
        into[:] = [tuple(part) for part in parts]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    module = module_of({"world_size": 2, "global_rank": rank, "is_global_zero": rank == 0}, datamodule, parts[rank])
    with pytest.raises(DistilPoseError, match=f"not finite for 1 of {len(datamodule.val_dataset())} persons"):
        module.on_validation_epoch_end()
    assert len(gathered) == 1


def test_two_processes_that_show_a_part(data, monkeypatch):
    datamodule = data()
    parts = [labels(datamodule.val_dataset(), slice(number, 4, 2)) for number in (0, 1)]
    monkeypatch.setattr(
        torch.distributed,
        "all_gather_object",
        lambda into, own: into.__setitem__(slice(None), [tuple(p) for p in parts]),
    )
    strategy = SimpleNamespace(broadcast=lambda outcome: outcome)
    module = module_of(
        {"world_size": 2, "global_rank": 0, "is_global_zero": True, "strategy": strategy}, datamodule, parts[0]
    )
    logged = {}
    module.log_dict = lambda values, **options: logged.update(values)
    module.on_validation_epoch_end()
    assert (logged["val/AP"], logged["val/PCK"], logged["val/persons"]) == (1.0, 1.0, 4.0)
