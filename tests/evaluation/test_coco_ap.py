from __future__ import annotations

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from distilpose.evaluation.coco_ap import COCO_METRICS, beyond_limit, coco_metrics
from distilpose.skeleton import COCO as SKELETON


def annotation_set(persons: int = 24, joints: int = 17, seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    annotations = []
    for index in range(persons):
        side = generator.uniform(40, 200)
        corner = generator.uniform(0, 200, 2)
        points = corner + side * generator.uniform(0, 1, (joints, 2))
        visible = generator.choice([0, 1, 2], joints, p=[0.2, 0.2, 0.6])
        annotations.append(
            {
                "id": index + 1,
                "image_id": 10 + index % 6,
                "category_id": 1,
                "iscrowd": int(index == 3),
                "area": float(0.5 * side**2),
                "bbox": [*corner.tolist(), side, side],
                "num_keypoints": int((visible > 0).sum()),
                "keypoints": np.concatenate([points, visible[:, None]], 1).ravel().tolist(),
            }
        )
    names = list(SKELETON.names) if joints == 17 else [f"joint_{index}" for index in range(joints)]
    return {
        "images": [{"id": 10 + index, "file_name": f"{index}.jpg"} for index in range(6)],
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}],
        "annotations": annotations,
    }


def rows_of(truth: dict, noise: float = 0.0, seed: int = 1) -> list[dict]:
    generator = np.random.default_rng(seed)
    rows = []
    for annotation in truth["annotations"]:
        points = np.array(annotation["keypoints"], float).reshape(-1, 3)
        points[:, :2] += noise * generator.standard_normal((len(points), 2))
        rows.append(
            {
                "image_id": annotation["image_id"],
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "score": float(generator.uniform()),
            }
        )
    return rows


def by_pycocotools(path, rows) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(rows), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


@pytest.mark.parametrize("noise", [1.0, 4.0, 10.0])
def test_equals_pycocotools_to_the_last_bit(tmp_path, noise):
    truth = annotation_set()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    rows = rows_of(truth, noise)
    metrics = coco_metrics(path, rows, SKELETON.sigmas)
    assert list(metrics) == list(COCO_METRICS)
    assert list(metrics.values()) == by_pycocotools(path, rows)
    assert 0 < metrics["AP"] < 1


def test_truth_fed_back_scores_one(tmp_path, capsys):
    truth = annotation_set()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    figures = coco_metrics(path, rows_of(truth), SKELETON.sigmas)
    assert figures == dict.fromkeys(COCO_METRICS, 1.0)
    assert capsys.readouterr().out == ""


def test_another_skeleton_and_missing_fields(tmp_path):
    # custom sets may omit num_keypoints, iscrowd and area
    truth = annotation_set(joints=5)
    for annotation in truth["annotations"]:
        for field in ("num_keypoints", "iscrowd", "area"):
            del annotation[field]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    assert coco_metrics(path, rows_of(truth), [0.05] * 5)["AP"] == 1.0


def test_placeholders_of_exporters_change_nothing(tmp_path):
    """pycocotools ignores persons with 'num_keypoints' 0, and nobody can be found where 'area' is 0."""
    truth = annotation_set()
    for annotation in truth["annotations"]:
        annotation["area"] = 0.53 * annotation["bbox"][2] * annotation["bbox"][3]
    right, wrong = tmp_path / "right.json", tmp_path / "wrong.json"
    right.write_text(json.dumps(truth))
    rows = [
        row | {"keypoints": [value + (index % 3 == 0) for index, value in enumerate(row["keypoints"])]}
        for row in rows_of(truth)
    ]
    for index, annotation in enumerate(truth["annotations"]):
        annotation |= {"num_keypoints": 0, "area": 0} if index % 2 else {"area": None}
    wrong.write_text(json.dumps(truth))
    assert coco_metrics(wrong, rows, SKELETON.sigmas) == coco_metrics(right, rows, SKELETON.sigmas)


def test_a_person_without_labelled_joints_is_not_missed_whatever_its_num_keypoints(tmp_path):
    truth = annotation_set()
    sigmas = SKELETON.sigmas
    for annotation in truth["annotations"][:8]:  # some tools write a fixed number
        annotation["keypoints"][2::3] = [0] * 17
    rows = [row for row in rows_of(truth) if any(row["keypoints"][2::3])]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    assert coco_metrics(path, rows, sigmas)["AP"] == 1.0
    for annotation in truth["annotations"]:
        annotation["num_keypoints"] = sum(v > 0 for v in annotation["keypoints"][2::3])
    corrected = tmp_path / "corrected.json"
    corrected.write_text(json.dumps(truth))
    assert coco_metrics(path, rows, sigmas) == coco_metrics(corrected, rows, sigmas)
    assert by_pycocotools(corrected, rows)[0] == 1.0


def test_no_results_score_zero(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(annotation_set()))
    assert coco_metrics(path, [], SKELETON.sigmas)["AP"] == 0.0


def test_rows_are_left_as_they_were(tmp_path):
    truth = annotation_set()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    rows = rows_of(truth)
    before = json.dumps(rows)
    coco_metrics(path, rows, SKELETON.sigmas)
    assert json.dumps(rows) == before


def test_coco_slice(shared_data):
    path = shared_data / "coco-mini" / "annotations" / "person_keypoints_val2017.json"
    truth = json.loads(path.read_text())
    labelled = {"annotations": [a for a in truth["annotations"] if a["num_keypoints"] and not a["iscrowd"]]}
    assert len(labelled["annotations"]) == 314
    assert coco_metrics(path, rows_of(labelled), SKELETON.sigmas) == dict.fromkeys(COCO_METRICS, 1.0)
    rows = rows_of(labelled, noise=6.0)
    assert list(coco_metrics(path, rows, SKELETON.sigmas).values()) == by_pycocotools(path, rows)


def coco_of(content: dict) -> COCO:
    """pycocotools' `COCO` of a file's content."""
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def plainly(content: dict, rows: list[dict], category: int) -> list[float]:
    """pycocotools' metrics of a category on a correctly numbered copy: ids from 1, and rows of joints and scores only."""
    images = {number: place for place, number in enumerate(sorted(image["id"] for image in content["images"]), start=1)}
    people = [entry for entry in content["annotations"] if entry["category_id"] == category]
    numbered = {
        "images": [{"id": place} for place in images.values()],
        "categories": [{"id": 1}],
        "annotations": [
            {**copy.deepcopy(entry), "id": number, "image_id": images[entry["image_id"]], "category_id": 1}
            for number, entry in enumerate(people, start=1)
        ],
    }
    results = [
        {"image_id": images[row["image_id"]], "category_id": 1, "keypoints": row["keypoints"], "score": row["score"]}
        for row in rows
        if row["category_id"] == category
    ]
    truth = coco_of(numbered)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


FURTHER = {"bbox": [0, 0, 3, 4], "area": 12.0, "segmentation": [[0, 0, 3, 0, 3, 4]], "caption": "x", "id": 0}
IDS = st.one_of(st.integers(-2, 2), st.integers(-(2**62), 2**62))


@st.composite
def foreign_sets(draw):
    """Content and result rows with any ids, visibilities, categories, crowds and further fields in the rows."""
    images, people = (
        draw(st.lists(IDS, min_size=1, max_size=4, unique=True)),
        draw(st.lists(IDS, max_size=12, unique=True)),
    )
    category, other = draw(st.lists(IDS, min_size=2, max_size=2, unique=True))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    content = annotation_set(persons=len(people) + 1, seed=int(generator.integers(2**32)))
    missing = next(number for number in range(len(people) + 1) if number not in people)
    for number, entry in zip([*people, missing], content["annotations"], strict=True):
        visible = generator.choice([0, 0, 1, 2], 17)
        entry["keypoints"][2::3] = visible.tolist()
        crowd = int(generator.random() < 0.1)
        chosen = category if generator.random() < 0.8 else other
        entry.update(id=number, image_id=images[generator.integers(len(images))], category_id=chosen, iscrowd=crowd)
        entry["num_keypoints"] = int((visible > 0).sum())
    content["annotations"][-1]["category_id"] = category
    content["images"] = [{"id": number} for number in images]
    content["categories"] = [{"id": category, "name": "person"}, {"id": other, "name": "statue"}]
    rows = rows_of(content, noise=float(generator.choice([0.0, 4.0])), seed=int(generator.integers(2**32)))
    for row, entry in zip(rows, content["annotations"], strict=True):
        row.update(category_id=entry["category_id"], score=round(row["score"], 1))
    for extra in draw(st.sets(st.sampled_from(sorted(FURTHER)))):
        for row in rows:
            row[extra] = FURTHER[extra]
    return content, rows, category


@settings(max_examples=40, deadline=None)
@given(foreign_sets())
def test_any_ids_and_fields_score_as_a_correctly_numbered_copy(foreign):
    content, rows, category = foreign
    before = copy.deepcopy((content, rows))
    truth = coco_of(content)
    assert list(coco_metrics(truth, rows, SKELETON.sigmas, category).values()) == plainly(content, rows, category)
    assert (content, rows) == before
    assert truth.anns == {entry["id"]: entry for entry in before[0]["annotations"]}


def test_perfect_results_on_ids_from_zero_score_one():
    truth = annotation_set()
    for number, entry in enumerate(truth["annotations"]):
        entry.update(id=number, iscrowd=0)
    assert coco_metrics(coco_of(truth), rows_of(truth), SKELETON.sigmas)["AP"] == 1.0


def test_boxes_of_a_results_file_do_not_move_the_sizes(shared_data):
    path = shared_data / "coco-mini" / "annotations" / "person_keypoints_val2017.json"
    people = [a for a in json.loads(path.read_text())["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    rows = rows_of({"annotations": people}, noise=6.0)
    boxed = [{**row, "bbox": person["bbox"], "area": person["area"]} for row, person in zip(rows, people, strict=True)]
    assert list(coco_metrics(path, boxed, SKELETON.sigmas).values()) == by_pycocotools(path, rows)
    assert by_pycocotools(path, boxed)[3:5] != by_pycocotools(path, rows)[3:5]  # the trap


@pytest.mark.parametrize(("persons", "said"), [(20, None), (30, "30 persons on image 7: COCO counts 20")])
def test_more_persons_on_an_image_than_coco_counts(persons, said):
    rows = [{"image_id": 7, "category_id": 0}] * persons + [{"image_id": 7, "category_id": 1}] * 9
    message = beyond_limit(rows, 0)
    assert message is None if said is None else said in message
    assert (
        "on image 8, and more than 20 on 1 other"
        in (beyond_limit([*rows, *[{"image_id": 8, "category_id": 0}] * 40, *rows[:5]], 0) or "")
        or persons == 20
    )
