from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.modules.processes import from_all_processes, from_first_process
from distilpose.outputs import Predictions


def predictions(*ids):
    count = len(ids)
    return Predictions(
        torch.zeros(count, 1, 2), torch.ones(count, 1), torch.tensor(ids), torch.tensor(ids), torch.zeros(count, 4),
        torch.ones(count),
    )  # fmt: skip


class Ranks:
    """Runs a function as each of two processes in turn; the first one's broadcast reaches the second."""

    def __init__(self):
        self.sent = []

    def trainer(self, rank):
        def broadcast(outcome):
            if rank == 0:
                self.sent.append(outcome)
            return self.sent[-1]

        return SimpleNamespace(
            is_global_zero=rank == 0, global_rank=rank, world_size=2, strategy=SimpleNamespace(broadcast=broadcast)
        )


def test_all_processes_have_the_result_of_the_first():
    ranks = Ranks()
    assert [from_first_process(ranks.trainer(rank), lambda rank=rank: 10 + rank) for rank in (0, 1)] == [10, 10]


@pytest.mark.parametrize("error", [DistilPoseError("no disk"), ZeroDivisionError()])
def test_an_error_of_the_first_process_is_raised_in_all(error):
    def fail():
        raise error

    ranks = Ranks()
    with pytest.raises(type(error)) as raised:
        from_first_process(ranks.trainer(0), fail)
    assert raised.value is error
    assert len(ranks.sent) == 1  # the others do not wait
    with pytest.raises(DistilPoseError, match=f"The first process .*{str(error) or 'ZeroDivisionError'}"):
        from_first_process(ranks.trainer(1), fail)


def test_predictions_of_all_processes_also_if_one_has_none(monkeypatch):
    def gather(parts, own):
        parts[:] = [tuple(predictions(4, 5)), None]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    joined = from_all_processes(SimpleNamespace(world_size=2), [])
    assert joined.annotation_id.tolist() == [4, 5]
    assert from_all_processes(SimpleNamespace(world_size=1), [predictions(1), predictions(2)]).image_id.tolist() == [
        1,
        2,
    ]
