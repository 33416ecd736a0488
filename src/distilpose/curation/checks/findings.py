"""Findings of the checks, and their report as a table, JSON and Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distilpose.files import write_json, write_text

SEVERITIES = ("error", "warning", "note")
_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_MAX_EXAMPLES = 5
_MAX_LENGTH = 80  # characters of a name


class Rule(NamedTuple):
    """Text for one type of problem: severity, message, advice."""

    severity: str
    message: str
    advice: str


@cache
def _rules() -> dict[str, Rule]:
    """Rules of rules.yaml by their code."""
    content = yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text(encoding="utf-8"))
    return {code: Rule(severity, *texts) for severity, rules in content.items() for code, texts in rules.items()}


@dataclass(frozen=True)
class Finding:
    """A problem of the data.

    Attributes:
        severity: one of `SEVERITIES`, explained in rules.yaml.
        code: code of its rule.
        split: name of the file, or of two files.
        count: number of annotations, images or joints with the problem.
        examples: a few of them, by id or name.
        message: one sentence on the problem.
        advice: what to do.
    """

    severity: str
    code: str
    split: str
    count: int
    examples: tuple[str, ...]
    message: str
    advice: str


@dataclass
class Findings:
    """Collects the findings of all files, one file after the other.

    Attributes:
        split: name of the file that is being checked.
        entries: the findings so far.
        facts: statistics of each file, such as its number of persons.
    """

    split: str = ""
    entries: list[Finding] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        code: str,
        where: Sequence[Any] | np.ndarray,
        severity: str | None = None,
        count: int | None = None,
        **values: Any,
    ) -> None:
        """Add a finding, unless its count is 0.

        Args:
            code: code of a rule in rules.yaml.
            where: ids or names of everything with the problem, or a few of them if `count` is given.
            severity: by default the severity of the rule.
            count: number of places with the problem; by default the length of `where`.
            **values: values for the placeholders in the rule's message.
        """
        count = len(where) if count is None else count
        if count:
            rule = _rules()[code]
            examples = tuple(_shortened(place) for place in where[:_MAX_EXAMPLES])
            message = _printable(rule.message.format(**values))
            self.entries.append(
                Finding(severity or rule.severity, code, self.split, count, examples, message, rule.advice)
            )

    def add_all(self, tally: Tally, **values: Any) -> None:
        """Add the findings of a tally."""
        for code, count in tally.counts.items():
            self.add(code, tally.places[code], count=count, **values)

    def count(self, severity: str) -> int:
        """Number of findings of that severity."""
        return sum(finding.severity == severity for finding in self.entries)

    def codes(self, *severities: str) -> set[str]:
        """Codes of the findings of these severities, or of all."""
        return {finding.code for finding in self.entries if not severities or finding.severity in severities}

    def ordered(self) -> list[Finding]:
        """Findings by severity, errors first, then by falling count."""
        return sorted(self.entries, key=lambda one: (SEVERITIES.index(one.severity), -one.count))

    def verdict(self) -> str:
        """Number of findings of each severity, in words."""
        counts = [(self.count(severity), severity) for severity in SEVERITIES]
        return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)

    def summaries(self) -> list[tuple[str, str]]:
        """Name of each file, and its statistics in words."""
        return [(split, ", ".join(f"{n} {name}" for name, n in facts.items())) for split, facts in self.facts.items()]


class Tally:
    """Counts the problems of rows by code, and keeps the first few places of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: dict[str, list[Any]] = {}

    def add(self, code: str, place: Any) -> None:
        """Count a problem at a place, such as an id."""
        self.counts[code] += 1
        places = self.places.setdefault(code, [])
        if len(places) < _MAX_EXAMPLES:
            places.append(place)


def print_findings(findings: Findings, console: Console) -> None:
    """Print the findings as a table, below the statistics of each file."""
    for split, summary in findings.summaries():
        console.print(Text(f"{_shortened(split)}: {summary}"))
    if findings.entries:
        table = Table("", "code", "count", "problem", "advice", show_lines=True)
        for one in findings.ordered():
            message = Text(one.message + (f" E.g. {', '.join(one.examples)}." if one.examples else ""))
            if len(findings.facts) > 1:
                message = Text(f"{_shortened(one.split)}: ") + message
            severity = Text(one.severity, _COLOURS[one.severity])
            table.add_row(severity, Text(one.code), str(one.count), message, Text(one.advice))
        console.print(table)
    console.print(Text(findings.verdict()))


def write_findings(findings: Findings, folder: Path) -> None:
    """Write check.json and check.md."""
    content = {"facts": findings.facts, "findings": [asdict(one) for one in findings.ordered()]}
    write_json(content, folder / "check.json")
    lines = ["# Check of the data", "", findings.verdict(), ""]
    lines += [f"- {_markdown(split)}: {summary}" for split, summary in findings.summaries()]
    for severity in SEVERITIES:
        rows = [one for one in findings.ordered() if one.severity == severity]
        if rows:
            lines += ["", f"## {severity.capitalize()}s", "", "| code | file | count | problem | examples | advice |"]
            lines.append("| --- | --- | --- | --- | --- | --- |")
            for one in rows:
                cells = (one.code, one.split, one.count, one.message, ", ".join(one.examples), one.advice)
                lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    write_text("\n".join(lines) + "\n", folder / "check.md")


def _shortened(place: Any) -> str:
    """A name or id as one short line of printable characters."""
    text = _printable(str(place)[: 2 * _MAX_LENGTH])
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"


def _printable(text: str) -> str:
    """The text with escapes for characters that cannot be printed, such as half a surrogate pair."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _markdown(cell: Any) -> str:
    """Text escaped for a cell of a Markdown table, without HTML."""
    text = _printable(str(cell)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("|", "\\|").replace("`", "\\`").replace("[", "\\[")
