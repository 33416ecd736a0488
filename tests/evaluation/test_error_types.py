from __future__ import annotations

import math
import sys

import pytest
import torch

from distilpose.evaluation.error_types import (
    DEFAULT_SIGMA,
    ERROR_TYPES,
    EXACT,
    GOOD,
    INVERSION,
    JITTER,
    MISS,
    NEAR,
    SWAP,
    UNLABELLED,
    People,
    error_types,
    keypoint_similarity,
    shares_of_types,
)
from distilpose.evaluation.oks import oks
from distilpose.skeleton import COCO, Skeleton

MODULE = sys.modules[error_types.__module__]  # distilpose.evaluation.error_types is the function
AREA = 100.0**2
NOSE, WRIST, OTHER_WRIST, ELBOW, HIP = (
    COCO.names.index(name) for name in ("nose", "left_wrist", "right_wrist", "left_elbow", "left_hip")
)


def distance(joint_oks: float, joint: int, area: float = AREA) -> float:
    """Distance in pixels at which a joint has that keypoint similarity: the inverse of the formula of OKS."""
    return 2 * COCO.sigmas[joint] * math.sqrt(-2 * area * math.log(joint_oks))


def crowd(*corners: tuple[float, float], image_ids=None, area=None) -> People:
    """Persons with the same pose, joints 200 pixels apart, all labelled, by default in one image."""
    grid = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(3.0), indexing="ij"), -1).reshape(-1, 2)[:17]
    keypoints = torch.stack([200 * grid + torch.tensor(corner) for corner in corners]).double()
    count = len(corners)
    return People(
        keypoints,
        torch.ones(count, 17, dtype=torch.bool),
        torch.full((count,), AREA, dtype=torch.float64) if area is None else torch.tensor(area, dtype=torch.float64),
        torch.tensor(image_ids or [1] * count),
        torch.arange(count) + 10,
    )


def kinds_of_first(people: People, change) -> torch.Tensor:
    """Types of a prediction for the first person: the truth, modified in place by `change`."""
    predicted = people.keypoints[:1].clone()
    change(predicted[0])
    return error_types(predicted, people, torch.tensor([0]), COCO)[0]


def test_a_right_prediction_is_good():
    people = crowd((0, 0), (5000, 0))
    kinds = error_types(people.keypoints, people, torch.tensor([0, 1]), COCO)
    assert (kinds == GOOD).all()
    assert kinds.shape == (2, 17)


@pytest.mark.parametrize(
    ("joint_oks", "kind"),
    [
        (0.999, GOOD),
        (EXACT + 1e-6, GOOD),
        (EXACT - 1e-6, JITTER),
        (NEAR + 1e-6, JITTER),
        (NEAR - 1e-6, MISS),
        (0.01, MISS),
    ],
)
def test_borders(joint_oks, kind):
    def change(pose):
        pose[HIP, 0] += distance(joint_oks, HIP)

    kinds = kinds_of_first(crowd((0, 0)), change)
    assert kinds[HIP] == kind
    assert (kinds[torch.arange(17) != HIP] == GOOD).all()


@pytest.mark.parametrize(("joint_oks", "kind"), [(EXACT, GOOD), (NEAR, JITTER)])
def test_the_thresholds_belong_to_the_better_type(monkeypatch, joint_oks, kind):
    """The similarity is replaced: exactly `joint_oks` to the joint at the predicted place, 0 to all others."""
    monkeypatch.setattr(
        MODULE, "keypoint_similarity", lambda predicted, place, *_: joint_oks * (predicted == place).all(-1).double()
    )
    people = crowd((0, 0), (5000, 0))

    def change(pose):
        pose[WRIST] = people.keypoints[0, OTHER_WRIST]
        pose[HIP] = people.keypoints[1, HIP]

    assert kinds_of_first(people, change)[[NOSE, WRIST, HIP]].tolist() == [kind, INVERSION, SWAP]


def test_a_joint_at_its_counterpart_is_an_inversion():
    def change(pose):
        pose[[WRIST, OTHER_WRIST]] = pose[[OTHER_WRIST, WRIST]]
        pose[WRIST, 1] += distance(0.6, WRIST)

    kinds = kinds_of_first(crowd((0, 0)), change)
    assert kinds[[WRIST, OTHER_WRIST]].tolist() == [INVERSION, INVERSION]


def test_no_swap_with_the_same_person(monkeypatch):
    """Otherwise an inversion would tie with a swap, decided by rounding; here the similarity to others is rounded up."""
    similarity = keypoint_similarity  # (N, P, K) to other persons, (N, K) to the person itself
    monkeypatch.setattr(
        MODULE, "keypoint_similarity", lambda *arguments: (1 + 1e-12 * (arguments[0].ndim - 3)) * similarity(*arguments)
    )

    def change(pose):
        pose[WRIST] = pose[OTHER_WRIST] + torch.tensor([distance(0.6, WRIST), 0])

    assert kinds_of_first(crowd((0, 0)), change)[WRIST] == INVERSION


def test_different_kinds_of_joints_are_not_confused():
    def change(pose):
        pose[WRIST] = pose[ELBOW]
        pose[NOSE] = pose[HIP]

    kinds = kinds_of_first(crowd((0, 0), (5000, 0)), change)
    assert kinds[[WRIST, NOSE]].tolist() == [MISS, MISS]


@pytest.mark.parametrize("joint", [WRIST, OTHER_WRIST])
def test_a_joint_at_that_of_another_person_is_a_swap(joint):
    people = crowd((0, 0), (5000, 0), (0, 5000))
    kinds = kinds_of_first(people, lambda pose: pose[WRIST].copy_(people.keypoints[2, joint]))
    assert kinds[WRIST] == SWAP


def test_no_swap_with_people_of_another_image():
    people = crowd((0, 0), (5000, 0), image_ids=[1, 2])
    assert kinds_of_first(people, lambda pose: pose[WRIST].copy_(people.keypoints[1, WRIST]))[WRIST] == MISS


def test_a_swap_uses_the_other_persons_area():
    for area, kind in ((AREA, SWAP), (AREA / 100, MISS)):
        people = crowd((0, 0), (5000, 0), area=[AREA, area])
        place = people.keypoints[1, WRIST] + torch.tensor([distance(0.6, WRIST), 0])
        assert kinds_of_first(people, lambda pose, place=place: pose[WRIST].copy_(place))[WRIST] == kind


def test_the_higher_similarity_decides_between_inversion_and_swap():
    # the other person's left wrist is near the first person's right wrist, at twice the distance of similarity 0.7
    people = crowd((0, 0), (0, 0))
    gap = 2 * distance(0.7, WRIST)
    people.keypoints[1] += 5000
    people.keypoints[1, WRIST] = people.keypoints[0, OTHER_WRIST] + torch.tensor([gap, 0])
    for share, kind in ((0.45, INVERSION), (0.55, SWAP), (0.5, INVERSION)):  # a tie is an inversion

        def change(pose, share=share):
            pose[WRIST] = people.keypoints[0, OTHER_WRIST] + torch.tensor([share * gap, 0])

        assert kinds_of_first(people, change)[WRIST] == kind, share


def test_the_correct_joint_comes_first():
    people = crowd((0, 0), (5000, 0))
    near = distance(0.6, WRIST)
    people.keypoints[0, OTHER_WRIST] = people.keypoints[0, WRIST] + torch.tensor([near, 0])
    people.keypoints[1, WRIST] = people.keypoints[0, OTHER_WRIST]

    def change(pose):  # similarity 0.6 to the correct joint, 1 to its counterpart and to the other person's joint
        pose[WRIST, 0] += near

    assert kinds_of_first(people, change)[WRIST] == JITTER


def test_unlabelled_joints_have_no_type_and_are_not_compared():
    people = crowd((0, 0), (5000, 0))
    people.labelled[0, [HIP, OTHER_WRIST]] = False
    people.labelled[1, ELBOW] = False

    def change(pose):
        pose[WRIST] = people.keypoints[0, OTHER_WRIST]
        pose[ELBOW] = people.keypoints[1, ELBOW]

    kinds = kinds_of_first(people, change)
    assert kinds[[HIP, OTHER_WRIST]].tolist() == [UNLABELLED, UNLABELLED]
    assert kinds[[WRIST, ELBOW]].tolist() == [MISS, MISS]


def test_a_crowd_equals_the_loop_over_persons():
    generator = torch.Generator().manual_seed(0)
    count = 40
    people = People(
        60 * torch.rand(count, 17, 2, generator=generator).double(),
        torch.rand(count, 17, generator=generator) < 0.8,
        300 + 600 * torch.rand(count, generator=generator).double(),
        torch.randint(0, 9, (count,), generator=generator),
        torch.randperm(count, generator=generator),
    )
    person = torch.randperm(count, generator=generator)[:25]
    predicted = people.keypoints[person] + 8 * torch.randn(25, 17, 2, generator=generator)
    kinds = error_types(predicted, people, person, COCO)
    assert set(kinds.unique().tolist()) == {UNLABELLED, GOOD, JITTER, INVERSION, SWAP, MISS}
    for n, k in torch.cartesian_prod(torch.arange(25), torch.arange(17)).tolist():
        assert kinds[n, k] == by_hand(predicted[n, k], people, int(person[n]), k), (n, k)


def by_hand(place, people, person, joint) -> int:
    """The definition, one joint at a time."""

    def joint_oks(owner, other):
        if not people.labelled[owner, other]:
            return 0.0
        squared = float((place - people.keypoints[owner, other]).square().sum())
        return math.exp(-squared / (2 * float(people.area[owner]) * (2 * COCO.sigmas[joint]) ** 2))

    if not people.labelled[person, joint]:
        return UNLABELLED
    mirror = COCO.flip_order[joint]
    inversion = joint_oks(person, mirror) if mirror != joint else 0.0
    others = [m for m in range(len(people.area)) if m != person and people.image_id[m] == people.image_id[person]]
    swap = max([joint_oks(m, other) for m in others for other in {joint, mirror}], default=0.0)
    if joint_oks(person, joint) >= 0.5:
        return GOOD if joint_oks(person, joint) >= 0.85 else JITTER
    if max(inversion, swap) < 0.5:
        return MISS
    return INVERSION if inversion >= swap else SWAP


def test_the_mean_of_similarities_is_oks():
    generator = torch.Generator().manual_seed(1)
    predicted, target = torch.rand(2, 5, 17, 2, generator=generator).double() * 50
    area = torch.full((5,), 900.0).double()
    joint_oks = keypoint_similarity(predicted, target, area, COCO)
    torch.testing.assert_close(joint_oks.mean(-1), oks(predicted, target, area, COCO.sigmas))


def test_without_sigmas_every_joint_has_the_sigma_of_a_shoulder():
    skeleton = Skeleton.from_names(["snout", "left_paw", "right_paw"])
    assert skeleton.sigmas is None
    assert COCO.sigmas[COCO.names.index("left_shoulder")] == DEFAULT_SIGMA
    target = torch.zeros(1, 3, 2).double()
    away = target + torch.tensor([2 * DEFAULT_SIGMA * 10 * math.sqrt(2 * math.log(2)), 0])
    joint_oks = keypoint_similarity(away, target, torch.tensor([100.0]).double(), skeleton)
    torch.testing.assert_close(joint_oks, torch.full((1, 3), 0.5).double())


def test_people_are_found_by_their_annotations():
    people = crowd((0, 0), (1, 0), (2, 0))._replace(annotation_id=torch.tensor([30, 10, 20]))
    assert people.indices(torch.tensor([20, 30, 10])).tolist() == [2, 0, 1]


def test_shares_of_each_joint_sum_to_one():
    kinds = torch.tensor([[GOOD, MISS, UNLABELLED], [SWAP, MISS, UNLABELLED], [UNLABELLED, JITTER, UNLABELLED]])
    shares = shares_of_types(kinds)
    assert shares.shape == (3, len(ERROR_TYPES))
    assert shares[0].tolist() == [0.5, 0, 0, 0.5, 0]
    torch.testing.assert_close(shares[1], torch.tensor([0, 1 / 3, 0, 0, 2 / 3]))
    assert shares[2].isnan().all()


def test_no_persons():
    people = crowd((0, 0))
    assert error_types(torch.zeros(0, 17, 2), people, torch.zeros(0, dtype=torch.int64), COCO).shape == (0, 17)


def test_an_unknown_annotation_id_is_an_error():
    ids = torch.tensor([7, 0, -3])
    people = People(torch.zeros(3, 1, 2), torch.ones(3, 1, dtype=torch.bool), torch.ones(3), torch.zeros(3), ids)
    assert people.indices(torch.tensor([-3, 7, 0, 0])).tolist() == [2, 0, 1, 1]
    for unknown in (5, 8, -9):
        with pytest.raises(KeyError, match=f"1 of 2 annotation ids, first {unknown}"):
            people.indices(torch.tensor([0, unknown]))
