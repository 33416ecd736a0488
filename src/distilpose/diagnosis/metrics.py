"""Computes the metrics of a diagnosis from collected predictions, in plain containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distilpose.diagnosis.inherited_errors import inherited_errors
from distilpose.diagnosis.predictions import CollectedPredictions, RolePredictions, Targets
from distilpose.diagnosis.term_gradients import TermGradients, bin_by_distance
from distilpose.evaluation import (
    ERROR_TYPES,
    NEAR,
    People,
    allowed_distance,
    calibration,
    calibration_of_sigmas,
    error_types,
    is_upright,
    keypoint_similarity,
    pck,
    shares_of_types,
    spearman,
)
from distilpose.evaluation.error_types import GOOD, JITTER
from distilpose.models import PoseModel
from distilpose.skeleton import Skeleton

# distances in units of the student's sigmas; beyond the last one the gradient of a Gaussian vanishes
SIGMA_EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0)


def diagnosis_metrics(
    collected: CollectedPredictions, people: People, models: Mapping[str, PoseModel]
) -> dict[str, Any]:
    """All metrics of a diagnosis.

    Args:
        collected: result of `collect_predictions`.
        people: all persons in the images, including those of the predictions.
        models: by role, as in `collected`.

    Returns:
        `errors` by role and part of the persons, `calibration` by role of a student; with a teacher also `tokens` and
        `inherited` by role of a student, and `pull`, the gradients of the student's loss (None without a loss).
    """
    skeleton, students = models["student"].skeleton, [role for role in models if role != "teacher"]
    places, bbox = people.indices(collected.targets.annotation_id), collected.targets.bbox
    kinds = {role: error_types(one.image_keypoints, people, places, skeleton) for role, one in collected.roles.items()}
    target, labelled = people.keypoints[places], people.labelled[places]
    _, reference = allowed_distance(target, labelled, bbox, skeleton)
    report: dict[str, Any] = {
        "persons": len(places),
        "pck_reference": reference,
        "errors": {
            role: {
                part: _errors(one.image_keypoints, kinds[role], target, labelled, bbox, chosen, skeleton)
                for part, chosen in _parts(target, labelled, skeleton).items()
            }
            for role, one in collected.roles.items()
        },
        "calibration": {role: _calibration(collected, role, people, places, models[role]) for role in students},
    }
    if "teacher" in models:
        report["tokens"] = {
            role: {
                kind: None if distance is None else {"relative": distance.relative, "cosine": distance.cosine}
                for kind, distance in distances.items()
            }
            for role, distances in collected.tokens.items()
        }
        report["inherited"] = {role: _inherited(collected, role, kinds, people, places, skeleton) for role in students}
        gradients = collected.gradients
        report["pull"] = None if gradients is None or not len(gradients.cells) else _gradients(gradients)
    return report


def _parts(target: Tensor, labelled: Tensor, skeleton: Skeleton) -> dict[str, Tensor]:
    """Masks of the persons in each table; split by orientation only if it is known for some person."""
    parts = {"all": torch.ones(len(target), dtype=torch.bool)}
    upright, known = is_upright(target, labelled, skeleton)
    return parts | ({"upright": upright, "not_upright": known & ~upright} if known.any() else {})


def _errors(
    keypoints: Tensor,
    kinds: Tensor,
    target: Tensor,
    labelled: Tensor,
    bbox: Tensor,
    chosen: Tensor,
    skeleton: Skeleton,
) -> dict[str, Any]:
    """PCK and the share of each error type, of all joints and of each joint."""
    keypoints, kinds, target, labelled, bbox = (field[chosen] for field in (keypoints, kinds, target, labelled, bbox))
    result = pck(keypoints, target, labelled, bbox, skeleton)
    rows = zip(skeleton.names, result.per_joint.tolist(), shares_of_types(kinds).tolist(), strict=True)
    return {
        "persons": len(kinds),
        "joints": int(labelled.sum()),
        "PCK": result.value,
        "pck_left_out": result.left_out,
        **dict(zip(ERROR_TYPES, shares_of_types(kinds.reshape(-1, 1))[0].tolist(), strict=True)),
        "per_joint": {
            name: {"PCK": value, **dict(zip(ERROR_TYPES, shares, strict=True))} for name, value, shares in rows
        },
    }


def _calibration(
    collected: CollectedPredictions, role: str, people: People, places: Tensor, model: PoseModel
) -> dict[str, Any]:
    """Calibration of a student's confidences and sigmas, over labelled joints inside their crops."""
    predictions, inside = collected.roles[role], collected.targets.inside
    similarity = keypoint_similarity(
        predictions.image_straight.double(), people.keypoints[places], people.area[places], model.skeleton
    )
    errors = _errors_in_cells(predictions, collected.targets, model)[inside]
    scores, joint_oks = predictions.scores[inside].numpy(), similarity[inside].numpy()
    distance = errors.norm(dim=-1).numpy()
    sigmas, along = predictions.sigmas[inside].flatten().numpy(), errors.flatten().numpy()
    result = calibration_of_sigmas(sigmas, along)
    report: dict[str, Any] = {
        "joints": len(errors),
        "sigma": {
            "error": result.error,
            "mean": float(sigmas.mean()),
            "rms_error": float((along**2).mean() ** 0.5),
            "rank_correlation": spearman(sigmas, abs(along)),
            "bins": {name: getattr(result, name).tolist() for name in ("sigma", "rms", "mean_absolute", "counts")},
        },
        "confidence": None,
    }
    if model.scores_trained:
        confidence, oks, counts, error = calibration(scores, joint_oks)
        bins = {"confidence": confidence.tolist(), "oks": oks.tolist(), "counts": counts.tolist()}
        rank = spearman(-scores, distance)
        report["confidence"] = {"error": error, "rank_correlation": rank, "bins": bins}
    return report


def _errors_in_cells(predictions: RolePredictions, targets: Targets, model: PoseModel) -> Tensor:
    """(N, K, 2) prediction without flip test minus truth, in heat-map cells."""
    rows, columns = model.heatmap_size
    return (predictions.straight - targets.keypoints) * torch.tensor([columns, rows])


def _inherited(
    collected: CollectedPredictions,
    role: str,
    kinds: Mapping[str, Tensor],
    people: People,
    places: Tensor,
    skeleton: Skeleton,
) -> dict[str, Any]:
    """Errors of a student by whether its teacher is right."""
    target, labelled = people.keypoints[places], people.labelled[places]
    allowed, _ = allowed_distance(target, labelled, collected.targets.bbox, skeleton)
    student, teacher = (collected.roles[one].image_keypoints.double() for one in (role, "teacher"))
    right, teacher_right = ((kinds[one] == GOOD) | (kinds[one] == JITTER) for one in (role, "teacher"))
    result = inherited_errors(student, teacher, target, labelled, right, teacher_right, allowed)
    return {"right_from_oks": NEAR, **result._asdict()}


def _gradients(gradients: TermGradients) -> dict[str, Any]:
    """Distances of the student from the teacher's peaks, and the gradients of the terms by distance."""
    shares = torch.tensor([0.1, 0.5, 0.9])
    edges = torch.tensor(SIGMA_EDGES)
    cells, sigmas = gradients.cells, gradients.sigmas
    counts = torch.bincount(torch.bucketize(sigmas, edges[1:], right=True), minlength=len(edges))
    return {
        "joints": len(cells),
        "cells": dict(zip(("10%", "50%", "90%"), cells.quantile(shares).tolist(), strict=True)),
        "sigmas": dict(zip(("10%", "50%", "90%"), sigmas.quantile(shares).tolist(), strict=True)),
        "beyond_3_sigmas": (sigmas > 3).float().mean().item(),
        "by_sigmas": {"from": list(SIGMA_EDGES), "joints": counts.tolist()},
        "by_cells": bin_by_distance(gradients, cells),
        "by_error": bin_by_distance(gradients, gradients.error),
    }
