"""File formats: write a traced graph with its metadata, and load the file as a function that its runtime executes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from distilpose.errors import DistilPoseError
from distilpose.export_metadata import METADATA_KEY
from distilpose.exporting.onnx_file import INPUT, open_session
from distilpose.files import atomic_write

Format = Literal["onnx", "torch_export", "openvino"]
Precision = Literal["float32", "float16", "int8"]
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "openvino": ".xml"}
EXTRAS = {"onnx": "export", "openvino": "openvino"}  # extras of pip with the packages
EXTRA_FILE = f"{METADATA_KEY}.json"
# read by onnxruntime 1.15 of June 2023, float16 by 1.17 (measured); the exporter of torch converts to lower ones only
OPSET = 18
METADATA_IR = 10  # IR version that introduced metadata of nodes
Run = Callable[[NDArray], list[NDArray]]


def check_format(name: Format, precision: Precision, output: Path) -> None:
    """Check that a format supports a precision, and that its files can be written to `output`.

    Raises:
        DistilPoseError: the precision is not available, the suffix is another format's, or a file exists.
    """
    if precision == "int8" and name != "onnx":
        raise DistilPoseError(
            f"precision=int8 is not available for format={name}: set format=onnx (OpenVINO reads it too), or precision=float16."
        )
    if output.suffix != SUFFIXES[name]:
        raise DistilPoseError(f"output={output} must end in {SUFFIXES[name]} for format={name}.")
    for file in files_of(name, output):
        if file.exists():
            raise DistilPoseError(f"{file} exists and is not overwritten: choose another output=FILE, or remove it.")


def files_of(name: str, output: Path) -> list[Path]:
    """The files of an export."""
    return [output, output.with_suffix(".bin")] if name == "openvino" else [output]


def onnx_versions(name: str, opset: int | None, ir_version: int | None) -> dict[str, int]:
    """Operator set and IR version of an ONNX file; empty for the other formats.

    Runtimes read files up to an operator set and an IR version, so both are as low as possible by default.

    Args:
        name: the format.
        opset: operator set; None is `OPSET`.
        ir_version: version of the file format; None is the lowest that the operator set allows.

    Raises:
        DistilPoseError: the format is not ONNX, the two contradict each other, or the installed onnx does not know one.
    """
    if name != "onnx":
        given = [f"{key}={value}" for key, value in (("opset", opset), ("ir_version", ir_version)) if value is not None]
        if given:
            raise DistilPoseError(f"{given[0]} is a setting of format=onnx, not of format={name}: leave it out.")
        return {}
    try:
        import onnx
    except ImportError as error:
        raise _missing(name, error) from error
    opset, newest = opset or OPSET, onnx.defs.onnx_opset_version()
    if opset > newest:
        raise DistilPoseError(f"opset={opset} is not known to onnx {onnx.__version__}: give at most {newest}.")
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    if not least <= (ir_version or least) <= onnx.IR_VERSION:
        raise DistilPoseError(
            f"ir_version={ir_version} does not fit opset={opset}: give {least} to {onnx.IR_VERSION}, or another opset."
        )
    return {"opset": opset, "ir_version": ir_version or least}


def build(name: str, program: ExportedProgram, outputs: Sequence[str], opset: int | None = None) -> Any:
    """Convert a graph to the object of its format: an onnx.ModelProto, an openvino.Model, or the program itself."""
    if name == "torch_export":
        return program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporters
        try:
            return _onnx(program, outputs, opset or OPSET) if name == "onnx" else _openvino(program, outputs)
        except ImportError as error:
            raise _missing(name, error) from error


def _missing(name: str, error: ImportError) -> DistilPoseError:
    return DistilPoseError(
        f"format={name} needs a package that cannot be imported ({error}): pip install 'distilpose[{EXTRAS[name]}]'."
    )


def save(name: str, built: Any, path: Path, about: Mapping[str, Any]) -> None:
    """Write the file with its metadata; for OpenVINO also the `.bin` beside it."""
    text = json.dumps(about)
    if name == "onnx":
        import onnx

        built.ir_version = about.get("ir_version", built.ir_version)
        for part in [built.graph, *built.graph.node] if built.ir_version < METADATA_IR else ():
            del part.metadata_props[:]  # only newer files have them
        onnx.helper.set_model_props(built, {METADATA_KEY: text})
        onnx.save(built, str(path))
    elif name == "openvino":
        import openvino

        built.set_rt_info(text, [METADATA_KEY])
        openvino.save_model(built, str(path), compress_to_fp16=about["precision"] == "float16")
    else:
        torch.export.save(built, str(path), extra_files={EXTRA_FILE: text})


def load(name: str, path: Path, threads: int | None = None) -> Run:
    """The file as a function from its input to its outputs, run on the CPU.

    Args:
        name: the format.
        path: the file.
        threads: number of threads for ONNX and OpenVINO, which choose it by default; torch.export uses PyTorch's threads.
    """
    if name == "onnx":
        session, _ = open_session(path, threads)
        return lambda images: session.run(None, {INPUT: images})
    if name == "openvino":
        import openvino

        # newer processors compute in bfloat16 by default
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        settings |= {} if threads is None else {"INFERENCE_NUM_THREADS": str(threads)}
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        return lambda images: [np.array(compiled(images)[port]) for port in compiled.outputs]
    module = torch.export.load(str(path)).module()

    def run(images: NDArray) -> list[NDArray]:
        with torch.no_grad():
            return [output.numpy() for output in module(torch.from_numpy(images))]

    return run


@contextmanager
def atomic_export(name: str, output: Path) -> Iterator[Path]:
    """`atomic_write` for all files of a format: OpenVINO writes weights into a second file, beside the `.xml`."""
    weights = atomic_write(output.with_suffix(".bin")) if name == "openvino" else nullcontext()
    with weights, atomic_write(output) as temporary:
        yield temporary


def _onnx(program: ExportedProgram, outputs: Sequence[str], opset: int) -> Any:
    """Convert to an onnx.ModelProto. Only the module's name stays in a node's metadata, because quantisation needs it."""
    import onnxruntime  # noqa: F401 - quantisation and the comparison need it
    import onnxscript  # noqa: F401 - torch.onnx fails later without it

    program_file = torch.onnx.export(
        program, dynamo=True, optimize=True, verbose=False, output_names=list(outputs), opset_version=opset
    )
    assert program_file is not None
    model = program_file.model_proto
    written = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:  # the exporter only warns if it cannot convert
        raise DistilPoseError(
            f"opset={opset} cannot be written by torch {torch.__version__}, which wrote {written}: give opset={written}."
        )
    model.producer_name, model.doc_string = "distilpose", ""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]
    for part in [model, model.graph, *values]:
        del part.metadata_props[:]
    for node in model.graph.node:
        scopes = [prop for prop in node.metadata_props if prop.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]  # these include paths of this machine
        node.metadata_props.extend(scopes)
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _openvino(program: ExportedProgram, outputs: Sequence[str]) -> Any:
    import openvino

    model = openvino.convert_model(program)
    # the converter drops height and width
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == INPUT)
    model.reshape([-1, *(int(side) for side in shape[1:])])
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    return model
