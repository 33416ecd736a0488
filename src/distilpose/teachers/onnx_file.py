"""An ONNX file of another maker on onnxruntime, with the layout, type and batch size that its input has."""

from __future__ import annotations

import logging
import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilpose.errors import NOT_THE_PATH, DistilPoseError, first_line
from distilpose.files import foreign_content, sha256_of

log = logging.getLogger(__name__)

Layout = Literal["nchw", "nhwc"]
TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32, "tensor(int64)": np.int64,
}  # fmt: skip
# protobuf: a key "location" of 8 characters, and the name of a file of less than 16,384
_LOCATION = re.compile(rb"\n\x08location\x12([\x80-\xff]?[\x00-\x7f])")


class OnnxFile:
    """A network in an ONNX file that takes one image.

    The session is opened on first use in each process, as its threads do not survive a fork, and on the device that
    `device` names.

    Args:
        file: the file; weights outside it lie in its folder.
        input_size: (H, W), if the file does not fix them.
        layout: nchw or nhwc; None is the one in which the input has three channels.

    Attributes:
        device: cpu, or the CUDA device that runs it if this onnxruntime can.
        where: the file, for messages.
        digests: SHA-256 of the file, and of those that it refers to, by name.
        metadata: what its maker wrote into it.
        input_size: (H, W) of its crops.
        layout: of its input.
        dtype: of its input.
        batch: number of crops in one run; None for any.
        outputs: names of its outputs.

    Raises:
        DistilPoseError: the file is missing or of another kind, files that it refers to are missing, its input is not one
            image, or it cannot run; or onnxruntime is not installed.
    """

    def __init__(
        self, file: str | Path, input_size: tuple[int, int] | None = None, layout: Layout | None = None
    ) -> None:
        self.file, self.where, self.device = Path(file), f"teacher.file={file}", torch.device("cpu")
        self._opened: tuple[int, torch.device] | None = None
        if not self.file.is_file():
            raise DistilPoseError(f"{self.where} is not a file: give an ONNX file of a pose network.")
        self.digests = self._digests()
        session = self._session()
        self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        self.outputs = [value.name for value in session.get_outputs()]
        self._read_input(session.get_inputs(), input_size, layout)
        self.batch = self._batch()

    def __call__(self, crops: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Outputs by their names for crops (N, 3, H, W), as float32 on the device of the crops."""
        count = self.batch or len(crops)
        pieces = []
        for piece in crops.split(count):
            missing = 0 if self.batch is None else count - len(piece)  # a fixed batch is filled up by the last crop
            padded = torch.cat([piece, piece[-1:].expand(missing, -1, -1, -1)])
            pieces.append([torch.from_numpy(output[: len(piece)]) for output in self._run(self._input(padded), names)])
        return [torch.cat(parts).to(crops.device) for parts in zip(*pieces, strict=True)]

    def _input(self, crops: Tensor) -> NDArray:
        """Crops as the file takes them; numbers without fraction are rounded to 0..255."""
        planes = crops.cpu().numpy()
        if self.layout == "nhwc":
            planes = planes.transpose(0, 2, 3, 1)
        if self.is_integer:
            planes = planes.round().clip(0, 255)
        return np.ascontiguousarray(planes, dtype=self.dtype)

    @property
    def is_integer(self) -> bool:
        """Whether its input is of numbers without fraction."""
        return np.issubdtype(self.dtype, np.integer)

    def _run(self, planes: NDArray, names: Sequence[str]) -> list[NDArray[np.float32]]:
        try:
            outputs = self._session().run(list(names), {self._name: planes})
        except Exception as error:  # onnxruntime's own exceptions have no common ancestor
            raise DistilPoseError(
                f"{self.where} cannot run on crops of shape {planes.shape} ({first_line(error)[:200]}): give another "
                "teacher.input_size=[height,width] or teacher.layout, or export the file again."
            ) from error
        return [np.asarray(output, dtype=np.float32) for output in outputs]

    def _read_input(self, inputs: Sequence[Any], given: tuple[int, int] | None, layout: Layout | None) -> None:
        """Layout, size and type of the only input."""
        shapes = ", ".join(f"{value.name} {list(value.shape)}" for value in inputs)
        expected = "expected one image, (N, 3, height, width) or (N, height, width, 3)"
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise DistilPoseError(f"{self.where} takes the inputs {shapes}: {expected}.")
        (image,) = inputs
        if image.type not in TYPES:
            raise DistilPoseError(
                f"{self.where} takes an image of type {image.type}: export it with float32, float16, uint8 or int32."
            )
        self.dtype = np.dtype(TYPES[image.type])
        self._name, sides = image.name, [side if isinstance(side, int) and side > 0 else None for side in image.shape]
        last = sides[3] == 3 and sides[1] != 3
        self.layout = layout or ("nhwc" if last else "nchw")
        channels, *size = (sides[axis] for axis in ((1, 2, 3) if self.layout == "nchw" else (3, 1, 2)))
        if channels not in (3, None):
            raise DistilPoseError(f"{self.where} takes {shapes}: {expected}.")
        if None in size and given is None:
            raise DistilPoseError(
                f"{self.where} takes crops of any size, {shapes}: pass teacher.input_size=[height,width], those of its "
                "training."
            )
        height, width = (own or wanted for own, wanted in zip(size, given or (0, 0), strict=True))
        if given is not None and (height, width) != tuple(given):
            raise DistilPoseError(
                f"{self.where} takes crops of {height} x {width} (height x width) and teacher.input_size={list(given)} asks "
                "for others: leave it out."
            )
        self.input_size = (height, width)
        self._declared_batch, self.input_shape = sides[0], list(image.shape)

    def _batch(self) -> int | None:
        """Number of crops in one run. A file may state any number and be made for one, or mix them, so two are tried."""
        if self._declared_batch is not None:
            return self._declared_batch
        height, width = self.input_size
        crops = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        crops *= 255 if self.is_integer else 1
        crops[0] *= torch.linspace(0, 1, width)  # brighter to the right
        crops[1] *= torch.linspace(0, 1, height)[:, None]  # and downwards
        try:
            both = self._run(self._input(crops), self.outputs)
        except DistilPoseError:
            return 1
        if any(output.shape[:1] != (2,) for output in both):
            return 1
        alone = self._run(self._input(crops[1:]), self.outputs)
        # an export that was traced with one crop may mix them, and so do scales of a dynamic quantisation
        same = (
            one[1:].shape == other.shape  # the number of detections depends on the image
            and np.allclose(one[1:], other, rtol=0, atol=0.01 * np.abs(other).max(initial=0), equal_nan=True)
            for one, other in zip(both, alone, strict=True)
        )
        return None if all(same) else 1

    def _session(self) -> Any:
        """The session of this process on this device."""
        if self._opened != (os.getpid(), self.device):
            self._kept, self._opened = self._open(), (os.getpid(), self.device)
        return self._kept

    def _open(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise DistilPoseError(
                f"teacher=onnx needs onnxruntime, which cannot be imported ({error}): pip install 'distilpose[runtime]'."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # the student computes on the same cores
        providers: list[Any] = ["CPUExecutionProvider"]
        cuda = self.device.type == "cuda"
        if cuda and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": self.device.index or 0}))
        try:
            session = onnxruntime.InferenceSession(str(self.file), options, providers=providers)
        except Exception as error:  # as above
            raise self._cannot_load(error, onnxruntime.__version__) from error
        if cuda and "CUDAExecutionProvider" not in session.get_providers():
            log.warning(
                f"{self.where} runs on the CPU, as this onnxruntime has no CUDA: pip install onnxruntime-gpu, in place of "
                "onnxruntime, or record the teacher once (python -m distilpose.record)."
            )
        return session

    def _cannot_load(self, error: Exception, version: str) -> DistilPoseError:
        with open(self.file, "rb") as file:
            start = file.read(4)
        if foreign := foreign_content(self.file):
            return DistilPoseError(f"{self.where} cannot be read: {foreign}.")
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
            return DistilPoseError(
                f"{self.where} is a PyTorch checkpoint, not an ONNX file: export its network by torch.onnx.export, or pass "
                "teacher=checkpoint or teacher=module."
            )
        reason = " ".join(str(error).split())[-250:]  # it begins with names of C++ functions
        return DistilPoseError(
            f"{self.where} cannot be loaded by onnxruntime {version} ({reason}): give an ONNX file of a pose network, and "
            "export it with a lower opset or update onnxruntime if this one is older than the file."
        )

    def _digests(self) -> dict[str, str]:
        """SHA-256 of the file and of the files beside it that hold its weights."""
        names = [self.file.name]
        try:
            for name in _locations(self.file):
                path = self.file.parent / name
                if os.path.isabs(name) or os.path.normpath(name).startswith(os.pardir):
                    raise DistilPoseError(f"{self.where} refers to {name}, outside its folder: it is not opened.")
                if not path.is_file():
                    raise DistilPoseError(
                        f"{self.where} keeps weights in {name}, which is not beside it: copy or download that file too, into "
                        f"{self.file.parent}."
                    )
                names.append(name)
            return {name: sha256_of(self.file.parent / name) for name in names}
        except OSError as error:
            if error.errno in NOT_THE_PATH:
                raise
            raise DistilPoseError(
                f"{self.where} cannot be read ({error.strerror}): give a file that exists and is readable."
            ) from None


def _locations(file: Path) -> list[str]:
    """Names of the files with weights that an ONNX file refers to."""
    if not file.stat().st_size:
        return []
    names: dict[str, None] = {}
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for match in _LOCATION.finditer(content):
            size = match[1][0] & 127 | (match[1][1] << 7 if len(match[1]) == 2 else 0)
            names[content[match.end() : match.end() + size].decode(errors="replace")] = None
    return list(names)
