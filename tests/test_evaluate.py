"""The evaluate command on tiny images."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from dots import write_persons
from hydra import compose, initialize_config_dir
from pycocotools.cocoeval import COCOeval

from distilpose.cli.command import error_message
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.errors import DistilPoseError
from distilpose.evaluate import EvaluateSettings, main
from distilpose.evaluation import COCO_METRICS, ScoreMap, load_coco
from distilpose.inference import Predictor
from distilpose.models import create_model, load_model, save_model
from distilpose.skeleton import COCO, Skeleton


def configured(root, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(
            "evaluate",
            ["data=custom", f"data.root={root}", "data.num_workers=0", "device=cpu", *map(str, overrides)],
        )


def evaluate(root, *overrides):
    return main.__wrapped__(configured(root, *overrides))


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    return save_model(create_model("student_xs"), tmp_path / "student.safetensors")


def test_all_protocols_in_one_table(tiny_coco, checkpoint, tmp_path, capsys):
    root, output = tiny_coco(val=5), tmp_path / "out"
    report = evaluate(
        root, f"checkpoint={checkpoint}", "protocol=all", "data.boxes=detections.json", f"output={output}"
    )
    variants = [(row["boxes"], row["flip"], row["rescoring"]) for row in report["rows"]]
    assert variants == [
        (boxes, flip, rescoring)
        for boxes in ("gt", "detections")
        for flip in ("false", "true")
        for rescoring in ("off", "on")
    ]
    printed = capsys.readouterr().out
    assert len([line for line in printed.splitlines() if line.startswith("| ")]) == 10
    written = json.loads((output / "metrics.json").read_text())
    assert [row["AP"] for row in written["rows"]] == [row["AP"] for row in report["rows"]]
    assert set(written["rows"][0]["pck"]["per_joint"]) == set(Skeleton.unnamed(17).names)
    rows = json.loads((output / "results_gt_flip-true_rescoring-on.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2, 3, 4}
    with pytest.raises(DistilPoseError, match=f"output={output}"):
        evaluate(root, f"checkpoint={checkpoint}", f"output={output}")


def test_a_calibration_is_written_and_predicts_the_similarity_to_expect(tiny_coco, checkpoint, tmp_path):
    root, file = tiny_coco(val=12), tmp_path / "calibration.json"
    report = evaluate(root, f"checkpoint={checkpoint}", f"calibration_output={file}", f"output={tmp_path / 'out'}")
    content = json.loads(file.read_text())
    persons = report["rows"][0]["persons"]
    assert content["persons"] + content["held_out_persons"] == persons
    assert any(
        f"{content['error_after']:.3f}, the raw scores' {content['error_before']:.3f}" in n for n in report["notes"]
    )
    image = torch.zeros(60, 40, 3, dtype=torch.uint8).numpy()
    raw, mapped = (Predictor(checkpoint, "cpu", calibration=path)(image).scores for path in (None, file))
    assert torch.equal(mapped, ScoreMap.load(file, COCO)(raw))
    assert ((mapped >= 0) & (mapped <= 1)).all()
    for override in (f"checkpoint={checkpoint}", "predictions=rows.json"):
        with pytest.raises(DistilPoseError, match=r"calibration_output=.*(exists|checkpoint=FILE)"):
            evaluate(root, override, f"calibration_output={file}", f"output={tmp_path / 'other'}")


def test_a_calibration_of_another_model_or_flip_test_is_told(tiny_coco, checkpoint, tmp_path, caplog):
    file, settings = tmp_path / "calibration.json", [f"checkpoint={checkpoint}", "flip_test=false"]
    evaluate(tiny_coco(val=12), *settings, f"calibration_output={file}", f"output={tmp_path / 'out'}")
    other = load_model(checkpoint)
    same = save_model(other, tmp_path / "same.safetensors", padding=1.25)  # another format of the same weights
    caplog.clear()
    for source in (checkpoint, same):
        Predictor(source, "cpu", calibration=file, padding=1.25)
    assert "was fitted to" not in caplog.text
    Predictor(checkpoint, "cpu", calibration=file, padding=1.25, flip_test=True)
    assert re.search(r"calibration\.json was fitted to .* with flip_test False, here True", caplog.text)
    caplog.clear()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    Predictor(other, "cpu", calibration=file, padding=1.25)
    assert re.search(r"was fitted to .* with weights \w{12}, here \w{12}: its scores", caplog.text)
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "weights"}))
    caplog.clear()
    Predictor(other, "cpu", calibration=file, padding=1.25)  # a file of an earlier version
    assert "was fitted to" not in caplog.text


def test_too_few_labels_for_a_calibration(tiny_coco, tmp_path):
    skeleton = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    file = save_model(create_model("student_xs", skeleton=skeleton), tmp_path / "paws.safetensors")
    settings = [f"checkpoint={file}", f"calibration_output={tmp_path / 'c.json'}", f"output={tmp_path / 'out'}"]
    with pytest.raises(DistilPoseError, match=r"at least 20 labelled joints .* there are \d+"):
        evaluate(tiny_coco(val=4, skeleton=skeleton), *settings)
    assert not (tmp_path / "out").exists()


def test_a_calibration_on_one_image_has_no_error(tiny_coco, checkpoint, tmp_path):
    settings = [f"checkpoint={checkpoint}", f"calibration_output={tmp_path / 'c.json'}", f"output={tmp_path / 'out'}"]
    report = evaluate(tiny_coco(val=4), *settings, "data.limit_val=2")
    assert any("the other images have no labelled joint" in note for note in report["notes"])
    assert json.loads((tmp_path / "c.json").read_text())["error_after"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        "rescoring=no", "mean_pose=off", "protocol=best", "flip_test=both", "nms_threshold=-1", "weights_kind=mean",
        "device=null", "checkpoint=[a]",
    ],
)  # fmt: skip
def test_wrong_settings_are_named(wrong):
    validate(configured("nowhere"), EvaluateSettings)
    with pytest.raises(DistilPoseError) as error:
        validate(configured("nowhere", wrong), EvaluateSettings)
    assert wrong.partition("=")[0] in str(error.value)
    assert wrong.partition("=")[2].strip("[]") in str(error.value)


def test_a_results_file_of_one_category_among_several(tiny_coco, tmp_path):
    root = tiny_coco(val=4)
    path = root / "annotations" / "val.json"
    truth = json.loads(path.read_text())
    truth["categories"].insert(0, {**truth["categories"][0], "id": 7, "name": "statue"})
    path.write_text(json.dumps(truth))
    rows = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
        for a in truth["annotations"]
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    settings = [f"predictions={tmp_path / 'rows.json'}", "data.category=person", f"output={tmp_path / 'out'}"]
    assert evaluate(root, *settings)["rows"][0]["AP"] == 1.0


def test_the_mean_pose_baseline(tiny_coco, checkpoint, tmp_path, capsys):
    # all persons of this set have the same pose, so the baseline is nearly correct and an untrained network is not
    root = tiny_coco(train=12, val=6)
    report = evaluate(root, f"checkpoint={checkpoint}", "mean_pose=true", f"output={tmp_path / 'out'}")
    student, baseline = report["rows"]
    assert [student["model"], baseline["model"]] == ["student_xs", "mean training pose"]
    assert baseline["persons"] == student["persons"]
    assert baseline["AP"] > 0.6 > 0.1 > student["AP"]
    assert baseline["pck"]["reference"] == student["pck"]["reference"]
    assert "| mean training pose" in capsys.readouterr().out
    (root / "annotations" / "train.json").unlink()
    with pytest.raises(DistilPoseError, match=r"train\.json"):
        evaluate(root, f"checkpoint={checkpoint}", "mean_pose=true", f"output={tmp_path / 'again'}")
    assert not (tmp_path / "again").exists()


def test_written_rows_give_the_same_metrics_as_the_model(tiny_coco, checkpoint, tmp_path):
    root = tiny_coco(val=5)
    by_model = evaluate(root, f"checkpoint={checkpoint}", f"output={tmp_path / 'a'}", "flip_test=released")
    file = tmp_path / "a" / "results_gt_flip-released_rescoring-on.json"
    by_file = evaluate(root, f"predictions={file}", f"output={tmp_path / 'b'}")
    for name in COCO_METRICS:
        assert by_file["rows"][0][name] == by_model["rows"][0][name]


def test_a_results_file_equals_pycocotools(tiny_coco, tmp_path):
    root = tiny_coco(val=6)
    path = root / "annotations" / "val.json"
    rows = [
        {
            "image_id": person["image_id"],
            "category_id": 1,
            "keypoints": [
                value + (index % 3 < 2) * 3 * (-1) ** index for index, value in enumerate(person["keypoints"])
            ],
            "score": 1 / person["id"],
        }
        for person in json.loads(path.read_text())["annotations"]
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(rows))
    report = evaluate(root, f"predictions={file}", f"output={tmp_path / 'out'}")
    truth = load_coco(path)
    reference = COCOeval(truth, truth.loadRes(str(file)), "keypoints")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    assert [report["rows"][0][name] for name in COCO_METRICS] == reference.stats.tolist()
    assert 0 < report["rows"][0]["AP"] < 1


def test_missing_detector_boxes_are_noted(tiny_coco, checkpoint, tmp_path):
    report = evaluate(tiny_coco(val=4), f"checkpoint={checkpoint}", "protocol=all", f"output={tmp_path / 'out'}")
    assert {row["boxes"] for row in report["rows"]} == {"gt"}
    assert any("data.boxes=FILE" in note for note in report["notes"])


def test_a_set_without_sigmas(tiny_coco, tmp_path):
    skeleton = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    file = save_model(create_model("student_xs", skeleton=skeleton), tmp_path / "paws.safetensors")
    report = evaluate(tiny_coco(val=4, skeleton=skeleton), f"checkpoint={file}", f"output={tmp_path / 'out'}")
    assert "AP" not in report["rows"][0]
    assert 0 <= report["rows"][0]["PCK"] <= 1


def user_errors(checkpoint):
    return {
        "neither": ([], "checkpoint=FILE"),
        "boxes": ([f"checkpoint={checkpoint}", "protocol=detections"], "data.boxes=FILE"),
        "limit": ([f"checkpoint={checkpoint}", "protocol=all", "data.limit_val=2"], "data.limit_val=2"),
        "absent": (["checkpoint=absent.ckpt"], "absent.ckpt"),
    }


@pytest.mark.parametrize("kind", ["neither", "boxes", "limit", "absent"])
def test_user_errors_are_reported_before_the_work(tiny_coco, checkpoint, tmp_path, kind):
    overrides, message = user_errors(checkpoint)[kind]
    with pytest.raises(DistilPoseError, match=re.escape(message)):
        evaluate(tiny_coco(val=3), *overrides, f"output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_another_skeleton(tiny_coco, checkpoint, tmp_path):
    root = tiny_coco(val=3, skeleton=Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"]))
    with pytest.raises(DistilPoseError, match=r"no name in common"):
        evaluate(root, f"checkpoint={checkpoint}", f"output={tmp_path / 'out'}")


def test_a_model_is_scored_on_the_joints_that_it_shares_with_the_data(tiny_coco, checkpoint, tmp_path):
    """The same persons with the joints in another order and one more score the same as in the model's own order."""
    root, other = tiny_coco(val=6), tiny_coco(val=6)
    file = other / "annotations/val.json"
    content = json.loads(file.read_text())
    order = [*range(16, -1, -1)]
    for category in content["categories"]:
        category["keypoints"] = [*(category["keypoints"][joint] for joint in order), "tail"]
        category["skeleton"] = []
        category["OKS_sigmas"] = [*(COCO.sigmas[joint] for joint in order), 0.1]
    for person in content["annotations"]:
        rows = np.array(person["keypoints"]).reshape(-1, 3)
        person["keypoints"] = [*rows[order].ravel().tolist(), 5, 5, 2]
    file.write_text(json.dumps(content))
    same = evaluate(root, f"checkpoint={checkpoint}", f"output={tmp_path / 'same'}")
    moved = evaluate(other, f"checkpoint={checkpoint}", f"output={tmp_path / 'moved'}")
    assert moved["rows"][0]["PCK"] == pytest.approx(same["rows"][0]["PCK"])
    assert moved["rows"][0]["AP"] == pytest.approx(same["rows"][0]["AP"])
    assert any("tail" in note and "17" in note for note in moved["notes"])


def test_predictions_that_are_not_finite(tiny_coco, tmp_path):
    model = create_model("student_xs")
    torch.nn.init.constant_(next(model.head.parameters()), float("nan"))
    file = save_model(model, tmp_path / "broken.safetensors")
    with pytest.raises(DistilPoseError, match="not finite"):
        evaluate(tiny_coco(val=3), f"checkpoint={file}", f"output={tmp_path / 'out'}")


@pytest.mark.slow
def test_a_user_error_leaves_no_files(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "distilpose.evaluate", "predictions=absent.json", "data.root=nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert "nowhere" in ran.stderr
    assert "data.root" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def results_of(root, *categories, **more):
    """A results file with the labels of the validation, once for each category."""
    truth = json.loads((root / "annotations" / "val.json").read_text())
    rows = [
        {"image_id": a["image_id"], "category_id": category, "keypoints": a["keypoints"], "score": 1.0, **more}
        for category in categories
        for a in truth["annotations"]
    ]
    (root / "rows.json").write_text(json.dumps(rows))
    return f"predictions={root / 'rows.json'}"


@pytest.fixture
def with_statues(tiny_coco):
    """A data set with a second category."""
    root = tiny_coco(val=6)
    path = root / "annotations" / "val.json"
    truth = json.loads(path.read_text())
    truth["categories"].append({"id": 7, "name": "statue"})
    path.write_text(json.dumps(truth))
    return root


def test_rows_of_other_categories_are_counted(with_statues, tmp_path):
    persons = len(json.loads((with_statues / "annotations" / "val.json").read_text())["annotations"])
    report = evaluate(with_statues, results_of(with_statues, 7, 1), f"output={tmp_path / 'out'}")
    assert (report["rows"][0]["persons"], report["rows"][0]["AP"]) == (persons, 1.0)
    assert any(f"{persons} of {2 * persons} rows have category_id 1" in note for note in report["notes"])
    with pytest.raises(DistilPoseError, match=rf"0 of {persons} rows .* have category_id 1 \({persons} have 7\)"):
        evaluate(with_statues, results_of(with_statues, 7), f"output={tmp_path / 'other'}")


def test_ids_from_zero_and_boxes_in_the_rows(tiny_coco, checkpoint, tmp_path):
    root = tiny_coco(val=6)
    path = root / "annotations" / "val.json"
    truth = json.loads(path.read_text())
    for number, person in enumerate(truth["annotations"]):
        person["id"] = number
    path.write_text(json.dumps(truth))
    settings = [results_of(root, 1, bbox=[0, 0, 1, 1]), f"output={tmp_path / 'out'}"]
    assert evaluate(root, *settings)["rows"][0]["AP"] == 1.0
    by_model = evaluate(root, f"checkpoint={checkpoint}", f"output={tmp_path / 'model'}")["rows"][0]
    assert by_model["pck"]["persons"] + by_model["pck"]["left_out"] == len(truth["annotations"])


def test_more_persons_on_an_image_than_coco_counts(tiny_coco, tmp_path):
    root = tiny_coco(val=3)
    path = root / "annotations" / "val.json"
    truth = json.loads(path.read_text())
    first = truth["annotations"][0]
    truth["annotations"] = [
        {**first, "id": n, "keypoints": [v + 60 * n * (k % 3 == 0) for k, v in enumerate(first["keypoints"])]}
        for n in range(30)
    ]
    path.write_text(json.dumps(truth))
    report = evaluate(root, results_of(root, 1), f"output={tmp_path / 'out'}")
    assert report["rows"][0]["AR"] == pytest.approx(20 / 30)
    assert any(f"30 persons on image {first['image_id']}: COCO counts 20" in note for note in report["notes"])


def test_a_limit_is_said_in_the_table_and_cannot_apply_to_a_file(tiny_coco, checkpoint, tmp_path, capsys):
    root = tiny_coco(val=6)
    total = len(json.loads((root / "annotations" / "val.json").read_text())["annotations"])
    report = evaluate(root, f"checkpoint={checkpoint}", "data.limit_val=3", f"output={tmp_path / 'out'}")
    assert (report["rows"][0]["persons"], report["rows"][0]["of_persons"]) == (3, total)
    printed = capsys.readouterr().out
    assert f"| 3 of {total} " in printed
    assert f"All figures are on 3 of {total} persons" in printed
    with pytest.raises(DistilPoseError, match=r"data\.limit_val=3 cannot apply to predictions="):
        evaluate(root, results_of(root, 1), "data.limit_val=3", f"output={tmp_path / 'other'}")


def test_a_calibration_with_a_category_chosen_among_several(tiny_coco, checkpoint, tmp_path):
    root = tiny_coco(val=12)
    path = root / "annotations" / "val.json"
    truth = json.loads(path.read_text())
    truth["categories"].append({**truth["categories"][0], "id": 7, "name": "1"})  # a name that is the other's id
    path.write_text(json.dumps(truth))
    settings = ["data.category=1", f"calibration_output={tmp_path / 'c.json'}", f"output={tmp_path / 'out'}"]
    evaluate(root, f"checkpoint={checkpoint}", *settings)
    assert (tmp_path / "c.json").is_file()


def dots_of(tmp_path):
    """A folder of dots, and overrides that evaluate a perfect teacher on it."""
    write_persons(tmp_path, MIDDLE)
    data = [f"data.{split}_{kind}={name}" for split in ("train", "val") for kind, name in FILES.items()]
    return [*data, "teacher=module", "teacher.target=dots.build", f"teacher.joints=[{','.join(MIDDLE)}]"]


MIDDLE = ("nose", "neck", "head_top")
FILES = {"annotations": "dots.json", "images": "."}


def test_a_perfect_teacher_has_perfect_metrics_in_its_own_crops(tmp_path, capsys):
    overrides = dots_of(tmp_path)
    report = evaluate(tmp_path, *overrides, "protocol=all", "mean_pose=true", f"output={tmp_path / 'out'}")
    *rows, baseline = report["rows"]
    assert [(row["flip"], row["rescoring"]) for row in rows] == [
        ("false", "off"), ("false", "on"), ("true", "off"), ("true", "on")
    ]  # fmt: skip
    assert all(row["AP"] == 1 and row["PCK"] == 1 for row in rows)
    assert baseline["AP"] < 0.5
    assert report["teacher"]["convention"]["map_size"] == [64, 48]
    assert "dots.build" in capsys.readouterr().out
    assert (tmp_path / "out" / "results_gt_flip-true_rescoring-on.json").is_file()


def test_a_teacher_in_quarter_turns(tmp_path, tiny_coco, checkpoint, capsys):
    report = evaluate(tmp_path, *dots_of(tmp_path), "quarter_turns=true", f"output={tmp_path / 'out'}")
    assert report["rows"][0]["AP"] == report["rows"][0]["PCK"] == 1
    assert "four turns" in capsys.readouterr().out
    with pytest.raises(DistilPoseError, match=r"quarter_turns=True.*teacher=KIND"):
        evaluate(tiny_coco(val=3), f"checkpoint={checkpoint}", "quarter_turns=true", f"output={tmp_path / 'other'}")


def test_a_teacher_is_scored_on_the_joints_that_it_knows(tmp_path, capsys):
    overrides = dots_of(tmp_path)[:-1]
    report = evaluate(tmp_path, *overrides, "teacher.joints=[nose,neck,tail]", f"output={tmp_path / 'out'}")
    assert report["rows"][0]["PCK"] == 1
    assert "head_top" in capsys.readouterr().out
    with pytest.raises(DistilPoseError, match=r"beak.*no name in common"):
        evaluate(tmp_path, *overrides, "teacher.joints=[beak,wing,tail]", f"output={tmp_path / 'other'}")


def test_several_teachers_are_evaluated_together(tmp_path):
    overrides = [
        word.replace("teacher.", "teacher.first.").replace("teacher=", "teacher@teacher.first=") for word in dots_of(tmp_path)
    ]  # fmt: skip
    second = [word.replace("first", "second") for word in overrides if "first" in word]
    report = evaluate(
        tmp_path,
        "teacher=several",
        *overrides,
        *second,
        "teacher.second.joints=[nose,tail,neck]",
        f"output={tmp_path / 'out'}",
    )
    assert report["rows"][0]["PCK"] < 1  # the second exchanges two joints
    assert len(report["teacher"]["sources"]) == 2


@pytest.mark.parametrize("kind", ["model", "teacher"])
@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        (["protocol=detections"], r"data\.boxes"),
        (["protocol=detections", "data.boxes=absent.json"], r"absent\.json"),
        (["mean_pose=true", "data.train_annotations=missing.json"], r"missing\.json"),
        (["output=dots.json/out"], r"dots\.json"),
    ],
)
def test_what_is_missing_is_told_before_the_work(tmp_path, monkeypatch, kind, changes, facts):
    def works(*_):
        raise AssertionError("the work has started")

    monkeypatch.chdir(tmp_path)
    for name in ("predict_source", "predict_batches"):
        monkeypatch.setattr(f"distilpose.evaluate.{name}", works)
    overrides = [*dots_of(tmp_path), f"output={tmp_path / 'out'}", *changes]
    if kind == "model":
        model = create_model("student_xs", skeleton=Skeleton.from_names(MIDDLE))
        file = save_model(model, tmp_path / "student.safetensors")
        overrides = [word for word in overrides if "teacher" not in word] + [f"checkpoint={file}"]
    with pytest.raises((DistilPoseError, OSError), match=facts):
        evaluate(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        (["checkpoint=a.ckpt"], "checkpoint.*teacher"),
        (["teacher=labels"], "network"),
        (["teacher.target=dots.absent"], r"teacher\.target=dots\.absent"),
        (["teacher.target=builtins.dict"], r"builtins\.dict returned dict"),
        (["teacher.joints=[nose,neck]"], "2 names"),
        (["teacher.input_size=[250,192]"], "250 x 192"),
        (["flip_test=released"], "flip_test=released"),
    ],
)
def test_mistakes_in_the_teacher_are_one_sentence(tmp_path, changes, facts):
    overrides = [word for word in dots_of(tmp_path) if changes[0] != "teacher=labels" or "teacher" not in word]
    with pytest.raises(Exception, match=facts) as error:  # Hydra puts its own around it
        evaluate(tmp_path, *overrides, *changes, f"output={tmp_path / 'out'}")
    assert "\n" not in error_message(error.value)
