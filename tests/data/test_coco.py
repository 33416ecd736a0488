"""CocoKeypoints: samples against the release, their fields, missing and damaged files."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
import torch

from distilpose.data.coco import CocoKeypoints, read_image
from distilpose.data.codec import keypoints_to_image
from distilpose.errors import DistilPoseError


@pytest.fixture
def folder(tiny_coco):
    return tiny_coco(train=1, val=4)


def val_set(folder, **options):
    return CocoKeypoints(folder / "annotations" / "val.json", folder / "val", **options)


def test_samples_equal_the_release(shared_data, release_fixtures):
    mini = shared_data / "coco-mini"
    data = CocoKeypoints(mini / "annotations" / "person_keypoints_val2017.json", mini / "val2017")
    for person in json.loads((release_fixtures / "pipeline_sample.json").read_text())["instances"]:
        index = int(np.abs(data.instances.boxes - person["bbox"]).max(axis=1).argmin())
        sample = data[index]
        np.testing.assert_allclose(sample.warp, person["warp"], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(sample.keypoints, person["regression_target"], rtol=0, atol=1e-7)
        assert sample.weights.tolist() == [row[0] for row in person["regression_weight"]]
        assert sample.labelled.tolist() == [row[0] for row in person["joints_visible"]]
        np.testing.assert_allclose(sample.image.mean((1, 2)), person["tensor_mean"], atol=2e-3)
        np.testing.assert_allclose(sample.image.std((1, 2), correction=0), person["tensor_std"], atol=2e-3)
        assert sample.bbox_score == 1


def test_fields_have_their_shapes_and_types(folder):
    sample = val_set(folder, input_size=(64, 48))[0]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in sample._asdict().items()}
    floating, integer = torch.float32, torch.int64
    assert shapes == {
        "image": ((3, 64, 48), floating),
        "keypoints": ((17, 2), floating),
        "weights": ((17,), floating),
        "labelled": ((17,), floating),
        "warp": ((2, 3), floating),
        "image_id": ((), integer),
        "annotation_id": ((), integer),
        "bbox": ((4,), floating),
        "bbox_score": ((), floating),
    }


def test_targets_lead_back_to_the_annotation(folder):
    data = val_set(folder)
    for index in range(len(data)):
        sample = data[index]
        back = keypoints_to_image(sample.keypoints[None], sample.warp[None], (256, 192))[0].numpy()
        labelled = data.instances.labelled[index]
        np.testing.assert_allclose(back[labelled], data.instances.keypoints[index][labelled], atol=1e-3)
        assert not sample.keypoints[~torch.from_numpy(labelled)].any()


def test_evaluation_covers_images_without_persons(folder):
    data = val_set(folder, limit=2)
    assert len(data) == 2
    assert data.image_ids == [1, 2, 3, 4]
    assert data.annotations_file == folder / "annotations" / "val.json"


def test_detector_boxes_have_no_labels(folder):
    truth, detected = val_set(folder), val_set(folder, boxes=folder / "detections.json")
    assert len(detected) == len(truth)
    sample = detected[1]
    assert sample.annotation_id == 1
    assert sample.bbox_score == pytest.approx(0.9)
    assert not sample.weights.any()
    assert not sample.keypoints.any()
    # detector boxes are not clipped, so the crop is slightly larger
    assert (detected.instances.boxes[:, 2:] >= truth.instances.boxes[:, 2:]).all()


def test_augmentation_only_in_training(folder):
    class Forbidden:
        def view(self, *args):
            raise AssertionError("not in evaluation")

    assert torch.isfinite(val_set(folder, augmentation=Forbidden())[0].image).all()
    with pytest.raises(AssertionError):
        val_set(folder, augmentation=Forbidden(), train=True)[0]


def test_can_be_pickled_for_workers(folder):
    data = val_set(folder)
    assert torch.equal(pickle.loads(pickle.dumps(data))[0].image, data[0].image)


def test_missing_images_are_found_at_construction(folder):
    (folder / "val" / "000002.jpg").unlink()
    with pytest.raises(DistilPoseError, match=r"1 of 3 images .*000002\.jpg: check the folder of images"):
        val_set(folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_cut_off_jpeg_is_named(folder, share):
    path = folder / "val" / "000001.jpg"
    content = path.read_bytes()
    assert read_image(path).shape == (120, 160, 3)
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DistilPoseError, match=r"000001\.jpg .*is (cut off|empty)"):
        val_set(folder)[0]


def test_bytes_after_a_whole_jpeg_do_no_harm(folder):
    path = folder / "val" / "000001.jpg"
    path.write_bytes(path.read_bytes() + b"\0" * 40)
    assert read_image(path).shape == (120, 160, 3)


def test_png_is_read_in_blue_green_red(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
