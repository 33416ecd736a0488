"""Synthetic images and their annotations: visibility flags, boxes, areas, occlusion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from distilpose.data.synthetic.drawing import Canvas, Material, capsule
from distilpose.data.synthetic.figure import LIMITS, Body, build_figure, rotation
from distilpose.data.synthetic.outfit import sample_outfit
from distilpose.data.synthetic.person import Person, silhouette
from distilpose.data.synthetic.scene import draw_scene
from distilpose.skeleton import COCO

SIZE = 128
STANDING = dict.fromkeys(LIMITS, 0.0) | {"left_arm_abduction": 30.0, "right_arm_abduction": 30.0}
LEFT = [index for index, name in enumerate(COCO.names) if name.startswith("left_")]


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng((5, number)), SIZE, 3) for number in range(80)]


def standing(yaw: float, centre=(64.0, 62.0), height: float = 100.0, **angles: float) -> tuple[Person, Canvas]:
    outfit = dataclasses.replace(sample_outfit(np.random.default_rng(1), height), hair_length=0.0, skirt=0.0)
    person = Person(build_figure(Body(), STANDING | angles, rotation("y", yaw)), outfit, np.array(centre), height)
    return person, Canvas(np.full((SIZE, SIZE, 3), 200, np.float32), np.array((0.0, -1.0)))


def named(flags: np.ndarray) -> set[str]:
    return {name for name, flag in zip(COCO.names, flags, strict=True) if flag}


def test_images_have_one_to_max_persons(scenes):
    assert all(image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 for image, _ in scenes)
    assert {len(persons) for _, persons in scenes} == {1, 2, 3}
    assert len(draw_scene(np.random.default_rng(0), SIZE, 1)[1]) == 1


def test_labelled_joints_lie_in_the_picture_and_others_are_zero(scenes):
    flags = []
    for _, persons in scenes:
        for person in persons:
            joints = np.array(person["keypoints"]).reshape(17, 3)
            labelled = joints[:, 2] > 0
            assert person["num_keypoints"] == labelled.sum()
            assert (joints[labelled, :2] >= 0).all()
            assert (joints[labelled, :2] <= SIZE - 1).all()
            assert (joints[~labelled] == 0).all()
            flags.append(joints[:, 2])
    # all three flags occur, visible most
    shares = [(np.array(flags) == flag).mean() for flag in (0, 1, 2)]
    assert shares[2] > 0.5
    assert min(shares) > 0.05


def test_boxes_lie_in_the_picture_and_hold_the_visible_area(scenes):
    for _, persons in scenes:
        for person in persons:
            x, y, width, height = person["bbox"]
            assert x >= 0 <= y
            assert x + width <= SIZE + 0.01 >= y + height
            assert 0 <= person["area"] <= width * height
            joints = np.array(person["keypoints"]).reshape(17, 3)
            joints = joints[joints[:, 2] == 2]
            assert (joints[:, :2] >= np.array((x, y)) - 1).all()
            assert (joints[:, :2] <= np.array((x + width, y + height)) + 1).all()


def test_the_visible_left_eye_of_an_upright_person_is_on_the_right(scenes):
    names = COCO.names
    compared = 0
    for _, persons in scenes:
        for person in persons:
            joints = dict(zip(names, np.array(person["keypoints"]).reshape(17, 3), strict=True))
            left, right = joints["left_eye"], joints["right_eye"]
            upright = joints["left_shoulder"][2] > 0 and left[1] < joints["left_shoulder"][1] - 5
            if left[2] == right[2] == 2 and upright and abs(left[0] - right[0]) > 1.5 * abs(left[1] - right[1]):
                compared += 1
                assert left[0] > right[0]
    assert compared > 10


def test_from_the_front_everything_is_visible():
    person, canvas = standing(yaw=0)
    person.draw(canvas, 0)
    assert named(person.visible(canvas, 0)) == set(COCO.names)


def test_from_the_back_the_face_is_hidden_and_the_limbs_are_not():
    person, canvas = standing(yaw=180)
    person.draw(canvas, 0)
    seen = named(person.visible(canvas, 0))
    assert not {"nose", "left_eye", "right_eye"} & seen
    assert {name for name in COCO.names if name.endswith(("shoulder", "elbow", "wrist", "knee", "ankle"))} <= seen


@pytest.mark.parametrize(("yaw", "near"), [(90, "right"), (-90, "left")])
def test_in_profile_the_near_side_hides_the_far_one(yaw, near):
    # raised arms do not hide the hips
    person, canvas = standing(yaw, left_arm_flexion=60.0, right_arm_flexion=60.0)
    person.draw(canvas, 0)
    seen, far = named(person.visible(canvas, 0)), {"left": "right", "right": "left"}[near]
    assert {"nose", f"{near}_ear", f"{near}_eye", f"{near}_shoulder", f"{near}_hip"} <= seen
    assert not {f"{far}_ear", f"{far}_eye", f"{far}_shoulder", f"{far}_hip"} & seen
    # turned to its left the figure looks to the viewer's right
    assert np.sign(person.keypoints[0, 0] - person.centre[0]) == (1 if yaw > 0 else -1)


def test_a_thing_or_a_person_in_front_hides_the_joints_behind_it():
    person, canvas = standing(yaw=0)
    person.draw(canvas, 0)
    area = silhouette(canvas, 0).sum()
    knee = person.keypoints[COCO.names.index("left_knee")]
    canvas.paint(capsule(knee, knee + 0.01, (6.0, 6.0), Material(np.zeros(3))), label=1 << 20)
    assert named(person.visible(canvas, 0)) == set(COCO.names) - {"left_knee"}
    assert silhouette(canvas, 0).sum() < area

    other, _ = standing(yaw=0)
    other.draw(canvas, 1)
    assert not person.visible(canvas, 0).any()
    assert other.visible(canvas, 1).all()


def test_joints_beyond_the_border_are_not_visible():
    person, canvas = standing(yaw=0, centre=(0.0, 62.0))
    person.draw(canvas, 0)
    outside = person.keypoints[:, 0] < -0.5
    assert outside.any()
    assert not person.visible(canvas, 0)[outside].any()


def test_drawn_pixels_are_the_labelled_ones():
    person, canvas = standing(yaw=30)
    before = canvas.image.copy()
    person.draw(canvas, 0)
    changed = np.abs(canvas.image - before).max(-1) > 0
    assert (changed | ~silhouette(canvas, 0)).mean() > 0.995
    assert changed.sum() < 1.6 * silhouette(canvas, 0).sum()
