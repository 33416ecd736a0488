"""Types of joint errors: the taxonomy of Ronchi and Perona (ICCV 2017, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distilpose.data.annotations import KeypointAnnotations
from distilpose.evaluation.oks import oks
from distilpose.skeleton import Skeleton

ERROR_TYPES = ("good", "jitter", "inversion", "swap", "miss")
GOOD, JITTER, INVERSION, SWAP, MISS = range(len(ERROR_TYPES))
UNLABELLED = -1

# keypoint similarity of a correct prediction, and of one within the spread of human annotators
NEAR, EXACT = 0.5, 0.85
# OKS constant of a shoulder, used for every joint of a skeleton without constants
DEFAULT_SIGMA = 0.079


class People(NamedTuple):
    """Annotated persons.

    Attributes:
        keypoints: (M, K, 2) image pixels.
        labelled: (M, K) bool.
        area: (M,) square pixels.
        image_id: (M,) int64.
        annotation_id: (M,) int64.
    """

    keypoints: Tensor
    labelled: Tensor
    area: Tensor
    image_id: Tensor
    annotation_id: Tensor

    def indices(self, annotation_ids: Tensor) -> Tensor:
        """(N,) int64 indices of the persons with these annotation ids.

        Raises:
            KeyError: there is no person with such an id. A search alone would give the next larger one.
        """
        order = torch.argsort(self.annotation_id)
        places = torch.searchsorted(self.annotation_id[order], annotation_ids).clamp(max=len(order) - 1)
        found = order[places]
        if not torch.equal(self.annotation_id[found], annotation_ids):
            missing = annotation_ids[self.annotation_id[found] != annotation_ids]
            raise KeyError(f"{len(missing)} of {len(annotation_ids)} annotation ids, first {int(missing[0])}")
        return found


def people_of(annotations: KeypointAnnotations) -> People:
    """All persons of an annotation file, with or without predictions."""
    return People(
        torch.from_numpy(annotations.keypoints).double(),
        torch.from_numpy(annotations.labelled),
        torch.from_numpy(annotations.areas),
        torch.from_numpy(annotations.image_ids),
        torch.from_numpy(annotations.annotation_ids),
    )


def oks_sigmas(skeleton: Skeleton) -> Sequence[float]:
    """The K OKS constants of a skeleton, or a shoulder's for every joint if it has none."""
    return skeleton.sigmas or [DEFAULT_SIGMA] * skeleton.num_keypoints


def keypoint_similarity(predicted: Tensor, target: Tensor, area: Tensor, skeleton: Skeleton) -> Tensor:
    """Keypoint similarity (ks) of each joint, exp(-d^2 / (2 area (2 sigma)^2)); leading axes broadcast.

    Args:
        predicted: (..., K, 2) pixels.
        target: (..., K, 2) pixels.
        area: (...) area of the person in square pixels.
        skeleton: gives the K sigmas.

    Returns:
        (..., K) in [0, 1].
    """
    sigmas = torch.as_tensor(oks_sigmas(skeleton), dtype=predicted.dtype, device=predicted.device)
    return oks(predicted.unsqueeze(-2), target.unsqueeze(-2), area.unsqueeze(-1), sigmas.unsqueeze(-1))


def error_types(predicted: Tensor, people: People, person: Tensor, skeleton: Skeleton) -> Tensor:
    """The error type of each joint, exactly one for a labelled joint.

    By keypoint similarity ks:

    - good: ks >= 0.85 to the true position of the joint;
    - jitter: 0.5 <= ks < 0.85 to it;
    - inversion: else, ks >= 0.5 to the true position of the left-right counterpart of the same person;
    - swap: else, ks >= 0.5 to the same joint, or its counterpart, of another person in the image;
    - miss: none of these.

    ks uses the sigma of the predicted joint and the area of the person whose joint is compared. Joints without a label
    are not compared. If both inversion and swap apply, the higher ks decides, and inversion if they are equal. As in the
    authors' code (coco-analyze), only joints of the same kind are confused: a wrist on an elbow is a miss, and a nose
    has no inversion. That code takes the highest ks of all candidates, the correct joint included. Here the correct joint
    comes first, so that a prediction near the truth is never a confusion.

    Args:
        predicted: (N, K, 2) image pixels, one person each.
        people: M annotated persons, all of those in the images of the predictions.
        person: (N,) int64 index in `people` of the person that each prediction is for.
        skeleton: its left-right pairs and sigmas.

    Returns:
        (N, K) int64 index into `ERROR_TYPES`, `UNLABELLED` for joints without a label.
    """
    predicted = predicted.to(people.keypoints.dtype)
    order = torch.tensor(skeleton.flip_order, device=predicted.device)
    joint_oks = keypoint_similarity(predicted, people.keypoints[person], people.area[person], skeleton)
    # the counterpart of an unpaired joint is the joint itself; this changes nothing because the correct joint comes first
    mirrored, mirror_labelled = people.keypoints[:, order], people.labelled[:, order]

    inverted = keypoint_similarity(predicted, mirrored[person], people.area[person], skeleton) * mirror_labelled[person]
    others, present = _others_in_image(people, person)
    swapped = torch.zeros_like(inverted)
    for places, labelled in ((people.keypoints, people.labelled), (mirrored, mirror_labelled)):
        near = keypoint_similarity(predicted[:, None], places[others], people.area[others], skeleton)
        near = near * (labelled[others] & present[..., None])
        swapped = torch.maximum(swapped, torch.cat([near, swapped[:, None]], dim=1).amax(dim=1))

    kinds = torch.full_like(joint_oks, MISS, dtype=torch.int64)
    kinds[swapped >= NEAR] = SWAP
    kinds[(inverted >= NEAR) & (inverted >= swapped)] = INVERSION
    kinds[joint_oks >= NEAR] = JITTER
    kinds[joint_oks >= EXACT] = GOOD
    kinds[~people.labelled[person]] = UNLABELLED
    return kinds


def shares_of_types(kinds: Tensor) -> Tensor:
    """Share of each of the five types among labelled joints.

    Args:
        kinds: (N, K) of `error_types`.

    Returns:
        (K, 5), rows sum to 1; nan for a joint without labels.
    """
    types = torch.arange(len(ERROR_TYPES), device=kinds.device)
    counts = (kinds.flatten(0, -2)[..., None] == types).sum(0)
    return counts / counts.sum(-1, keepdim=True)


def _others_in_image(people: People, person: Tensor) -> tuple[Tensor, Tensor]:
    """The other people in each person's image: (N, P) int64 indices, padded, and (N, P) bool, False for padding."""
    order = torch.argsort(people.image_id, stable=True)
    _, image, counts = torch.unique(people.image_id, return_inverse=True, return_counts=True)
    start = counts.cumsum(0) - counts
    slots = torch.arange(int(counts.max()) if len(counts) else 0, device=person.device)
    image = image[person]
    exists = slots < counts[image, None]
    others = order[torch.where(exists, start[image, None] + slots, 0)]
    return others, exists & (others != person[:, None])
