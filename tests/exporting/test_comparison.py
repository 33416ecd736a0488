"""The comparison: what it measures and what it accepts."""

from __future__ import annotations

import json
import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from pictures import png_of_header

from distilpose.data.codec import decode_heatmaps
from distilpose.errors import DistilPoseError
from distilpose.exporting.comparison import check_tolerance, compare
from distilpose.exporting.crops import collect_crops
from distilpose.exporting.graph import ExportedPose
from distilpose.models import create_model


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return create_model("student_xs", width=32, depth=1).eval()


@pytest.fixture(scope="module")
def drawn():
    return collect_crops(None, None, (64, 48), 1.25, 5)


def shifted(model, by: float, batches: list[int]):
    """The model itself, with x shifted by some crop pixels."""

    def run(images):
        batches.append(len(images))
        with torch.no_grad():
            outputs = [one.numpy().copy() for one in ExportedPose(model, False, True)(torch.from_numpy(images))]
        outputs[0][..., 0] += by / 48
        return outputs

    return run


def test_measures_pixels_in_batches_of_1_3_8(student, drawn):
    batches: list[int] = []
    difference = compare(student, shifted(student, 2.0, batches), drawn, normalise=False, precision="float32")
    assert batches == [1, 3, 8]
    assert difference.pixels_largest == pytest.approx(2, abs=1e-4)
    assert difference.pixels_mean == pytest.approx(2, abs=1e-4)
    assert difference.scores_largest == 0
    assert difference.joints == 12 * 17


@pytest.mark.parametrize(
    ("precision", "good", "bad"), [("float32", 0.001, 0.01), ("float16", 0.1, 0.2), ("int8", 1, 3)]
)
def test_rejects_beyond_the_tolerance(student, drawn, precision, good, bad):
    check_tolerance(compare(student, shifted(student, good, []), drawn, False, precision), precision, student)
    with pytest.raises(DistilPoseError, match="not kept"):
        check_tolerance(compare(student, shifted(student, bad, []), drawn, False, precision), precision, student)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_rejects_what_is_not_finite(student, drawn, precision):
    with pytest.raises(DistilPoseError, match="not kept"):
        check_tolerance(compare(student, shifted(student, np.nan, []), drawn, False, precision), precision, student)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_rejects_a_teacher_of_random_maps(drawn, precision):
    torch.manual_seed(0)
    teacher, random = create_model("teacher_xs", width=32, depth=1).eval(), np.random.default_rng(0)

    def damaged(images):
        maps = random.random((len(images), 17, 16, 12), dtype=np.float32)
        places = decode_heatmaps(torch.from_numpy(maps))[0].numpy()
        return [places, maps.max((2, 3)), maps]

    check_tolerance(compare(teacher, shifted(teacher, 0.0, []), drawn, False, precision), precision, teacher)
    with pytest.raises(DistilPoseError, match="not kept"):
        check_tolerance(compare(teacher, damaged, drawn, False, precision), precision, teacher)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_rejects_where_no_joint_can_be_compared(student, drawn, precision):
    difference = compare(student, shifted(student, 0.0, []), drawn, False, precision)
    with pytest.raises(DistilPoseError, match="unambiguous peak"):
        check_tolerance(difference._replace(undecided=difference.joints), precision, student)


def test_pck_of_annotated_crops(student, tiny_coco):
    root = tiny_coco(val=6)
    crops = collect_crops(root / "annotations" / "val.json", root / "val", (64, 48), 1.25, 4)
    assert crops.images.shape == (4, 64, 48, 3)
    middle = crops.boxes[:, :2] + crops.boxes[:, 2:] / 2
    np.testing.assert_allclose(middle, [[24, 32]] * 4, atol=0.1)
    difference = compare(student, shifted(student, 0.0, []), crops, False, "float32")
    assert difference.pck[0] == difference.pck[1]


def test_whole_images_of_a_folder(tiny_coco):
    root = tiny_coco(val=3)
    assert collect_crops(None, root / "val", (64, 48), 1.25, 2).images.shape == (2, 64, 48, 3)
    with pytest.raises(DistilPoseError, match="images=FOLDER"):
        collect_crops(root / "annotations" / "val.json", None, (64, 48), 1.25, 2)


def test_crops_of_halved_photographs_are_an_error(tiny_coco):
    root = tiny_coco(val=3)
    for path in (root / "val").iterdir():
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), None, fx=0.5, fy=0.5))
    with pytest.raises(DistilPoseError, match="1/2 of the size that was labelled"):
        collect_crops(root / "annotations" / "val.json", root / "val", (64, 48), 1.25, 4)


@pytest.mark.parametrize("annotated", [False, True])
def test_one_image_is_in_memory_at_a_time(tiny_coco, tmp_path, annotated):
    root = tiny_coco(val=8)
    for path in (root / "val").iterdir():
        cv2.imwrite(str(path), np.zeros((1000, 1000, 3), np.uint8))  # 3 MB decoded
    file = root / "annotations" / "val.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image |= {"width": 1000, "height": 1000}
    file.write_text(json.dumps(content))
    collect_crops(None, None, (64, 48), 1.25, 1)  # loads what is loaded once
    tracemalloc.start()
    collect_crops(root / "annotations" / "val.json" if annotated else None, root / "val", (64, 48), 1.25, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 3e6 < peak < 12e6


def test_a_huge_image_is_not_decoded(tmp_path):
    (tmp_path / "huge.png").write_bytes(png_of_header(10_000, 11_000))
    with pytest.raises(DistilPoseError, match="10000 x 11000 pixels"):
        collect_crops(None, tmp_path, (64, 48), 1.25, 8)
