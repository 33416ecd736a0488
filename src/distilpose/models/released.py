"""Translation between the names in released mmpose checkpoints and the names here, both ways by one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.models.heads import TeacherHead
from distilpose.models.model import PoseModel

# (released, ours); {i} is a layer's number; a name that ends in a dot is a prefix
_ENCODER = (
    ("keypoint_token", "encoder.keypoint_tokens"),
    ("patch_to_embedding.", "encoder.patch_embedding."),
    ("transformer.layers.{i}.0.fn.norm.", "encoder.layers.{i}.attention_norm."),
    ("transformer.layers.{i}.0.fn.fn.to_qkv.", "encoder.layers.{i}.attention.qkv."),
    ("transformer.layers.{i}.0.fn.fn.to_out.0.", "encoder.layers.{i}.attention.out."),
    ("transformer.layers.{i}.1.fn.norm.", "encoder.layers.{i}.mlp_norm."),
    ("transformer.layers.{i}.1.fn.fn.net.0.", "encoder.layers.{i}.mlp.0."),
    ("transformer.layers.{i}.1.fn.fn.net.3.", "encoder.layers.{i}.mlp.2."),
)
_HEADS = {
    "student": (("mlp_head.0.", "head.norm."), ("mlp_head.1.", "head.linear.")),
    "teacher": (
        ("mlp_head.0.", "head.norm."),
        ("mlp_head.1.", "head.hidden."),
        ("mlp_head.2.", "head.hidden_norm."),
        ("mlp_head.3.", "head.linear."),
    ),
}
_PREFIXES = {"student": "keypoint_head.tokenhead.", "teacher": "keypoint_head.tokenpose."}
POSITIONS = "pos_embedding"


def released_kind(state: Mapping[str, Any]) -> str | None:
    """Whether these are the weights of a released "student" or "teacher"; None for other files."""
    for kind, prefix in _PREFIXES.items():
        if any(str(name).startswith(prefix) for name in state):
            return kind
    return None


def released_to_ours(released: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Translate a released file's weights to this package's names.

    The release keeps the backbone under `backbone.`, whose names are HRNet's and the same here, and encoder and head
    together under `keypoint_head.`: `keypoint_head.tokenhead.` in a student, `keypoint_head.tokenpose.` in a teacher.
    There `transformer.layers.{i}.0.fn` is the attention of layer i (`norm`, `fn.to_qkv`, `fn.to_out.0`) and
    `transformer.layers.{i}.1.fn` its perceptron (`norm`, `fn.net.0`, `fn.net.3`); `mlp_head` is the head, numbered in
    order of its layers. Here these are `encoder.layers.{i}.attention_norm`, `.attention.qkv`, `.attention.out`,
    `.mlp_norm`, `.mlp.0`, `.mlp.2` and `head.norm`, `head.linear` (in a teacher `head.norm`, `head.hidden`,
    `head.hidden_norm`, `head.linear`).

    Args:
        released: the file's `state_dict`.

    Returns:
        The weights by our names, and by its released name the fixed sine table `pos_embedding`, which this package
        computes and does not store.

    Raises:
        DistilPoseError: a name is not the release's.
    """
    kind = released_kind(released)
    if kind is None:
        raise DistilPoseError(
            f"None of the {len(released)} names begins with {' or '.join(_PREFIXES.values())}: give the checkpoint of a "
            "released DistilPose student or teacher."
        )
    weights, tables, unknown = {}, {}, []
    pairs = _ENCODER + _HEADS[kind]
    for name, value in released.items():
        bare = name.removeprefix(_PREFIXES[kind])
        if name.startswith("backbone."):
            weights[name] = value
        elif name == _PREFIXES[kind] + POSITIONS:
            tables[name] = value
        elif bare != name and (ours := _translate(bare, pairs)):
            weights[ours] = value
        else:
            unknown.append(name)
    if unknown:
        raise DistilPoseError(
            f"{len(unknown)} names are not those of a released DistilPose {kind} ({', '.join(unknown[:5])}): give an unchanged "
            "checkpoint of the release."
        )
    return weights, tables


def ours_to_released(model: PoseModel) -> dict[str, Tensor]:
    """The weights of a model by their released names, the sine table included; see `released_to_ours` for the names.

    Raises:
        DistilPoseError: the release has no such network, or no softmax over a teacher's maps. (A backbone that is neither stem
            nor HRNet keeps its names.)
    """
    if isinstance(model.head, TeacherHead) and model.head.activation != "none":
        raise DistilPoseError(
            f"This {model.name} has maps with a {model.head.activation}, which the release lacks: convert a teacher that "
            "was trained by loss=heatmap_mse."
        )
    if model.encoder is None:
        raise DistilPoseError(
            f"{model.name} has no tokens, and the release has no such network: convert another model."
        )
    prefix = _PREFIXES[model.kind]
    pairs = [(ours, theirs) for theirs, ours in _ENCODER + _HEADS[model.kind]]
    released = {prefix + POSITIONS: model.encoder.positions.detach().clone()}
    for name, value in model.state_dict().items():
        released[name if name.startswith("backbone.") else f"{prefix}{_translate(name, pairs)}"] = value
    return released


def _translate(name: str, pairs: Any) -> str | None:
    for source, target in pairs:
        pattern = re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)")
        rest = r"(?P<rest>.+)" if source.endswith(".") else r"(?P<rest>)"
        if match := re.fullmatch(pattern + rest, name):
            return target.replace("{i}", match.groupdict().get("i") or "") + match["rest"]
    return None
