"""What files from elsewhere are really like: other layouts, odd fields, several kinds of things, and damage."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile

import numpy as np
import pytest

from distilpose.curation.formats import convert_set
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO_NAMES

CROWDPOSE = [
    f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
]
LINE = "0 0.5 0.5 0.4 0.5 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n"
SETTINGS = "kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\nnames: [hand]\n"


@pytest.fixture
def converted(tmp_path):
    """Converts into a new file: its content and what was told."""

    def call(form, source, images, **options):
        output = tmp_path / f"converted_{len(list(tmp_path.glob('converted_*')))}.json"
        told = convert_set(form, source, images, output, **options)
        return json.loads(output.read_text()), told

    return call


def test_crowdposes_own_category(converted, sound):
    """Its 14 joints come with the limbs of COCO's 17."""
    data = sound()
    limbs = [
        [16, 14],
        [14, 12],
        [17, 15],
        [15, 13],
        [12, 13],
        [6, 12],
        [7, 13],
        [6, 7],
        [6, 8],
        [7, 9],
        [8, 10],
        [9, 11],
    ]
    data.category.update(keypoints=[*CROWDPOSE, "head", "neck"], skeleton=limbs)
    for person in data.people:
        person["keypoints"] = person["keypoints"][15:] + person["keypoints"][:6]
        person["num_keypoints"] = 14
    content, _ = converted("crowdpose", data.write(), data.folder)
    category = content["categories"][0]
    named = {tuple(sorted(category["keypoints"][end - 1] for end in limb)) for limb in category["skeleton"]}
    assert ("left_ankle", "left_knee") in named
    assert ("head", "neck") in named
    assert all("left" not in one or "right" not in other or one[5:] == other[6:] for one, other in named)


@pytest.fixture
def splits(tmp_path, sound):
    """A YOLO set with one image in each split, in the layout asked for."""
    data = sound(images=2)

    def make(layout):
        root = tmp_path / "top" / "set"
        for number, split in enumerate(("train", "val"), start=1):
            for kind, suffix in (("images", "png"), ("labels", "txt")):
                folder = root / (f"{split}/{kind}" if layout == "roboflow" else f"{kind}/{split}")
                folder.mkdir(parents=True)
                file = folder / f"{number}.{suffix}"
                shutil.copy(data.folder / f"{number}.png", file) if kind == "images" else file.write_text(LINE)
        (root / "data.yaml").write_text(SETTINGS)
        return root

    return make


@pytest.mark.parametrize("layout", ["roboflow", "ultralytics"])
def test_each_layout_of_yolo_and_each_place_for_its_images(converted, splits, layout):
    root = splits(layout)
    train = "train/images" if layout == "roboflow" else "images/train"
    whole, part = (converted("yolo-pose", root, root, **how)[0] for how in ({}, {"split": "train"}))
    assert (len(whole["annotations"]), len(part["annotations"])) == (2, 1)
    assert [image["file_name"] for image in part["images"]] == [f"{train}/1.png"]
    alone, _ = converted("yolo-pose", root, root / train)
    assert [image["file_name"] for image in alone["images"]] == ["1.png"]
    above, _ = converted("yolo-pose", root.parent, root, split="train")
    assert len(above["annotations"]) == 1


def test_a_zip_with_a_folder_at_its_top(converted, splits, tmp_path):
    root = splits("ultralytics")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in root.rglob("*.*"):
            if path.suffix != ".png":
                archive.write(path, path.relative_to(root.parent))
    content, _ = converted("yolo-pose", tmp_path / "set.zip", root / "images" / "train", split="train")
    assert len(content["annotations"]) == 1


def test_joints_of_the_class_that_was_asked_for(converted, sound, tmp_path):
    data = sound(images=1)
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals/1.txt").write_text("1" + LINE[1:])
    names = "names: [cat, dog]\nkpt_names: {0: [a, b, c], 1: [nose, ear, tail]}\n"
    (tmp_path / "animals/data.yaml").write_text("kpt_shape: [3, 3]\n" + names)
    content, _ = converted("yolo-pose", tmp_path / "animals", data.folder, category="dog")
    assert content["categories"][0]["keypoints"] == ["nose", "ear", "tail"]


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "settings",
    [
        ALIASES + "kpt_shape: [3, 3]\nnames: [*a9]\n",
        ALIASES + "kpt_shape: [3, 3]\nnames: [hand]\nflip_idx: *a9\n",
        "kpt_shape: [3, 3]\nnames: [hand]\nflip_idx: ['1', '0', '2']\n",
        "kpt_shape: [3, 3]\nnames: [[hand]]\n",
    ],
    ids=["aliases in names", "aliases in pairs", "words for numbers", "a list for a name"],
)
def test_settings_that_blow_up_or_are_of_another_kind(converted, sound, tmp_path, settings):
    data = sound(images=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/1.txt").write_text(LINE)
    (tmp_path / "set/data.yaml").write_text(settings)
    with pytest.raises(DistilPoseError):
        converted("yolo-pose", tmp_path / "set", data.folder)


def cvat(images, labels=""):
    head = f"<meta><job><labels>{labels}</labels></job></meta>" if labels else ""
    return f"<annotations><version>1.1</version>{head}{images}</annotations>"


def skeleton(*names, label="hand"):
    inner = "".join(
        f'<points label="{name}" occluded="0" outside="0" points="{30 + 20 * n},{40 + 10 * n}"></points>'
        for n, name in enumerate(names)
    )
    return f'<skeleton label="{label}">{inner}</skeleton>'


def test_one_stray_shape_does_not_displace_skeletons(converted, sound, tmp_path):
    data = sound(images=1)
    stray = '<points label="x" points="1,1;2,2"></points>'
    (tmp_path / "a.xml").write_text(
        cvat(f'<image id="0" name="1.png" width="240" height="160">{skeleton("a", "b", "c")}{stray}</image>')
    )
    content, told = converted("cvat", tmp_path / "a.xml", data.folder)
    assert content["categories"][0]["keypoints"] == ["a", "b", "c"]
    assert len(content["annotations"]) == 1
    assert any("left out" in line for line in told)


def test_limbs_are_between_the_joints_that_the_drawing_names(converted, sound, tmp_path):
    data = sound(images=1)
    nodes = "".join(
        f'&lt;circle data-node-id="{n}" data-label-name="{name}"/&gt;' for n, name in ((1, "b"), (2, "c"), (3, "a"))
    )
    svg = f'{nodes}&lt;line data-node-from="1" data-node-to="2"/&gt;'
    labels = f"<label><name>hand</name><type>skeleton</type><svg>{svg}</svg></label>"
    labels += "".join(f"<label><name>{name}</name><type>points</type><parent>hand</parent></label>" for name in "abc")
    image = f'<image id="0" name="1.png" width="240" height="160">{skeleton("a", "b", "c")}</image>'
    (tmp_path / "a.xml").write_text(cvat(image, labels))
    category = converted("cvat", tmp_path / "a.xml", data.folder)[0]["categories"][0]
    assert [[category["keypoints"][end - 1] for end in limb] for limb in category["skeleton"]] == [["b", "c"]]


def test_photographs_that_were_resized_are_not_taken_as_they_are(converted, sound, tmp_path):
    data = sound(images=2)
    images = "".join(
        f'<image id="{n}" name="{n}.png" width="{240 * n}" height="{160 * n}">{skeleton("a", "b", "c")}</image>'
        for n in (1, 2)
    )
    (tmp_path / "a.xml").write_text(cvat(images))
    content, told = converted("cvat", tmp_path / "a.xml", data.folder)
    assert [image["file_name"] for image in content["images"]] == ["1.png"]
    assert any("left out: 1" in line and "size" in line for line in told), told


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


def test_two_photographs_of_one_number_are_refused(converted, sound, tmp_path):
    from scipy.io import savemat

    data = sound(images=1)
    for folder in ("images", "visualized"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        shutil.copy(data.folder / "1.png", tmp_path / "set" / folder / "im0001.png")
    savemat(tmp_path / "joints.mat", {"joints": np.ones((3, 14, 1))})
    with pytest.raises(DistilPoseError, match="im0001"):
        converted("lsp", tmp_path / "joints.mat", tmp_path / "set")


def test_damaged_archives_are_told(converted, sound, tmp_path):
    data = sound(images=1)
    place = tmp_path / "set.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.yaml", SETTINGS + "# " + "x y z " * 1000)
    content = bytearray(place.read_bytes())
    content[45:60] = bytes(15)
    place.write_bytes(content)
    with pytest.raises(DistilPoseError):
        converted("yolo-pose", place, data.folder)


RUBBISH = [None, 1, -1, 10**400, 1.5, "x", "\ud800", [], [1], {}, {"a": 1}, True, [[[]]]]


def spoilt(content, value):
    """Copies of nested containers with one place after the other replaced."""
    for key in content if isinstance(content, dict) else range(len(content)):
        copy = json.loads(json.dumps(content))
        copy[key] = value
        yield copy
        if isinstance(content[key], (dict, list)) and content[key]:
            for inner in spoilt(content[key], value):
                copy = json.loads(json.dumps(content))
                copy[key] = inner
                yield copy


@pytest.mark.parametrize("form", ["crowdpose", "label-studio", "mpii"])
@pytest.mark.parametrize("value", RUBBISH, ids=[str(n) for n in range(len(RUBBISH))])
def test_rubbish_in_every_place_ends_in_a_sentence_or_is_left_out(converted, sound, tmp_path, form, value):
    data = sound(images=1, persons=1)
    data.people[0]["keypoints"] = data.people[0]["keypoints"][:9]
    data.category.update(keypoints=["a", "b", "c"], skeleton=[[1, 2]])
    size = {"original_width": 240, "original_height": 160}
    point = {"x": 25, "y": 25, "width": 1, "keypointlabels": ["a"]}
    task = {"id": 1, "data": {"image": "http://h/1.png"}, "annotations": [
        {"result": [{"id": "p", "type": "keypointlabels", "value": point, **size}]}
    ]}  # fmt: skip
    person = {"image": "1.png", "center": [5.0, 5.0], "scale": 1.0, "joints": [[5.0, 5.0]] * 16, "joints_vis": [1] * 16}
    content = {"crowdpose": data.content, "label-studio": [task], "mpii": [person]}[form]
    for number, bad in enumerate(spoilt(content, value)):
        source = tmp_path / f"{number}.json"
        source.write_text(json.dumps(bad))
        with contextlib.suppress(DistilPoseError):  # any other error is a failure
            converted(form, source, data.folder)
