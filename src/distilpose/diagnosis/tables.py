"""Formats a diagnosis as Markdown: shares in per cent, lengths in heat-map cells, correlations as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distilpose.evaluation import ERROR_TYPES, markdown_table

# headings of columns in per cent; the other numbers are formatted here
SHARES = ("PCK", *ERROR_TYPES, "wrong too", "at the teacher's wrong place", "right too", "share of joints")
PARTS = {"all": "all persons", "upright": "upright", "not_upright": "not upright"}


def summary(report: Mapping[str, Any]) -> str:
    """All tables, except those that split single joints by orientation."""
    sections = [_errors(report), _joints(report, "all"), _calibration(report)]
    if "tokens" in report:
        sections += [_tokens(report), _inherited(report), _gradients(report)]
    return "\n".join(sections)


def full(report: Mapping[str, Any]) -> str:
    """All tables, as in diagnosis.md."""
    about = "\n".join(f"- {role}: {one['name']} (`{one['checkpoint']}`)" for role, one in report["models"].items())
    head = f"# Diagnosis\n\n{about}\n- data: `{report['annotations']}`, {report['persons']} persons in ground-truth boxes\n"
    parts = [part for part in report["errors"]["student"] if part != "all"]
    names = ["errors", "calibration", *(["pull"] if report.get("pull") else [])]
    pictures = "\n\n".join(f"![{name}]({name}.png)" for name in names)
    return "\n".join([head, summary(report), *(_joints(report, part) for part in parts), pictures, ""])


def _errors(report: Mapping[str, Any]) -> str:
    """A row for each model and part of the persons."""
    rows = [
        {**figures[part], "part": PARTS[part], "model": role}
        for part in report["errors"]["student"]
        for role, figures in report["errors"].items()
    ]
    columns = {"part": "who", "persons": "persons", "model": "model", "joints": "joints", **_types()}
    left_out = report["errors"]["student"]["all"]["pck_left_out"]
    reference = f"{report['pck_reference']}: {report['persons'] - left_out} persons, {left_out} left out"
    return _section(
        "Errors",
        rows,
        columns,
        f"PCK is at {reference}. Each labelled joint has exactly one of the five types: good (OKS of the "
        "joint at least 0.85) or jitter (at least 0.5), else inversion (at its left-right counterpart), swap (at that "
        "joint of another person) or miss.",
    )


def _joints(report: Mapping[str, Any], part: str) -> str:
    """A row for each joint and model."""
    rows = [
        {"joint": name, "model": role, **figures[part]["per_joint"][name]}
        for name in report["errors"]["student"][part]["per_joint"]
        for role, figures in report["errors"].items()
    ]
    return _section(f"Joint by joint, {PARTS[part]}", rows, {"joint": "joint", "model": "model", **_types()})


def _calibration(report: Mapping[str, Any]) -> str:
    """Calibration of each student."""
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
        "For labelled joints inside the crop, without flip test; sigmas and errors in heat-map cells along x and y. Ranks are "
        "Spearman's correlation with the size of the error, 1 for a perfect order. '-': no loss trained the confidence. "
        "Sigmas are compared with root mean squares, which is valid for students trained with Gaussians: the sigmas of a "
        "likelihood or a Laplace distribution are scales of another density, so only their ranks can be compared.",
    )


def _tokens(report: Mapping[str, Any]) -> str:
    """Distance of each student's tokens from the teacher's."""
    rows = []
    for role, kinds in report["tokens"].items():
        row = {"model": role}
        for kind, figures in kinds.items():
            row |= {f"{kind}_{name}": _number(value) for name, value in (figures or {}).items()}
        rows.append(row)
    columns = {"model": "model"} | {
        f"{kind}_{name}": f"{kind} tokens, {heading}"
        for kind in ("visual", "keypoint")
        for name, heading in (("relative", "relative difference"), ("cosine", "cosine"))
    }
    return _section(
        "Tokens",
        rows,
        columns,
        "Squared difference relative to the variance of the teacher's tokens over persons: 0 is a copy, 1 is no better than "
        "the mean token. '-': the shapes differ.",
    )


def _inherited(report: Mapping[str, Any]) -> str:
    """Each student, by whether the teacher is right."""
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
        "A joint is right if its OKS is at least 0.5. At the teacher's wrong place: nearer to it than to the truth and "
        "within the PCK distance of it. A baseline that was trained without teacher is the control.",
    )


def _gradients(report: Mapping[str, Any]) -> str:
    """Gradients of the terms, by distance of the student from the teacher's peak."""
    pull = report["pull"]
    if pull is None:
        return "## Gradients of the loss\n\nNo labelled joint has a peak in the teacher's map, or no loss was given.\n"
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
        "Gradients of the loss",
        rows,
        columns,
        "Mean length of the gradient of each weighted term with respect to a joint, per cell (times N K), by the distance "
        "between the student's prediction and the teacher's peak; and the cosine between the negative gradient and the "
        f"direction to that peak. Distances in cells: {quantiles}; {pull['beyond_3_sigmas']:.1%} of the joints are more "
        "than three of the student's sigmas away.",
    )


def _types() -> dict[str, str]:
    """The columns of PCK and error types."""
    return {name: name for name in ("PCK", *ERROR_TYPES)}


def _section(title: str, rows: list[dict[str, Any]], columns: Mapping[str, str], note: str = "") -> str:
    """A heading, a note and a table; `columns` maps keys of the rows to headings."""
    shown = [{heading: row.get(key) for key, heading in columns.items()} for row in rows]
    return (
        f"## {title}\n\n{note + chr(10) * 2 if note else ''}{markdown_table(shown, list(columns.values()), SHARES)}\n"
    )


def _number(value: float | None) -> str:
    """Two decimals; '-' for a missing value."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"
