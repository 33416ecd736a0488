"""Record a teacher's heat maps: `python -m distilpose.record teacher=blazepose teacher.file=FILE data=lspet`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Ge, Unit
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.cli.validate_settings import Group
from distilpose.errors import DistilPoseError
from distilpose.evaluation import choose_device
from distilpose.modules import load_blazepose, load_teacher
from distilpose.teachers.base import Source
from distilpose.teachers.blazepose import blazepose_source
from distilpose.teachers.frozen import checkpoint_source
from distilpose.teachers.network import NetworkSource, NetworkTeacher
from distilpose.teachers.recorder import describe_accuracy, find_recording, record, recording_accuracy
from distilpose.teachers.recording_file import Recording

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule

# for each loader of a teacher without a `Network`, the function that makes its source from the same settings, the boxes'
# padding and a device
SOURCES: dict[Any, Callable[[DictConfig, float, torch.device], Source]] = {
    load_teacher: checkpoint_source,
    load_blazepose: blazepose_source,
}


class RecordSettings:
    """Settings of the command.

    Attributes:
        split: the persons to record.
        output: folder to write; null: one in `folder`, named after teacher and data, where teacher=blazepose finds it.
        folder: folder of recordings that are named after teacher and data.
        batch_size: number of persons that the teacher processes at a time.
        device: device of a checkpoint's network, such as auto, cpu, cuda or cuda:1.
    """

    split: Literal["train", "val"]
    output: Path | None
    folder: Path
    batch_size: Annotated[int, Ge(1), Unit("persons")]
    device: str
    teacher: Group
    data: Group


@command("record", RecordSettings)
def main(cfg: DictConfig) -> Recording:
    """Record a teacher on every person of a split; the same command continues an interrupted recording."""
    datamodule: CocoDataModule = instantiate(cfg.data, unlabelled=True)  # recording needs only boxes, no labels
    source = make_source(cfg, datamodule.padding)
    datamodule.prepare_data()
    dataset = datamodule.train_dataset() if cfg.split == "train" else datamodule.val_dataset()
    output = find_recording(source, dataset, cfg.folder) if cfg.output is None else Path(cfg.output)
    recording = record(source, dataset, output, cfg.batch_size)
    accuracy = describe_accuracy(recording_accuracy(recording, dataset))
    print(f"{recording.path}: {len(dataset)} persons, {accuracy}")
    print(f"Distil from it by teacher=recorded teacher.file={recording.path}")
    return recording


def make_source(cfg: DictConfig, padding: float) -> Source:
    """The teacher as a source of heat maps.

    Args:
        cfg: configuration of the command.
        padding: factor on the box in a checkpoint's crop.
    """
    device = choose_device(cfg.device)
    if make := SOURCES.get(get_method(cfg.teacher._target_)):
        return make(cfg.teacher, padding, device)
    teacher = instantiate(cfg.teacher)
    if isinstance(teacher, NetworkTeacher):
        return NetworkSource(teacher.network, device)
    raise DistilPoseError(
        f"{cfg.teacher._target_} has no network to record: pass a teacher that has one, such as teacher=checkpoint, "
        "teacher=onnx or teacher=blazepose."
    )


if __name__ == "__main__":
    main()
