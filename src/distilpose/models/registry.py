"""The registry of models: their names, provenance and default options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distilpose.errors import DistilPoseError
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD

PAPER = "Ye et al., DistilPose: Tokenized Pose Regression with Heatmap Distillation, CVPR 2023, arXiv 2303.02455"
ENCODER = {"width": 192, "depth": 12, "heads": 8, "head_dim": None, "mlp_dim": None, "patch_size": [4, 3]}
_XS = {"width": 96, "heads": 4}


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the registry.

    Attributes:
        name: the name that `create_model` takes.
        kind: "student" or "teacher".
        description: one line.
        provenance: "paper" for networks of the paper or its release, "ours" for networks of this package.
        source: the publication, or the purpose.
        backbone: "stem", "hourglass", "hrnet_w48", "hrnet_w48_stage3" or "timm".
        options: architectural options and their defaults; `create_model` takes each by name.
        input_size: default (H, W).
        published: the authors' figures on COCO val2017 with detector boxes, not measured here.
        backbone_from_teacher: whether training starts the backbone from the teacher's weights.
        mean: mean of RGB in [0, 1] that the network expects without `pretrained`.
        std: standard deviation of RGB likewise.
    """

    name: str
    kind: Literal["student", "teacher"]
    description: str
    provenance: str
    source: str
    backbone: str
    options: Mapping[str, Any]
    input_size: tuple[int, int] = (256, 192)
    published: Mapping[str, float] = field(default_factory=dict)
    backbone_from_teacher: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


_STEM = {"stem_channels": 64, "stem_blocks": 4}
_TIMM = {"backbone_options": None, "strides": [4]}
_CELLS = _TIMM | ENCODER | {"strides": [16], "patch_size": [1, 1]}  # a token for each cell
_TEACHER = {"hidden_dim": None, "heatmap_activation": "none"}
_SPECS = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "student_s", "student", "DistilPose-S: stem backbone", "paper", PAPER, "stem", _STEM | ENCODER,
            published={"parameters_m": 5.36, "gmacs": 2.38, "ap": 71.6, "fps_v100": 40.2},
        ),
        ModelSpec(
            "student_base", "student", "a stronger student: MobileNetV4 to the end, its features fused at stride 16", "ours",
            "chosen by size and latency (docs/method.md)", "timm",
            {"backbone": "mobilenetv4_conv_medium"} | _CELLS | {"strides": [16, 32], "width": 256, "depth": 4},
        ),
        ModelSpec(
            "student_l", "student", "DistilPose-L: HRNet-W48 without stage 4", "paper", PAPER, "hrnet_w48_stage3",
            ENCODER, published={"parameters_m": 21.27, "gmacs": 10.33, "ap": 74.4}, backbone_from_teacher=True,
        ),
        ModelSpec(
            "student_lite", "student", "a student for phones and CPUs: EfficientNet-Lite0 down to stride 16", "ours",
            "chosen by size and latency (docs/method.md)", "timm",
            {"backbone": "tf_efficientnet_lite0"} | _CELLS | {"depth": 4, "heads": 6},
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
        ),
        ModelSpec(
            "student_timm", "student", "a student on any timm backbone", "ours",
            "the paper's encoder and head on timm's networks", "timm", {"backbone": "resnet18"} | _TIMM | ENCODER,
        ),
        ModelSpec(
            "student_xs", "student", "DistilPose made small enough for two CPU cores", "ours",
            "the demo and quick experiments", "hourglass",
            {"widths": [16, 24, 32, 48], "out_channels": 32} | ENCODER | _XS | {"depth": 3}, input_size=(64, 48),
        ),
        ModelSpec(
            "teacher_hrnet_w48", "teacher", "HRNet-W48 with a token head (TokenPose-L form)", "paper", PAPER,
            "hrnet_w48", ENCODER | _TEACHER, published={"parameters_m": 69.41, "gmacs": 17.03, "ap": 75.2},
        ),
        ModelSpec(
            "teacher_stem", "teacher", "stem backbone with a token head", "paper",
            f"the code released with {PAPER}; not in the paper", "stem", _STEM | ENCODER | _TEACHER,
        ),
        ModelSpec(
            "teacher_timm", "teacher", "a plain heat-map network, without tokens, on any timm backbone", "ours",
            "timm's networks with one 1 x 1 convolution, as HRNet has it (Sun et al., CVPR 2019)", "timm",
            {"backbone": "hrnet_w18_small"} | _TIMM | {"heatmap_activation": "none"},
        ),
        ModelSpec(
            "teacher_xs", "teacher", "a teacher small enough for two CPU cores", "ours",
            "the demo and quick experiments", "hourglass",
            {"widths": [16, 32, 64, 96], "out_channels": 32} | ENCODER | _XS | {"depth": 3} | _TEACHER,
            input_size=(64, 48),
        ),
    )
}  # fmt: skip


def list_models(kind: Literal["student", "teacher"] | None = None) -> list[str]:
    """Names of all models, or of all students or teachers, sorted."""
    return sorted(name for name, spec in _SPECS.items() if kind in (None, spec.kind))


def model_spec(name: str) -> ModelSpec:
    """The registry's entry of that name.

    Raises:
        DistilPoseError: there is no model of that name.
    """
    if name not in _SPECS:
        raise DistilPoseError(f"There is no model {name!r}: choose one of {', '.join(list_models())}.")
    return _SPECS[name]
