"""Networks scored on data with other joints: by the joints that both have."""

from __future__ import annotations

from typing import Any

import torch
from pycocotools.coco import COCO

from distilpose.errors import DistilPoseError
from distilpose.evaluation.coco_ap import without_joints
from distilpose.outputs import Predictions
from distilpose.skeleton import Skeleton


class KnownJoints:
    """The joints of a data set that a network knows, matched by name.

    Args:
        own: joints of the network.
        data: joints of the data set.
        name: of the network, for messages.

    Attributes:
        joints: for each joint of the data the network's, or None.
        unknown: names of the joints of the data that the network does not know.

    Raises:
        DistilPoseError: they have no joint in common.
    """

    def __init__(self, own: Skeleton, data: Skeleton, name: Any) -> None:
        self.joints = data.matching(own)
        self.same = own.names == data.names
        self.unknown = [joint for joint, place in zip(data.names, self.joints, strict=True) if place is None]
        if len(self.unknown) == data.num_keypoints:
            raise DistilPoseError(
                f"The joints {list(own.names)} of {name} and the data's {list(data.names)} have no name in common: give a "
                "model or teacher of this kind of body."
            )
        self.name = name

    def of(self, predictions: Predictions) -> Predictions:
        """Predictions of the network in the joints of the data. Unknown joints are in the middle of the box, with score 0."""
        if self.same:
            return predictions
        order = [joint or 0 for joint in self.joints]
        known = torch.tensor([joint is not None for joint in self.joints], device=predictions.keypoints.device)
        middle = (predictions.bbox[:, :2] + predictions.bbox[:, 2:] / 2)[:, None].to(predictions.keypoints)
        keypoints = torch.where(known[:, None], predictions.keypoints[:, order], middle)
        return predictions._replace(keypoints=keypoints, scores=predictions.scores[:, order] * known)

    def truth(self, truth: COCO) -> COCO:
        """The annotations without the labels of unknown joints, so that the network is scored on its own joints."""
        unknown = [place for place, joint in enumerate(self.joints) if joint is None]
        return without_joints(truth, unknown) if unknown else truth

    @property
    def notes(self) -> list[str]:
        """A note on unknown joints, if there are any."""
        if not self.unknown:
            return []
        count = len(self.joints) - len(self.unknown)
        return [f"{self.name} does not know {', '.join(self.unknown)}: the metrics are on the other {count} joints."]
