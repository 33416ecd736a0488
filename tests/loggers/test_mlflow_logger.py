"""MLflow's client, with a stub server."""

from __future__ import annotations

import pytest
from trackers import tracker

from distilpose.callbacks import make_mlflow_logger
from distilpose.errors import DistilPoseError
from distilpose.loggers import mlflow_logger

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def without_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_an_unreachable_server_raises_an_error():
    with pytest.raises(DistilPoseError, match=r"logger.mlflow.tracking_uri=http://127\.0\.0\.1:9.*start it"):
        make_mlflow_logger("http://127.0.0.1:9")


def test_a_lost_server_is_skipped_and_retried(monkeypatch):
    now, warnings = [100.0], []
    monkeypatch.setattr(mlflow_logger.log, "warning", warnings.append)
    monkeypatch.setattr(mlflow_logger.time, "monotonic", lambda: now[0])
    with tracker() as server:
        logger = make_mlflow_logger(server.address, experiment_name="distilpose")
        logger.log_metrics({"loss": 1.0}, step=0)
        assert any("log-batch" in sent and '"loss"' in sent for sent in server.sent)
        server.status = 500
        for step in range(1, 4):
            logger.log_metrics({"gone": 1.0}, step=step)
            logger.experiment.log_text(logger.run_id, "text", "table.csv")
        assert len(warnings) == 1
        assert "MLflow" in warnings[0]
        assert sum('"gone"' in sent for sent in server.sent) == 1  # the others are skipped
        server.status = 200
        now[0] += mlflow_logger.PAUSE + 1
        logger.log_metrics({"back": 1.0}, step=4)
        assert any('"back"' in sent for sent in server.sent)
        server.status = 500
        logger.finalize("success")
