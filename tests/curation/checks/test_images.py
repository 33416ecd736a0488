"""Image files that are turned, odd, broken or huge."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import pytest
from PIL import Image, ImageOps, features

from distilpose.curation.image_files import MAX_PIXELS, read_header
from distilpose.data.image_sizes import check_size
from distilpose.data.images import read_image
from distilpose.errors import DistilPoseError


def test_images_turned_by_exif(sound):
    data = sound(images=3, persons=30)
    for number, (stated, orientation) in enumerate([((240, 160), 6), ((160, 240), 6), ((240, 160), 3)], start=1):
        picture = Image.open(data.folder / f"{number}.png").convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(data.folder / f"{number}.jpg", exif=exif)
        data.images[number - 1].update(file_name=f"{number}.jpg", width=stated[0], height=stated[1])
        assert (cv2.imread(str(data.folder / f"{number}.jpg")).shape[:2] == (240, 160)) == (orientation == 6)
    findings = {one.code: one.examples for one in data.check().entries if one.code.startswith("image")}
    assert findings == {"image-rotated": ("1.jpg",), "image-exif": ("2.jpg",), "image-exif-unclear": ("3.jpg",)}


def test_unusual_modes_and_cut_off_files(sound):
    data = sound(images=4, persons=60)
    Image.open(data.folder / "1.png").convert("RGB").convert("CMYK").save(data.folder / "1.jpg")
    data.images[0]["file_name"] = "1.jpg"
    Image.open(data.folder / "2.png").convert("RGBA").save(data.folder / "2.png")
    content = cv2.imencode(".jpg", cv2.imread(str(data.folder / "3.png")))[1].tobytes()
    (data.folder / "3.jpg").write_bytes(content[: len(content) // 2])
    data.images[2]["file_name"] = "3.jpg"
    findings = {one.code: one.examples for one in data.check().entries if one.code != "set-small"}
    assert findings == {"image-deep": ("1.jpg",), "image-mode": ("2.png",), "image-unreadable": ("3.jpg",)}


def test_an_image_that_unpacks_to_gigabytes_is_not_unpacked(sound):
    data = sound()
    width = height = 40_000
    assert width * height > MAX_PIXELS

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(3_000_000))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    (data.folder / "1.png").write_bytes(bomb)
    assert {(one.code, one.examples) for one in data.check().entries} == {("image-huge", ("1.png",))}


def test_a_broken_image_is_unreadable_and_not_huge(sound):
    data = sound()
    (data.folder / "smaller.png").write_bytes(b"no picture")
    data.images[0]["file_name"] = "smaller.png"
    assert {one.code: one.examples for one in data.check().entries} == {"image-unreadable": ("smaller.png",)}


@pytest.mark.parametrize("suffix", [".gif", ".jp2", ".ppm", ".tga", ".bmp", ".avif"])
def test_formats_that_training_reads_are_readable(sound, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("Pillow has no AVIF")
    data = sound(images=2, persons=30)
    Image.open(data.folder / "1.png").convert("RGB").save(data.folder / f"1{suffix}")
    data.images[0]["file_name"] = f"1{suffix}"
    assert read_image(data.folder / f"1{suffix}").shape == (160, 240, 3)
    assert "image-unreadable" not in data.check().codes()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_with_a_second_picture_is_turned_by_exif(tmp_path, orientation):
    """Phones write them, as for portraits and brightness maps; Pillow calls their format MPO."""
    stream, picture = io.BytesIO(), Image.new("RGB", (60, 40), "red")
    picture.save(stream, format="MPO", save_all=True, append_images=[picture])
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = exif.tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    path = tmp_path / "phone.jpg"
    path.write_bytes(stream.getvalue()[:2] + segment + stream.getvalue()[2:])
    with Image.open(path) as file:
        assert file.format == "MPO"
        assert read_header(path).displayed_size == ImageOps.exif_transpose(file).size
    assert read_header(path).displayed_size == read_image(path).shape[1::-1]


def test_images_that_the_file_does_not_list_are_counted(sound):
    data = sound(images=3, persons=60)
    for name in ("extra_2.png", "extra_10.JPE", "more/far.webp", ".hidden.png"):
        (data.folder / name).parent.mkdir(exist_ok=True)
        picture = Image.open(data.folder / "1.png").convert("RGB")
        picture.save(data.folder / name, format={"JPE": "JPEG"}.get(name.rpartition(".")[2], name.rpartition(".")[2]))
    (data.folder / "notes.txt").write_text("text")
    found = {one.code: one for one in data.check(unlisted=True).entries}["image-unlisted"]
    assert (found.count, found.examples) == (3, ("extra_2.png", "extra_10.JPE", "more/far.webp"))
    assert found.severity == "note"


@pytest.mark.parametrize(("width", "code"), [(240, None), (241, "image-rounded"), (242, "image-scaled")])
def test_a_pixel_of_rounding_is_no_other_size(sound, width, code):
    """As training, which reads both of the first."""
    data = sound(images=4, persons=60)
    data.images[0]["width"] = width
    assert {code for code in data.check().codes() if code.startswith("image")} == ({code} if code else set())
    if code == "image-scaled":
        with pytest.raises(DistilPoseError, match="242 x 160"):
            check_size(data.folder / "1.png", (240, 160), (width, 160), "labels.json")
    else:
        check_size(data.folder / "1.png", (240, 160), (width, 160), "labels.json")
