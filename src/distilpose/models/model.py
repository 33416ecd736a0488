"""A pose model: backbone, token-distilling encoder and head, with its skeleton, crop size and configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distilpose.errors import DistilPoseError
from distilpose.models.encoder import TokenDistillingEncoder
from distilpose.models.heads import Activation, ConvolutionHead, StudentHead, TeacherHead
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD, StudentOutput, TeacherOutput
from distilpose.skeleton import Skeleton

STRIDE = 4


class PoseModel(nn.Module):
    """A student or a teacher, built by `create_model` or `load_model`.

    Args:
        name: registry name.
        kind: "student" or "teacher".
        skeleton: the joints, one keypoint token each.
        input_size: (H, W) of the crops in pixels.
        backbone: (N, 3, H, W) -> (N, C, H/4, W/4), or with other cells for an encoder of that feature size.
        encoder: feature map -> visual and keypoint tokens; None for a plain heat-map network.
        head: tokens -> StudentOutput or TeacherOutput; without an encoder, feature map -> TeacherOutput.
        options: the `create_model` options it was built with, in plain containers.
        scores_trained: False if no loss trains the student's scores, which are then taken as 1.
        mean: mean of RGB in [0, 1] that the network's weights expect.
        std: standard deviation of RGB likewise.

    Attributes:
        mean: mean of RGB in [0, 1] that crops are normalised by: ImageNet's, for every model. A network of other values
            converts the crops itself, so that data, teachers and students share their pixels.
        std: standard deviation of RGB likewise.
        network_mean: mean of RGB that the network's weights expect.
        network_std: standard deviation of RGB likewise.
        num_keypoints: K.
        heatmap_size: (H/4, W/4) cells.
        padding: factor on the boxes of its training; None if unknown.
        flip_test: flip test of its validation; None if unknown.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD
    pixel_scale: Tensor | None
    pixel_shift: Tensor | None

    def __init__(
        self,
        name: str,
        kind: Literal["student", "teacher"],
        skeleton: Skeleton,
        input_size: tuple[int, int],
        backbone: nn.Module,
        encoder: TokenDistillingEncoder | None,
        head: StudentHead | TeacherHead | ConvolutionHead,
        options: dict[str, Any],
        scores_trained: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        super().__init__()
        self.name, self.kind, self.skeleton = name, kind, skeleton
        self.num_keypoints = skeleton.num_keypoints
        self.input_size = input_size
        self.heatmap_size = (input_size[0] // STRIDE, input_size[1] // STRIDE)
        self.scores_trained = scores_trained
        self.padding: float | None = None
        self.flip_test: bool | str | None = None
        self.backbone, self.encoder, self.head = backbone, encoder, head
        self._options = options
        self.set_network_normalisation(mean, std)

    @property
    def config(self) -> dict[str, Any]:
        """Plain containers: `create_model(**config)` is this model with fresh weights."""
        return {
            "name": self.name,
            "skeleton": self.skeleton.to_dict(),
            "input_size": list(self.input_size),
            "scores_trained": self.scores_trained,
            "mean": list(self.network_mean),
            "std": list(self.network_std),
            **self._options,
        }

    @property
    def joint_axes(self) -> dict[str, int]:
        """Names of the parameters that have an entry for each joint, and the axis of the joints."""
        if self.encoder is not None:
            return {"encoder.keypoint_tokens": 1}
        return {"head.convolution.weight": 0, "head.convolution.bias": 0}

    def set_network_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and standard deviation of RGB that the weights expect, as when weights are taken from a file."""
        self.network_mean, self.network_std = tuple(map(float, mean)), tuple(map(float, std))
        scale = shift = None
        if (self.network_mean, self.network_std) != (self.mean, self.std):
            device = next(self.parameters()).device
            crops, network = (
                torch.tensor(values, device=device).view(2, 3, 1, 1) for values in ((self.mean, self.std), (mean, std))
            )
            scale, shift = crops[1] / network[1], (crops[0] - network[0]) / network[1]
        self.register_buffer("pixel_scale", scale, persistent=False)
        self.register_buffer("pixel_shift", shift, persistent=False)

    def set_heatmap_activation(self, activation: Activation) -> None:
        """Set the activation of a teacher's maps to the one that its loss needs (see `TeacherHead`)."""
        self.head.activation = activation
        self._options["heatmap_activation"] = activation

    def set_scores_trained(self, trained: bool) -> None:
        """Set whether the loss trains a student's scores; untrained scores are taken as 1."""
        self.scores_trained = trained

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the encoder's activations in the backward pass: less memory, more time, the same gradients.

        Raises:
            DistilPoseError: the model has no encoder.
        """
        if self.encoder is not None:
            self.encoder.set_grad_checkpointing(enable)
        elif enable:
            raise DistilPoseError(
                f"method.gradient_checkpointing=true recomputes the encoder's layers, but {self.name} has no encoder: leave it "
                "out."
            )

    def forward(self, images: Tensor) -> StudentOutput | TeacherOutput:
        """Predict from crops.

        Args:
            images: (N, 3, H, W), normalised by ImageNet's mean and std, which are `mean` and `std`.

        Raises:
            DistilPoseError: the crops have another size than the model's.
        """
        if tuple(images.shape[1:]) != (3, *self.input_size):
            raise DistilPoseError(
                f"{self.name} takes crops of shape (N, 3, {self.input_size[0]}, {self.input_size[1]}), got "
                f"{tuple(images.shape)}: crop to its input_size, or create it with another."
            )
        if self.pixel_scale is not None and self.pixel_shift is not None:
            images = images * self.pixel_scale + self.pixel_shift
        features = self.backbone(images)
        return self.head(features) if self.encoder is None else self.head(*self.encoder(features))
