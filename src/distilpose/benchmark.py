"""Compare size, compute and speed of models: `python -m distilpose.benchmark models=[student_s,teacher_stem]`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal, TypeVar

import torch
from annotated_types import Ge, Le, MinLen
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError
from distilpose.evaluation import choose_device
from distilpose.models import PoseModel, count_gmacs, count_parameters, create_model, load_model

Key = TypeVar("Key")


class BenchmarkSettings:
    """Settings of the benchmark command.

    Attributes:
        models: registry names or checkpoint files; ratios are relative to the first, in the first format.
        formats: what runs the models: PyTorch's eager mode, or a format of the export command in its own runtime.
        batch_size: crops per forward pass.
        rounds: timed forward passes of each model; the models take turns, and the median is shown.
        warmup: forward passes of each model before timing starts.
        threads: CPU threads; null uses one per core.
        device: auto, cpu, cuda or cuda:1; exported files are run on the CPU only.
    """

    models: Annotated[list[str | Path], MinLen(1)]
    formats: Annotated[list[Literal["pytorch", "onnx", "openvino", "torch_export"]], MinLen(1)]
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
    formats = list(dict.fromkeys(cfg.formats))
    device = choose_device(cfg.device)
    if formats != ["pytorch"] and device.type != "cpu":
        raise DistilPoseError(f"formats={formats} are run on the CPU, not on {device}: set device=cpu.")
    models = {name: (load_model(name) if _is_file(name) else create_model(name)).eval() for name in cfg.models}
    with TemporaryDirectory() as folder:
        runs: dict[tuple[str, str], Callable[[], object]] = {}
        for name, model in track(models.items(), description="preparing", transient=True):
            for kind in formats:
                runs[name, kind] = (
                    _eager(model.to(device), cfg.batch_size)
                    if kind == "pytorch"
                    else _exported(model, kind, Path(folder) / str(len(runs)), cfg.batch_size, cfg.threads)
                )
        times = _medians(runs, cfg.rounds, cfg.warmup)
    table = Table(
        title=f"batch {cfg.batch_size} on {device.type}, {torch.get_num_threads()} threads, {cfg.rounds} rounds"
    )
    for column in ("model", "crop", "parameters", "GMACs", "format", "ms a batch", "ratio"):
        table.add_column(column, justify="left" if column in ("model", "format") else "right")
    first = next(iter(times.values()))
    for (name, kind), milliseconds in times.items():
        model = models[name]
        size = "x".join(map(str, model.input_size))
        costs = f"{count_parameters(model):,}", f"{count_gmacs(model):.4f}"
        table.add_row(name, size, *costs, kind, f"{milliseconds:.1f}", f"{milliseconds / first:.2f}")
    Console(width=None).print(table)


def _is_file(name: str) -> bool:
    """Whether `load_model` takes the name, and not the registry."""
    return "/" in name or Path(name).exists()


def latencies(
    models: Mapping[str, PoseModel], batch_size: int = 1, rounds: int = 20, warmup: int = 3
) -> dict[str, float]:
    """Median time of a forward pass of each model in PyTorch, in milliseconds.

    The models take turns, so that other load on the machine affects all of them equally.

    Args:
        models: in eval mode, on one device.
        batch_size: random crops per pass.
        rounds: timed passes of each model.
        warmup: passes of each model before the timing.
    """
    return _medians({name: _eager(model, batch_size) for name, model in models.items()}, rounds, warmup)


def _eager(model: PoseModel, batch_size: int) -> Callable[[], None]:
    """A forward pass of random crops in PyTorch."""
    device = next(model.parameters()).device
    crops = torch.randn(batch_size, 3, *model.input_size, device=device)

    def run() -> None:
        with torch.inference_mode():
            model(crops)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _exported(model: PoseModel, kind: str, path: Path, batch_size: int, threads: int | None) -> Callable[[], object]:
    """A forward pass of random crops through the file that the export command would write, without its normalisation."""
    from distilpose.exporting import formats  # here, because it imports the exporters
    from distilpose.exporting.graph import output_names, trace
    from distilpose.exporting.metadata import describe_graph

    path = path.with_suffix(formats.SUFFIXES[kind])
    built = formats.build(kind, trace(model, normalise=False, extra=False), output_names(model.kind, False))
    formats.save(kind, built, path, describe_graph(model, "float32", normalise=False, padding=1.25))
    session = formats.load(kind, path, threads)
    crops = torch.randn(batch_size, 3, *model.input_size).numpy()
    return lambda: session(crops)


def _medians(runs: Mapping[Key, Callable[[], object]], rounds: int, warmup: int) -> dict[Key, float]:
    durations: dict[Key, list[float]] = {key: [] for key in runs}
    for turn in track(range(-warmup, rounds), description="timing", transient=True):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= 0:
                durations[key].append(1000 * (time.perf_counter() - start))
    return {key: statistics.median(values) for key, values in durations.items()}


if __name__ == "__main__":
    main()
