"""Predictions that the page shows for an image: the poses of one or two models, and with a teacher the heat maps."""

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


class Observation(NamedTuple):
    """Predictions of one model for the N persons of an image, with the input and output of its network.

    Attributes:
        persons: in image pixels.
        crops: (N, 3, H, W) input of the network, normalised.
        output: output for the crops, without the flip test.
    """

    persons: Predictions
    crops: Tensor
    output: StudentOutput | TeacherOutput


class Poses:
    """Predicts everything that the page draws for an image and boxes, in the form of JSON.

    Args:
        model: the model.
        name: its name on the page.
        compare: another model, shown beside it.
        compare_name: its name.
        teacher: a teacher, whose heat maps are shown beside those simulated by `model`, which must be a student.
        teacher_name: its name.
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
                f"teacher.checkpoint is {teacher.model.name} and checkpoint is {model.model.name}, expected a teacher and a "
                "student: use compare=… to show two models of one kind."
            )
        self.models = {name: model}
        if compare is not None:  # two runs may have one name
            self.models[compare_name if compare_name != name else f"{name} (2)"] = compare
        self.teacher, self.teacher_name = teacher, teacher_name

    def about(self) -> dict[str, Any]:
        """Names and properties of the models, without paths of their files."""
        return {
            "models": [_describe(name, predictor) for name, predictor in self.models.items()],
            "teacher": None if self.teacher is None else _describe(self.teacher_name, self.teacher),
        }

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float64] | None) -> dict[str, Any]:
        """The poses in the boxes.

        Args:
            image: (H, W, 3) uint8, RGB.
            boxes: (N, 4) x, y, width, height in image pixels; None takes the whole image as one person.

        Returns:
            `size` [W, H] and `boxes`; for each of `models` its `keypoints` (N, K, 2) in pixels and `scores` (N, K); with two
            models `distances` (N, K) in pixels between joints of one name, null where the other has none; with a teacher
            `maps` for each person (see `_maps`).

        Raises:
            DistilPoseError: a model gives keypoints or scores that are not finite.
        """
        observations = {name: observe(predictor, image, boxes) for name, predictor in self.models.items()}
        for name, observation in observations.items():
            check_finite(observation.persons, name)
        first, *others = observations.values()
        content: dict[str, Any] = {
            "size": [image.shape[1], image.shape[0]],
            "boxes": _round(first.persons.bbox),
            "models": [
                {"keypoints": _round(one.persons.keypoints), "scores": _round(one.persons.scores, 4)}
                for one in observations.values()
            ],
        }
        if others:
            skeleton, other = (predictor.skeleton for predictor in self.models.values())
            matched = skeleton.matching(other)
            content["distances"] = _distances(first.persons.keypoints, others[0].persons.keypoints, matched)
        if self.teacher is not None:
            content["maps"] = self._maps(first, observe(self.teacher, image, boxes))
        return content

    def _maps(self, student: Observation, teacher: Observation) -> list[dict[str, Any]]:
        """For each person the heat maps of teacher and student for the student's joints.

        `teacher` and `student` hold the input `crop` of each network and its `maps` as images. `peaks` are the highest values
        of the teacher's maps, null for a joint that it lacks. `sigmas` are those of the student, in cells.
        """
        assert self.teacher is not None
        assert isinstance(student.output, StudentOutput)
        assert isinstance(teacher.output, TeacherOutput)
        predictor = next(iter(self.models.values()))
        keypoints, sigmas = student.output.keypoints.float(), student.output.sigmas.float()
        simulated, _ = simulated_heatmaps(keypoints, sigmas, predictor.model.heatmap_size)
        indices = {joint: index for index, joint in enumerate(self.teacher.skeleton.names)}
        order = [indices.get(joint) for joint in predictor.skeleton.names]
        heatmaps = teacher.output.heatmaps.float()
        people = []
        for n in range(len(simulated)):
            maps = [heatmaps.new_zeros(heatmaps.shape[2:]) if index is None else heatmaps[n, index] for index in order]
            people.append(
                {
                    "teacher": {"crop": _crop(self.teacher, teacher.crops[n]), "maps": map_sheet(torch.stack(maps))},
                    "student": {"crop": _crop(predictor, student.crops[n]), "maps": map_sheet(simulated[n])},
                    "peaks": [
                        None if i is None else round(m.max().item(), 4) for i, m in zip(order, maps, strict=True)
                    ],
                    "sigmas": _round(sigmas[n]),
                }
            )
        return people


def observe(predictor: Predictor, image: NDArray[np.uint8], boxes: NDArray[np.float64] | None) -> Observation:
    """Run a predictor, and capture the input and output of its network by a hook."""
    passes: list[tuple[Tensor, StudentOutput | TeacherOutput]] = []
    hook = predictor.model.register_forward_hook(lambda module, args, output: passes.append((args[0], output)))
    try:
        persons = predictor(image, boxes)
    finally:
        hook.remove()
    crops, output = passes[0]  # all persons are one batch; the flipped pass comes second
    return Observation(persons, crops, output)


def map_sheet(maps: Tensor) -> str:
    """Heat maps (K, h, w) below one another as one image, (K h, w): bright where they are high, transparent where they are 0.

    The value of a map, clipped to [0, 1], is the opacity of the image, which is shown over the crop.
    """
    values = maps.detach().cpu().clamp(0, 1).reshape(-1, maps.shape[-1]).numpy()
    image = matplotlib.colormaps["magma"](0.35 + 0.65 * values)
    image[..., 3] = values
    return _data_uri(np.round(image * 255).astype(np.uint8), "PNG")


def _crop(predictor: Predictor, crop: Tensor) -> str:
    """The input of the network as an image."""
    return _data_uri(crop_image(crop, predictor.model.mean, predictor.model.std), "JPEG", quality=90)


def _data_uri(image: NDArray[np.uint8], kind: str, **options: Any) -> str:
    """An image, RGB or RGBA, as a data URI."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def _describe(name: str, predictor: Predictor) -> dict[str, Any]:
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
        "sides": skeleton.sides,
    }


def _distances(one: Tensor, other: Tensor, matched: Sequence[int | None]) -> list[list[float | None]]:
    """(N, K) pixels between the joints of one name; None where the other model has no such joint."""
    pairs = enumerate(matched)
    columns = [None if index is None else (one[:, k] - other[:, index]).norm(dim=-1) for k, index in pairs]
    return [[None if column is None else round(column[n].item(), 2) for column in columns] for n in range(len(one))]


def _round(values: Tensor, digits: int = 2) -> list[Any]:
    """Nested lists of rounded numbers, for JSON."""
    return np.round(values.double().cpu().numpy(), digits).tolist()
