"""Random views: joints follow the pixels, ranges are kept, seeds repeat them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from distilpose.data.augmentation import PoseAugmentation
from distilpose.data.coco import CocoKeypoints
from distilpose.data.geometry import region_of_box, warp_of_region, warp_points
from distilpose.skeleton import COCO

SIZE = (128, 96)
BOX = np.array([40.0, 30, 50, 80])
STILL = {"flip_prob": 0, "half_body_prob": 0, "shift_prob": 0, "scale": 0, "rotation_prob": 0}


def views(count, keypoints=None, labelled=None, **options):
    keypoints = np.tile(BOX[:2] + BOX[2:] / 2, (17, 1)) if keypoints is None else keypoints
    labelled = np.ones(17, dtype=bool) if labelled is None else labelled
    augmentation = PoseAugmentation(**STILL | options)
    return [augmentation.view(BOX, keypoints, labelled, 200, SIZE, COCO) for _ in range(count)]


def scale_and_turn(view):
    """Scale (crop pixels per image pixel) and angle in degrees of a view that does not mirror."""
    (a, b), _ = view.warp[:, :2]
    return np.hypot(a, b), np.degrees(np.arctan2(b, a))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_nothing_drawn_is_the_plain_crop():
    (view,) = views(1)
    np.testing.assert_array_equal(view.warp, warp_of_region(region_of_box(BOX, SIZE), SIZE))
    assert not view.flipped


def test_flip_mirrors_about_the_images_middle_and_half_of_the_time():
    drawn = views(400, flip_prob=0.5)
    assert 160 < sum(view.flipped for view in drawn) < 240
    flipped = next(view for view in drawn if view.flipped).warp
    region = region_of_box(BOX, SIZE)
    # a pixel on one side of the centre is on the other side in the mirrored crop
    point = region.centre + np.array([3, 5])
    middle = np.array([SIZE[1] / 2, SIZE[0] / 2])
    scale = SIZE[1] / region.size[0]
    np.testing.assert_allclose(warp_points(point[None], flipped)[0], middle + scale * np.array([-3, 5]), atol=1e-3)


def test_scale_and_rotation_keep_their_ranges_and_spread():
    plain = scale_and_turn(views(1)[0])[0]
    drawn = np.array([scale_and_turn(view) for view in views(1500, scale=0.35, rotation_prob=0.6, rotation=45)])
    factors, turns = plain / drawn[:, 0], drawn[:, 1]
    assert factors.min() == pytest.approx(0.65, abs=1e-3)
    assert factors.max() == pytest.approx(1.35, abs=1e-3)
    assert np.median(factors) == pytest.approx(1, abs=0.04)
    assert 0.36 < np.mean(np.isclose(turns, 0, atol=1e-4)) < 0.44
    assert np.abs(turns).max() == pytest.approx(90, abs=0.1)
    inner = np.abs(turns[~np.isclose(turns, 0, atol=1e-4)])
    assert np.mean(inner < 45) == pytest.approx(0.68, abs=0.05), "one standard deviation"


def test_shift_moves_the_box_by_at_most_its_share():
    moves = []
    for view in views(600, shift_prob=1.0, shift=0.2):
        inverse = np.linalg.inv(np.vstack([view.warp, [0, 0, 1]]))
        moves.append((inverse @ [SIZE[1] / 2, SIZE[0] / 2, 1])[:2] - (BOX[:2] + BOX[2:] / 2))
    share = np.abs(moves) / BOX[2:]
    assert share.max() <= 0.2001
    assert share.max() > 0.19
    assert share.mean() == pytest.approx(0.1, abs=0.01)


def test_half_body_centres_on_upper_or_lower_joints():
    keypoints = np.zeros((17, 2), np.float32)
    keypoints[:11] = np.random.default_rng(0).uniform([52, 37], [68, 53], (11, 2))
    keypoints[11:] = np.random.default_rng(1).uniform([52, 82], [68, 98], (6, 2))
    upper, lower = keypoints[:11].mean(0), keypoints[11:].mean(0)
    counts = {"upper": 0, "lower": 0}
    for view in views(300, keypoints, half_body_prob=1.0):
        centred = warp_points(np.array([upper, lower]), view.warp) - [SIZE[1] / 2, SIZE[0] / 2]
        name = "upper" if np.abs(centred[0]).max() < 1e-2 else "lower"
        assert np.abs(centred[0 if name == "upper" else 1]).max() < 1e-2
        chosen = keypoints[:11] if name == "upper" else keypoints[11:]
        inside = warp_points(chosen, view.warp)
        assert (inside > 0).all()
        assert (inside < [SIZE[1], SIZE[0]]).all()
        counts[name] += 1
    assert 180 < counts["upper"] < 235, "with probability 0.69"
    eight = np.arange(17) < 8
    plain = views(1)[0].warp
    assert all(np.array_equal(view.warp, plain) for view in views(20, keypoints, eight, half_body_prob=1.0))


def test_joints_follow_their_pixels_and_change_sides(tiny_coco):
    root = tiny_coco(train=2, val=1)
    data = CocoKeypoints(
        root / "annotations" / "train.json", root / "train", input_size=SIZE, train=True,
        augmentation=PoseAugmentation(half_body_prob=0),
    )  # fmt: skip
    image = np.zeros((120, 160, 3), np.uint8)
    joints = data.instances.keypoints[0]
    left, right = COCO.names.index("left_wrist"), COCO.names.index("right_wrist")
    data.instances.labelled[0] = True
    for joint, colour in ((left, (0, 0, 255)), (right, (0, 255, 0))):  # BGR: left is red, right is green
        cv2.circle(image, tuple(round(float(value)) for value in joints[joint]), 3, colour, -1)
    cv2.imwrite(str(root / "train" / "000001.png"), image)
    data._names = {1: "000001.png"}
    compared = 0
    for _ in range(40):
        sample = data[0]
        mirrored = bool(torch.linalg.det(sample.warp[:, :2]) < 0)
        planes = sample.image - sample.image.amin(dim=(1, 2), keepdim=True)
        # a mirrored left wrist looks like a right one, and is labelled as one
        for joint, plane in ((left, 1 if mirrored else 0), (right, 0 if mirrored else 1)):
            x, y = (sample.keypoints[joint] * torch.tensor([SIZE[1], SIZE[0]])).round().long().tolist()
            if sample.weights[joint]:
                assert planes[plane, y, x] > 2
                assert planes[1 - plane, y, x] < 0.5
                compared += 1
    assert compared > 40


def test_same_seed_same_pictures_other_workers_other_pictures(tiny_coco):
    albumentations = pytest.importorskip("albumentations")
    root = tiny_coco(train=4, val=1)

    def epoch(seed, workers):
        photometric = [albumentations.ColorJitter(p=1), albumentations.CoarseDropout(p=1)]
        data = CocoKeypoints(
            root / "annotations" / "train.json", root / "train", input_size=(32, 24), train=True,
            augmentation=PoseAugmentation(photometric=photometric),
        )  # fmt: skip
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(data, batch_size=1, num_workers=workers, sampler=[0, 0, 0, 0], generator=generator)
        return torch.cat([batch[0] for batch in loader])

    for workers in (0, 2):
        first = epoch(3, workers)
        assert torch.equal(first, epoch(3, workers))
        assert not torch.equal(first, epoch(4, workers))
        assert all(not torch.equal(first[i], first[j]) for i in range(4) for j in range(i))
