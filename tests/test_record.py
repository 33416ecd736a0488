from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from distilpose import load_model
from distilpose.cli.paths import CONFIG_DIR
from distilpose.data import CocoKeypoints
from distilpose.data.codec import decode_heatmaps
from distilpose.models import create_model, save_model
from distilpose.modules import FrozenTeacher, RecordedTeacher, load_recorded
from distilpose.record import main


def record(root, *overrides):
    data = ["data=custom", f"data.root={root}", "device=cpu"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return main.__wrapped__(compose("record", [*data, *map(str, overrides)]))


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    return save_model(create_model("teacher_xs", input_size=(96, 72)), tmp_path / "teacher.safetensors")


def test_a_checkpoint_is_recorded_in_its_own_crops(tiny_coco, checkpoint, tmp_path, capsys):
    root, output = tiny_coco(train=6), tmp_path / "out"
    recording = record(root, f"teacher.checkpoint={checkpoint}", f"output={output}")
    assert f"teacher.file={output}" in capsys.readouterr().out
    dataset = CocoKeypoints(root / "annotations" / "train.json", root / "train", input_size=(96, 72))
    assert recording.maps.shape == (len(dataset), 17, 24, 18)
    model = load_model(checkpoint).eval()
    with torch.no_grad():
        expected = model(torch.stack([person.image for person in dataset])).heatmaps
    torch.testing.assert_close(torch.from_numpy(recording.maps.astype(np.float32)), expected, atol=1e-3, rtol=1e-3)
    # the map's peak, from crop pixels to image pixels
    position, peak = decode_heatmaps(expected)
    warps = torch.stack([person.warp for person in dataset])
    pixels = torch.from_numpy(recording.persons["place"].copy()) @ warps[:, :, :2].mT + warps[:, None, :, 2]
    torch.testing.assert_close(pixels, position * torch.tensor([72.0, 96]), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.from_numpy(recording.persons["trust"].copy()), peak.clamp(0, 1))
    # the noise floor is the network's
    assert RecordedTeacher(recording).floor == FrozenTeacher(model).floor > 0
    model.set_heatmap_activation("softmax")
    softmax = save_model(model, tmp_path / "softmax.safetensors")
    softmax_recording = record(root, f"teacher.checkpoint={softmax}", f"output={tmp_path / 'softmax'}")
    assert RecordedTeacher(softmax_recording).floor == FrozenTeacher(model).floor == 0
    # a second call finds the recording
    assert (record(root, f"teacher.checkpoint={checkpoint}", f"output={output}").maps == recording.maps).all()


def test_views_are_part_of_what_is_recorded(tiny_coco, checkpoint, tmp_path):
    """Recordings in one view and in eight are two; the sides of mirrored views are the data's."""
    root, folder = tiny_coco(train=4), f"folder={tmp_path / 'all'}"
    one, eight = (
        record(root, f"teacher.checkpoint={checkpoint}", folder, *views)
        for views in ([], ["quarter_turns=true", "flip_test=true"])
    )
    assert one.path != eight.path
    assert eight.about["source"]["views"]["quarter_turns"] == 4
    assert eight.about["source"]["sha256"] == one.about["source"]["sha256"]
    assert np.abs(eight.maps - one.maps).max() > 0.01
    assert record(root, f"teacher.checkpoint={checkpoint}", folder).path == one.path


def test_a_shared_folder_gives_the_recording_of_its_file(tiny_coco, checkpoint, tmp_path):
    root, shared = tiny_coco(train=3), tmp_path / "shared"
    shared.mkdir()
    (shared / "model.safetensors").write_bytes(checkpoint.read_bytes())
    paths = [
        record(root, f"teacher.checkpoint={one}", f"output={tmp_path / 'out'}").path for one in (shared, checkpoint)
    ]
    assert paths[0] == paths[1]


def test_recordings_are_named_after_teacher_and_data(tiny_coco, checkpoint, tmp_path):
    root = tiny_coco(train=4, val=3)
    train, val = (
        record(root, f"teacher.checkpoint={checkpoint}", f"split={split}", f"folder={tmp_path / 'all'}", "batch_size=2")
        for split in ("train", "val")
    )
    folders = [path.name for path in (tmp_path / "all").iterdir() if path.is_dir()]
    assert sorted(folders) == sorted([train.path.name, val.path.name])
    assert train.path.name.startswith("teacher_xs_train_")
    assert load_recorded(val.path).recording.about["annotations"] == "val.json"


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        ([], r"teacher\.checkpoint is not set"),
        (["teacher=recorded"], "load_recorded.*teacher=checkpoint"),
        (["teacher=several"], r"teacher\.first\.checkpoint is not set"),
        (["teacher=several", "teacher.second=null"], r"teacher\.second=null.*~teacher\.second"),
        (["teacher=several", "+teacher.least_trust=0.5"], r"teacher\.least_trust=0\.5.*teacher\.first\.least_trust"),
        (["teacher=several", "~teacher.second"], r"1 teacher.*teacher@teacher\.second"),
        (["teacher.checkpoint=absent.ckpt"], r"absent\.ckpt"),
    ],
)
def test_mistakes_in_the_teacher_are_found_before_the_data_is_read(overrides, facts):
    with pytest.raises(Exception, match=facts):  # Hydra wraps some
        record("no such folder", *overrides)


def test_a_recorded_teacher_trains_a_smaller_student(tiny_coco, checkpoint, tmp_path, run_train):
    root, output = tiny_coco(train=8), tmp_path / "out"
    record(root, f"teacher.checkpoint={checkpoint}", f"output={output}")
    quick = [
        "logger=none",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "data.num_workers=0",
        "data.batch_size=4",
    ]
    status, stderr = run_train(
        "data=custom", f"data.root={root}", "model=student_xs", "loss=simulated_heatmap_confidence",
        "teacher=recorded", "teacher.check=false", f"teacher.file={output}", "hydra.run.dir=run", "scheduler=cosine", *quick,
    )  # fmt: skip
    assert status == 0, stderr
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
