"""Reading files that the W&B library has written."""

from __future__ import annotations

import numpy as np
import pytest
import wandb
from offline import closed_file
from wandb_offline import find_logged, read_logged

from distilpose.errors import DistilPoseError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run with numbers, text, a picture, a nested value, and a row longer than a block of the file."""
    folder = tmp_path_factory.mktemp("run")
    settings = wandb.Settings(mode="offline", silent=True)
    config = {"model": {"name": "xs", "sizes": [1, 2]}, "rate": 0.5}
    with wandb.init(
        dir=folder, project="p", name="n", group="g", job_type="j", tags=["t"], config=config, settings=settings
    ) as run:
        for step in range(3):
            run.log({"loss": 1.5 * step, "trainer/global_step": 10 * step})
        run.log({"long": "x" * 100_000, "inner": {"a": 1, "b": 2}})
        run.log(
            {"picture": wandb.Image(np.zeros((4, 4, 3), np.uint8)), "broken": float("nan"), "trainer/global_step": 30}
        )
    return closed_file(folder)


def test_what_was_logged_is_read(written):
    run = read_logged(written)
    assert (run.name, run.project, run.group, run.job_type, run.tags, run.exit_code) == ("n", "p", "g", "j", ["t"], 0)
    assert {name: run.config[name] for name in ("model", "rate")} == {
        "model": {"name": "xs", "sizes": [1, 2]}, "rate": 0.5
    }  # fmt: skip
    assert run.history["loss"] == [(0, 0.0), (10, 1.5), (20, 3.0)]
    assert run.history["long"] == [(None, "x" * 100_000)]
    assert run.history["inner.a"] == [(None, 1)]
    assert run.history["picture"][0][1]["_type"] == "image-file"
    assert run.kinds() == {
        "broken": "number", "inner.a": "number", "inner.b": "number", "long": "text", "loss": "number",
        "picture": "image-file",
    }  # fmt: skip


def test_the_complete_records_of_a_truncated_file_are_read(written, tmp_path):
    content = written.read_bytes()
    counts = set()
    for length in range(7, len(content), 997):
        part = tmp_path / "part.wandb"
        part.write_bytes(content[:length])
        run = read_logged(part)
        assert run.exit_code is None
        rows = run.history.get("loss", [])
        assert rows == [(0, 0.0), (10, 1.5), (20, 3.0)][: len(rows)]
        counts.add(len(rows))
    assert {0, 3} <= counts
    part.write_bytes(content + bytes(500))  # zeros after the last record, as in a preallocated file
    assert read_logged(part).exit_code == 0


def test_errors(written, tmp_path):
    assert find_logged(written) == [written]
    with pytest.raises(DistilPoseError, match="holds no W&B run"):
        find_logged(tmp_path)
    other = tmp_path / "run-x.wandb"
    other.write_text("something else")
    with pytest.raises(DistilPoseError, match=r"run-x\.wandb' is not a \.wandb file"):
        read_logged(other)
