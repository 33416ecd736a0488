"""One training run: its folder, checks before it starts, checkpoints, resuming, provenance, dry run and rate finder."""
