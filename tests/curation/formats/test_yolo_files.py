"""Where the labels and images of YOLO-pose lie."""

from __future__ import annotations

import shutil
import unicodedata
import zipfile

import pytest
from annotated import YOLO_LINE, YOLO_SETTINGS


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
                shutil.copy(data.folder / f"{number}.png", file) if kind == "images" else file.write_text(YOLO_LINE)
        (root / "data.yaml").write_text(YOLO_SETTINGS)
        return root

    return make


@pytest.mark.parametrize("layout", ["roboflow", "ultralytics"])
def test_each_layout_of_yolo_and_each_place_for_its_images(converted, splits, layout):
    root = splits(layout)
    train = "train/images" if layout == "roboflow" else "images/train"
    complete, part = (converted("yolo-pose", root, root, **how)[0] for how in ({}, {"split": "train"}))
    assert (len(complete["annotations"]), len(part["annotations"])) == (2, 1)
    assert [image["file_name"] for image in part["images"]] == [f"{train}/1.png"]
    alone, _ = converted("yolo-pose", root, root / train)
    assert [image["file_name"] for image in alone["images"]] == ["1.png"]
    above, _ = converted("yolo-pose", root.parent, root, split="train")
    assert len(above["annotations"]) == 1


def test_an_unknown_split_is_rejected_with_the_known_ones(rejected, splits):
    root = splits("ultralytics")
    rejected("yolo-pose", root, root, "--split 'vale'", "'train', 'val'", split="vale")


def test_a_zip_with_a_folder_at_its_top(converted, splits, tmp_path):
    root = splits("ultralytics")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in root.rglob("*.*"):
            if path.suffix != ".png":
                archive.write(path, path.relative_to(root.parent))
    content, _ = converted("yolo-pose", tmp_path / "set.zip", root / "images" / "train", split="train")
    assert len(content["annotations"]) == 1


def test_flat_image_folders_and_splits(converted, rejected, sound, tmp_path):
    data = sound(images=2)
    for split in ("train", "val"):
        (tmp_path / "set/labels" / split).mkdir(parents=True)
    (tmp_path / "set/labels/train/1.txt").write_text(YOLO_LINE)
    (tmp_path / "set/labels/val/1.txt").write_text("0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n")
    (tmp_path / "set/data.yaml").write_text("kpt_shape: [3, 3]\nnames: [hand]\n")
    for split, width in (("train", 96), ("val", 48)):
        content, _ = converted("yolo-pose", tmp_path / "set", data.folder, split=split)
        assert [row["bbox"][2] for row in content["annotations"]] == [width]
    rejected("yolo-pose", tmp_path / "set", data.folder, "--split")


def line(width):
    return f"0 0.5 0.5 {width / 240} 0.5 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n"


def image_folder(data, folder, *names):
    """Images in folders of their own."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data.folder / "1.png", folder / name)
    return folder


def packed(path, **labels):
    """A zip as CVAT writes it: labels by their way, with the list of images that it puts beside them."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.yaml", YOLO_SETTINGS + "train: train.txt\n")
        archive.writestr("train.txt", "data/images/train/a/1.png\n")
        for way, text in labels.items():
            archive.writestr(f"labels/{way}.txt", text)
    return path


def widths(content):
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return {names[row["image_id"]]: row["bbox"][2] for row in content["annotations"]}


def test_images_beside_a_zip_of_one_split(converted, sound, tmp_path):
    folder = image_folder(sound(images=1), tmp_path / "photos", "a/1.png", "b/1.png", "b/2.png")
    source = packed(tmp_path / "set.zip", **{"train/a/1": line(96), "train/b/1": line(48)})
    content, report = converted("yolo-pose", source, folder)
    assert widths(content) == {"a/1.png": 96, "b/1.png": 48}
    assert "skipped: 1 images without labels" in report
    assert not any("files of labels" in entry for entry in report)  # train.txt is none


def test_images_in_other_folders_are_matched_by_unique_names(converted, rejected, sound, tmp_path):
    data = sound(images=1)
    source = packed(tmp_path / "set.zip", **{"train/a/1": line(96), "train/b/2": line(48)})
    content, _ = converted("yolo-pose", source, image_folder(data, tmp_path / "one", "new/1.png", "old/2.png"))
    assert widths(content) == {"new/1.png": 96, "old/2.png": 48}
    folder = image_folder(data, tmp_path / "two", "x/1.png", "y/1.png")
    rejected("yolo-pose", source, folder, "x/1.png or y/1.png", "--images")


def test_names_in_two_splits_are_ambiguous(converted, rejected, sound, tmp_path):
    folder = image_folder(sound(images=1), tmp_path / "photos", "a/1.png")
    source = packed(tmp_path / "set.zip", **{"train/a/1": line(96), "val/a/1": line(48)})
    rejected("yolo-pose", source, folder, "a/1.png", "train", "val", "--split", str(source))
    for split, width in (("train", 96), ("val", 48)):
        assert widths(converted("yolo-pose", source, folder, split=split)[0]) == {"a/1.png": width}


@pytest.mark.parametrize("place", ["val", "val/images"])
def test_images_of_a_split_do_not_get_labels_of_another(rejected, sound, tmp_path, place):
    folder = image_folder(sound(images=1), tmp_path / place, "1.png")
    source = packed(tmp_path / "set.zip", **{"train/1": line(96)})
    rejected("yolo-pose", source, folder, "'val'", "'train'", "--split")


def test_lists_and_notes_are_skipped(converted, splits):
    root = splits("roboflow")
    (root / "README.roboflow.txt").write_text("\nset - v1\n30 images\n")
    (root / "train.txt").write_text("001.png\n")
    (root / "val.txt").write_text("./images/val/2.png\n")
    (root / "train/labels/3.txt").write_text("")
    content, report = converted("yolo-pose", root, root)
    assert len(content["annotations"]) == 2
    assert "skipped: 1 files of labels without an image in --images" in report


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_other_systems(converted, sound, tmp_path, forms):
    """macOS writes é as two characters, other systems as one."""
    of_labels, of_image = (unicodedata.normalize(form, "café") for form in forms)
    folder = image_folder(sound(images=1), tmp_path / "photos", f"{of_image}/{of_image}.png")
    source = packed(tmp_path / "set.zip", **{f"{of_labels}/{of_labels}": line(96)})
    content, _ = converted("yolo-pose", source, folder)
    assert widths(content) == {f"{of_image}/{of_image}.png": 96}


@pytest.mark.parametrize("other", ["2.txt", "val/labels/2.txt"])
def test_two_label_files_of_one_image_are_rejected(rejected, splits, other):
    root = splits("ultralytics")
    for name in ("labels/2.txt", other):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "labels/val/2.txt", root / name)
    rejected("yolo-pose", root, root, other, "labels of the same image")


def test_one_label_file_is_not_given_to_two_images(rejected, splits):
    root = splits("ultralytics")
    shutil.copy(root / "images/val/2.png", root / "images/val/2.jpg")
    rejected("yolo-pose", root, root, "2.txt", "2.jpg", "2.png")
