"""Sharing a model: its card, and the facts on its training."""
