"""One training run: folder, checks before the start, checkpoints, resuming, provenance, dry run, learning rate finder."""
