"""Translation between the names in released mmpose checkpoints and the names here, both ways by one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.models.model import PoseModel

# (released name, name here); {i} is a layer's number; a name that ends in a dot is a prefix
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

    The release keeps the backbone under `backbone.`, with HRNet's names, which are the same here. It keeps encoder and head
    together under `keypoint_head.`: `keypoint_head.tokenhead.` in a student, `keypoint_head.tokenpose.` in a teacher.
    There `transformer.layers.{i}.0.fn` is the attention of layer i (`norm`, `fn.to_qkv`, `fn.to_out.0`) and
    `transformer.layers.{i}.1.fn` its perceptron (`norm`, `fn.net.0`, `fn.net.3`); `mlp_head` is the head, numbered in
    order of its layers. Here these are `encoder.layers.{i}.attention_norm`, `.attention.qkv`, `.attention.out`,
    `.mlp_norm`, `.mlp.0`, `.mlp.2` and `head.norm`, `head.linear` (in a teacher `head.norm`, `head.hidden`,
    `head.hidden_norm`, `head.linear`).

    Args:
        released: the file's `state_dict`.

    Returns:
        The weights by their names here; and the fixed sine table `pos_embedding` by its released name, which this package
        computes and does not store.

    Raises:
        DistilPoseError: the file is not of the release. (Unknown names are kept, and `fit_weights` reports them.)
    """
    kind = released_kind(released)
    if kind is None:
        raise DistilPoseError(
            f"None of the {len(released)} names begins with {' or '.join(_PREFIXES.values())}: give the checkpoint of a "
            "released DistilPose student or teacher."
        )
    weights, tables = {}, {}
    prefix, pairs = _PREFIXES[kind], _ENCODER + _HEADS[kind]
    for name, value in released.items():
        if name == prefix + POSITIONS:
            tables[name] = value
        else:
            translated = _translate(name.removeprefix(prefix), pairs) if name.startswith(prefix) else None
            weights[translated or name] = value
    return weights, tables


def ours_to_released(model: PoseModel) -> dict[str, Tensor]:
    """The weights of a model by their released names, the sine table included; see `released_to_ours` for the names.

    A backbone that is neither stem nor HRNet keeps its names.

    Raises:
        DistilPoseError: the release has no such network: one without tokens, or with a softmax over a teacher's maps.
    """
    activation = getattr(model.head, "activation", "none")
    if model.encoder is None or activation != "none":
        raise DistilPoseError(
            f"The release has no network like this {model.name} (tokens: {'no' if model.encoder is None else 'yes'}, "
            f"activation of its maps: {activation}): convert a student, or a teacher with tokens trained by loss=heatmap_mse."
        )
    prefix = _PREFIXES[model.kind]
    pairs = [(name_here, released_name) for released_name, name_here in _ENCODER + _HEADS[model.kind]]
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
