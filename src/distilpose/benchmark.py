"""Size, work and speed of models, side by side: `python -m distilpose.benchmark models=[student_s,teacher_stem]`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from distilpose.cli.command import command
from distilpose.evaluation.protocol import choose_device
from distilpose.models import PoseModel, count_gmacs, count_parameters, create_model, load_model


@command("benchmark")
def main(cfg: DictConfig) -> None:
    """Print one table. Only the ratios mean anything elsewhere: milliseconds are this machine's, now."""
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    device = choose_device(cfg.device)
    models = {
        str(name): (load_model(name) if _lies_somewhere(str(name)) else create_model(name)).eval()
        for name in cfg.models
    }
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
        figures = f"{count_parameters(model):,}", f"{count_gmacs(model):.4f}", f"{times[name]:.1f}"
        table.add_row(name, size, *figures, f"{times[name] / first:.2f}")
    Console(width=None).print(table)


def _lies_somewhere(name: str) -> bool:
    """Whether it is what `load_model` takes, and no model's name."""
    return "/" in name or Path(name).exists()


@torch.inference_mode()
def latencies(
    models: Mapping[str, PoseModel], batch_size: int = 1, rounds: int = 20, warmup: int = 3
) -> dict[str, float]:
    """Median milliseconds of a forward pass of each model, taking turns so that a busy spell hits all alike.

    Args:
        models: in eval mode, on one device.
        batch_size: random crops a pass.
        rounds: passes of each model that are timed.
        warmup: passes of each before.
    """
    inputs = {
        name: torch.randn(batch_size, 3, *model.input_size, device=next(model.parameters()).device)
        for name, model in models.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in track(range(-warmup, rounds), description="timing", transient=True):
        for name, model in models.items():
            _wait(inputs[name].device)
            start = time.perf_counter()
            model(inputs[name])
            _wait(inputs[name].device)
            if turn >= 0:
                taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
