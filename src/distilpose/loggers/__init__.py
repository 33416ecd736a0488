"""Experiment loggers (W&B, MLflow, TensorBoard) and what is sent to them."""
