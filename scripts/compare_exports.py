"""How far each model's exports are from PyTorch, and how fast they are, as one Markdown table.

python scripts/compare_exports.py ANNOTATIONS IMAGES OUTPUT.json [--models student_s …] [--limit 32] [--rounds 10]

Weights are fresh, batch statistics those of real crops. The JSON is written anew after each model, so that a long run that
is stopped keeps what it has; models that stand in it already are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from distilpose import create_model, list_models
from distilpose.errors import DistilPoseError
from distilpose.evaluation import markdown_table
from distilpose.exporting import formats
from distilpose.exporting.comparison import compare
from distilpose.exporting.crops import Crops, collect_crops
from distilpose.exporting.graph import output_names, trace
from distilpose.exporting.onnx_file import network_input
from distilpose.files import write_json
from distilpose.models import PoseModel

KINDS = (("onnx", "float32"), ("onnx", "float16"), ("torch_export", "float32"), ("openvino", "float32"))
COLUMNS = (
    "model",
    "format",
    "pixels, largest",
    "pixels, mean",
    "scores, largest",
    "heat maps",
    "undecided",
    "MB",
    "time",
)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--models", nargs="+", default=list_models())
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        compare_models(given)
    except (DistilPoseError, ValueError) as error:
        sys.exit(f"error: {error}")


def compare_models(given: argparse.Namespace) -> None:
    """Add the rows of each model that the output lacks."""
    rows: list[dict[str, Any]] = json.loads(given.output.read_text()) if given.output.exists() else []
    for name in given.models:
        if name in {row["model"] for row in rows}:
            continue
        print(f"{name} …", flush=True)
        torch.manual_seed(0)
        model = create_model(name)
        crops = collect_crops(given.annotations, given.images, model.input_size, 1.25, given.limit)
        settle_statistics(model, crops)
        rows += compare_model(model, crops, given.rounds)
        write_json(rows, given.output)
        print(markdown_table(rows, COLUMNS), flush=True)


def settle_statistics(model: PoseModel, crops: Crops) -> None:
    """Batch statistics of eight crops in place of zeros and ones, so that folding has something to fold."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    about = {"mean": model.mean, "std": model.std, "normalise": False}
    with torch.no_grad():
        model.train()(torch.from_numpy(network_input(crops.images[:8], about)))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    model.eval()


def compare_model(model: PoseModel, crops: Crops, rounds: int) -> list[dict[str, Any]]:
    """A row for each format."""
    rows, runs, programs = [], {}, {}
    about = {"mean": list(model.mean), "std": list(model.std), "normalise": False}
    with TemporaryDirectory() as folder:
        for name, precision in KINDS:
            if precision not in programs:
                programs = {precision: trace(model, False, True, precision == "float16")} | programs
            built = formats.build(name, programs[precision], output_names(model.kind, True))
            path = Path(folder) / f"{precision}{formats.SUFFIXES[name]}"
            metadata = {"format": 1, "kind": model.kind, "input_size": list(model.input_size), "padding": 1.25}
            metadata |= {"precision": precision, "skeleton": model.skeleton.to_dict(), **about}
            formats.save(name, built, path, metadata)
            runs[name, precision] = formats.load(name, path, threads=1)
            found = compare(model, runs[name, precision], crops, False, precision)
            size = sum(file.stat().st_size for file in formats.files_of(name, path)) / 1e6
            heatmaps = "" if found.heatmaps_largest is None else f"{found.heatmaps_largest:.1g}"
            rows.append(
                {
                    "model": model.name,
                    "format": f"{name} {precision}",
                    "pixels, largest": f"{found.pixels_largest:.2g}",
                    "pixels, mean": f"{found.pixels_mean:.2g}",
                    "scores, largest": f"{found.scores_largest:.2g}",
                    "heat maps": heatmaps,
                    "undecided": f"{found.undecided} of {found.joints}" if heatmaps else "",
                    "MB": f"{size:.1f}",
                }
            )
        one = network_input(crops.images[:1], about)

        def eager(images: Any) -> Any:
            with torch.inference_mode():
                return model(torch.from_numpy(images))

        times: dict[Any, list[float]] = {kind: [] for kind in ("eager", *runs)}
        for turn in range(-2, rounds):  # in turns, so that a busy spell hits all alike
            for kind, run in {"eager": eager, **runs}.items():
                start = time.perf_counter()
                run(one)
                if turn >= 0:
                    times[kind].append(time.perf_counter() - start)
        middle = {kind: statistics.median(values) for kind, values in times.items()}
        for row, kind in zip(rows, KINDS, strict=True):
            row["time"] = f"{middle[kind] / middle['eager']:.2f}"
    return rows


if __name__ == "__main__":
    main()
