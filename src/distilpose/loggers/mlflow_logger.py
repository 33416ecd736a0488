"""MLflow: a server that is not there is told at once, and one that goes away costs no training."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from tqdm import tqdm

from distilpose.errors import DistilPoseError, first_line
from distilpose.loggers.wandb_logger import answers

PAUSE = 60.0  # seconds without a word to a server that has gone, as each call waits for it
# MLflow's own are 7 tries over four minutes, in which the training waits
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class PatientClient:
    """MLflow's client, of which calls that log do nothing, with a word at first, where the server does not take them."""

    def __init__(self, client: Any):
        self._client = client
        self._silent_until = 0.0
        self._told = False

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        return partial(self._try, call) if name.startswith(("log_", "set_", "get_run")) else call

    def _try(self, call: Any, *arguments: Any, **options: Any) -> Any:
        from mlflow.exceptions import MlflowException  # installed only where it is wanted

        if time.monotonic() < self._silent_until:
            return None
        try:
            return call(*arguments, **options)
        except (MlflowException, OSError) as error:
            self._silent_until = time.monotonic() + PAUSE
            if not self._told:
                tqdm.write(
                    f"MLflow takes no more ({first_line(error)}): the training goes on, and tries it again once a minute."
                )
            self._told = True
            return None


class LastingMLFlowLogger(MLFlowLogger):
    """Lightning's MLFlowLogger, which leaves out what the server does not take."""

    _patient: PatientClient | None = None

    @property
    def experiment(self) -> Any:
        """MLflow's client; the first call begins the run."""
        client = super().experiment
        if self._patient is None or self._patient._client is not client:
            self._patient = PatientClient(client)
        return self._patient


def make_mlflow_logger(tracking_uri: str, **options: Any) -> MLFlowLogger:
    """An MLflow logger that does not hold up a training.

    Args:
        tracking_uri: a server's address, or a local place such as sqlite:///FILE.
        **options: of lightning's MLFlowLogger.

    Raises:
        DistilPoseError: no server answers at the address.
    """
    if tracking_uri.startswith(("http://", "https://")) and not answers(tracking_uri):
        raise DistilPoseError(
            f"MLflow does not answer at logger.mlflow.tracking_uri={tracking_uri}: start it, correct the address, or leave it "
            "out for a file in the run's folder."
        )
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    return LastingMLFlowLogger(tracking_uri=tracking_uri, **options)
