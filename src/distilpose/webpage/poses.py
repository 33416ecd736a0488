"""What the page shows of a photograph: the poses of one or two models, and with a teacher the heat maps of each joint."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from distilpose.errors import DistilPoseError
from distilpose.evaluation import check_finite
from distilpose.inference import Predictor, crop_image
from distilpose.losses import simulated_heatmaps
from distilpose.models import count_parameters
from distilpose.outputs import Predictions, StudentOutput, TeacherOutput
from distilpose.skeleton import side_of


class Sight(NamedTuple):
    """What one model says of the N persons of a photograph.

    Attributes:
        found: in image pixels.
        crops: (N, 3, H, W) what the network saw, normalised.
        output: of the crops as they are, without a flip test.
    """

    found: Predictions
    crops: Tensor
    output: StudentOutput | TeacherOutput


class Poses:
    """Photograph and boxes in, all that the page draws out, as JSON.

    Args:
        model: whose poses are shown.
        name: what it is called on the page.
        compare: another model, shown beside it.
        compare_name: likewise.
        teacher: a teacher, whose heat maps are shown beside those that `model`, then a student, describes.
        teacher_name: likewise.
    """

    def __init__(
        self,
        model: Predictor,
        name: str,
        compare: Predictor | None = None,
        compare_name: str = "",
        teacher: Predictor | None = None,
        teacher_name: str = "",
    ):
        if teacher is not None and (teacher.model.kind, model.model.kind) != ("teacher", "student"):
            raise DistilPoseError(
                f"The heat maps of a teacher are shown beside those of a student, got {teacher.model.name} as teacher and "
                f"{model.model.name} as checkpoint: give a student as checkpoint=… and a teacher as teacher.checkpoint=…, "
                "or compare=… for two of a kind."
            )
        self.models = {name: model} if compare is None else {name: model, _other(compare_name, name): compare}
        self.teacher, self.teacher_name = teacher, teacher_name

    def about(self) -> dict[str, Any]:
        """The models in words, without their files' places."""
        return {
            "models": [_told(name, predictor) for name, predictor in self.models.items()],
            "teacher": None if self.teacher is None else _told(self.teacher_name, self.teacher),
        }

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float64] | None) -> dict[str, Any]:
        """The poses in the boxes.

        Args:
            image: (H, W, 3) uint8, RGB.
            boxes: (N, 4) x, y, width, height in image pixels; None takes the whole image as one person.

        Returns:
            `size` [W, H] and `boxes`; `models`, of each its `keypoints` (N, K, 2) in pixels and `scores` (N, K); with two
            models `distances` (N, K) in pixels between joints of one name, null where the other has none; with a teacher
            `maps`, of each person (see `_maps`).

        Raises:
            DistilPoseError: a model gives what is no number.
        """
        sights = {name: look(predictor, image, boxes) for name, predictor in self.models.items()}
        for name, sight in sights.items():
            check_finite(sight.found, name)
        first, *others = sights.values()
        answer: dict[str, Any] = {
            "size": [image.shape[1], image.shape[0]],
            "boxes": _rounded(first.found.bbox),
            "models": [
                {"keypoints": _rounded(sight.found.keypoints), "scores": _rounded(sight.found.scores, 4)}
                for sight in sights.values()
            ],
        }
        if others:
            names = [predictor.skeleton.names for predictor in self.models.values()]
            apart = _distances(first.found.keypoints, others[0].found.keypoints, *names)
            answer["distances"] = apart
        if self.teacher is not None:
            answer["maps"] = self._maps(first, look(self.teacher, image, boxes))
        return answer

    def _maps(self, student: Sight, teacher: Sight) -> list[dict[str, Any]]:
        """Of each person what teacher and student say of each joint of the student's.

        `teacher` and `student` hold the `crop` each saw and its `maps`, pictures; `peaks` are the teacher's highest values,
        null of a joint it lacks, and `sigmas` the student's, in cells.
        """
        assert self.teacher is not None
        assert isinstance(student.output, StudentOutput)
        assert isinstance(teacher.output, TeacherOutput)
        ours, theirs = next(iter(self.models.values())), self.teacher
        keypoints, sigmas = student.output.keypoints.float(), student.output.sigmas.float()
        simulated, _ = simulated_heatmaps(keypoints, sigmas, ours.model.heatmap_size)
        places = {joint: index for index, joint in enumerate(theirs.skeleton.names)}
        order = [places.get(joint) for joint in ours.skeleton.names]
        told = teacher.output.heatmaps.float()
        people = []
        for n in range(len(simulated)):
            maps = [told.new_zeros(told.shape[2:]) if index is None else told[n, index] for index in order]
            people.append(
                {
                    "teacher": {"crop": _crop(theirs, teacher.crops[n]), "maps": map_sheet(torch.stack(maps))},
                    "student": {"crop": _crop(ours, student.crops[n]), "maps": map_sheet(simulated[n])},
                    "peaks": [
                        None if i is None else round(m.max().item(), 4) for i, m in zip(order, maps, strict=True)
                    ],
                    "sigmas": _rounded(sigmas[n]),
                }
            )
        return people


def look(predictor: Predictor, image: NDArray[np.uint8], boxes: NDArray[np.float64] | None) -> Sight:
    """A predictor's answer, and what its network was shown and said on the way; not one forward pass more."""
    seen: list[tuple[Tensor, StudentOutput | TeacherOutput]] = []
    hook = predictor.model.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    try:
        found = predictor(image, boxes)
    finally:
        hook.remove()
    crops, output = seen[0]  # all persons are one batch; the mirrored pass, if any, comes second
    return Sight(found, crops, output)


def map_sheet(maps: Tensor) -> str:
    """Heat maps (K, h, w) under one another as one picture, (K h, w): bright where they are high, clear where they are 0.

    A map's value in [0, 1], or cut to it, is the picture's opacity, so that it glows over what it is laid on.
    """
    values = maps.detach().cpu().clamp(0, 1).reshape(-1, maps.shape[-1]).numpy()
    picture = matplotlib.colormaps["magma"](0.35 + 0.65 * values)
    picture[..., 3] = values
    return _data_uri(np.round(picture * 255).astype(np.uint8), "PNG")


def _crop(predictor: Predictor, crop: Tensor) -> str:
    """What the network saw, as a picture."""
    return _data_uri(crop_image(crop, predictor.model.mean, predictor.model.std), "JPEG", quality=90)


def _data_uri(picture: NDArray[np.uint8], kind: str, **options: Any) -> str:
    """A picture, RGB or RGBA, as text that an <img> takes."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def _told(name: str, predictor: Predictor) -> dict[str, Any]:
    model, skeleton = predictor.model, predictor.skeleton
    return {
        "name": name,
        "model": model.name,
        "parameters": count_parameters(model),
        "input_size": list(model.input_size),
        "heatmap_size": list(model.heatmap_size),
        "scores_trained": model.scores_trained,
        "joints": list(skeleton.names),
        "limbs": [list(limb) for limb in skeleton.limbs],
        "sides": [side_of(joint) for joint in skeleton.names],
    }


def _other(name: str, taken: str) -> str:
    """A name that differs from the first model's, for two checkpoints of runs of one name."""
    return name if name != taken else f"{name} (2)"


def _distances(one: Tensor, other: Tensor, names: Sequence[str], others: Sequence[str]) -> list[list[float | None]]:
    """(N, K) pixels between the joints of one name; None where the other model has no such joint."""
    places = {joint: index for index, joint in enumerate(others)}
    found = [places.get(joint) for joint in names]
    columns = [None if index is None else (one[:, k] - other[:, index]).norm(dim=-1) for k, index in enumerate(found)]
    return [[None if column is None else round(column[n].item(), 2) for column in columns] for n in range(len(one))]


def _rounded(values: Tensor, digits: int = 2) -> list[Any]:
    """As JSON, without digits that say nothing."""
    return np.round(values.double().cpu().numpy(), digits).tolist()
