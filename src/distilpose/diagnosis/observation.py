"""What a student, its teacher and another student say of the same persons: all that a diagnosis is worked out from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from distilpose.data.codec import keypoints_to_image
from distilpose.diagnosis.inherited_errors import TokenDistance
from distilpose.diagnosis.term_gradients import Pull, concatenate_pulls, pull_of_terms
from distilpose.evaluation import FlipTest, predict_crops_each
from distilpose.models import PoseModel
from distilpose.outputs import PoseBatch, StudentOutput, TeacherOutput

TOKENS = ("visual", "keypoint")


class Persons(NamedTuple):
    """The N persons looked at: a `PoseBatch` without what only networks need.

    Attributes:
        keypoints: (N, K, 2) true places as a share of the crop.
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


class Sight(NamedTuple):
    """What one model says of them. A teacher has no sigmas: (N, 0, 2).

    Attributes:
        places: (N, K, 2) image pixels, under the flip test.
        straight: (N, K, 2) share of the crop, from the crop as it is, which is what losses see.
        straight_places: (N, K, 2) the same in image pixels.
        scores: (N, K) from the crop as it is.
        sigmas: (N, K, 2) heat-map cells, from the crop as it is.
    """

    places: Tensor
    straight: Tensor
    straight_places: Tensor
    scores: Tensor
    sigmas: Tensor


class Observation(NamedTuple):
    """All of it.

    Attributes:
        persons: who was looked at.
        sights: by role ("student", "teacher", "baseline").
        tokens: by role of a student and kind ("visual", "keypoint"), its distance to the teacher's tokens; None where the
            shapes differ. Empty without a teacher.
        pull: of the loss on the student; None without a teacher or without a loss.
    """

    persons: Persons
    sights: dict[str, Sight]
    tokens: dict[str, dict[str, TokenDistance | None]]
    pull: Pull | None


@torch.no_grad()
def observe(
    models: Mapping[str, PoseModel], batches: Iterable[PoseBatch], flip_test: FlipTest, loss: nn.Module | None = None
) -> Observation:
    """Look at every person of a loader with every model, in eval mode and on the models' device.

    Args:
        models: by role; "student", and where there are any "teacher" and "baseline". All see the same crops.
        batches: persons in ground-truth boxes.
        flip_test: for the places that are counted as errors.
        loss: whose pull on the student is measured, if there is a teacher.
    """
    device = next(models["student"].parameters()).device
    persons: list[Persons] = []
    sights: dict[str, list[Sight]] = {role: [] for role in models}
    tokens: dict[str, dict[str, TokenDistance | None]] = {}
    if "teacher" in models:
        tokens = {role: {kind: TokenDistance() for kind in TOKENS} for role in models if role != "teacher"}
    pulls: list[Pull] = []
    for batch in batches:
        batch = PoseBatch(*(field.to(device) for field in batch))
        kept = (batch.keypoints, batch.weights > 0, batch.image_id, batch.annotation_id, batch.bbox)
        persons.append(Persons(*(field.cpu() for field in kept)))
        outputs: dict[str, StudentOutput | TeacherOutput] = {}
        for role, model in models.items():
            outputs[role], sight = _look(model.eval(), batch, flip_test)
            sights[role].append(sight)
        for role, kinds in tokens.items():
            _compare(kinds, outputs[role], outputs["teacher"])
        if "teacher" in models and loss is not None:
            student, teacher = cast(StudentOutput, outputs["student"]), cast(TeacherOutput, outputs["teacher"])
            student = StudentOutput(*(field.float() for field in student))
            heatmaps = TeacherOutput(teacher.heatmaps.float())
            pulls.append(pull_of_terms(loss, student, heatmaps, batch.keypoints, batch.weights))
    return Observation(
        Persons(*map(torch.cat, zip(*persons, strict=True))),
        {role: Sight(*map(torch.cat, zip(*parts, strict=True))) for role, parts in sights.items()},
        tokens,
        concatenate_pulls(pulls) if pulls else None,
    )


def _look(model: PoseModel, batch: PoseBatch, flip_test: FlipTest) -> tuple[StudentOutput | TeacherOutput, Sight]:
    """A model's output for the crops as they are, and what of it is kept; not one forward pass more than needed."""
    outputs: list[StudentOutput | TeacherOutput] = []
    hook = model.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        (straight, scores), (places, _) = predict_crops_each(model, batch.image, [False, flip_test])
    finally:
        hook.remove()
    output = outputs[0]  # the mirrored pass, if any, comes second
    sigmas = output.sigmas.float() if isinstance(output, StudentOutput) else straight.new_zeros(len(straight), 0, 2)
    found, found_straight = (keypoints_to_image(where, batch.warp, model.input_size) for where in (places, straight))
    sight = Sight(found, straight, found_straight, scores, sigmas)
    return output, Sight(*(field.cpu() for field in sight))


def _compare(
    kinds: dict[str, TokenDistance | None],
    student: StudentOutput | TeacherOutput,
    teacher: StudentOutput | TeacherOutput,
) -> None:
    """Add a batch's tokens; a kind whose shapes differ is given up."""
    for kind in TOKENS:
        pair = [getattr(output, f"{kind}_tokens") for output in (student, teacher)]
        if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
            kinds[kind] = None
        elif (distance := kinds[kind]) is not None:
            distance.add(*pair)
