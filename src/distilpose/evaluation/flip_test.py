"""Keypoints and scores of crops, with or without flip test."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from distilpose.data.codec import decode_heatmaps
from distilpose.outputs import StudentOutput, TeacherOutput

if TYPE_CHECKING:
    from distilpose.models.model import PoseModel

log = logging.getLogger(__name__)

FlipTest = bool | Literal["released"]


def predict_crops(model: PoseModel, images: Tensor, flip_test: FlipTest = True) -> tuple[Tensor, Tensor]:
    """Keypoints and scores of crops by a student or a teacher.

    With flip test the outputs for the image and for its mirror image are averaged. A mirrored pixel u is at W - 1 - u,
    and targets are u / W. A mirrored x of a student therefore becomes (W - 1) / W - x; keypoints and scores are swapped
    with their left-right counterparts. Mirrored heat maps of a teacher, flipped back, are (stride - 1) / stride of a
    cell too far left (0.75 at stride 4), so they are shifted right by that amount. The bias after decoding is 0.01 crop
    pixels; it is 0.5 for a shift of one cell and 1.5 without a shift.

    `flip_test="released"` reproduces the published code: a mirrored x of a student becomes 1 - x (half a pixel of bias
    after averaging), and scores are not swapped; mirrored heat maps are shifted by one whole cell, and maps of any size
    are smoothed by 11 cells before decoding.

    The caller sets the mode of the model (train or eval) and of autograd.

    Args:
        model: a student or a teacher.
        images: (N, 3, H, W) normalised crops.
        flip_test: True, False or "released".

    Returns:
        keypoints (N, K, 2) in [0, 1] of the crop, and scores (N, K): the raw score of a student, 1 if no loss trained
        it, or the peak of a teacher's heat map. Both float32.
    """
    return predict_crops_each(model, images, [flip_test])[0]


def predict_crops_each(model: PoseModel, images: Tensor, flip_tests: Sequence[FlipTest]) -> list[tuple[Tensor, Tensor]]:
    """`predict_crops` for several kinds of flip test, from the same one or two forward passes."""
    if any(flip_tests) and not model.skeleton.flip_pairs:
        _log_no_pairs(model.skeleton.names)
    straight = model(images)
    mirrored = model(images.flip(-1)) if any(flip_tests) else None
    decode = _student if isinstance(straight, StudentOutput) else _teacher
    return [decode(model, straight, mirrored if flip else None, flip, images) for flip in flip_tests]


@cache
def _log_no_pairs(names: tuple[str, ...]) -> None:
    log.warning(
        f"The flip test averages {len(names)} joints with their mirror images and swaps none, as no flip pairs are known: "
        "correct for an object without sides, wrong for a body (flip_test=false turns it off)."
    )


def _student(
    model: PoseModel,
    straight: StudentOutput,
    mirrored: StudentOutput | None,
    flip_test: FlipTest,
    images: Tensor,
) -> tuple[Tensor, Tensor]:
    """Average keypoints and scores of both passes."""
    keypoints, scores = straight.keypoints.float(), straight.scores.float()
    if mirrored is not None:
        order, width = model.skeleton.flip_order, images.shape[-1]
        axis = 1.0 if flip_test == "released" else (width - 1) / width
        turned = mirrored.keypoints.float()[:, order]
        turned = torch.stack([axis - turned[..., 0], turned[..., 1]], dim=-1)
        turned_scores = mirrored.scores.float()
        if flip_test != "released":
            turned_scores = turned_scores[:, order]
        keypoints, scores = (keypoints + turned) / 2, (scores + turned_scores) / 2
    if not model.scores_trained:
        scores = torch.ones_like(scores)
    return keypoints, scores


def _teacher(
    model: PoseModel,
    straight: TeacherOutput,
    mirrored: TeacherOutput | None,
    flip_test: FlipTest,
    images: Tensor,
) -> tuple[Tensor, Tensor]:
    """Average the heat maps of both passes, then decode."""
    heatmaps = straight.heatmaps.float()
    if mirrored is not None:
        turned = mirrored.heatmaps.float()[:, model.skeleton.flip_order].flip(-1)
        shift = 1.0 if flip_test == "released" else 1 - heatmaps.shape[-1] / images.shape[-1]
        heatmaps = (heatmaps + shift_right(turned, shift)) / 2
    return decode_heatmaps(heatmaps, kernel=11 if flip_test == "released" else None)


def shift_right(heatmaps: Tensor, shift: float) -> Tensor:
    """Shift maps to the right by up to one cell, with linear interpolation; the first column stays.

    Args:
        heatmaps: (..., H, W).
        shift: in [0, 1], in cells.
    """
    moved = torch.cat([heatmaps[..., :1], heatmaps[..., :-1]], dim=-1)
    return heatmaps + shift * (moved - heatmaps)
