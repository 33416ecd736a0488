"""From what models said of the same persons to the figures of a diagnosis, in plain containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distilpose.diagnosis.inherited_errors import inherited_errors
from distilpose.diagnosis.observation import Observation, Persons, Sight
from distilpose.diagnosis.term_gradients import Pull, pull_by_distance
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

# in the student's sigmas; beyond the last a Gaussian has nothing left to pull with
SIGMA_EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0)


def figures_of(seen: Observation, people: People, models: Mapping[str, PoseModel]) -> dict[str, Any]:
    """All figures of a diagnosis.

    Args:
        seen: by `observe`.
        people: everyone in the images, those looked at among them.
        models: by role, as they were observed.

    Returns:
        `errors` by role and part of the persons, `calibration` by role of a student; with a teacher also `tokens` and
        `inherited` by role of a student, and `pull` on the student (None without a loss).
    """
    skeleton, students = models["student"].skeleton, [role for role in models if role != "teacher"]
    own = people.places(seen.persons.annotation_id)
    kinds = {role: error_types(sight.places, people, own, skeleton) for role, sight in seen.sights.items()}
    target, labelled = people.keypoints[own], people.labelled[own]
    _, reference = allowed_distance(target, labelled, seen.persons.bbox, skeleton)
    report: dict[str, Any] = {
        "persons": len(own),
        "pck_reference": reference,
        "errors": {
            role: {
                part: _errors(sight.places, kinds[role], target, labelled, seen.persons.bbox, chosen, skeleton)
                for part, chosen in _parts(target, labelled, skeleton).items()
            }
            for role, sight in seen.sights.items()
        },
        "calibration": {role: _calibration(seen, role, people, own, models[role]) for role in students},
    }
    if "teacher" in models:
        report["tokens"] = {
            role: {
                kind: None if distance is None else {"relative": distance.relative, "cosine": distance.cosine}
                for kind, distance in distances.items()
            }
            for role, distances in seen.tokens.items()
        }
        report["inherited"] = {role: _inherited(seen, role, kinds, people, own, skeleton) for role in students}
        report["pull"] = None if seen.pull is None or not len(seen.pull.cells) else _pull(seen.pull)
    return report


def _parts(target: Tensor, labelled: Tensor, skeleton: Skeleton) -> dict[str, Tensor]:
    """Which persons each table is about; by orientation only where it is known of anyone."""
    parts = {"all": torch.ones(len(target), dtype=torch.bool)}
    upright, known = is_upright(target, labelled, skeleton)
    return parts | ({"upright": upright, "not_upright": known & ~upright} if known.any() else {})


def _errors(
    places: Tensor,
    kinds: Tensor,
    target: Tensor,
    labelled: Tensor,
    bbox: Tensor,
    chosen: Tensor,
    skeleton: Skeleton,
) -> dict[str, Any]:
    """PCK and the share of each type of error, of all joints and joint by joint."""
    places, kinds, target, labelled, bbox = (field[chosen] for field in (places, kinds, target, labelled, bbox))
    found = pck(places, target, labelled, bbox, skeleton)
    rows = zip(skeleton.names, found.per_joint.tolist(), shares_of_types(kinds).tolist(), strict=True)
    return {
        "persons": len(kinds),
        "joints": int(labelled.sum()),
        "PCK": found.value,
        **dict(zip(ERROR_TYPES, shares_of_types(kinds.reshape(-1, 1))[0].tolist(), strict=True)),
        "per_joint": {
            name: {"PCK": value, **dict(zip(ERROR_TYPES, shares, strict=True))} for name, value, shares in rows
        },
    }


def _calibration(seen: Observation, role: str, people: People, own: Tensor, model: PoseModel) -> dict[str, Any]:
    """A student's confidences against OKS and its sigmas against its errors, of labelled joints inside their crops."""
    persons, sight = seen.persons, seen.sights[role]
    similarity = keypoint_similarity(
        sight.straight_places.double(), people.keypoints[own], people.area[own], model.skeleton
    )
    errors = _cells(sight, persons, model)[persons.inside]
    scores, joint_oks = sight.scores[persons.inside].numpy(), similarity[persons.inside].numpy()
    distance = errors.norm(dim=-1).numpy()
    sigmas, along = sight.sigmas[persons.inside].flatten().numpy(), errors.flatten().numpy()
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


def _cells(sight: Sight, persons: Persons, model: PoseModel) -> Tensor:
    """(N, K, 2) prediction minus truth in heat-map cells, of the crop as it is."""
    rows, columns = model.heatmap_size
    return (sight.straight - persons.keypoints) * torch.tensor([columns, rows])


def _inherited(
    seen: Observation, role: str, kinds: Mapping[str, Tensor], people: People, own: Tensor, skeleton: Skeleton
) -> dict[str, Any]:
    """A student where its teacher is wrong and where it is right."""
    target, labelled = people.keypoints[own], people.labelled[own]
    allowed, _ = allowed_distance(target, labelled, seen.persons.bbox, skeleton)
    student, teacher = (seen.sights[who].places.double() for who in (role, "teacher"))
    right, teacher_right = ((kinds[who] == GOOD) | (kinds[who] == JITTER) for who in (role, "teacher"))
    result = inherited_errors(student, teacher, target, labelled, right, teacher_right, allowed)
    return {"right_from_oks": NEAR, **result._asdict()}


def _pull(pull: Pull) -> dict[str, Any]:
    """How far the student is from the teacher's peaks, and which term pulls how strongly there."""
    shares = torch.tensor([0.1, 0.5, 0.9])
    edges = torch.tensor(SIGMA_EDGES)
    counts = torch.bincount(torch.bucketize(pull.sigmas, edges[1:], right=True), minlength=len(edges))
    return {
        "joints": len(pull.cells),
        "cells": dict(zip(("10%", "50%", "90%"), pull.cells.quantile(shares).tolist(), strict=True)),
        "sigmas": dict(zip(("10%", "50%", "90%"), pull.sigmas.quantile(shares).tolist(), strict=True)),
        "beyond_3_sigmas": (pull.sigmas > 3).float().mean().item(),
        "by_sigmas": {"from": list(SIGMA_EDGES), "joints": counts.tolist()},
        "by_cells": pull_by_distance(pull, pull.cells),
        "by_error": pull_by_distance(pull, pull.error),
    }
