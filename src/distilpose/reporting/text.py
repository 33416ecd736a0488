"""Text of a report: its table and its caption."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distilpose.evaluation import markdown_table
from distilpose.reporting.values import best_is_low, scale_of


def format_table(table: Sequence[dict[str, Any]], cfg: DictConfig) -> str:
    """The table in Markdown, without empty columns."""

    def number(value: float | None, form: str = "") -> str:
        digits = ".1f" if scale_of(cfg.metric) > 1 else ".4g"
        return "-" if value is None else f"{value * scale_of(cfg.metric):{form}{digits}}"

    versus = f"difference to {_baseline(table, cfg.x)}"
    lines = []
    for line in table:
        done = zip(line["epochs"], line["planned_epochs"], strict=True)
        cells = {
            "name": " ".join(line["name"].split()).replace("|", "\\|"),
            "seeds": ", ".join(map(str, line["seeds"])),
            "epochs": ", ".join(dict.fromkeys(f"{n}" if n >= of else f"{n} of {of} (unfinished)" for n, of in done)),
            "steps": ", ".join(dict.fromkeys(f"{steps:.0f}" for steps in line["steps"] if steps is not None)) or "-",
            f"{cfg.metric}, mean ± sd": f"{number(line['mean'])} ± {number(line['sd'])}",
            "each seed": ", ".join(map(number, line["values"])),
        }
        gain = line.get("difference", {})
        if gain.get("seeds"):
            count = f"{len(gain['seeds'])} seed{'s' if len(gain['seeds']) > 1 else ''}"
            cells[versus] = f"{number(gain['mean'], '+')} ± {number(gain['sd'])} ({count})"
        if math.isfinite(line["minutes"]):
            cells["minutes"] = f"{line['minutes']:.1f}"
        if line["published"] is not None:
            cells[cfg.published_as] = str(line["published"])
        lines.append(cells)
    columns = [*list(lines[0])[:6], versus, "minutes", cfg.published_as]
    return markdown_table(lines, [name for name in columns if any(name in line for line in lines)])


def _baseline(table: Sequence[dict[str, Any]], x: str | None) -> str:
    """Name of the baseline; for several, their common name and how that of a row is chosen."""
    settings = {line["name"]: line["settings"] for line in table}
    pairs = [(line["name"], line["difference"]["baseline"]) for line in table if "difference" in line]
    bases = list(dict.fromkeys(base for _, base in pairs))
    if len(bases) < 2:
        return "".join(bases)
    names = " or ".join(dict.fromkeys(base.split(", ")[0] for base in bases))
    same = x is not None and all(settings[name].get(x) == settings[base].get(x) for name, base in pairs)
    return f"{names} {f'at the same {x}' if same else 'on the same validation persons'}"


def caption(table: Sequence[dict[str, Any]], cfg: DictConfig) -> list[str]:
    """Definition of the numbers, validation protocol, and the command of the report."""

    def each(describe: Callable[[Mapping[str, Any]], str]) -> str:
        return " or ".join(dict.fromkeys(describe(line["settings"]) for line in table))

    flips = {"True": "flip test", "False": "no flip test"}
    selection = "the value of the last epoch, so nothing is selected on validation data"
    if cfg.at == "best":
        extreme = "lowest" if best_is_low(cfg.metric) else "highest"
        selection = f"the {extreme} of a run's epochs, selected on the validation data itself and therefore optimistic"
    unit = " in per cent" if scale_of(cfg.metric) > 1 else ""
    epochs = dict.fromkeys(str(planned) for line in table for planned in line["planned_epochs"])
    sentences = [
        f"{cfg.metric}{unit} is {selection}; sd is the sample standard deviation over seeds; differences are paired by "
        "seed.",
        f"Validation: {' or '.join(dict.fromkeys(map(_persons, table)))}, "
        f"crop {each(lambda settings: _size(settings.get('model.input_size')))}, ground-truth boxes, "
        f"{each(lambda settings: flips.get(str(settings.get('method.flip_test')), 'flip test unknown'))}; "
        f"training: {' or '.join(epochs)} epochs.",
    ]
    if any(line["published"] is not None for line in table):
        sentences.append(f'Not measured here: the column "{cfg.published_as}" ({cfg.published_note}).')
    for line in table:
        if cfg.at == "last" and line["at_epochs"] != line["epochs"]:
            sentences.append(f"{line['name']} was last validated after epoch {', '.join(map(str, line['at_epochs']))}.")
    return [*sentences, f"Made by `{_command(cfg)}`."]


def _command(cfg: DictConfig) -> str:
    """The command line of this report, without the quotes that `report.arguments` adds for Hydra."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    typed = [f"baseline={cfg.baseline}" if text.startswith("baseline='") else text for text in overrides]
    arguments = [*map(str, cfg.runs), *(text for text in typed if not text.startswith("runs="))]
    return shlex.join(["python", "-m", "distilpose.report", *arguments])


def _size(size: Any) -> str:
    """Height and width of a crop."""
    return " x ".join(map(str, size)) if isinstance(size, list) else f"of size {size or 'unknown'}"


def _persons(line: Mapping[str, Any]) -> str:
    """The validation persons of a row: as counted by its runs, or else as in its configuration."""
    settings = line["settings"]
    limit, pictures, batches = (
        settings.get(key) for key in ("data.limit_val", "data.num_val", "trainer.limit_val_batches")
    )
    which = "all persons" if limit is None else f"the first {limit} persons"
    counted = sorted({int(number) for number in line["persons"] if number is not None})
    if counted:
        which = f"{' or '.join(map(str, counted))} persons"
    where = settings.get("data.root") or "unknown data" if pictures is None else f"{pictures} synthetic pictures"
    return f"{which} of {where}{'' if batches is None else f' (trainer.limit_val_batches={batches})'}"
