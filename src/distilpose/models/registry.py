"""The models by name, where each comes from, and how one is made."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from distilpose.errors import DistilPoseError, check_size
from distilpose.models.encoder import TokenDistillingEncoder
from distilpose.models.heads import ConvolutionHead, StudentHead, TeacherHead
from distilpose.models.hourglass import Hourglass
from distilpose.models.hrnet import HRNetW48
from distilpose.models.model import IMAGENET_MEAN, IMAGENET_STD, STRIDE, PoseModel
from distilpose.models.stem import Stem
from distilpose.models.timm_backbone import TimmBackbone
from distilpose.skeleton import COCO, Skeleton

PAPER = "Ye et al., DistilPose: Tokenized Pose Regression with Heatmap Distillation, CVPR 2023, arXiv 2303.02455"
_ENCODER = {"width": 192, "depth": 12, "heads": 8, "head_dim": None, "mlp_dim": None, "patch_size": [4, 3]}
_XS = {"width": 96, "heads": 4}


@dataclass(frozen=True)
class ModelSpec:
    """One entry of the registry.

    Attributes:
        name: as `create_model` takes it.
        kind: 'student' or 'teacher'.
        description: one line.
        provenance: 'paper' where the network is the paper's or its release's, 'ours' where it is this package's.
        source: the publication, or what it was made for.
        backbone: 'stem', 'hourglass', 'hrnet_w48', 'hrnet_w48_stage3' or 'timm'.
        options: architectural options and their defaults; `create_model` takes each by name.
        input_size: default (H, W).
        published: the authors' own figures on COCO val2017 with detector boxes; nothing measured here.
        backbone_from_teacher: whether training starts the backbone from the teacher's weights.
        mean: of RGB in [0, 1].
        std: likewise.
    """

    name: str
    kind: str
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
_TEACHER = {"hidden_dim": None, "heatmap_activation": "none"}
_SPECS = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "student_s", "student", "DistilPose-S: stem backbone", "paper", PAPER, "stem", _STEM | _ENCODER,
            published={"parameters_m": 5.36, "gmacs": 2.38, "ap": 71.6, "fps_v100": 40.2},
        ),
        ModelSpec(
            "student_l", "student", "DistilPose-L: HRNet-W48 without stage 4", "paper", PAPER, "hrnet_w48_stage3",
            _ENCODER, published={"parameters_m": 21.27, "gmacs": 10.33, "ap": 74.4}, backbone_from_teacher=True,
        ),
        ModelSpec(
            "student_timm", "student", "a student on any timm backbone with a stride-4 feature", "ours",
            "the paper's encoder and head on timm's networks", "timm",
            {"backbone": "resnet18", "backbone_options": None} | _ENCODER,
        ),
        ModelSpec(
            "student_xs", "student", "DistilPose made small enough for two CPU cores", "ours",
            "the demo and quick experiments", "hourglass",
            {"widths": [16, 24, 32, 48], "out_channels": 32} | _ENCODER | _XS | {"depth": 3}, input_size=(64, 48),
        ),
        ModelSpec(
            "teacher_hrnet_w48", "teacher", "HRNet-W48 with a token head (TokenPose-L form)", "paper", PAPER,
            "hrnet_w48", _ENCODER | _TEACHER, published={"parameters_m": 69.41, "gmacs": 17.03, "ap": 75.2},
        ),
        ModelSpec(
            "teacher_stem", "teacher", "stem backbone with a token head", "paper",
            f"the code released with {PAPER}; not in the paper", "stem", _STEM | _ENCODER | _TEACHER,
        ),
        ModelSpec(
            "teacher_timm", "teacher", "a plain heat-map network, without tokens, on any timm backbone", "ours",
            "timm's networks with one 1 x 1 convolution, as HRNet has it (Sun et al., CVPR 2019)", "timm",
            {"backbone": "hrnet_w18_small", "backbone_options": None, "heatmap_activation": "none"},
        ),
        ModelSpec(
            "teacher_xs", "teacher", "a teacher small enough for two CPU cores", "ours",
            "the demo and quick experiments", "hourglass",
            {"widths": [16, 32, 64, 96], "out_channels": 32} | _ENCODER | _XS | {"depth": 3} | _TEACHER,
            input_size=(64, 48),
        ),
    )
}  # fmt: skip


def list_models(kind: str | None = None) -> list[str]:
    """Names of all models, sorted.

    Args:
        kind: 'student' or 'teacher' for only these.
    """
    if kind not in (None, "student", "teacher"):
        raise DistilPoseError(f"kind={kind!r} must be 'student', 'teacher' or None for both.")
    return sorted(name for name, spec in _SPECS.items() if kind in (None, spec.kind))


def model_spec(name: str) -> ModelSpec:
    """The registry's entry of that name.

    Raises:
        DistilPoseError: if there is none.
    """
    if name not in _SPECS:
        raise DistilPoseError(f"There is no model {name!r}{_near(name, _SPECS)}; there are {', '.join(list_models())}.")
    return _SPECS[name]


def create_model(
    name: str,
    num_keypoints: int | None = None,
    skeleton: Skeleton | Mapping[str, Any] | None = None,
    input_size: Sequence[int] | None = None,
    pretrained: bool = False,
    scores_trained: bool = True,
    **options: Any,
) -> PoseModel:
    """A model with fresh weights, drawn as the release draws them.

    Args:
        name: one of `list_models()`.
        num_keypoints: K; need not be given with a skeleton, and must be its own count then.
        skeleton: the joints, as a Skeleton or its `to_dict`; if not given, COCO's for 17 joints or none given, else
            joints without names.
        input_size: (H, W) of the crops, each divisible by 4 and the patch; the registry's default if not given.
        pretrained: whether the backbone starts from ImageNet weights (HRNet and timm backbones).
        scores_trained: False where no loss trains the student's score.
        **options: architecture, with defaults in `model_spec(name).options`: width (D), depth, heads, head_dim,
            mlp_dim, patch_size, hidden_dim and heatmap_activation (teachers), stem_channels and stem_blocks (stem),
            backbone and backbone_options (timm).

    Raises:
        DistilPoseError: for an unknown name or option, a size that does not divide, or weights out of reach.
    """
    spec = model_spec(name)
    for option in options:
        if option not in spec.options:
            raise DistilPoseError(
                f"{name} has no option {option!r}{_near(option, spec.options)}; it has {', '.join(spec.options)}."
            )
    settings = {option: _plain(value) for option, value in {**spec.options, **options}.items()}
    skeleton = _resolve_skeleton(skeleton, num_keypoints)
    patch_size = check_size("patch_size", settings.get("patch_size", (1, 1)))
    size = check_size("input_size", spec.input_size if input_size is None else input_size)
    _check_size(size, patch_size)
    backbone = _create_backbone(spec, settings, size, pretrained)
    parts = _encoder_and_head(spec, settings, int(backbone.out_channels), size, skeleton.num_keypoints)
    model = PoseModel(name, spec.kind, skeleton, size, backbone, *parts, settings, bool(scores_trained))
    model.mean, model.std = spec.mean, spec.std
    return model


def _encoder_and_head(
    spec: ModelSpec, settings: dict[str, Any], channels: int, size: tuple[int, int], num_keypoints: int
) -> tuple[TokenDistillingEncoder | None, StudentHead | TeacherHead | ConvolutionHead]:
    if "patch_size" not in settings:
        return None, ConvolutionHead(channels, num_keypoints, settings["heatmap_activation"])
    settings["patch_size"] = list(settings["patch_size"])
    feature_size = (size[0] // STRIDE, size[1] // STRIDE)
    architecture = {option: settings[option] for option in _ENCODER} | {"patch_size": tuple(settings["patch_size"])}
    encoder = TokenDistillingEncoder(channels, feature_size, num_keypoints, **architecture)
    if spec.kind == "student":
        return encoder, StudentHead(encoder.width)
    return encoder, TeacherHead(encoder.width, feature_size, settings["hidden_dim"], settings["heatmap_activation"])


def _create_backbone(spec: ModelSpec, settings: Mapping[str, Any], size: tuple[int, int], pretrained: bool) -> Any:
    builders: dict[str, Callable[[], nn.Module]] = {
        "stem": lambda: Stem(settings["stem_channels"], settings["stem_blocks"]),
        "hourglass": lambda: Hourglass(settings["widths"], settings["out_channels"]),
        "hrnet_w48": lambda: HRNetW48(4, pretrained),
        "hrnet_w48_stage3": lambda: HRNetW48(3, pretrained),
        "timm": lambda: TimmBackbone(settings["backbone"], size, pretrained, settings["backbone_options"]),
    }
    if pretrained and spec.backbone in ("stem", "hourglass"):
        raise DistilPoseError(
            f"{spec.name} has the {spec.backbone} backbone, which has no ImageNet weights: set pretrained=False "
            "(model.pretrained=false on the command line)."
        )
    return builders[spec.backbone]()


def _resolve_skeleton(skeleton: Skeleton | Mapping[str, Any] | None, num_keypoints: int | None) -> Skeleton:
    if num_keypoints is not None and num_keypoints < 1:
        raise DistilPoseError(f"num_keypoints={num_keypoints} must be at least 1.")
    if skeleton is None:
        return COCO if num_keypoints is None else Skeleton.unnamed(num_keypoints)
    resolved = skeleton if isinstance(skeleton, Skeleton) else Skeleton.from_dict(skeleton)
    if num_keypoints not in (None, resolved.num_keypoints):
        raise DistilPoseError(
            f"num_keypoints={num_keypoints} contradicts the skeleton, which has {resolved.num_keypoints} joints: "
            "give the skeleton alone."
        )
    return resolved


def _check_size(size: tuple[int, int], patch_size: tuple[int, int]) -> None:
    steps = (STRIDE * patch_size[0], STRIDE * patch_size[1])
    if size[0] % steps[0] or size[1] % steps[1]:
        below = [max(step, length // step * step) for length, step in zip(size, steps, strict=True)]
        above = [-(-length // step) * step for length, step in zip(size, steps, strict=True)]
        near = " or ".join(dict.fromkeys(f"{height} x {width}" for height, width in (below, above)))
        raise DistilPoseError(
            f"input_size {size[0]} x {size[1]} (H x W) does not divide into patches of {steps[0]} x {steps[1]} "
            f"pixels: the height must be a multiple of {steps[0]} and the width of {steps[1]}, such as {near}."
        )


def _plain(value: Any) -> Any:
    """Lists and dicts in place of tuples and configuration nodes, as checkpoints keep them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _near(name: str, names: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
