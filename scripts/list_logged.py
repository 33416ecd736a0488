"""List what a run logged to W&B, from its files: `python scripts/list_logged.py runs/student_s`.

Shows the type, the number of rows and the last value of each key. Works offline, and for unfinished runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from wandb_offline import LoggedRun, find_logged, kind_of, read_logged

from distilpose.errors import DistilPoseError
from distilpose.runs.config import flatten


def key_table(run: LoggedRun) -> list[tuple[str, str, int, str]]:
    """Rows of key, type, number of values and last value."""
    return [
        (key, kind_of(rows[-1][1]), len(rows), _short_text(rows[-1][1])) for key, rows in sorted(run.history.items())
    ]


def _short_text(value: Any) -> str:
    """A short text for a logged value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, dict):
        return str(value)
    sizes = [f"{value[name]} {name}" for name in ("count", "nrows", "ncols") if name in value]
    return ", ".join(sizes) or (f"{len(value['bins'])} edges" if "bins" in value else "")


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="List what a run logged to W&B.")
    parser.add_argument("run", type=Path, help="a run's folder, or a .wandb file")
    parser.add_argument("--config", action="store_true", help="also list the configuration that was logged")
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        for file in find_logged(options.run):
            run = read_logged(file)
            ended = "not closed" if run.exit_code is None else f"exit code {run.exit_code}"
            grouped = f", group {run.group}" if run.group else ""
            print(f"{file}: {run.name} of project {run.project}{grouped}, {ended}")
            _print_table(key_table(run), options.markdown, console)
            if options.config:
                for key, value in sorted(flatten(run.config).items()):
                    print(f"{key}: {value}")
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")


def _print_table(rows: list[tuple[str, str, int, str]], markdown: bool, console: Console) -> None:
    """Print the rows as a table."""
    head = ("key", "type", "rows", "last")
    if markdown:
        named = [(f"`{key}`", *rest) for key, *rest in rows]
        print("\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *named)))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


if __name__ == "__main__":
    main()
