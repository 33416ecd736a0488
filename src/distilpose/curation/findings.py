"""What a check found, and how it is told: a table, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distilpose.files import write_json, write_text

SEVERITIES = ("error", "warning", "note")
_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_SHOWN = 5
_LONGEST = 80


@dataclass(frozen=True)
class Finding:
    """One kind of fault.

    Attributes:
        severity: "error": training stops on it or what is learnt is wrong; "warning": likely to make a worse model;
            "note": worth knowing.
        code: short name, the same from release to release.
        split: which file it is about, or two of them.
        count: how many annotations, images or joints show it.
        examples: a few of them, by id or name.
        told: one sentence on what was found.
        way_out: what to do.
    """

    severity: str
    code: str
    split: str
    count: int
    examples: tuple[str, ...]
    told: str
    way_out: str


@dataclass
class Findings:
    """Collects findings, of one file at a time.

    Attributes:
        split: name of the file that is checked now.
        found: everything so far.
        facts: figures of each file, such as its number of persons.
    """

    split: str = ""
    found: list[Finding] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, severity: str, code: str, where: Iterable[Any], told: str, way_out: str, count: int = -1) -> None:
        """Add a finding, unless nothing shows it.

        Args:
            severity: one of `SEVERITIES`.
            code: short name.
            where: ids or names of all that show it, or a few of them if `count` is given.
            told: one sentence.
            way_out: what to do.
            count: how many show it; the length of `where` by default.
        """
        places = where if isinstance(where, (Sequence, np.ndarray)) else list(where)
        count = len(places) if count < 0 else count
        if count:
            examples = tuple(_short(place) for place in places[:_SHOWN])
            self.found.append(Finding(severity, code, self.split, count, examples, _printable(told), way_out))

    def count(self, severity: str) -> int:
        """Number of findings of that severity."""
        return sum(finding.severity == severity for finding in self.found)

    def codes(self, *severities: str) -> set[str]:
        """The codes found, of these severities or of all."""
        return {finding.code for finding in self.found if not severities or finding.severity in severities}

    def ordered(self) -> list[Finding]:
        """Errors first, and the most frequent first."""
        return sorted(self.found, key=lambda one: (SEVERITIES.index(one.severity), -one.count))

    def verdict(self) -> str:
        """How many findings of each severity there are, in words."""
        counts = [(self.count(severity), severity) for severity in SEVERITIES]
        return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)


def print_findings(findings: Findings, console: Console) -> None:
    """The findings as a table, with the figures of each file above."""
    for split, facts in findings.facts.items():
        console.print(Text(f"{_short(split)}: " + ", ".join(f"{value} {name}" for name, value in facts.items())))
    if findings.found:
        table = Table("", "what", "count", "found", "way out", show_lines=True)
        for one in findings.ordered():
            told = Text(one.told + (f" E.g. {', '.join(one.examples)}." if one.examples else ""))
            if len(findings.facts) > 1:
                told = Text(f"{_short(one.split)}: ") + told
            colour = _COLOURS[one.severity]
            table.add_row(Text(one.severity, colour), Text(one.code), str(one.count), told, Text(one.way_out))
        console.print(table)
    console.print(Text(findings.verdict()))


def write_findings(findings: Findings, folder: Path) -> None:
    """check.json and check.md in the folder."""
    content = {"facts": findings.facts, "findings": [asdict(one) for one in findings.ordered()]}
    write_json(content, folder / "check.json")
    lines = ["# Check of the data", "", findings.verdict(), ""]
    for split, facts in findings.facts.items():
        lines.append(f"- {_markdown(split)}: " + ", ".join(f"{value} {name}" for name, value in facts.items()))
    for severity in SEVERITIES:
        rows = [one for one in findings.ordered() if one.severity == severity]
        if rows:
            lines += ["", f"## {severity.capitalize()}s", "", "| what | file | count | found | examples | way out |"]
            lines.append("| --- | --- | --- | --- | --- | --- |")
            for one in rows:
                cells = (one.code, one.split, one.count, one.told, ", ".join(one.examples), one.way_out)
                lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    write_text("\n".join(lines) + "\n", folder / "check.md")


def _short(place: Any) -> str:
    """A name or id in one line of printable characters."""
    text = _printable(str(place)[: 2 * _LONGEST])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _printable(text: str) -> str:
    """Text that may hold anything, such as halves of a surrogate pair, with escapes where it cannot be printed."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _markdown(cell: Any) -> str:
    """Text that stays in its cell and is no HTML."""
    text = _printable(str(cell)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("|", "\\|").replace("`", "\\`").replace("[", "\\[")
