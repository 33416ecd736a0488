"""Names of images that lead out of their folder, and those that do not."""

from __future__ import annotations

import os

import pytest

from distilpose.curation import image_files
from distilpose.curation.checks import images
from distilpose.curation.image_files import leads_out


def test_names_that_lead_out_are_never_opened(sound, tmp_path, monkeypatch):
    data = sound()
    secret = tmp_path / "secret.png"
    secret.write_bytes((data.folder / "1.png").read_bytes())
    (data.folder / "link.png").symlink_to(secret)
    (data.folder / "up").symlink_to(tmp_path)
    os.mkfifo(data.folder / "pipe.png")
    names = ["../../secret.png", str(secret), "link.png", "up/secret.png", "C:\\secret.png", "..\\secret.png", "a\0b"]
    data.images.extend({"id": 50 + k, "file_name": name, "width": 240, "height": 160} for k, name in enumerate(names))
    data.images.append({"id": 70, "file_name": "pipe.png", "width": 240, "height": 160})
    data.images.append({"id": 71, "file_name": "x" * 5000, "width": 240, "height": 160})

    opened = []
    real = images.read_header
    monkeypatch.setattr(images, "read_header", lambda path: opened.append(path.name) or real(path))
    result = data.check().entries
    findings = {one.code: one.count for one in result}
    assert findings["image-path-outside"] == len(names)
    assert "links" in next(one.message for one in result if one.code == "image-path-outside")
    assert findings["image-missing"] == 2
    assert sorted(opened) == [f"{number}.png" for number in range(1, 7)]


@pytest.mark.parametrize("name", ["a/b.jpg", "a..b.jpg", "...jpg", "ünï.jpg"])
def test_names_that_stay_inside(name):
    assert not leads_out(name)


def test_all_images_that_are_read_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "is_readable", lambda suffix: suffix in (".jpg", ".avif", ".heic"))
    for name in ("a/1.jpg", "2.avif", "3.heic", "._1.jpg", "4.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(image_files.image_names(tmp_path)) == ["2.avif", "3.heic", "a/1.jpg"]
