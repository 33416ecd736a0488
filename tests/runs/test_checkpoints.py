"""The newest intact checkpoint: chosen by its number of steps, not by modification time; damaged ones are skipped."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path

import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.runs.checkpoints import newest_intact


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint with that number of steps into a run's folder."""

    def call(name: str, step: int, at: int = 0):
        path = tmp_path / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        torch.save({"global_step": step, "state_dict": {"w": torch.rand(500)}}, path)
        os.utime(path, (at, at))
        return path

    return call


def test_the_most_steps_are_chosen_whatever_the_modification_time(save, tmp_path):
    assert newest_intact(tmp_path) is None
    save("best.ckpt", 90, at=30)
    save("last.ckpt", 100, at=20)
    assert newest_intact(tmp_path) == (tmp_path / "checkpoints" / "last.ckpt", 100)
    recent = save("recent.ckpt", 130, at=10)
    assert newest_intact(tmp_path) == (recent, 130)
    save("best.ckpt", 150)  # saved after a validation, before the end of its epoch
    assert newest_intact(tmp_path) == (recent, 130)
    last = save("last.ckpt", 130)  # with equal steps, the checkpoint at the end of the epoch is preferred
    assert newest_intact(tmp_path) == (last, 130)


class Pickled(torch.nn.Linear):
    """An object that torch can only unpickle by running code."""


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"global_step": None}, Pickled(1, 1)], ids=repr)
def test_a_file_of_something_else_is_skipped(save, tmp_path, caplog, content):
    last, recent = save("last.ckpt", 2), save("recent.ckpt", 3)
    torch.save(content, recent)
    assert newest_intact(tmp_path).path == last
    (message,) = caplog.messages
    assert f"{recent} is damaged (" in message
    assert "\n" not in message


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_one_is_skipped_with_a_warning(save, tmp_path, caplog, damage):
    best, last, recent = (save(f"{name}.ckpt", step) for name, step in (("best", 1), ("last", 2), ("recent", 3)))

    def damage_file(path):
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle] ^= 1
        path.write_bytes({"cut": content[:middle], "flipped": content, "empty": b"", "text": b"no checkpoint"}[damage])

    for damaged, expected in ((recent, last), (last, best)):
        damage_file(damaged)
        assert newest_intact(tmp_path).path == expected
        assert f"{damaged} is damaged" in caplog.messages[-1]
    damage_file(best)
    assert newest_intact(tmp_path) is None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOMEM])
@pytest.mark.parametrize("call", ["stat", "open"])
def test_a_checkpoint_that_the_system_does_not_let_read_is_neither_damaged_nor_missing(
    save, tmp_path, monkeypatch, caplog, number, call
):
    """Else the run would resume from an older one, or start again in its place."""
    save("last.ckpt", 10)
    recent = save("recent.ckpt", 20)
    original = Path.stat if call == "stat" else zipfile.ZipFile

    def refuse(path, *args, **kwargs):
        if Path(path) == recent:
            raise OSError(number, os.strerror(number), str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(*((Path, "stat") if call == "stat" else (zipfile, "ZipFile")), refuse)
    with pytest.raises(DistilPoseError, match=os.strerror(number)) as error:
        newest_intact(tmp_path)
    assert str(recent) in str(error.value)
    assert "damaged" not in caplog.text
