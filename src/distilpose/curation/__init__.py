"""Looking after a set of keypoints before training on it: checks, a gallery, and conversion from other formats."""
