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


def two_views(names, keys=("front", "side"), extra=None):
    """A task with two photographs; the joint a is drawn on the first and b on the second, both at other places."""
    first, second = names
    results = [key_point("a", 10, 10, to_name=first), key_point("b", 50, 60, to_name=second)]
    results += [rectangle("box", "person", 5, 5, 40, 40) | {"to_name": first}]
    data = {keys[0]: "/data/upload/1/1.png", keys[1]: "/data/upload/1/2.png", "note": "seen at 9.30", **(extra or {})}
    return {"data": data, "annotations": [{"result": results}]}


def joints_by_image(content):
    return {
        name: {
            joint: tuple(row[:2])
            for joint, row in zip(content["categories"][0]["keypoints"], joints, strict=True)
            if row[2]
        }
        for name, joints in rows(content, len(content["categories"][0]["keypoints"]))
    }


TRUTH = {"1.png": {"a": (24, 16)}, "2.png": {"b": (120, 96)}}


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("front", "side"), ("front", "side")),  # tags named as the keys
        (("side", "front"), ("side", "front")),
        (("front_image", "side_image"), ("front", "side")),
        (("imgFront", "imgSide"), ("front_url", "side_url")),
        (("img2", "img1"), ("image_2", "image_1")),
        (("main", "side"), ("front", "side")),  # the last tag belongs to the last key
    ],
)
def test_joints_lie_on_the_image_that_they_were_drawn_on(converted, sound, tmp_path, names, keys):
    (tmp_path / "a.json").write_text(json.dumps([two_views(names, keys)]))
    content, _ = converted("label-studio", tmp_path / "a.json", sound(images=2).folder)
    assert joints_by_image(content) == TRUTH


def test_tags_whose_image_the_export_does_not_state(converted, rejected, sound, tmp_path):
    folder = sound(images=2).folder
    (tmp_path / "a.json").write_text(json.dumps([two_views(("left_cam", "right_cam"))]))
    rejected("label-studio", tmp_path / "a.json", folder, "front, side", "'left_cam'", "--image-tag left_cam=KEY")
    rejected("label-studio", tmp_path / "a.json", folder, "NAME=KEY", image_tags=("left_cam",))
    tags = ("left_cam=front", "right_cam=side")
    content, report = converted("label-studio", tmp_path / "a.json", folder, image_tags=tags)
    assert joints_by_image(content) == TRUTH
    assert "Images of the tags: left_cam shows front, right_cam shows side" in report


def test_one_tag_beside_other_pictures(converted, sound, tmp_path):
    """Only one tag was drawn on: data.image is its picture, as before."""
    points = [key_point("a", 10, 10, to_name="photo")]
    task = {"data": {"thumbnail": "2.png", "image": "1.png"}, "annotations": [{"result": points}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    content, _ = converted("label-studio", tmp_path / "a.json", sound(images=2).folder)
    assert joints_by_image(content) == {"1.png": {"a": (24, 16)}}


def test_two_tags_of_one_picture(converted, sound, tmp_path):
    points = [key_point("a", 10, 10, to_name="overview"), key_point("b", 50, 60, to_name="zoom")]
    source = label_studio_file(tmp_path / "a.json", ("1.png", points))
    content, _ = converted("label-studio", source, sound(images=1).folder)
    assert joints_by_image(content) == {"1.png": {"a": (24, 16), "b": (120, 96)}}


def test_pages_of_a_list(converted, sound, tmp_path):
    """`valueList` shows several pages under one tag; a region states its page."""
    points = [key_point("a", 10, 10, to_name="p", item_index=0), key_point("b", 50, 60, to_name="p", item_index=1)]
    points += [key_point("c", 50, 60, to_name="p", item_index=7), key_point("d", 50, 60, to_name="p")]
    task = {"data": {"pages": ["x/1.png", "x/2.png"]}, "annotations": [{"result": points}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    content, report = converted("label-studio", tmp_path / "a.json", sound(images=2).folder)
    assert joints_by_image(content) == TRUTH
    assert "skipped: 2 regions of an image that their task does not have" in report


def test_the_ground_truth_among_several_annotations_is_used(converted, sound, tmp_path):
    """Reviewers mark it with a star; the first annotation may be a draft."""
    data, draft, starred = sound(), key_point("tip", 10, 50), key_point("tip", 40, 50)
    source = label_studio_file(tmp_path / "a.json", ("1.png", [draft]))
    (task,) = json.loads(source.read_text())
    task["annotations"] = [{"result": [draft]}, {"result": [starred], "ground_truth": True}]
    source.write_text(json.dumps([task]))
    content, report = converted("label-studio", source, data.folder)
    assert [row["keypoints"][0] for row in content["annotations"]] == [0.4 * 240]
    assert "skipped: 1 further annotations of a task, after its first" in report
