"""Start of a training from the weights of another model, with the same or other joints, or from its backbone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distilpose.errors import DistilPoseError
from distilpose.models.checkpoint import fit_weights
from distilpose.models.model import PoseModel

# options that change what weights of the same shapes mean
_MEANINGS = ("backbone", "backbone_options", "strides", "patch_size", "heads")
log = logging.getLogger(__name__)


def start_from(model: PoseModel, source: PoseModel, file: str | Path) -> None:
    """Start a model from the weights of another one: joints are matched by name, in any order and number.

    Joints that the source lacks keep their fresh weights; the log names them. Joints without names (joint_0, …) are matched by
    their position, if there are as many. The model takes the mean and std that the weights expect.

    Args:
        model: changed in place.
        source: model of the same architecture; not changed.
        file: its file, for messages.

    Raises:
        DistilPoseError: the weights do not fit the model.
    """
    _check_same(model, source, file, _MEANINGS)
    state = dict(source.state_dict())
    indices = model.skeleton.matching(source.skeleton)
    if (
        all(joint is None for joint in indices)
        and source.num_keypoints == model.num_keypoints
        and _is_unnamed(model, source)
    ):
        indices = list(range(source.num_keypoints))
        log.info(
            f"The {source.num_keypoints} joints have no names in {file} or in the data: they are matched by position."
        )
    known = torch.tensor([index for index, joint in enumerate(indices) if joint is not None], dtype=torch.long)
    taken = torch.tensor([joint for joint in indices if joint is not None], dtype=torch.long)
    fresh = model.state_dict()
    for name, axis in model.joint_axes.items():
        if name in state and name in fresh and state[name].shape[axis] == source.num_keypoints:
            values = fresh[name].clone()
            if values.select(axis, 0).shape == state[name].select(axis, 0).shape:  # otherwise fit_weights names it
                state[name] = values.index_copy(axis, known, state[name].index_select(axis, taken).to(values))
    fit_weights(model, state, file)
    model.set_network_normalisation(source.network_mean, source.network_std)
    _log_joints(model, source, indices, file)


def copy_backbone(student: PoseModel, teacher: PoseModel) -> int:
    """Start a student's backbone from a teacher's weights and batch statistics, as the paper does for DistilPose-L.

    The student takes the mean and std that these weights expect.

    Args:
        student: changed in place; each tensor of its backbone must exist, in its shape, in the teacher's.
        teacher: not changed.

    Returns:
        The number of tensors copied.

    Raises:
        DistilPoseError: the student's backbone is not part of the teacher's.
    """
    _check_same(student, teacher, "the teacher (method.backbone_from_teacher=true)", ("backbone", "backbone_options"))
    target, source = student.backbone.state_dict(), teacher.backbone.state_dict()
    unmatched = [name for name, value in target.items() if name not in source or source[name].shape != value.shape]
    if unmatched:
        raise DistilPoseError(
            f"The backbone of {student.name} cannot start from {teacher.name}: {len(unmatched)} of its {len(target)} "
            f"tensors are missing there or have another shape ({', '.join(unmatched[:3])}): choose a teacher with the same "
            "kind of backbone, or pass method.backbone_from_teacher=false."
        )
    student.backbone.load_state_dict({name: source[name] for name in target})
    student.set_network_normalisation(teacher.network_mean, teacher.network_std)
    return len(target)


def use_normalisation(model: PoseModel, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Let a model expect a given mean and std, with a warning if its weights were trained with others.

    Args:
        model: changed in place.
        mean: of RGB in [0, 1]; None keeps the model's.
        std: likewise.
    """
    given = tuple(mean or model.network_mean), tuple(std or model.network_std)
    if given != (model.network_mean, model.network_std):
        log.warning(
            f"{model.name} starts from weights that expect a mean of {list(model.network_mean)} and a std of "
            f"{list(model.network_std)}, but model.mean and model.std ask for {list(given[0])} and {list(given[1])}, which are "
            "used."
        )
        model.set_network_normalisation(*given)


def _check_same(model: PoseModel, source: PoseModel, file: str | Path, options: Sequence[str]) -> None:
    """Raise if an option differs that decides what weights mean, but not their shapes."""
    ours, theirs = ({option: _meaning(option, one.config.get(option)) for option in options} for one in (model, source))
    for option in options:
        if ours[option] != theirs[option]:
            raise DistilPoseError(
                f"model.{option}={ours[option]} differs from that of {file}, {theirs[option]}, and the weights would mean "
                f"something else: set model.{option} to the latter, or choose other weights."
            )


def _meaning(option: str, value: Any) -> Any:
    """An option without the parts that do not change what weights mean: the tag of weights, rates of dropout, the crop size."""
    if option == "backbone" and value is not None:
        return str(value).partition(".")[0]
    if isinstance(value, Mapping) or (option == "backbone_options" and value is None):
        ignored = ("drop", "img_size", "pretrained")
        return {key: item for key, item in (value or {}).items() if not any(one in key for one in ignored)}
    return value


def _is_unnamed(*models: PoseModel) -> bool:
    """Whether one of the models has joints without names."""
    return any(model.skeleton.names == tuple(f"joint_{k}" for k in range(model.num_keypoints)) for model in models)


def _log_joints(model: PoseModel, source: PoseModel, indices: list[int | None], file: str | Path) -> None:
    """Log which joints started from the file, unless all did in the file's order."""
    names = model.skeleton.names
    new = [name for name, joint in zip(names, indices, strict=True) if joint is None]
    left_out = [name for joint, name in enumerate(source.skeleton.names) if joint not in indices]
    if indices == list(range(source.num_keypoints)):
        return
    parts = [f"{len(names) - len(new)} of {len(names)} joints start from {file}, matched by name"]
    parts += [f"new: {', '.join(new)}"] if new else []
    parts += [f"not used: {', '.join(left_out)}"] if left_out else []
    log.log(logging.WARNING if len(new) == len(names) else logging.INFO, "; ".join(parts))
