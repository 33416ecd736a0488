from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import cv2
import pytest
import torch
from hydra import compose, initialize_config_dir

from distilpose import Predictor
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.evaluation import load_coco, load_results
from distilpose.models import create_model, save_model
from distilpose.predict import PredictSettings, log, main
from distilpose.skeleton import Skeleton


def configured(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("predict", ["device=cpu", "flip_test=false", *map(str, overrides)])


def predict(*overrides):
    cfg = configured(*overrides)
    main.__wrapped__(cfg)
    return json.loads((Path(cfg.output) / "results.json").read_text())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return save_model(create_model("student_xs"), tmp_path_factory.mktemp("model") / "student.safetensors")


@pytest.fixture(autouse=True)
def messages(caplog, monkeypatch):
    monkeypatch.setattr(log, "disabled", False)  # Hydra disables loggers, and other tests start it here
    caplog.set_level("INFO", "distilpose")
    return caplog


SETTINGS = ["checkpoint=a.ckpt", "source=photos", "output=out"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("track=perhaps", "true"),
        ("csv=1", "true"),
        ("frames=0", "1"),
        ("resume=yes", "auto"),
        ("padding=0", "0"),
        ("fps=0", "frames a second"),
        ("max_pixels=2000000000", "1073741824"),
        ("flip_test=both", "released"),
        ("draw_threshold=abc", "number"),
        ("box_threshold=abc", "number"),
        ("category_id=person", "whole"),
        ("nms_threshold=-1", "0"),
        ("weights_kind=[raw]", "averaged"),
        ("boxes=[a.json]", "path"),
        ("output=null", "path"),
        ("smoothing.beta=-1", "0"),
        ("smoothing.min_cutoff=0", "Hz"),
        ("smoothing.threshold=abc", "number"),
        ("tracking.least=3", "1"),
        ("tracking.patience=1.5", "whole"),
        ("detector.threshold=2 detector=torchvision", "1"),
        ("detector.every=0 detector=torchvision", "1"),
        ("detector.layout=yolov9 detector=onnx", "rows"),
        ("detector.input_size=[640] detector=onnx", "2"),
        ("detector.overlap=much detector=onnx", "null"),
        ("detector.mean=[0,0] detector=onnx", "3"),
        ("detector.std=[1,0,1] detector=onnx", "0"),
        ("detector.bgr=no_bgr detector=onnx", "true"),
    ],
)
def test_settings_that_are_not_as_declared(override, expected):
    override, *group = override.split()
    with pytest.raises(DistilPoseError) as error:
        validate(configured(*SETTINGS, *group, override), PredictSettings)
    assert override.partition("=")[0] + "=" in str(error.value)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "overrides", [[], ["detector=onnx", "detector.file=a.onnx"], ["detector=torchvision", "source=0"]]
)
def test_settings_as_shipped(overrides):
    validate(configured(*SETTINGS, *overrides), PredictSettings)


def test_a_folder_with_boxes(tiny_coco, checkpoint, tmp_path, messages):
    root, output = tiny_coco(val=4), tmp_path / "out"
    boxes = root / "detections.json"
    predict(f"checkpoint={checkpoint}", f"source={root / 'val'}", f"boxes={boxes}", f"output={output}")
    truth = load_coco(root / "annotations" / "val.json")
    rows = load_results(output / "results.json", 17, truth.imgs, truth.cats)
    assert {(row["image_id"], row["file_name"]) for row in rows} == {(i, f"{i:06d}.jpg") for i in (1, 2, 3)}
    assert sorted(path.name for path in output.iterdir()) == [
        "000001.jpg", "000002.jpg", "000003.jpg", "journal.jsonl", "results.json"
    ]  # fmt: skip
    drawn, original = (cv2.imread(str(place / "000001.jpg")) for place in (output, root / "val"))
    assert drawn.shape == original.shape
    assert f"1 image without a box in {boxes}" in messages.text
    assert "Dropped" not in messages.text


def test_boxes_outside_their_image_are_dropped_and_counted(tiny_coco, checkpoint, tmp_path, capsys, messages):
    """An image whose only box is dropped is read and has no persons."""
    root, output, boxes = tiny_coco(val=4), tmp_path / "out", tmp_path / "boxes.json"
    entries = [("1", [5, 5, 30, 40]), ("1", [9999, 9999, 30, 40]), ("2", [20, 20, -9, 40]), ("3", [-90, 5, 30, 40])]
    boxes.write_text(json.dumps([{"file_name": f"00000{name}.jpg", "bbox": box} for name, box in entries]))
    rows = predict(f"checkpoint={checkpoint}", f"source={root / 'val'}", f"boxes={boxes}", f"output={output}")
    assert [(row["image_id"], row["box"]) for row in rows] == [(1, [5, 5, 30, 40])]
    assert "1 person on 3 of 4 images" in capsys.readouterr().out
    assert f"Dropped 3 of the boxes in {boxes}" in messages.text
    assert f"1 image without a box in {boxes}" in messages.text


def test_pycocotools_reads_the_rows_as_keypoints(tiny_coco, checkpoint, tmp_path):
    """If the first row had `bbox`, pycocotools would use the area of the box."""
    root, output = tiny_coco(val=3), tmp_path / "out"
    rows = predict(f"checkpoint={checkpoint}", f"source={root / 'val'}", f"output={output}", "draw=false")
    truth = load_coco(root / "annotations" / "val.json")
    for number, read in truth.loadRes(str(output / "results.json")).anns.items():
        joints = torch.tensor(rows[number - 1]["keypoints"]).view(-1, 3)[:, :2]
        width, height = (joints.max(0).values - joints.min(0).values).tolist()
        assert read["area"] == pytest.approx(width * height, rel=1e-4)
        assert read["box"] == rows[number - 1]["box"]


def test_drawings_may_change_on_resume(tiny_coco, checkpoint, tmp_path):
    """Existing drawings are kept, missing ones use the new threshold, and no pose is computed again."""
    settings = [f"checkpoint={checkpoint}", f"source={tiny_coco(val=3) / 'val'}", f"output={tmp_path / 'out'}"]
    rows = predict(*settings, "draw_threshold=9")
    first, second = (tmp_path / "out" / f"00000{number}.jpg" for number in (1, 2))
    kept, bare = first.read_bytes(), second.read_bytes()
    second.unlink()
    journal = (tmp_path / "out" / "journal.jsonl").read_bytes()
    assert predict(*settings, "draw_threshold=-9", "max_pixels=1000000", "resume=auto") == rows
    assert first.read_bytes() == kept
    assert second.read_bytes() != bare
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == journal


def test_a_source_that_is_not_an_image(checkpoint, tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(DistilPoseError, match=r"note\.txt"):
        predict(f"checkpoint={checkpoint}", f"source={tmp_path / 'note.txt'}", f"output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_an_image_without_a_suffix(tiny_coco, checkpoint, tmp_path):
    shutil.copy(tiny_coco(val=2) / "val" / "000001.jpg", tmp_path / "photo")
    assert len(predict(f"checkpoint={checkpoint}", f"source={tmp_path / 'photo'}", f"output={tmp_path / 'out'}")) == 1


def test_each_image_as_one_person(tiny_coco, tmp_path):
    skeleton = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    root = tiny_coco(val=3, skeleton=skeleton)
    file = save_model(create_model("student_xs", skeleton=skeleton), tmp_path / "paws.safetensors")
    predict(f"checkpoint={file}", f"source={root / 'val'}", f"output={tmp_path / 'out'}")
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [len(row["keypoints"]) for row in rows] == [12, 12, 12]


def test_the_default_padding_is_that_of_the_run(tiny_coco, checkpoint, tmp_path):
    """Persons are cropped as in the run whose folder holds the checkpoint, by the command and in Python."""
    source = tiny_coco(val=3) / "val" / "000002.jpg"
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    shutil.copy(checkpoint, run)
    (run.parent / "config.yaml").write_text("data:\n  padding: 1.6\n")
    settings = [f"source={source}", "draw=false", "flip_test=false"]
    from_run = predict(f"checkpoint={run / checkpoint.name}", *settings, f"output={tmp_path / 'run_padding'}")
    explicit = predict(f"checkpoint={checkpoint}", *settings, f"output={tmp_path / 'set'}", "padding=1.6")
    default = predict(f"checkpoint={checkpoint}", *settings, f"output={tmp_path / 'default'}")
    assert from_run == explicit != default
    results = Predictor(run / checkpoint.name, device="cpu")(source)
    assert from_run[0]["keypoints"][0::3] == pytest.approx(results.keypoints[0, :, 0].tolist(), abs=1e-3)
    with pytest.raises(DistilPoseError, match=r"padding was 1\.25, is 1\.6"):
        predict(f"checkpoint={checkpoint}", *settings, f"output={tmp_path / 'default'}", "padding=1.6", "resume=auto")


def test_a_shared_folder(tiny_coco, checkpoint, tmp_path):
    """A folder gives the same result as its file, and a prediction can be resumed with either."""
    source, shared = tiny_coco(val=3) / "val" / "000002.jpg", tmp_path / "shared"
    shared.mkdir()
    shutil.copy(checkpoint, shared / "model.safetensors")
    settings = [f"source={source}", "draw=false", f"output={tmp_path / 'out'}"]
    rows = predict(f"checkpoint={shared}", *settings)
    assert predict(f"checkpoint={shared / 'model.safetensors'}", *settings, "resume=auto") == rows
    results = Predictor(str(shared), device="cpu")(source)
    assert rows[0]["keypoints"][0::3] == pytest.approx(results.keypoints[0, :, 0].tolist(), abs=1e-3)


@pytest.mark.parametrize("reason", ["unreadable", "without a box"])
def test_skipped_images_count_as_frames(reason, tiny_coco, checkpoint, tmp_path):
    """A person missing on two images gets a new identity if the patience is 1."""
    root, folder = tiny_coco(val=3), tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        shutil.copy(root / "val" / "000001.jpg", folder / f"{number}.jpg")
    settings = [f"checkpoint={checkpoint}", f"source={folder}", "track=true", "tracking.least=0", "draw=false"]
    if reason == "without a box":
        boxes = [{"file_name": f"{number}.jpg", "bbox": [5, 5, 30, 40]} for number in (0, 3)]
        (tmp_path / "boxes.json").write_text(json.dumps(boxes))
        settings.append(f"boxes={tmp_path / 'boxes.json'}")
    else:
        for number in (1, 2):
            (folder / f"{number}.jpg").write_bytes(b"")
    for patience, last in ((1, 2), (2, 1)):
        output = tmp_path / str(patience)
        with pytest.raises(DistilPoseError, match="2 of 4") if reason == "unreadable" else nullcontext():
            predict(*settings, f"output={output}", f"tracking.patience={patience}")
        rows = json.loads((output / "results.json").read_text())
        assert [row["track_id"] for row in rows] == [1, last]


def test_unreadable_images_are_listed_and_the_others_predicted(tiny_coco, checkpoint, tmp_path):
    root, output = tiny_coco(val=4), tmp_path / "out"
    cut = root / "val" / "000002.jpg"
    intact = cut.read_bytes()
    cut.write_bytes(intact[:500])
    settings = [f"checkpoint={checkpoint}", f"source={root / 'val'}", f"output={output}"]
    with pytest.raises(DistilPoseError, match=r"1 of 4 images.*000002\.jpg"):
        predict(*settings)
    rows = json.loads((output / "results.json").read_text())
    assert [row["image_id"] for row in rows] == [1, 3, 4]
    (line,) = (output / "unread.txt").read_text().splitlines()
    assert "000002.jpg" in line
    cut.write_bytes(intact)
    assert [row["image_id"] for row in predict(*settings, "resume=auto")] == [1, 2, 3, 4]
    assert not (output / "unread.txt").exists()


def test_nothing_is_overwritten(tiny_coco, checkpoint, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    with pytest.raises(DistilPoseError, match=r"output=.*out"):
        predict(f"checkpoint={checkpoint}", f"source={tiny_coco(val=3) / 'val'}", f"output={output}")
    assert [path.name for path in output.iterdir()] == ["notes.txt"]


def test_images_that_differ_only_in_their_suffix(checkpoint, tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for name in ("a.png", "a.bmp", "a.png.bmp"):
        cv2.imwrite(str(source / name), torch.zeros(40, 30, 3, dtype=torch.uint8).numpy())
    predict(f"checkpoint={checkpoint}", f"source={source}", f"output={tmp_path / 'out'}")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.bmp.jpg", "a.png.bmp.jpg", "a.png.jpg", "journal.jsonl", "results.json"]
