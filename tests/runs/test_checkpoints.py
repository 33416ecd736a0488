"""The newest intact checkpoint: by its own count of steps, whatever the clock says; damaged ones are skipped."""

from __future__ import annotations

import os

import pytest
import torch

from distilpose.runs.checkpoints import newest_intact


@pytest.fixture
def save(tmp_path):
    """Writes a checkpoint of so many steps into a run's folder."""

    def call(name: str, step: int, at: int = 0):
        path = tmp_path / "checkpoints" / name
        path.parent.mkdir(exist_ok=True)
        torch.save({"global_step": step, "state_dict": {"w": torch.rand(500)}}, path)
        os.utime(path, (at, at))
        return path

    return call


def test_the_furthest_is_taken_whatever_the_clock_says(save, tmp_path):
    assert newest_intact(tmp_path) is None
    save("best.ckpt", 90, at=30)
    save("last.ckpt", 100, at=20)
    assert newest_intact(tmp_path) == (tmp_path / "checkpoints" / "last.ckpt", 100)
    recent = save("recent.ckpt", 130, at=10)
    assert newest_intact(tmp_path) == (recent, 130)
    save("best.ckpt", 150)  # saved by a validation, before the end of its epoch
    assert newest_intact(tmp_path) == (recent, 130)
    last = save("last.ckpt", 130)  # at the same step the end of an epoch is further than its middle
    assert newest_intact(tmp_path) == (last, 130)


class Pickled(torch.nn.Linear):
    """What torch would only unpickle by running code."""


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

    def spoil(path):
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle] ^= 1
        path.write_bytes({"cut": content[:middle], "flipped": content, "empty": b"", "text": b"no checkpoint"}[damage])

    for spoilt, left in ((recent, last), (last, best)):
        spoil(spoilt)
        assert newest_intact(tmp_path).path == left
        assert f"{spoilt} is damaged" in caplog.messages[-1]
    spoil(best)
    assert newest_intact(tmp_path) is None
