"""Fixtures that convert a file of another format."""

from __future__ import annotations

import contextlib
import json

import pytest

from distilpose.curation.checking import check_sets
from distilpose.curation.formats import convert_set
from distilpose.data import CocoKeypoints
from distilpose.errors import DistilPoseError


def new_file(folder):
    return folder / f"converted_{len(list(folder.glob('converted_*')))}.json"


@pytest.fixture
def converted(tmp_path):
    """Converts into a new file: its content and what was told."""

    def call(form, source, images, **options):
        output = new_file(tmp_path)
        told = convert_set(form, source, images, output, **options)
        return json.loads(output.read_text()), told

    return call


@pytest.fixture
def convert(tmp_path):
    """Converts, checks the result as a training would and by `check`, and returns the content and what was told."""

    def call(form, source, images, **options):
        output = new_file(tmp_path)
        told = convert_set(form, source, images, output, **options)
        findings = check_sets([(output, images)])
        assert findings.codes("error") == set(), findings.ordered()
        content = json.loads(output.read_text())
        loaded = CocoKeypoints(output, images)
        assert len(loaded) == sum(row["num_keypoints"] > 0 for row in content["annotations"])
        assert [list(pair) for pair in loaded.skeleton.flip_pairs] == content["categories"][0]["flip_pairs"]
        assert list(loaded.skeleton.sigmas) == content["categories"][0]["OKS_sigmas"]
        return content, told

    return call


@pytest.fixture
def convert_rubbish(tmp_path):
    """Converts what may be rubbish: a sentence and no file, or a file in which `check` finds nothing that stops a training.

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
