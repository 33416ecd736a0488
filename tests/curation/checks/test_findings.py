"""Findings as they are printed and written."""

from __future__ import annotations

import ast
import io
import string
from pathlib import Path

import yaml
from rich.console import Console

from distilpose.curation import checks
from distilpose.curation.checks.findings import SEVERITIES, print_findings, write_findings

FOLDER = Path(checks.__file__).parent
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())


def test_unprintable_names_are_printed_and_written(sound, tmp_path):
    data = sound()
    data.images[0]["file_name"] = "\ud800.jpg"
    findings = data.check()
    assert findings.entries[0].examples == ("\\ud800.jpg",)
    data.category["keypoints"][1] = data.category["keypoints"][0] = "\ud800"
    findings.entries += data.check().entries  # this one has the name in its message
    assert "skeleton" in findings.codes("error")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_findings(findings, Console(file=stream, width=200))
    stream.flush()
    write_findings(findings, tmp_path / "report")
    assert "\\ud800.jpg" in (tmp_path / "report" / "check.md").read_text(encoding="utf-8")


def test_every_finding_has_a_rule_and_its_values():
    """Otherwise a finding that no other test covers would fail at run time."""
    assert tuple(RULES) == SEVERITIES
    messages = {code: message for rules in RULES.values() for code, (message, _) in rules.items()}
    assert len(messages) == sum(map(len, RULES.values()))
    calls = [node for path in FOLDER.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    calls = [
        node for node in calls if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add" and node.args
    ]
    added = [node for node in calls if getattr(node.func.value, "id", "") == "findings"]
    assert len(added) > 30
    for call in added:
        fields = {name for _, name, _, _ in string.Formatter().parse(messages[call.args[0].value]) if name}
        assert fields == {keyword.arg for keyword in call.keywords} - {"count", "severity"}
    tallied = [node.args[0].value for node in calls if getattr(node.func.value, "id", "") == "tally" and
               isinstance(node.args[0], ast.Constant)]  # fmt: skip
    assert set(tallied) <= messages.keys()
