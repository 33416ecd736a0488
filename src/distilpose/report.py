"""Runs side by side, one row a configuration: `python -m distilpose.report runs/ablation metric=val/AP output=FOLDER`."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from matplotlib import pyplot as plt
from omegaconf import DictConfig, ListConfig

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.files import atomic_write, write_json, write_text
from distilpose.reporting.figures import draw_by, draw_curves
from distilpose.reporting.rows import Row, group_runs
from distilpose.reporting.text import caption, told_table
from distilpose.reporting.values import compare, measured
from distilpose.runs.folders import Run, collect_runs

# Hydra's flags that are followed by a value
VALUED = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p", "--cfg", "-c")


def main() -> None:
    """The command: what is no override of Hydra's is the folder of a run, so that a shell's patterns work."""
    sys.argv[1:] = arguments(sys.argv[1:])
    report()


def arguments(words: Sequence[str]) -> list[str]:
    """The same as Hydra takes it: folders in `runs=[…]`, whatever their names hold, then overrides, then flags.

    A word with "=" in it is an override unless it is an existing folder.
    """
    folders, overrides, flags = [], [], []
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or before in VALUED:
            flags.append(word)
        elif Path(word).is_dir() or not ("=" in word or word.startswith("~")):
            folders.append(_quoted(word))
        elif re.match("baseline=(?!null$)[^'\"]", word):  # names of rows hold commas and equals signs
            overrides.append(f"baseline={_quoted(word.removeprefix('baseline='))}")
        else:
            overrides.append(word)
    if folders and any(word.startswith("runs=") for word in overrides):
        sys.exit("error: Runs are given both as folders and by runs=[…]: leave one of them out.")
    return [*([f"runs=[{','.join(folders)}]"] if folders else []), *overrides, *flags]


def _quoted(text: str) -> str:
    return QuotedString(text.replace("${", "\\${"), Quote.single).with_quotes()


@command("report")
def report(cfg: DictConfig) -> dict[str, Any]:
    """Print one table, and write it with all its figures and the curves into the output folder."""
    check_settings(cfg)
    output = Path(cfg.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DistilPoseError(f"output={output} is not an empty folder and nothing is overwritten: give a new one.")
    rows, notes = usable_rows(cfg)
    if cfg.x is not None and not any(cfg.x in row.settings for row in rows):
        raise DistilPoseError(f"x={cfg.x} is no setting that tells runs apart: expected one of their config.yaml.")
    table = [measured(row, cfg) for row in rows]
    notes = [*compare(table, cfg), *notes]
    told = [told_table(table, cfg), *caption(table, cfg), *notes]
    pictures = {"curves.png": draw_curves(table, cfg.metric)}
    if cfg.x is not None:
        pictures[f"by_{cfg.x}.png"] = draw_by(table, cfg.metric, cfg.x)
    for name, figure in pictures.items():
        with atomic_write(output / name) as file:
            figure.savefig(file, dpi=120)
        plt.close(figure)
    content = {"metric": cfg.metric, "at": cfg.at, "x": cfg.x, "rows": table, "caption": told[1:]}
    write_json(content, output / "report.json")
    paragraphs = [f"# {cfg.metric} at the {cfg.at} epoch", *told, *(f"![{name}]({name})" for name in pictures)]
    write_text("\n\n".join(paragraphs) + "\n", output / "report.md")
    print("\n".join(["", told[0], "", *told[1:], f"Written to {output}"]))
    return content


def check_settings(cfg: DictConfig) -> None:
    """Refuse settings of another kind than conf/report.yaml's."""
    for name in ("runs", "ignore"):
        if not isinstance(cfg[name], ListConfig):  # the letters of a word would each be one
            raise DistilPoseError(f"{name}={cfg[name]} must be a list: put what it holds in brackets, {name}=[…].")
    for key in ("metric", "output", "published_as"):
        if not isinstance(cfg[key], str):
            raise DistilPoseError(f"{key}={cfg[key]} must be a word: leave it out for what conf/report.yaml says.")
    if not isinstance(cfg.published, DictConfig | None):
        raise DistilPoseError(
            f"published={cfg.published} must be figures by name of a row: give published={{regression: 56.0}}, or null."
        )
    for row, value in (cfg.published or {}).items():
        if value is not None:
            check_number(f"published.{row!s}", value)
    check_flag("unfinished", cfg.unfinished)
    if cfg.at not in ("last", "best"):
        raise DistilPoseError(f"at={cfg.at} is not known: expected last or best.")


def usable_rows(cfg: DictConfig) -> tuple[list[Row], list[str]]:
    """The runs asked for that have the metric, by configuration, and a sentence on each that is not used."""
    runs, notes = collect_runs(map(str, cfg.runs), cfg.unfinished)
    if runs and not any(run.series(cfg.metric) for run in runs):
        known = {name for run in runs for row in run.rows for name in row if "/" in name}
        raise DistilPoseError(f"metric={cfg.metric} is in no run's table: expected one of {', '.join(sorted(known))}.")
    troubles = [_trouble(run, cfg.metric) for run in runs]
    notes += [f"{run.folder} is left out: {why}." for run, why in zip(runs, troubles, strict=True) if why]
    usable = [run for run, why in zip(runs, troubles, strict=True) if why is None]
    rows, unused = group_runs(usable, [str(key) for key in cfg.ignore], cfg.metric)
    notes += unused
    if not rows:
        why = "".join(f"{note.rstrip('.')}; " for note in notes)
        raise DistilPoseError(f"There is no run to report: {why}give folders of runs, such as runs/*.")
    return rows, notes


def _trouble(run: Run, metric: str) -> str | None:
    """Why a run's figures cannot be told, if they cannot."""
    series = run.series(metric)
    if not series:
        return f"its table has no {metric}"
    for row in run.rows:
        for name, value in row.items():
            if (name == metric or name.startswith("train/")) and not math.isfinite(value):
                return f"its {name} is {value} after epoch {row['epoch']}"
    absent = metric.startswith(("val/AP", "val/AR")) and -1 in series.values()
    return f"its {metric} is -1, COCO's word for a set without such persons" if absent else None


if __name__ == "__main__":
    main()
