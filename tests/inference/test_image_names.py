"""Which image a name in a file of boxes means."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilpose.inference.image_names import match_names

PART = st.sampled_from(["a", "b", "cam1", "cam2", "1.jpg", "2.jpg"])
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)


@pytest.mark.parametrize(
    ("images", "names", "expected"),
    [
        # the folder that the file names decides between equal base names
        (["/d/cam1/1.jpg"], ["cam1/1.jpg", "cam2/1.jpg"], {"cam1/1.jpg": 0}),
        (["/d/cam2/1.jpg"], ["cam1/1.jpg", "cam2/1.jpg"], {"cam2/1.jpg": 0}),
        (["/d/cam1/1.jpg", "/d/cam2/1.jpg"], ["cam1/1.jpg", "cam2/1.jpg"], {"cam1/1.jpg": 0, "cam2/1.jpg": 1}),
        (["/d/cam1/1.jpg", "/d/cam2/1.jpg"], ["1.jpg"], {}),
        # the folders of this image are known, and another's image of that name is not it
        (["/d/cam1/1.jpg", "/d/cam1/2.jpg"], ["x/cam1/1.jpg", "x/cam2/2.jpg"], {"x/cam1/1.jpg": 0}),
        # only the end fits, and no other name fits better
        (
            ["/d/photos/1.jpg", "/d/photos/2.jpg"],
            ["train2017/1.jpg", "val/2.jpg"],
            {"train2017/1.jpg": 0, "val/2.jpg": 1},
        ),
        (["/d/photos/1.jpg"], ["cam1/1.jpg", "cam2/1.jpg"], {}),
        (["/d/photos/1.jpg"], ["1.jpg", "cam2/1.jpg"], {"1.jpg": 0}),
        (["/d/photos/1.jpg"], ["1.jpg", "photos/1.jpg"], {}),
        # paths of another system, and of macOS
        (["/d/cam1/1.jpg"], ["C:\\data\\cam1\\1.jpg", "C:\\data\\cam2\\1.jpg"], {"C:\\data\\cam1\\1.jpg": 0}),
        (["/d/Jos\u00e9.jpg"], ["Jose\u0301.jpg"], {"Jose\u0301.jpg": 0}),
        (["/d/1.jpg"], ["./1.jpg", "2.jpg"], {"./1.jpg": 0}),
    ],
)
def test_names(images, names, expected):
    matches = match_names(names, [Path(image) for image in images])
    assert matches.images == {name: Path(images[index]) for name, index in expected.items()}


@given(st.sets(NAME, min_size=1), st.lists(NAME, min_size=1, unique=True))
def test_no_image_has_two_names_and_whole_paths_are_found(images, names):
    """A name that is the path of an image, of which no other image or name shares the base name, is always found."""
    paths = {Path("/data", image) for image in images}
    matches = match_names(names, paths)
    assert len(set(matches.images.values())) == len(matches.images)
    assert not matches.ambiguous & matches.images.keys()
    for name, image in matches.images.items():
        assert image.name == name.rpartition("/")[2]
    for name in names:
        others = [
            other
            for other in [*images, *names]
            if other != name and other.rpartition("/")[2] == name.rpartition("/")[2]
        ]
        if name in images and not others:
            assert matches.images[name] == Path("/data", name)
