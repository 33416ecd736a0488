"""Values of a report: mean and standard deviation of each row over seeds, and its difference to the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from omegaconf import DictConfig

from distilpose.errors import DistilPoseError
from distilpose.evaluation import SHARES
from distilpose.reporting.rows import Row, format_values
from distilpose.runs.config import below

# settings or groups of settings that decide which persons are validated and how. The crop size is not one of them: metrics are
# in image pixels, so students of different crop sizes can be compared
VALIDATION = (
    "data.root", "data.limit_val", "data.num_val", "trainer.limit_val_batches", "method.flip_test", "data.padding",
    "data._target_", "data.val_annotations", "data.val_images", "data.category", "data.skeleton",
    "data.image_size", "data.max_persons", "data.variety", "data.drawing_seed",
)  # fmt: skip


def scale_of(metric: str) -> float:
    """Factor for display: shares are shown in per cent, such as AP, PCK or a term's share of the gradient."""
    group, _, name = metric.partition("/")
    is_share = (group == "val" and name in SHARES) or (group == "train" and name.startswith("share_"))
    return 100.0 if is_share else 1.0


def best_is_low(metric: str) -> bool:
    """Whether lower values of a metric are better."""
    return metric.startswith("train/") or any(word in metric for word in ("error", "loss", "nll"))


def row_values(row: Row, cfg: DictConfig) -> dict[str, Any]:
    """The values of a row, in the form of report.json."""
    runs = list(row.runs.values())
    series, clocks = [run.series(cfg.metric) for run in runs], [run.series("minutes") for run in runs]
    best = min if best_is_low(cfg.metric) else max
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
        # logged only if a validation was on a part of the persons
        "persons": [run.series("val/persons").get(epoch) for run, epoch in zip(runs, at, strict=True)],
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


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation, None of a single value."""
    return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def compare(table: Sequence[dict[str, Any]], cfg: DictConfig) -> list[str]:
    """Add each row's difference to the baseline to the table, paired by seed; returns notes on rows without one.

    A row is compared with the baseline that has the same validation settings and number of persons; of several, with the one
    that has the same `x`.

    Raises:
        DistilPoseError: no row has the name of the baseline.
    """
    bases = _baselines(table, cfg.baseline)
    not_compared: dict[str, list[str]] = {}
    for line in table if bases else []:
        matching = [base for base in bases if not _mismatches(line, base)]
        if len(matching) > 1:
            matching = [base for base in matching if cfg.x and _at(base, cfg.x) == _at(line, cfg.x)] or matching
        if len(matching) != 1:
            reason = _describe_ambiguity(matching, cfg.x) if matching else _describe_mismatch(line, bases)
            not_compared.setdefault(reason, []).append(line["name"])
        elif matching[0] is not line:
            values, reference = (dict(zip(row["seeds"], row["values"], strict=True)) for row in (line, matching[0]))
            gains = {seed: values[seed] - reference[seed] for seed in values if seed in reference}
            line["difference"] = {"baseline": matching[0]["name"], "seeds": list(gains)}
            line["difference"] |= _spread(list(gains.values())) if gains else {}
    return [f"No difference for {'; '.join(names)}: {reason}." for reason, names in not_compared.items()]


def _baselines(table: Sequence[dict[str, Any]], name: str | None) -> list[dict[str, Any]]:
    """The rows with that name, or else those with it as a part of their name; by default the rows of the regression loss."""
    wanted = {"regression", "loss=regression"} if name is None else {name}
    # the complete name of one row may be a part of another's
    exact = [line for line in table if name is not None and line["name"] == name]
    bases = exact or [line for line in table if wanted & {line["name"], *line["name"].split(", ")}]
    if not bases and name is not None:
        raise DistilPoseError(f"baseline={name} is not a row: expected {'; '.join(line['name'] for line in table)}.")
    return bases


def _at(line: Mapping[str, Any], x: str) -> Any:
    return line["settings"].get(x)


def _describe_ambiguity(bases: Sequence[Mapping[str, Any]], x: str | None) -> str:
    """Why none of several baselines is used, and how to choose one."""
    problem = f"{len(bases)} rows have the baseline's name"
    way_out = f"give the complete name of one, such as baseline='{bases[0]['name']}'"
    if x:
        return f"{problem}, and not exactly one has the row's {x}; {way_out}"
    return f"{problem}; {way_out}, or x=SETTING for the one with the row's own value"


def _describe_mismatch(line: Mapping[str, Any], bases: Sequence[Mapping[str, Any]]) -> str:
    """Differences between the validation of a row and that of the most similar baseline."""
    differing = [(_mismatches(line, base), base) for base in bases]
    differences, base = min(differing, key=lambda pair: len(pair[0]))
    more = "; …" if len(differences) > 3 else ""
    return f"its validation differs from {base['name']} ({'; '.join(differences[:3])}{more})"


def _mismatches(line: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """What differs between the validations of two rows, in words."""
    differences = []
    for key in validation_differences(line["settings"], base["settings"]):
        value, reference = format_values([_at(line, key), _at(base, key)])
        differences.append(f"{key}={value}, not {reference}")
    counted, expected = (sorted({number or 0 for number in row["persons"]}) for row in (line, base))
    if counted != expected:  # a share of the batches is another number of persons for another batch size
        shown, other = (" or ".join(f"{n:g}" if n else "all" for n in one) for one in (counted, expected))
        differences.append(f"{shown} persons, not {other}")
    return differences


def differing_files(rows: Sequence[Row]) -> list[str]:
    """A note if the validation annotations of the runs have the same settings and other contents; synthetic ones are drawn."""
    runs = [
        run for row in rows for run in row.runs.values() if run.val_digest and run.settings.get("data.num_val") is None
    ]
    by_digest: dict[str, Any] = {}
    for run in runs:
        by_digest.setdefault(run.val_digest or "", run.folder)
    paths = {(run.settings.get("data.root"), run.settings.get("data.val_annotations")) for run in runs}
    if len(by_digest) < 2 or len(paths) > 1:
        return []
    contents = ", ".join(f"{digest[:12]} in {folder}" for digest, folder in by_digest.items())
    return [
        f"The validation annotations had {len(by_digest)} contents (SHA-256 {contents}): compare these runs only if their "
        "persons are the same."
    ]


def validation_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the validation settings in which two configurations differ. If there are none, metrics are comparable."""
    differing = []
    for name in VALIDATION:
        first, second = below(one, name), below(other, name)  # null and absent are the same
        keys = [key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)]
        differing += [f"{name}.{key}".rstrip(".") for key in keys]
    # synthetic persons do not depend on the folder
    synthetic = all(settings.get("data.num_val") is not None for settings in (one, other))
    return [key for key in differing if not (synthetic and key == "data.root")]
