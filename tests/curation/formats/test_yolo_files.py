"""Where the labels and images of YOLO-pose lie."""

from __future__ import annotations

import shutil
import zipfile

import pytest
from annotated import YOLO_LINE, YOLO_SETTINGS

from distilpose.errors import DistilPoseError


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


def test_images_of_another_split_are_counted_and_flat_folders_are_found(converted, sound, tmp_path):
    data = sound(images=2)
    for split in ("train", "val"):
        (tmp_path / "set/labels" / split).mkdir(parents=True)
    (tmp_path / "set/labels/train/1.txt").write_text(YOLO_LINE)
    (tmp_path / "set/labels/val/1.txt").write_text("0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.4 1 0.5 0.6 0\n")
    (tmp_path / "set/data.yaml").write_text("kpt_shape: [3, 3]\nnames: [hand]\n")
    for split, width in (("train", 96), ("val", 48)):
        content, _ = converted("yolo-pose", tmp_path / "set", data.folder, split=split)
        assert [row["bbox"][2] for row in content["annotations"]] == [width]
    with pytest.raises(DistilPoseError):
        converted("yolo-pose", tmp_path / "set", data.folder)
