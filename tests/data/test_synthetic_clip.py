from __future__ import annotations

import numpy as np

from distilpose.data.synthetic.clip import draw_clip


def joints_of(truth):
    return np.array([one["keypoints"] for one in truth["annotations"]]).reshape(-1, 17, 3)[..., :2]


def test_a_person_moves_smoothly_inside_its_boxes():
    images, truth = draw_clip(np.random.default_rng(3), 60, size=96)
    images = list(images)
    assert len(images) == len(truth["annotations"]) == 60
    assert images[0].shape == (96, 96, 3)
    joints = joints_of(truth)
    steps, turns = (np.linalg.norm(np.diff(joints, n, axis=0), axis=-1) for n in (1, 2))
    assert steps.max() > 0.5
    assert turns.mean() < 0.3 * steps.mean()
    for one, points in zip(truth["annotations"], joints, strict=True):
        x, y, width, height = one["bbox"]
        assert (points >= (x - 2, y - 2)).all()
        assert (points <= (x + width + 2, y + height + 2)).all()


def test_the_same_seed_draws_the_same_clip_and_each_frame_has_its_own_noise():
    first, second = (draw_clip(np.random.default_rng(5), 3, size=64) for _ in range(2))
    pictures = list(first[0])
    assert all((a == b).all() for a, b in zip(pictures, second[0], strict=True))
    assert first[1] == second[1]
    corners = [picture[:6, :6].astype(int) for picture in pictures]
    assert np.abs(corners[0] - corners[1]).mean() > 0
    assert np.abs(corners[0] - corners[1]).mean() < 30
