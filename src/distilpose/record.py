"""Record a teacher's heat maps: `python -m distilpose.record teacher=blazepose teacher.file=FILE data=lspet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Unit
from hydra.utils import instantiate
from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.cli.validate_settings import Group
from distilpose.evaluation import choose_device
from distilpose.teachers.recorder import describe_accuracy, find_recording, record, recording_accuracy
from distilpose.teachers.recording_file import Recording
from distilpose.teachers.sources import make_source
from distilpose.teachers.views import in_views

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule


class RecordSettings:
    """Settings of the command.

    Attributes:
        split: the persons to record.
        output: folder to write; null: one in `folder`, named after teacher and data, where teacher=blazepose finds it.
        folder: folder of recordings that are named after teacher and data.
        batch_size: number of persons that the teacher processes at a time.
        quarter_turns: look at each person in four turns; BlazePose has turns of its own.
        flip_test: look at each person mirrored too.
        device: device of the teacher's network, such as auto, cpu, cuda or cuda:1; BlazePose runs on the CPU.
    """

    split: Literal["train", "val"]
    output: Path | None
    folder: Path
    batch_size: Annotated[int, Ge(1), Unit("persons")]
    quarter_turns: bool
    flip_test: bool
    device: str
    teacher: Group
    data: Group


@command("record", RecordSettings)
def main(cfg: DictConfig) -> Recording:
    """Record a teacher on every person of a split; the same command continues an interrupted recording."""
    datamodule: CocoDataModule = instantiate(cfg.data, unlabelled=True)  # recording needs only boxes, no labels
    source = make_source(cfg.teacher, datamodule.padding, choose_device(cfg.device))
    datamodule.prepare_data()
    dataset = datamodule.train_dataset() if cfg.split == "train" else datamodule.val_dataset()
    source = in_views(source, cfg.quarter_turns, cfg.flip_test, dataset.skeleton)
    output = find_recording(source, dataset, cfg.folder) if cfg.output is None else Path(cfg.output)
    recording = record(source, dataset, output, cfg.batch_size)
    accuracy = describe_accuracy(recording_accuracy(recording, dataset))
    print(f"{recording.path}: {len(dataset)} persons, {accuracy}")
    print(f"Distil from it by teacher=recorded teacher.file={recording.path}")
    return recording


if __name__ == "__main__":
    main()
