"""A valid data set to corrupt, and fixtures that convert files of other formats."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from distilpose.curation.checks import check_sets
from distilpose.curation.checks.findings import Findings
from distilpose.curation.conversion import convert_set
from distilpose.data import CocoKeypoints
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO

# COCO's joints of a person seen from the front, as shares of the box: the person's left is on the right of the picture
FRONT = np.array(
    [(.50, .10), (.56, .07), (.44, .07), (.62, .09), (.38, .09), (.75, .24), (.25, .24), (.85, .40), (.15, .40),
     (.88, .54), (.12, .54), (.66, .54), (.34, .54), (.66, .75), (.34, .75), (.67, .96), (.33, .96)]
)  # fmt: skip


class Sound:
    """A set without problems: `content` is the content of its file, which `write()` writes; `folder` has the images."""

    def __init__(self, root: Path, images: int, persons: int, seed: int) -> None:
        self.root, self.folder, self.file = root, root / "images", root / "set.json"
        self.folder.mkdir(parents=True)
        draw = np.random.default_rng(seed)
        rows = []
        for number in range(1, images + 1):
            coarse = draw.integers(0, 255, (8, 12, 3), dtype=np.uint8)
            picture = cv2.resize(coarse, (240, 160), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(self.folder / f"{number}.png"), picture)
            rows.append({"id": number, "file_name": f"{number}.png", "width": 240, "height": 160})
        people = []
        for number in range(1, persons + 1):
            box = np.array([draw.uniform(5, 150), draw.uniform(5, 30), draw.uniform(50, 70), draw.uniform(90, 120)])
            places = box[:2] + box[2:] * (FRONT + draw.normal(0, 0.005, FRONT.shape))
            people.append(
                {
                    "id": number,
                    "image_id": 1 + number % images,
                    "category_id": 1,
                    "bbox": box.round(2).tolist(),
                    "area": round(float(box[2] * box[3]) / 2, 2),
                    "num_keypoints": 17,
                    "keypoints": np.c_[places.round(2), np.full(17, 2)].ravel().tolist(),
                }
            )
        limbs = [[a + 1, b + 1] for a, b in COCO.limbs]
        category = {"id": 1, "name": "person", "keypoints": list(COCO.names), "skeleton": limbs}
        self.content = {"images": rows, "annotations": people, "categories": [category]}

    @property
    def images(self) -> list[dict]:
        return self.content["images"]

    @property
    def people(self) -> list[dict]:
        return self.content["annotations"]

    @property
    def category(self) -> dict:
        return self.content["categories"][0]

    def write(self) -> Path:
        self.file.write_text(json.dumps(self.content))
        return self.file

    def check(self, unlisted: bool = False) -> Findings:
        """Write it and check it; without the note on images that a test replaced by others, unless `unlisted`."""
        findings = check_sets([(self.write(), self.folder)])
        findings.entries = [one for one in findings.entries if unlisted or one.code != "image-unlisted"]
        return findings


@pytest.fixture
def sound(tmp_path) -> Callable[..., Sound]:
    """A function that creates valid sets: `sound(images=6, persons=120, seed=0)`."""

    def make(images: int = 6, persons: int = 120, seed: int = 0) -> Sound:
        return Sound(tmp_path / f"set_{seed}", images, persons, seed)

    return make


@pytest.fixture
def converted(tmp_path):
    """Converts into a new file: its content and the report."""

    def call(form, source, images, **options):
        output = new_file(tmp_path)
        report = convert_set(form, source, images, output, **options)
        return json.loads(output.read_text()), report

    return call


@pytest.fixture
def convert(converted, tmp_path):
    """Converts, checks the result as a training would and by `check`, and returns its content and the report."""

    def call(form, source, images, **options):
        content, report = converted(form, source, images, **options)
        output = max(tmp_path.glob("converted_*"), key=lambda path: path.stat().st_mtime_ns)
        findings = check_sets([(output, images)])
        assert findings.codes("error") == set(), findings.ordered()
        loaded = CocoKeypoints(output, images)
        assert len(loaded) == sum(row["num_keypoints"] > 0 for row in content["annotations"])
        assert [list(pair) for pair in loaded.skeleton.flip_pairs] == content["categories"][0]["flip_pairs"]
        assert list(loaded.skeleton.sigmas) == content["categories"][0]["OKS_sigmas"]
        return content, report

    return call


@pytest.fixture
def rejected(tmp_path):
    """Asserts that a source is rejected: the message states the facts, and no file is written."""

    def call(form, source, images, *facts, **options):
        output = new_file(tmp_path)
        with pytest.raises(DistilPoseError) as caught:
            convert_set(form, source, images, output, **options)
        assert not output.exists()
        assert [fact for fact in facts if fact not in str(caught.value)] == [], str(caught.value)
        return str(caught.value)

    return call


@pytest.fixture
def convert_corrupted(tmp_path):
    """Converts what may be invalid: an error and no file, or a file in which `check` finds nothing that stops a training.

    Returns whether there is a file.
    """

    def call(form, source, images):
        output = new_file(tmp_path)
        with contextlib.suppress(DistilPoseError):  # any other error is a failure
            convert_set(form, source, images, output)
        if not output.exists():
            return False
        assert check_sets([(output, images)]).codes("error") == set(), output.read_text()[:3000]
        return True

    return call


def new_file(folder):
    return folder / f"converted_{len(list(folder.glob('converted_*')))}.json"
