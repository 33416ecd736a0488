"""Typed batches and outputs: named tensors with their shapes and units.

Letters: N batch, K joints, P visual tokens (patches), D token width; a crop is H x W pixels, its heat map H/4 x W/4 cells.
Coordinates are (x, y). A joint at crop pixel (u, v) has keypoint (u / W, v / H) and heat-map cell (u / 4, v / 4).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# mean and standard deviation of RGB in [0, 1] that crops are normalised by
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PoseBatch(NamedTuple):
    """One person crop of `CocoKeypoints`, or a batch with a first dimension N in all fields.

    Fields are read as attributes (`batch.image`) or by name (`batch["image"]`).

    Attributes:
        image: (3, H, W) float32, RGB, normalised by the ImageNet mean and std.
        keypoints: (K, 2) position as a share of the crop's width and height; in [0, 1] if `weights` is 1.
        weights: (K,) 1 for a labelled joint inside the crop, else 0.
        labelled: (K,) 1 for a labelled joint, inside the crop or not, else 0.
        warp: (2, 3) affine matrix from image pixels to crop pixels.
        image_id: () int64 id of the image in the annotation file.
        annotation_id: () int64 id of the annotation; the index of the box if boxes come from a detector.
        bbox: (4,) x, y, width, height in image pixels, before padding.
        bbox_score: () detector score; 1 for a ground-truth box.
    """

    image: Tensor
    keypoints: Tensor
    weights: Tensor
    labelled: Tensor
    warp: Tensor
    image_id: Tensor
    annotation_id: Tensor
    bbox: Tensor
    bbox_score: Tensor

    def __getitem__(self, key):
        """The field of that name, or the item at that index."""
        return getattr(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)


class StudentOutput(NamedTuple):
    """Output of a regression student for a batch of crops.

    Attributes:
        keypoints: (N, K, 2) in [0, 1] of the crop.
        scores: (N, K) raw confidence, unbounded; trained towards the teacher's heat-map value, so mostly in [0, 1].
        sigmas: (N, K, 2) positive, (sigma_x, sigma_y) of the simulated heat map in cells.
        visual_tokens: (N, P, D) output of the last layer, before any norm.
        keypoint_tokens: (N, K, D) output of the last layer, before any norm.
    """

    keypoints: Tensor
    scores: Tensor
    sigmas: Tensor
    visual_tokens: Tensor
    keypoint_tokens: Tensor


class TeacherOutput(NamedTuple):
    """Output of a heat-map teacher for a batch of crops.

    Attributes:
        heatmaps: (N, K, h, w) with a peak near 1 at each joint; a teacher of this package has H/4 x W/4 cells.
        visual_tokens: (N, P, D); None for a teacher without tokens.
        keypoint_tokens: (N, K, D); None for a teacher without tokens.
        trust: (N, K) in [0, 1], the weight of each joint's map in the loss, whether or not it is labelled; 0 for a joint that
            the teacher does not know. None gives labelled joints the weight 1 and others 0.
        known: (K,) 1 for a joint that the teacher knows, else 0; None if it knows all.
    """

    heatmaps: Tensor
    visual_tokens: Tensor | None = None
    keypoint_tokens: Tensor | None = None
    trust: Tensor | None = None
    known: Tensor | None = None


class Predictions(NamedTuple):
    """Predicted persons in image pixels: the input of evaluation and of prediction files.

    Attributes:
        keypoints: (N, K, 2) image pixels.
        scores: (N, K) score of each joint; 1 if no loss trained the scores.
        image_id: (N,) int64.
        annotation_id: (N,) int64.
        bbox: (N, 4) x, y, width, height in image pixels, before padding.
        bbox_score: (N,).
    """

    keypoints: Tensor
    scores: Tensor
    image_id: Tensor
    annotation_id: Tensor
    bbox: Tensor
    bbox_score: Tensor
