"""The model card: what a run's files know of the model it made."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from distilpose.evaluation import MEAN_POSE, markdown_table
from distilpose.models import PoseModel, count_gmacs, count_parameters
from distilpose.sharing.run_facts import About

TASK = "keypoint-detection"
SETTINGS = {
"teacher.checkpoint": "teacher",
    "trainer.max_epochs": "epochs", "data.batch_size": "crops a process and step", "optimizer.lr": "learning rate",
    "seed": "seed", "trainer.precision": "precision",
}  # fmt: skip
COLUMNS = ("model", "boxes", "flip", "rescoring", "persons", "AP", "AP50", "AP75", "AR", "PCK", "PCK up", "PCK other")
MADE_WITH = ("distilpose", "torch", "lightning")
NO_LICENCE = "None is stated: ask the authors before you use the weights."
FIGURES = ("AP", "AP50", "AP75", "AR", "PCK", "PCK_upright", "PCK_other")


def model_card(
    model: PoseModel, about: About, digest: str, repository: str | None, pictures: Sequence[str] = ()
) -> str:
    """The card, in Markdown with the header that the Hugging Face hub reads.

    Args:
        model: what is shared.
        about: what is known of it.
        digest: SHA-256 of model.safetensors.
        repository: owner/name it is sent to, if any.
        pictures: files beside the card to show.
    """
    parts = [
        f"---\n{_header(model, about)}\n---",
        f"# {_plain(about.name)}",
        _what(model),
        _use(model, digest, repository),
        _data(about),
        _training(about),
        *[f"![{Path(name).stem}]({name})" for name in pictures],
        _figures(about),
        _limits(model, about),
        f"## Licence\n\n{_plain(about.licence or NO_LICENCE)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(model: PoseModel, about: About) -> str:
    """The hub's own fields, with the first row of each evaluation as a result."""
    results = [
        EvalResult(
            task_type=TASK, dataset_type=_plain(_set_of(found)), dataset_name=_plain(_set_of(found)),
            metric_type=metric, metric_name=metric, metric_value=round(float(found["rows"][0][metric]), 4),
        )
        for found in about.evaluations for metric in ("AP", "PCK") if isinstance(found["rows"][0].get(metric), (int, float))
    ]  # fmt: skip
    data = ModelCardData(
        license=about.licence,
        library_name="distilpose",
        pipeline_tag=TASK,
        tags=["pose-estimation", "keypoints", "distilpose", model.name],
        model_name=_plain(about.name) if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _what(model: PoseModel) -> str:
    height, width = model.input_size
    kind = (
        "regresses coordinates" if hasattr(model, "scores_trained") and model.kind == "student" else "draws heat maps"
    )
    return (
        f"`{model.name}` finds {model.num_keypoints} joints of one person in a crop of {height} x {width} pixels; it {kind}. "
        f"{count_parameters(model):,} parameters, {count_gmacs(model):.4f} GMACs a crop.\n\n"
        f"Joints, in this order: {', '.join(map(_plain, model.skeleton.names))}."
    )


def _use(model: PoseModel, digest: str, repository: str | None) -> str:
    return (
        "## Use\n\n```python\nfrom distilpose import load_model\nfrom distilpose.inference import Predictor\n\n"
        f'predictor = Predictor(load_model("{_plain(repository or "OWNER/NAME")}"))\n'
        "people = predictor(photo, boxes=[[x, y, width, height]])  # RGB, boxes in pixels\n```\n\n"
        f"SHA-256 of `model.safetensors`: `{digest}`."
    )


def _data(about: About) -> str:
    rows = [{"what": "set", "value": _plain(_data_name(about.config))}] if about.config else []
    digests = (about.environment.get("started") or {}).get("digests") or {}
    rows += [
        {
            "what": _plain(role.replace("_", " ")),
            "value": f"{_plain(Path(one['file']).name)}, SHA-256 {_plain(one['sha256'][:16])}…",
        }
        for role, one in digests.items()
    ]
    told = _plain(about.data) if about.data else ""
    if not rows and not told:
        return "## Data\n\nNothing is known of what these weights were trained on."
    return "\n\n".join(filter(None, ["## Data", told, markdown_table(rows, ("what", "value")) if rows else ""]))


def _training(about: About) -> str:
    if not about.config:
        return ""
    rows = [
        {"setting": words, "value": _plain(str(about.config[key]).rpartition("/")[2])}
        for key, words in SETTINGS.items()
        if about.config.get(key) is not None and about.config[key] is not False
    ]
    rows.insert(0, {"setting": "loss", "value": _plain(_loss(about.config))})
    start = about.environment.get("started") or {}
    packages = start.get("packages") or {}
    rows += [{"setting": name, "value": _plain(value)} for name, value in packages.items() if name in MADE_WITH]
    return f"## Training\n\n{markdown_table(rows, ('setting', 'value'))}"


def _loss(config: Mapping[str, Any]) -> str:
    """Its class, and all of its settings that are not off."""
    given = {key.removeprefix("loss."): value for key, value in config.items() if key.startswith("loss.")}
    name = str(given.pop("_target_", "-")).rpartition(".")[2]
    return ": ".join(
        filter(None, [name, ", ".join(f"{key} {value}" for key, value in given.items() if value and key[0] != "_")])
    )


def _figures(about: About) -> str:
    parts = ["## Figures"]
    for found in about.evaluations:
        rows = [{key: row.get(key) for key in COLUMNS} for row in found["rows"]]
        parts += [f"On {_plain(_set_of(found))}, by `distilpose.evaluate`:", markdown_table(rows, COLUMNS)]
        # others name folders of this machine
        parts += [_plain(note) for note in found.get("notes", []) if "/" not in str(note)]
    if about.validation:
        where = f"While training, on {_plain(_data_name(about.config))}, validation persons, which choose the best checkpoint"
        flip = str(about.config.get("method.flip_test")).lower()
        parts += [
            f"{where}: ground-truth boxes, flip test {flip}.",
            markdown_table([{key: about.validation.get(key) for key in FIGURES}], FIGURES),
        ]
    return "\n\n".join(parts) if len(parts) > 1 else "## Figures\n\nNone were measured."


def _limits(model: PoseModel, about: About) -> str:
    limits = [
        "One person a crop: it needs boxes of persons, and says nothing of who is not in one.",
        "A joint always has a place, seen or not; only its score tells.",
        "It knows people like those it was trained on: other views, clothes, ages or bodies were not looked at.",
    ]
    if not model.scores_trained:
        limits.append("Nothing trained its scores: they say nothing.")
    if "synthetic" in str(about.config.get("data._target_", "")).lower():
        limits.append("It was trained on people drawn by rule: its figures say nothing of photographs.")
    up, other = about.validation.get("PCK_upright"), about.validation.get("PCK_other")
    if up is not None and other is not None:
        limits.append(f"On persons who are upright PCK is {100 * up:.1f}, on others {100 * other:.1f}.")
    rows = [row for found in about.evaluations for row in found["rows"]]
    if not any(row.get("model") == MEAN_POSE for row in rows):
        limits.append(
            "Whether it beats the mean pose, an answer that never looks, was not measured (`evaluate mean_pose=true`)."
        )
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _data_name(config: Mapping[str, Any]) -> str:
    """What the set is called: folders of the machine it was trained on are nobody's business."""
    place = config.get("data.root")
    if "synthetic" in str(config.get("data._target_", "")).lower():
        return "synthetic people drawn by distilpose"
    return Path(str(place)).name if place else "a set of several, see the digests"


def _set_of(found: Mapping[str, Any]) -> str:
    file = Path(str(found.get("annotations", "an unnamed set")))
    return f"{file.parent.parent.name}/{file.stem}" if file.parent.name == "annotations" else file.stem


def _plain(text: Any) -> str:
    """Fit for a page: no tags, no table's bars, one line."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|").replace("`", "'")
