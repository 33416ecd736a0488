"""Export a model to ONNX, torch.export or OpenVINO: `python -m distilpose.export checkpoint=FILE format=onnx output=FILE`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Unit
from omegaconf import DictConfig
from rich.console import Console

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError
from distilpose.exporting import formats
from distilpose.exporting.comparison import Difference, check_tolerance, compare
from distilpose.exporting.crops import Crops, collect_crops
from distilpose.exporting.graph import trace
from distilpose.exporting.metadata import describe
from distilpose.exporting.quantisation import quantise
from distilpose.models import PoseModel, load_model
from distilpose.models.remote import local_file
from distilpose.runs.run_of_checkpoint import run_padding, states_padding

MIN_CALIBRATION_CROPS = 50  # fewer crops do not cover the range of activations

log = logging.getLogger(__name__)


class CropSettings:
    """Crops of persons.

    Attributes:
        annotations: COCO keypoint file.
        images: folder of its images; without annotations, images that each show one person.
        limit: largest number of crops.
    """

    annotations: Path | None
    images: Path | None
    limit: Annotated[int, Ge(1), Unit("crops")]


class ExportSettings(CropSettings):
    """Settings of `export`.

    Attributes:
        checkpoint: a model written by this package (.ckpt or .safetensors), a shared folder, or a name on the Hugging Face hub.
        weights_kind: weights of a checkpoint whose training averaged them (callbacks=ema).
        format: onnx (.onnx), torch_export (.pt2) or openvino (.xml with a .bin beside it).
        output: the file to write; it must not exist.
        precision: float32, float16, or int8 (onnx only).
        normalise: true takes (N, H, W, 3) uint8 RGB; false takes (N, 3, H, W) float32, normalised by mean and std.
        sigmas: whether a student's sigmas are the third output; a teacher always has its heat maps.
        padding: factor on a person's box, for the metadata; null takes the value of the file of the model or of its run,
            else 1.25, with a warning.
        opset: operator set of an ONNX file; null is 18, which onnxruntime 1.15 (2023) reads, for float16 1.17 (2024).
        ir_version: version of the ONNX file format; null is the lowest that the operator set allows (8 for opset 18).
        annotations: COCO keypoint file whose persons are compared with PyTorch.
        images: folder of its images; without annotations, images that each show one person; null draws persons.
        limit: number of crops compared with PyTorch.
        calibration: crops that set the ranges of int8; images are needed.
    """

    checkpoint: Path
    weights_kind: Literal["averaged", "raw"]
    format: formats.Format
    output: Path
    precision: formats.Precision
    normalise: bool
    sigmas: bool
    padding: Annotated[float, Gt(0)] | None
    opset: Annotated[int, Ge(18)] | None
    ir_version: Annotated[int, Ge(8)] | None
    calibration: CropSettings


@command("export", ExportSettings)
def main(cfg: DictConfig) -> Difference:
    """Export, compare with PyTorch, and keep the file only if it agrees."""
    output = Path(cfg.output)
    formats.check_format(cfg.format, cfg.precision, output)
    versions = formats.onnx_versions(cfg.format, cfg.opset, cfg.ir_version)
    if cfg.precision == "int8" and cfg.calibration.images is None:
        raise DistilPoseError(
            "precision=int8 needs images like those of its later use: give calibration.images=FOLDER, and "
            "calibration.annotations=FILE for the boxes of the persons on them."
        )
    checkpoint = local_file(cfg.checkpoint)
    model = load_model(checkpoint, cfg.weights_kind)
    padding = run_padding(checkpoint, cfg.padding)
    assumed = cfg.padding is None and not states_padding(checkpoint)
    metadata = describe(model, checkpoint, cfg.weights_kind, cfg.precision, cfg.normalise, cfg.sigmas, padding, assumed)
    metadata |= versions
    crops = collect_crops(cfg.annotations, cfg.images, model.input_size, padding, cfg.limit)
    sample = None
    if cfg.precision == "int8":
        sample = collect_crops(**cfg.calibration, input_size=model.input_size, padding=padding)
        if len(sample.images) < MIN_CALIBRATION_CROPS:
            log.warning(
                f"Calibrated on only {sample.description}: brighter or darker images may exceed the range of int8; give "
                f"{MIN_CALIBRATION_CROPS} or more."
            )
    difference = export(model, metadata, cfg.format, output, crops, sample)
    megabytes = sum(file.stat().st_size for file in formats.files_of(cfg.format, output)) / 1e6
    print(
        f"{output}: {model.name}, {cfg.format}, {cfg.precision}, {megabytes:.1f} MB: {', '.join(metadata['outputs'])}"
    )
    if cfg.format == "openvino":
        log.info(
            "Newer processors compute in bfloat16 unless {'INFERENCE_PRECISION_HINT': 'f32'} is set: docs/export.md."
        )
    return difference


def export(
    model: PoseModel,
    metadata: dict[str, Any],
    name: formats.Format,
    output: Path,
    crops: Crops,
    sample: Crops | None = None,
) -> Difference:
    """Write one file, and print its difference from PyTorch.

    Args:
        model: in eval mode on the CPU.
        metadata: metadata of the file (`describe`), to which the difference from PyTorch is added.
        name: the format.
        output: file that does not exist yet.
        crops: crops for the comparison.
        sample: crops for the calibration of int8.

    Raises:
        DistilPoseError: the file differs from PyTorch by more than its precision allows; it is not kept.
    """
    precision, console = metadata["precision"], Console(stderr=True)
    with console.status(f"tracing {model.name}"):
        # OpenVINO converts weights to float16 when it writes them, and computes in the processor's best precision
        half = precision == "float16" and name != "openvino"
        program = trace(model, metadata["normalise"], len(metadata["outputs"]) > 2, half)
    with console.status(f"building {name}"):
        built = formats.build(name, program, metadata["outputs"], metadata.get("opset"))
    if sample is not None:
        with console.status(f"calibrating on {sample.description}"):
            built = quantise(built, sample.images, metadata)
        metadata = {**metadata, "calibration": sample.description}
    with formats.atomic_export(name, output) as temporary:
        formats.save(name, built, temporary, metadata)
        difference = compare(model, formats.load(name, temporary), crops, metadata["normalise"], precision)
        print(summary(difference))
        check_tolerance(difference, precision, model)
        formats.save(name, built, temporary, {**metadata, "difference": difference._asdict()})
        formats.load(name, temporary)  # check that the final file opens, with all its metadata
    return difference


def summary(difference: Difference) -> str:
    """The difference in one to three lines."""
    lines = [
        f"against PyTorch on {difference.crops}: keypoints differ by {difference.pixels_largest:.2g} crop pixels at most, "
        f"{difference.pixels_mean:.2g} on average; scores by {difference.scores_largest:.2g} and {difference.scores_mean:.2g}"
    ]
    if difference.heatmaps_largest is not None:
        lines.append(
            f"heat maps differ by {difference.heatmaps_largest:.2g} of the highest value; {difference.undecided} of "
            f"{difference.joints} joints have an ambiguous peak and are excluded from the pixels"
        )
    if difference.pck is not None:
        lines.append(f"PCK {difference.pck[0]:.4f} in PyTorch, {difference.pck[1]:.4f} in the file")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
