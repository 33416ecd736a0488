"""int8: static quantisation of the convolutions and linear layers of an ONNX graph, with calibration crops."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from distilpose.exporting.onnx_file import INPUT, network_input

_BATCH = 8


def quantise(model: Any, crops: NDArray, about: Mapping[str, Any]) -> Any:
    """A copy of an ONNX model with int8 weights (one scale for each channel) and int8 activations.

    The range of an activation is measured on the crops. The head, and products of two activations inside attention, stay in
    float32, because 256 steps are too few for coordinates.

    Args:
        model: onnx.ModelProto built by `formats.build`.
        crops: (N, H, W, 3) uint8 RGB to calibrate with.
        about: the export's metadata.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        """The crops in batches."""

        def __init__(self) -> None:
            self.batches: Iterator[NDArray] = iter(crops[i : i + _BATCH] for i in range(0, len(crops), _BATCH))

        def get_next(self) -> dict[str, NDArray] | None:
            """The next batch, None at the end."""
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: network_input(batch, about)}

    excluded = [node.name for node in model.graph.node if not _within(node, ("model.backbone", "model.encoder"))]
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # it advises to prepare the model, which is already done
        try:
            target = Path(folder) / "quantised.onnx"
            quantize_static(
                model,
                target,
                Reader(),
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
                per_channel=True,
                nodes_to_exclude=excluded,
                extra_options={"MatMulConstBOnly": True},
            )
            return onnx.load(str(target))
        finally:
            logging.disable(logging.NOTSET)


def _within(node: Any, modules: tuple[str, ...]) -> bool:
    """Whether a node comes from one of these modules."""
    return any(f"'{module}" in prop.value for prop in node.metadata_props for module in modules)
