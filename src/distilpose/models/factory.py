"""Building a model from its registry entry and its options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, MinLen, MultipleOf
from torch import nn

from distilpose.errors import DistilPoseError
from distilpose.models.encoder import TokenDistillingEncoder
from distilpose.models.heads import Activation, ConvolutionHead, StudentHead, TeacherHead
from distilpose.models.hourglass import Hourglass
from distilpose.models.hrnet import HRNetW48
from distilpose.models.model import STRIDE, PoseModel
from distilpose.models.registry import ENCODER, ModelSpec, model_spec
from distilpose.models.stem import Stem
from distilpose.models.timm_backbone import TimmBackbone
from distilpose.skeleton import COCO, Skeleton

Count = Annotated[int, Ge(1)]
Size = tuple[Count, Count]
Mean = tuple[Annotated[float, Ge(0)], Annotated[float, Ge(0)], Annotated[float, Ge(0)]]
Std = tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]]


def create_model(
    name: str,
    num_keypoints: Count | None = None,
    skeleton: Skeleton | Mapping[str, Any] | None = None,
    input_size: Size | None = None,
    pretrained: bool | str | Path = False,
    scores_trained: bool = True,
    mean: Mean | None = None,
    std: Std | None = None,
    *,
    width: Annotated[int, Ge(4), MultipleOf(4)] | None = None,
    depth: Count | None = None,
    heads: Count | None = None,
    head_dim: Count | None = None,
    mlp_dim: Count | None = None,
    patch_size: Size | None = None,
    stem_channels: Count | None = None,
    stem_blocks: Count | None = None,
    widths: tuple[Count, Count, Count, Count] | None = None,
    out_channels: Count | None = None,
    backbone: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    strides: Annotated[Sequence[Count], MinLen(1)] | None = None,
    hidden_dim: Count | None = None,
    heatmap_activation: Activation | None = None,
) -> PoseModel:
    """A model with fresh weights, initialised as in the release.

    Options of the architecture that are None take the model's default in `model_spec(name).options`. A model takes the options
    that are listed there.

    Args:
        name: one of `list_models()`.
        num_keypoints: K, for joints without names; with a skeleton it must be the skeleton's.
        skeleton: the joints, as a Skeleton or its `to_dict`. By default COCO's for 17 joints, and unnamed joints for others.
        input_size: height and width of the crops in pixels, multiples of 4 and of the stride times the patch; the model's
            default if null.
        pretrained: whether the backbone starts from ImageNet weights (HRNet and timm backbones), or a .safetensors file with
            its weights in timm's names.
        scores_trained: False if no loss trains the student's scores.
        mean: mean of RGB in [0, 1] that the network's weights expect; if null, that of the weights of `pretrained`, otherwise
            the model's default. Crops are normalised by ImageNet's in any case; the model converts them.
        std: standard deviation of RGB that the network's weights expect, likewise.
        width: features of a token (D). Token terms need the same in teacher and student.
        depth: layers of the transformer.
        heads: attention heads a layer.
        head_dim: features of an attention head; width / heads if null.
        mlp_dim: hidden features of a layer's perceptron; 3 width if null.
        patch_size: rows and columns of the backbone's cells in a patch, which is a visual token.
        stem_channels: channels of the stem's convolutions; a quarter of its output's.
        stem_blocks: bottlenecks of the stem.
        widths: channels of the hourglass at strides 2, 4, 8 and 16.
        out_channels: channels of the hourglass's output.
        backbone: timm's name of the network.
        backbone_options: options passed on to timm, such as {drop_path_rate: 0.1}.
        strides: strides of the network's features that are read; later layers are left out. The first one's cells are divided
            into patches, the others are resized to them. A teacher's first is 4.
        hidden_dim: hidden features of a teacher's head; 2 width if null.
        heatmap_activation: activation of a teacher's maps, which its loss sets (see `TeacherHead`).

    Raises:
        DistilPoseError: an unknown name, an option that the model does not take, a skeleton with another number of joints
            than `num_keypoints`, a size that patches do not divide, or weights that cannot be loaded.
    """
    spec = model_spec(name)
    values = {
        "width": width,
        "depth": depth,
        "heads": heads,
        "head_dim": head_dim,
        "mlp_dim": mlp_dim,
        "patch_size": patch_size,
        "stem_channels": stem_channels,
        "stem_blocks": stem_blocks,
        "widths": widths,
        "out_channels": out_channels,
        "backbone": backbone,
        "backbone_options": backbone_options,
        "strides": strides,
        "hidden_dim": hidden_dim,
        "heatmap_activation": heatmap_activation,
    }
    options = {option: value for option, value in values.items() if value is not None}
    unknown = [option for option in options if option not in spec.options]
    if unknown:
        raise DistilPoseError(f"{name} takes no option {unknown[0]!r}, only {', '.join(spec.options)}.")
    settings = {option: _plain(options.get(option, default)) for option, default in spec.options.items()}
    if skeleton is None:
        skeleton = COCO if num_keypoints is None else Skeleton.unnamed(num_keypoints)
    resolved = skeleton if isinstance(skeleton, Skeleton) else Skeleton.from_dict(skeleton)
    if num_keypoints not in (None, resolved.num_keypoints):
        raise DistilPoseError(
            f"num_keypoints={num_keypoints} contradicts the skeleton, which has {resolved.num_keypoints} joints "
            f"({', '.join(resolved.names[:3])}, …): leave num_keypoints out, or give another skeleton or data set."
        )
    stride, patch_size = _grid_stride(spec, settings), settings.get("patch_size", (1, 1))
    size = _check_size(spec.input_size if input_size is None else input_size, patch_size, stride)
    network = _create_backbone(spec, settings, size, pretrained)
    parts = _encoder_and_head(spec, settings, int(network.out_channels), size, stride, resolved.num_keypoints)
    # HRNet's weights expect ImageNet's mean and std, as the registry says
    weights: Any = network if pretrained and spec.backbone == "timm" else spec
    return PoseModel(
        name,
        spec.kind,
        resolved,
        size,
        network,
        *parts,
        settings,
        scores_trained,
        weights.mean if mean is None else mean,
        weights.std if std is None else std,
    )


def _grid_stride(spec: ModelSpec, settings: Mapping[str, Any]) -> int:
    """Pixels between the cells of the backbone's output."""
    stride = int(settings.get("strides", [STRIDE])[0])
    if spec.kind == "teacher" and stride != STRIDE:
        raise DistilPoseError(
            f"model.strides={list(settings['strides'])} of {spec.name} must begin with {STRIDE}, the stride of its heat maps; "
            f"others follow, such as [{STRIDE},8,16]."
        )
    return stride


def _encoder_and_head(
    spec: ModelSpec, settings: dict[str, Any], channels: int, size: tuple[int, int], stride: int, num_keypoints: int
) -> tuple[TokenDistillingEncoder | None, StudentHead | TeacherHead | ConvolutionHead]:
    if "patch_size" not in settings:
        return None, ConvolutionHead(channels, num_keypoints, settings["heatmap_activation"])
    feature_size = (size[0] // stride, size[1] // stride)
    architecture = {option: settings[option] for option in ENCODER} | {"patch_size": tuple(settings["patch_size"])}
    encoder = TokenDistillingEncoder(channels, feature_size, num_keypoints, **architecture)
    if spec.kind == "student":
        return encoder, StudentHead(encoder.width)
    return encoder, TeacherHead(encoder.width, feature_size, settings["hidden_dim"], settings["heatmap_activation"])


def _create_backbone(
    spec: ModelSpec, settings: Mapping[str, Any], size: tuple[int, int], pretrained: bool | str | Path
) -> Any:
    builders: dict[str, Callable[[], nn.Module]] = {
        "stem": lambda: Stem(settings["stem_channels"], settings["stem_blocks"]),
        "hourglass": lambda: Hourglass(settings["widths"], settings["out_channels"]),
        "hrnet_w48": lambda: HRNetW48(4, pretrained),
        "hrnet_w48_stage3": lambda: HRNetW48(3, pretrained),
        "timm": lambda: TimmBackbone(
            settings["backbone"], size, pretrained, settings["backbone_options"], settings["strides"]
        ),
    }
    if pretrained and spec.backbone in ("stem", "hourglass"):
        raise DistilPoseError(
            f"{spec.name} has the {spec.backbone} backbone, for which there are no ImageNet weights: set pretrained=False "
            "(model.pretrained=false on the command line)."
        )
    return builders[spec.backbone]()


def _check_size(input_size: Sequence[int], patch_size: Sequence[int], stride: int) -> tuple[int, int]:
    """The crop's (H, W), which must divide into patches and into cells of the heat map."""
    size = (input_size[0], input_size[1])
    steps = [math.lcm(STRIDE, stride * length) for length in patch_size]
    if size[0] % steps[0] or size[1] % steps[1]:
        pairs = list(zip(size, steps, strict=True))
        below = [max(step, length // step * step) for length, step in pairs]
        nearest = [max(step, (length + step // 2) // step * step) for length, step in pairs]
        above = [-(-length // step) * step for length, step in pairs]
        near = " or ".join(dict.fromkeys(f"{height} x {width}" for height, width in (below, nearest, above)))
        raise DistilPoseError(
            f"input_size {size[0]} x {size[1]} (H x W) does not divide into patches of {stride * patch_size[0]} x "
            f"{stride * patch_size[1]} pixels (stride {stride} times model.patch_size={list(patch_size)}) and heat-map cells "
            f"of {STRIDE}: the height must be a multiple of {steps[0]} and the width of {steps[1]}, such as {near}."
        )
    return size


def _plain(value: Any) -> Any:
    """Lists and dicts instead of tuples and configuration nodes, for checkpoints."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
