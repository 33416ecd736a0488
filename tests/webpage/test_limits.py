from __future__ import annotations

import asyncio
import io

import cv2
import numpy as np
import pytest
from pictures import png_of_header
from PIL import Image

from distilpose.inference import images
from distilpose.webpage.limits import Limits, RequestError, decode_image, limit_body, read_boxes

LIMITS = Limits()
SIZE = (90, 120)


def photo(kind, image, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def noise(height=90, width=120):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_formats(kind):
    image = noise()
    result = decode_image(photo(kind, image, **({"lossless": True} if kind == "WEBP" else {})), LIMITS)
    assert result.shape == (90, 120, 3)
    assert result.dtype == np.uint8
    if kind != "JPEG":
        assert (result == np.asarray(image)).all()


def test_an_image_is_rotated_by_its_exif_entry():
    image, exif = noise(), Image.Exif()
    exif[0x0112] = 6  # 90 degrees clockwise
    result = decode_image(photo("PNG", image, exif=exif), LIMITS)
    assert (result == np.rot90(np.asarray(image), -1)).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_other_kinds_of_pixels_become_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode_image(photo(kind, noise().convert(mode)), LIMITS).shape == (90, 120, 3)


def test_sixteen_bits_are_shown_as_in_training(tmp_path):
    image = Image.fromarray(np.arange(90 * 120, dtype=np.uint16).reshape(90, 120) * 6)
    (tmp_path / "deep.png").write_bytes(photo("PNG", image))
    result = decode_image(photo("PNG", image), LIMITS)
    assert (result == images.read_rgb(tmp_path / "deep.png")).all()
    assert (result == (np.asarray(image) >> 8)[..., None]).all()


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (png_of_header(60_000, 60_000), 413, "40 million"),
        (png_of_header(7_000, 7_000), 413, "7000 x 7000"),
        (png_of_header(40_000, 10), 413, "40000 x 10"),
        (png_of_header(200, 100), 422, "cut off or damaged"),
        (photo("JPEG", noise())[:3000], 422, "cut off or damaged"),
        (photo("GIF", noise()), 422, "JPEG, PNG or WebP"),
        (photo("TIFF", noise()), 422, "JPEG, PNG or WebP"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 422, "JPEG, PNG or WebP"),
        (b"", 422, "JPEG, PNG or WebP"),
        (b"\xff\xd8\xff", 422, "JPEG, PNG or WebP"),
    ],
    ids=["60000 x 60000", "7000 x 7000", "long", "empty png", "cut", "gif", "tiff", "svg", "nothing", "three bytes"],
)
def test_malicious_and_damaged_images(content, status, words):
    with pytest.raises(RequestError, match=words) as error:
        decode_image(content, LIMITS)
    assert error.value.status == status


def test_the_header_is_checked_before_decoding(monkeypatch):
    def unpack(*arguments):
        raise AssertionError("decoded")

    content = photo("JPEG", noise())
    monkeypatch.setattr(cv2, "imdecode", unpack)
    with pytest.raises(RequestError, match="120 x 90"):
        decode_image(content, Limits(max_pixels=120 * 90 - 1))


@pytest.mark.parametrize("text", [None, "null", "[]", ""])
def test_no_boxes(text):
    assert read_boxes(text, SIZE, LIMITS) is None


def test_boxes():
    result = read_boxes("[[1, 2, 3.5, 4], [-5, 0, 130, 90]]", SIZE, LIMITS)
    assert result.tolist() == [[1, 2, 3.5, 4], [-5, 0, 130, 90]]


@pytest.mark.parametrize(
    "text",
    [
        "{", "5", '"text"', '{"a": 1}', "[[1, 2, 3]]", "[[1, 2, NaN, 4]]", "[[1, 2, 1e400, 4]]", f"[[{10**400}, 2, 3, 4]]",
        "[[true, 1, 2, null]]", "[[1, 2, 0, 4]]", "[[1, 2, -3, 4]]", "[[120, 0, 5, 5]]", "[[-5, 0, 5, 5]]", "[" * 50_000,
        str([[0, 0, 5, 5]] * 21),
    ],
)  # fmt: skip
def test_malformed_boxes(text):
    with pytest.raises(RequestError) as error:
        read_boxes(text, SIZE, LIMITS)
    assert error.value.status == 422


@pytest.mark.parametrize(("pieces", "read"), [(6, 6), (100, 9)])
def test_a_body_is_counted_while_it_arrives(pieces, read):
    sent, kept = [], []

    async def body():
        for number in range(pieces):
            sent.append(number)
            yield bytes(2**18)

    async def run():
        async for piece in limit_body(body(), Limits(max_megabytes=1)):
            kept.append(piece)

    with pytest.raises(RequestError, match="larger than 1 MB") as error:
        asyncio.run(run())
    assert error.value.status == 413
    assert len(kept) == 4  # quarters of a megabyte
    assert len(sent) == read  # to the end, but no more than twice the limit
