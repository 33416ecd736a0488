"""Scores that mean something: a joint's score turned into the object keypoint similarity to expect of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor

from distilpose.data.annotations import KeypointAnnotations
from distilpose.errors import DistilPoseError
from distilpose.evaluation.calibration import calibration
from distilpose.evaluation.error_types import keypoint_similarity, people_of
from distilpose.files import write_json
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton

_KNOTS = 20  # of a joint's curve at most, each the mean of equally many persons
_LEAST = 20  # labelled persons a joint needs for a curve of its own


@dataclass(frozen=True)
class ScoreMap:
    """A rising curve for each joint, from the model's score to the similarity to expect.

    Attributes:
        names: K joints.
        scores: K lists of knots, rising.
        expected: K lists of the similarity at each knot, in [0, 1], never falling.
        persons: how many it was fitted to.
    """

    names: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    expected: tuple[tuple[float, ...], ...]
    persons: int

    def __call__(self, scores: Tensor) -> Tensor:
        """(N, K) scores to the similarities to expect: straight lines between knots, level beyond the outer ones."""
        table = scores.double().cpu().numpy()
        curves = enumerate(zip(self.scores, self.expected, strict=True))
        mapped = np.stack([np.interp(table[:, joint], *curve) for joint, curve in curves], axis=1)
        return torch.from_numpy(mapped).to(scores)

    def save(self, path: str | Path, **about: Any) -> Path:
        """Write it as JSON, with what else there is to tell.

        Raises:
            DistilPoseError: the file exists.
        """
        if Path(path).exists():
            raise DistilPoseError(f"calibration={path} exists and nothing is overwritten: give a new name.")
        content = {"joints": self.names, "scores": self.scores, "expected": self.expected, "persons": self.persons}
        return write_json({**content, **about}, path)

    @classmethod
    def load(cls, path: str | Path, skeleton: Skeleton) -> ScoreMap:
        """Read what `save` wrote.

        Raises:
            DistilPoseError: it is no such file, or of other joints.
        """
        try:
            content = json.loads(Path(path).read_text())
            curves = [tuple(tuple(map(float, knots)) for knots in content[key]) for key in ("scores", "expected")]
            found = cls(tuple(content["joints"]), curves[0], curves[1], int(content["persons"]))
            steps = [np.diff(knots) for knots in (*found.scores, *found.expected)]
            good = all(np.isfinite(step).all() and (step >= 0).all() for step in steps) and all(
                len(first) == len(second) > 0 for first, second in zip(*curves, strict=True)
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DistilPoseError(
                f"calibration={path} cannot be read ({error}): write one by evaluate … calibration=FILE."
            ) from None
        if not good or len(found.scores) != len(found.names):
            raise DistilPoseError(f"calibration={path} holds no rising curve a joint: write it anew by evaluate.")
        if found.names != skeleton.names:
            raise DistilPoseError(
                f"calibration={path} is of {len(found.names)} joints ({', '.join(found.names[:3])}, …), but the model has "
                f"{skeleton.num_keypoints} ({', '.join(skeleton.names[:3])}, …): write one with this model."
            )
        return found


def fit_score_map(scores: NDArray, similarity: NDArray, labelled: NDArray, names: Sequence[str]) -> ScoreMap:
    """Isotonic regression of similarity on score, joint by joint.

    Persons are sorted by the joint's score and pooled into at most 20 knots of equally many; a joint labelled on fewer than
    20 persons takes the curve of all joints together.

    Args:
        scores: (N, K).
        similarity: (N, K) in [0, 1].
        labelled: (N, K) bool, the joints that count.
        names: K joints.

    Raises:
        DistilPoseError: fewer than 20 labelled joints in all.
    """
    labelled = labelled & np.isfinite(scores) & np.isfinite(similarity)
    check_labelled(labelled)
    everything = _curve(scores[labelled], similarity[labelled])
    curves = [
        _curve(scores[seen, joint], similarity[seen, joint]) if seen.sum() >= _LEAST else everything
        for joint, seen in enumerate(labelled.T)
    ]
    return ScoreMap(tuple(names), tuple(c[0] for c in curves), tuple(c[1] for c in curves), len(scores))


def _curve(scores: NDArray, similarity: NDArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(_KNOTS, max(1, len(order) // (_LEAST // 4))))
    knots = np.array([scores[part].mean() for part in parts])
    weights = np.array([len(part) for part in parts], dtype=float)
    means = np.array([similarity[part].mean() for part in parts])
    rising = isotonic_regression(means, weights=weights).x
    return tuple(knots.round(6).tolist()), tuple(np.clip(rising, 0, 1).round(6).tolist())


class Reliability(NamedTuple):
    """What fitting on one half of the persons does on the other.

    Attributes:
        persons: (fitted to, measured on).
        before: expected calibration error of the model's scores, on the half measured on; None if that has no labelled joint.
        after: of the mapped scores, there.
        score_map: fitted to the first half.
    """

    persons: tuple[int, int]
    before: float | None
    after: float | None
    score_map: ScoreMap

    def save(self, path: str | Path, **about: Any) -> str:
        """Write what predict reads, and tell what it is worth."""
        figures = {"held_out_persons": self.persons[1], "error_before": self.before, "error_after": self.after}
        self.score_map.save(path, **figures, **about)
        told = f"Calibration fitted to {self.persons[0]} persons: {path}."
        if self.before is None or self.after is None:
            return f"{told} What it is worth is not measured: the other images have no labelled joint."
        return (
            f"{told} On the {self.persons[1]} persons of the other images its expected calibration error is {self.after:.3f}, "
            f"the raw scores' {self.before:.3f}."
        )


def fitted_half(image_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each person, by its image, whether it is of the half that is fitted to: every other image, by number."""
    return np.unique(image_ids, return_inverse=True)[1] % 2 == 0


def check_labelled(labelled: NDArray[np.bool_]) -> None:
    """Refuse to fit to fewer than 20 labelled joints."""
    if labelled.sum() < _LEAST:
        raise DistilPoseError(
            f"A calibration needs at least {_LEAST} labelled joints on every other image, but there are {labelled.sum()}: "
            "give more images, or leave calibration out."
        )


def reliability(predictions: Predictions, annotations: KeypointAnnotations, skeleton: Skeleton) -> Reliability:
    """Fit a map on the persons of every other image, and measure it on the rest.

    Args:
        predictions: N persons in ground-truth boxes.
        annotations: that the persons are of.
        skeleton: its sigmas say what is alike; without any, every joint counts as a shoulder.
    """
    people = people_of(annotations)
    own = people.places(predictions.annotation_id)
    similarity = keypoint_similarity(
        predictions.keypoints.double(), people.keypoints[own], people.area[own], skeleton
    ).numpy()
    labelled, scores = people.labelled[own].numpy().astype(bool), predictions.scores.double().numpy()
    fitted = fitted_half(predictions.image_id.numpy())
    held = ~fitted
    found = fit_score_map(scores[fitted], similarity[fitted], labelled[fitted], skeleton.names)
    mapped = found(torch.from_numpy(scores)).numpy()
    chosen = labelled & held[:, None]
    errors = [calibration(table[chosen], similarity[chosen])[3] if chosen.any() else None for table in (scores, mapped)]
    return Reliability((int(fitted.sum()), int(held.sum())), errors[0], errors[1], found)
