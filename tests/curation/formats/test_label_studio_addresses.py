"""Images that addresses of Label Studio mean."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from annotated import key_point, label_studio_file


def export(path, *addresses):
    """A task with one key point for each address."""
    return label_studio_file(path, *((address, [key_point()]) for address in addresses))


def image_folder(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((160, 240, 3), dtype=np.uint8))
    return folder


@pytest.mark.parametrize(
    ("address", "names", "image"),
    [
        ("/data/upload/1/0123abcd-My_photo_2.jpg", ["My photo (2).jpg", "My photo (3).jpg"], "My photo (2).jpg"),
        ("/data/upload/1/0123abcd-My_photo_2.jpg", ["My photo (2).jpg", "a/My_photo_2.jpg"], "a/My_photo_2.jpg"),
        ("/data/upload/1/0123abcd-x.jpg", ["x.jpg", "a/0123abcd-x.jpg"], "a/0123abcd-x.jpg"),
        ("/data/local-files/?d=a/x.jpg", ["a/x.jpg", "b/x.jpg"], "a/x.jpg"),
        ("/data/local-files/?d=photos/a/x.jpg", ["a/x.jpg", "b/x.jpg"], "a/x.jpg"),
        ("/data/local-files/?d=photos/a%20b/x.jpg", ["a b/x.jpg", "b/x.jpg"], "a b/x.jpg"),
        ("/data/local-files/?d=C:%5Cphotos%5Ca%5Cx.jpg", ["a/x.jpg", "b/x.jpg"], "a/x.jpg"),
        ("/data/local-files/?d=sp/a+b%2050%25.jpg", ["a+b 50%.jpg", "c.jpg"], "a+b 50%.jpg"),
        ("https://host/bucket/a%20b/x.jpg?x=1", ["a b/x.jpg", "b/x.jpg"], "a b/x.jpg"),
        ("s3://bucket/a b/x.jpg", ["a b/x.jpg", "b/x.jpg"], "a b/x.jpg"),
        ("s3://bucket/a/x#1.jpg", ["a/x#1.jpg", "b/x#1.jpg"], "a/x#1.jpg"),
        ("../outside/x.jpg", ["a/x.jpg"], "a/x.jpg"),
    ],
)
def test_the_image_of_an_address(converted, tmp_path, address, names, image):
    folder = image_folder(tmp_path / "set", *names)
    content, _ = converted("label-studio", export(tmp_path / "a.json", address), folder)
    assert [row["file_name"] for row in content["images"]] == [image]


@pytest.mark.parametrize(
    ("address", "names", "fact"),
    [
        ("/data/upload/1/0123abcd-My_photo_2.jpg", ["a.jpg"], "no 'My_photo_2.jpg' below --images"),
        ("/data/upload/1/0123abcd-a_1.jpg", ["a (1).jpg", "a 1.jpg"], "'a (1).jpg' or 'a 1.jpg'"),
        ("/data/upload/1/0123abcd-x.jpg", ["a/x.jpg", "b/x.jpg"], "'a/x.jpg' or 'b/x.jpg'"),
        ("http://[x/a.jpg", ["x.jpg"], "missing"),
    ],
)
def test_an_export_without_its_images_is_rejected(rejected, tmp_path, address, names, fact):
    folder = image_folder(tmp_path / "set", *names)
    rejected("label-studio", export(tmp_path / "a.json", address), folder, "1 tasks of images", fact)


def test_two_uploads_of_one_name_do_not_share_its_image(converted, tmp_path):
    folder = image_folder(tmp_path / "set", "x.jpg", "y.jpg")
    uploads = [f"/data/upload/1/{name}" for name in ("0123abcd-x.jpg", "89abcdef-x.jpg", "0123abcd-y.jpg")]
    content, report = converted("label-studio", export(tmp_path / "a.json", *uploads), folder)
    assert [row["file_name"] for row in content["images"]] == ["y.jpg"]
    assert any(line.startswith("skipped: 2 tasks of images with different names that one") for line in report)


def test_a_task_without_an_address_is_counted(converted, tmp_path):
    folder = image_folder(tmp_path / "set", "y.jpg")
    content, report = converted("label-studio", export(tmp_path / "a.json", "", "y.jpg"), folder)
    assert len(content["images"]) == 1
    assert "skipped: 1 tasks without the address of an image" in report
