"""Conventions of foreign teachers: a perfect map in theirs must be a perfect map in ours, seen through real pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from dots import FACE, DotFinder, write_dots
from torch import Tensor
from vitposes import perfect_vitpose

from distilpose import create_model
from distilpose.data import CocoKeypoints
from distilpose.data.geometry import region_of_box, warp_image, warp_of_region
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD, PoseBatch
from distilpose.teachers.convention import Convention
from distilpose.teachers.module import ModuleNetwork
from distilpose.teachers.network import Network, NetworkSource, NetworkTeacher
from distilpose.teachers.recorded import RecordedTeacher
from distilpose.teachers.recorder import record
from distilpose.teachers.vitpose import VitPoseNetwork

NETWORKS = {
    "release": (Convention.by_ratio((256, 192), (64, 48)), None),
    "release, larger": (Convention.by_ratio((384, 288), (96, 72)), None),
    "udp": (Convention.udp((256, 192), (64, 48)), None),
    "simcc": (Convention.by_ratio((256, 192), (64, 48)), 2.0),
    "square with an offset": (Convention.by_ratio((256, 256), (64, 64), padding=1.0, offset=1.5), None),
    "square, udp, coarse": (Convention.udp((256, 256), (32, 32), padding=1.5), None),
}
VITPOSES = {"vitpose": (256, 192), "vitpose, square": (256, 256)}
KINDS = [*NETWORKS, *VITPOSES]
SIZES = [(256, 192), (128, 96)]
SMALL = {"depth": 1, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2}


def make_network(kind: str) -> Network:
    """The perfect teacher; its convention is the stated one, not what would be read from shapes.

    A ViTPose's maps are in the convention of its authors, and the convention of the network is what it read itself.
    """
    if kind in VITPOSES:
        return VitPoseNetwork(perfect_vitpose(FACE.names, DotFinder, VITPOSES[kind]), kind, {})
    convention, ratio = NETWORKS[kind]
    rule = "udp" if convention.unbiased else "ratio"
    finder = DotFinder(convention, ratio)
    network = ModuleNetwork(finder, kind, convention.input_size, FACE.names, rule, convention.padding)
    if max(convention.offset) == 0:
        assert network.convention == convention
    network.convention = convention
    return network


@pytest.fixture
def persons(tmp_path):
    """Eight photographs of three dots, and boxes around them in which the dots are well inside every crop."""
    draw = np.random.default_rng(0)
    images, people, joints = [], [], []
    for number in range(8):
        width, height = draw.uniform(100, 180, 2)
        x, y = draw.uniform(60, 120, 2)
        places = np.array([x, y]) + draw.uniform(0.25, 0.75, (3, 2)) * (width, height)
        write_dots(tmp_path / f"{number}.png", places, (360, 400))
        images.append({"id": number, "file_name": f"{number}.png", "height": 360, "width": 400})
        row = [value for u, v in places for value in (u, v, 2)]
        people.append(
            {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [x, y, width, height], "keypoints": row,
             "area": width * height, "num_keypoints": 3, "iscrowd": 0}
        )  # fmt: skip
        joints.append(places)
    category = {"id": 1, "name": "face", "keypoints": list(FACE.names), "skeleton": []}
    path = tmp_path / "dots.json"
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return CocoKeypoints(path, tmp_path, input_size=(256, 192)), np.stack(joints)


def views(dataset, joints, size, mirrored: bool, rotation: float) -> tuple[PoseBatch, Tensor]:
    """A batch of the persons in views of a student, and the truth in cells of its maps.

    In a mirrored view the left eye is where the right one was; the colours are exchanged, as a person's look would be.
    """
    crops, warps = [], []
    order = FACE.flip_order if mirrored else [0, 1, 2]
    for number, box in enumerate(dataset.instances.boxes):
        image = dataset.read_image(int(dataset.instances.image_ids[number]))
        box = box.copy()
        if mirrored:
            box[0] = image.shape[1] - 1 - box[0] - box[2]
        region = region_of_box(box, size, 1.4)
        warp = warp_of_region(region, size, rotation, image.shape[1] if mirrored else None)
        crop = warp_image(image, warp, size)[..., ::-1].astype(np.float32) / 255
        crops.append((crop[..., order] - IMAGENET_MEAN) / IMAGENET_STD)
        warps.append(warp)
    images = torch.from_numpy(np.stack(crops)).float().permute(0, 3, 1, 2)
    matrices = np.stack(warps)
    pixels = np.einsum("nij,nkj->nki", matrices[:, :, :2], joints) + matrices[:, None, :, 2]
    truth = torch.from_numpy(pixels[:, order] / 4).float()
    count, ones = len(crops), torch.ones(len(crops), 3)
    ids = torch.as_tensor(dataset.instances.annotation_ids)
    batch = PoseBatch(
        images, truth * 4 / truth.new_tensor([size[1], size[0]]), ones, ones, torch.from_numpy(matrices), ids, ids,
        torch.from_numpy(dataset.instances.boxes), torch.ones(count),
    )  # fmt: skip
    return batch, truth


def expectation(maps: Tensor) -> Tensor:
    """(N, K, 2) mean x and y of maps read as distributions."""
    total = maps.sum(dim=(-2, -1))
    x = (maps.sum(-2) * torch.arange(maps.shape[-1])).sum(-1) / total
    y = (maps.sum(-1) * torch.arange(maps.shape[-2])).sum(-1) / total
    return torch.stack([x, y], dim=-1)


@pytest.mark.parametrize(("mirrored", "rotation"), [(False, 0.0), (True, 0.0), (False, 30.0), (True, -40.0)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_live_teacher_is_perfect_in_the_students_cells(kind, size, mirrored, rotation, persons):
    batch, truth = views(*persons, size, mirrored, rotation)
    teacher = NetworkTeacher(make_network(kind), pad=True)
    teacher.set_student(create_model("student_xs", skeleton=FACE, input_size=size, **SMALL))
    output = teacher(batch)
    assert output.trust.min() > 0.8
    assert (expectation(output.heatmaps) - truth).abs().max() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_recorded_teacher_is_perfect_in_every_view(kind, persons, tmp_path):
    source = NetworkSource(make_network(kind))
    recorded = RecordedTeacher(record(source, persons[0], tmp_path / "recording"), check=False)
    for size in SIZES:
        recorded.set_student(create_model("student_xs", skeleton=FACE, input_size=size, **SMALL))
        for mirrored, rotation in ((False, 0.0), (True, 0.0), (False, 30.0), (True, -40.0)):
            batch, truth = views(*persons, size, mirrored, rotation)
            output = recorded(batch)
            assert output.trust.min() > 0.8
            assert (expectation(output.heatmaps) - truth).abs().max() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_cells_are_the_joints_in_the_image(kind, persons):
    dataset, joints = persons
    images = [dataset.read_image(int(number)) for number in dataset.instances.image_ids]
    output = NetworkSource(make_network(kind))(images, dataset.instances.boxes)
    cells = np.einsum("nij,nkj->nki", output.warps[:, :, :2], joints) + output.warps[:, None, :, 2]
    assert np.abs(expectation(torch.from_numpy(output.heatmaps)).numpy() - cells).max() < 0.05
    if (
        output.cells is not None
    ):  # SimCC: the highest bin, half a bin of 1 / 8 cell off at most; ViTPose: one Newton step
        assert np.abs(output.cells - cells).max() < 0.08
