"""The judge: what it counts, and what it lets pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.exporting.comparison import check, compare
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


def shifted(model, by: float, seen: list[int]):
    """The model itself, its x moved by so many crop pixels."""

    def run(images):
        seen.append(len(images))
        with torch.no_grad():
            found = [one.numpy().copy() for one in ExportedPose(model, False, True)(torch.from_numpy(images))]
        found[0][..., 0] += by / 48
        return found

    return run


def test_measures_pixels_in_batches_of_1_3_8(student, drawn):
    seen: list[int] = []
    found = compare(student, shifted(student, 2.0, seen), drawn, normalise=False, precision="float32")
    assert seen == [1, 3, 8]
    assert found.pixels_largest == pytest.approx(2, abs=1e-4)
    assert found.pixels_mean == pytest.approx(2, abs=1e-4)
    assert found.scores_largest == 0
    assert found.joints == 12 * 17


@pytest.mark.parametrize(
    ("precision", "good", "bad"), [("float32", 0.001, 0.01), ("float16", 0.1, 0.2), ("int8", 1, 3)]
)
def test_refuses_beyond_the_tolerance(student, drawn, precision, good, bad):
    check(compare(student, shifted(student, good, []), drawn, False, precision), precision, student)
    with pytest.raises(DistilPoseError, match="not kept"):
        check(compare(student, shifted(student, bad, []), drawn, False, precision), precision, student)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_refuses_what_is_no_number(student, drawn, precision):
    with pytest.raises(DistilPoseError, match="not kept"):
        check(compare(student, shifted(student, np.nan, []), drawn, False, precision), precision, student)


def test_refuses_a_fixed_batch(student, drawn):
    def run(images):
        return [one[:1] for one in shifted(student, 0.0, [])(images)]

    with pytest.raises(DistilPoseError, match="batch of 3"):
        compare(student, run, drawn, False, "float32")


def test_pck_of_annotated_crops(student, tiny_coco):
    root = tiny_coco(val=6)
    crops = collect_crops(root / "annotations" / "val.json", root / "val", (64, 48), 1.25, 4)
    assert crops.images.shape == (4, 64, 48, 3)
    middle = crops.boxes[:, :2] + crops.boxes[:, 2:] / 2
    np.testing.assert_allclose(middle, [[24, 32]] * 4, atol=0.1)
    found = compare(student, shifted(student, 0.0, []), crops, False, "float32")
    assert found.pck[0] == found.pck[1]


def test_whole_images_of_a_folder(tiny_coco):
    root = tiny_coco(val=3)
    assert collect_crops(None, root / "val", (64, 48), 1.25, 2).images.shape == (2, 64, 48, 3)
    with pytest.raises(DistilPoseError, match="images=FOLDER"):
        collect_crops(root / "annotations" / "val.json", None, (64, 48), 1.25, 2)
