"""The student's loss: five terms and their weighted sum (paper, equations of section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilpose.errors import DistilPoseError
from distilpose.losses.heatmaps import simulated_heatmaps
from distilpose.losses.precision import full_precision
from distilpose.outputs import StudentOutput, TeacherOutput


class DistillationLoss(nn.Module):
    """Weighted sum of regression, token, confidence and simulated-heat-map terms.

    A term of weight 0 is not computed and reads 0. The default weights are the authors'.

    Args:
        regression: weight of smooth L1 between keypoints and ground truth.
        visual_token: weight of the mean squared difference between visual tokens.
        keypoint_token: weight of the mean squared difference between keypoint tokens.
        confidence: weight of L1 between scores and the teacher's heat map where the student points to.
        simulated_heatmap: weight of the squared difference between simulated and teacher heat maps.
        released: reproduce the public release to the digit. There every sample's simulated-heat-map error is weighted by
            all samples' weights, and the confidence looks the map up at x (W - 1) while the Gaussian is centred at x W.
    """

    def __init__(
        self,
        regression: float = 1.0,
        visual_token: float = 5e-4,
        keypoint_token: float = 5e-4,
        confidence: float = 0.01,
        simulated_heatmap: float = 1.0,
        released: bool = False,
    ):
        super().__init__()
        self.weights = {
            "regression": regression,
            "visual_token": visual_token,
            "keypoint_token": keypoint_token,
            "confidence": confidence,
            "simulated_heatmap": simulated_heatmap,
        }
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise DistilPoseError(f"Loss weight {name}={weight} must be 0 or more; 0 leaves the term out.")
        self.released = released

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with a teacher."""
        return any(weight > 0 for name, weight in self.weights.items() if name != "regression")

    @property
    def needs_tokens(self) -> bool:
        """Whether any term compares tokens, which must then be of one width and grid."""
        return self.weights["visual_token"] > 0 or self.weights["keypoint_token"] > 0

    @property
    def trains_scores(self) -> bool:
        """Whether the student's scores learn anything; if not they must not rescore detections."""
        return self.weights["confidence"] > 0

    def forward(
        self, student: StudentOutput, teacher: TeacherOutput | None, keypoints: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """The terms of one batch.

        Args:
            student: the student's output.
            teacher: the teacher's output; None where no term needs it.
            keypoints: (N, K, 2) ground truth as a share of the crop.
            weights: (N, K) 1 for a labelled joint inside the crop, else 0.

        Returns:
            Scalars under the five terms' names, each already weighted, and their sum under "total".
        """
        with torch.autocast(keypoints.device.type, enabled=False):
            student = StudentOutput(*map(full_precision, student))
            keypoints, weights = full_precision(keypoints), full_precision(weights)
            zero = keypoints.new_zeros(())
            terms = dict.fromkeys(self.weights, zero)
            if self.weights["regression"] > 0:
                terms["regression"] = regression_loss(student.keypoints, keypoints, weights)
            if self.needs_teacher:
                if teacher is None:
                    raise DistilPoseError(
                        "This loss compares with a teacher but none was given: set teacher.checkpoint=FILE, "
                        "or train without a teacher by loss=regression."
                    )
                self._add_teacher_terms(terms, student, TeacherOutput(*map(full_precision, teacher)), weights)
            terms = {name: self.weights[name] * value for name, value in terms.items()}
            return terms | {"total": torch.stack(list(terms.values())).sum()}

    def _add_teacher_terms(
        self, terms: dict[str, Tensor], student: StudentOutput, teacher: TeacherOutput, weights: Tensor
    ) -> None:
        """Put the four terms that compare with the teacher into `terms`, unweighted."""
        if self.weights["visual_token"] > 0:
            terms["visual_token"] = token_loss(student.visual_tokens, teacher.visual_tokens)
        if self.weights["keypoint_token"] > 0:
            terms["keypoint_token"] = token_loss(student.keypoint_tokens, teacher.keypoint_tokens)
        if self.weights["confidence"] > 0:
            terms["confidence"] = confidence_loss(
                student.scores, student.keypoints, teacher.heatmaps, weights, self.released
            )
        if self.weights["simulated_heatmap"] > 0:
            terms["simulated_heatmap"] = simulated_heatmap_loss(
                student.keypoints, student.sigmas, teacher.heatmaps, weights, self.released
            )


def regression_loss(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Smooth L1 (beta 1) of weighted keypoints (N, K, 2), mean over all N K 2 values, unlabelled joints included."""
    weights = weights.unsqueeze(-1)
    return F.smooth_l1_loss(predicted * weights, target * weights)


def token_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of tokens (N, T, D)."""
    if student.shape != teacher.shape:
        raise DistilPoseError(
            f"The student's tokens are {tuple(student.shape[1:])} and the teacher's {tuple(teacher.shape[1:])} (tokens, "
            "width): token terms need them alike, so give both models one width, patch and crop size, or set "
            "loss.visual_token=0 loss.keypoint_token=0."
        )
    return F.mse_loss(student, teacher)


def teacher_confidence(keypoints: Tensor, heatmaps: Tensor, released: bool = False) -> Tensor:
    """The teacher's heat-map value (N, K) at the cell the student points to; 0 where that is outside the crop.

    Args:
        keypoints: (N, K, 2) as a share of the crop.
        heatmaps: (N, K, H, W) of the teacher.
        released: look up column round(x (W - 1)) as the release does, instead of the cell nearest to x W.
    """
    rows, columns = heatmaps.shape[-2:]
    last = keypoints.new_tensor([columns - 1, rows - 1])
    inside = ((keypoints >= 0) & (keypoints <= 1)).all(dim=-1)
    position = keypoints.detach().clamp(0, 1) * (last if released else last + 1)
    column, row = position.round().minimum(last).long().unbind(dim=-1)
    value = heatmaps.flatten(2).gather(2, (row * columns + column).unsqueeze(-1)).squeeze(-1)
    return value.detach() * inside


def confidence_loss(
    scores: Tensor, keypoints: Tensor, heatmaps: Tensor, weights: Tensor, released: bool = False
) -> Tensor:
    """L1 between weighted scores (N, K) and the teacher's value where the student points to, mean over all N K."""
    return F.l1_loss(scores * weights, teacher_confidence(keypoints, heatmaps, released) * weights)


def simulated_heatmap_loss(
    keypoints: Tensor, sigmas: Tensor, heatmaps: Tensor, weights: Tensor, released: bool = False
) -> Tensor:
    """Squared difference between simulated and teacher heat maps (N, K, H, W).

    Mean over samples and cells of (w (G - T))^2 for each joint, then the mean over joints. A joint whose 3-sigma box
    lies wholly outside the map has weight 0. With `released`, each joint's squared weights and squared differences are
    averaged over the batch apart and then multiplied, which is what the release's N x N broadcast comes to.
    """
    maps, on_map = simulated_heatmaps(keypoints, sigmas, (heatmaps.shape[-2], heatmaps.shape[-1]))
    weights = (weights * on_map).square()
    if released:
        maps = maps * on_map[..., None, None]
    error = (maps - heatmaps).square().mean(dim=(-2, -1))
    if released:
        return (weights.mean(dim=0) * error.mean(dim=0)).mean()
    return (weights * error).mean()
