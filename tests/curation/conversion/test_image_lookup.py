"""Which image a name in the labels means, in all formats."""

from __future__ import annotations

import json
import unicodedata

import pytest

from distilpose.curation.conversion.image_lookup import ImageReference, find_images
from distilpose.curation.conversion.source import Source


@pytest.fixture
def look(tmp_path):
    """Makes empty files and looks names up below `below`: what was found, and the reasons for the others."""

    def call(files, names, below="."):
        for name in files:
            (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / name).touch()
        source = Source(tmp_path, tmp_path / "photos" / below)
        matches = find_images(source, {name: ImageReference([name], 1) for name in names}, "persons of images")
        return matches, source.reasons()

    return call


@pytest.mark.parametrize(
    ("files", "name", "below", "image"),
    [
        (["a/x.jpg", "b/x.jpg"], "a/x.jpg", ".", "a/x.jpg"),
        (["a/x.jpg", "b/x.jpg", "x.jpg"], "x.jpg", ".", "x.jpg"),
        (["a/x.jpg", "b/y.jpg"], "x.jpg", ".", "a/x.jpg"),
        (["a/x.jpg", "b/x.jpg"], "elsewhere/b/x.jpg", ".", "b/x.jpg"),
        (["train/a/x.jpg", "train/b/x.jpg"], "b/x.jpg", ".", "train/b/x.jpg"),
        (["train/a/x.jpg", "train/b/x.jpg"], "train/b/x.jpg", "train", "b/x.jpg"),
        (["x.jpg"], "another/x.jpg", ".", "x.jpg"),
        (["a/x.jpg", "b/x.jpg"], "a\\x.jpg", ".", "a/x.jpg"),
        (["a/" + unicodedata.normalize("NFD", "é.jpg")], "é.jpg", ".", "a/" + unicodedata.normalize("NFD", "é.jpg")),
    ],
)
def test_a_name_that_means_one_image(look, files, name, below, image):
    assert look(files, [name], below) == ({name: image}, [])


def test_missing_and_ambiguous_names_have_reasons_with_an_example(look):
    matches, reasons = look(["a/x.jpg", "b/x.jpg", "y.jpg"], ["x.jpg", "c/x.jpg", "z.jpg", "y.jpg"])
    assert matches == {"y.jpg": "y.jpg"}
    assert reasons == [
        "2 persons of images whose name several images have (first: 'x.jpg' is 'a/x.jpg' or 'b/x.jpg')",
        "1 persons of images that are missing (first: no 'z.jpg' below --images)",
    ]


def test_two_names_never_share_the_image_of_one(look):
    matches, reasons = look(["val/x.jpg"], ["train/x.jpg", "val/x.jpg"], "val")
    assert matches == {"val/x.jpg": "x.jpg"}
    assert reasons == [
        "1 persons of images that are missing (first: no 'train/x.jpg' below --images but that of another name)"
    ]
    matches, reasons = look(["val/x.jpg"], ["a/x.jpg", "b/x.jpg"], "val")
    assert matches == {}
    assert reasons == [
        "2 persons of images with different names that one image fits (first: 'x.jpg' fits 'a/x.jpg')",
    ]


@pytest.mark.parametrize(
    ("file", "names", "below", "meant"),
    [
        ("b/x.jpg", ["b/x.jpg", "x.jpg"], ".", "b/x.jpg"),
        ("p/a/x.jpg", ["x.jpg", "a/x.jpg"], ".", "a/x.jpg"),
        ("im/x.jpg", ["im/x.jpg", "other/x.jpg", "x.jpg"], "im", "x.jpg"),
        ("im/a/x.jpg", ["im/a/x.jpg", "x.jpg", "q/a/x.jpg"], "im", "im/a/x.jpg"),
    ],
)
def test_the_name_that_shares_most_of_the_path_gets_the_image(look, file, names, below, meant):
    matches, reasons = look([file], names, below)
    assert matches == {meant: file.removeprefix(f"{below}/")}
    first = next(name for name in names if name != meant)
    assert reasons == [
        f"{len(names) - 1} persons of images that are missing "
        f"(first: no {first!r} below --images but that of another name)"
    ]


def test_names_that_share_as_much_of_the_path_are_skipped(look):
    matches, reasons = look(["p/a/x.jpg"], ["q/a/x.jpg", "a/x.jpg", "x.jpg"])
    assert matches == {}
    assert reasons[0].startswith("2 persons of images with different names that one image fits")


def test_a_second_image_that_fits_makes_a_name_ambiguous(look):
    matches, reasons = look(["train/x.jpg", "train/a/train/x.jpg"], ["train/x.jpg"], "train")
    assert matches == {}
    assert "several images" in reasons[0]


def test_spellings_of_one_path_share_the_image(look):
    matches, reasons = look(["a/x.jpg"], ["a/x.jpg", "./a/x.jpg", "a\\x.jpg"])
    assert (set(matches.values()), len(matches), reasons) == ({"a/x.jpg"}, 3, [])


@pytest.mark.parametrize(
    "name", ["/data/a/x.jpg", "C:\\d\\a\\x.jpg", "D:/a/x.jpg", "\\\\host\\a\\x.jpg", "/a//x.jpg", "C:a/x.jpg"]
)
def test_absolute_names_are_found_by_their_ends(look, name):
    assert look(["a/x.jpg", "b/x.jpg"], [name]) == ({name: "a/x.jpg"}, [])


def test_an_absolute_name_is_no_path_in_the_folder(look):
    matches, reasons = look(["x.jpg"], ["/x.jpg", "x.jpg"])
    assert matches == {"x.jpg": "x.jpg"}
    assert reasons == [
        "1 persons of images that are missing (first: no '/x.jpg' below --images but that of another name)"
    ]


@pytest.mark.parametrize("name", ["/data/../x.jpg", "C:\\..\\x.jpg", "../x.jpg", "/", "C:", "/C:/x.jpg", "/x.jpg\0"])
def test_names_that_lead_out_are_skipped(look, name):
    assert look(["x.jpg"], [name]) == ({}, ["1 persons of images whose names lead out of the image folder"])


def test_an_absolute_name_opens_nothing_outside_of_the_folder(look, tmp_path):
    (tmp_path / "secret.jpg").touch()
    assert look(["x.jpg"], [str(tmp_path / "secret.jpg")])[0] == {}


def test_links_that_lead_out_are_skipped(look, tmp_path):
    (tmp_path / "secret.jpg").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/x.jpg").symlink_to(tmp_path / "secret.jpg")
    assert look([], ["x.jpg"]) == ({}, ["1 persons of images whose names lead out of the image folder"])


def in_folder(data, folder):
    """The images of a set, a folder deeper."""
    (data.folder / folder).mkdir()
    for row in data.images:
        (data.folder / row["file_name"]).rename(data.folder / folder / row["file_name"])


def test_crowdpose_with_images_in_a_folder(convert, sound):
    data = sound(images=4, persons=40)
    in_folder(data, "shoot 1")
    content, _ = convert("crowdpose", data.write(), data.folder)
    assert [row["file_name"] for row in content["images"]] == [f"shoot 1/{number}.png" for number in range(1, 5)]
    assert len(content["annotations"]) == 40


def test_mpii_with_images_in_a_folder(converted, sound, tmp_path):
    data = sound(images=1)
    in_folder(data, "a")
    person = {"image": "1.png", "joints": [[9.0 * k, 9.0 * k] for k in range(16)], "joints_vis": [1] * 16}
    (tmp_path / "a.json").write_text(json.dumps([person]))
    content, _ = converted("mpii", tmp_path / "a.json", data.folder)
    assert [row["file_name"] for row in content["images"]] == ["a/1.png"]
    assert len(content["annotations"]) == 1
