"""Compare runs, one row per configuration: `python -m distilpose.report runs/ablation metric=val/AP output=FOLDER`."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError
from distilpose.evaluation import has_value
from distilpose.files import atomic_write, check_new_folder, write_json, write_text
from distilpose.reporting.figures import draw_by, draw_curves
from distilpose.reporting.rows import Row, group_runs
from distilpose.reporting.text import caption, format_table
from distilpose.reporting.values import compare, differing_files, row_values
from distilpose.runs.folders import Run, collect_runs

# flags of Hydra that take a value
VALUED = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c")


class ReportSettings:
    """Settings of the report command.

    Attributes:
        runs: folders of runs, or folders of such folders (a sweep's). Arguments without "=" are added to them.
        metric: column of metrics.csv; AP, AR, PCK and train/share_… are shown in per cent.
        at: "last" is the value of the last epoch, so nothing is selected; "best" is that of the best epoch, selected on
            the validation data itself.
        baseline: row that the others are compared with, seed by seed: its name or a part of it; null is regression if there
            is such a row. Of several rows the one with the same validation settings is used.
        x: setting to draw the metric against, such as data.label_share or teacher.checkpoint.
        unfinished: include runs that have not reached trainer.max_epochs.
        ignore: further settings in which the runs of a row may differ, such as [teacher.checkpoint]. Seeds, folders and
            machines are always ignored.
        published: published values by name of a row, shown beside the measured ones.
        published_as: heading of the column of published values.
        published_note: source of the published values.
        output: new folder of report.md, report.json, curves.png and by_<x>.png.
    """

    runs: list[str | Path]
    metric: str
    at: Literal["last", "best"]
    baseline: str | None
    x: str | None
    unfinished: bool
    ignore: list[str]
    published: Mapping[str, float | None] | None
    published_as: str
    published_note: str
    output: str | Path


def main() -> None:
    """Run the command. Arguments that are not Hydra overrides are folders of runs, so that shell patterns work."""
    sys.argv[1:] = arguments(sys.argv[1:])
    report()


def arguments(words: Sequence[str]) -> list[str]:
    """Convert the command line to Hydra's form: folders as `runs=[…]`, quoted if needed, then overrides, then flags.

    An argument with "=" is an override unless it is an existing folder, or starts as a path does.
    """
    folders, overrides, flags = [], [], []
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or before in VALUED:
            flags.append(word)
        elif Path(word).is_dir() or word[:1] in ("/", ".") or not ("=" in word or word.startswith("~")):
            folders.append(_quoted(word))
        elif re.match("baseline=(?!null$)[^'\"]", word):  # names of rows contain commas and equals signs
            overrides.append(f"baseline={_quoted(word.removeprefix('baseline='))}")
        else:
            overrides.append(word)
    if folders and any(word.startswith("runs=") for word in overrides):
        sys.exit("error: Runs are given both as folders and by runs=[…]: use only one of them.")
    return [*([f"runs=[{','.join(folders)}]"] if folders else []), *overrides, *flags]


def _quoted(text: str) -> str:
    return QuotedString(text.replace("${", "\\${"), Quote.single).with_quotes()


@command("report", ReportSettings)
def report(cfg: DictConfig) -> dict[str, Any]:
    """Print one table, and write it with all its values and the curves into the output folder."""
    output = check_new_folder(cfg.output)
    rows, notes = usable_rows(cfg)
    if cfg.x is not None and not any(cfg.x in row.settings for row in rows):
        raise DistilPoseError(f"x={cfg.x} is not a setting of any run: give one from their config.yaml.")
    table = [row_values(row, cfg) for row in rows]
    notes = [*compare(table, cfg), *differing_files(rows), *notes]
    paragraphs = [format_table(table, cfg), *caption(table, cfg), *notes]
    figures = {"curves.png": draw_curves(table, cfg.metric)}
    if cfg.x is not None:
        figures[f"by_{cfg.x}.png"] = draw_by(table, cfg.metric, cfg.x)
    for name, figure in figures.items():
        with atomic_write(output / name) as file:
            figure.savefig(file, dpi=120)
    content = {"metric": cfg.metric, "at": cfg.at, "x": cfg.x, "rows": table, "caption": paragraphs[1:]}
    write_json(content, output / "report.json")
    page = [f"# {cfg.metric} at the {cfg.at} epoch", *paragraphs, *(f"![{name}]({name})" for name in figures)]
    write_text("\n\n".join(page) + "\n", output / "report.md")
    print("\n".join(["", paragraphs[0], "", *paragraphs[1:], f"Written to {output}"]))
    return content


def usable_rows(cfg: DictConfig) -> tuple[list[Row], list[str]]:
    """The runs that have the metric, grouped by configuration, and a note on each run that is not used."""
    runs, notes = collect_runs(cfg.runs, cfg.unfinished)
    problems = [_problem_of(run, cfg.metric) for run in runs]
    notes += [f"{run.folder} is left out: {why}." for run, why in zip(runs, problems, strict=True) if why]
    usable = [run for run, why in zip(runs, problems, strict=True) if why is None]
    rows, unused = group_runs(usable, cfg.ignore, cfg.metric)
    notes += unused
    if not rows:
        reasons = "".join(f"{note.rstrip('.')}; " for note in notes)
        raise DistilPoseError(f"There is no run to report: {reasons}give folders of runs, such as runs/*.")
    return rows, notes


def _problem_of(run: Run, metric: str) -> str | None:
    """Why the values of a run cannot be used; None if they can."""
    series = run.series(metric)
    if not series:
        return f"its metrics.csv has no column {metric}"
    for row in run.rows:
        for name, value in row.items():
            if (name == metric or name.startswith("train/")) and not math.isfinite(value):
                return f"its {name} is {value} after epoch {row['epoch']}"
    absent = not all(has_value(metric, value) for value in series.values())
    return f"its {metric} is -1, COCO's value for a set without such persons" if absent else None


if __name__ == "__main__":
    main()
