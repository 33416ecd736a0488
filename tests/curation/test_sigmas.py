"""Sigmas from two labellings with known errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distilpose.curation.sigmas import estimate_sigmas, format_sigmas
from distilpose.errors import DistilPoseError


def relabel(data, truth, sigmas, seed):
    """Labels that miss the truth as two people with these sigmas do."""
    draw = np.random.default_rng(seed)
    for person, places in zip(data.people, truth, strict=True):
        # sigma is the root mean square distance in two dimensions, per square root of the area
        error = draw.normal(0, 1, (17, 2)) * (sigmas * np.sqrt(person["area"]) / np.sqrt(2))[:, None]
        person["keypoints"] = np.c_[places + error, np.full(17, 2)].ravel().tolist()


def test_known_sigmas_are_recovered(sound):
    one, two = sound(images=400, persons=400), sound(images=1, persons=1, seed=1)
    truth = [np.array(person["keypoints"]).reshape(17, 3)[:, :2] for person in one.people]
    sigmas = np.linspace(0.02, 0.1, 17)
    relabel(one, truth, sigmas, 1)
    one.write()
    relabel(one, truth, sigmas, 2)
    one.content["annotations"] = one.people[::-1]  # in another order
    two.content = one.content
    names, estimates, counts = estimate_sigmas(one.file, two.write())
    np.testing.assert_allclose(estimates, sigmas, rtol=0.12)  # 400 pairs: 3.5 % a standard error
    assert (counts == 400).all()
    assert format_sigmas(names, estimates, counts).splitlines()[-1].startswith("data.skeleton.sigmas=[0.0")


def test_too_few_persons_give_no_sigma(sound):
    one = sound(persons=5)
    names, estimates, counts = estimate_sigmas(one.write(), one.file)
    assert np.isnan(estimates).all()
    assert "label more persons twice" in format_sigmas(names, estimates, counts)


def test_other_joints_or_persons_are_rejected(sound):
    one, two = sound(), sound(seed=1)
    two.category["keypoints"][0] = "snout"
    with pytest.raises(DistilPoseError, match="different joints"):
        estimate_sigmas(one.write(), two.write())
    two.category["keypoints"][0] = "nose"
    for image in two.images:
        image["file_name"] = "x" + image["file_name"]
    with pytest.raises(DistilPoseError, match="No person"):
        estimate_sigmas(one.file, two.write())


def test_images_of_one_name_in_two_folders_are_distinguished(sound):
    one, two = sound(images=2, persons=40), sound(images=2, persons=1, seed=1)
    one.images[0]["file_name"], one.images[1]["file_name"] = "a/1.png", "b/1.png"
    for person in one.people:
        person["image_id"] = 1
    two.content = json.loads(json.dumps(one.content))
    for person in two.people:
        person["image_id"] = 2
    with pytest.raises(DistilPoseError, match="No person"):
        estimate_sigmas(one.write(), two.write())
    for person in two.people:
        person["image_id"] = 1
    assert (estimate_sigmas(one.file, two.write())[2] == 40).all()


def test_folders_may_differ_if_base_names_are_unique(sound):
    one, two = sound(images=2, persons=40), sound(images=2, persons=1, seed=1)
    two.content = json.loads(json.dumps(one.content))
    one.images[0]["file_name"], two.images[0]["file_name"] = "here/1.png", "there/1.png"
    one.images[1]["file_name"], two.images[1]["file_name"] = "2.png", "there/2.png"
    assert (estimate_sigmas(one.write(), two.write())[2] == 40).all()


def test_a_person_is_matched_once(sound):
    one, two = sound(images=20, persons=20), sound(images=20, persons=20, seed=1)
    two.content["annotations"] = json.loads(json.dumps(one.people))
    for number, person in enumerate(list(one.people)):  # a second one beside each, whom nobody else labelled
        again = json.loads(json.dumps(person)) | {"id": 100 + number}
        again["keypoints"] = [value + 3 if k % 3 == 0 else value for k, value in enumerate(again["keypoints"])]
        one.people.append(again)
    _, sigmas, counts = estimate_sigmas(one.write(), two.write())
    assert (counts == 20).all()
    assert np.nanmax(sigmas) == 0


def test_images_of_another_size_are_left_out_and_counted(sound, caplog):
    """One labelling of photographs that were halved: its pixels are not those of the other."""
    one, two = sound(images=2, persons=40), sound(images=2, persons=1, seed=1)
    two.content = json.loads(json.dumps(one.content))
    two.images[0].update(width=120, height=80)
    on_first = sum(person["image_id"] == two.images[0]["id"] for person in two.people)
    assert 0 < on_first < 40
    assert (estimate_sigmas(one.write(), two.write())[2] == 40 - on_first).all()
    assert "1 images have another size" in caplog.text
    caplog.clear()
    size = one.images[0]
    two.images[0].update(width=size["width"] + 1, height=size["height"])  # a pixel is rounding
    assert (estimate_sigmas(one.file, two.write())[2] == 40).all()
    assert "another size" not in caplog.text
