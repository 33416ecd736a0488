"""Values of a report: each row's mean and spread over seeds, and its difference to the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from omegaconf import DictConfig

from distilpose.errors import DistilPoseError
from distilpose.reporting.rows import Row, tell_values
from distilpose.runs.config import below

# settings, or groups of them, that say which persons are validated and how; the size of a crop is left out, since
# metrics are taken in the picture, so that a student may be compared with one of another size
VALIDATION = (
    "data.root", "data.limit_val", "data.num_val", "trainer.limit_val_batches", "method.flip_test", "data.padding",
    "data._target_", "data.val_annotations", "data.val_images", "data.category", "data.skeleton",
    "data.image_size", "data.max_persons", "data.variety", "data.drawing_seed",
)  # fmt: skip


def scale_of(metric: str) -> float:
    """Fractions are shown in per cent."""
    return 100.0 if metric.startswith("val/") else 1.0


def best_is_low(metric: str) -> bool:
    """Whether the lowest value of a metric is the best one."""
    return metric.startswith("train/") or "error" in metric


def measured(row: Row, cfg: DictConfig) -> dict[str, Any]:
    """The values of a row, as report.json holds them."""
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
    """Mean and sample standard deviation, which one value has none of."""
    return {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}


def compare(table: Sequence[dict[str, Any]], cfg: DictConfig) -> list[str]:
    """Put each row's difference to the baseline into the table, paired by seed, and tell why a row has none.

    Rows are compared with a baseline that was validated alike; of several, with the one at the same `x`.

    Raises:
        DistilPoseError: if no row is the baseline asked for.
    """
    bases = _baselines(table, cfg.baseline)
    alone: dict[str, list[str]] = {}
    for line in table if bases else []:
        alike = [base for base in bases if not validated_otherwise(line["settings"], base["settings"])]
        near = alike if len(alike) == 1 else [base for base in alike if cfg.x and _at(base, cfg.x) == _at(line, cfg.x)]
        if len(near) != 1:
            why = _several(alike, cfg.x) if alike else _unlike(line, bases)
            alone.setdefault(why, []).append(line["name"])
        elif near[0] is not line:
            own, other = (dict(zip(row["seeds"], row["values"], strict=True)) for row in (line, near[0]))
            pairs = {seed: own[seed] - other[seed] for seed in own if seed in other}
            line["difference"] = {"baseline": near[0]["name"], "seeds": list(pairs)}
            line["difference"] |= _spread(list(pairs.values())) if pairs else {}
    return [f"No difference is told for {'; '.join(names)}: {why}." for why, names in alone.items()]


def _baselines(table: Sequence[dict[str, Any]], asked: Any) -> list[dict[str, Any]]:
    """The rows of that name, or else with it in their names; without one asked for, those of the regression loss."""
    wanted = {"regression", "loss=regression"} if asked is None else {str(asked)}
    # a whole name may be a part of another's, and must still be able to pick its row
    whole = [line for line in table if asked is not None and line["name"] in wanted]
    bases = whole or [line for line in table if wanted & {line["name"], *line["name"].split(", ")}]
    if not bases and asked is not None:
        raise DistilPoseError(f"baseline={asked} is no row: expected {'; '.join(line['name'] for line in table)}.")
    return bases


def _at(line: Mapping[str, Any], x: str) -> Any:
    return line["settings"].get(x)


def _several(bases: Sequence[Mapping[str, Any]], x: str | None) -> str:
    """Why none of several baselines is taken, and how one would be."""
    told = f"{len(bases)} rows go by the baseline's name"
    way = f"give the whole name of one, such as baseline='{bases[0]['name']}'"
    if x:
        return f"{told}, none or several at the same {x}; {way}"
    return f"{told}; {way}, or x=SETTING for that at a row's own value of it"


def _unlike(line: Mapping[str, Any], bases: Sequence[Mapping[str, Any]]) -> str:
    """In what a row's validation differs from that of the baseline nearest to it."""
    differing = [(validated_otherwise(line["settings"], base["settings"]), base) for base in bases]
    keys, base = min(differing, key=lambda pair: len(pair[0]))
    told = []
    for key in keys[:3]:
        own, other = tell_values([_at(line, key), _at(base, key)])
        told.append(f"{key}={own}, not {other}")
    return f"validated otherwise than {base['name']} ({'; '.join(told)}{'; …' if len(keys) > 3 else ''})"


def validated_otherwise(own: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings in which two configurations' validation differs; with none their metrics can be compared."""
    differing = []
    for name in VALIDATION:
        first, second = below(own, name), below(other, name)  # what is null is as good as absent
        keys = [key for key in dict.fromkeys([*first, *second]) if first.get(key) != second.get(key)]
        differing += [f"{name}.{key}".rstrip(".") for key in keys]
    # people drawn by rule are the same in any folder
    drawn = all(settings.get("data.num_val") is not None for settings in (own, other))
    return [key for key in differing if not (drawn and key == "data.root")]
