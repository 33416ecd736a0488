"""YOLO-pose: its settings and the lines of its labels."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
from annotated import YOLO_LINE, YOLO_SETTINGS, rows, truth_of

from distilpose.curation.conversion import convert_set
from distilpose.skeleton import COCO, COCO_NAMES


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
@pytest.mark.parametrize("given", ["folder", "data.yaml", "zip"])
def test_yolo_pose(convert, sound, tmp_path, numbers, given):
    data = sound()
    data.people[4]["keypoints"][:3] = [0, 0, 0]
    folder = yolo(data, tmp_path / "yolo", numbers, extra="\n0 0.5 0.5\n1 " + " ".join(["0.5"] * (4 + 17 * numbers)))
    source = folder / "data.yaml" if given == "data.yaml" else folder
    if given == "zip":
        source = tmp_path / "yolo.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in folder.rglob("*.*"):
                archive.write(path, path.relative_to(folder))
    content, report = convert("yolo-pose", source, data.folder, split="train")
    assert any(f"6 lines without {5 + 17 * numbers} numbers" in line for line in report)
    assert any("6 objects of other classes" in line for line in report)
    for (name, joints), (true_name, truth, box), row in zip(
        rows(content, 17), truth_of(data), content["annotations"], strict=True
    ):
        assert name == true_name
        np.testing.assert_allclose(joints, truth, atol=0.011)
        np.testing.assert_allclose(row["bbox"], box, atol=0.011)
    assert content["categories"][0]["keypoints"] == list(COCO_NAMES)


def test_yolo_pose_with_another_skeleton(convert, sound, tmp_path):
    """Nothing but data.yaml says what the joints are: no code is needed for a new skeleton."""
    data = sound(images=2)
    (tmp_path / "hands").mkdir()
    (tmp_path / "hands/1.txt").write_text(YOLO_LINE)
    (tmp_path / "hands/data.yaml").write_text(YOLO_SETTINGS)
    content, report = convert("yolo-pose", tmp_path / "hands", data.folder)
    assert content["categories"][0]["keypoints"] == ["joint_0", "joint_1", "joint_2"]
    assert content["categories"][0]["flip_pairs"] == [[0, 1]]
    assert content["annotations"][0]["keypoints"] == [96, 64, 2, 144, 64, 1, 0, 0, 0]
    assert any("No OKS sigma is known for 3 of 3 joints" in line for line in report)
    (tmp_path / "hands/data.yaml").write_text(YOLO_SETTINGS + "kpt_names: {0: [left tip, right tip, palm]}\n")
    content, _ = convert("yolo-pose", tmp_path / "hands", data.folder)
    assert content["categories"][0]["keypoints"] == ["left tip", "right tip", "palm"]


def test_joint_names_of_the_chosen_class(converted, sound, tmp_path):
    data = sound(images=1)
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals/1.txt").write_text("1" + YOLO_LINE[1:])
    names = "names: [cat, dog]\nkpt_names: {0: [a, b, c], 1: [nose, ear, tail]}\n"
    (tmp_path / "animals/data.yaml").write_text("kpt_shape: [3, 3]\n" + names)
    content, _ = converted("yolo-pose", tmp_path / "animals", data.folder, category="dog")
    assert content["categories"][0]["keypoints"] == ["nose", "ear", "tail"]


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ("names: [person]", ["'kpt_shape'"]),
        ("kpt_shape: [17, 4]", ["kpt_shape.1=4", "2 or 3"]),
        ("kpt_shape: [1001, 3]\nnames: [hand]\n", ["kpt_shape.0=1001", "1000"]),
        ("kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]\nnames: [hand]", ["flip_idx=[1, 2, 0]", "pairs"]),
        ("kpt_shape: [3, 3]\nflip_idx: [0, 1]\nnames: [hand]", ["flip_idx=[0, 1]", "0..2"]),
        ("kpt_shape: [3, 3]\nnames: [cat, dog]", ["cat, dog", "--category"]),
        ("!!python/object/apply:os.system ['true']", ["YAML", "os.system"]),
        ("- a", ["['a']"]),
        (ALIASES + "kpt_shape: [3, 3]\nnames: [*a9]\n", ["aliases"]),
        ("kpt_shape: [3, 3]\nnames: [hand]\nflip_idx: ['1', '0', '2']\n", ["flip_idx.0='1'"]),
        ("kpt_shape: [3, 3]\nnames: [[hand]]\n", ["names", "['hand']"]),
    ],
    ids=range(11),
)
def test_bad_settings_of_yolo(rejected, tmp_path, sound, settings, facts):
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/1.txt").write_text(YOLO_LINE)
    (tmp_path / "yolo/data.yaml").write_text(settings)
    rejected("yolo-pose", tmp_path / "yolo", sound(images=1).folder, "data.yaml", *facts)


TEMPLATE = "kpt_shape: {}\nflip_idx: {}\nnames: {}\nkpt_names: {}\n"
ODD_YAML = ["null", "1", "-1", "1.5", "x", "[]", "{}", "[1]", "[[1]]", "{a: 1}", "true", "!!int ''", "!!bool x",
            "!!timestamp x", "0x" + "f" * 5000, "[0x" + "f" * 5000 + "]", "[1000000000, 3]", "['1','0','2']", ".inf",
            "[.nan, .nan, .nan]", "{0: [x]}", "{[1]: 2}", '"\\ud800"', "[9999999999999, 3]", "[true, true, true]"]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_YAML, ids=[str(n) for n in range(len(ODD_YAML))])
def test_invalid_values_in_every_setting_of_yolo(convert_corrupted, sound, tmp_path, odd):
    data = sound(images=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/1.txt").write_text(YOLO_LINE)
    good = ["[3, 3]", "[1, 0, 2]", "[hand]", "[a, b, c]"]
    for place in range(4):
        (tmp_path / "set/data.yaml").write_text(TEMPLATE.format(*good[:place], odd, *good[place + 1 :]))
        convert_corrupted("yolo-pose", tmp_path / "set", data.folder)
    (tmp_path / "set/data.yaml").write_text(TEMPLATE.format(*good))
    assert convert_corrupted("yolo-pose", tmp_path / "set", data.folder)


@pytest.mark.filterwarnings("error")
def test_invalid_values_in_every_number_of_yolo(sound, tmp_path):
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


def yolo_of_17(folder, order, names=""):
    folder.mkdir(exist_ok=True)
    line = "0 0.5 0.5 0.4 0.5 " + " ".join(["0.4 0.4 2"] * 17) + "\n"
    (folder / "1.txt").write_text(line)
    (folder / "data.yaml").write_text(f"kpt_shape: [17, 3]\nflip_idx: {order}\nnames: [person]\n{names}")
    return folder


NAMED = f"kpt_names: {{0: [{', '.join(COCO_NAMES)}]}}\n"


@pytest.mark.parametrize("names", ["", NAMED])
def test_flip_idx_that_pairs_nothing_is_a_placeholder(convert, sound, tmp_path, names):
    source = yolo_of_17(tmp_path / "set", list(range(17)), names)
    content, report = convert("yolo-pose", source, sound(images=1).folder)
    assert content["categories"][0]["flip_pairs"] == [list(pair) for pair in COCO.flip_pairs]
    assert "flip_idx pairs no joints: the 8 pairs of the joints' names are written." in report


def test_flip_idx_against_the_names(rejected, sound, tmp_path):
    """The pairs of a set in another order: the joints are not COCO's, or their names are wrong."""
    folder = sound(images=1).folder
    order = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14, 16]
    rejected("yolo-pose", yolo_of_17(tmp_path / "a", order), folder, "flip_idx contradicts COCO's order", "--skeleton")
    rejected("yolo-pose", yolo_of_17(tmp_path / "b", order, NAMED), folder, "flip_pairs pairs nose with left_eye")


def test_images_of_one_base_name_in_two_folders(converted, sound, tmp_path):
    data = sound(images=2)
    for place, camera in enumerate(("cam1", "cam2")):
        (tmp_path / "set/images" / camera).mkdir(parents=True)
        (tmp_path / "set/labels" / camera).mkdir(parents=True)
        (tmp_path / "set/images" / camera / "1.png").write_bytes((data.folder / f"{place + 1}.png").read_bytes())
        line = f"0 0.5 0.5 0.4 0.5 0.{place + 2} 0.4 2 0.6 0.4 1 0.5 0.6 0\n"
        (tmp_path / "set/labels" / camera / "1.txt").write_text(line)
    (tmp_path / "set/data.yaml").write_text(YOLO_SETTINGS)
    content, _ = converted("yolo-pose", tmp_path / "set", tmp_path / "set/images")
    assert {name: joints[0, 0] for name, joints in rows(content, 3)} == {"cam1/1.png": 48, "cam2/1.png": 72}


def test_image_ids_follow_the_numbers_in_the_names(converted, sound, tmp_path):
    data = sound()
    source = yolo(data, tmp_path / "yolo")
    images = tmp_path / "photos"
    images.mkdir()
    used = sorted({row["image_id"] for row in data.people})
    for new, number in enumerate(used, 8):  # frame_8, frame_9, frame_10, …
        shutil.copy(data.folder / f"{number}.png", images / f"frame_{new}.png")
        (source / "labels" / "train" / f"{number}.txt").rename(source / "labels" / "train" / f"frame_{new}.txt")
    content, _ = converted("yolo-pose", source, images)
    assert [(entry["id"], entry["file_name"]) for entry in content["images"]] == [
        (index, f"frame_{new}.png") for index, new in enumerate(range(8, 8 + len(used)), 1)
    ]


def test_scores_as_visibility_are_counted(converted, sound, tmp_path):
    """Labels that a model wrote (save_txt) have its confidence in that place."""
    data = sound()
    data.people[0]["keypoints"][2:9:3] = [0.9, 0.4, 0.6]
    content, report = converted("yolo-pose", yolo(data, tmp_path / "yolo"), data.folder)
    marks = [row["keypoints"][2:9:3] for row in content["annotations"]]
    assert [one for one in marks if one != [2, 2, 2]] == [[1, 0, 1]]
    assert any("3 joints with scores as visibility: rounded" in line for line in report)


def test_a_byte_order_mark_does_not_cost_a_person(converted, sound, tmp_path):
    data = sound()
    folder = yolo(data, tmp_path / "yolo")
    for path in folder.rglob("*.txt"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    content, report = converted("yolo-pose", folder, data.folder)
    assert len(content["annotations"]) == len(data.people)
    assert not any("lines without" in line for line in report)
