"""The diagnose command on tiny images, and PCK by orientation, which evaluate shows too."""

from __future__ import annotations

import json
import re

import cv2
import pytest
import torch
from hydra import compose, initialize_config_dir

from distilpose import diagnose as command
from distilpose import evaluate
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.evaluation import ERROR_TYPES
from distilpose.losses import DistillationLoss
from distilpose.models import create_model, load_model, save_model
from distilpose.skeleton import COCO, Skeleton

SIZE = {"depth": 1, "width": 32, "heads": 2}
TYPES = ("PCK", *ERROR_TYPES)


def run(task, name, root, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        about = ["data=custom", f"data.root={root}", "data.num_workers=0", "device=cpu", *map(str, overrides)]
        return task.main.__wrapped__(compose(name, about))


def diagnose(root, *overrides):
    return run(command, "diagnose", root, *overrides)


@pytest.fixture
def files(tmp_path):
    """A student, a teacher and another student, all untrained."""
    torch.manual_seed(0)
    models = {
        "student": create_model("student_xs", **SIZE),
        "teacher": create_model("teacher_xs", **SIZE),
        "baseline": create_model("student_xs", **SIZE),
    }
    models["baseline"].scores_trained = False
    return {name: save_model(model, tmp_path / f"{name}.safetensors") for name, model in models.items()}


@pytest.fixture
def undrawn(monkeypatch):
    """Skips the plots, which are slow."""
    monkeypatch.setattr(command, "draw_diagnosis", lambda report, folder: [])


def test_all_three(tiny_coco, files, tmp_path, capsys):
    output = tmp_path / "out"
    models = [
        f"checkpoint={files['student']}",
        f"teacher.checkpoint={files['teacher']}",
        f"baseline={files['baseline']}",
    ]
    report = diagnose(tiny_coco(val=6), *models, f"output={output}")
    assert {path.name for path in output.iterdir()} == {
        "diagnosis.json", "diagnosis.md", "errors.png", "calibration.png", "pull.png"
    }  # fmt: skip
    for picture in output.glob("*.png"):
        assert cv2.imread(str(picture)).std() > 5

    written = json.loads((output / "diagnosis.json").read_text())
    assert written["persons"] == report["persons"] == 8
    assert set(written["errors"]) == {"student", "teacher", "baseline"}
    for parts in written["errors"].values():
        assert sum(parts["all"][name] for name in ERROR_TYPES) == pytest.approx(1)
        assert set(parts["all"]["per_joint"]) == set(COCO.names)
        assert parts["upright"]["persons"] <= 8  # the set's persons stand, but some lack a hip or shoulder
        assert parts["not_upright"]["persons"] == 0
    assert written["calibration"]["baseline"]["confidence"] is None
    assert 0 <= written["calibration"]["student"]["confidence"]["error"] <= 1
    assert set(written["tokens"]) == set(written["inherited"]) == {"student", "baseline"}
    assert written["tokens"]["student"]["visual"]["relative"] > 0
    inherited = written["inherited"]["student"]
    assert inherited["teacher_wrong"] + inherited["teacher_right"] == written["errors"]["student"]["all"]["joints"]
    assert sum(row["joints"] for row in written["pull"]["by_cells"]) == written["pull"]["joints"]
    assert set(written["pull"]["by_cells"][0]["strength"]) == {"regression", "simulated_heatmap"}

    printed, saved = capsys.readouterr().out, (output / "diagnosis.md").read_text()
    for heading in (
        "Errors",
        "Joint by joint, all persons",
        "Calibration",
        "Tokens",
        "Inherited errors",
        "Gradients of the loss",
    ):
        assert f"## {heading}\n" in printed
        assert f"## {heading}\n" in saved
    assert "## Joint by joint, upright" in saved
    with pytest.raises(DistilPoseError, match=f"output={output}"):
        diagnose(tiny_coco(), *models, f"output={output}")


def test_crops_have_the_padding_of_the_students_training(tiny_coco, files, tmp_path, undrawn, capsys, caplog):
    student, teacher = load_model(files["student"]), load_model(files["teacher"])
    student.padding, teacher.padding = 2.0, 1.5
    file, other = (save_model(model, tmp_path / f"padded_{model.kind}.safetensors") for model in (student, teacher))
    root = tiny_coco(val=6)
    models = [f"checkpoint={file}", f"teacher.checkpoint={other}", "flip_test=false"]
    report = diagnose(root, *models, f"output={tmp_path / 'own'}")
    assert f"teacher.checkpoint={other} was trained with padding 1.5, but gets crops with 2" in caplog.text
    options = [f"checkpoint={file}", "flip_test=false", f"output={tmp_path / 'evaluated'}"]
    row = run(evaluate, "evaluate", root, *options)["rows"][0]
    figures = report["errors"]["student"]["all"]
    assert figures["PCK"] == row["PCK"]
    assert figures["pck_left_out"] == row["pck"]["left_out"]
    assert f"PCK is at 0.2 of the torso: {row['pck']['persons']} persons" in capsys.readouterr().out
    plain = [f"checkpoint={files['student']}", "flip_test=false"]  # does not state its padding
    wide = diagnose(root, *plain, "data.padding=2.0", f"output={tmp_path / 'wide'}")
    narrow = diagnose(root, *plain, f"output={tmp_path / 'narrow'}")
    assert report["calibration"] == wide["calibration"] != narrow["calibration"]


def test_a_student_alone(tiny_coco, files, tmp_path):
    output = tmp_path / "out"
    report = diagnose(tiny_coco(val=4), f"checkpoint={files['baseline']}", "flip_test=false", f"output={output}")
    assert set(report["errors"]) == {"student"}
    assert not {"tokens", "inherited", "pull"} & report.keys()
    assert {path.name for path in output.iterdir()} == {
        "diagnosis.json",
        "diagnosis.md",
        "errors.png",
        "calibration.png",
    }
    assert "| - " in (output / "diagnosis.md").read_text()


def test_a_student_that_is_its_own_control(undrawn, tiny_coco, files, tmp_path):
    models = [
        f"checkpoint={files['student']}",
        f"baseline={files['student']}",
        f"teacher.checkpoint={files['teacher']}",
    ]
    report = diagnose(tiny_coco(val=4), *models, f"output={tmp_path / 'out'}")
    for name in ("errors", "calibration", "tokens", "inherited"):
        values = json.loads(json.dumps(report[name]).replace("NaN", "null"))
        assert values["student"] == values["baseline"], name


def test_tokens_of_different_width_are_not_compared(undrawn, tiny_coco, files, tmp_path):
    wide = save_model(create_model("teacher_xs", depth=1, width=48, heads=2), tmp_path / "wide.safetensors")
    models = [f"checkpoint={files['student']}", f"teacher.checkpoint={wide}"]
    report = diagnose(tiny_coco(val=4), *models, f"output={tmp_path / 'out'}")
    assert report["tokens"] == {"student": {"visual": None, "keypoint": None}}
    assert report["pull"] is not None


def test_gradients_of_a_likelihood_need_its_flow(undrawn, tiny_coco, files, tmp_path, caplog):
    student = load_model(files["student"])
    flow = DistillationLoss(likelihood=1.0).flow.state_dict()
    content = {
        "hyper_parameters": {"model": student.config},
        "state_dict": {f"model.{name}": weight for name, weight in student.state_dict().items()}
        | {f"loss.flow.{name}": weight for name, weight in flow.items()},
    }
    torch.save(content, tmp_path / "last.ckpt")
    root, teacher = tiny_coco(val=4), f"teacher.checkpoint={files['teacher']}"
    save_model(student, tmp_path / "shared" / "model.safetensors")
    for number, file in enumerate((tmp_path / "last.ckpt", files["student"], tmp_path / "shared")):
        report = diagnose(
            root, f"checkpoint={file}", teacher, "loss=distilpose_plus", f"output={tmp_path / str(number)}"
        )
        kept = file.suffix == ".ckpt"
        assert ("likelihood" in report["pull"]["by_cells"][0]["strength"]) == kept
        assert (str(file) in caplog.text) != kept
        caplog.clear()


def test_a_skeleton_without_torso_and_sigmas(undrawn, tiny_coco, tmp_path):
    paws = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    file = save_model(create_model("student_xs", skeleton=paws, **SIZE), tmp_path / "paws.safetensors")
    report = diagnose(tiny_coco(val=4, skeleton=paws), f"checkpoint={file}", f"output={tmp_path / 'out'}")
    assert set(report["errors"]["student"]) == {"all"}
    assert report["pck_reference"] == "0.1 of the box's longer side"


def test_the_errors_are_those_of_evaluate(undrawn, tiny_coco, files, tmp_path, capsys):
    root = tiny_coco(val=6)
    annotations = root / "annotations" / "val.json"
    truth = json.loads(annotations.read_text())
    for person in truth["annotations"][
        :3
    ]:  # three lie down: they are rotated by 90 degrees about the middle of the box
        x, y, width, height = person["bbox"]
        middle = (x + width / 2, y + height / 2)
        points = person["keypoints"]
        for k in range(0, len(points), 3):
            across, down = points[k] - middle[0], points[k + 1] - middle[1]
            points[k : k + 2] = [middle[0] - down, middle[1] + across]
        points[2::3] = [2] * 17
    annotations.write_text(json.dumps(truth))
    errors = diagnose(root, f"checkpoint={files['student']}", f"output={tmp_path / 'a'}")["errors"]["student"]
    scored = run(evaluate, "evaluate", root, f"checkpoint={files['student']}", f"output={tmp_path / 'b'}")["rows"][0]
    assert errors["all"]["PCK"] == pytest.approx(scored["PCK"], nan_ok=True)
    assert errors["not_upright"]["persons"] == 3
    for part, column in (("upright", "PCK up"), ("not_upright", "PCK other")):
        assert errors[part]["PCK"] == pytest.approx(scored[column], nan_ok=True)
        assert scored["pck"][part]["value"] == scored[column]
        joints = {name: row["PCK"] for name, row in errors[part]["per_joint"].items()}
        assert joints == pytest.approx(scored["pck"][part]["per_joint"], nan_ok=True)
    assert re.search(r"PCK up: \d+ persons .*PCK other: 3 others", capsys.readouterr().out)


@pytest.mark.parametrize("wrong", ["flip_test=both", "device=null", "teacher.checkpoint=3"])
def test_wrong_settings_are_named(wrong):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        right, cfg = (compose("diagnose", ["checkpoint=a.ckpt", *more]) for more in ([], [wrong]))
    validate(right, command.DiagnoseSettings)
    with pytest.raises(DistilPoseError) as error:
        validate(cfg, command.DiagnoseSettings)
    name, _, value = wrong.partition("=")
    assert name in str(error.value)
    assert value in str(error.value)


def wrong_models(files, tmp_path):
    paws = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    other = save_model(create_model("student_xs", skeleton=paws, **SIZE), tmp_path / "paws.safetensors")
    large = save_model(create_model("teacher_xs", input_size=(128, 96), **SIZE), tmp_path / "large.safetensors")
    student = f"checkpoint={files['student']}"
    return {
        "absent": (["checkpoint=absent.ckpt"], "absent.ckpt"),
        "kind": ([f"checkpoint={files['teacher']}"], "is the teacher teacher_xs: give a student"),
        "teacher": ([student, f"teacher.checkpoint={files['student']}"], "is the student student_xs: give a teacher"),
        "joints": ([student, f"baseline={other}"], "has 4 joints (snout, tail, left_paw, …)"),
        "crop": ([student, f"teacher.checkpoint={large}"], "crops of (128, 96), the student of (64, 48)"),
    }


@pytest.mark.parametrize("kind", ["absent", "kind", "teacher", "joints", "crop"])
def test_wrong_models_are_rejected_before_the_predictions(tiny_coco, files, tmp_path, kind):
    overrides, message = wrong_models(files, tmp_path)[kind]
    with pytest.raises(DistilPoseError, match=re.escape(message)):
        diagnose(tiny_coco(val=3), *overrides, f"output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_predictions_that_are_not_finite(tiny_coco, tmp_path):
    model = create_model("student_xs", **SIZE)
    torch.nn.init.constant_(next(model.head.parameters()), float("nan"))
    file = save_model(model, tmp_path / "broken.safetensors")
    with pytest.raises(DistilPoseError, match="not finite"):
        diagnose(tiny_coco(val=3), f"checkpoint={file}", f"output={tmp_path / 'out'}")


def test_the_loss_is_where_the_models_are(tiny_coco, files, tmp_path):
    """On the meta device, where every computation with a parameter on the CPU fails as on a GPU."""
    student = load_model(files["student"])
    flow = DistillationLoss(likelihood=1.0).flow.state_dict()
    content = {
        "hyper_parameters": {"model": student.config},
        "state_dict": {f"model.{name}": weight for name, weight in student.state_dict().items()}
        | {f"loss.flow.{name}": weight for name, weight in flow.items()},
    }
    torch.save(content, tmp_path / "last.ckpt")
    teacher = load_model(files["teacher"]).to("meta")
    for loss in ("rle", "distilpose_plus"):
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = compose("diagnose", [f"checkpoint={tmp_path / 'last.ckpt'}", f"loss={loss}"])
        built = command._loss(cfg, teacher)
        tensors = [*built.parameters(), *built.buffers()]
        assert tensors
        assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_student_gets_the_crops_of_its_training(undrawn, tiny_coco, tmp_path, caplog):
    """The padding is in the student's file, as evaluate and predict use it."""
    files = {}
    for padding in (None, 1.25, 2.0):
        torch.manual_seed(0)
        model = create_model("student_xs", **SIZE)
        files[padding] = save_model(model, tmp_path / f"{padding}.safetensors", padding=padding)
    root = tiny_coco(val=6)
    expected = diagnose(root, f"checkpoint={files[None]}", "data.padding=2.0", f"output={tmp_path / 'a'}")
    assert "padding" not in caplog.text
    found = diagnose(root, f"checkpoint={files[2.0]}", f"baseline={files[1.25]}", f"output={tmp_path / 'b'}")
    assert json.dumps(found["errors"]["student"]) == json.dumps(expected["errors"]["student"])  # it has NaN
    assert re.search(
        r"baseline=.*1\.25\.safetensors was trained with padding 1\.25, but gets crops with 2", caplog.text
    )
