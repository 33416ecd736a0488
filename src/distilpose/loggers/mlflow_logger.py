"""MLflow without waiting: with Lightning's logger, a lost server ends a training or delays each call by minutes."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from distilpose.errors import DistilPoseError, first_line
from distilpose.loggers.wandb_logger import accepts_connections

log = logging.getLogger(__name__)

PAUSE = 60.0  # seconds without calls after the server has failed, because the training waits during each call
# MLflow's defaults are 7 retries over four minutes, during which the training waits
RETRY_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class ResilientClient:
    """MLflow's client. After a failed logging call, further ones are skipped for a while.

    Args:
        client: MLflow's client.
    """

    def __init__(self, client: Any):
        self.client = client
        self._paused_until = 0.0
        self._warned = False

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        return partial(self._try, call) if name.startswith(("log_", "set_", "get_run")) else call

    def _try(self, call: Any, *arguments: Any, **options: Any) -> Any:
        from mlflow.exceptions import MlflowException  # an optional dependency

        if time.monotonic() < self._paused_until:
            return None
        try:
            return call(*arguments, **options)
        except (MlflowException, OSError) as error:
            self._paused_until = time.monotonic() + PAUSE
            if not self._warned:
                log.warning(
                    f"MLflow failed to log ({first_line(error)}): the training continues, and retries once a minute."
                )
            self._warned = True
            return None


class ResilientMLFlowLogger(MLFlowLogger):
    """Lightning's MLFlowLogger, which skips calls that the server fails."""

    _resilient_client: ResilientClient | None = None

    @property
    def experiment(self) -> Any:
        """MLflow's client; the first call starts the run."""
        client = super().experiment
        if self._resilient_client is None or self._resilient_client.client is not client:
            self._resilient_client = ResilientClient(client)
        return self._resilient_client


def make_mlflow_logger(
    tracking_uri: str,
    experiment_name: str = "distilpose",
    run_name: str | float | None = None,
    artifact_location: str | None = None,
    **options: Any,
) -> MLFlowLogger:
    """An MLflow logger that does not delay a training.

    Args:
        tracking_uri: address of a server, or a local database such as sqlite:///FILE.
        experiment_name: name of the experiment.
        run_name: name of the run.
        artifact_location: folder or address of pictures and tables; null for the server's default.
        **options: other settings of Lightning's MLFlowLogger.

    Raises:
        DistilPoseError: no server answers at the address.
    """
    if tracking_uri.startswith(("http://", "https://")) and not accepts_connections(tracking_uri):
        raise DistilPoseError(
            f"No MLflow server answers at logger.mlflow.tracking_uri={tracking_uri}: start it, correct the address, or leave "
            "the setting out for a file in the run's folder."
        )
    for name, value in RETRY_SETTINGS.items():
        os.environ.setdefault(name, value)
    return ResilientMLFlowLogger(
        tracking_uri=tracking_uri,
        experiment_name=experiment_name,
        run_name=None if run_name is None else str(run_name),
        artifact_location=artifact_location,
        **options,
    )
