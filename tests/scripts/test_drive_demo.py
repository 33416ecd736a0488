"""The page in a real browser, with networks of random weights: the page must work for any prediction."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

from distilpose.models import create_model, save_model


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("chromium") is None or importlib.util.find_spec("playwright") is None,
    reason="no Chromium or no playwright",
)
def test_the_page_in_chromium(load_script, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "scripts")  # a script finds the modules beside it
    torch.manual_seed(0)
    models = {}
    for role, kind in (("student", "student_xs"), ("compare", "student_xs"), ("teacher", "teacher_xs")):
        model = create_model(kind)
        if role != "teacher":
            with torch.no_grad():
                model.head.linear.bias[2] += 0.6  # confident enough for its joints to be drawn
        models[role] = str(save_model(model, tmp_path / f"{role}.safetensors"))
    others = ["--compare", models["compare"], "--teacher", models["teacher"]]
    load_script("drive_demo").main([models["student"], *others, "--output", str(tmp_path / "pictures")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 17
    assert all(line.startswith("ok ") for line in lines)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["demo_phone.png", "demo_wide.png"]
