"""Resuming a training: the same loss, and the same effective batch in other parts (batches or processes).

Each optimizer step then has the same persons (`distilpose.data.sampler`), but each process counts its batches and persons anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from distilpose.errors import DistilPoseError

log = logging.getLogger(__name__)


def check_same_loss(checkpoint: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Check that a checkpoint has the tensors of this start's loss.

    Raises:
        DistilPoseError: it was trained with another loss.
    """
    own, saved = ({name for name in names if name.startswith("loss.")} for names in (state, checkpoint["state_dict"]))
    if own != saved:
        raise DistilPoseError(
            f"The checkpoint was trained with another loss: {len(saved)} of its tensors belong to the loss, expected "
            f"{len(own)}. Resume with that loss, or start a new run with weights=FILE."
        )


def rescale_progress(checkpoint: Mapping[str, Any], accumulated: int) -> None:
    """Express Lightning's count of batches in the batches of this start: as many steps, each of `accumulated` batches.

    Without this, an epoch of twice the batches that was finished would be continued.

    Args:
        checkpoint: loaded checkpoint; changed in place.
        accumulated: batches that this start accumulates for one step.
    """
    states = (value for value in checkpoint.values() if isinstance(value, dict) and {"epochs", "step"} <= value.keys())
    before = next((state["step"][2] for state in states if len(state["step"]) == 3), accumulated)
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    progress = loops.get("epoch_loop.batch_progress")
    if before == accumulated or progress is None:
        return
    done = progress["current"]["processed"]
    shift = -(-done // before) * accumulated - done
    for counts in (progress["total"], progress["current"]):
        for name, count in counts.items():
            if count:
                counts[name] = count + shift


def keep_own_patience(checkpoint: Mapping[str, Any], callbacks: Iterable[Any]) -> None:
    """Put the patience of this start into a checkpoint's state of EarlyStopping.

    Lightning restores the old one, so that `callbacks.early_stopping.patience=N` of a resumed run would have no effect.
    """
    states = checkpoint.get("callbacks", {})
    for callback in callbacks:
        state = states.get(getattr(callback, "state_key", None))
        if state is not None and "patience" in state and state["patience"] != callback.patience:
            rank_zero_only(log.info)(
                f"The patience of early stopping was {state['patience']}, and is {callback.patience}."
            )
            state["patience"] = callback.patience


def own_share(sums: Mapping[str, Tensor], persons: int, world: int, rank: int) -> tuple[dict[str, Tensor], int]:
    """A process's sums of the epoch so far, and their number of persons.

    Args:
        sums: of each loss term, one sum for each process that saved the checkpoint.
        persons: number of persons in each of them.
        world: number of processes now.
        rank: of this process.
    """
    saved = max((len(values) for values in sums.values()), default=world)
    if saved == world:
        return {name: values[rank] for name, values in sums.items()}, persons
    return {name: values.sum() / world for name, values in sums.items()}, persons * saved // world
