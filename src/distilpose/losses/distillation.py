"""The student's loss: the paper's five terms, further terms, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le, Unit
from torch import Tensor, nn

from distilpose.errors import DistilPoseError
from distilpose.losses.distributions import FLOOR, divergence_loss, marginal_loss, moment_loss
from distilpose.losses.float_precision import full_precision
from distilpose.losses.heatmaps import informed_heatmaps
from distilpose.losses.likelihood import ResidualLogLikelihood
from distilpose.losses.term_names import LABELS_ONLY, PAPER, Term
from distilpose.losses.terms import (
    confidence_loss,
    regression_loss,
    simulated_heatmap_loss,
    teacher_confidence,
    token_loss,
)
from distilpose.losses.tokens import TokenProjection, TokenShape
from distilpose.outputs import StudentOutput, TeacherOutput

Weight = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]


class DistillationLoss(nn.Module):
    """Weighted sum of terms that compare a student with the labels and with a teacher.

    A term of weight 0 is not computed, and its value is 0. The first five are the paper's, with the authors' weights.

    Args:
        regression: weight of smooth L1 between keypoints and ground truth.
        visual_token: weight of the mean squared difference between visual tokens.
        keypoint_token: weight of the mean squared difference between keypoint tokens.
        confidence: weight of L1 between scores and the teacher's heat map at the student's keypoints.
        simulated_heatmap: weight of the squared difference between simulated and teacher heat maps.
        likelihood: weight of the residual log-likelihood of the ground truth (RLE), an alternative to `regression`.
        marginal: weight of the squared difference between the axis marginals of both heat maps.
        divergence: weight of the Kullback-Leibler divergence between both heat maps read as distributions.
        moment: weight of the distance to the mean and deviation of the teacher's heat map.
        beta: threshold of the smooth L1. The paper's 1 is quadratic throughout, a small one is L1.
        divergence_shape: distribution of the student in the divergence.
        ramps: by term, two ascending shares of the training between which its weight rises from 0 to its full value.
        agreement: least value of a labelled joint's heat map at its label, as a share of the map's peak. Maps below it are
            left out, so that a teacher's errors are not learnt. Maps of joints labelled outside the crop are left out too. 0
            keeps all maps.
        label_sigma: standard deviation of label errors. Above 0, the maps of labelled joints are multiplied by the label's
            Gaussian (see `informed_heatmaps`). 0 does not change the maps.
        project_tokens: learn a linear map between tokens of different width, and resample different grids.
        released: reproduce the public release to the digit. It weights every sample's simulated-heat-map error by the weights
            of all samples, and reads the confidence at x (W - 1) although the Gaussian is centred at x W.

    Raises:
        DistilPoseError: all weights are 0, or the shares of a ramp do not ascend.

    Attributes:
        floor: noise floor of the teacher's maps. Terms that read a map as a distribution set cells below this share of its peak
            to 0. Maps trained by squared difference have noise in all cells, softmax maps have none.
        projection: the learned map between tokens; None if the shapes agree.
    """

    def __init__(
        self,
        regression: Weight = 1.0,
        visual_token: Weight = 5e-4,
        keypoint_token: Weight = 5e-4,
        confidence: Weight = 0.01,
        simulated_heatmap: Weight = 1.0,
        likelihood: Weight = 0.0,
        marginal: Weight = 0.0,
        divergence: Weight = 0.0,
        moment: Weight = 0.0,
        beta: Annotated[float, Ge(0)] = 1.0,
        divergence_shape: Literal["gaussian", "laplace"] = "gaussian",
        ramps: Mapping[Term, tuple[Share, Share]] | None = None,
        agreement: Share = 0.0,
        label_sigma: Annotated[float, Ge(0), Unit("cells")] = 0.0,
        project_tokens: bool = False,
        released: bool = False,
    ):
        super().__init__()
        self.weights: dict[str, float] = {
            "regression": regression, "visual_token": visual_token, "keypoint_token": keypoint_token,
            "confidence": confidence, "simulated_heatmap": simulated_heatmap, "likelihood": likelihood,
            "marginal": marginal, "divergence": divergence, "moment": moment,
        }  # fmt: skip
        if not any(self.weights.values()):
            raise DistilPoseError(
                "All weights of the loss are 0, so nothing can be learnt: give one, such as loss.regression=1."
            )
        self.ramps: dict[str, tuple[float, float]] = {str(term): shares for term, shares in (ramps or {}).items()}
        for term, (start, end) in self.ramps.items():
            if start >= end:
                raise DistilPoseError(
                    f"loss.ramps.{term}=[{start}, {end}] must be two ascending shares of the training, such as [0.2, 0.5]."
                )
        self.beta = beta
        self.divergence_shape = divergence_shape
        self.agreement = agreement
        self.label_sigma = label_sigma
        self.project_tokens = project_tokens
        self.released = released
        self.floor = FLOOR
        self.flow = ResidualLogLikelihood() if likelihood > 0 else None
        self.projection: TokenProjection | None = None

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with a teacher."""
        return any(weight > 0 for name, weight in self.weights.items() if name not in LABELS_ONLY)

    @property
    def needs_tokens(self) -> bool:
        """Whether any term compares tokens."""
        return self.weights["visual_token"] > 0 or self.weights["keypoint_token"] > 0

    @property
    def trains_scores(self) -> bool:
        """Whether a term trains the student's scores. Untrained scores must not rescore detections."""
        return self.weights["confidence"] > 0

    def set_teacher(self, floor: float, student: TokenShape | None = None, teacher: TokenShape | None = None) -> None:
        """Adapt the loss to a teacher; call it once, before training.

        Args:
            floor: noise floor of the teacher's heat maps, see `floor`.
            student: shape of the student's tokens; None if it has none.
            teacher: shape of the teacher's tokens; None if it has none.

        Raises:
            DistilPoseError: a term compares tokens that are missing, or that differ in shape without `project_tokens`.
        """
        self.floor = floor
        if not self.needs_tokens or (student is not None and student == teacher):
            return
        if student is None or teacher is None:
            which = "teacher" if teacher is None else "student"
            raise DistilPoseError(f"This {which} has no tokens: set loss.visual_token=0 loss.keypoint_token=0.")
        if not self.project_tokens:
            raise DistilPoseError(
                f"The student's visual tokens are {tuple(student)} and the teacher's {tuple(teacher)} (rows, columns, width), "
                "but token terms need one shape: change model.patch_size or model.width, set loss.project_tokens=true to learn "
                "a map between them, or loss.visual_token=0 loss.keypoint_token=0."
            )
        visual, keypoint = self.weights["visual_token"] > 0, self.weights["keypoint_token"] > 0
        self.projection = TokenProjection(student, teacher, visual, keypoint)

    def forward(
        self,
        student: StudentOutput,
        teacher: TeacherOutput | None,
        keypoints: Tensor,
        weights: Tensor,
        heatmap_size: Sequence[int] | None = None,
        progress: float = 1.0,
        labelled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms of one batch.

        Args:
            student: output of the student.
            teacher: output of the teacher; None if no term needs it. If it has `trust`, this replaces `weights` in the terms
                that compare with the teacher.
            keypoints: (N, K, 2) ground truth as a share of the crop.
            weights: (N, K) 1 for a labelled joint inside the crop, else 0.
            heatmap_size: rows and columns of the student's map, the unit of its sigmas; the teacher's if not given.
            progress: finished share of the training in [0, 1], for ramps.
            labelled: (N, K) 1 for a labelled joint, inside the crop or not, for `agreement`; `weights` if not given.

        Returns:
            Weighted scalars under the names of the paper's five terms and of the other terms in use, and their sum under
            "total".
        """
        with torch.autocast(keypoints.device.type, enabled=False):
            student = StudentOutput(*map(full_precision, student))
            keypoints, weights = full_precision(keypoints), full_precision(weights)
            zero = keypoints.new_zeros(())
            terms = {name: zero for name, weight in self.weights.items() if weight > 0 or name in PAPER}
            if self.weights["regression"] > 0:
                terms["regression"] = regression_loss(student.keypoints, keypoints, weights, self.beta)
            if self.needs_teacher:
                assert teacher is not None
                teacher = TeacherOutput._make(None if field is None else full_precision(field) for field in teacher)
                labelled = weights if labelled is None else labelled
                self._add_teacher_terms(terms, student, teacher, keypoints, weights, labelled)
            if self.flow is not None:
                size = heatmap_size or teacher.heatmaps.shape[-2:]  # type: ignore[union-attr]
                terms["likelihood"] = self.flow(student.keypoints, student.sigmas, keypoints, weights, tuple(size))
            terms = {name: self.weight(name, progress) * value for name, value in terms.items()}
            return terms | {"total": torch.stack(list(terms.values())).sum()}

    def weight(self, name: str, progress: float = 1.0) -> float:
        """The weight of a term after a share `progress` of the training."""
        start, end = self.ramps.get(name, (0.0, 0.0))
        factor = 1.0 if progress >= end else 0.0 if progress <= start else (progress - start) / (end - start)
        return self.weights[name] * factor

    def _add_teacher_terms(
        self,
        terms: dict[str, Tensor],
        student: StudentOutput,
        teacher: TeacherOutput,
        keypoints: Tensor,
        weights: Tensor,
        labelled: Tensor,
    ) -> None:
        """Add the unweighted terms that compare with the teacher to `terms`."""
        if self.needs_tokens:
            self._add_token_terms(terms, student, teacher)
        trust = weights if teacher.trust is None else teacher.trust
        if self.agreement > 0:
            peak = teacher.heatmaps.amax(dim=(-2, -1))
            agrees = teacher_confidence(keypoints, teacher.heatmaps) >= self.agreement * peak
            trust = trust * torch.where(labelled > 0, agrees & (weights > 0), True)
        prediction, maps = (student.keypoints, student.sigmas), teacher.heatmaps
        if self.label_sigma > 0:
            maps = informed_heatmaps(maps, keypoints, weights, self.label_sigma)
        if self.weights["confidence"] > 0:
            terms["confidence"] = confidence_loss(student.scores, student.keypoints, maps, trust, self.released)
        if self.weights["simulated_heatmap"] > 0:
            # the term squares its weights, as the release does
            terms["simulated_heatmap"] = simulated_heatmap_loss(*prediction, maps, trust.sqrt(), self.released)
        if self.weights["marginal"] > 0:
            terms["marginal"] = marginal_loss(*prediction, maps, trust, self.floor)
        if self.weights["divergence"] > 0:
            terms["divergence"] = divergence_loss(*prediction, maps, trust, self.floor, self.divergence_shape)
        if self.weights["moment"] > 0:
            terms["moment"] = moment_loss(*prediction, maps, trust, self.floor)

    def _add_token_terms(self, terms: dict[str, Tensor], student: StudentOutput, teacher: TeacherOutput) -> None:
        """Add the two unweighted token terms to `terms`. Joints that the teacher does not know are left out."""
        assert teacher.visual_tokens is not None
        tokens = (student.visual_tokens, student.keypoint_tokens, teacher.visual_tokens)
        visual, keypoint, target = tokens if self.projection is None else self.projection(*tokens)
        if self.weights["visual_token"] > 0:
            terms["visual_token"] = token_loss(visual, target)
        if self.weights["keypoint_token"] > 0:
            assert teacher.keypoint_tokens is not None
            terms["keypoint_token"] = token_loss(keypoint, teacher.keypoint_tokens, teacher.known)
