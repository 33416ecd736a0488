"""A diagnosis as Markdown: shares in per cent, lengths in heat-map cells, correlations as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distilpose.evaluation import ERROR_TYPES, markdown_table

PARTS = {"all": "all persons", "upright": "upright", "not_upright": "not upright"}


def summary(report: Mapping[str, Any]) -> str:
    """All tables but those of single joints by orientation."""
    sections = [_errors(report), _joints(report, "all"), _calibration(report)]
    if "tokens" in report:
        sections += [_tokens(report), _inherited(report), _pull(report)]
    return "\n".join(sections)


def full(report: Mapping[str, Any]) -> str:
    """All tables, as they are written into diagnosis.md."""
    about = "\n".join(f"- {role}: {told['name']} (`{told['checkpoint']}`)" for role, told in report["models"].items())
    head = f"# Diagnosis\n\n{about}\n- data: `{report['annotations']}`, {report['persons']} persons in ground-truth boxes\n"
    parts = [part for part in report["errors"]["student"] if part != "all"]
    names = ["errors", "calibration", *(["pull"] if report.get("pull") else [])]
    pictures = "\n\n".join(f"![{name}]({name}.png)" for name in names)
    return "\n".join([head, summary(report), *(_joints(report, part) for part in parts), pictures, ""])


def _errors(report: Mapping[str, Any]) -> str:
    """Every model in a row, for each part of the persons."""
    rows = [
        {**figures[part], "part": PARTS[part], "model": role}
        for part in report["errors"]["student"]
        for role, figures in report["errors"].items()
    ]
    columns = {"part": "who", "persons": "persons", "model": "model", "joints": "joints", **_types()}
    return _section(
        "Errors",
        rows,
        columns,
        f"PCK is at {report['pck_reference']}. Each labelled joint is exactly one of the five: good (OKS of the joint 0.85 "
        "and more) or jitter (0.5 and more), else an inversion (at its left-right counterpart), a swap (at that joint of "
        "another person), a miss.",
    )


def _joints(report: Mapping[str, Any], part: str) -> str:
    """Every joint of every model in a row."""
    rows = [
        {"joint": name, "model": role, **figures[part]["per_joint"][name]}
        for name in report["errors"]["student"][part]["per_joint"]
        for role, figures in report["errors"].items()
    ]
    return _section(f"Joint by joint, {PARTS[part]}", rows, {"joint": "joint", "model": "model", **_types()})


def _calibration(report: Mapping[str, Any]) -> str:
    """What each student says of itself."""
    rows = []
    for role, figures in report["calibration"].items():
        sigma, confidence = figures["sigma"], figures["confidence"] or {}
        rows.append(
            {
                "model": role,
                "joints": figures["joints"],
                "confidence": _number(confidence.get("error")),
                "confidence_rank": _number(confidence.get("rank_correlation")),
                "sigma": _number(sigma["mean"]),
                "rms": _number(sigma["rms_error"]),
                "sigma_error": _number(sigma["error"]),
                "sigma_rank": _number(sigma["rank_correlation"]),
            }
        )
    columns = {
        "model": "model",
        "joints": "joints",
        "confidence": "calibration error of confidence",
        "confidence_rank": "rank of -confidence and error",
        "sigma": "mean sigma",
        "rms": "rms error",
        "sigma_error": "calibration error of sigma",
        "sigma_rank": "rank of sigma and error",
    }
    return _section(
        "Calibration",
        rows,
        columns,
        "Of labelled joints inside the crop, without flip test; sigmas and errors in heat-map cells along x and y. Ranks are "
        "Spearman's correlation with the size of the error, 1 where the student knows the order of its errors. '-' where "
        "no term trained the confidence. Sigmas are compared with root mean squares, which says something of students taught "
        "Gaussians alone: a likelihood's or a Laplace's are scales of another density, and only their ranks can be compared.",
    )


def _tokens(report: Mapping[str, Any]) -> str:
    """How far each student's tokens are from the teacher's."""
    rows = []
    for role, kinds in report["tokens"].items():
        row = {"model": role}
        for kind, figures in kinds.items():
            row |= {f"{kind}_{name}": _number(value) for name, value in (figures or {}).items()}
        rows.append(row)
    columns = {"model": "model"} | {
        f"{kind}_{name}": f"{kind} tokens, {told}"
        for kind in ("visual", "keypoint")
        for name, told in (("relative", "relative difference"), ("cosine", "cosine"))
    }
    return _section(
        "Tokens",
        rows,
        columns,
        "Squared difference relative to the spread of the teacher's tokens about their mean over persons: 0 is a copy, 1 no "
        "better than the mean token. '-' where the shapes differ.",
    )


def _inherited(report: Mapping[str, Any]) -> str:
    """Each student where the teacher is wrong and where it is right."""
    rows = [{"model": role, **figures} for role, figures in report["inherited"].items()]
    columns = {
        "model": "model",
        "teacher_wrong": "teacher wrong (joints)",
        "wrong_too": "wrong too",
        "follows": "at the teacher's wrong place",
        "teacher_right": "teacher right (joints)",
        "right_too": "right too",
    }
    return _section(
        "Inherited errors",
        rows,
        columns,
        "Right is an OKS of the joint of 0.5 and more. At the teacher's wrong place: nearer to it than to the truth and "
        "within the PCK distance of it. A baseline that was never taught is the control.",
    )


def _pull(report: Mapping[str, Any]) -> str:
    """Which term pulls the student how strongly at which distance from the teacher's peak."""
    pull = report["pull"]
    if pull is None:
        return "## Pull of the loss\n\nNo labelled joint has a peak in the teacher's map, or no loss was given.\n"
    rows = []
    for line in pull["by_cells"]:
        end = "and more" if line["to"] is None else f"to {line['to']:g}"
        row = {"distance": f"{line['from']:g} {end}", "joints": line["joints"] / pull["joints"]}
        row |= {name: f"{value:.1e}" for name, value in line["strength"].items()}
        row |= {f"{name}_towards": _number(value) for name, value in line["towards"].items()}
        rows.append(row)
    terms = list(pull["by_cells"][0]["strength"])
    columns = {"distance": "cells from the peak", "joints": "share of joints"}
    columns |= {name: name.replace("_", " ") for name in terms}
    columns |= {f"{name}_towards": f"{name.replace('_', ' ')}, cosine" for name in terms}
    quantiles = ", ".join(f"{_number(value)} ({share})" for share, value in pull["cells"].items())
    return _section(
        "Pull of the loss",
        rows,
        columns,
        "Mean length of the gradient of a joint's part of each weighted term, per cell (times N K), by the distance between "
        "the student's prediction and the teacher's peak; and the cosine between the pull and the way to that peak. "
        f"Distances in cells: {quantiles}; {pull['beyond_3_sigmas']:.1%} of the joints are more than three of the student's "
        "sigmas away.",
    )


def _types() -> dict[str, str]:
    """The columns of PCK and error types."""
    return {name: name for name in ("PCK", *ERROR_TYPES)}


def _section(title: str, rows: list[dict[str, Any]], columns: Mapping[str, str], note: str = "") -> str:
    """A heading, a note and a table; the columns say what to show under which heading."""
    shown = [{heading: row.get(key) for key, heading in columns.items()} for row in rows]
    return f"## {title}\n\n{note + chr(10) * 2 if note else ''}{markdown_table(shown, list(columns.values()))}\n"


def _number(value: float | None) -> str:
    """Two decimals; '-' for what is not known."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"
