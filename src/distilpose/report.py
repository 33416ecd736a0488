"""Runs side by side, one row a configuration: `python -m distilpose.report runs/ablation metric=val/AP output=FOLDER`."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from matplotlib import pyplot as plt
from omegaconf import DictConfig

from distilpose.command import command
from distilpose.errors import DistilPoseError, check_flag
from distilpose.evaluation import markdown_table
from distilpose.files import write_json, write_text, written_beside
from distilpose.report_figures import draw_by, draw_curves, scale_of
from distilpose.run_folders import Row, Run, collect_runs, group_runs

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
    output = Path(cfg.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DistilPoseError(f"output={output} is not an empty folder and nothing is overwritten: give a new one.")
    check_flag("unfinished", cfg.unfinished)
    if cfg.at not in ("last", "best"):
        raise DistilPoseError(f"at={cfg.at} is not known: expected last or best.")
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
        with written_beside(output / name) as file:
            figure.savefig(file, dpi=120)
        plt.close(figure)
    content = {"metric": cfg.metric, "at": cfg.at, "x": cfg.x, "rows": table, "caption": told[1:]}
    write_json(content, output / "report.json")
    paragraphs = [f"# {cfg.metric} at the {cfg.at} epoch", *told, *(f"![{name}]({name})" for name in pictures)]
    write_text("\n\n".join(paragraphs) + "\n", output / "report.md")
    print("\n".join(["", told[0], "", *told[1:], f"Written to {output}"]))
    return content


def usable_rows(cfg: DictConfig) -> tuple[list[Row], list[str]]:
    """The runs asked for that have the metric, by configuration, and a sentence on each that is not used."""
    runs, notes = collect_runs(map(str, cfg.runs), cfg.unfinished, list(cfg.ignore))
    if runs and not any(run.series(cfg.metric) for run in runs):
        known = {name for run in runs for row in run.rows for name in row if "/" in name}
        raise DistilPoseError(f"metric={cfg.metric} is in no run's table: expected one of {', '.join(sorted(known))}.")
    troubles = [_trouble(run, cfg.metric) for run in runs]
    notes += [f"{run.folder} is left out: {why}." for run, why in zip(runs, troubles, strict=True) if why]
    rows, repeated = group_runs([run for run, why in zip(runs, troubles, strict=True) if why is None])
    notes += repeated
    if not rows:
        why = "; ".join(note.rstrip(".") for note in notes) or "give folders of runs, such as runs/*"
        raise DistilPoseError(f"There is no run to report: {why}.")
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


def measured(row: Row, cfg: DictConfig) -> dict[str, Any]:
    """The figures of a row, as report.json holds them."""
    runs = list(row.runs.values())
    series, clocks = [run.series(cfg.metric) for run in runs], [run.series("minutes") for run in runs]
    best = min if _best_is_low(cfg.metric) else max
    at = [max(known) if cfg.at == "last" else best(known, key=known.__getitem__) for known in series]
    values = [known[epoch] for known, epoch in zip(series, at, strict=True)]
    shared = [epoch for epoch in series[0] if all(epoch in known for known in series)]
    spreads = [_spread([known[epoch] for known in series]) for epoch in shared]
    return {
        "name": row.name,
        "seeds": list(row.runs),
        "values": values,
        **_spread(values),
        "at_epochs": at,
        "epochs": [max(clock) for clock in clocks],
        "planned_epochs": [run.planned for run in runs],
        "steps": [max(run.series("step").values(), default=None) for run in runs],
        "minutes": fmean(clock[max(clock)] for clock in clocks),
        "published": (cfg.published or {}).get(row.name) if scale_of(cfg.metric) > 1 else None,
        "folders": [str(run.folder) for run in runs],
        "settings": row.settings,
        "curve": {
            "epochs": shared,
            "minutes": [fmean(clock[epoch] for clock in clocks) for epoch in shared],
            **{key: [spread[key] for spread in spreads] for key in ("mean", "sd")},
        },
    }


def _best_is_low(metric: str) -> bool:
    return metric.startswith("train/") or "error" in metric


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation, which one value has none of."""
    return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def compare(table: Sequence[dict[str, Any]], cfg: DictConfig) -> list[str]:
    """Put each row's difference to the baseline into the table, paired by seed; of several, to that at the same x."""
    wanted = {"regression", "loss=regression"} if cfg.baseline is None else {str(cfg.baseline)}
    bases = [line for line in table if wanted & {line["name"], *line["name"].split(", ")}]
    if not bases and cfg.baseline is not None:
        raise DistilPoseError(f"baseline={cfg.baseline} is no row: expected {'; '.join(row['name'] for row in table)}.")
    alone = []
    for line in table:
        near = [base for base in bases if cfg.x and base["settings"].get(cfg.x) == line["settings"].get(cfg.x)]
        base = next(iter(bases if len(bases) == 1 else near), None) if len(near) < 2 else None
        if bases and base is None:
            alone.append(line["name"])
        elif base is not None and base is not line:
            own, other = (dict(zip(row["seeds"], row["values"], strict=True)) for row in (line, base))
            pairs = {seed: own[seed] - other[seed] for seed in own if seed in other}
            line["difference"] = {"baseline": base["name"], "seeds": list(pairs)}
            line["difference"] |= _spread(list(pairs.values())) if pairs else {}
    why = f"{len(bases)} rows go by the baseline's name{f', none or several at the same {cfg.x}' if cfg.x else ''}"
    return [f"No difference is told for {'; '.join(alone)}: {why}."] if alone else []


def told_table(table: Sequence[dict[str, Any]], cfg: DictConfig) -> str:
    """The table in Markdown, without the columns that no row fills."""

    def told(value: float | None, form: str = "") -> str:
        digits = ".1f" if scale_of(cfg.metric) > 1 else ".4g"
        return "-" if value is None else f"{value * scale_of(cfg.metric):{form}{digits}}"

    bases = list(dict.fromkeys(line["difference"]["baseline"] for line in table if "difference" in line))
    names = dict.fromkeys(base.split(", ")[0] for base in bases)
    versus = "difference to " + (bases[0] if len(bases) == 1 else f"{' or '.join(names)} at the same {cfg.x}")
    lines = []
    for line in table:
        done = zip(line["epochs"], line["planned_epochs"], strict=True)
        cells = {
            "name": line["name"].replace("|", "\\|"),
            "seeds": ", ".join(map(str, line["seeds"])),
            "epochs": ", ".join(dict.fromkeys(f"{n}" if n >= of else f"{n} of {of} (unfinished)" for n, of in done)),
            "steps": ", ".join(dict.fromkeys(f"{steps:.0f}" for steps in line["steps"] if steps is not None)) or "-",
            f"{cfg.metric}, mean ± sd": f"{told(line['mean'])} ± {told(line['sd'])}",
            "each seed": ", ".join(map(told, line["values"])),
        }
        gain = line.get("difference", {})
        if gain.get("seeds"):
            count = f"{len(gain['seeds'])} seed{'s' if len(gain['seeds']) > 1 else ''}"
            cells[versus] = f"{told(gain['mean'], '+')} ± {told(gain['sd'])} ({count})"
        if math.isfinite(line["minutes"]):
            cells["minutes"] = f"{line['minutes']:.1f}"
        if line["published"] is not None:
            cells[cfg.published_as] = str(line["published"])
        lines.append(cells)
    columns = [*list(lines[0])[:6], versus, "minutes", cfg.published_as]
    return markdown_table(lines, [name for name in columns if any(name in line for line in lines)])


def caption(table: Sequence[dict[str, Any]], cfg: DictConfig) -> list[str]:
    """What the figures are, under which protocol, and whose."""

    def each(key: str, tell: Callable[[Any], str] = str) -> str:
        return " or ".join(dict.fromkeys(tell(line["settings"].get(key)) for line in table))

    flips = {True: "flip test", False: "no flip test"}
    picked = "of the last epoch, so that nothing is selected on validation data"
    if cfg.at == "best":
        extreme = "lowest" if _best_is_low(cfg.metric) else "highest"
        picked = f"the {extreme} of a run's epochs, selected on the data it is told of and so flattering"
    unit = " in per cent" if scale_of(cfg.metric) > 1 else ""
    told = [
        f"{cfg.metric}{unit} is {picked}; sd is the sample standard deviation over seeds; differences are paired by seed.",
        f"Validation: {each('data.root', lambda root: root or 'synthetic persons')}, "
        f"{each('data.limit_val', lambda limit: 'all persons' if limit is None else f'the first {limit} persons')}, "
        f"crop {each('model.input_size', lambda size: ' x '.join(map(str, size or ['of unknown size'])))}, "
        f"ground-truth boxes, {each('method.flip_test', lambda flip: flips.get(flip, f'flip test {flip}'))}; "
        f"training: {each('trainer.max_epochs')} epochs.",
    ]
    if any(line["published"] is not None for line in table):
        told.append(f'Not measured here: the column "{cfg.published_as}" ({cfg.published_note}).')
    for line in table:
        if cfg.at == "last" and line["at_epochs"] != line["epochs"]:
            told.append(f"{line['name']} was last validated after epoch {', '.join(map(str, line['at_epochs']))}.")
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    # as they were typed: `arguments` quotes folders and baselines
    typed = (f"baseline={cfg.baseline}" if word.startswith("baseline='") else word for word in overrides)
    words = [*map(str, cfg.runs), *(word for word in typed if not word.startswith("runs="))]
    return [*told, f"Made by `{shlex.join(['python', '-m', 'distilpose.report', *words])}`."]


if __name__ == "__main__":
    main()
