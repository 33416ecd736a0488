"""Listing what a run logged."""

from __future__ import annotations

import pytest
import wandb
from offline import closed_file


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("list_logged")


def test_keys_and_configuration(script, tmp_path, capsys):
    settings = wandb.Settings(mode="offline", silent=True)
    with wandb.init(dir=tmp_path, project="p", name="n", group="g", config={"a": {"b": 3}}, settings=settings) as run:
        run.log({"val/PCK": 0.123456, "sigmas": wandb.Histogram([1.0, 2.0])})
        run.log({"val/PCK": 0.25})
    closed_file(tmp_path)
    script.main([str(tmp_path), "--config", "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert "n of project p, group g, " in lines[0]
    assert "| `val/PCK` | number | 2 | 0.25 |" in lines
    assert "| `sigmas` | histogram | 1 | 65 edges |" in lines
    assert "a.b: 3" in lines
    script.main([str(tmp_path)])
    assert "val/PCK" in capsys.readouterr().out


def test_a_folder_without_a_run(script, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .* holds no W&B run"):
        script.main([str(tmp_path)])
