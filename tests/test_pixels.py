"""A network of another mean than ImageNet's sees the same pixels in training, evaluation, prediction and exported files."""

from __future__ import annotations

import functools
import json

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from distilpose import diagnose, evaluate
from distilpose.cli.paths import CONFIG_DIR
from distilpose.data import CocoDataModule
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region
from distilpose.exporting import formats
from distilpose.exporting.graph import output_names, trace
from distilpose.exporting.metadata import describe
from distilpose.inference import Predictor
from distilpose.losses import DistillationLoss
from distilpose.models import create_model, load_model, save_model
from distilpose.models.hourglass import Hourglass
from distilpose.modules import DistillationModule
from distilpose.runtime import Runtime

SIZE = {"depth": 1, "width": 32, "heads": 2}
HALF = (0.5, 0.5, 0.5)
PLAIN = {"visual_token": 0, "keypoint_token": 0, "confidence": 0, "simulated_heatmap": 0}


@pytest.fixture
def root(tiny_coco):
    return tiny_coco(train=3, val=3)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = create_model("student_xs", **SIZE, mean=HALF, std=HALF).eval()
    model.head.linear.weight.data *= 20  # spreads the joints over the crop
    return save_model(model, tmp_path / "half.safetensors", padding=1.25)


@pytest.fixture
def seen(monkeypatch):
    """All images that backbones get, one after the other."""
    images: list[torch.Tensor] = []
    forward = Hourglass.forward
    monkeypatch.setattr(Hourglass, "forward", lambda self, batch: images.extend(batch) or forward(self, batch))
    return images


def crops_of(root, split):
    """(N, 3, H, W) of the persons of a split, in the range -1 to 1 that a network of mean and std 0.5 expects."""
    content = json.loads((root / "annotations" / f"{split}.json").read_text())
    files = {image["id"]: image["file_name"] for image in content["images"]}
    crops = []
    for person in content["annotations"]:
        image = cv2.imread(str(root / split / files[person["image_id"]]))[..., ::-1]
        x, y, width, height = person["bbox"]
        box = np.array([x, y, min(159, x + max(0, width - 1)) - x, min(119, y + max(0, height - 1)) - y])
        warp = warp_of_region(region_of_box(box, (64, 48), 1.25), (64, 48))
        crops.append(warp_image(np.ascontiguousarray(image), warp, (64, 48)).transpose(2, 0, 1) / 127.5 - 1)
    return torch.from_numpy(np.stack(crops)).float()


def run(task, name, root, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        about = ["data=custom", f"data.root={root}", "data.num_workers=0", "device=cpu", "flip_test=false", *overrides]
        return task.main.__wrapped__(compose(name, about))


def test_training(root, checkpoint, seen):
    files = [f"{kind}{split}" for split in ("train", "val") for kind in ("annotations/", "")]
    files = [f"{file}.json" if "/" in file else file for file in files]
    datamodule = CocoDataModule(root, *files, input_size=(64, 48), batch_size=2, num_workers=0)
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    module = DistillationModule(load_model(checkpoint), DistillationLoss(**PLAIN), optimizer=adam)
    for batch in datamodule.train_dataloader():
        module.terms(batch)
    expected = crops_of(root, "train")
    assert len(seen) >= 2
    for image in seen:
        assert (image - expected).abs().amax((1, 2, 3)).min() < 1e-5


@pytest.mark.parametrize("command", ["evaluate", "diagnose"])
def test_evaluation(root, checkpoint, seen, tmp_path, command, monkeypatch):
    monkeypatch.setattr(diagnose, "draw_diagnosis", lambda report, folder: [])
    run({"evaluate": evaluate, "diagnose": diagnose}[command], command, root, f"checkpoint={checkpoint}",
        f"output={tmp_path / 'out'}")  # fmt: skip
    torch.testing.assert_close(torch.stack(seen), crops_of(root, "val"), rtol=0, atol=1e-5)


def boxes_of_first_image(root):
    content = json.loads((root / "annotations" / "val.json").read_text())
    boxes = [person["bbox"] for person in content["annotations"] if person["image_id"] == 1]
    return cv2.imread(str(root / "val" / content["images"][0]["file_name"]))[..., ::-1], boxes


def crops_of_boxes(image, boxes):
    warps = [warp_of_region(region_of_box(np.array(box), (64, 48), 1.25), (64, 48)) for box in boxes]
    crops = [warp_image(np.ascontiguousarray(image), warp, (64, 48)).transpose(2, 0, 1) / 127.5 - 1 for warp in warps]
    return torch.from_numpy(np.stack(crops)).float()


def test_prediction(root, checkpoint, seen):
    image, boxes = boxes_of_first_image(root)
    Predictor(checkpoint, device="cpu", flip_test=False)(np.ascontiguousarray(image), boxes)
    torch.testing.assert_close(torch.stack(seen), crops_of_boxes(image, boxes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_exported_files(root, checkpoint, tmp_path, normalise):
    model = load_model(checkpoint)
    about = describe(model, checkpoint, "averaged", "float32", normalise, False, 1.25)
    built = formats.build("onnx", trace(model, normalise, False), output_names("student", False))
    formats.save("onnx", built, tmp_path / "half.onnx", about)
    image, boxes = boxes_of_first_image(root)
    poses = Runtime(tmp_path / "half.onnx", flip_test=False)(np.ascontiguousarray(image), boxes)
    model.set_network_normalisation(model.mean, model.std)  # the network alone, for crops of its own mean
    with torch.no_grad():
        expected = model(crops_of_boxes(image, boxes))
    scores = expected.scores if model.scores_trained else torch.ones_like(expected.scores)
    np.testing.assert_allclose(poses.scores, scores.numpy(), atol=1e-4)
    centre = np.array(boxes)[:, None, :2] + np.array(boxes)[:, None, 2:] / 2
    spread = (poses.keypoints - centre) / (
        expected.keypoints.numpy() - 0.5
    )  # pixels of the photograph a crop, per person
    assert np.ptp(spread, axis=1).max() < 0.05 * spread.mean()
