"""Calibrated scores: a map from a joint's score to its expected object keypoint similarity."""

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
from distilpose.data.boxes import Instances
from distilpose.errors import DistilPoseError
from distilpose.evaluation.calibration import calibration
from distilpose.evaluation.error_types import keypoint_similarity, people_of
from distilpose.files import write_json
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton

_MAX_KNOTS = 20  # of a curve; each knot is the mean of the same number of persons
_MIN_PERSONS = 20  # a joint that fewer persons have gets the curve of all joints


@dataclass(frozen=True)
class ScoreMap:
    """A monotonic curve for each joint, from the model's score to the expected similarity.

    Attributes:
        names: K joint names.
        scores: K lists of knots, ascending.
        expected: K lists of the similarity at each knot, in [0, 1], ascending.
        persons: number of persons it was fitted to.
    """

    names: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    expected: tuple[tuple[float, ...], ...]
    persons: int

    def __call__(self, scores: Tensor) -> Tensor:
        """(N, K) scores to expected similarities: linear between knots, constant beyond the outer ones."""
        table = scores.double().cpu().numpy()
        curves = enumerate(zip(self.scores, self.expected, strict=True))
        mapped = np.stack([np.interp(table[:, joint], *curve) for joint, curve in curves], axis=1)
        return torch.from_numpy(mapped).to(scores)

    def save(self, path: str | Path, **about: Any) -> Path:
        """Write the map as JSON, with further facts about it."""
        content = {"joints": self.names, "scores": self.scores, "expected": self.expected, "persons": self.persons}
        return write_json({**content, **about}, path)

    @classmethod
    def load(cls, path: str | Path, skeleton: Skeleton) -> ScoreMap:
        """Read a map for the joints of a skeleton.

        Raises:
            DistilPoseError: the file cannot be read, or is for other joints.
        """
        try:
            content = json.loads(Path(path).read_text())
            curves = [tuple(tuple(map(float, knots)) for knots in content[key]) for key in ("scores", "expected")]
            score_map = cls(tuple(content["joints"]), curves[0], curves[1], int(content["persons"]))
            score_map._check_curves()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DistilPoseError(
                f"calibration={path} cannot be read ({error}): write it by evaluate … calibration_output=FILE."
            ) from None
        if score_map.names != skeleton.names:
            raise DistilPoseError(
                f"calibration={path} has {len(score_map.names)} joints ({', '.join(score_map.names[:3])}, …), but the model "
                f"has {skeleton.num_keypoints} ({', '.join(skeleton.names[:3])}, …): write one with this model."
            )
        return score_map

    def _check_curves(self) -> None:
        pairs = list(zip(self.names, self.scores, self.expected, strict=True))
        same_length = all(len(scores) == len(expected) > 0 for _, scores, expected in pairs)
        steps = np.concatenate([np.diff(knots) for knots in (*self.scores, *self.expected)])
        if not same_length or not (np.isfinite(steps) & (steps >= 0)).all():
            raise ValueError("its curves are not ascending, one per joint")


def fitted_to_another(path: str | Path, **about: Any) -> str:
    """A sentence if a map's file states that it was fitted to another model or in another way; "" if not.

    Args:
        path: the file.
        about: facts as `ScoreMap.save` got them, of the model that will use the map; those that the file lacks are ignored.
    """
    saved = json.loads(Path(path).read_text())
    names = [name for name, value in about.items() if name in saved and saved[name] != value]
    if not names:
        return ""
    differing = ", ".join(f"{name} {str(saved[name])[:12]}, here {str(about[name])[:12]}" for name in names)
    return (
        f"calibration={path} was fitted to {saved.get('checkpoint', 'a model')} with {differing}: its scores are not the "
        "similarity to expect; write one by evaluate … calibration_output=FILE."
    )


def fit_score_map(scores: NDArray, similarity: NDArray, labelled: NDArray, names: Sequence[str]) -> ScoreMap:
    """Isotonic regression of similarity on score, for each joint.

    Persons are sorted by the score of the joint and pooled into at most 20 knots of the same number of persons. A joint
    that is labelled on fewer than 20 persons gets the curve of all joints together.

    Args:
        scores: (N, K).
        similarity: (N, K) in [0, 1].
        labelled: (N, K) bool, the joints that count.
        names: K joint names.

    Raises:
        DistilPoseError: fewer than 20 labelled joints in all.
    """
    labelled = labelled & np.isfinite(scores) & np.isfinite(similarity)
    check_enough_labels(labelled)
    pooled = _curve(scores[labelled], similarity[labelled])
    curves = [
        _curve(scores[known, joint], similarity[known, joint]) if known.sum() >= _MIN_PERSONS else pooled
        for joint, known in enumerate(labelled.T)
    ]
    return ScoreMap(tuple(names), tuple(c[0] for c in curves), tuple(c[1] for c in curves), len(scores))


def _curve(scores: NDArray, similarity: NDArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(_MAX_KNOTS, max(1, len(order) // (_MIN_PERSONS // 4))))
    knots = np.array([scores[part].mean() for part in parts])
    weights = np.array([len(part) for part in parts], dtype=float)
    means = np.array([similarity[part].mean() for part in parts])
    ascending = isotonic_regression(means, weights=weights).x
    return tuple(knots.round(6).tolist()), tuple(np.clip(ascending, 0, 1).round(6).tolist())


class Reliability(NamedTuple):
    """A score map fitted to half of the images, and its effect on the other half.

    Attributes:
        persons: number of persons that the map was fitted to and tested on.
        before: expected calibration error of the raw scores on the test half; None if it has no labelled joint.
        after: the same for the mapped scores.
        score_map: the map, fitted to the first half.
    """

    persons: tuple[int, int]
    before: float | None
    after: float | None
    score_map: ScoreMap

    def save(self, path: str | Path, **about: Any) -> str:
        """Write the file that predict reads, and describe it in one or two sentences."""
        metrics = {"held_out_persons": self.persons[1], "error_before": self.before, "error_after": self.after}
        self.score_map.save(path, **metrics, **about)
        fitted = f"Calibration fitted to {self.persons[0]} persons: {path}."
        if self.before is None or self.after is None:
            return f"{fitted} Its error is not known: the other images have no labelled joint."
        return (
            f"{fitted} On the {self.persons[1]} persons of the other images its expected calibration error is "
            f"{self.after:.3f}, the raw scores' {self.before:.3f}."
        )


def calibration_split(image_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) bool: the person is in the half that a score map is fitted to, every other image by id."""
    return np.unique(image_ids, return_inverse=True)[1] % 2 == 0


def check_enough_labels(labelled: NDArray[np.bool_]) -> None:
    """Raise if there are fewer than 20 labelled joints to fit a score map to."""
    if labelled.sum() < _MIN_PERSONS:
        raise DistilPoseError(
            f"A calibration needs at least {_MIN_PERSONS} labelled joints on every other image, but there are "
            f"{labelled.sum()}: give more images, or leave calibration out."
        )


def reliability(predictions: Predictions, annotations: KeypointAnnotations, skeleton: Skeleton) -> Reliability:
    """Fit a score map on the persons of every other image, and test it on the rest.

    Args:
        predictions: N persons in ground-truth boxes.
        annotations: annotations of these persons.
        skeleton: its sigmas define the similarity. Without sigmas every joint has the sigma of a shoulder.
    """
    people = people_of(annotations)
    person = people.indices(predictions.annotation_id)
    similarity = keypoint_similarity(
        predictions.keypoints.double(), people.keypoints[person], people.area[person], skeleton
    ).numpy()
    labelled, scores = people.labelled[person].numpy().astype(bool), predictions.scores.double().numpy()
    fitted = calibration_split(predictions.image_id.numpy())
    test = ~fitted
    score_map = fit_score_map(scores[fitted], similarity[fitted], labelled[fitted], skeleton.names)
    mapped = score_map(torch.from_numpy(scores)).numpy()
    chosen = labelled & test[:, None]
    errors = [calibration(table[chosen], similarity[chosen])[3] if chosen.any() else None for table in (scores, mapped)]
    return Reliability((int(fitted.sum()), int(test.sum())), errors[0], errors[1], score_map)


def check_can_calibrate(file: str | Path, has_truth: bool, scores_trained: bool, persons: Instances) -> None:
    """Raise before the work if a calibration cannot be computed or written.

    Args:
        file: the file to write.
        has_truth: whether persons in ground-truth boxes are evaluated.
        scores_trained: whether the model's scores are trained.
        persons: the persons to evaluate.
    """
    if Path(file).exists():
        raise DistilPoseError(f"calibration_output={file} exists and is not overwritten: give a new name.")
    if not has_truth or not scores_trained:
        need = "ground-truth boxes: give protocol=gt" if scores_trained else "a model with trained scores"
        raise DistilPoseError(f"calibration_output={file} needs {need}.")
    check_enough_labels(persons.labelled[calibration_split(persons.image_ids)])
