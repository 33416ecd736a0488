"""Image files that are turned, odd, broken or huge."""

from __future__ import annotations

import struct
import zlib

import cv2
from PIL import Image

from distilpose.curation.image_files import MAX_PIXELS
from distilpose.data.images import read_image


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


def test_every_format_that_training_reads(sound):
    data = sound(images=4, persons=60)
    for number, form in enumerate(["ppm", "tga", "jp2", "avif"], start=1):
        Image.open(data.folder / f"{number}.png").convert("RGB").save(data.folder / f"{number}.{form}")
        data.images[number - 1]["file_name"] = f"{number}.{form}"
        assert read_image(data.folder / f"{number}.{form}").shape == (160, 240, 3)
    assert data.check().codes() == {"set-small"}
    (data.folder / "1.ppm").write_bytes((data.folder / "1.ppm").read_bytes()[:1000])
    findings = {one.code: one.examples for one in data.check().entries if one.code != "set-small"}
    assert findings == {"image-unreadable": ("1.ppm",)}
