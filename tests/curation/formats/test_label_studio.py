"""Label Studio's JSON: key points and rectangles of tasks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from annotated import rows, truth_of

from distilpose.curation.formats import convert_set
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO_NAMES

SIZE = {"original_width": 240, "original_height": 160}


def export(data, group):
    """Tasks of a sound set: joints belong to their rectangle by parent, by relation, or by lying in it."""
    tasks = {image["id"]: [] for image in data.images}
    for row in data.people:
        size = {"original_width": 240, "original_height": 160, "image_rotation": 0}
        x, y, width, height = row["bbox"]
        value = {"x": x / 2.4, "y": y / 1.6, "width": width / 2.4, "height": height / 1.6, "rotation": 0}
        box = f"box{row['id']}"
        tasks[row["image_id"]].append(
            {"id": box, "type": "rectanglelabels", "value": value | {"rectanglelabels": ["person"]}, **size}
        )
        for number, (x, y, _) in enumerate(np.array(row["keypoints"]).reshape(17, 3)):
            value = {"x": x / 2.4, "y": y / 1.6, "width": 0.3, "keypointlabels": [COCO_NAMES[number]]}
            region = {"id": f"{box}_{number}", "type": "keypointlabels", "value": value, **size}
            tasks[row["image_id"]].append(region | ({"parentID": box} if group == "parent" else {}))
            if group == "relation":
                tasks[row["image_id"]].append({"type": "relation", "from_id": region["id"], "to_id": box})
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
    content, told = convert("label-studio", tmp_path / "export.json", data.folder)
    assert "left out: 6 further annotations of a task, after its first" in told
    for (name, joints), (true_name, truth, box), row in zip(
        rows(content, 17), truth_of(data), content["annotations"], strict=True
    ):
        assert name == true_name
        np.testing.assert_allclose(joints, truth, atol=0.006)
        np.testing.assert_allclose(row["bbox"], box, atol=0.011)


def point(name="a", x=25.0, y=25.0, **more):
    return {"id": name, "type": "keypointlabels", "value": {"x": x, "y": y, "keypointlabels": [name]}, **SIZE, **more}


def rectangle(number, label, x, y, width, height):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return {"id": number, "type": "rectanglelabels", "value": value, **SIZE}


def tasks(path, results):
    path.write_text(json.dumps([{"data": {"image": "1.png"}, "annotations": [{"result": results}]}]))
    return path


def test_label_studio_with_a_skeleton_file(convert, sound, tmp_path):
    data = sound(images=1)
    size = {"original_width": 240, "original_height": 160}
    points = [
        {"id": name, "type": "keypointlabels", "value": {"x": x, "y": 50, "keypointlabels": [name]}, **size}
        for name, x in (("tip", 10), ("base", 20), ("middle", 15), ("stray", 40))
    ]
    tasks = [{"data": {"image": "x/1.png"}, "annotations": [{"result": points}]}, {"data": {"image": "9.png"}}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    entry = {"keypoints": ["base", "middle", "tip"], "skeleton": [[1, 2], [2, 3]], "OKS_sigmas": [0.1, 0.05, 0.02]}
    (tmp_path / "finger.json").write_text(json.dumps(entry))
    content, told = convert("label-studio", tmp_path / "export.json", data.folder, skeleton=tmp_path / "finger.json")
    assert content["annotations"][0]["keypoints"] == [48, 80, 2, 36, 80, 2, 24, 80, 2]
    assert content["categories"][0]["OKS_sigmas"] == [0.1, 0.05, 0.02]
    assert "left out: 1 joints whose name is not in the skeleton" in told
    assert "left out: 1 tasks of images that are missing (first: no '9.png' below --images)" in told


def test_no_pairs_are_what_was_asked_for(converted, sound, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"keypoints": ["left_a", "right_a"], "flip_pairs": []}))
    source = tasks(tmp_path / "a.json", [point("left_a"), point("right_a", 40)])
    content, _ = converted("label-studio", source, sound(images=1).folder, skeleton=tmp_path / "s.json")
    assert content["categories"][0]["flip_pairs"] == []


def test_rectangles_of_other_things_are_no_persons(converted, sound, tmp_path):
    data = sound(images=1)
    size = {"original_width": 240, "original_height": 160, "image_rotation": 0}
    box = {"x": 10, "y": 10, "width": 60, "height": 80, "rotation": 0}
    ball = {"x": 20, "y": 20, "width": 15, "height": 15, "rotation": 0}
    result = [
        {"id": "p", "type": "rectanglelabels", "value": box | {"rectanglelabels": ["person"]}, **size},
        {"id": "b", "type": "rectanglelabels", "value": ball | {"rectanglelabels": ["ball"]}, **size},
    ]
    result += [
        {
            "id": name,
            "type": "keypointlabels",
            "value": {"x": 25 + n, "y": 25, "width": 1, "keypointlabels": [name]},
            **size,
        }
        for n, name in enumerate(COCO_NAMES[:3])
    ]
    (tmp_path / "a.json").write_text(
        json.dumps([{"id": 1, "data": {"image": "/x/1.png"}, "annotations": [{"result": result}]}])
    )
    content, _ = converted("label-studio", tmp_path / "a.json", data.folder, category="person")
    (person,) = content["annotations"]
    np.testing.assert_allclose(person["bbox"], [24, 16, 144, 128], atol=0.011)
    assert person["num_keypoints"] == 3


def test_key_points_of_other_rectangles_go_with_them(converted, sound, tmp_path):
    results = [rectangle("p", "person", 10, 10, 60, 80), rectangle("b", "ball", 20, 20, 15, 15)]
    results += [point("a", parentID="b"), point("b", parentID="p")]
    content, told = converted(
        "label-studio", tasks(tmp_path / "a.json", results), sound(images=1).folder, category="person"
    )
    (person,) = content["annotations"]
    assert person["num_keypoints"] == 1
    assert any("rectangles of other labels" in line for line in told)


def test_percents_count_of_the_file_that_is_there(converted, sound, tmp_path):
    data = sound(images=1)
    source = tasks(tmp_path / "a.json", [point() | {"original_width": 2400, "original_height": 1600}])
    content, _ = converted("label-studio", source, data.folder)
    assert content["annotations"][0]["keypoints"] == [60, 40, 2]
    source = tasks(tmp_path / "b.json", [point(), point("b") | {"original_width": 1600, "original_height": 1600}])
    content, told = converted("label-studio", source, data.folder)
    assert any("another shape" in line for line in told)
    assert content["annotations"][0]["num_keypoints"] == 1


def test_an_address_that_is_none(sound, tmp_path):
    content = [{"data": {"image": "http://[x/a.jpg"}, "annotations": [{"result": [point()]}]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DistilPoseError):
        convert_set("label-studio", tmp_path / "a.json", sound(images=1).folder, tmp_path / "out.json")


def choice(number, *words):
    return {"id": number, "type": "choices", "value": {"x": 25, "y": 25, "choices": list(words)}, **SIZE}


def test_a_choice_of_a_key_point_says_that_it_is_hidden(converted, sound, tmp_path):
    words = {"a": "occluded", "b": "Not-visible", "c": "visible", "d": "not occluded", "e": "blurred", "f": "Hidden "}
    results = [point(name, 20 + n) for n, name in enumerate(words)]
    results += [choice(name, word) for name, word in words.items()] + [choice("image", "occluded")]
    content, told = converted("label-studio", tasks(tmp_path / "a.json", results), sound(images=1).folder)
    assert content["annotations"][0]["keypoints"][2::3] == [1, 1, 2, 2, 2, 1]
    assert "left out: 2 choices that do not say of a key point whether it is hidden (first: 'blurred')" in told


def test_the_joints_of_coco_that_are_labelled(convert, sound, tmp_path):
    data = sound(images=2)
    results = [point("left_hip", 20), point("nose", 25), point("right_shoulder", 30), point("left_shoulder", 35)]
    content = [
        {"data": {"image": name}, "annotations": [{"result": results[start : start + 3]}]}
        for name, start in (("1.png", 0), ("not here.png", 1))
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    content, told = convert("label-studio", tmp_path / "a.json", data.folder)
    (category,) = content["categories"]  # left_shoulder is labelled on the other image only, which another split has
    assert category["keypoints"] == ["nose", "left_shoulder", "right_shoulder", "left_hip"]
    assert sorted(map(sorted, category["skeleton"])) == [[2, 3], [2, 4]]
    assert category["flip_pairs"] == [[1, 2]]
    assert category["OKS_sigmas"] == [0.026, 0.079, 0.079, 0.107]
    assert content["annotations"][0]["keypoints"] == [60, 40, 2, 0, 0, 0, 72, 40, 2, 48, 40, 2]
    assert any(line.startswith("4 of COCO's 17 joints are labelled") for line in told)


def test_an_empty_annotation_is_counted(converted, sound, tmp_path):
    content = json.loads(tasks(tmp_path / "a.json", [point()]).read_text())
    content.append({"data": {"image": "2.png"}, "annotations": [{"result": []}]})
    (tmp_path / "a.json").write_text(json.dumps(content))
    content, told = converted("label-studio", tmp_path / "a.json", sound(images=2).folder)
    assert len(content["images"]) == 1
    assert "left out: 1 tasks whose annotation has no key point and no rectangle to take (first: '2.png')" in told
