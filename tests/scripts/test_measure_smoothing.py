"""A clip is drawn, predicted and measured, as docs/prediction.md does."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from measure_smoothing import steadiness

from distilpose.files import write_json


def test_a_constant_offset_has_no_jitter():
    walk = np.stack([np.arange(20.0), np.zeros(20)], axis=-1)[:, None]
    metrics = steadiness(walk + np.array([3, 0]), walk, torso=10)
    assert metrics == pytest.approx((0, 0, 3, 0))
    assert steadiness(walk + np.array([2, 0]), walk, torso=10).pck == 1


def test_alternating_by_one_pixel_is_an_acceleration_of_four():
    rest = np.zeros((20, 1, 2))
    shaken = rest + (-1.0) ** np.arange(20)[:, None, None] * np.array([1, 0])
    assert steadiness(shaken, rest, torso=10)[:3] == pytest.approx((4, 4, 1))
    assert steadiness(rest, shaken, torso=10)[:2] == pytest.approx((-4, 4))


def test_a_clip_drawn_and_measured(load_script, tmp_path, capsys):
    name = tmp_path / "clip"
    load_script("draw_clip").main([f"{name}.avi", f"{name}.json", "--frames", "10", "--size", "64"])
    assert cv2.VideoCapture(f"{name}.avi").get(cv2.CAP_PROP_FRAME_COUNT) == 10
    rows = []
    for one in json.loads((tmp_path / "clip.json").read_text())["annotations"]:
        x, y, frame = one["keypoints"][0::3], one["keypoints"][1::3], one["image_id"]
        noisy = [value for a, b in zip(x, y, strict=True) for value in (a + (-1) ** frame, b, 1.0)]
        rows.append({"frame": frame, "time": frame / 25, "box": one["bbox"], "keypoints": noisy})
    write_json(rows, name / "results.json")
    capsys.readouterr()
    measure = load_script("measure_smoothing").main
    measure([str(name), "--min-cutoff", "2", "--beta", "0"])
    raw, smoothed = (
        [float(cell) for cell in line.split("|")[3:6]] for line in capsys.readouterr().out.splitlines()[2:]
    )
    assert raw[2] == pytest.approx(1, abs=0.01)  # the noise added to the truth
    assert raw[1] == pytest.approx(4, abs=0.01)
    assert smoothed[0] < 0.5 * raw[0]
    measure([str(name), "--tune"])
    assert "Least jitter" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"nowhere\.json"):
        measure([str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match=r"'\.xyz'.*\.avi or \.mp4"):
        load_script("draw_clip").main([f"{name}.xyz", f"{name}_xyz.json", "--frames", "2", "--size", "64"])
    write_json(rows[:-1], name / "results.json")
    with pytest.raises(SystemExit, match="one person in each of the 10 frames"):
        measure([str(name)])
