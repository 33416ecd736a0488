"""A pose model: backbone, token-distilling encoder and head, with all it takes to use or rebuild it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distilpose.errors import DistilPoseError
from distilpose.models.encoder import TokenDistillingEncoder
from distilpose.models.heads import ConvolutionHead, StudentHead, TeacherHead
from distilpose.outputs import StudentOutput, TeacherOutput
from distilpose.skeleton import Skeleton

STRIDE = 4
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PoseModel(nn.Module):
    """A student or a teacher; made by `create_model` or `load_model`.

    Args:
        name: registry name.
        kind: 'student' or 'teacher'.
        skeleton: the joints it predicts, one keypoint token each.
        input_size: (H, W) of the crops in pixels.
        backbone: (N, 3, H, W) -> (N, C, H/4, W/4).
        encoder: feature map -> visual and keypoint tokens; None of a plain heat-map network.
        head: tokens -> StudentOutput or TeacherOutput; without an encoder, feature map -> TeacherOutput.
        options: the `create_model` options it was built with, in plain containers.
        scores_trained: False where no loss trains the student's score, which then counts as 1.

    Attributes:
        num_keypoints: K.
        heatmap_size: (H/4, W/4) cells.
        mean: of RGB in [0, 1], which the crops are normalised by.
        std: likewise.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        backbone: nn.Module,
        encoder: TokenDistillingEncoder | None,
        head: StudentHead | TeacherHead | ConvolutionHead,
        options: dict[str, Any],
        scores_trained: bool = True,
    ):
        super().__init__()
        self.name, self.kind, self.skeleton = name, kind, skeleton
        self.num_keypoints = skeleton.num_keypoints
        self.input_size = input_size
        self.heatmap_size = (input_size[0] // STRIDE, input_size[1] // STRIDE)
        self.mean: tuple[float, ...] = IMAGENET_MEAN
        self.std: tuple[float, ...] = IMAGENET_STD
        self.scores_trained = scores_trained
        self.backbone, self.encoder, self.head = backbone, encoder, head
        self._options = options

    @property
    def config(self) -> dict[str, Any]:
        """Plain containers for which `create_model(**config)` is this model with fresh weights."""
        return {
            "name": self.name,
            "skeleton": self.skeleton.to_dict(),
            "input_size": list(self.input_size),
            "scores_trained": self.scores_trained,
            **self._options,
        }

    def set_heatmap_activation(self, activation: str) -> None:
        """Choose how a teacher's maps are read: 'none' or 'softmax', as its loss trains them (see `TeacherHead`)."""
        self.head.activation = activation
        self._options["heatmap_activation"] = activation

    def forward(self, images: Tensor) -> StudentOutput | TeacherOutput:
        """What the model says of crops.

        Args:
            images: (N, 3, H, W), normalised by `mean` and `std`.

        Raises:
            DistilPoseError: if the crops are of another size than the model's.
        """
        if tuple(images.shape[1:]) != (3, *self.input_size):
            raise DistilPoseError(
                f"{self.name} takes crops of shape (N, 3, {self.input_size[0]}, {self.input_size[1]}), got "
                f"{tuple(images.shape)}: crop to its input_size, or create it with another."
            )
        features = self.backbone(images)
        return self.head(features) if self.encoder is None else self.head(*self.encoder(features))


def copy_backbone(student: PoseModel, teacher: PoseModel) -> int:
    """Start a student's backbone from a teacher's weights and batch statistics, as the paper does for DistilPose-L.

    Args:
        student: changed in place; every tensor of its backbone must exist, in that shape, in the teacher's.
        teacher: left as it is.

    Returns:
        The number of tensors copied.

    Raises:
        DistilPoseError: if the student's backbone is not part of the teacher's.
    """
    wanted, given = student.backbone.state_dict(), teacher.backbone.state_dict()
    unlike = [name for name, value in wanted.items() if name not in given or given[name].shape != value.shape]
    if unlike:
        raise DistilPoseError(
            f"The backbone of {student.name} cannot start from {teacher.name}: {len(unlike)} of its {len(wanted)} "
            f"tensors are missing there or of another shape ({', '.join(unlike[:3])}); choose a teacher with the "
            "same kind of backbone, or start the student without."
        )
    student.backbone.load_state_dict({name: given[name] for name in wanted})
    return len(wanted)
