"""Decoding of image files that other tools wrote, compared with Pillow and numpy; sizes compared with the file's."""

from __future__ import annotations

import io
import json
import logging
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from distilpose.curation.image_files import read_header
from distilpose.data import CocoKeypoints, images
from distilpose.data.image_sizes import check_size, displayed_size, orientation_of, plain_ratio
from distilpose.data.images import decode_image, read_image
from distilpose.errors import DistilPoseError


@pytest.fixture(autouse=True)
def _depths_are_logged_again():
    images._logged.clear()


def photograph(seed=0, height=24, width=32):
    """A smooth image, so that lossy formats stay close."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image: Image.Image, form="PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def encoded(array, suffix=".png") -> bytes:
    return cv2.imencode(suffix, array)[1].tobytes()


MODES = [
    *((mode, form) for mode in ("1", "L", "P", "RGB", "RGBA") for form in ("PNG", "TIFF")),
    ("LA", "PNG"), ("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("RGB", "WEBP"), ("RGBA", "WEBP"),
    ("L", "BMP"), ("P", "BMP"), ("RGB", "BMP"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "form"), MODES)
def test_every_mode_is_read_as_by_pillow(mode, form):
    picture = Image.fromarray(photograph()).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(200)
    content = saved(picture, form, **({"lossless": True} if form == "WEBP" else {}))
    truth = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    tolerance = 4 if form == "JPEG" else 0
    assert np.abs(decode_image(content)[..., ::-1].astype(int) - truth).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_bits_in_a_16_bit_file(suffix, colours, bits, caplog):
    draw = np.random.default_rng(bits)
    values = draw.integers(0, 2**bits, (24, 32, colours), dtype=np.uint16)
    values[0, 0] = 2**bits - 1
    with caplog.at_level(logging.WARNING):
        image = decode_image(encoded(values, suffix), "scan.png")
        decode_image(encoded(values, suffix), "scan 2.png")
    truth = np.broadcast_to((values >> (bits - 8)).astype(int), (24, 32, 3))
    assert np.abs(image.astype(int) - truth).max() <= (bits == 16)  # OpenCV rounds 16 bits of a TIFF
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (bits < 16)
    assert all("scan.png" in message and f"{bits} bits in uint16" in message for message in messages)


def test_16_bits_are_read_as_before():
    values = np.random.default_rng(0).integers(0, 2**16, (24, 32, 3), dtype=np.uint16)
    for suffix in (".png", ".tiff"):
        content = encoded(values, suffix)
        old = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(decode_image(content), old)


@pytest.mark.parametrize("seed", range(5))
def test_8_bits_are_read_as_before(seed):
    for suffix in (".png", ".jpg", ".tiff", ".webp", ".bmp"):
        content = encoded(photograph(seed), suffix)
        assert np.array_equal(decode_image(content), cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))


def test_significant_bits_of_a_png():
    """A dark photograph of 12 bits, whose largest value would look like 8 bits: the file states its depth."""
    values = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint16)
    content = encoded(values)
    data = b"sBIT" + bytes([12])
    chunk = struct.pack(">I", 1) + data + struct.pack(">I", zlib.crc32(data))
    content = content[:33] + chunk + content[33:]  # after the signature and IHDR
    assert Image.open(io.BytesIO(content)).size == (32, 24)
    assert np.array_equal(decode_image(content)[..., 0], values >> 4)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_one_channel_of_32_bits(mode, caplog):
    """OpenCV reads neither as colours."""
    values = np.random.default_rng(0).integers(0, 2**12, (24, 32))
    values[0, 0] = 2**12 - 1
    content = saved(Image.fromarray(values.astype({"I": np.int32, "F": np.float32}[mode])), "TIFF")
    assert np.array_equal(decode_image(content), np.repeat((values >> 4)[..., None], 3, axis=2))
    assert "12 bits in" in caplog.text


@pytest.mark.parametrize("largest", [1, 15, 100, 255, 1000, 1023, 4095, 65535])
@pytest.mark.parametrize(("kind", "brightest"), [(b"P5", 1.0), (b"P6", 1.0), (b"P5", 0.05), (b"P6", 0.05)])
def test_the_largest_value_that_a_pgm_or_ppm_states(largest, kind, brightest):
    # a dark photograph stays dark: the header states the depth, and not the largest pixel
    share = photograph()[..., : 1 if kind == b"P5" else 3] / 255 * brightest
    values = np.round(share * largest)
    header = b"%s\n# a comment 9\n32 24\n%d\n" % (kind, largest)
    image = decode_image(header + values.astype(np.uint8 if largest < 256 else ">u2").tobytes())
    assert np.abs(image[..., ::-1] - values / largest * 255).max() <= 1


@pytest.mark.parametrize("top", [1.0, 255.0, 4095.0])
def test_real_numbers(top):
    values = np.random.default_rng(0).random((24, 32, 3)).astype(np.float32)
    values[0, 0], values[1, 1], values[2, 2] = 1, np.nan, -0.5
    image = decode_image(encoded(values * np.float32(top), ".tiff"))
    truth = np.clip(np.nan_to_num(values) * 255, 0, 255)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(float) - truth).max() <= 1.1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "MPO", "TIFF", "PNG", "WEBP", "AVIF"])
def test_exif_turns_the_image_and_its_size(tmp_path, orientation, form):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow has no AVIF")
    picture = Image.fromarray(photograph())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a"
    if form == "MPO":  # a JPEG with a further picture, as telephones write it; Pillow would write it without EXIF
        content = saved(picture, form, save_all=True, append_images=[picture])
        body = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        path.write_bytes(content[:2] + struct.pack(">HH", 0xFFE1, len(body) + 2) + body + content[2:])
    else:
        picture.save(path, form, exif=exif)
    assert Image.open(path).format == form
    image = read_image(path)
    truth = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    assert image.shape == truth.shape
    assert np.abs(image[..., ::-1] - truth).max() <= {"WEBP": 80, "JPEG": 4, "MPO": 4}.get(form, 0)
    assert displayed_size(path) == read_header(path).displayed_size == image.shape[1::-1]
    assert orientation_of(path) == orientation


@pytest.mark.parametrize(
    ("shown", "stated", "ratio"),
    [
        ((320, 240), (640, 480), "1/2"), ((213, 160), (640, 480), "1/3"), ((1280, 960), (640, 480), "2"),
        ((480, 360), (640, 480), "3/4"), ((1333, 1000), (2000, 1500), "2/3"), ((222, 167), (640, 480), "0.347"),
        ((640, 400), (640, 480), None), ((480, 640), (640, 480), None),
    ],
)  # fmt: skip
def test_plain_ratios(shown, stated, ratio):
    assert plain_ratio(shown, stated) == ratio


def test_sizes_that_agree(tmp_path):
    for shown, stated in (((640, 480), (640, 480)), ((640, 479), (640, 480)), ((640, 480), (0, 0))):
        check_size(tmp_path / "a.jpg", shown, stated, "set.json")


def change_photographs(folder, change, names=None):
    for path in sorted(folder.glob("*.jpg")):
        if names is None or path.name in names:
            change(path, Image.open(path).copy())


def persons(root, split="train"):
    return CocoKeypoints(root / "annotations" / f"{split}.json", root / split, input_size=(64, 48))


def halve(path, picture):
    picture.resize((picture.width // 2, picture.height // 2)).save(path)


def turn(path, picture):
    """A photograph whose EXIF entry turns it, as a phone writes it: the pixels are stored as the annotator saw them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (halve, r"000001\.jpg has 80 x 60 pixels, but .*train\.json states 160 x 120: it is 1/2 of the size"),
        (turn, r"000001\.jpg has 120 x 160 pixels, but .* states 160 x 120: .*ignored its EXIF orientation 6"),
        (lambda path, picture: picture.rotate(90, expand=True).save(path), "the sides are exchanged"),
        (
            lambda path, picture: picture.crop((0, 0, 160, 90)).save(path),
            "160 x 90 .* cropped",
        ),
    ],
)
def test_photographs_of_another_size_end_the_start(tiny_coco, change, facts):
    root = tiny_coco(train=3)
    change_photographs(root / "train", change)
    with pytest.raises(DistilPoseError, match=facts):
        persons(root)


def test_a_photograph_of_another_size_is_found_when_it_is_read(tiny_coco, monkeypatch):
    root = tiny_coco(train=5)
    change_photographs(root / "train", halve, ["000002.jpg"])
    monkeypatch.setattr("distilpose.data.coco._HEADERS", 1)  # of a large set, a few headers are read at the start
    data = persons(root)
    for index, number in enumerate(data.instances.image_ids.tolist()):
        if number != 2:
            assert data[index].image_id == number
        else:
            with pytest.raises(DistilPoseError, match="1/2 of the size"):
                data[index]
            with pytest.raises(DistilPoseError, match="1/2 of the size"):
                data.read_image(number)


def test_an_annotator_that_read_exif(tiny_coco):
    root = tiny_coco(train=2)
    change_photographs(root / "train", turn)
    file = root / "annotations" / "train.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["width"], image["height"] = 120, 160
    file.write_text(json.dumps(content))
    assert persons(root)[0].image.shape == (3, 64, 48)
