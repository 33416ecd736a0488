"""The dashboard without a network; test_logged checks with a real run that its keys exist."""

from __future__ import annotations

import json

import pytest
import wandb


@pytest.fixture
def script(load_script):
    return load_script("create_dashboard")


def test_the_specification_is_written_to_a_file(script, tmp_path, capsys):
    script.main(["--entity", "us", "--project", "mine", "--output", str(tmp_path / "spec.json")])
    assert "nothing was sent" in capsys.readouterr().out
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert set(spec) == {"workspace", "report"}
    assert (spec["workspace"]["entity"], spec["workspace"]["project"]) == ("us", "mine")
    assert set(script.keys_of(spec["workspace"])) == set(script.keys_of(spec["report"]))
    names = [section["name"] for section in spec["workspace"]["spec"]["section"]["panelBankConfig"]["sections"]]
    assert names == list(script.sections())
    text = json.dumps(spec["report"])
    assert all(json.dumps(name) in text for name in (*names, "Sweeps"))
    before = (tmp_path / "spec.json").read_bytes()
    with pytest.raises(SystemExit, match=r"spec\.json already exists"):
        script.main(["--output", str(tmp_path / "spec.json")])
    assert (tmp_path / "spec.json").read_bytes() == before


@pytest.mark.parametrize(
    ("account", "why"),
    [(False, "no account is set up for"), (True, "does not answer")],
    ids=["no account", "no network"],
)
def test_without_account_or_network(script, monkeypatch, account, why):
    from distilpose.loggers import wandb_logger as wandb_run

    monkeypatch.setattr(wandb_run, "_has_account", lambda url: account)
    monkeypatch.setattr(wandb_run, "accepts_connections", lambda url: False)
    with pytest.raises(SystemExit, match=rf"error: The dashboard of mine cannot be created .*{why}.* --output FILE"):
        script.main(["--project", "mine"])


def test_without_the_library(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "ws", None)
    with pytest.raises(SystemExit, match=r"error: Dashboards need .* pip install 'distilpose\[dashboards\]'"):
        script.main(["--output", str(tmp_path / "spec.json")])
    assert not (tmp_path / "spec.json").exists()


def test_wandb_rejects_the_dashboard(script, monkeypatch):
    def reject(self):
        raise wandb.errors.CommError("permission\ndenied")

    monkeypatch.setattr(script, "unavailable_reason", lambda: None)
    monkeypatch.setattr(script.wr.Report, "save", reject)
    with pytest.raises(SystemExit, match=r"error: .*us/mine \(permission denied\).*--entity"):
        script.main(["--entity", "us", "--project", "mine"])


def test_both_are_saved_and_their_addresses_printed(script, monkeypatch, capsys):
    saved = []
    for kind in (script.ws.Workspace, script.wr.Report):
        monkeypatch.setattr(kind, "save", lambda self: saved.append(self) or self)
        monkeypatch.setattr(kind, "url", property(lambda self: f"https://wandb.example/{type(self).__name__}"))
    monkeypatch.setattr(script, "unavailable_reason", lambda: None)
    script.main(["--entity", "us", "--project", "mine"])
    assert [(part.entity, part.project) for part in saved] == [("us", "mine"), ("us", "mine")]
    assert capsys.readouterr().out.split() == ["https://wandb.example/Report", "https://wandb.example/Workspace"]
