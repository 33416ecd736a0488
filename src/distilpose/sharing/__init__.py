"""Sharing a model: its card, and the facts about its training."""
