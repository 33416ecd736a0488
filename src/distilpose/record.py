"""Record a teacher's heat maps: `python -m distilpose.record teacher=blazepose teacher.file=FILE data=lspet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import get_method, instantiate
from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError, check_number
from distilpose.evaluation import choose_device
from distilpose.files import sha256_of
from distilpose.models.remote import local_file
from distilpose.modules import load_blazepose, load_teacher
from distilpose.teachers.blazepose import BlazePose
from distilpose.teachers.recorder import find_recording, joints_found, record, told_found
from distilpose.teachers.recording import Recording
from distilpose.teachers.sources import BlazePoseSource, CheckpointSource, Source

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule, CocoKeypoints


@command("record")
def main(cfg: DictConfig) -> Recording:
    """Ask the teacher about every person of a split; the same command goes on where it was stopped."""
    check_number("batch_size", cfg.batch_size, least=1, whole=True)
    dataset = persons(cfg)
    source = source_of(cfg, dataset.padding)
    output = find_recording(source, dataset, cfg.folder) if cfg.output is None else Path(cfg.output)
    made = record(source, dataset, output, cfg.batch_size)
    print(f"{made.path}: {len(dataset)} persons, {told_found(joints_found(made, dataset))}")
    print(f"Teach by teacher=recorded teacher.file={made.path}")
    return made


def persons(cfg: DictConfig) -> CocoKeypoints:
    """The data set of the split asked for."""
    if cfg.split not in ("train", "val"):
        raise DistilPoseError(f"split={cfg.split} is not known: expected train or val.")
    datamodule: CocoDataModule = instantiate(cfg.data, unlabelled=True)  # a box is enough
    datamodule.prepare_data()
    return datamodule.train_dataset() if cfg.split == "train" else datamodule.val_dataset()


def source_of(cfg: DictConfig, padding: float) -> Source:
    """The teacher as something to record.

    Args:
        cfg: of the command.
        padding: factor on the box in a checkpoint's crop.
    """
    kind = get_method(cfg.teacher._target_)
    if kind is load_blazepose:
        teacher = cfg.teacher
        return BlazePoseSource(BlazePose(teacher.file, teacher.threads), teacher.turns, teacher.passes)
    if kind is load_teacher:
        model = instantiate(cfg.teacher).model
        return CheckpointSource(
            model, sha256_of(local_file(cfg.teacher.checkpoint)), padding, choose_device(cfg.device)
        )
    raise DistilPoseError(f"teacher={cfg.teacher._target_} cannot be recorded: pass teacher=blazepose or checkpoint.")


if __name__ == "__main__":
    main()
