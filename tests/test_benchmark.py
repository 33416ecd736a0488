"""The benchmark command: timing, and its table."""

from __future__ import annotations

import sys
import time

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch import nn

from distilpose import benchmark, create_model
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.models import count_parameters, save_model


class Sleeper(nn.Module):
    """Takes a fixed time, and records the shapes of its inputs."""

    input_size = (8, 6)

    def __init__(self, seconds):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seconds, self.shapes = seconds, []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        time.sleep(self.seconds)
        return images


@pytest.mark.slow
def test_latencies_are_medians_in_milliseconds():
    models = {"slow": Sleeper(0.02), "quick": Sleeper(0.004)}
    times = benchmark.latencies(models, batch_size=3, rounds=5, warmup=2)
    assert list(times) == ["slow", "quick"]
    assert 20 <= times["slow"] < 60
    assert 4 <= times["quick"] < 20
    for model in models.values():
        assert model.shapes == [(3, 3, 8, 6)] * 7


@pytest.mark.slow
def test_the_first_passes_do_not_count():
    class Warming(Sleeper):
        def forward(self, images):
            self.seconds = 0.05 if len(self.shapes) < 2 else 0.0
            return super().forward(images)

    assert benchmark.latencies({"a": Warming(0)}, rounds=3, warmup=2)["a"] < 30


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
        GlobalHydra.instance().clear()
        benchmark.main()
        return capsys.readouterr().out

    return call


def test_one_table_of_names_and_files(run, tmp_path):
    torch.manual_seed(0)
    model = create_model("student_xs", depth=1, width=32, heads=2)
    save_model(model, tmp_path / "mine.safetensors")
    save_model(model, tmp_path / "shared" / "model.safetensors")
    threads = torch.get_num_threads()
    try:
        printed = run("models=[teacher_xs,mine.safetensors,shared]", "rounds=2", "warmup=1", "device=cpu", "threads=1")
    finally:
        torch.set_num_threads(threads)
    rows = [line for line in printed.splitlines() if "64x48" in line]
    assert [name in row for name, row in zip(("teacher_xs", "mine.safetensors", "shared"), rows, strict=True)] == [
        True
    ] * 3
    assert all(f"{count_parameters(model):,}" in row for row in rows[1:])
    assert rows[0].rstrip(" │").endswith("1.00")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.safetensors", "shared"]


def test_exported_files_take_turns_with_pytorch(run, tmp_path):
    printed = run(
        "models=[student_xs]", "formats=[onnx,pytorch,onnx]", "rounds=1", "warmup=0", "device=cpu", "threads=1"
    )
    rows = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if "64x48" in line]
    assert [row[5] for row in rows] == ["onnx", "pytorch"]
    assert rows[0][7] == "1.00"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_named(run):
    with pytest.raises(SystemExit, match="student_m"):
        run("models=[student_m]")


@pytest.mark.parametrize(
    "wrong",
    [
        "rounds=0",
        "batch_size=0",
        "warmup=-1",
        "threads=0",
        "models=[]",
        "models=student_s",
        "formats=[]",
        "formats=[tflite]",
    ],
)
def test_wrong_settings_are_named(wrong):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        right, cfg = (compose("benchmark", overrides) for overrides in ([], [wrong]))
    validate(right, benchmark.BenchmarkSettings)
    with pytest.raises(DistilPoseError, match=wrong.partition("=")[0]):
        validate(cfg, benchmark.BenchmarkSettings)
