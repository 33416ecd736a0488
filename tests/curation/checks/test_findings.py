"""Findings as they are printed and written."""

from __future__ import annotations

import io

from rich.console import Console

from distilpose.curation.checks.findings import print_findings, write_findings


def test_names_that_are_no_text_are_printed_and_written(sound, tmp_path):
    data = sound()
    data.images[0]["file_name"] = "\ud800.jpg"
    findings = data.check()
    assert findings.found[0].examples == ("\\ud800.jpg",)
    data.category["keypoints"][1] = data.category["keypoints"][0] = "\ud800"
    findings.found += data.check().found  # this one has the name in its sentence
    assert "skeleton" in findings.codes("error")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_findings(findings, Console(file=stream, width=200))
    stream.flush()
    write_findings(findings, tmp_path / "report")
    assert "\\ud800.jpg" in (tmp_path / "report" / "check.md").read_text(encoding="utf-8")
