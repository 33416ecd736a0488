"""What a training would silently suffer from in files that other tools wrote: one finding each, with its number."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from distilpose.skeleton import COCO


def findings_of(data):
    return {one.code: one for one in data.check().entries}


def test_images_resized_after_labelling(sound):
    data = sound()
    for name, size in (("1.png", (120, 80)), ("2.png", (80, 53)), ("3.png", (480, 320))):
        Image.open(data.folder / name).resize(size, Image.Resampling.NEAREST).save(data.folder / name)
    found = findings_of(data)
    assert found.keys() == {"image-scaled"}
    assert found["image-scaled"].examples == ("1.png (1/2)", "2.png (1/3)", "3.png (2)")
    assert found["image-scaled"].severity == "error"
    assert found["image-scaled"].count == 3


@pytest.mark.parametrize("colours", [1, 3])
def test_12_bits_in_a_16_bit_png(sound, colours):
    data = sound()
    for number in (1, 2):
        image = cv2.imread(str(data.folder / f"{number}.png")).astype(np.uint16) << 4
        cv2.imwrite(str(data.folder / f"{number}.png"), image if colours == 3 else image[..., 0])
    found = findings_of(data)
    assert found.keys() == {"image-depth"}
    assert found["image-depth"].count == 2


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_images_are_read_as_in_training(sound, mode):
    """A TIFF of 12 bits is readable, and looks like its 8-bit copy: split of a scene, seen by neither before."""
    data = sound()
    grey = np.asarray(Image.open(data.folder / "1.png").convert("L"))
    kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
    Image.fromarray((grey.astype(kind) * 16).astype(kind)).save(data.folder / "2.tif")
    data.images[1]["file_name"] = "2.tif"
    found = findings_of(data)
    assert found.keys() == {"image-depth", "image-alike"}
    assert found["image-alike"].examples == ("1.png ~ 2.tif",)


@pytest.mark.parametrize(("pairs", "given"), [([], 0), ([[k, k] for k in range(17)], 0), ([[1, 2], [6, 5]], 2)])
def test_pairs_that_a_tool_did_not_know(sound, pairs, given):
    data = sound()
    data.category["flip_pairs"] = pairs
    found = findings_of(data)
    assert found.keys() == {"flip-pairs-placeholder"}
    assert found["flip-pairs-placeholder"].count == 8 - given
    assert f"lists {given} pairs and the joints' names state 8" in found["flip-pairs-placeholder"].message


def test_all_pairs_are_no_finding(sound):
    data = sound()
    data.category["flip_pairs"] = [[b, a] for a, b in COCO.flip_pairs]
    assert findings_of(data) == {}


def test_pairs_against_the_names(sound):
    data = sound()
    data.category["flip_pairs"] = [[1, 4]]
    found = findings_of(data)
    assert found.keys() == {"skeleton"}
    assert "flip_pairs pairs left_eye with right_ear" in found["skeleton"].message


def test_names_of_another_tool_have_sides(sound):
    data = sound()
    data.category["keypoints"] = [
        "".join(part[:1].upper() + (part[1:] if part not in ("left", "right") else "") for part in name.split("_"))
        for name in COCO.names
    ]
    assert data.category["keypoints"][5] == "LShoulder"
    assert findings_of(data) == {}  # pairs and sigmas are found
    data.category["keypoints"][5] = "LSchulter"
    assert findings_of(data)["joint-unpaired"].examples == ("RShoulder",)


def test_images_of_one_base_name(sound):
    data = sound()
    for number, folder in ((1, "cam1"), (2, "cam2")):
        (data.folder / folder).mkdir()
        (data.folder / f"{number}.png").rename(data.folder / folder / "a.png")
        data.images[number - 1]["file_name"] = f"{folder}/a.png"
    found = findings_of(data)
    assert found.keys() == {"base-names-shared"}
    assert found["base-names-shared"].examples == ("a.png",)
