"""Compare size, compute and speed of models: `python -m distilpose.benchmark models=[student_s,teacher_stem]`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le, MinLen
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from distilpose.cli.command import command
from distilpose.evaluation import choose_device
from distilpose.models import PoseModel, count_gmacs, count_parameters, create_model, load_model


class BenchmarkSettings:
    """Settings of the benchmark command.

    Attributes:
        models: registry names or checkpoint files; ratios are relative to the first.
        batch_size: crops per forward pass.
        rounds: timed forward passes of each model; the models take turns, and the median is shown.
        warmup: forward passes of each model before timing starts.
        threads: CPU threads; null uses one per core.
        device: auto, cpu, cuda or cuda:1.
    """

    models: Annotated[list[str | Path], MinLen(1)]
    batch_size: Annotated[int, Ge(1)]
    rounds: Annotated[int, Ge(1)]
    warmup: Annotated[int, Ge(0)]
    threads: Annotated[int, Ge(1), Le(1024)] | None
    device: str


@command("benchmark", BenchmarkSettings)
def main(cfg: DictConfig) -> None:
    """Print one table. Milliseconds are valid for this machine only; the ratios are comparable."""
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    device = choose_device(cfg.device)
    models = {name: (load_model(name) if _is_file(name) else create_model(name)).eval() for name in cfg.models}
    times = latencies(
        {name: model.to(device) for name, model in models.items()}, cfg.batch_size, cfg.rounds, cfg.warmup
    )
    table = Table(
        title=f"batch {cfg.batch_size} on {device.type}, {torch.get_num_threads()} threads, {cfg.rounds} rounds"
    )
    for column in ("model", "crop", "parameters", "GMACs", "ms a batch", "ratio"):
        table.add_column(column, justify="left" if column == "model" else "right")
    first = times[next(iter(models))]
    for name, model in models.items():
        size = "x".join(map(str, model.input_size))
        costs = f"{count_parameters(model):,}", f"{count_gmacs(model):.4f}", f"{times[name]:.1f}"
        table.add_row(name, size, *costs, f"{times[name] / first:.2f}")
    Console(width=None).print(table)


def _is_file(name: str) -> bool:
    """Whether `load_model` takes the name, and not the registry."""
    return "/" in name or Path(name).exists()


@torch.inference_mode()
def latencies(
    models: Mapping[str, PoseModel], batch_size: int = 1, rounds: int = 20, warmup: int = 3
) -> dict[str, float]:
    """Median time of a forward pass of each model, in milliseconds.

    The models take turns, so that other load on the machine affects all of them equally.

    Args:
        models: in eval mode, on one device.
        batch_size: random crops per pass.
        rounds: timed passes of each model.
        warmup: passes of each model before the timing.
    """
    inputs = {
        name: torch.randn(batch_size, 3, *model.input_size, device=next(model.parameters()).device)
        for name, model in models.items()
    }
    durations: dict[str, list[float]] = {name: [] for name in models}
    for turn in track(range(-warmup, rounds), description="timing", transient=True):
        for name, model in models.items():
            _synchronize(inputs[name].device)
            start = time.perf_counter()
            model(inputs[name])
            _synchronize(inputs[name].device)
            if turn >= 0:
                durations[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in durations.items()}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
