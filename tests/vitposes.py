"""Small ViTPose networks with random weights, built from a configuration without a download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from distilpose.teachers.convention import Convention

# as in the config.json of the networks on the hub
NAMES = (
    "Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist",
    "L_Hip", "R_Hip", "L_Knee", "R_Knee", "L_Ankle", "R_Ankle",
)  # fmt: skip


def small_vitpose(
    names: Sequence[str] | None = NAMES, size: tuple[int, int] = (256, 192), experts: int = 1, simple: bool = True
) -> Any:
    """A `VitPoseForPoseEstimation` of two layers and 17 joints, or with these joints; skips without transformers."""
    transformers = pytest.importorskip("transformers")
    backbone = transformers.VitPoseBackboneConfig(
        image_size=list(size), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2,
        num_experts=experts, part_features=8 if experts > 1 else 0, out_indices=[2],
    )  # fmt: skip
    labels = {"num_labels": 17} if names is None else {"id2label": dict(enumerate(names))}
    config = transformers.VitPoseConfig(backbone_config=backbone, use_simple_decoder=simple, **labels)
    torch.manual_seed(0)
    model = transformers.VitPoseForPoseEstimation(config).eval()
    with torch.no_grad():  # peaks as high as those of a trained network's maps; the initial ones are near 0
        for parameter in model.head.parameters():
            parameter *= 20
    return model


class _Perfect(nn.Module):
    """A head that draws its maps by looking at the crops."""

    def __init__(self, finder: nn.Module, crops: list[torch.Tensor]):
        super().__init__()
        self.finder, self.crops = finder, crops

    def forward(self, tokens: torch.Tensor, flip_pairs: None = None) -> torch.Tensor:
        return self.finder(self.crops.pop())


def perfect_vitpose(names: Sequence[str], finder: type[nn.Module], size: tuple[int, int] = (256, 192)) -> Any:
    """A ViTPose whose head gives the maps of `finder`, such as `DotFinder`, in the convention of its authors."""
    model, crops = small_vitpose(names, size), []
    model.backbone.register_forward_pre_hook(lambda module, args: crops.append(args[0]))
    model.head = _Perfect(finder(Convention.udp(size, (size[0] // 4, size[1] // 4))), crops)
    return model
