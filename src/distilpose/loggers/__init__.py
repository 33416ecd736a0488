"""Experiment loggers (W&B, MLflow, TensorBoard) and what is logged to them."""
