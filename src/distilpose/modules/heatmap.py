"""Training a heat-map teacher."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt, Unit
from torch import Tensor

from distilpose.data.codec import encode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.losses import HeatmapCrossEntropy, HeatmapMSE
from distilpose.models import PoseModel
from distilpose.modules.pose_module import PoseModule
from distilpose.outputs import PoseBatch


class HeatmapModule(PoseModule):
    """Trains a teacher on Gaussian heat maps made from the keypoints of each batch.

    Args:
        model: a teacher.
        loss: its `heatmap_activation` becomes the activation of the model's maps.
        sigma: standard deviation of the target Gaussians in cells.
        **options: arguments of `PoseModule`.
    """

    def __init__(
        self,
        model: PoseModel,
        loss: HeatmapMSE | HeatmapCrossEntropy,
        sigma: Annotated[float, Gt(0), Unit("cells")] = 2.0,
        **options: Any,
    ):
        if model.kind != "teacher" or not hasattr(loss, "heatmap_activation"):
            raise DistilPoseError(
                f"method=heatmap trains a model=teacher_… with loss=heatmap_mse or loss=heatmap_ce, but got {model.name} with "
                f"{type(loss).__name__}: for a student pass method=distillation loss=distilpose."
            )
        model.set_heatmap_activation(loss.heatmap_activation)
        super().__init__(model, **options)
        self.loss = loss
        self.sigma = sigma

    def training_step(self, batch: PoseBatch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        targets, weights = encode_heatmaps(batch.keypoints, batch.labelled, self.model.heatmap_size, self.sigma)
        loss = self.loss(self.model(batch.image).heatmaps, targets, weights)
        self.log_terms({"total": loss}, len(batch.image))
        return loss
