"""An exponential moving average of the weights."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt, Lt
from lightning.pytorch.callbacks import EMAWeightAveraging


class AveragedWeights(EMAWeightAveraging):
    """Lightning's EMAWeightAveraging, with a range for the decay.

    Validation uses the average. A checkpoint's `state_dict` is the average, and its `current_model_state` the raw weights,
    with which training resumes.

    Args:
        decay: share of the average that is kept at each step.
        **options: other settings of Lightning's EMAWeightAveraging, such as the device of the average (by default the one
            that trains).
    """

    def __init__(self, decay: Annotated[float, Gt(0), Lt(1)] = 0.999, **options: Any):
        super().__init__(decay=decay, **options)
