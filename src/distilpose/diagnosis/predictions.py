"""Collects the predictions of a student, its teacher and a baseline for the same persons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from distilpose.data.codec import keypoints_to_image
from distilpose.diagnosis.inherited_errors import TokenDistance
from distilpose.diagnosis.term_gradients import TermGradients, concatenate_gradients, gradients_of_terms
from distilpose.evaluation import FlipTest, predict_crops_each
from distilpose.models import PoseModel
from distilpose.outputs import PoseBatch, StudentOutput, TeacherOutput

TOKENS = ("visual", "keypoint")


class Targets(NamedTuple):
    """The labels of N persons.

    Attributes:
        keypoints: (N, K, 2) as a share of the crop.
        inside: (N, K) bool, labelled and inside the crop.
        image_id: (N,) int64.
        annotation_id: (N,) int64.
        bbox: (N, 4) x, y, width, height in image pixels.
    """

    keypoints: Tensor
    inside: Tensor
    image_id: Tensor
    annotation_id: Tensor
    bbox: Tensor


class RolePredictions(NamedTuple):
    """Predictions of one model. "Straight" means without flip test, as in the losses.

    Attributes:
        image_keypoints: (N, K, 2) image pixels, with flip test.
        straight: (N, K, 2) as a share of the crop.
        image_straight: (N, K, 2) the same in image pixels.
        scores: (N, K) straight.
        sigmas: (N, K, 2) straight, in heat-map cells; (N, 0, 2) for a teacher.
    """

    image_keypoints: Tensor
    straight: Tensor
    image_straight: Tensor
    scores: Tensor
    sigmas: Tensor


class CollectedPredictions(NamedTuple):
    """Predictions of all models.

    Attributes:
        targets: labels of the persons.
        roles: predictions by role ("student", "teacher", "baseline").
        tokens: distance to the teacher's tokens, by role of a student and kind ("visual", "keypoint"); None if the shapes
            differ. Empty without a teacher.
        gradients: gradients of the loss with respect to the student's keypoints; None without a teacher or without a loss.
    """

    targets: Targets
    roles: dict[str, RolePredictions]
    tokens: dict[str, dict[str, TokenDistance | None]]
    gradients: TermGradients | None


@torch.no_grad()
def collect_predictions(
    models: Mapping[str, PoseModel], batches: Iterable[PoseBatch], flip_test: FlipTest, loss: nn.Module | None = None
) -> CollectedPredictions:
    """Predict all persons of a loader with all models, in eval mode and on the models' device.

    Args:
        models: by role: "student", and optionally "teacher" and "baseline". All see the same crops.
        batches: persons in ground-truth boxes.
        flip_test: flip test of the image keypoints.
        loss: loss whose gradients are measured, if there is a teacher.
    """
    device = next(models["student"].parameters()).device
    targets: list[Targets] = []
    roles: dict[str, list[RolePredictions]] = {role: [] for role in models}
    tokens: dict[str, dict[str, TokenDistance | None]] = {}
    if "teacher" in models:
        tokens = {role: {kind: TokenDistance() for kind in TOKENS} for role in models if role != "teacher"}
    gradients: list[TermGradients] = []
    for batch in batches:
        batch = PoseBatch(*(field.to(device) for field in batch))
        fields = (batch.keypoints, batch.weights > 0, batch.image_id, batch.annotation_id, batch.bbox)
        targets.append(Targets(*(field.cpu() for field in fields)))
        outputs: dict[str, StudentOutput | TeacherOutput] = {}
        for role, model in models.items():
            outputs[role], predictions = _predict(model.eval(), batch, flip_test)
            roles[role].append(predictions)
        for role, kinds in tokens.items():
            _compare_tokens(kinds, outputs[role], outputs["teacher"])
        if "teacher" in models and loss is not None:
            student, teacher = cast(StudentOutput, outputs["student"]), cast(TeacherOutput, outputs["teacher"])
            student = StudentOutput(*(field.float() for field in student))
            heatmaps = TeacherOutput(teacher.heatmaps.float())
            gradients.append(gradients_of_terms(loss, student, heatmaps, batch.keypoints, batch.weights))
    return CollectedPredictions(
        Targets(*map(torch.cat, zip(*targets, strict=True))),
        {role: RolePredictions(*map(torch.cat, zip(*parts, strict=True))) for role, parts in roles.items()},
        tokens,
        concatenate_gradients(gradients) if gradients else None,
    )


def _predict(
    model: PoseModel, batch: PoseBatch, flip_test: FlipTest
) -> tuple[StudentOutput | TeacherOutput, RolePredictions]:
    """Output of the network without flip test, and predictions. A hook captures the output, which saves a forward pass."""
    outputs: list[StudentOutput | TeacherOutput] = []
    hook = model.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        (straight, scores), (keypoints, _) = predict_crops_each(model, batch.image, [False, flip_test])
    finally:
        hook.remove()
    output = outputs[0]  # the mirrored pass comes second
    sigmas = output.sigmas.float() if isinstance(output, StudentOutput) else straight.new_zeros(len(straight), 0, 2)
    in_image = [keypoints_to_image(one, batch.warp, model.input_size) for one in (keypoints, straight)]
    predictions = RolePredictions(in_image[0], straight, in_image[1], scores, sigmas)
    return output, RolePredictions(*(field.cpu() for field in predictions))


def _compare_tokens(
    kinds: dict[str, TokenDistance | None],
    student: StudentOutput | TeacherOutput,
    teacher: StudentOutput | TeacherOutput,
) -> None:
    """Add the tokens of a batch. Tokens of different shapes are not compared."""
    for kind in TOKENS:
        pair = [getattr(output, f"{kind}_tokens") for output in (student, teacher)]
        if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
            kinds[kind] = None
        elif (distance := kinds[kind]) is not None:
            distance.add(*pair)
