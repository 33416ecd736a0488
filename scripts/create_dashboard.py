"""Create the workspace and the report of a W&B project: `python scripts/create_dashboard.py --project distilpose`.

Needs `pip install 'distilpose[dashboards]'`, an account (`wandb login`) and a network; `--output FILE` writes the
specification to a file instead. Each call creates a new workspace view and a new report.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb_workspaces import workspaces as ws
from wandb_workspaces.reports import v2 as wr

from distilpose.files import write_json

STEP = "trainer/global_step"
SWEEPS = "Sweeps"


def line(title: str, *keys: str, **options: Any) -> Any:
    """A plot of numbers over steps; a key that ends in ".*" matches all keys with that start."""
    if keys[0].endswith(".*"):
        return wr.LinePlot(title=title, x=STEP, metric_regex=keys[0], **options)
    return wr.LinePlot(title=title, x=STEP, y=list(keys), **options)


def media(title: str, *keys: str) -> Any:
    """A panel of pictures or histograms with a slider over steps."""
    return wr.MediaBrowser(title=title, media_keys=list(keys), num_columns=1, gallery_axis="step")


def curves(key: str) -> Any:
    """A panel of the latest curves logged by `wandb.plot.line_series`, with all runs in one plot."""
    fields = {"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"}
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}}, chart_name="wandb/lineseries/v0", chart_fields=fields
    )


def sections() -> dict[str, list[Any]]:
    """The panels of each section."""
    return {
        "Accuracy": [
            line("AP", "val/AP", "val/AP50", "val/AP75"),
            line("PCK", "val/PCK"),
            line("PCK, upright persons", "val/PCK_upright"),
            line("PCK by joint", "val_joints/PCK/.*"),
            curves("curves/precision_recall"),
        ],
        "Loss": [
            line("total", "train/total_step", smoothing_factor=0.6),
            line("weighted terms", "train/.*_epoch"),
            line("shares of the value", "share/.*"),
            line("shares of the gradient (callbacks=diagnosis)", "train/share_.*"),
        ],
        "Distillation": [
            media("teacher's heat map, student's, difference", "persons"),
            media("terms, sigmas, confidence", "health"),
            line("OKS of joints", "health/joint_oks"),
            line("median sigma, cells of the heat map", "health/sigma_median"),
        ],
        "Persons and confidence": [
            wr.WeavePanelSummaryTable(table_name="tables/persons", layout=wr.Layout(w=24, h=12)),
            media("precision, OKS, calibration", "curves"),
            curves("curves/calibration"),
            line("calibration error", "health/calibration_error"),
            media("confidence of joints", "val_distribution/confidence"),
            media("OKS of joints", "val_distribution/joint_oks"),
            media("sigmas", "val_distribution/sigma_x", "val_distribution/sigma_y"),
        ],
        "Speed and rates": [
            line("persons a second", "speed/persons_per_second"),
            line("share of the time waiting", "speed/waiting_share"),
            line("GPU memory, GiB", "speed/gpu_memory_gib"),
            line("learning rate", "train/learning_rate"),
            line("learning rates by group", "learning_rate/.*"),
        ],
    }  # fmt: skip


def workspace(entity: str, project: str) -> Any:
    """The workspace view of the project."""
    parts = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections().items()]
    columns = ws.RunsetSettings(pinned_columns=["run:displayName", "run:group", "summary:val/AP", "summary:val/PCK"])
    settings = ws.WorkspaceSettings(x_axis=STEP)
    return ws.Workspace(
        entity=entity, project=project, name="DistilPose", sections=parts, settings=settings, runset_settings=columns
    )


def report(entity: str, project: str) -> Any:
    """The same panels as a report, with sweeps compared by group."""
    blocks: list[Any] = [wr.TableOfContents()]
    for name, panels in sections().items():
        blocks += [wr.H1(text=name), wr.PanelGrid(runsets=[wr.Runset()], panels=panels)]
    groups = wr.Runset(name="by sweep", groupby=["group"])
    spread = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    compared = [line(key, key, groupby="group", **spread) for key in ("val/AP", "val/PCK")]
    blocks += [wr.H1(text=SWEEPS), wr.PanelGrid(runsets=[groups], panels=compared)]
    about = "Runs of a multirun are one group, named after its folder; curves are means with their standard deviation."
    blocks.append(wr.P(text=about))
    return wr.Report(entity=entity, project=project, title="DistilPose", description=about, blocks=blocks)


def specification(entity: str, project: str) -> dict[str, Any]:
    """The specification of workspace and report in plain containers."""
    # the library has no public function for a specification that is not saved at W&B
    parts = {"workspace": workspace(entity, project), "report": report(entity, project)}
    return {
        name: part._to_model().model_dump(mode="json", by_alias=True, exclude_none=True) for name, part in parts.items()
    }


def keys_of(content: Any) -> Iterator[str]:
    """The logged keys that a specification uses; patterns end in ".*"."""
    if isinstance(content, list):
        for part in content:
            yield from keys_of(part)
    elif isinstance(content, dict):
        if content.get("name") == "tableKey":
            yield content["value"]
        elif content.get("nodeType") == "const" and content.get("type") == "string":  # part of a query
            yield content["val"]
        for name, value in content.items():
            if name in ("metrics", "mediaKeys") and isinstance(value, list):
                yield from value
            elif name == "metricRegex":
                yield value
            else:
                yield from keys_of(value)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Create the W&B workspace and report of a project.")
    parser.add_argument("--project", default="distilpose", help="as in logger.wandb.project")
    parser.add_argument("--entity", default="", help="W&B user or team, by default that of the account")
    parser.add_argument("--output", type=Path, help="write the specification to this JSON file, and send nothing")
    options = parser.parse_args(arguments)
    if options.output is not None:
        if options.output.exists():
            sys.exit(f"error: --output {options.output} already exists: choose another name.")
        write_json(specification(options.entity, options.project), options.output)
        print(f"Written to {options.output}; nothing was sent")
        return
    try:
        entity = options.entity or wandb.Api().default_entity
        for create in (report, workspace):  # the report first: it creates a missing project
            print(create(entity, options.project).save().url)
    except wandb.errors.Error as error:
        sys.exit(f"error: W&B rejects the request ({error}): run wandb login, and check --entity and the network.")


if __name__ == "__main__":
    main()
