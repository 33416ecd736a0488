"""Whether the run of a checkpoint has ended, and what to say about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from distilpose.runs.effective_batch import data_of_checkpoint


def has_ended(cfg: DictConfig, content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of the last step, or of the end of the time, that its configuration allows."""
    return _reached_steps(cfg, content) or _used_time(cfg, content)


def _reached_steps(cfg: DictConfig, content: Mapping[str, Any]) -> bool:
    limit, epochs = cfg.trainer.get("max_steps", -1), data_of_checkpoint(content).get("epochs", 0)
    return epochs >= cfg.trainer.max_epochs or (limit != -1 and content.get("global_step", 0) >= limit)


def _used_time(cfg: DictConfig, content: Mapping[str, Any]) -> bool:
    """Whether trainer.max_time is used up; Lightning counts the time of all starts of a run together."""
    limit = cfg.trainer.get("max_time")
    if not limit:
        return False
    allowed = Timer(OmegaConf.to_container(limit) if isinstance(limit, DictConfig) else limit).time_remaining()  # type: ignore[arg-type]
    used = content.get("callbacks", {}).get("Timer", {}).get("time_elapsed", {}).get("train", 0.0)
    return allowed is not None and used >= allowed


def ended_message(cfg: DictConfig, content: Mapping[str, Any], source: str) -> str:
    """Say that the run of a checkpoint has ended, why, and how to train it for longer."""
    if not _reached_steps(cfg, content):
        if _used_time(cfg, content):
            time = cfg.trainer.max_time
            return (
                f"the run has ended, as trainer.max_time={time} is used up: resume='{source}' trainer.max_time=… with a longer "
                "time for all starts together trains on."
            )
        if (epoch := stopped_early(content)) is not None:
            return (
                f"the run has ended, as callbacks.early_stopping stopped it in epoch {epoch}: resume='{source}' trains it for "
                "longer."
            )
    limit = cfg.trainer.get("max_steps", -1)
    last = f"trainer.max_epochs={cfg.trainer.max_epochs}" + (f" or trainer.max_steps={limit}" if limit != -1 else "")
    longer = "trainer.max_epochs=N" + (" trainer.max_steps=M" if limit != -1 else "")
    return f"the run has ended, as {last} is reached: resume='{source}' {longer} trains it for longer."


def stopped_early(content: Mapping[str, Any]) -> int | None:
    """The epoch in which EarlyStopping ended the training of a checkpoint; None if it did not."""
    states = content.get("callbacks", {})
    epochs = [state["stopped_epoch"] for name, state in states.items() if name.startswith("EarlyStopping")]
    return max(epochs, default=0) or None


def best_of_checkpoint(content: Mapping[str, Any]) -> float | None:
    """The best value of the monitored metric so far, from the state of the callback that keeps the best checkpoint."""
    states = content.get("callbacks", {}).values()
    scores = [state["best_model_score"] for state in states if state.get("best_model_score") is not None]
    return float(scores[0]) if scores else None
