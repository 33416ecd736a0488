"""The effective batch of a resumed run: the same number of crops in other parts, or an error."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.runs.effective_batch import Batch, batch_of_checkpoint, batch_of_run, check_effective_batch


def run(crops, devices, accumulated, **options):
    trainer = {"accelerator": "cpu", "devices": devices, "num_nodes": 1, "accumulate_grad_batches": accumulated}
    return OmegaConf.create({"data": {"batch_size": crops}, "trainer": trainer, **options})


def checkpoint(*step, **options):
    return {
        "CocoDataModule": {"epochs": 1, "batches": 0, "step": list(step)},
        "callbacks": {"a": {"step": 1}},
        **options,
    }


def test_the_batch_of_a_run_and_of_a_checkpoint():
    assert batch_of_run(run(32, 2, 3)) == Batch(32, 2, 3)
    assert batch_of_run(run(32, 2, 3)).effective == 192
    assert batch_of_checkpoint(checkpoint(32, 8, 1)) == Batch(32, 8, 1)
    for old in ({}, {"CocoDataModule": {"epochs": 1, "batches": 0}}, checkpoint()):
        assert batch_of_checkpoint(old) is None


def test_the_number_of_devices_is_that_of_this_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for gpus in (8, 4):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        cfg = run(32, "auto", 1)
        cfg.trainer.accelerator = "auto"
        assert batch_of_run(cfg) == Batch(32, gpus, 1)
    with pytest.raises(
        DistilPoseError, match=r"256 .*128 .*trainer\.accumulate_grad_batches=2,.*batch_may_change=true"
    ):
        check_effective_batch(cfg, checkpoint(32, 8, 1))
    cfg.trainer.accumulate_grad_batches = 2
    check_effective_batch(cfg, checkpoint(32, 8, 1))


@pytest.mark.parametrize("same_command", [False, True])
def test_another_split_is_logged_and_another_batch_is_an_error(caplog, same_command):
    with caplog.at_level(logging.INFO, "distilpose"):
        check_effective_batch(run(4, 2, 1), checkpoint(4, 2, 1), same_command)
        assert not caplog.records
        check_effective_batch(run(4, 1, 2), checkpoint(4, 2, 1), same_command)
        assert "stays 8" in caplog.text
        check_effective_batch(run(4, 1, 1, batch_may_change=True), checkpoint(4, 2, 1), same_command)
        assert "from 8 " in caplog.text
        check_effective_batch(run(4, 1, 1), {}, same_command)
        assert "does not state" in caplog.text
    with pytest.raises(DistilPoseError, match=r"effective batch of 8 .*has 4 "):
        check_effective_batch(run(4, 1, 1), checkpoint(4, 2, 1), same_command)


sizes = st.integers(1, 64)


@given(sizes, sizes, sizes, sizes, sizes)
def test_the_way_out_keeps_the_batch(crops, processes, accumulated, now_crops, now_processes):
    """The settings that the message names give the batch of the checkpoint."""
    before = Batch(crops, processes, accumulated)
    if before.effective == now_crops * now_processes:
        check_effective_batch(run(now_crops, now_processes, 1), checkpoint(*before))
        return
    with pytest.raises(DistilPoseError) as error:
        check_effective_batch(run(now_crops, now_processes, 1), checkpoint(*before))
    text = str(error.value)
    words = dict(word.rstrip(",").split("=") for word in text.split() if word.startswith(("data.", "trainer.")))
    if words:
        crops = int(words.get("data.batch_size", now_crops))
        assert crops * now_processes * int(words["trainer.accumulate_grad_batches"]) == before.effective
    else:
        assert before.effective % now_processes
        assert f"{processes} devices" in text
