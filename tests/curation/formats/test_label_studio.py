"""Label Studio's JSON: key points and rectangles of tasks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from annotated import key_point, label_studio_file, rectangle, region, rows, truth_of

from distilpose.skeleton import COCO_NAMES


def export(data, group):
    """Tasks of a sound set: joints belong to their rectangle by parent, by relation, or by lying in it."""
    tasks = {image["id"]: [] for image in data.images}
    for row in data.people:
        x, y, width, height = row["bbox"]
        box, regions = f"box{row['id']}", tasks[row["image_id"]]
        regions.append(rectangle(box, "person", x / 2.4, y / 1.6, width / 2.4, height / 1.6))
        for number, (x, y, _) in enumerate(np.array(row["keypoints"]).reshape(17, 3)):
            more = {"parentID": box} if group == "parent" else {}
            regions.append(key_point(COCO_NAMES[number], x / 2.4, y / 1.6, **more) | {"id": f"{box}_{number}"})
            if group == "relation":
                regions.append({"type": "relation", "from_id": f"{box}_{number}", "to_id": box})
    addresses = [
        "/data/upload/3/0a1b2c3d-{}",
        "/data/local-files/?d=photos/{}",
        "https://host/bucket/{}?x=1",
        "s3://bucket/{}",
    ]
    return [
        {
            "id": number,
            "data": {"image": addresses[number % 4].format(f"{number}.png")},
            "annotations": [{"was_cancelled": True, "result": [{}]}, {"result": result}, {"result": []}],
        }
        for number, result in tasks.items()
    ]


@pytest.mark.parametrize("group", ["parent", "relation", "inside"])
def test_label_studio(convert, sound, tmp_path, group):
    data = sound(images=6, persons=6 if group == "inside" else 120)
    (tmp_path / "export.json").write_text(json.dumps(export(data, group)))
    content, report = convert("label-studio", tmp_path / "export.json", data.folder)
    assert "skipped: 6 further annotations of a task, after its first" in report
    for (name, joints), (true_name, truth, box), row in zip(
        rows(content, 17), truth_of(data), content["annotations"], strict=True
    ):
        assert name == true_name
        np.testing.assert_allclose(joints, truth, atol=0.006)
        np.testing.assert_allclose(row["bbox"], box, atol=0.011)


def test_label_studio_with_a_skeleton_file(convert, sound, tmp_path):
    points = [key_point(name, x, 50) for name, x in (("tip", 10), ("base", 20), ("middle", 15), ("stray", 40))]
    source = label_studio_file(tmp_path / "a.json", ("x/1.png", points), ("9.png", []))
    entry = {"keypoints": ["base", "middle", "tip"], "skeleton": [[1, 2], [2, 3]], "OKS_sigmas": [0.1, 0.05, 0.02]}
    (tmp_path / "finger.json").write_text(json.dumps(entry))
    content, report = convert("label-studio", source, sound(images=1).folder, skeleton=tmp_path / "finger.json")
    assert content["annotations"][0]["keypoints"] == [48, 80, 2, 36, 80, 2, 24, 80, 2]
    assert content["categories"][0]["OKS_sigmas"] == [0.1, 0.05, 0.02]
    assert "skipped: 1 joints whose name is not in the skeleton" in report
    assert "skipped: 1 tasks of images that are missing (first: no '9.png' below --images)" in report


def one_task(path, regions):
    return label_studio_file(path, ("1.png", regions))


def test_empty_flip_pairs_mean_none(converted, sound, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"keypoints": ["left_a", "right_a"], "flip_pairs": []}))
    source = one_task(tmp_path / "a.json", [key_point("left_a"), key_point("right_a", 40)])
    content, _ = converted("label-studio", source, sound(images=1).folder, skeleton=tmp_path / "s.json")
    assert content["categories"][0]["flip_pairs"] == []


@pytest.mark.parametrize("parents", [{}, {"parentID": "b"}])
def test_rectangles_of_other_things_are_no_persons(converted, sound, tmp_path, parents):
    regions = [rectangle("p", "person", 10, 10, 60, 80), rectangle("b", "ball", 20, 20, 15, 15)]
    regions += [key_point("a", **parents), key_point("b", parentID="p")]
    source = label_studio_file(tmp_path / "a.json", ("/x/1.png", regions))
    content, report = converted("label-studio", source, sound(images=1).folder, category="person")
    (person,) = content["annotations"]
    np.testing.assert_allclose(person["bbox"], [24, 16, 144, 128], atol=0.011)
    assert person["num_keypoints"] == (1 if parents else 2)  # key points of the ball go with it
    assert f"skipped: {2 if parents else 1} rectangles of other labels, and their key points" in report


def test_percents_are_of_the_image_file(converted, sound, tmp_path):
    data = sound(images=1)
    source = one_task(tmp_path / "a.json", [key_point() | {"original_width": 2400, "original_height": 1600}])
    content, _ = converted("label-studio", source, data.folder)
    assert content["annotations"][0]["keypoints"] == [60, 40, 2]
    source = one_task(
        tmp_path / "b.json", [key_point(), key_point("b") | {"original_width": 1600, "original_height": 1600}]
    )
    content, report = converted("label-studio", source, data.folder)
    assert any("another shape" in line for line in report)
    assert content["annotations"][0]["num_keypoints"] == 1


def choice(number, *words):
    return region(number, "choices", {"x": 25, "y": 25, "choices": list(words)})


def test_choices_mark_hidden_key_points(converted, sound, tmp_path):
    words = {"a": "occluded", "b": "Not-visible", "c": "visible", "d": "not occluded", "e": "blurred", "f": "Hidden "}
    results = [key_point(name, 20 + n) for n, name in enumerate(words)]
    results += [choice(name, word) for name, word in words.items()] + [choice("image", "occluded")]
    content, report = converted("label-studio", one_task(tmp_path / "a.json", results), sound(images=1).folder)
    assert content["annotations"][0]["keypoints"][2::3] == [1, 1, 2, 2, 2, 1]
    assert "skipped: 2 choices that do not state whether a key point is hidden (first: 'blurred')" in report


def test_the_joints_of_coco_that_are_labelled(convert, sound, tmp_path):
    data = sound(images=2)
    results = [
        key_point("left_hip", 20),
        key_point("nose", 25),
        key_point("right_shoulder", 30),
        key_point("left_shoulder", 35),
    ]
    source = label_studio_file(tmp_path / "a.json", ("1.png", results[:3]), ("not here.png", results[1:]))
    content, report = convert("label-studio", source, data.folder)
    (category,) = content["categories"]  # left_shoulder is labelled on the other image only, which another split has
    assert category["keypoints"] == ["nose", "left_shoulder", "right_shoulder", "left_hip"]
    assert sorted(map(sorted, category["skeleton"])) == [[2, 3], [2, 4]]
    assert category["flip_pairs"] == [[1, 2]]
    assert category["OKS_sigmas"] == [0.026, 0.079, 0.079, 0.107]
    assert content["annotations"][0]["keypoints"] == [60, 40, 2, 0, 0, 0, 72, 40, 2, 48, 40, 2]
    assert any(line.startswith("4 of COCO's 17 joints are labelled") for line in report)


def test_an_empty_annotation_is_counted(converted, sound, tmp_path):
    source = label_studio_file(tmp_path / "a.json", ("1.png", [key_point()]), ("2.png", []))
    content, report = converted("label-studio", source, sound(images=2).folder)
    assert len(content["images"]) == 1
    assert "skipped: 1 tasks whose annotation has no key point and no rectangle to convert (first: '2.png')" in report
