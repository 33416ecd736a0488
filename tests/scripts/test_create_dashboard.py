"""The dashboard without a network; test_logged compares its keys with a real run."""

from __future__ import annotations

import json

import pytest


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


def test_both_are_saved_and_their_addresses_printed(script, monkeypatch, capsys):
    saved = []
    for kind in (script.ws.Workspace, script.wr.Report):
        monkeypatch.setattr(kind, "save", lambda self: saved.append(self) or self)
        monkeypatch.setattr(kind, "url", property(lambda self: f"https://wandb.example/{type(self).__name__}"))
    script.main(["--entity", "us", "--project", "mine"])
    assert [(part.entity, part.project) for part in saved] == [("us", "mine"), ("us", "mine")]
    assert capsys.readouterr().out.split() == ["https://wandb.example/Report", "https://wandb.example/Workspace"]
