"""Start of a training from the weights of another model, with the same or other joints."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from distilpose.models.checkpoint import fit_weights
from distilpose.models.model import PoseModel

log = logging.getLogger(__name__)


def start_from(model: PoseModel, source: PoseModel, file: str | Path) -> None:
    """Start a model from the weights of another one: joints are matched by name, in any order and number.

    Joints that the source lacks keep their fresh weights; the log names them. Joints without names (joint_0, …) are matched by
    their position, if there are as many.

    Args:
        model: changed in place.
        source: model of the same architecture; not changed.
        file: its file, for messages.

    Raises:
        DistilPoseError: the weights do not fit the model.
    """
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
