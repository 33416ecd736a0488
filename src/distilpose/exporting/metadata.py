"""The metadata of an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import distilpose
from distilpose.export_metadata import FORMAT
from distilpose.exporting.graph import output_names
from distilpose.models.model import PoseModel
from distilpose.models.prediction_settings import DECODINGS
from distilpose.runs.provenance import digests
from distilpose.runs.run_of_checkpoint import run_metrics


def describe(
    model: PoseModel,
    checkpoint: str | Path,
    weights_kind: str,
    precision: str,
    normalise: bool,
    sigmas: bool,
    padding: float,
    padding_assumed: bool = False,
) -> dict[str, Any]:
    """Metadata of an exported file in plain containers, without paths of this machine.

    Args:
        model: the exported model.
        checkpoint: its file; the `metrics.json` of its run is included if there is one.
        weights_kind: averaged or raw.
        precision: float32, float16 or int8.
        normalise: whether the graph takes (N, H, W, 3) uint8 instead of normalised (N, 3, H, W) float32.
        sigmas: whether a student's sigmas are an output; a teacher's heat maps always are.
        padding: factor on a person's box.
        padding_assumed: whether neither the checkpoint, its run nor the user states the padding.
    """
    names = output_names(model.kind, sigmas or model.kind == "teacher")
    return {
        **describe_graph(model, precision, normalise, padding),
        "version": distilpose.__version__,
        "padding_assumed": padding_assumed,
        "flip_test": model.flip_test,
        "decoding": DECODINGS[model.kind],
        "outputs": names,
        "scores_trained": model.scores_trained,
        "checkpoint": {
            "file": Path(checkpoint).name,
            "sha256": digests({"weights": checkpoint})["weights"]["sha256"],
            "weights_kind": weights_kind,
        },
        "metrics": run_metrics(checkpoint),
    }


def describe_graph(model: PoseModel, precision: str, normalise: bool, padding: float) -> dict[str, Any]:
    """What any reader of the file needs, whatever the weights come from; arguments as in `describe`."""
    return {
        "format": FORMAT,
        "model": model.name,
        "kind": model.kind,
        "skeleton": model.skeleton.to_dict(),
        "input_size": list(model.input_size),
        "mean": list(model.mean),
        "std": list(model.std),
        "normalise": normalise,
        "padding": padding,
        "precision": precision,
    }
