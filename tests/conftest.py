"""Fixtures for all tests: numbers of the public release, real photographs, tiny data sets and trainings."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from distilpose.skeleton import COCO, Skeleton

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
# tests run in parallel with one core each; so do the processes that they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def nothing_ignored():
    """Ignore no signal, here and in the processes that tests start, even if the tests run under nohup or behind `&`."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def enabled_loggers():
    """Enable the package's loggers again, which Hydra disables in this process when a test runs a command."""
    yield
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("distilpose") and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs named by DISTILPOSE_DATA (holds coco-mini and lspet)."""
    place = os.environ.get("DISTILPOSE_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("DISTILPOSE_DATA names no folder of real photographs")
    return Path(place).resolve()


@pytest.fixture(scope="session")
def release_fixtures() -> Path:
    """The folder of numbers computed by the public release; see its README."""
    return Path(__file__).resolve().parent / "fixtures" / "release"


@pytest.fixture
def run_train(tmp_path, monkeypatch, capsys):
    """Run the train command in tmp_path; return the exit status and standard error."""
    from distilpose import train  # here, because it imports Lightning, which takes seconds

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        try:
            train.main()
        except SystemExit as stop:  # if the code is a text, the interpreter prints it and the status is 1
            stderr = capsys.readouterr().err
            return (1, stderr + stop.code) if isinstance(stop.code, str) else (int(stop.code or 0), stderr)
        return 0, capsys.readouterr().err

    return call


@pytest.fixture
def trained_by(run_train, tiny_coco, tmp_path):
    """Create a function that trains with the same settings on one tiny data set.

    `train = trained_by(settings, train=10)`; then `train("name", *overrides)` trains in that folder and returns it.
    `train.root` is the folder of the data set, which has 10 training images.
    """

    def make(settings: list[str], **images: int) -> Callable[..., Path]:
        root = tiny_coco(**images)

        def call(name: str, *arguments: str) -> Path:
            status, stderr = run_train(*settings, f"data.root={root}", f"hydra.run.dir={name}", *arguments)
            assert status == 0, stderr
            return tmp_path / name

        call.root = root
        return call

    return make


@pytest.fixture(scope="session")
def _tiny_run(tmp_path_factory) -> Path:
    from hydra import compose, initialize_config_dir

    from distilpose import train
    from distilpose.cli.paths import CONFIG_DIR

    place = tmp_path_factory.mktemp("tiny_run")
    overrides = [
        "data=custom", f"data.root={_tiny_set(place / 'data')}", "data.batch_size=4", "data.num_workers=0", "augmentation=none",
        "model=student_xs", "model.depth=1", "model.width=32", "model.heads=2", "loss=regression", "logger=none",
        "scheduler.warmup_steps=0", "trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1",
        "trainer.num_sanity_val_steps=0", "~callbacks.health", "~callbacks.details", "~callbacks.progress",
    ]  # fmt: skip
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", [*overrides, f"folder={place / 'run'}"])
    train.fit(cfg)
    return place / "run"


@pytest.fixture
def tiny_run(_tiny_run: Path, tmp_path: Path) -> Path:
    """A copy (tmp_path/run) of a finished training of two epochs; all tests share the training."""
    return Path(shutil.copytree(_tiny_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Import a file of scripts/ by its name; scripts/ is not a package."""

    def call(name: str) -> ModuleType:
        place = Path(__file__).resolve().parents[1] / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return call


@pytest.fixture
def assert_same_end():
    """Assert that two runs are bit-identical: the table without times, and everything in the last checkpoint except the loop
    counters and the callbacks' states."""
    import torch

    from distilpose.callbacks.metrics_table import read_table

    def differences(one, other, name: str) -> list[str]:
        if torch.is_tensor(one):
            return [] if torch.equal(one, other) else [name]
        if isinstance(one, dict):
            if one.keys() != other.keys():
                return [name]
            return [path for key in one for path in differences(one[key], other[key], f"{name}.{key}")]
        if isinstance(one, (list, tuple)):
            pairs = zip(one, other, strict=True)
            return [path for number, pair in enumerate(pairs) for path in differences(*pair, f"{name}.{number}")]
        return [] if one == other else [name]

    def call(run: Path, uninterrupted: Path) -> None:
        endings = []
        for folder in (run, uninterrupted):
            content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in read_table(folder / "metrics.csv")]
            endings.append({"rows": rows} | {k: v for k, v in content.items() if k not in ("loops", "callbacks")})
        assert differences(*endings, "run") == []

    return call


# positions of COCO's joints in the box of a standing person, as shares of its width and height
STANDING = np.array(
    [(.50, .07), (.55, .05), (.45, .05), (.60, .07), (.40, .07), (.72, .22), (.28, .22), (.85, .38), (.15, .38),
     (.92, .52), (.08, .52), (.63, .52), (.37, .52), (.65, .74), (.35, .74), (.66, .96), (.34, .96)]
)  # fmt: skip


@pytest.fixture
def tiny_coco(tmp_path: Path) -> Callable[..., Path]:
    """Create small data sets in COCO format, with the files that `data=custom` expects.

    `tiny_coco(train=8, val=4, skeleton=COCO, seed=0)` writes annotations/{train,val}.json, {train,val}/*.jpg (noise
    with a dot at each joint, one or two persons an image, the last image of a split without any) and detections.json
    (detector boxes for val), and returns the folder.
    """

    def make(train: int = 8, val: int = 4, skeleton: Skeleton = COCO, seed: int = 0) -> Path:
        return _tiny_set(tmp_path / f"coco_{len(list(tmp_path.glob('coco_*')))}", train, val, skeleton, seed)

    return make


def _tiny_set(root: Path, train: int = 8, val: int = 4, skeleton: Skeleton = COCO, seed: int = 0) -> Path:
    for split, count in (("train", train), ("val", val)):
        content = _tiny_split(root / split, count, skeleton, np.random.default_rng((seed, count, len(split))))
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content))
    boxes = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": 0.9}
        for person in content["annotations"]
    ]
    (root / "detections.json").write_text(json.dumps(boxes))
    return root


def _tiny_split(folder: Path, count: int, skeleton: Skeleton, draw: np.random.Generator) -> dict:
    """Write images and return the content of their annotation file."""
    folder.mkdir(parents=True)
    width, height = 160, 120
    template = STANDING[np.arange(skeleton.num_keypoints) % len(STANDING)]
    images, annotations = [], []
    for number in range(1, count + 1):
        image = draw.integers(0, 90, (height, width, 3), dtype=np.uint8)
        for _ in range(0 if number == count and count > 1 else 1 + number % 2):
            box = np.array([draw.uniform(2, 90), draw.uniform(2, 20), draw.uniform(30, 60), draw.uniform(70, 95)])
            joints = box[:2] + box[2:] * template
            visible = np.where(draw.random(len(joints)) < 0.1, 0, 2)
            visible[0] = 2
            for index, (x, y) in enumerate(joints[visible > 0]):
                cv2.circle(image, (round(x), round(y)), 2, (255 - 9 * index, 80 + 9 * index, 255), -1)
            annotations.append(
                {
                    "id": 100 * number + len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": box.round(2).tolist(),
                    "area": round(float(box[2] * box[3]) / 2, 2),
                    "num_keypoints": int((visible > 0).sum()),
                    "keypoints": (np.c_[joints.round(2), visible] * (visible > 0)[:, None]).ravel().tolist(),
                }
            )
        cv2.imwrite(str(folder / f"{number:06d}.jpg"), image)
        images.append({"id": number, "file_name": f"{number:06d}.jpg", "width": width, "height": height})
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.names), "skeleton": limbs}
    return {"images": images, "annotations": annotations, "categories": [category]}
