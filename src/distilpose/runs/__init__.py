"""One training run: its folder, validation of its settings, checkpoints, resuming, provenance, dry run and rate finder."""
