"""Ground-truth and detector boxes: clipping and filtering as in the release, and invalid files."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from distilpose.data.annotations import load_annotations
from distilpose.data.boxes import detector_instances, ground_truth_instances
from distilpose.errors import DistilPoseError


@pytest.fixture
def folder(tiny_coco):
    return tiny_coco(train=1, val=4)


def with_boxes(folder, boxes, areas=None):
    """The folder's validation annotations with the first boxes replaced."""
    path = folder / "annotations" / "val.json"
    content = json.loads(path.read_text())
    for index, box in enumerate(boxes):
        content["annotations"][index]["bbox"] = box
        if areas:
            content["annotations"][index]["area"] = areas[index]
    path.write_text(json.dumps(content))
    return load_annotations(path)


def test_boxes_are_clipped_as_the_release_does(folder):
    # images are 160 x 120
    read = with_boxes(folder, [[-5, -7, 50, 60], [130.5, 100, 80, 90], [10, 20, 30.5, 40]])
    boxes = ground_truth_instances(read).boxes[:3]
    np.testing.assert_allclose(boxes, [[0, 0, 49, 59], [130.5, 100, 28.5, 19], [10, 20, 29.5, 39]])


def test_release_boxes(shared_data, release_fixtures):
    sample = json.loads((release_fixtures / "pipeline_sample.json").read_text())
    mini = shared_data / "coco-mini" / "annotations" / "person_keypoints_val2017.json"
    boxes = ground_truth_instances(load_annotations(mini)).boxes
    for person in sample["instances"]:
        assert np.abs(boxes - person["bbox"]).max(axis=1).min() < 1e-9


def test_empty_boxes_are_dropped_and_counted(folder):
    read = with_boxes(folder, [[5, 5, 0, 40], [200, 5, 30, 40], [5, 5, 30, 40]], areas=[10, 10, 0])
    with pytest.warns(UserWarning, match=r"^2 person\(s\) in .*val\.json are skipped") as caught:
        kept = ground_truth_instances(read)
    assert str(read.annotation_ids[0]) in str(caught[0].message)
    assert kept.annotation_ids.tolist() == read.annotation_ids[2:].tolist()  # an area of 0 is a placeholder


def test_nothing_left_is_an_error(folder):
    count = len(load_annotations(folder / "annotations" / "val.json").annotation_ids)
    read = with_boxes(folder, [[5, 5, 0, 0]] * count)
    with pytest.raises(DistilPoseError, match=f"val.json .*{count} are empty"):
        ground_truth_instances(read)


def test_an_image_without_a_size_is_no_empty_box(folder):
    path = folder / "annotations" / "val.json"
    content = json.loads(path.read_text())
    number = content["annotations"][0]["image_id"]
    next(image for image in content["images"] if image["id"] == number)["width"] = 0
    path.write_text(json.dumps(content))
    with pytest.raises(DistilPoseError, match=f"width or height is 0 .first image {number}"):
        ground_truth_instances(load_annotations(path))


def detections(folder, change=lambda rows: rows, threshold=0.0):
    rows = json.loads((folder / "detections.json").read_text())
    (folder / "detections.json").write_text(json.dumps(change(rows)))
    return detector_instances(
        folder / "detections.json", load_annotations(folder / "annotations" / "val.json"), threshold
    )


def test_detector_boxes_are_used_as_they_are(folder):
    box = [-20.5, -3, 300, 400]
    persons = detections(folder, lambda rows: [rows[0] | {"bbox": box}, *rows[1:]])
    assert persons.boxes[0].tolist() == box
    assert persons.annotation_ids.tolist() == list(range(len(persons.boxes)))
    assert persons.scores[0] == np.float32(0.9)
    assert not persons.labelled.any()


def test_other_categories_and_low_scores_are_skipped_and_counted(folder, caplog):
    def change(rows):
        return [rows[0] | {"category_id": 3}, rows[1] | {"score": 0.2}, *rows[2:]]

    with caplog.at_level(logging.INFO), pytest.warns(UserWarning, match="1 rows of other categories"):
        kept = detections(folder, change, threshold=0.5).boxes
    count = len(json.loads((folder / "detections.json").read_text()))
    assert len(kept) == count - 2
    assert f"1 of {count} boxes have a score below 0.5" in caplog.text


def test_persons_on_images_without_a_box_are_counted(folder):
    read = load_annotations(folder / "annotations" / "val.json")
    first = int(read.image_ids[0])
    others = read.image_ids[read.image_ids != first]
    with pytest.warns(UserWarning, match="have no box") as caught:
        detections(folder, lambda rows: [row for row in rows if row["image_id"] == first])
    (message,) = [str(one.message) for one in caught]
    assert f"{len(set(others.tolist()))} of {len(set(read.image_ids.tolist()))} images" in message
    assert f"the {len(others)} persons there count as missed" in message
    with pytest.raises(DistilPoseError, match="No person box"):  # one message, not two
        detections(folder, lambda rows: [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: {"boxes": rows}, "is no list: expected rows of image_id"),
        (lambda rows: 7, "is no list"),
        (lambda rows: [*rows, rows[0] | {"image_id": 501}, rows[0] | {"image_id": 502}], r"2 image\(s\).*501, 502"),
        (lambda rows: [{"image_id": 1}], "Detector box 0 .* no 'category_id'"),
        (lambda rows: [rows[0], rows[0] | {"bbox": [1, 2, 3]}], "'bbox' of detector box 1 .* 3 numbers, expected 4"),
        (lambda rows: [rows[0] | {"score": float("nan")}], r"'score' of detector box 0 .* \[nan\]"),
        (lambda rows: [7], "Detector box 0 .* no 'image_id'"),
        (lambda rows: [], r"No person box.*data\.score_threshold"),
    ],
)
def test_bad_detector_file_names_its_place(folder, change, message):
    with pytest.raises(DistilPoseError, match=message) as error:
        detections(folder, change)
    assert "detections.json" in str(error.value)


def test_missing_detector_file(folder):
    with pytest.raises(DistilPoseError, match=r"none\.json does not exist.*data\.boxes"):
        detector_instances(folder / "none.json", load_annotations(folder / "annotations" / "val.json"))


def test_the_slice_of_the_papers_detections(shared_data):
    mini = shared_data / "coco-mini"
    read = load_annotations(mini / "annotations" / "person_keypoints_val2017.json")
    file = mini / "person_detection_results" / "COCO_val2017_detections_subset_person.json"
    persons = detector_instances(file, read)
    assert len(persons.boxes) == 118
    assert set(persons.image_ids.tolist()) == {785, 40083, 196141, 197388}


def test_boxes_that_seem_to_be_corners_are_told(folder, recwarn):
    truth = load_annotations(folder / "annotations" / "val.json")
    ground_truth_instances(truth)
    assert not recwarn
    corners = truth.boxes + np.concatenate([np.zeros_like(truth.boxes[:, :2]), truth.boxes[:, :2]], axis=1)
    with pytest.warns(UserWarning, match=r"val\.json: \d of \d boxes extend.*two corners"):
        ground_truth_instances(with_boxes(folder, corners.tolist()))


def test_detector_boxes_of_other_units_are_refused(folder):
    with pytest.raises(DistilPoseError, match=r"detections\.json has no coordinate above 1 in 'bbox'.*fractions"):
        detections(folder, lambda rows: [row | {"bbox": [0.25, 0.5, 0.5, 1]} for row in rows])
    with pytest.raises(DistilPoseError, match=r"scores up to 25, and data\.score_threshold=0\.5"):
        detections(folder, lambda rows: [row | {"bbox": [1, 2, 30, 40], "score": 25} for row in rows], threshold=0.5)


def test_rows_of_other_categories_are_counted(folder):
    with pytest.warns(UserWarning, match=r"2 rows of other categories than 1 are left out; 1 have 0, where"):
        detections(folder, lambda rows: [rows[0] | {"category_id": 0}, rows[1] | {"category_id": 7}, *rows[2:]])
