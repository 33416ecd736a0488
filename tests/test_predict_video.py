"""The command on videos, resume, and the same in Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from matroska import write_matroska
from onnx import TensorProto, helper, save

from distilpose import Predictor
from distilpose.cli.paths import CONFIG_DIR
from distilpose.data.synthetic.clip import draw_clip
from distilpose.errors import DistilPoseError
from distilpose.files import write_json
from distilpose.inference.detectors import WholeImage
from distilpose.inference.results_journal import ResultsJournal
from distilpose.inference.writing import VideoWriter, draw_rows
from distilpose.models import create_model, save_model
from distilpose.predict import main


def configured(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("predict", ["device=cpu", "flip_test=false", *map(str, overrides)])


def predict(*overrides):
    cfg = configured(*overrides)
    main.__wrapped__(cfg)
    return rows_of(Path(cfg.output))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("student_xs")
    model.head.linear.bias.data[2] += 0.8  # of the scores, so that joints are above the threshold
    return save_model(model, tmp_path_factory.mktemp("model") / "student.safetensors")


@pytest.fixture
def clip(tmp_path):
    """Twelve frames of a drawn person, and its boxes."""
    images, truth = draw_clip(np.random.default_rng(0), 12, size=64)
    writer = VideoWriter(tmp_path / "clip.avi", 25.0)
    for image in images:
        writer.write(image)
    writer.close()
    write_json(truth, tmp_path / "truth.json")
    return tmp_path / "clip.avi"


def rows_of(output):
    return json.loads((output / "results.json").read_text())


def test_a_video_with_tracks_and_a_table(clip, checkpoint, tmp_path):
    output = tmp_path / "out"
    settings = [f"checkpoint={checkpoint}", f"source={clip}", f"boxes={tmp_path / 'truth.json'}"]
    rows = predict(*settings, f"output={output}", "track=true", "csv=true")
    assert [row["frame"] for row in rows] == [row["image_id"] for row in rows] == list(range(12))
    assert [row["time"] for row in rows] == pytest.approx([n / 25 for n in range(12)])
    assert {row["track_id"] for row in rows} == {1}
    annotated = cv2.VideoCapture(str(output / "annotated.mp4"))
    assert annotated.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    table = (output / "results.csv").read_text().splitlines()
    assert len(table) == 13
    assert table[0].startswith(
        "image_id,frame,time,track_id,score,box_x,box_y,box_width,box_height,nose_x,nose_y,nose_score"
    )
    first = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    assert [float(first[f"nose_{part}"]) for part in ("x", "y", "score")] == rows[0]["keypoints"][:3]
    smooth = predict(*settings, f"output={tmp_path / 'smooth'}", "smooth=true", "draw=false", "smoothing.threshold=-9")
    raw, calm = (np.array([row["keypoints"] for row in results])[:, 0::3] for results in (rows, smooth))
    assert np.abs(np.diff(calm, 2, axis=0)).mean() < 0.8 * np.abs(np.diff(raw, 2, axis=0)).mean()
    assert sorted(path.name for path in (tmp_path / "smooth").iterdir()) == ["journal.jsonl", "results.json"]


def test_batches_do_not_change_what_is_found(clip, checkpoint, tmp_path):
    settings = [f"checkpoint={checkpoint}", f"source={clip}", f"boxes={tmp_path / 'truth.json'}", "draw=false"]
    results = [predict(*settings, f"output={tmp_path / str(size)}", f"batch_size={size}") for size in (1, 5, 32)]
    one, *others = (np.array([row["keypoints"] for row in rows]) for rows in results)
    for other in others:
        assert other == pytest.approx(one, abs=1e-3)


def test_the_predictor_finds_the_same_in_a_video(clip, checkpoint, tmp_path):
    rows = predict(
        f"checkpoint={checkpoint}", f"source={clip}", f"output={tmp_path / 'out'}", "smooth=true", "draw=false"
    )
    frames = list(Predictor(checkpoint, device="cpu").video(clip, smooth=True))
    assert [frame.number for frame in frames] == list(range(12))
    for frame, row in zip(frames, rows, strict=True):
        expected = np.array(row["keypoints"]).reshape(17, 3)
        assert frame.persons.keypoints[0].numpy() == pytest.approx(expected[:, :2], abs=1e-3)
        assert frame.track_id.tolist() == [row["track_id"]]
        assert frame.image.shape == (64, 64, 3)
    assert Predictor(checkpoint, device="cpu")(frames[0].image).keypoints.shape == (1, 17, 2)
    with pytest.raises(DistilPoseError, match=str(tmp_path)):
        next(Predictor(checkpoint, device="cpu").video(tmp_path))


def test_a_video_that_is_cut_off_keeps_what_was_decoded(clip, checkpoint, tmp_path):
    cut = tmp_path / "cut.mjpeg"
    frame = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    cut.write_bytes(frame * 5 + frame[: len(frame) // 2])
    assert len(predict(f"checkpoint={checkpoint}", f"source={cut}", f"output={tmp_path / 'a'}", "draw=false")) >= 5
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 64))
    for _ in range(20):
        writer.write(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    writer.release()
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(DistilPoseError, match="of 20 frames"):
        predict(f"checkpoint={checkpoint}", f"source={clip}", f"output={tmp_path / 'b'}")
    assert 5 < len(rows_of(tmp_path / "b")) < 15
    assert (tmp_path / "b" / "annotated.mp4").is_file()
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(DistilPoseError, match=r"empty\.mp4"):
        predict(f"checkpoint={checkpoint}", f"source={tmp_path / 'empty.mp4'}", f"output={tmp_path / 'c'}")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("track", "batch_size"), [(False, 1), (True, 1), (True, 2)])
def test_a_resumed_folder_equals_an_uninterrupted_one(track, batch_size, tiny_coco, checkpoint, tmp_path):
    """Stopped after one group of images, with an incomplete line; other settings are rejected."""
    root = tiny_coco(val=12)
    done = 4 * batch_size
    settings = [
        f"checkpoint={checkpoint}",
        f"source={root / 'val'}",
        f"batch_size={batch_size}",
        f"smooth={str(track).lower()}",
        "csv=true",
    ]
    uninterrupted, half = tmp_path / "uninterrupted", tmp_path / "half"
    predict(*settings, f"output={uninterrupted}")
    predict(*settings, f"output={half}")
    lines = (half / "journal.jsonl").read_text().splitlines(keepends=True)
    (half / "journal.jsonl").write_text(
        "".join(lines[: done + 1]) + lines[done + 1][:40]
    )  # settings, a group, incomplete
    for name in ("000010.jpg", "000009.jpg", "000002.jpg", "results.json"):
        (half / name).unlink()
    kept = (half / "000001.jpg").stat().st_mtime_ns
    with pytest.raises(DistilPoseError, match=r"nms_threshold was 0\.9, is 0\.5"):
        predict(*settings, f"output={half}", "resume=auto", "nms_threshold=0.5")
    with pytest.raises(DistilPoseError, match="resume=auto"):
        predict(*settings, f"output={half}")
    predict(*settings, f"output={half}", "resume=auto")
    assert rows_of(half) == rows_of(uninterrupted)
    for path in uninterrupted.iterdir():
        assert (half / path.name).read_bytes() == path.read_bytes(), path.name
    assert (half / "000001.jpg").stat().st_mtime_ns == kept


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_resumed_video(batch_size, clip, checkpoint, tmp_path):
    """With batches of two, groups have eight frames; a prediction that stops after four frames has other groups."""
    settings = [f"checkpoint={checkpoint}", f"source={clip}", "smooth=true", "draw=false", f"batch_size={batch_size}"]
    rows = predict(*settings, f"output={tmp_path / 'whole'}")
    assert len(predict(*settings, f"output={tmp_path / 'half'}", "frames=4")) == 4
    results = predict(*settings, f"output={tmp_path / 'half'}", "resume=auto")
    if batch_size == 1:
        assert results == rows
    for row, other in zip(rows, results, strict=True):
        assert other["keypoints"] == pytest.approx(row["keypoints"], abs=1e-3)


def test_a_resumed_video_with_tracked_boxes(clip, checkpoint, tmp_path):
    """Frames between runs of the detector need the persons of the frame before, also on resume."""
    row = helper.make_tensor("row", TensorProto.FLOAT, [1, 6], [4, 2, 60, 62, 0.9, 0])
    image, out = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("i", [1, 3, 64, 64]), ("o", [1, 6]))
    )
    graph = helper.make_graph([helper.make_node("Constant", [], ["o"], value=row)], "one", [image], [out])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tmp_path / "d.onnx"))
    detector = ["detector=onnx", f"detector.file={tmp_path / 'd.onnx'}", "detector.layout=rows", "detector.every=5"]
    settings = [f"checkpoint={checkpoint}", f"source={clip}", "smooth=true", "draw=false", *detector]
    rows = predict(*settings, f"output={tmp_path / 'whole'}")
    assert len({tuple(row["box"]) for row in rows}) > 2
    assert len(predict(*settings, f"output={tmp_path / 'half'}", "frames=7")) == 7
    assert predict(*settings, f"output={tmp_path / 'half'}", "resume=auto") == rows


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_a_resumed_prediction_that_stops_early_loses_nothing(kind, clip, checkpoint, tiny_coco, tmp_path, monkeypatch):
    source = clip if kind == "video" else tiny_coco(val=6) / "val"
    settings = [f"checkpoint={checkpoint}", f"source={source}", "smooth=true", "csv=true", f"output={tmp_path / 'out'}"]
    rows = predict(*settings)
    table = (tmp_path / "out" / "results.csv").read_bytes()
    stops = iter([False, False, True])

    def interrupted(*arguments):
        if next(stops):
            raise KeyboardInterrupt
        return draw_rows(*arguments)

    monkeypatch.setattr("distilpose.predict.draw_rows", interrupted)
    for path in (tmp_path / "out").glob("*.jpg"):
        path.unlink()  # so that images are read again
    with pytest.raises(SystemExit):
        main.__wrapped__(configured(*settings, "resume=auto"))
    assert next(stops, None) is None
    for row, other in zip(rows, rows_of(tmp_path / "out"), strict=True):
        assert other["keypoints"] == pytest.approx(row["keypoints"], abs=1e-4)
        assert other["track_id"] == row["track_id"]
    assert (tmp_path / "out" / "results.csv").read_bytes().count(b"\n") == table.count(b"\n")
    if kind == "video":
        monkeypatch.undo()
        assert len(predict(*settings, "resume=auto", "frames=3")) == 12
        annotated = cv2.VideoCapture(str(tmp_path / "out" / "annotated.mp4"))
        assert annotated.get(cv2.CAP_PROP_FRAME_COUNT) == 12


def test_persons_are_tracked_between_runs_of_the_detector(clip, checkpoint):
    runs = []

    class Rare(WholeImage):
        every = 4

        def __call__(self, image):
            runs.append(1)
            return super().__call__(image)

    predictor = Predictor(checkpoint, device="cpu", detector=Rare())
    frames = list(predictor.video(clip))
    assert len(frames) == 12
    confident = [int((frame.persons.scores > 0.2).sum()) for frame in frames]
    assert len(runs) == sum(n % 4 == 0 or before < 3 for n, before in enumerate([0, *confident[:-1]]))


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (["boxes=truth.json", "detector=torchvision"], ["boxes=truth.json", "detector"]),
        (["source=webcam", "resume=auto"], ["source=webcam", "resume"]),
        (["source=photo.png", "detector=torchvision", "detector.every=3"], ["detector.every=3", "video"]),
    ],
)
def test_settings_that_do_not_fit_together(overrides, facts, clip, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distilpose.inference.videos.cv2.VideoCapture", _Camera)
    monkeypatch.setattr("distilpose.inference.detectors._torchvision_model", lambda *_: torch.nn.Identity())
    cv2.imwrite("photo.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DistilPoseError) as error:
        predict(f"checkpoint={checkpoint}", f"source={clip}", "output=out", *overrides)
    assert all(fact in str(error.value) for fact in facts)
    assert not (tmp_path / "out").exists()


class _Camera:
    def __init__(self, *_):
        pass

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return 0.0

    def read(self):
        return True, np.zeros((32, 32, 3), np.uint8)

    def release(self):
        pass


def test_a_camera_stops_after_a_number_of_frames(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("distilpose.inference.videos.cv2.VideoCapture", _Camera)
    journals, add = [], ResultsJournal.add
    monkeypatch.setattr(ResultsJournal, "add", lambda self, done: journals.append(self) or add(self, done))
    rows = predict(f"checkpoint={checkpoint}", "source=0", f"output={tmp_path / 'out'}", "frames=3", "csv=true")
    assert [row["frame"] for row in rows] == [0, 1, 2]
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 4
    assert len(journals) == 3
    assert journals[0].rows == {}  # rows of a camera would fill the memory


@pytest.mark.slow
def test_ctrl_c_keeps_the_results(checkpoint, tmp_path):
    source, output = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    content = cv2.imencode(".png", np.zeros((40, 30, 3), np.uint8))[1].tobytes()
    for number in range(5000):  # more than it can finish before the signal, on a loaded machine too
        (source / f"{number:05d}.png").write_bytes(content)
    arguments = [f"checkpoint={checkpoint}", f"source={source}", f"output={output}", "device=cpu", "batch_size=4"]
    work = subprocess.Popen(
        [sys.executable, "-m", "distilpose.predict", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    end = time.monotonic() + 400
    while time.monotonic() < end and len(list(output.glob("*.jpg"))) < 8:
        time.sleep(0.05)
    work.send_signal(signal.SIGINT)
    errors = work.communicate(timeout=400)[1]
    assert work.returncode == 130, errors
    assert "Traceback" not in errors
    assert 8 <= len(rows_of(output)) < 5000


def test_boxes_of_frames_that_are_shifted_by_one(clip, checkpoint, tmp_path, caplog):
    truth = json.loads((tmp_path / "truth.json").read_text())
    for row in truth["annotations"]:
        row["image_id"] += 1
    write_json(
        [{key: row[key] for key in ("image_id", "bbox")} for row in truth["annotations"]], tmp_path / "late.json"
    )
    settings = [f"checkpoint={checkpoint}", f"source={clip}", "draw=false"]
    rows = predict(*settings, f"boxes={tmp_path / 'truth.json'}", f"output={tmp_path / 'right'}")
    caplog.clear()
    late = predict(*settings, f"boxes={tmp_path / 'late.json'}", f"output={tmp_path / 'late'}")
    assert [row["frame"] for row in late] == list(range(1, 12))
    assert "1 boxes of 1 frames that are not there" in caplog.text
    assert "first_frame=1" in caplog.text
    mended = predict(*settings, f"boxes={tmp_path / 'late.json'}", f"output={tmp_path / 'mended'}", "first_frame=1")
    assert [row["box"] for row in mended] == [row["box"] for row in rows]


def test_a_whole_video_of_varying_rate(checkpoint, tmp_path, capsys):
    """It ends with status 0, has the times of the file, and the drawing has its length."""
    times = [0, 0.04, 0.08, 0.5, 0.54, 1.0]
    images = [np.full((48, 64, 3), 40 * number, np.uint8) for number in range(6)]
    path = write_matroska(tmp_path / "phone.mkv", images, times, duration=1.5, fps=25)
    rows = predict(f"checkpoint={checkpoint}", f"source={path}", f"output={tmp_path / 'out'}")
    assert [row["time"] for row in rows] == pytest.approx(times, abs=2e-3)
    assert "on 6 frames" in capsys.readouterr().out
    annotated = cv2.VideoCapture(str(tmp_path / "out" / "annotated.mp4"))
    assert annotated.get(cv2.CAP_PROP_FRAME_COUNT) / annotated.get(cv2.CAP_PROP_FPS) == pytest.approx(1.04, abs=0.05)
