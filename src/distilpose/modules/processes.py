"""Agreement between the processes of a training: an error of one must not leave the others waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from distilpose.errors import DistilPoseError, first_line
from distilpose.evaluation import concatenate
from distilpose.outputs import Predictions

if TYPE_CHECKING:
    from lightning import Trainer

Result = TypeVar("Result")


def from_first_process(trainer: Trainer, compute: Callable[[], Result]) -> Result:
    """The result of a function that only the first process runs, in all processes.

    Raises:
        DistilPoseError: the function has raised an error in the first process, where that error is raised.
    """
    error: Exception | None = None
    outcome: tuple[Any, str | None] = (None, None)
    if trainer.is_global_zero:
        try:
            outcome = (compute(), None)
        except Exception as caught:
            error, outcome = caught, (None, first_line(caught) or type(caught).__name__)
    result, problem = trainer.strategy.broadcast(outcome)
    if error is not None:
        raise error
    if problem is not None:
        raise DistilPoseError(f"The first process has stopped this training ({problem}): see its own error message.")
    return result


def from_all_processes(trainer: Trainer, parts: Sequence[Predictions]) -> Predictions:
    """Join the predictions of all batches and processes. Their numbers differ, because no sample is evaluated twice.

    Args:
        trainer: gives the number of processes.
        parts: predictions of the batches of this process; there may be none.
    """
    own = concatenate(parts) if parts else None
    if trainer.world_size == 1:
        assert own is not None
        return own
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, None if own is None else tuple(own))
    return concatenate(Predictions(*part) for part in gathered if part is not None)
