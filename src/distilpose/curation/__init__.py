"""Keypoint data sets before training: checks, a gallery, and conversion from other formats to COCO."""
