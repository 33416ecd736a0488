"""The model card in the format of the Hugging Face hub; its text is in model_card.md."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distilpose.evaluation import MEAN_POSE, markdown_table
from distilpose.models import PoseModel, count_gmacs, count_parameters
from distilpose.runs.config import flatten
from distilpose.runs.teacher_names import teacher_names, uses_teacher
from distilpose.sharing.run_facts import RunFacts

TEMPLATE = Path(__file__).with_name("model_card.md")
TASK = "keypoint-detection"
SETTINGS = {
    "trainer.max_epochs": "epochs", "data.batch_size": "crops a process and step", "optimizer.lr": "learning rate",
    "seed": "seed", "trainer.precision": "precision",
}  # fmt: skip
COLUMNS = ("model", "boxes", "flip", "rescoring", "persons", "AP", "AP50", "AP75", "AR", "PCK", "PCK up", "PCK other")
PACKAGES = ("distilpose", "torch", "lightning")
NO_LICENCE = "No licence is stated: ask the authors before you use the weights."
FIGURES = ("AP", "AP50", "AP75", "AR", "PCK", "PCK_upright", "PCK_other")


def make_card(
    model: PoseModel, facts: RunFacts, digest: str, repository: str | None, pictures: Sequence[str] = ()
) -> ModelCard:
    """The card of a model, with the hub's metadata as its header.

    Args:
        model: the shared model.
        facts: facts about its training and evaluation.
        digest: SHA-256 of model.safetensors.
        repository: owner/name on the hub, if any.
        pictures: files beside the card to show.
    """
    height, width = model.input_size
    teachers = _teachers(facts) if model.kind == "student" and uses_teacher(facts.config) else []
    return ModelCard.from_template(
        _card_data(model, facts),
        template_path=str(TEMPLATE),
        title=_escape(facts.name),
        architecture=model.name,
        joints=[_escape(name) for name in model.skeleton.names],
        height=height,
        width=width,
        method="regresses coordinates" if model.kind == "student" else "draws heat maps",
        parameters=f"{count_parameters(model):,}",
        gmacs=f"{count_gmacs(model):.4f}",
        repository=_escape(repository or "OWNER/NAME"),
        digest=digest,
        data=_data(facts),
        training=_training(facts, teachers),
        pictures=pictures,
        figures=_figures(facts),
        limits=_limits(model, facts, teachers),
        licence=_escape(facts.licence or NO_LICENCE),
    )


def _card_data(model: PoseModel, facts: RunFacts) -> ModelCardData:
    """The hub's metadata, with the first row of each evaluation as a result."""
    results = [
        EvalResult(
            task_type=TASK, dataset_type=_escape(_set_name(evaluation)), dataset_name=_escape(_set_name(evaluation)),
            metric_type=metric, metric_name=metric, metric_value=round(float(evaluation["rows"][0][metric]), 4),
        )
        for evaluation in facts.evaluations for metric in ("AP", "PCK")
        if isinstance(evaluation["rows"][0].get(metric), (int, float))
    ]  # fmt: skip
    return ModelCardData(
        license=facts.licence,
        library_name="distilpose",
        pipeline_tag=TASK,
        tags=["pose-estimation", "keypoints", "distilpose", model.name],
        model_name=_escape(facts.name) if results else None,
        eval_results=results or None,
    )


def _data(facts: RunFacts) -> list[str]:
    rows = [{"what": "set", "value": _escape(_data_name(facts.config))}] if facts.config else []
    digests = (facts.environment.get("started") or {}).get("digests") or {}
    for role, file in digests.items():
        value = f"{_escape(Path(file['file']).name)}, SHA-256 {_escape(file['sha256'][:16])}…"
        rows.append({"what": _escape(role.replace("_", " ")), "value": value})
    parts = [_escape(facts.data)] if facts.data else []
    parts += [markdown_table(rows, ("what", "value"))] if rows else []
    return parts or ["Nothing is known about the training data of these weights."]


def _training(facts: RunFacts, teachers: Sequence[str]) -> str:
    if not facts.config:
        return ""
    rows = [{"setting": "loss", "value": _escape(_loss(facts.config))}]
    rows += [{"setting": "teacher", "value": _escape(teacher)} for teacher in teachers]
    rows += [
        {"setting": label, "value": _escape(str(facts.config[key]).rpartition("/")[2])}
        for key, label in SETTINGS.items()
        if facts.config.get(key) is not None and facts.config[key] is not False
    ]
    packages = (facts.environment.get("started") or {}).get("packages") or {}
    rows += [{"setting": name, "value": _escape(value)} for name, value in packages.items() if name in PACKAGES]
    return markdown_table(rows, ("setting", "value"))


def _teachers(facts: RunFacts) -> list[str]:
    """The teachers in words, without folders of the machine; those of the hub with their commit."""
    about = flatten((facts.environment.get("started") or {}).get("teacher") or {})
    commits = {
        str(value): str(about.get(f"{key.removesuffix('repository')}revision"))[:12]
        for key, value in about.items() if key.rpartition(".")[2] == "repository"
    }  # fmt: skip
    teachers = []
    for kind, which in teacher_names(facts.config):
        repository = which.removeprefix("hf://").partition("@")[0]
        name = f"{repository}@{commits[repository]}" if repository in commits else which.rstrip("/").rpartition("/")[2]
        teachers.append(f"{kind} {name}".strip())
    return teachers


def _loss(config: Mapping[str, Any]) -> str:
    """The class of the loss, and its settings that are not off."""
    settings = {key.removeprefix("loss."): value for key, value in config.items() if key.startswith("loss.")}
    name = str(settings.pop("_target_", "-")).rpartition(".")[2]
    weights = ", ".join(f"{key} {value}" for key, value in settings.items() if value and key[0] != "_")
    return f"{name}: {weights}" if weights else name


def _figures(facts: RunFacts) -> list[str]:
    parts = []
    for evaluation in facts.evaluations:
        rows = [{key: row.get(key) for key in COLUMNS} for row in evaluation["rows"]]
        parts += [f"On {_escape(_set_name(evaluation))}, by `distilpose.evaluate`:", markdown_table(rows, COLUMNS)]
        # notes with a slash name folders of this machine
        parts += [_escape(note) for note in evaluation.get("notes", []) if "/" not in str(note)]
    if facts.validation:
        flip_test = str(facts.config.get("method.flip_test")).lower()
        parts += [
            f"During training, on the validation persons of {_escape(_data_name(facts.config))}, which choose the best "
            f"checkpoint: ground-truth boxes, flip test {flip_test}.",
            markdown_table([{key: facts.validation.get(key) for key in FIGURES}], FIGURES),
        ]
    return parts or ["None were measured."]


def _limits(model: PoseModel, facts: RunFacts, teachers: Sequence[str]) -> list[str]:
    limits = [
        "One person in a crop: it needs boxes of persons, and finds no persons outside them.",
        "Every joint has a position, visible or not; only its score shows the difference.",
        "It was trained and measured on certain people: other views, clothes, ages or bodies were not measured.",
    ]
    if not model.scores_trained:
        limits.append("Its scores were not trained: they have no meaning.")
    networks = [_escape(teacher) for teacher in teachers if teacher != "labels"]
    if networks:
        limits.append(
            f"It learnt from {' and '.join(networks)}: verify that licence too, which may bind these weights."
        )
    if "synthetic" in str(facts.config.get("data._target_", "")).lower():
        limits.append("It was trained on drawn people: its figures do not hold for photographs.")
    upright, other = facts.validation.get("PCK_upright"), facts.validation.get("PCK_other")
    if upright is not None and other is not None:
        limits.append(f"On upright persons PCK is {100 * upright:.1f}, on others {100 * other:.1f}.")
    rows = [row for evaluation in facts.evaluations for row in evaluation["rows"]]
    if not any(row.get("model") == MEAN_POSE for row in rows):
        limits.append("Whether it beats the mean-pose baseline was not measured (`evaluate mean_pose=true`).")
    return limits


def _data_name(config: Mapping[str, Any]) -> str:
    """Name of the training set, without folders of the machine."""
    root = config.get("data.root")
    if "synthetic" in str(config.get("data._target_", "")).lower():
        return "synthetic people drawn by distilpose"
    return Path(str(root)).name if root else "a set of several, see the digests"


def _set_name(evaluation: Mapping[str, Any]) -> str:
    file = Path(str(evaluation.get("annotations", "an unnamed set")))
    return f"{file.parent.parent.name}/{file.stem}" if file.parent.name == "annotations" else file.stem


def _escape(text: Any) -> str:
    """Text for a Markdown page: no tags, no table bars, one line."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|").replace("`", "'")
