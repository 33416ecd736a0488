"""Files of other formats, continued: what is left out and counted, limits, options, and rubbish in CVAT and YOLO-pose."""

from __future__ import annotations

import contextlib
import json
import re
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from distilpose.curation.formats import convert_set
from distilpose.errors import DistilPoseError

SIZE = {"original_width": 240, "original_height": 160}


@pytest.fixture
def converted(tmp_path):
    def call(form, source, images, **options):
        output = tmp_path / f"converted_{len(list(tmp_path.glob('converted_*')))}.json"
        told = convert_set(form, source, images, output, **options)
        return json.loads(output.read_text()), told

    return call


def cvat(path, shapes, labels="", size='width="240" height="160"', head='<?xml version="1.0"?>'):
    head += f"<annotations><meta><labels>{labels}</labels></meta>" if labels else "<annotations>"
    path.write_text(f'{head}<image name="1.png" {size}>{shapes}</image></annotations>')
    return path


SKELETON = '<skeleton label="{}"><points label="a" points="30,40"/><points label="b" points="60,80"/></skeleton>'
BOX = '<box label="{}" xtl="10" ytl="10" xbr="100" ybr="100"{}/>'


# 1
def test_limbs_out_of_range_of_other_joints_are_dropped_with_a_note(converted, sound):
    data = sound()
    data.category["skeleton"] = [[1, 2], [17, 18]]
    content, told = converted("crowdpose", data.write(), data.folder)
    assert content["categories"][0]["skeleton"] == [[1, 2]]
    assert any("1 of 2 limbs" in line for line in told)


# 5
def test_crowdpose_with_another_size_is_left_out(converted, sound):
    data = sound()
    data.images[0].update(width=480, height=320)
    content, told = converted("crowdpose", data.write(), data.folder)
    assert len(content["images"]) == 5
    assert any("left out: 20 persons of images whose file has another size" in line for line in told)


def point(name="a", x=25.0, y=25.0, **more):
    return {"id": name, "type": "keypointlabels", "value": {"x": x, "y": y, "keypointlabels": [name]}, **SIZE, **more}


def rectangle(number, label, x, y, width, height):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]}
    return {"id": number, "type": "rectanglelabels", "value": value, **SIZE}


def tasks(path, results):
    path.write_text(json.dumps([{"data": {"image": "1.png"}, "annotations": [{"result": results}]}]))
    return path


def test_percents_count_of_the_file_that_is_there(converted, sound, tmp_path):
    data = sound(images=1)
    source = tasks(tmp_path / "a.json", [point() | {"original_width": 2400, "original_height": 1600}])
    content, _ = converted("label-studio", source, data.folder)
    assert content["annotations"][0]["keypoints"] == [60, 40, 2]
    source = tasks(tmp_path / "b.json", [point(), point("b") | {"original_width": 1600, "original_height": 1600}])
    content, told = converted("label-studio", source, data.folder)
    assert any("another shape" in line for line in told)
    assert content["annotations"][0]["num_keypoints"] == 1


# 8
def test_four_and_five_digits_of_one_number(converted, sound, tmp_path):
    data = sound(images=2)
    (data.folder / "1.png").rename(data.folder / "im0001.png")
    (data.folder / "2.png").rename(data.folder / "im00001.png")
    savemat(tmp_path / "joints.mat", {"joints": np.ones((3, 14, 1))})
    with pytest.raises(DistilPoseError, match="both number 1"):
        converted("lsp", tmp_path / "joints.mat", data.folder)


# 9
def test_lists_of_points_are_chosen_by_their_label(converted, sound, tmp_path):
    shapes = '<points label="person" points="20,20;60,60;90,40"/><points label="x" points="1,1;2,2"/>'
    source = cvat(tmp_path / "a.xml", shapes)
    content, told = converted("cvat", source, sound(images=1).folder, category="person")
    assert content["annotations"][0]["keypoints"] == [20, 20, 2, 60, 60, 2, 90, 40, 2]
    assert any("other labels" in line for line in told)
    with pytest.raises(DistilPoseError, match="--category"):
        converted("cvat", source, sound(images=1, seed=1).folder)


# 10
def test_key_points_of_other_rectangles_go_with_them(converted, sound, tmp_path):
    results = [rectangle("p", "person", 10, 10, 60, 80), rectangle("b", "ball", 20, 20, 15, 15)]
    results += [point("a", parentID="b"), point("b", parentID="p")]
    content, told = converted(
        "label-studio", tasks(tmp_path / "a.json", results), sound(images=1).folder, category="person"
    )
    (person,) = content["annotations"]
    assert person["num_keypoints"] == 1
    assert any("rectangles of other labels" in line for line in told)


def test_category_of_crowdpose_by_its_id(converted, sound):
    data = sound()
    data.content["categories"].append(data.category | {"id": 2, "name": "dog"})
    content, _ = converted("crowdpose", data.write(), data.folder, category="1")
    assert len(content["annotations"]) == 120


@pytest.mark.parametrize("form", ["mpii", "lsp", "crowdpose"])
def test_skeleton_is_refused_where_it_means_nothing(converted, sound, tmp_path, form):
    data = sound()
    with pytest.raises(DistilPoseError, match="--skeleton means nothing"):
        converted(form, data.write(), data.folder, skeleton=data.file)


# 12
def test_joints_before_their_skeleton_label(converted, sound, tmp_path):
    labels = "".join(f"<label><name>{name}</name><type>points</type><parent>hand</parent></label>" for name in "ba")
    labels += "<label><name>hand</name><type>skeleton</type><svg></svg></label>"
    source = cvat(tmp_path / "a.xml", SKELETON.format("hand"), labels)
    content, _ = converted("cvat", source, sound(images=1).folder)
    assert content["categories"][0]["keypoints"] == ["b", "a"]


# 18
@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_of_each_packing(sound, tmp_path, packing):
    data = sound(images=1)
    draw = np.random.default_rng(0)
    text = json.dumps(draw.random(5000).tolist())
    for place in range(1, 12):
        source = tmp_path / f"{place}.zip"
        with zipfile.ZipFile(source, "w", packing) as archive:
            archive.writestr("a.json", text)
        content = bytearray(source.read_bytes())
        start = 40 + place * 500
        content[start : start + 40] = draw.bytes(40)
        source.write_bytes(content)
        with pytest.raises(DistilPoseError):
            convert_set("crowdpose", source, data.folder, tmp_path / "out.json")


# 19
TEMPLATE_YAML = "kpt_shape: {}\nflip_idx: {}\nnames: {}\nkpt_names: {}\n"
ODD_YAML = ["null", "1", "-1", "1.5", "x", "[]", "{}", "[1]", "[[1]]", "{a: 1}", "true", "!!int ''", "!!bool x",
            "!!timestamp x", "0x" + "f" * 5000, "[0x" + "f" * 5000 + "]", "[1000000000, 3]", "['1','0','2']", ".inf",
            "[.nan, .nan, .nan]", "{0: [x]}", "{[1]: 2}", '"\\ud800"', "[9999999999999, 3]", "[true, true, true]"]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_YAML, ids=[str(n) for n in range(len(ODD_YAML))])
def test_rubbish_in_every_setting_of_yolo(sound, tmp_path, odd):
    data = sound(images=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/1.txt").write_text("0 0.5 0.5 0.4 0.5 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n")
    good = ["[3, 3]", "[1, 0, 2]", "[hand]", "[a, b, c]"]
    for place in range(4):
        (tmp_path / "set/data.yaml").write_text(TEMPLATE_YAML.format(*good[:place], odd, *good[place + 1 :]))
        with contextlib.suppress(DistilPoseError):
            convert_set("yolo-pose", tmp_path / "set", data.folder, tmp_path / f"{place}.json")


@pytest.mark.filterwarnings("error")
def test_rubbish_in_every_word_of_yolo(sound, tmp_path):
    data = sound(images=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data.yaml").write_text("kpt_shape: [1, 3]\nnames: [hand]\n")
    good = ["0", "0.5", "0.5", "0.4", "0.5", "0.4", "0.4", "2"]
    lines = [
        " ".join([*good[:place], odd, *good[place + 1 :]])
        for place in range(8) for odd in ("nan", "inf", "-inf", "1e308", "-1e308", "x", "", "9" * 500, "-1", "7", "\x00")
    ]  # fmt: skip
    (tmp_path / "set/1.txt").write_text("\n".join([*lines, " ".join(good)]))
    convert_set("yolo-pose", tmp_path / "set", data.folder, tmp_path / "out.json")
    text = (tmp_path / "out.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


ODD_TEXT = ["", "x", "nan", "inf", "1e400", "1e308", "-1e308", "-1", "9" * 5000, "1,1", ";", "1,1;2,2", "[", "\u20ac"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ODD_TEXT, ids=[str(n) for n in range(len(ODD_TEXT))])
def test_rubbish_in_every_attribute_of_cvat(sound, tmp_path, odd):
    data = sound(images=1)
    labels = (
        '<label><name>hand</name><type>skeleton</type><svg>&lt;circle data-node-id="1" data-label-name="a"&gt;'
        '&lt;line data-node-from="1" data-node-to="2"&gt;</svg></label>'
        "<label><name>a</name><type>points</type><parent>hand</parent></label>"
    )
    shapes = SKELETON.format("hand") + BOX.format("hand", ' rotation="0" group_id="1"')
    shapes += '<points label="c" occluded="0" group_id="1" points="40,40"/>'
    cvat(tmp_path / "good.xml", shapes, labels)
    good = (tmp_path / "good.xml").read_text()
    for number, found in enumerate(re.finditer(r'(?<==")[^"]*(?=")', good)):
        (tmp_path / "bad.xml").write_text(good[: found.start()] + odd + good[found.end() :], encoding="utf-8")
        with contextlib.suppress(DistilPoseError):
            convert_set("cvat", tmp_path / "bad.xml", data.folder, tmp_path / f"{number}.json")


@pytest.mark.parametrize("name", ["nonsense", "utf-7", "shift_jis", "idna", "hex"])
def test_encodings_that_nobody_knows(sound, tmp_path, name):
    source = cvat(tmp_path / "a.xml", "", head=f'<?xml version="1.0" encoding="{name}"?>')
    with pytest.raises(DistilPoseError):
        convert_set("cvat", source, sound(images=1).folder, tmp_path / "out.json")


def test_an_address_that_is_none(sound, tmp_path):
    content = [{"data": {"image": "http://[x/a.jpg"}, "annotations": [{"result": [point()]}]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DistilPoseError):
        convert_set("label-studio", tmp_path / "a.json", sound(images=1).folder, tmp_path / "out.json")


@pytest.mark.parametrize(
    "value", [np.zeros((0, 0)), "x", 1.0, np.ones((2, 2)), np.array([["a", 1]], dtype=object), 1e308, np.nan]
)
def test_rubbish_in_every_field_of_mpii_mat(sound, tmp_path, value):
    def struct(**fields):
        made = np.empty((1, 1), dtype=[(name, object) for name in fields])
        for name, content in fields.items():
            made[0, 0][name] = content
        return made

    def release(bad):
        def pick(name, good):
            return value if name == bad else good

        joint = struct(x=pick("x", 5.0), y=pick("y", 6.0), id=pick("id", 0), is_visible=pick("v", 1))
        rect = struct(
            x1=pick("x1", 1.0), y1=1.0, x2=9.0, y2=9.0, annopoints=pick("points", struct(point=pick("point", joint)))
        )
        entry = struct(image=pick("image", struct(name=pick("name", "1.png"))), annorect=pick("rect", rect))
        return pick("all", struct(annolist=pick("list", entry), img_train=pick("train", np.array([[1]]))))

    data = sound(images=1)
    for bad in ("x", "y", "id", "v", "x1", "points", "point", "image", "name", "rect", "list", "train", "all"):
        savemat(tmp_path / "a.mat", {"RELEASE": release(bad)})
        with contextlib.suppress(DistilPoseError):
            convert_set("mpii", tmp_path / "a.mat", data.folder, tmp_path / f"{bad}.json")


# 21
def test_a_mat_that_unpacks_to_too_much(sound, tmp_path):
    savemat(tmp_path / "a.mat", {"joints": np.zeros((14, 3, 600_000))}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 1_000_000
    with pytest.raises(DistilPoseError, match="holds 25200000 numbers"):
        convert_set("lsp", tmp_path / "a.mat", sound(images=1).folder, tmp_path / "out.json")


# 22
def test_thousands_of_shapes_on_an_image_take_no_hours(sound, tmp_path):
    boxes = "".join(f'<box label="p" xtl="1" ytl="1" xbr="{9 + n % 99}" ybr="99"/>' for n in range(3000))
    points = "".join(f'<points label="a" points="{1 + n % 99},9"/>' for n in range(3000))
    start = time.perf_counter()
    convert_set("cvat", cvat(tmp_path / "a.xml", boxes + points), sound(images=1).folder, tmp_path / "a.json")
    assert time.perf_counter() - start < 2
    (tmp_path / "b.xml").write_text("")
    source = cvat(tmp_path / "b.xml", boxes * 10 + points * 10)
    start = time.perf_counter()
    with pytest.raises(DistilPoseError, match="thousands of boxes and points"):
        convert_set("cvat", source, sound(images=1, seed=1).folder, tmp_path / "b.json")
    assert time.perf_counter() - start < 5


def test_thousands_of_skeletons_and_boxes(sound, tmp_path):
    shapes = SKELETON.format("p") * 1500 + BOX.format("p", "") * 1500
    start = time.perf_counter()
    convert_set("cvat", cvat(tmp_path / "a.xml", shapes), sound(images=1).folder, tmp_path / "a.json")
    assert time.perf_counter() - start < 2


# 23
def test_boxes_and_skeletons_that_are_left_out_are_counted(converted, sound, tmp_path):
    shapes = BOX.format("p", ' group_id="1"') * 2 + BOX.format("p", ' rotation="30"') + SKELETON.format("dog")
    shapes += '<points label="a" group_id="1" points="40,40"/>'
    content, told = converted("cvat", cvat(tmp_path / "a.xml", shapes), sound(images=1).folder, category="p")
    assert len(content["annotations"]) == 1
    for reason in ("1 further boxes of a group", "1 turned boxes", "1 skeletons, boxes and lists of points of other"):
        assert any(f"left out: {reason}" in line for line in told), told


# 24
def test_no_pairs_are_what_was_asked_for(converted, sound, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"keypoints": ["left_a", "right_a"], "flip_pairs": []}))
    source = tasks(tmp_path / "a.json", [point("left_a"), point("right_a", 40)])
    content, _ = converted("label-studio", source, sound(images=1).folder, skeleton=tmp_path / "s.json")
    assert content["categories"][0]["flip_pairs"] == []


# 4, 3
def test_images_of_another_split_are_counted_and_flat_folders_are_found(converted, sound, tmp_path):
    data = sound(images=2)
    line = "0 0.5 0.5 0.4 0.5 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n"
    for split in ("train", "val"):
        (tmp_path / "set/labels" / split).mkdir(parents=True)
    (tmp_path / "set/labels/train/1.txt").write_text(line)
    (tmp_path / "set/labels/val/1.txt").write_text("0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n")
    (tmp_path / "set/data.yaml").write_text("kpt_shape: [3, 3]\nnames: [hand]\n")
    for split, width in (("train", 96), ("val", 48)):
        content, _ = converted("yolo-pose", tmp_path / "set", data.folder, split=split)
        assert [row["bbox"][2] for row in content["annotations"]] == [width]
    with pytest.raises(DistilPoseError):
        converted("yolo-pose", tmp_path / "set", data.folder)


def test_many_joints_are_refused(sound, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/data.yaml").write_text("kpt_shape: [1001, 3]\nnames: [hand]\n")
    with pytest.raises(DistilPoseError, match="1000 or fewer"):
        convert_set("yolo-pose", tmp_path / "set", sound(images=1).folder, tmp_path / "out.json")


def test_sizes_of_photographs_turned_by_exif(converted, sound, tmp_path):
    data = sound(images=1)
    picture, exif = Image.open(data.folder / "1.png").convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    picture.save(data.folder / "1.jpg", exif=exif)
    for size, fits in (('width="160" height="240"', True), ('width="240" height="160"', False)):
        source = cvat(tmp_path / "a.xml", SKELETON.format("p"), size=size)
        source.write_text(source.read_text().replace("1.png", "1.jpg"))
        if fits:
            converted("cvat", source, data.folder)
        else:
            with pytest.raises(DistilPoseError, match="another size"):
                converted("cvat", source, data.folder)


def test_a_structure_that_unpacks_to_too_much(tmp_path, sound, monkeypatch):
    data = sound()
    release = {"RELEASE": {"annolist": np.zeros(2_000_000), "img_train": np.zeros(3)}}
    savemat(tmp_path / "mpii.mat", release, do_compression=True)
    assert (tmp_path / "mpii.mat").stat().st_size < 100_000
    monkeypatch.setattr("distilpose.curation.formats.matlab.MOST_BYTES", 15 * 2**20)
    with pytest.raises(DistilPoseError, match="unpacks to more than 15 MiB"):
        convert_set("mpii", tmp_path / "mpii.mat", data.folder, tmp_path / "out.json")
    monkeypatch.setattr("distilpose.curation.formats.matlab.MOST_BYTES", 17 * 2**20)
    with pytest.raises(DistilPoseError, match="it lists none"):
        convert_set("mpii", tmp_path / "mpii.mat", data.folder, tmp_path / "out.json")
