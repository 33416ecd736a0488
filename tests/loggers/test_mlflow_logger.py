"""MLflow's client, beside a server that is played."""

from __future__ import annotations

import pytest
from trackers import tracker

from distilpose.callbacks import make_mlflow_logger
from distilpose.errors import DistilPoseError
from distilpose.loggers import mlflow_logger as mlflow_run

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_a_server_that_is_not_there_is_told_at_once():
    with pytest.raises(DistilPoseError, match=r"tracking_uri=http://127\.0\.0\.1:9: start it"):
        make_mlflow_logger("http://127.0.0.1:9")


def test_one_that_goes_away_costs_no_training_and_is_tried_again(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(mlflow_run.time, "monotonic", lambda: now[0])
    with tracker() as server:
        logger = make_mlflow_logger(server.address, experiment_name="distilpose")
        logger.log_metrics({"loss": 1.0}, step=0)
        assert any("log-batch" in sent and '"loss"' in sent for sent in server.sent)
        server.status = 500
        for step in range(1, 4):
            logger.log_metrics({"gone": 1.0}, step=step)
            logger.experiment.log_text(logger.run_id, "text", "table.csv")
        assert capsys.readouterr().out.count("MLflow takes no more") == 1
        assert sum('"gone"' in sent for sent in server.sent) == 1  # the others do not wait for it
        server.status = 200
        now[0] += mlflow_run.PAUSE + 1
        logger.log_metrics({"back": 1.0}, step=4)
        assert any('"back"' in sent for sent in server.sent)
        server.status = 500
        logger.finalize("success")
