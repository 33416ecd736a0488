"""The student's loss: the paper's five terms, those that go past it, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.losses.distributions import FLOOR, SHAPES, divergence_loss, marginal_loss, moment_loss
from distilpose.losses.heatmaps import informed_heatmaps
from distilpose.losses.likelihood import ResidualLogLikelihood
from distilpose.losses.precision import full_precision
from distilpose.losses.terms import (
    confidence_loss,
    regression_loss,
    simulated_heatmap_loss,
    teacher_confidence,
    token_loss,
)
from distilpose.losses.tokens import TokenProjection
from distilpose.outputs import StudentOutput, TeacherOutput

PAPER = ("regression", "visual_token", "keypoint_token", "confidence", "simulated_heatmap")
LABELS_ONLY = ("regression", "likelihood")


class DistillationLoss(nn.Module):
    """Weighted sum of terms that compare a student with the labels and with a teacher.

    A term of weight 0 is not computed and reads 0. The first five are the paper's, by default with the authors' weights.

    Args:
        regression: weight of smooth L1 between keypoints and ground truth.
        visual_token: weight of the mean squared difference between visual tokens.
        keypoint_token: weight of the mean squared difference between keypoint tokens.
        confidence: weight of L1 between scores and the teacher's heat map where the student points to.
        simulated_heatmap: weight of the squared difference between simulated and teacher heat maps.
        likelihood: weight of the residual log-likelihood of the ground truth (RLE), an alternative to `regression`.
        marginal: weight of the squared difference between the axis marginals of both heat maps.
        divergence: weight of the Kullback-Leibler divergence between both heat maps read as distributions.
        moment: weight of the distance to the mean and deviation of the teacher's heat map.
        beta: of the smooth L1; the paper's 1 is quadratic throughout, a small one is L1.
        divergence_shape: 'gaussian' or 'laplace', the student's distribution in the divergence.
        ramps: by term, two shares of the training between which its weight rises from 0 to the full.
        agreement: heat maps of labelled joints teach only where they have at least this share of their peak at the label, so
            that a teacher's errors are not learnt (of a joint labelled outside the crop, nothing); 0 learns from all.
        label_sigma: how far labels lie from the truth, in cells; heat maps of labelled joints teach what the teacher would
            say had it seen the label too (`informed_heatmaps`). 0 takes the maps as they are.
        project_tokens: learn a map between tokens of unlike width, and resample unlike grids, instead of refusing them.
        released: reproduce the public release to the digit. There every sample's simulated-heat-map error is weighted by
            all samples' weights, and the confidence looks the map up at x (W - 1) while the Gaussian is centred at x W.
    """

    projection: TokenProjection | None
    # share of a map's peak under which its cells count 0 where it is read as a distribution; the teacher decides it
    floor = FLOOR

    def __init__(
        self,
        regression: float = 1.0,
        visual_token: float = 5e-4,
        keypoint_token: float = 5e-4,
        confidence: float = 0.01,
        simulated_heatmap: float = 1.0,
        likelihood: float = 0.0,
        marginal: float = 0.0,
        divergence: float = 0.0,
        moment: float = 0.0,
        beta: float = 1.0,
        divergence_shape: str = "gaussian",
        ramps: Mapping[str, Sequence[float]] | None = None,
        agreement: float = 0.0,
        label_sigma: float = 0.0,
        project_tokens: bool = False,
        released: bool = False,
    ):
        super().__init__()
        self.weights = {
            "regression": regression,
            "visual_token": visual_token,
            "keypoint_token": keypoint_token,
            "confidence": confidence,
            "simulated_heatmap": simulated_heatmap,
            "likelihood": likelihood,
            "marginal": marginal,
            "divergence": divergence,
            "moment": moment,
        }
        for name, number in {**self.weights, "beta": beta, "label_sigma": label_sigma}.items():
            check_number(f"loss.{name}", number, least=0)
        if not any(self.weights.values()):
            raise DistilPoseError(
                "All weights of the loss are 0, so nothing is learnt: give one, such as loss.regression=1."
            )
        check_number("loss.agreement", agreement, least=0, most=1)
        if divergence_shape not in SHAPES:
            raise DistilPoseError(f"loss.divergence_shape={divergence_shape} must be one of {', '.join(SHAPES)}.")
        check_flag("loss.project_tokens", project_tokens)
        check_flag("loss.released", released)
        if ramps is not None and not isinstance(ramps, Mapping):
            raise DistilPoseError(
                f"loss.ramps={ramps} must give two shares by term, such as {{divergence: [0.2, 0.5]}}."
            )
        self.ramps = {name: _ramp(name, ends, self.weights) for name, ends in (ramps or {}).items()}
        self.beta = beta
        self.divergence_shape = divergence_shape
        self.agreement = agreement
        self.label_sigma = label_sigma
        self.project_tokens = project_tokens
        self.released = released
        self.flow = ResidualLogLikelihood() if likelihood > 0 else None
        self.projection = None

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with a teacher."""
        return any(weight > 0 for name, weight in self.weights.items() if name not in LABELS_ONLY)

    @property
    def needs_tokens(self) -> bool:
        """Whether any term compares tokens, which must be of one width and grid or else be projected."""
        return self.weights["visual_token"] > 0 or self.weights["keypoint_token"] > 0

    @property
    def trains_scores(self) -> bool:
        """Whether the student's scores learn anything; if not they must not rescore detections."""
        return self.weights["confidence"] > 0

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
            student: the student's output.
            teacher: the teacher's output; None where no term needs it. Its `trust`, where given, weights the terms that
                compare with it in place of `weights`.
            keypoints: (N, K, 2) ground truth as a share of the crop.
            weights: (N, K) 1 for a labelled joint inside the crop, else 0.
            heatmap_size: rows and columns of the student's map, the unit of its sigmas; the teacher's if not given.
            progress: share of the training that is over, for ramps.
            labelled: (N, K) 1 for a labelled joint, inside the crop or not, for `agreement`; `weights` if not given.

        Returns:
            Scalars under the names of the paper's five terms and of the others in use, each already weighted, and their sum
            under "total".
        """
        with torch.autocast(keypoints.device.type, enabled=False):
            student = StudentOutput(*map(full_precision, student))
            keypoints, weights = full_precision(keypoints), full_precision(weights)
            zero = keypoints.new_zeros(())
            terms = {name: zero for name, weight in self.weights.items() if weight > 0 or name in PAPER}
            if self.weights["regression"] > 0:
                terms["regression"] = regression_loss(student.keypoints, keypoints, weights, self.beta)
            if self.needs_teacher:
                if teacher is None:
                    raise DistilPoseError(
                        "This loss compares with a teacher but none was given: set teacher.checkpoint=FILE, "
                        "or train without a teacher by loss=regression."
                    )
                teacher = TeacherOutput._make(None if field is None else full_precision(field) for field in teacher)
                self._add_teacher_terms(
                    terms, student, teacher, keypoints, weights, weights if labelled is None else labelled
                )
            if self.flow is not None:
                size = heatmap_size or (None if teacher is None else teacher.heatmaps.shape[-2:])
                if size is None:
                    raise DistilPoseError("The likelihood term needs heatmap_size, the unit of the student's sigmas.")
                terms["likelihood"] = self.flow(student.keypoints, student.sigmas, keypoints, weights, tuple(size))
            terms = {name: self.weight(name, progress) * value for name, value in terms.items()}
            return terms | {"total": torch.stack(list(terms.values())).sum()}

    def weight(self, name: str, progress: float = 1.0) -> float:
        """The weight of a term when that share of the training is over."""
        start, end = self.ramps.get(name, (0.0, 0.0))
        risen = 1.0 if progress >= end else max(0.0, progress - start) / (end - start)
        return self.weights[name] * risen

    def _add_teacher_terms(
        self,
        terms: dict[str, Tensor],
        student: StudentOutput,
        teacher: TeacherOutput,
        keypoints: Tensor,
        weights: Tensor,
        labelled: Tensor,
    ) -> None:
        """Put the terms that compare with the teacher into `terms`, unweighted."""
        if self.needs_tokens:
            self._add_token_terms(terms, student, teacher)
        trust = weights if teacher.trust is None else teacher.trust
        if self.agreement > 0:
            peak = teacher.heatmaps.amax(dim=(-2, -1))
            agrees = teacher_confidence(keypoints, teacher.heatmaps) >= self.agreement * peak
            trust = trust * torch.where(labelled > 0, agrees & (weights > 0), True)
        place, maps = (student.keypoints, student.sigmas), teacher.heatmaps
        if self.label_sigma > 0:
            maps = informed_heatmaps(maps, keypoints, weights, self.label_sigma)
        if self.weights["confidence"] > 0:
            terms["confidence"] = confidence_loss(student.scores, student.keypoints, maps, trust, self.released)
        if self.weights["simulated_heatmap"] > 0:
            # which squares its weights, as the release does
            terms["simulated_heatmap"] = simulated_heatmap_loss(*place, maps, trust.sqrt(), self.released)
        if self.weights["marginal"] > 0:
            terms["marginal"] = marginal_loss(*place, maps, trust, self.floor)
        if self.weights["divergence"] > 0:
            terms["divergence"] = divergence_loss(*place, maps, trust, self.floor, self.divergence_shape)
        if self.weights["moment"] > 0:
            terms["moment"] = moment_loss(*place, maps, trust, self.floor)

    def _add_token_terms(self, terms: dict[str, Tensor], student: StudentOutput, teacher: TeacherOutput) -> None:
        """Put the two token terms into `terms`; joints the teacher does not know have no token to learn."""
        visual, keypoint = student.visual_tokens, student.keypoint_tokens
        theirs = teacher.visual_tokens
        if theirs is None or teacher.keypoint_tokens is None:
            raise DistilPoseError(
                "This teacher gives heat maps and no tokens: set loss.visual_token=0 loss.keypoint_token=0."
            )
        if self.weights["visual_token"] > 0:
            if self.projection is not None:
                visual, theirs = self.projection.visual(visual), self.projection.resample(theirs)
            terms["visual_token"] = token_loss(visual, theirs)
        if self.weights["keypoint_token"] > 0:
            if self.projection is not None:
                keypoint = self.projection.keypoint(keypoint)
            terms["keypoint_token"] = token_loss(keypoint, teacher.keypoint_tokens, teacher.known)


def _ramp(name: str, ends: Sequence[float], weights: Mapping[str, float]) -> tuple[float, float]:
    """Checked ends of a rise."""
    if name not in weights:
        raise DistilPoseError(f"loss.ramps names {name!r}, which is no term: expected some of {', '.join(weights)}.")
    pair = isinstance(ends, Sequence) and len(ends) == 2 and all(isinstance(end, (int, float)) for end in ends)
    if not pair or not 0 <= ends[0] < ends[1] <= 1:
        raise DistilPoseError(
            f"loss.ramps.{name}={ends} must be two shares of the training in order, such as [0.2, 0.5]."
        )
    return float(ends[0]), float(ends[1])
