"""The model card: what a run's files know of the model it made."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData
from omegaconf import DictConfig, OmegaConf

from distilpose.errors import DistilPoseError
from distilpose.evaluation import markdown_table
from distilpose.models import PoseModel, count_gmacs, count_parameters
from distilpose.run_folders import CONFIG, SUMMARY, UNREADABLE, flatten

TASK = "keypoint-detection"
# of a run's checkpoints, whose figures its metrics.json has
MEASURED = {"checkpoints/best.ckpt": "best", "checkpoints/last.ckpt": "last"}
SETTINGS = {
"teacher.checkpoint": "teacher",
    "trainer.max_epochs": "epochs", "data.batch_size": "crops a process and step", "optimizer.lr": "learning rate",
    "seed": "seed", "trainer.precision": "precision",
}  # fmt: skip
COLUMNS = ("boxes", "flip", "rescoring", "persons", "AP", "AP50", "AP75", "AR", "PCK", "PCK up", "PCK other")
MADE_WITH = ("distilpose", "torch", "lightning")
NO_LICENCE = "None is stated: ask the authors before you use the weights."
FIGURES = ("AP", "AP50", "AP75", "AR", "PCK", "PCK_upright", "PCK_other")


class About(NamedTuple):
    """What the files say, not yet fit for a page.

    Attributes:
        data: a sentence on it by whoever shares.
        config: of the run, by dotted key.
        validation: its own figures for this checkpoint, by metrics.csv's columns.
        evaluations: metrics.json of `evaluate`.
    """

    name: str
    licence: str | None
    data: str | None
    config: dict[str, Any]
    environment: dict[str, Any]
    validation: dict[str, float]
    evaluations: list[dict[str, Any]]


def read_about(model: PoseModel, run: Path | None, checkpoint: str, cfg: DictConfig) -> About:
    """Gather it from a run's folder and those of evaluations, which must be of that checkpoint."""
    config: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    if run is not None:
        config = flatten(_read(run / CONFIG))
        environment = _read(run / "environment.json") if (run / "environment.json").is_file() else {}
        which = MEASURED.get(Path(os.path.relpath(checkpoint, run)).as_posix())
        if which is not None and cfg.weights_kind == "averaged" and (run / SUMMARY).is_file():
            figures = _read(run / SUMMARY).get(which) or {}
    evaluations = [_read(Path(place) / SUMMARY if Path(place).is_dir() else Path(place)) for place in cfg.evaluations]
    for place, found in zip(cfg.evaluations, evaluations, strict=True):
        rows = found.get("rows")
        if not rows or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DistilPoseError(f"{place} holds no figures of distilpose.evaluate: give the folder it wrote.")
        source = str(found.get("source")).partition(" (")[2].removesuffix(")")
        place, told = Path(checkpoint).resolve(), Path(source)  # which may count from another folder
        if told.resolve() != place and (not source or place.parts[-len(told.parts) :] != told.parts):
            raise DistilPoseError(
                f"{place} holds figures of {source or 'no model'}, not of {checkpoint}: evaluate that one."
            )
    measured = {key.removeprefix("val/"): value for key, value in figures.items() if key.startswith("val/")}
    name = cfg.name or config.get("name") or model.name
    return About(str(name), cfg.licence, cfg.data_note, config, environment, measured, evaluations)


def _read(file: Path) -> dict[str, Any]:
    """A file of plain containers, YAML or JSON."""
    try:
        text = file.read_text()
        content: Any = json.loads(text) if file.suffix == ".json" else OmegaConf.to_container(OmegaConf.create(text))
    except UNREADABLE as error:
        raise DistilPoseError(
            f"{file} cannot be read ({' '.join(str(error).split())}): give a folder of a run."
        ) from error
    if not isinstance(content, dict):
        raise DistilPoseError(f"{file} holds no settings or figures: give a folder that a run or an evaluation wrote.")
    return content


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
        limits.append(f"PCK is {up:.1%} of persons who are upright, {other:.1%} of others.")
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
