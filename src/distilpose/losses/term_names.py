"""Names of the terms of `DistillationLoss`, and what each term needs."""

from typing import Literal

# the terms of the paper
PAPER = ("regression", "visual_token", "keypoint_token", "confidence", "simulated_heatmap")
# terms that need no teacher
LABELS_ONLY = ("regression", "likelihood")
# terms that do not depend on the student's keypoints
WITHOUT_KEYPOINTS = ("visual_token", "keypoint_token", "confidence")
# all terms
Term = Literal[
    "regression", "visual_token", "keypoint_token", "confidence", "simulated_heatmap", "likelihood", "marginal", "divergence",
    "moment",
]  # fmt: skip
