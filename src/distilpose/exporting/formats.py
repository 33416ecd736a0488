"""The formats: a traced graph to a file with its metadata inside, and the file back as a function, by its own runtime."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from distilpose.errors import DistilPoseError
from distilpose.exporting.graph import INPUT
from distilpose.exporting.onnx_file import METADATA_KEY, open_session
from distilpose.files import atomic_write

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "openvino": ".xml"}
PRECISIONS = {
    "onnx": ("float32", "float16", "int8"),
    "torch_export": ("float32", "float16"),
    "openvino": ("float32", "float16"),
}
EXTRAS = {"onnx": "export", "torch_export": "export", "openvino": "openvino"}
EXTRA_FILE = f"{METADATA_KEY}.json"
Run = Callable[[NDArray], list[NDArray]]


def check_format(name: str, precision: str, output: Path) -> None:
    """Refuse a format or precision that is not there, and an output of another ending."""
    if name not in SUFFIXES:
        raise DistilPoseError(f"format={name} is not known: expected one of {', '.join(SUFFIXES)}.")
    if precision not in PRECISIONS[name]:
        way = "; int8 is for format=onnx, which OpenVINO reads as well" if precision == "int8" else ""
        raise DistilPoseError(
            f"precision={precision} is not there for format={name}: expected {', '.join(PRECISIONS[name])}{way}."
        )
    if output.suffix != SUFFIXES[name]:
        raise DistilPoseError(f"output={output} must end in {SUFFIXES[name]} for format={name}.")
    for file in files_of(name, output):
        if file.exists():
            raise DistilPoseError(f"{file} exists and is not overwritten: choose another name or remove it first.")


def files_of(name: str, output: Path) -> list[Path]:
    """The files an export consists of."""
    return [output, output.with_suffix(".bin")] if name == "openvino" else [output]


def build(name: str, program: ExportedProgram, outputs: Sequence[str]) -> Any:
    """The graph in the format's own terms: an onnx.ModelProto, an openvino.Model, or the program itself."""
    if name == "torch_export":
        return program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations inside the exporters, about which nobody here can do a thing
        try:
            return _onnx(program, outputs) if name == "onnx" else _openvino(program, outputs)
        except ImportError as error:
            raise DistilPoseError(
                f"format={name} needs a package that cannot be imported ({error}): pip install 'distilpose[{EXTRAS[name]}]'."
            ) from error


def save(name: str, built: Any, path: Path, about: Mapping[str, Any]) -> None:
    """Write the file, metadata inside; of OpenVINO also the `.bin` beside it."""
    text = json.dumps(about)
    if name == "onnx":
        import onnx

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
        threads: of ONNX and OpenVINO, whose own choice it is if not given; torch.export runs in PyTorch's.
    """
    if name == "onnx":
        session, _ = open_session(path, threads)
        return lambda images: session.run(None, {INPUT: images})
    if name == "openvino":
        import openvino

        # newer processors would compute in bfloat16 by themselves
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        settings |= {} if threads is None else {"INFERENCE_NUM_THREADS": str(threads)}
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        return lambda images: [np.array(compiled(images)[port]) for port in compiled.outputs]
    module = torch.export.load(str(path)).module()

    def run(images: NDArray) -> list[NDArray]:
        with torch.no_grad():
            return [one.numpy() for one in module(torch.from_numpy(images))]

    return run


@contextmanager
def written(name: str, output: Path) -> Iterator[Path]:
    """`atomic_write` for all files of a format: OpenVINO's weights come to lie beside its `.xml` in the same way."""
    weights = atomic_write(output.with_suffix(".bin")) if name == "openvino" else nullcontext()
    with weights, atomic_write(output) as temporary:
        yield temporary


def _onnx(program: ExportedProgram, outputs: Sequence[str]) -> Any:
    """An onnx.ModelProto whose only node metadata is the module a node comes from, for quantisation to tell by."""
    import onnxscript  # noqa: F401 - torch.onnx would name it less plainly

    found = torch.onnx.export(program, dynamo=True, optimize=True, verbose=False, output_names=list(outputs))
    assert found is not None
    model = found.model_proto
    model.producer_name, model.doc_string = "distilpose", ""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer]
    for part in [model, model.graph, *values]:
        del part.metadata_props[:]
    for node in model.graph.node:
        scopes = [prop for prop in node.metadata_props if prop.key == "pkg.torch.onnx.name_scopes"]
        del node.metadata_props[:]  # they hold this machine's paths
        node.metadata_props.extend(scopes)
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _openvino(program: ExportedProgram, outputs: Sequence[str]) -> Any:
    import openvino

    model = openvino.convert_model(program)
    # the converter forgets the height and width
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == INPUT)
    model.reshape([-1, *(int(side) for side in shape[1:])])
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    return model
