"""Compare exports of each model with PyTorch, in accuracy and speed, as one Markdown table.

python scripts/compare_exports.py ANNOTATIONS IMAGES OUTPUT.json [--models student_s …] [--limit 32] [--rounds 10]

A model is a name of the registry, or student_timm/NAME for a network of timm with a token for each cell of stride 16. Weights
are untrained; batch statistics come from real crops. The JSON is rewritten after each model, so an interrupted run keeps its
results; models in the JSON are not run again.
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
from distilpose.exporting.metadata import describe_graph
from distilpose.exporting.onnx_file import network_input
from distilpose.files import write_json
from distilpose.models import PoseModel

MODELS = (*list_models(), "student_timm/vit_tiny_patch16_224", "student_timm/vit_small_patch16_dinov3")
CELLS: dict[str, Any] = {"strides": [16], "patch_size": [1, 1]}
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
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        compare_models(args)
    except DistilPoseError as error:
        sys.exit(f"error: {error}")


def compare_models(args: argparse.Namespace) -> None:
    """Compare each model that is not in the output file yet, and add its rows."""
    rows: list[dict[str, Any]] = json.loads(args.output.read_text()) if args.output.exists() else []
    for name in args.models:
        if name in {row["model"] for row in rows}:
            continue
        print(f"{name} …", flush=True)
        torch.manual_seed(0)
        name_of_model, _, backbone = name.partition("/")
        model = create_model(name_of_model, **({"backbone": backbone, **CELLS} if backbone else {}))
        crops = collect_crops(args.annotations, args.images, model.input_size, 1.25, args.limit)
        set_batch_statistics(model, crops)
        rows += [{**row, "model": name} for row in compare_model(model, crops, args.rounds)]
        write_json(rows, args.output)
        print(markdown_table(rows, COLUMNS), flush=True)


def set_batch_statistics(model: PoseModel, crops: Crops) -> None:
    """Replace the initial batch statistics (0 and 1) by those of eight crops, so that folding batch norms changes weights."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    about = {"mean": model.mean, "std": model.std, "normalise": False}
    with torch.no_grad():
        model.train()(torch.from_numpy(network_input(crops.images[:8], about)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def compare_model(model: PoseModel, crops: Crops, rounds: int) -> list[dict[str, Any]]:
    """Compare the exports of one model; returns one row for each format."""
    rows, runs, programs = [], {}, {}
    about = {"mean": list(model.mean), "std": list(model.std), "normalise": False}
    with TemporaryDirectory() as folder:
        for name, precision in KINDS:
            if precision not in programs:
                programs = {precision: trace(model, False, True, precision == "float16")} | programs
            built = formats.build(name, programs[precision], output_names(model.kind, True))
            path = Path(folder) / f"{precision}{formats.SUFFIXES[name]}"
            formats.save(name, built, path, describe_graph(model, precision, False, 1.25))
            runs[name, precision] = formats.load(name, path, threads=1)
            difference = compare(model, runs[name, precision], crops, False, precision)
            size = sum(file.stat().st_size for file in formats.files_of(name, path)) / 1e6
            heatmaps = "" if difference.heatmaps_largest is None else f"{difference.heatmaps_largest:.1g}"
            rows.append(
                {
                    "model": model.name,
                    "format": f"{name} {precision}",
                    "pixels, largest": f"{difference.pixels_largest:.2g}",
                    "pixels, mean": f"{difference.pixels_mean:.2g}",
                    "scores, largest": f"{difference.scores_largest:.2g}",
                    "heat maps": heatmaps,
                    "undecided": f"{difference.undecided} of {difference.joints}" if heatmaps else "",
                    "MB": f"{size:.1f}",
                }
            )
        one = network_input(crops.images[:1], about)

        def eager(images: Any) -> Any:
            with torch.inference_mode():
                return model(torch.from_numpy(images))

        times: dict[Any, list[float]] = {kind: [] for kind in ("eager", *runs)}
        for turn in range(-2, rounds):  # alternate, so that other load affects all formats equally
            for kind, run in {"eager": eager, **runs}.items():
                start = time.perf_counter()
                run(one)
                if turn >= 0:
                    times[kind].append(time.perf_counter() - start)
        median = {kind: statistics.median(values) for kind, values in times.items()}
        for row, kind in zip(rows, KINDS, strict=True):
            row["time"] = f"{median[kind] / median['eager']:.2f}"
    return rows


if __name__ == "__main__":
    main()
