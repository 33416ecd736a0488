from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilpose.data.boxes import Instances
from distilpose.data.coco import CocoKeypoints
from distilpose.errors import DistilPoseError
from distilpose.evaluation import COCO_METRICS, check_monitored, evaluate_dataset, has_value, persons_by_metric
from distilpose.evaluation.coco_ap import load_coco
from distilpose.outputs import Predictions
from distilpose.skeleton import COCO, Skeleton


def val_set(root, **options) -> CocoKeypoints:
    return CocoKeypoints(root / "annotations" / "val.json", root / "val", input_size=(64, 48), **options)


def labels(dataset) -> Predictions:
    """The annotations as predictions."""
    people = dataset.instances
    keypoints = torch.from_numpy(people.keypoints)
    ids = (torch.from_numpy(field) for field in (people.image_ids, people.annotation_ids))
    boxes = torch.from_numpy(people.boxes).float()
    return Predictions(keypoints, torch.ones(keypoints.shape[:2]), *ids, boxes, torch.ones(len(keypoints)))


class Stub:
    """A data set of these persons, without images."""

    limit, category_id, input_size, padding = None, 1, (64, 48), 1.25

    def __init__(self, file, skeleton, people):
        self.annotations_file, self.skeleton, self.instances = file, skeleton, people


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_metric_has_a_value_if_a_person_counts_in_it(tmp_path_factory, data):
    """Against the metrics of perfect predictions."""
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count, share = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0.1, 0.4, 0.9]))
    corner, size = generator.uniform(0, 50, (count, 2)), generator.uniform(10, 300, (count, 2))
    points = corner[:, None] + size[:, None] * generator.uniform(0, 1, (count, 17, 2))
    visible = generator.random((count, 17)) < share
    visible[:, 0] = True
    areas = size.prod(1) * generator.uniform(0.2, 1, count)
    content = {
        "images": [{"id": 0, "file_name": "a.jpg", "width": 500, "height": 500}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
        "annotations": [
            {
                "id": number, "image_id": 0, "category_id": 1, "bbox": [*corner[number], *size[number]], "area": areas[number],
                "keypoints": np.c_[points[number], 2 * visible[number]].ravel().tolist(), "iscrowd": 0,
            }
            for number in range(count)
        ],
    }  # fmt: skip
    file = tmp_path_factory.mktemp("set") / "val.json"
    file.write_text(json.dumps(content))
    people = Instances(
        np.arange(count), np.zeros(count, np.int64), np.c_[corner, size], np.ones(count, np.float32),
        points.astype(np.float32), visible,
    )  # fmt: skip
    dataset = Stub(file, COCO, people)
    counts = persons_by_metric(dataset)
    metrics = evaluate_dataset(labels(dataset), dataset, load_coco(file)).metrics
    assert {name for name, number in counts.items() if number} == {
        name for name, value in metrics.items() if has_value(name, value)
    }
    for name in counts.keys() - {name for name in counts if counts[name]}:
        with pytest.raises(DistilPoseError, match=f"val/{name} has no value on {file}"):
            check_monitored(f"val/{name}", counts, file)


def test_what_there_is_without_hips(tiny_coco):
    root = tiny_coco(val=6)
    file = root / "annotations" / "val.json"
    content = json.loads(file.read_text())
    for person in content["annotations"]:
        for hip in (COCO.names.index("left_hip"), COCO.names.index("right_hip")):
            person["keypoints"][3 * hip : 3 * hip + 3] = [0, 0, 0]
    file.write_text(json.dumps(content))
    dataset = val_set(root)
    counts = persons_by_metric(dataset)
    assert (counts["PCK"], counts["PCK_box"], counts["AP"]) == (0, len(dataset), len(dataset))
    with pytest.raises(
        DistilPoseError, match=r"val/PCK .*shoulder and the opposite hip.*val/AP, .*val/PCK_box \(PCK by the"
    ):
        check_monitored("val/PCK", counts, file)
    for monitor in ("val/PCK_box", "val/AP", "train/total_epoch", "val/mine"):
        check_monitored(monitor, counts, file)


def test_sizes_that_no_person_has(tiny_coco):
    root = tiny_coco(val=6)
    file = root / "annotations" / "val.json"
    content = json.loads(file.read_text())
    for person in content["annotations"]:
        del person["area"]  # 0.53 of the box
    file.write_text(json.dumps(content))
    counts = persons_by_metric(val_set(root))
    sizes = [0.53 * person["bbox"][2] * person["bbox"][3] for person in content["annotations"]]
    assert counts["APM"] == counts["ARM"] == sum(32**2 <= size <= 96**2 for size in sizes) > 0
    assert counts["APL"] == 0
    with pytest.raises(DistilPoseError, match=r"val/APL .*no persons of that size"):
        check_monitored("val/APL", counts, file)


def test_a_skeleton_without_torso_and_sigmas(tiny_coco):
    paws = Skeleton.from_names(["snout", "tail", "left_paw", "right_paw"])
    dataset = val_set(tiny_coco(val=4, skeleton=paws))
    assert persons_by_metric(dataset) == {"PCK": len(dataset)}
    assert not set(COCO_METRICS) & persons_by_metric(dataset).keys()
