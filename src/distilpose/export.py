"""A model as ONNX, torch.export or OpenVINO: `python -m distilpose.export checkpoint=FILE format=onnx output=FILE.onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.exporting import formats
from distilpose.exporting.comparison import Difference, check, compare
from distilpose.exporting.crops import Crops, collect_crops
from distilpose.exporting.graph import trace
from distilpose.exporting.metadata import describe
from distilpose.exporting.quantisation import quantise
from distilpose.models import PoseModel, load_model
from distilpose.models.remote import local_file
from distilpose.runs.checkpoint_settings import run_padding

FEW = 50  # crops, below which the range of activations is a guess


@command("export")
def main(cfg: DictConfig) -> Difference:
    """Export, compare with PyTorch, and keep the file only if it agrees."""
    output = Path(cfg.output)
    formats.check_format(cfg.format, cfg.precision, output)
    check_flag("normalise", cfg.normalise)
    check_flag("sigmas", cfg.sigmas)
    check_number("limit", cfg.limit, least=1, whole=True)
    check_number("calibration.limit", cfg.calibration.limit, least=1, whole=True)
    if cfg.precision == "int8" and cfg.calibration.images is None:
        raise DistilPoseError(
            "precision=int8 needs images like those it will be used on: give calibration.images=FOLDER, and "
            "calibration.annotations=FILE for the boxes of the persons in them."
        )
    checkpoint = local_file(cfg.checkpoint)
    model = load_model(checkpoint, cfg.weights_kind)
    padding = run_padding(checkpoint) if cfg.padding is None else cfg.padding
    check_number("padding", padding, above=0)
    about = describe(model, checkpoint, cfg.weights_kind, cfg.precision, cfg.normalise, cfg.sigmas, padding)
    crops = collect_crops(cfg.annotations, cfg.images, model.input_size, padding, cfg.limit)
    sample = None
    if cfg.precision == "int8":
        chosen = cfg.calibration
        sample = collect_crops(chosen.annotations, chosen.images, model.input_size, padding, chosen.limit)
        if len(sample.images) < FEW:
            print(
                f"Calibrated on no more than {sample.told}: what is brighter or darker than these may leave the range of int8; "
                f"give {FEW} or more."
            )
    difference = export(model, about, cfg.format, output, crops, sample)
    megabytes = sum(file.stat().st_size for file in formats.files_of(cfg.format, output)) / 1e6
    print(f"{output}: {model.name}, {cfg.format}, {cfg.precision}, {megabytes:.1f} MB: {', '.join(about['outputs'])}")
    if cfg.format == "openvino":
        print(
            "Newer processors compute it in bfloat16 unless told {'INFERENCE_PRECISION_HINT': 'f32'}: docs/export.md."
        )
    return difference


def export(
    model: PoseModel, about: dict[str, Any], name: str, output: Path, crops: Crops, sample: Crops | None = None
) -> Difference:
    """Write one file, and print how far it is from PyTorch.

    Args:
        model: in eval mode on the CPU.
        about: its metadata (`describe`), to which the difference from PyTorch is added.
        name: the format.
        output: of a name that is not there yet.
        crops: to compare on.
        sample: to calibrate int8 with.

    Raises:
        DistilPoseError: the file differs from PyTorch by more than its precision allows; it is not kept.
    """
    precision, console = about["precision"], Console(stderr=True)
    with console.status(f"tracing {model.name}"):
        # OpenVINO halves weights when it writes them and computes in whatever the processor does best
        half = precision == "float16" and name != "openvino"
        program = trace(model, about["normalise"], len(about["outputs"]) > 2, half)
    with console.status(f"building {name}"):
        built = formats.build(name, program, about["outputs"])
    if sample is not None:
        with console.status(f"calibrating on {sample.told}"):
            built = quantise(built, sample.images, about)
        about = {**about, "calibration": sample.told}
    with formats.written(name, output) as temporary:
        formats.save(name, built, temporary, about)
        difference = compare(model, formats.load(name, temporary), crops, about["normalise"], precision)
        print(tell(difference))
        check(difference, precision, model)
        formats.save(name, built, temporary, {**about, "difference": difference._asdict()})
        formats.load(name, temporary)  # what is kept must open, with all its metadata
    return difference


def tell(difference: Difference) -> str:
    """The difference in a line or three."""
    lines = [
        f"against PyTorch on {difference.crops}: keypoints differ by {difference.pixels_largest:.2g} crop pixels at most, "
        f"{difference.pixels_mean:.2g} on average; scores by {difference.scores_largest:.2g} and {difference.scores_mean:.2g}"
    ]
    if difference.heatmaps_largest is not None:
        lines.append(
            f"heat maps by {difference.heatmaps_largest:.2g} of the highest value; {difference.undecided} of "
            f"{difference.joints} joints have no decided peak and are left out of the pixels"
        )
    if difference.pck is not None:
        lines.append(f"PCK {difference.pck[0]:.4f} in PyTorch, {difference.pck[1]:.4f} in the file")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
