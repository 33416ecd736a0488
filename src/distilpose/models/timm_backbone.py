"""A backbone from any timm network: one of its features, or several fused, with the layers behind them left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distilpose.errors import DistilPoseError, first_line
from distilpose.models.timm_weights import create_features
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD


class TimmBackbone(nn.Module):
    """Features of a timm network; layers that they do not need are left out.

    The first stride is that of the output. Features of other strides are resized to its cells, and the channels of all are
    concatenated: the encoder's patch embedding, a linear layer, is their projection. A plain vision transformer has one
    stride, its patch size, and gives the normalised patch tokens of its last block.

    Args:
        backbone: timm's name of the network.
        input_size: (H, W) of the crops, multiples of the first stride.
        pretrained: True for ImageNet weights from timm's hub, or a `.safetensors` file in timm's names.
        backbone_options: passed on to timm. `img_size` is the input size for a network that needs to know it.
        strides: strides of the features, in pixels.

    Attributes:
        out_channels: channels of all features together.
        mean: mean of RGB in [0, 1] that timm's weights of this network were trained with.
        std: standard deviation of RGB likewise.

    Raises:
        DistilPoseError: timm cannot build the network, it lacks a stride or does not take crops of this size, or its weights
            cannot be loaded.
    """

    def __init__(
        self,
        backbone: str,
        input_size: tuple[int, int],
        pretrained: bool | str | Path = False,
        backbone_options: Mapping[str, Any] | None = None,
        strides: Sequence[int] = (4,),
    ):
        super().__init__()
        if len(set(strides)) < len(strides):
            raise DistilPoseError(f"model.strides={list(strides)} names a stride twice: name each feature once.")
        self.strides, self.input_size = tuple(strides), input_size
        options = dict(backbone_options or {})
        info = create_features(backbone, False, **options).feature_info
        reductions: list[int] = info.reduction()
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            available = ", ".join(map(str, sorted(set(reductions))))
            raise DistilPoseError(
                f"Backbone {backbone!r} has features of stride {available}, but model.strides={list(strides)} asks for stride "
                f"{missing[0]}: choose another backbone, or for a student "
                f"model.strides=[{min(reductions, key=lambda stride: abs(stride - missing[0]))}] with model.patch_size=[1,1]."
            )
        # the deepest of a stride; timm wants them in ascending order
        last = dict(zip(reductions, info.out_indices, strict=True))
        self._order = sorted(self.strides, key=lambda stride: last[stride])
        options["out_indices"] = tuple(last[stride] for stride in self._order)
        self._build(backbone, pretrained, options)
        self.out_channels: int = sum(self.network.feature_info.channels())
        settings = self.network.pretrained_cfg
        self.mean: tuple[float, ...] = tuple(settings.get("mean", IMAGENET_MEAN))
        self.std: tuple[float, ...] = tuple(settings.get("std", IMAGENET_STD))
        self._removed: list[str] = []
        self._remove_unused()
        self.register_load_state_dict_pre_hook(_drop_removed)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, out_channels, H / strides[0], W / strides[0])."""
        features = self.network(images)
        if self.channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        if len(features) == 1:
            return features[0]
        by_stride = dict(zip(self._order, features, strict=True))
        rows, columns = images.shape[-2] // self.strides[0], images.shape[-1] // self.strides[0]
        return torch.cat([self._resize(by_stride[stride], stride, rows, columns) for stride in self.strides], dim=1)

    def _resize(self, feature: Tensor, stride: int, rows: int, columns: int) -> Tensor:
        """Average finer cells, or interpolate coarser ones, which may reach beyond the crop."""
        if stride < self.strides[0]:
            return F.avg_pool2d(feature, self.strides[0] // stride)
        if stride > self.strides[0]:
            factor = stride // self.strides[0]
            feature = F.interpolate(feature, scale_factor=factor, mode="bilinear", align_corners=False)
        return feature[..., :rows, :columns]

    def _build(self, name: str, pretrained: bool | str | Path, options: dict[str, Any]) -> None:
        """Build the network, with its `img_size` set if it does not take the crops otherwise."""
        height, width = self.input_size
        try:
            self._try(name, create_features(name, pretrained, **options))
            return
        except DistilPoseError:
            raise
        except Exception as error:  # the type depends on the network
            reason = error
        if "img_size" not in options:
            try:
                self._try(name, create_features(name, pretrained, **options, img_size=self.input_size))
                return
            except Exception:  # it has no such option, or does not take the crops with it either
                pass
        raise DistilPoseError(
            f"Backbone {name!r} does not take crops of {height} x {width} ({first_line(reason).rstrip('.')}): give another "
            "model.input_size, or options of the network by model.backbone_options."
        ) from reason

    def _try(self, name: str, network: Any) -> None:
        """Keep the network if it has features of the expected size for crops of the input size."""
        self.network = network
        self.channels_last = "NHWC" in str(getattr(network, "output_fmt", "NCHW"))
        (height, width), stride = self.input_size, self.strides[0]
        self.eval()
        with torch.no_grad():
            shape = self(torch.zeros(1, 3, height, width)).shape[-2:]
        if shape != (height // stride, width // stride):
            raise DistilPoseError(
                f"Backbone {name!r} has features of {shape[0]} x {shape[1]} for crops of {height} x {width}, expected "
                f"{height // stride} x {width // stride} at stride {stride}: choose another backbone."
            )

    def _remove_unused(self) -> None:
        """Remove modules that the features do not depend on; freeze their parameters if the network needs the modules.

        timm keeps the later layers of some networks, and distributed training fails on parameters without a gradient.
        """
        # zeros would hide a wrong removal: without biases, they stay zeros whatever the layers are
        images = torch.randn(1, 3, *self.input_size, generator=torch.Generator().manual_seed(0))
        self.eval()
        features = self(images)
        features.sum().backward()
        used = {name for name, parameter in self.network.named_parameters() if parameter.grad is not None}
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in used)
            parameter.grad = None
        unused = [
            name
            for name, module in self.network.named_modules()
            if name and any(True for _ in module.parameters()) and not any(one.startswith(f"{name}.") for one in used)
        ]
        outermost = [name for name in unused if name.rpartition(".")[0] not in unused]
        modules = {name: self.network.get_submodule(name) for name in outermost}
        try:
            for name in outermost:
                self.network.set_submodule(name, nn.Identity())
            with torch.no_grad():
                removed = bool((self(images) - features).norm() <= 1e-3 * features.norm())  # rounding may differ
        except Exception:  # the type depends on what the network does with them
            removed = False
        if removed:
            self._removed = [f"network.{name}." for name in outermost]
        else:
            for name, module in modules.items():
                self.network.set_submodule(name, module)
        self.train()


def _drop_removed(module: TimmBackbone, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Leave out the weights of removed layers, which files of earlier versions have."""
    removed = tuple(prefix + name for name in module._removed)
    for name in [name for name in state if name.startswith(removed)] if removed else []:
        del state[name]
