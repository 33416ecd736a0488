from __future__ import annotations

import json

import cv2
import pytest
import torch
from hydra import compose, initialize_config_dir

from distilpose.errors import DistilPoseError
from distilpose.evaluation import load_coco, load_results
from distilpose.models import create_model, save_model
from distilpose.paths import CONFIG_DIR
from distilpose.predict import main
from distilpose.skeleton import Skeleton


def predict(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("predict", ["device=cpu", *map(str, overrides)])
    return main.__wrapped__(cfg)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    return save_model(create_model("student_xs"), tmp_path / "student.safetensors")


def test_a_folder_with_boxes(tiny_coco, checkpoint, tmp_path, capsys):
    root, output = tiny_coco(val=4), tmp_path / "out"
    boxes = root / "detections.json"
    predict(f"checkpoint={checkpoint}", f"source={root / 'val'}", f"boxes={boxes}", f"output={output}")
    truth = load_coco(root / "annotations" / "val.json")
    rows = load_results(output / "results.json", 17, truth.imgs, truth.cats)
    assert {(row["image_id"], row["file_name"]) for row in rows} == {(i, f"{i:06d}.jpg") for i in (1, 2, 3)}
    assert sorted(path.name for path in output.iterdir()) == [
        "000001.jpg", "000002.jpg", "000003.jpg", "journal.jsonl", "results.json"
    ]  # fmt: skip
    drawn, given = (cv2.imread(str(place / "000001.jpg")) for place in (output, root / "val"))
    assert drawn.shape == given.shape
    assert "1 images have no box" in capsys.readouterr().out


def test_each_image_as_one_person(tiny_coco, tmp_path):
    skeleton = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    root = tiny_coco(val=3, skeleton=skeleton)
    file = save_model(create_model("student_xs", skeleton=skeleton), tmp_path / "paws.safetensors")
    predict(f"checkpoint={file}", f"source={root / 'val'}", f"output={tmp_path / 'out'}")
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [len(row["keypoints"]) for row in rows] == [12, 12, 12]


def test_one_image(tiny_coco, checkpoint, tmp_path):
    source = tiny_coco(val=3) / "val" / "000002.jpg"
    rows = predict(f"checkpoint={checkpoint}", f"source={source}", f"output={tmp_path / 'out'}")
    assert [row["image_id"] for row in rows] == [2]


def test_unreadable_images_are_named_and_the_others_done(tiny_coco, checkpoint, tmp_path):
    root, output = tiny_coco(val=4), tmp_path / "out"
    cut = root / "val" / "000002.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    with pytest.raises(DistilPoseError, match=r"1 of 4 images could not be read .*000002\.jpg"):
        predict(f"checkpoint={checkpoint}", f"source={root / 'val'}", f"output={output}")
    rows = json.loads((output / "results.json").read_text())
    assert [row["image_id"] for row in rows] == [1, 3, 4]


def test_nothing_is_overwritten(tiny_coco, checkpoint, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    with pytest.raises(DistilPoseError, match="not an empty folder"):
        predict(f"checkpoint={checkpoint}", f"source={tiny_coco(val=3) / 'val'}", f"output={output}")
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


def test_images_that_differ_only_in_their_ending(checkpoint, tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for name in ("a.png", "a.bmp", "a.png.bmp"):
        cv2.imwrite(str(source / name), torch.zeros(40, 30, 3, dtype=torch.uint8).numpy())
    predict(f"checkpoint={checkpoint}", f"source={source}", f"output={tmp_path / 'out'}")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.bmp.jpg", "a.png.bmp.jpg", "a.png.jpg", "journal.jsonl", "results.json"]
