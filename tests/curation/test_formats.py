"""Files of each format with known truth, converted: the numbers are compared, and the result passes the check and loads."""

from __future__ import annotations

import json
import stat
import zipfile
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from scipy.io import savemat

from distilpose.curation.checking import check_sets
from distilpose.curation.formats import convert_set
from distilpose.curation.formats.lsp import NAMES as LSP
from distilpose.curation.formats.mpii import NAMES as MPII
from distilpose.data import CocoKeypoints
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO, COCO_NAMES


@pytest.fixture
def convert(tmp_path):
    """Converts, checks the result as a training would and by `check`, and returns the content and what was told."""

    def call(form, source, images, **options):
        output = tmp_path / f"converted_{len(list(tmp_path.glob('converted_*')))}.json"
        told = convert_set(form, source, images, output, **options)
        findings = check_sets([(output, images)])
        assert findings.codes("error") == set(), findings.ordered()
        content = json.loads(output.read_text())
        loaded = CocoKeypoints(output, images)
        assert len(loaded) == sum(row["num_keypoints"] > 0 for row in content["annotations"])
        assert [list(pair) for pair in loaded.skeleton.flip_pairs] == content["categories"][0]["flip_pairs"]
        assert list(loaded.skeleton.sigmas) == content["categories"][0]["OKS_sigmas"]
        return content, told

    return call


def rows(content, joints):
    """Image name and (K, 3) joints of each person."""
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return [(names[row["image_id"]], np.array(row["keypoints"]).reshape(joints, 3)) for row in content["annotations"]]


def truth_of(data, order=range(17)):
    """Image name, (K, 3) joints and box of each person of a sound set, by image and id as they are written."""
    people = sorted(data.people, key=lambda row: (f"{row['image_id']}.png", row["id"]))
    order = list(order)
    return [
        (f"{row['image_id']}.png", np.array(row["keypoints"]).reshape(17, 3)[order], np.array(row["bbox"]))
        for row in people
    ]


def lsp_images(data, count):
    for number in range(1, count + 1):
        (data.folder / f"{number}.png").rename(data.folder / f"im{number:04d}.png")


@pytest.mark.parametrize("extended", [False, True])
def test_leeds_sports(convert, sound, tmp_path, extended):
    data = sound(images=5)
    lsp_images(data, 5)
    draw = np.random.default_rng(0)
    points = draw.uniform(20, 140, (6, 14, 2)).round(2)  # a sixth person without an image
    flags = draw.random((6, 14)) < 0.3
    table = np.concatenate([points, flags[..., None]], axis=2)
    savemat(tmp_path / "joints.mat", {"joints": table.transpose(1, 2, 0) if extended else table.transpose(2, 1, 0)})
    content, told = convert("lsp", tmp_path / "joints.mat", data.folder)
    assert "left out: 1 persons of images that are missing" in told
    for number, (name, joints) in enumerate(rows(content, 14)):
        assert name == f"im{number + 1:04d}.png"
        if extended:  # the flag says visible
            np.testing.assert_array_equal(joints[:, 2], np.where(flags[number], 2, 0))
            np.testing.assert_array_equal(joints[flags[number], :2], points[number][flags[number]])
        else:  # the flag says hidden
            np.testing.assert_array_equal(joints[:, 2], np.where(flags[number], 1, 2))
            np.testing.assert_array_equal(joints[:, :2], points[number])
    category = content["categories"][0]
    assert category["keypoints"] == list(LSP)
    assert [0, 5] in category["flip_pairs"]  # ankles


def struct(**fields):
    """A 1 x 1 structure."""
    kind = [(name, object) for name in fields]
    value = np.empty((1, 1), dtype=kind)
    for name, content in fields.items():
        value[0, 0][name] = content
    return value


def test_mpii_release(convert, sound, tmp_path):
    data = sound(images=3)
    draw = np.random.default_rng(0)
    places = draw.uniform(20, 140, (2, 16, 2)).round(2)
    seen = [1, "0", 1, 0, "1", 1, 1, 1, None, None, 1, 1, 1, 1, 1, 0]
    people = []
    for person in range(2):
        points = [
            struct(x=float(x), y=float(y), id=number, is_visible=np.zeros((0, 0)) if flag is None else flag)
            for number, ((x, y), flag) in enumerate(zip(places[person], seen, strict=True))
            if not (person == 1 and number == 4)
        ]
        row = {"annopoints": struct(point=np.concatenate(points[::-1], axis=1))}  # any order: the id counts
        people.append(struct(x1=30.0, y1=10.0, x2=60.0, y2=50.0, **row))
    entries = [
        struct(image=struct(name="1.png"), annorect=np.concatenate(people, axis=1)),
        struct(
            image=struct(name="2.png"), annorect=struct(x1=1.0, y1=1.0, x2=9.0, y2=9.0, annopoints=np.zeros((0, 0)))
        ),
        struct(image=struct(name="3.png"), annorect=np.zeros((0, 0))),
    ]
    release = struct(annolist=np.concatenate(entries, axis=1), img_train=np.array([[1, 0, 0]]))
    savemat(tmp_path / "mpii.mat", {"RELEASE": release})
    content, told = convert("mpii", tmp_path / "mpii.mat", data.folder)
    assert any("1 persons without joints (test images" in line for line in told)
    assert len(content["annotations"]) == 2
    flags = np.array([1 if str(flag) == "0" else 2 for flag in seen])
    for person, (name, joints) in enumerate(rows(content, 16)):
        given = np.arange(16) != 4 if person == 1 else np.ones(16, dtype=bool)
        assert name == "1.png"
        np.testing.assert_allclose(joints[given, :2], places[person][given] - 1, atol=0.006)  # MATLAB counts from 1
        np.testing.assert_array_equal(joints[given, 2], flags[given])
        assert (joints[~given] == 0).all()
        x, y, width, height = content["annotations"][person]["bbox"]
        assert max(x - 29, y - 9, 59 - x - width, 49 - y - height) <= 0  # the head's box is inside
    assert content["categories"][0]["keypoints"] == list(MPII)


def test_mpii_json(convert, sound, tmp_path):
    data = sound(images=2)
    places = np.random.default_rng(0).uniform(20, 140, (16, 2)).round(2)
    visible = [1] * 14 + [0, 0]
    people = [
        {"image": "2.png", "joints": places.tolist(), "joints_vis": visible, "center": [80, 80], "scale": 0.7},
        {"image": "1.png", "center": [80, 80], "scale": 0.7},
    ]
    (tmp_path / "train.json").write_text(json.dumps(people))
    content, told = convert("mpii", tmp_path / "train.json", data.folder)
    ((name, joints),) = rows(content, 16)
    assert name == "2.png"
    np.testing.assert_allclose(joints[:14, :2], places[:14] - 1, atol=0.006)
    assert joints[:, 2].tolist() == [2] * 14 + [0, 0]
    assert any(line.startswith("left out: 1 persons without 16") for line in told)


def test_crowdpose(convert, sound, tmp_path):
    data = sound()
    names = [
        f"{side}_{part}"
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ]
    names += ["head", "neck"]
    data.category.update(keypoints=names, skeleton=[[1, 3], [13, 14]])
    order = [*range(5, 17), 0, 1]
    for person in data.people:
        person["keypoints"] = np.array(person["keypoints"]).reshape(17, 3)[order].ravel().tolist()
        person["num_keypoints"] = 14
        del person["area"]
    data.people[7]["image_id"] = 99
    content, told = convert("crowdpose", data.write(), data.folder)
    assert any("1 persons of images that are not in the file" in line for line in told)
    by_key = {(f"{row['image_id']}.png", tuple(row["keypoints"])): row["bbox"] for row in data.people if row["id"] != 8}
    names_of = {image["id"]: image["file_name"] for image in content["images"]}
    assert {
        (names_of[row["image_id"]], tuple(row["keypoints"])): row["bbox"] for row in content["annotations"]
    } == by_key
    for row in content["annotations"]:
        assert row["area"] == pytest.approx(0.53 * row["bbox"][2] * row["bbox"][3], abs=0.01)


def yolo(data, folder, numbers=3, extra="", layout="labels/train"):
    (folder / layout).mkdir(parents=True)
    lines = {}
    for row in data.people:
        x, y, width, height = row["bbox"]
        points = np.array(row["keypoints"]).reshape(17, 3)[:, :numbers] / (
            [240, 160, 1] if numbers == 3 else [240, 160]
        )
        words = [0, (x + width / 2) / 240, (y + height / 2) / 160, width / 240, height / 160, *points.ravel()]
        lines.setdefault(row["image_id"], []).append(" ".join(f"{word:.7g}" for word in words))
    for number, text in lines.items():
        (folder / layout / f"{number}.txt").write_text("\n".join(text) + extra)
    flip = COCO.flip_order
    (folder / "data.yaml").write_text(
        f"train: images/train\nkpt_shape: [17, {numbers}]\nflip_idx: {flip}\nnames:\n  0: person\n"
    )
    return folder


@pytest.mark.parametrize("numbers", [2, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_yolo_pose(convert, sound, tmp_path, numbers, packed):
    data = sound()
    data.people[4]["keypoints"][:3] = [0, 0, 0]
    folder = yolo(data, tmp_path / "yolo", numbers, extra="\n0 0.5 0.5\n1 " + " ".join(["0.5"] * (4 + 17 * numbers)))
    source = folder
    if packed:
        source = tmp_path / "yolo.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in folder.rglob("*.*"):
                archive.write(path, path.relative_to(folder))
    content, told = convert("yolo-pose", source, data.folder, split="train")
    assert any(f"6 lines without {5 + 17 * numbers} numbers" in line for line in told)
    assert any("6 objects of other classes" in line for line in told)
    for (name, joints), (true_name, truth, box), row in zip(
        rows(content, 17), truth_of(data), content["annotations"], strict=True
    ):
        assert name == true_name
        np.testing.assert_allclose(joints, truth, atol=0.011)
        np.testing.assert_allclose(row["bbox"], box, atol=0.011)
    assert content["categories"][0]["keypoints"] == list(COCO_NAMES)


def test_yolo_pose_with_its_own_joints(convert, sound, tmp_path):
    """Nothing but data.yaml says what the joints are: no code is needed for a new skeleton."""
    data = sound(images=2)
    (tmp_path / "hands").mkdir()
    (tmp_path / "hands/1.txt").write_text("0 0.5 0.5 0.4 0.5 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n")
    settings = "kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\nnames: [hand]\n"
    (tmp_path / "hands/data.yaml").write_text(settings)
    content, told = convert("yolo-pose", tmp_path / "hands", data.folder)
    assert content["categories"][0]["keypoints"] == ["joint_0", "joint_1", "joint_2"]
    assert content["categories"][0]["flip_pairs"] == [[0, 1]]
    assert content["annotations"][0]["keypoints"] == [96, 64, 2, 144, 64, 1, 0, 0, 0]
    assert any("No OKS sigma is known for 3 of 3 joints" in line for line in told)
    (tmp_path / "hands/data.yaml").write_text(settings + "kpt_names: {0: [left tip, right tip, palm]}\n")
    content, _ = convert("yolo-pose", tmp_path / "hands", data.folder)
    assert content["categories"][0]["keypoints"] == ["left tip", "right tip", "palm"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("names: [person]", "no kpt_shape"),
        ("kpt_shape: [17, 4]", "no kpt_shape"),
        ("kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]\nnames: [hand]", "in pairs"),
        ("kpt_shape: [3, 3]\nflip_idx: [0, 1]\nnames: [hand]", "each of 0..2"),
        ("kpt_shape: [3, 3]\nnames: [cat, dog]", "choose one by --category"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
        ("- a", "holds no settings"),
    ],
)
def test_bad_yolo_settings(tmp_path, sound, settings, told):
    data = sound()
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/data.yaml").write_text(settings)
    with pytest.raises(DistilPoseError, match=told):
        convert_set("yolo-pose", tmp_path / "yolo", data.folder, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


SVG = "".join(
    f'<line x1="1" data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}"></line>' for a, b in COCO.limbs
)


def cvat(data, kind, meta=True):
    labels = "".join(
        f"<label><name>{name}</name><type>points</type><parent>person</parent></label>" for name in COCO_NAMES
    )
    escaped = SVG.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    person = f"<label><name>person</name><type>skeleton</type><svg>{escaped}</svg></label>"
    head = f"<meta><job><labels>{person}{labels}</labels></job></meta>" if meta else ""
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
    (tmp_path / "annotations.xml").write_text(cvat(data, kind))
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
    content, told = convert("cvat", tmp_path / "annotations.xml", data.folder)
    found = [(row["bbox"], row["keypoints"][:3]) for row in content["annotations"]]
    assert found == [
        ([30, 20, 60, 100], [50, 40, 2]),
        ([10, 10, 50, 50], [20, 20, 2]),
        ([100, 10, 60, 50], [120, 20, 2]),
    ]
    assert "left out: 1 shapes of kind polygon" in told
    assert "left out: 1 joints that belong to nobody (no group, no box around them)" in told


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><annotations>&b;</annotations>'
FETCH = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations><image name="&x;"/></annotations>'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "document type"),
        (FETCH, "document type"),
        (BOMB.encode("utf-16"), "document type"),
        ("<annotations>" + "<a>" * 5000, "nested too deeply"),
        ("<annotations><track/></annotations>", "CVAT for video"),
        ("<annotations></annotations>", "lists no <image>"),
        ("no xml", "is no XML"),
        ('<annotations><image name="1.png"><points label="a" points="1,x"/></image></annotations>', "no number"),
    ],
)
def test_hostile_xml(tmp_path, sound, text, told):
    data = sound()
    (tmp_path / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DistilPoseError, match=told):
        convert_set("cvat", tmp_path / "a.xml", data.folder, tmp_path / "out.json")


def label_studio(data, group):
    """Tasks of an export: joints belong to their rectangle by parent, by relation, or by lying in it."""
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
    (tmp_path / "export.json").write_text(json.dumps(label_studio(data, group)))
    content, told = convert("label-studio", tmp_path / "export.json", data.folder)
    assert "left out: 6 further annotations of a task, after its first" in told
    for (name, joints), (true_name, truth, box), row in zip(
        rows(content, 17), truth_of(data), content["annotations"], strict=True
    ):
        assert name == true_name
        np.testing.assert_allclose(joints, truth, atol=0.006)
        np.testing.assert_allclose(row["bbox"], box, atol=0.011)


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
    assert "left out: 1 tasks whose image is not in the folder, or several times" in told


@pytest.mark.parametrize(
    ("form", "name", "content", "told"),
    [
        ("lsp", "joints.mat", b"no matlab", "no MATLAB file"),
        ("mpii", "a.mat", b"", "no MATLAB file"),
        ("mpii", "a.json", b"{}", "no list"),
        ("crowdpose", "a.json", b"[" * 100_000, "nested too deeply"),
        ("crowdpose", "a.json", b"{}", "no lists"),
        ("label-studio", "a.json", b'[{"image": "a.png"}]', "JSON-MIN"),
        ("label-studio", "a.json", b"[]", "no key points"),
        ("label-studio", "a.xml", b"", "must end in .json"),
    ],
)
def test_files_of_another_kind(tmp_path, sound, form, name, content, told):
    data = sound()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DistilPoseError, match=told):
        convert_set(form, tmp_path / name, data.folder, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_mat_of_another_shape(tmp_path, sound):
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((4, 14, 3))})
    with pytest.raises(DistilPoseError, match="4 x 14 x 3: expected 3 x 14 x N"):
        convert_set("lsp", tmp_path / "joints.mat", sound().folder, tmp_path / "out.json")


def test_names_that_climb_out_are_left_out(tmp_path, sound):
    data = sound()
    data.images[0]["file_name"] = "../images/1.png"
    told = convert_set("crowdpose", data.write(), data.folder, tmp_path / "out.json")
    assert "left out: 20 persons of images whose names lead out of the image folder" in told
    assert len(json.loads((tmp_path / "out.json").read_text())["images"]) == 5


def test_nothing_is_overwritten(tmp_path, sound):
    data = sound()
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(DistilPoseError, match="not overwritten"):
        convert_set("crowdpose", data.write(), data.folder, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "mine"


def archive_with(path, name, link=False):
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16 if link else 0o644 << 16
        archive.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    ("name", "link"), [("../out.json", False), ("/tmp/out.json", False), ("a/../../b.json", False), ("l.json", True)]
)
def test_archives_that_climb_out(tmp_path, sound, name, link):
    source = archive_with(tmp_path / "a.zip", name, link)
    with pytest.raises(DistilPoseError, match="leads out of its folder"):
        convert_set("crowdpose", source, sound().folder, tmp_path / "out.json")


def test_archives_that_unpack_to_too_much(tmp_path, sound, monkeypatch):
    from distilpose.curation.formats import archive

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.json", " " * 3_000_000)
    monkeypatch.setattr(archive, "MOST_BYTES", 2_000_000)
    with pytest.raises(DistilPoseError, match="unpacks to more than"):
        convert_set("crowdpose", tmp_path / "a.zip", sound().folder, tmp_path / "out.json")
    (tmp_path / "b.zip").write_bytes(b"PK no zip")
    with pytest.raises(DistilPoseError, match="cannot be unpacked"):
        convert_set("crowdpose", tmp_path / "b.zip", sound(seed=1).folder, tmp_path / "out.json")
