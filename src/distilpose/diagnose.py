"""Why a distillation helps or does not: `python -m distilpose.diagnose checkpoint=FILE teacher.checkpoint=FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.progress import track
from torch import Tensor

from distilpose.cli.command import command
from distilpose.data.annotations import load_annotations
from distilpose.diagnosis.figures import figures_of
from distilpose.diagnosis.observation import Observation, observe
from distilpose.diagnosis.plots import draw_diagnosis
from distilpose.diagnosis.tables import full, summary
from distilpose.errors import DistilPoseError
from distilpose.evaluation import check_finite, check_flip_test, choose_device, people_of
from distilpose.files import write_json, write_text
from distilpose.losses import DistillationLoss
from distilpose.models import load_model
from distilpose.models.checkpoint import read_torch_file
from distilpose.models.remote import local_file
from distilpose.outputs import Predictions
from distilpose.teachers.frozen import floor_of

if TYPE_CHECKING:
    from distilpose.data import CocoDataModule
    from distilpose.models import PoseModel

# where each role's file is given
KEYS = {"student": "checkpoint", "teacher": "teacher.checkpoint", "baseline": "baseline"}
# what the pull on keypoints is measured without: terms that do not reach them
OTHER_TERMS = {"visual_token": 0, "keypoint_token": 0, "confidence": 0}
PULLING_TERMS = ("regression", "simulated_heatmap", "likelihood", "marginal", "divergence", "moment")
# where training's checkpoints keep a likelihood's flow
FLOW = "loss.flow."


@command("diagnose")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Look at all validation persons, print the tables, and write them, diagnosis.json and pictures into a new folder."""
    output = Path(cfg.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DistilPoseError(f"output={output} is not an empty folder and nothing is overwritten: give a new one.")
    if OmegaConf.is_missing(cfg, "checkpoint"):
        raise DistilPoseError("No student to diagnose: give checkpoint=FILE, a .ckpt or .safetensors of this package.")
    flip_test = check_flip_test(cfg.flip_test)
    _check_loss(cfg)
    models = _models(cfg)
    loss = _loss(cfg, models["teacher"]) if "teacher" in models else None
    student = models["student"]
    datamodule: CocoDataModule = instantiate(cfg.data, input_size=list(student.input_size))
    datamodule.prepare_data()
    _check_match(cfg, models, datamodule)
    dataset = datamodule.val_dataset()
    people = people_of(load_annotations(dataset.annotations_file, dataset.category_id, dataset.skeleton))
    output.mkdir(parents=True, exist_ok=True)  # better now than after the work that one cannot write there
    batches = track(datamodule.evaluation_dataloader(detections=False), f"{len(dataset)} persons, {len(models)} models")
    seen = observe(models, batches, flip_test, loss)
    _check_finite(cfg, seen)
    report = {
        "models": {role: {"name": model.name, "checkpoint": _file(cfg, role)} for role, model in models.items()},
        "annotations": str(dataset.annotations_file),
        "flip_test": flip_test,
        **figures_of(seen, people, models),
    }
    write_json(report, output / "diagnosis.json")
    write_text(full(report), output / "diagnosis.md")
    draw_diagnosis(report, output)
    print(f"\n{summary(report)}\nWritten to {output}")
    return report


def _check_loss(cfg: DictConfig) -> None:
    """Before anything is loaded: the loss must be a student's."""
    if not str(cfg.loss.get("_target_")).endswith(".DistillationLoss"):
        raise DistilPoseError(
            f"loss={cfg.loss.get('_target_')} trains teachers: give the student's, such as distilpose."
        )


def _loss(cfg: DictConfig, teacher: PoseModel) -> DistillationLoss | None:
    """The loss whose pull is measured; None where no term is left."""
    flow = _flow(local_file(cfg.checkpoint)) if cfg.loss.likelihood > 0 else {}
    if cfg.loss.likelihood > 0 and not flow:
        print(f"{cfg.checkpoint} keeps no flow of a likelihood, so the pull is told without that term.")
    without = OTHER_TERMS | ({} if flow else {"likelihood": 0})
    if not any({**cfg.loss, **without}[term] for term in PULLING_TERMS):
        return None
    loss: DistillationLoss = instantiate(cfg.loss, **without)
    if loss.flow is not None:
        try:
            loss.flow.load_state_dict(flow)
        except RuntimeError as error:
            raise DistilPoseError(
                f"{cfg.checkpoint} keeps the flow of another version's likelihood: diagnose it with loss.likelihood=0."
            ) from error
    loss.set_teacher(floor_of(teacher))
    return loss


def _flow(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of the likelihood's flow, which training's checkpoints keep and .safetensors do not."""
    if checkpoint.suffix == ".safetensors":
        return {}
    state = read_torch_file(checkpoint)["state_dict"]
    return {name.removeprefix(FLOW): weight for name, weight in state.items() if name.startswith(FLOW)}


def _models(cfg: DictConfig) -> dict[str, PoseModel]:
    """The models by role, each of the right kind."""
    device = choose_device(cfg.device)
    models = {role: load_model(file).to(device) for role in KEYS if (file := _file(cfg, role)) is not None}
    for role, model in models.items():
        wanted = "teacher" if role == "teacher" else "student"
        if model.kind != wanted:
            raise DistilPoseError(
                f"{KEYS[role]}={_file(cfg, role)} is the {model.kind} {model.name}, but a {wanted} is expected there: "
                "checkpoint and baseline are students that regress coordinates, the teacher gives heat maps."
            )
    return models


def _file(cfg: DictConfig, role: str) -> str | None:
    """The file given for a role."""
    return OmegaConf.select(cfg, KEYS[role])


def _check_match(cfg: DictConfig, models: Mapping[str, PoseModel], datamodule: CocoDataModule) -> None:
    """All models must know the data's joints, in the same order, and see the same crops."""
    names, size = datamodule.skeleton.names, tuple(models["student"].input_size)
    for role, model in models.items():
        if model.skeleton.names != names:
            raise DistilPoseError(
                f"{KEYS[role]}={_file(cfg, role)} has {model.num_keypoints} joints "
                f"({', '.join(model.skeleton.names[:3])}, …), but {datamodule.val_annotations} has {len(names)} "
                f"({', '.join(names[:3])}, …): diagnose models and data of one skeleton."
            )
        if tuple(model.input_size) != size:
            raise DistilPoseError(
                f"{KEYS[role]}={_file(cfg, role)} reads crops of {tuple(model.input_size)} and the student of {size} (height, "
                "width): their maps and tokens cannot be compared, so give a model of the student's crop size."
            )


def _check_finite(cfg: DictConfig, seen: Observation) -> None:
    """Refuse a model that gives no numbers."""
    about = (seen.persons.image_id, seen.persons.annotation_id, seen.persons.bbox, seen.persons.bbox[:, 0])
    for role, sight in seen.sights.items():
        check_finite(Predictions(sight.places, sight.scores, *about), _file(cfg, role))


if __name__ == "__main__":
    main()
