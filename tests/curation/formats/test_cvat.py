"""CVAT for images: skeletons, boxes, points and lists of points."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from annotated import CVAT_BOX, CVAT_SKELETON, cvat_file, rows, truth_of
from PIL import Image

from distilpose.skeleton import COCO, COCO_NAMES

SVG = "".join(
    f'<line x1="1" data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}"></line>' for a, b in COCO.limbs
)


def export(data, kind):
    """A sound set, with skeletons or with lists of points."""
    labels = "".join(
        f"<label><name>{name}</name><type>points</type><parent>person</parent></label>" for name in COCO_NAMES
    )
    escaped = SVG.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    person = f"<label><name>person</name><type>skeleton</type><svg>{escaped}</svg></label>"
    head = f"<meta><job><labels>{person}{labels}</labels></job></meta>"
    shapes = {image["id"]: [] for image in data.images}
    for row in data.people:
        points = np.array(row["keypoints"]).reshape(17, 3)
        if kind == "skeleton":
            inner = "".join(
                f'<points label="{name}" occluded="{int(v == 1)}" outside="{int(v == 0)}" points="{x:.2f},{y:.2f}"></points>'
                for name, (x, y, v) in zip(COCO_NAMES, points, strict=True)
            )
            shapes[row["image_id"]].append(f'<skeleton label="person" z_order="0">{inner}</skeleton>')
        else:
            text = ";".join(f"{x:.2f},{y:.2f}" for x, y, _ in points)
            shapes[row["image_id"]].append(f'<points label="person" occluded="0" points="{text}"></points>')
    images = "".join(
        f'<image id="{image["id"]}" name={quoteattr(image["file_name"])} width="240" height="160">'
        f"{''.join(shapes[image['id']])}</image>"
        for image in data.images
    )
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{head}{images}</annotations>'


@pytest.mark.parametrize("kind", ["skeleton", "points"])
def test_cvat(convert, sound, tmp_path, kind):
    data = sound()
    if kind == "skeleton":
        data.people[4]["keypoints"][2], data.people[4]["keypoints"][3:6] = 1, [0, 0, 0]
    (tmp_path / "annotations.xml").write_text(export(data, kind))
    content, _ = convert("cvat", tmp_path / "annotations.xml", data.folder)
    for (name, joints), (true_name, truth, _) in zip(rows(content, 17), truth_of(data), strict=True):
        assert name == true_name
        np.testing.assert_allclose(joints, truth, atol=0.006)
    category = content["categories"][0]
    assert category["keypoints"] == list(COCO_NAMES)
    assert category["skeleton"] == [[a + 1, b + 1] for a, b in COCO.limbs]


def test_cvat_with_boxes_around_skeletons_and_loose_points(convert, sound, tmp_path):
    data = sound(images=2)
    (tmp_path / "annotations.xml").write_text(
        '<annotations><image name="1.png">'
        '<skeleton label="person"><points label="nose" outside="0" points="50,40"/></skeleton>'
        '<box label="person" xtl="30" ytl="20" xbr="90" ybr="120"/><polygon points="1,2;3,4"/></image>'
        '<image name="2.png"><box label="person" xtl="10" ytl="10" xbr="60" ybr="60"/>'
        '<box label="person" xtl="100" ytl="10" xbr="160" ybr="60"/>'
        '<points label="nose" points="20,20"/><points label="nose" points="120,20"/><points label="nose" points="200,99"/>'
        "</image></annotations>"
    )
    content, report = convert("cvat", tmp_path / "annotations.xml", data.folder)
    persons = [(row["bbox"], row["keypoints"][:3]) for row in content["annotations"]]
    assert persons == [
        ([30, 20, 60, 100], [50, 40, 2]),
        ([10, 10, 50, 50], [20, 20, 2]),
        ([100, 10, 60, 50], [120, 20, 2]),
    ]
    assert "skipped: 1 shapes of kind polygon" in report
    assert "skipped: 1 joints without a person (no group, no box around them)" in report


def test_a_joint_may_lie_outside_the_box(convert, sound, tmp_path):
    """The box around all of another skeleton is not taken from it, though it is smaller and holds most of the first."""
    data = sound(images=1)
    places = {"near": [(50, 50), (60, 60), (70, 70), (99, 60)], "inner": [(50, 50), (52, 52), (54, 54), (56, 56)]}
    skeletons = "".join(
        '<skeleton label="person">'
        + "".join(f'<points label="{name}" points="{x},{y}"/>' for name, (x, y) in zip("abcd", joints, strict=True))
        + "</skeleton>"
        for joints in places.values()
    )
    boxes = (
        '<box label="box" xtl="45" ytl="45" xbr="75" ybr="75"/><box label="box" xtl="40" ytl="40" xbr="80" ybr="80"/>'
    )
    (tmp_path / "a.xml").write_text(f'<annotations><image name="1.png">{boxes}{skeletons}</image></annotations>')
    content, _ = convert("cvat", tmp_path / "a.xml", data.folder)
    persons = {tuple(row["bbox"]): row["keypoints"][9:11] for row in content["annotations"]}
    assert persons == {(45, 45, 30, 30): [56, 56], (40, 40, 40, 40): [99, 60]}


def hand(*names):
    """A skeleton labelled hand with these joints."""
    points = (f'<points label="{name}" points="{30 + 20 * n},{40 + 10 * n}"/>' for n, name in enumerate(names))
    return f'<skeleton label="hand">{"".join(points)}</skeleton>'


def labels_of(names, svg=""):
    """Labels at the head of a file: joints before the skeleton they belong to."""
    joints = "".join(f"<label><name>{name}</name><type>points</type><parent>hand</parent></label>" for name in names)
    return f"{joints}<label><name>hand</name><type>skeleton</type><svg>{svg}</svg></label>"


def test_one_stray_shape_does_not_displace_skeletons(converted, sound, tmp_path):
    source = cvat_file(tmp_path / "a.xml", hand("a", "b", "c") + '<points label="x" points="1,1;2,2"/>')
    content, report = converted("cvat", source, sound(images=1).folder)
    assert content["categories"][0]["keypoints"] == ["a", "b", "c"]
    assert len(content["annotations"]) == 1
    assert "skipped: 1 lists of points beside skeletons or single points" in report


def test_images_that_were_resized_are_skipped(converted, sound, tmp_path):
    more = f'<image name="2.png" width="480" height="320">{hand("a", "b", "c")}</image>'
    source = cvat_file(tmp_path / "a.xml", hand("a", "b", "c"), more=more)
    content, report = converted("cvat", source, sound(images=2).folder)
    assert [image["file_name"] for image in content["images"]] == ["1.png"]
    assert "skipped: 1 persons of images whose file has another size than the source states" in report


def test_sizes_of_images_turned_by_exif(converted, rejected, sound, tmp_path):
    data = sound(images=1)
    picture, exif = Image.open(data.folder / "1.png").convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    picture.save(data.folder / "1.jpg", exif=exif)
    (data.folder / "1.png").unlink()
    (data.folder / "1.jpg").rename(data.folder / "1.png")
    skeleton = CVAT_SKELETON.format("p")
    converted("cvat", cvat_file(tmp_path / "a.xml", skeleton, size='width="160" height="240"'), data.folder)
    source = cvat_file(tmp_path / "a.xml", skeleton, size='width="240" height="160"')
    rejected("cvat", source, data.folder, "another size")


def test_lists_of_points_are_chosen_by_their_label(converted, rejected, sound, tmp_path):
    shapes = '<points label="person" points="20,20;60,60;90,40"/><points label="x" points="1,1;2,2"/>'
    source = cvat_file(tmp_path / "a.xml", shapes)
    content, report = converted("cvat", source, sound(images=1).folder, category="person")
    assert content["annotations"][0]["keypoints"] == [20, 20, 2, 60, 60, 2, 90, 40, 2]
    assert any("other labels" in line for line in report)
    rejected("cvat", source, sound(images=1, seed=1).folder, "2 to 3 points", "'person', 'x'", "--category")


def test_skipped_boxes_and_skeletons_are_counted(converted, sound, tmp_path):
    shapes = (
        CVAT_BOX.format("p", ' group_id="1"') * 2 + CVAT_BOX.format("p", ' rotation="30"') + CVAT_SKELETON.format("dog")
    )
    shapes += '<points label="a" group_id="1" points="40,40"/>'
    content, report = converted("cvat", cvat_file(tmp_path / "a.xml", shapes), sound(images=1).folder, category="p")
    assert len(content["annotations"]) == 1
    for reason in ("1 further boxes of a group", "1 turned boxes", "1 skeletons and lists of points of other"):
        assert any(f"skipped: {reason}" in line for line in report), report


def test_limbs_are_between_the_joints_that_the_drawing_names(converted, sound, tmp_path):
    nodes = "".join(
        f'&lt;circle data-node-id="{n}" data-label-name="{name}"/&gt;' for n, name in ((1, "b"), (2, "c"), (3, "a"))
    )
    svg = f'{nodes}&lt;line data-node-from="1" data-node-to="2"/&gt;'
    source = cvat_file(tmp_path / "a.xml", hand("a", "b", "c"), labels_of("bca", svg))
    category = converted("cvat", source, sound(images=1).folder)[0]["categories"][0]
    assert category["keypoints"] == ["b", "c", "a"]
    assert category["skeleton"] == [[1, 2]]


def test_a_subset_is_converted_by_itself(converted, rejected, sound, tmp_path):
    data, skeleton = sound(images=2), CVAT_SKELETON.format("hand")
    more = f'<image name="2.png" subset="val" width="240" height="160">{skeleton}</image>'
    size = 'subset="train" width="240" height="160"'
    source = cvat_file(tmp_path / "subsets.xml", skeleton, size=size, more=more)
    for name, part in (("1.png", "train"), ("2.png", "val")):
        content, _ = converted("cvat", source, data.folder, split=part)
        assert [image["file_name"] for image in content["images"]] == [name]
    rejected("cvat", source, data.folder, "--split 'vale'", "'train', 'val'", split="vale")
    source = cvat_file(tmp_path / "one.xml", skeleton)
    rejected("cvat", source, data.folder, "--split 'train'", "leave the option out", split="train")


def test_coco_joints_that_nobody_labelled_are_dropped(converted, sound, tmp_path):
    shapes = '<points label="left_hip" points="20,30"/><points label="nose" points="40,50"/>' + CVAT_BOX.format(
        "person", ""
    )
    content, report = converted("cvat", cvat_file(tmp_path / "points.xml", shapes), sound(images=1).folder)
    assert content["categories"][0]["keypoints"] == ["nose", "left_hip"]
    assert any("2 of COCO's 17 joints" in line for line in report)
    assert rows(content, 2)[0][1].tolist() == [[40, 50, 2], [20, 30, 2]]


def project(path, *images, tasks=(("7", "cam1"), ("9", "cam2"))):
    """A project's export: its tasks, and (name, task, subset, shapes) of each image."""
    listed = "".join(f"<task><id>{number}</id><name>{name}</name></task>" for number, name in tasks)
    entries = "".join(
        f'<image id="{place}" name="{name}" subset="{subset}" task_id="{task}" width="240" height="160">{shapes}</image>'
        for place, (name, task, subset, shapes) in enumerate(images)
    )
    path.write_text(f"<annotations><meta><project><tasks>{listed}</tasks></project></meta>{entries}</annotations>")
    return path


def point(x):
    return f'<points label="a" points="{x},40"/>'


@pytest.mark.parametrize(
    "folders", [("cam1", "cam2"), ("Train", "Test"), ("task_7", "task_9"), ("images/Train", "images/Test")]
)
@pytest.mark.parametrize("shape", ["point", "list"])
def test_images_of_one_name_in_two_tasks(converted, sound, tmp_path, folders, shape):
    """The joints of each task lie on the photograph of its own folder."""
    folder, photographs = sound(images=1).folder, tmp_path / "photographs"
    for name in folders:
        (photographs / name).mkdir(parents=True)
        (photographs / name / "1.png").write_bytes((folder / "1.png").read_bytes())
    shapes = (
        [point(20), point(120)]
        if shape == "point"
        else [f'<points label="p" points="{x},40;{x},60"/>' for x in (20, 120)]
    )
    source = project(tmp_path / "a.xml", ("1.png", "7", "Train", shapes[0]), ("1.png", "9", "Test", shapes[1]))
    content, _ = converted("cvat", source, photographs)
    joints = 1 if shape == "point" else 2
    assert {name: values[0, 0] for name, values in rows(content, joints)} == {
        f"{folders[0]}/1.png": 20,
        f"{folders[1]}/1.png": 120,
    }


def test_images_of_one_name_whose_task_is_unknown(converted, sound, tmp_path):
    """One photograph 1.png for two tasks: the labels of neither are taken. 2.png is in one task only."""
    data = sound(images=2)
    source = project(
        tmp_path / "a.xml", ("1.png", "7", "", point(20)), ("1.png", "9", "", point(120)), ("2.png", "9", "", point(60))
    )
    content, report = converted("cvat", source, data.folder)
    assert [(name, values[0, 0]) for name, values in rows(content, 1)] == [("2.png", 60)]
    assert any("2 images whose name several tasks have (first: '1.png' of task 7)" in line for line in report)


def test_paths_in_names_decide(converted, sound, tmp_path):
    folder, photographs = sound(images=1).folder, tmp_path / "photographs"
    for name in ("cam1", "cam2"):
        (photographs / name).mkdir(parents=True)
        (photographs / name / "1.png").write_bytes((folder / "1.png").read_bytes())
    source = project(tmp_path / "a.xml", ("cam2/1.png", "7", "", point(20)), ("cam1/1.png", "7", "", point(120)))
    content, _ = converted("cvat", source, photographs)
    assert {name: values[0, 0] for name, values in rows(content, 1)} == {"cam2/1.png": 20, "cam1/1.png": 120}


@pytest.mark.parametrize(
    ("size", "fact"),
    [("480 320", "stated 480 x 320, 1/2"), ("160 240", "sides exchanged"), ("240 120", "stated 240 x 120.")],
)
def test_another_size_is_named(converted, sound, tmp_path, size, fact):
    width, height = size.split()
    more = f'<image name="2.png" width="{width}" height="{height}">{hand("a", "b", "c")}</image>'
    source = cvat_file(tmp_path / "a.xml", hand("a", "b", "c"), more=more)
    _, report = converted("cvat", source, sound(images=2).folder)
    (line,) = (line for line in report if line.startswith("1 images have another size"))
    assert "'2.png': 240 x 160" in line
    assert fact in line
