from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from distilpose.data.geometry import region_of_box, warp_image, warp_of_region
from distilpose.errors import DistilPoseError
from distilpose.inference import Predictor
from distilpose.losses import simulated_heatmaps
from distilpose.models import create_model
from distilpose.skeleton import Skeleton
from distilpose.webpage.poses import Poses

BOXES = np.array([[10.0, 5, 40, 80], [60, 10, 50, 70]])


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def picture(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def crops(model, image):
    """The expected input of the network, by the geometry of the package."""
    inputs = []
    for box in BOXES:
        warp = warp_of_region(region_of_box(box, model.input_size), model.input_size)
        inputs.append((warp_image(image, warp, model.input_size) / 255 - model.mean) / model.std)
    return torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2).float()


def test_poses_are_those_of_the_predictor(poses, networks, image):
    answer = poses(image, BOXES)
    assert answer["size"] == [120, 90]
    assert answer["boxes"] == BOXES.tolist()
    for result, name in zip(answer["models"], ("one", "two"), strict=True):
        expected = Predictor(networks[name], device="cpu", flip_test=True)(image, BOXES)
        assert np.abs(np.array(result["keypoints"]) - expected.keypoints.numpy()).max() < 0.006
        assert np.abs(np.array(result["scores"]) - expected.scores.numpy()).max() < 1e-4
    one, two = (np.array(result["keypoints"]) for result in answer["models"])
    assert np.abs(np.array(answer["distances"]) - np.linalg.norm(one - two, axis=-1)).max() < 0.02


@pytest.mark.parametrize("name", ["student_lite", "student_base", "student_timm"])
def test_students_on_timms_networks(name, image):
    predictor = Predictor(create_model(name, input_size=(128, 96)), device="cpu", flip_test=False)
    (result,) = Poses(predictor, "one")(image, BOXES)["models"]
    assert np.abs(np.array(result["keypoints"]) - predictor(image, BOXES).keypoints.numpy()).max() < 0.006


def test_without_boxes_the_image_is_one_person(poses, networks, image):
    answer = poses(image, None)
    assert answer["boxes"] == [[0, 0, 120, 90]]
    expected = Predictor(networks["one"], device="cpu", flip_test=True)(image)
    assert np.abs(np.array(answer["models"][0]["keypoints"]) - expected.keypoints.numpy()).max() < 0.006


@torch.no_grad()
def test_maps_are_those_of_the_models(poses, networks, image):
    student, teacher = networks["one"].eval(), networks["teacher"].eval()
    teacher_maps = teacher(crops(teacher, image)).heatmaps
    output = student(crops(student, image))
    simulated, _ = simulated_heatmaps(output.keypoints, output.sigmas, student.heatmap_size)
    for n, person in enumerate(poses(image, BOXES)["maps"]):
        for role, maps in (("teacher", teacher_maps[n]), ("student", simulated[n])):
            sheet = picture(person[role]["maps"])
            assert sheet.shape == (maps.shape[0] * maps.shape[1], maps.shape[2], 4)
            shown = sheet[..., 3].reshape(maps.shape) / 255
            assert np.abs(shown - maps.clamp(0, 1).numpy()).max() < 0.6 / 255
            assert picture(person[role]["crop"]).shape == (*student.input_size, 3)
        assert person["peaks"] == pytest.approx(teacher_maps[n].amax((1, 2)).tolist(), abs=1e-4)
        assert np.abs(np.array(person["sigmas"]) - output.sigmas[n].numpy()).max() < 0.006


def test_joints_are_matched_by_name(networks, image):
    names = [name for name in networks["one"].skeleton.names if name != "nose"][::-1]
    torch.manual_seed(1)
    other = create_model("teacher_xs", skeleton=Skeleton.from_names(names))
    one, two = (Predictor(model, device="cpu") for model in (networks["one"], other))
    answer = Poses(one, "one", two, "other", two, "other")(image, BOXES)
    first, second = (torch.tensor(result["keypoints"]) for result in answer["models"])
    assert [row[0] for row in answer["distances"]] == [None, None]
    knee = networks["one"].skeleton.names.index("left_knee")
    expected = (first[1, knee] - second[1, names.index("left_knee")]).norm().item()
    assert answer["distances"][1][knee] == pytest.approx(expected, abs=0.02)
    sheet = picture(answer["maps"][0]["teacher"]["maps"])
    rows = other.heatmap_size[0]
    assert answer["maps"][0]["peaks"][0] is None
    assert sheet[:rows, :, 3].max() == 0  # the nose, which this teacher lacks
    assert sheet[rows:].max() > 0


def test_a_teacher_is_shown_beside_a_student(networks):
    one, teacher = (Predictor(networks[name], device="cpu") for name in ("one", "teacher"))
    for models in ((one, one), (teacher, teacher)):
        with pytest.raises(DistilPoseError, match=r"teacher\.checkpoint"):
            Poses(models[0], "a", teacher=models[1], teacher_name="b")


def test_models_of_one_name(networks):
    one = Predictor(networks["one"], device="cpu")
    about = Poses(one, "last", one, "last").about()
    assert [model["name"] for model in about["models"]] == ["last", "last (2)"]


def test_predictions_that_are_not_finite(image):
    model = create_model("student_xs")
    with torch.no_grad():
        next(model.head.parameters()).fill_(float("nan"))
    with pytest.raises(DistilPoseError, match="not finite"):
        Poses(Predictor(model, device="cpu"), "broken")(image, None)
