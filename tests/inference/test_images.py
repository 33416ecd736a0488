from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from distilpose.data import image_formats
from distilpose.data.coco import read_image
from distilpose.errors import DistilPoseError
from distilpose.inference.images import ImageFiles, find_images, image_ids, read_rgb


def bomb(path, width, height):
    """A PNG of a few bytes whose header has that many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("size", [(20000, 5001), (30000, 30000)])
def test_images_of_gigabytes_are_not_decoded(size, tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DistilPoseError, match=f"{size[0]} x {size[1]} pixels, more than max_pixels=100000000"):
        read_rgb(bomb(tmp_path / "big.png", *size))


def test_the_limit_may_be_above_pillows_own(tmp_path, monkeypatch):
    decoded, limit = [], Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(cv2, "imdecode", lambda *_: decoded.append(1) or np.zeros((2, 2, 3), np.uint8))
    read_rgb(bomb(tmp_path / "big.png", 30000, 30000), 900_000_000)
    assert decoded
    assert limit == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_an_option(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    assert read_rgb(tmp_path / "a.png", 600).shape == (20, 30, 3)
    with pytest.raises(DistilPoseError, match="30 x 20 pixels, more than max_pixels=599"):
        read_rgb(tmp_path / "a.png", 599)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_rotated_by_exif_as_in_training(orientation, tmp_path):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20, :30] = (250, 0, 0)
    image = Image.fromarray(picture)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = read_rgb(tmp_path / "a.jpg")
    assert (pixels[..., ::-1] == read_image(tmp_path / "a.jpg")).all()
    assert pixels.shape[:2] == ((40, 60) if orientation < 5 else (60, 40))
    corner = {1: (5, 5), 3: (-5, -5), 6: (5, -5), 8: (-5, 5)}[orientation]
    assert pixels[corner].tolist()[0] > 200


@pytest.mark.parametrize("content", [b"", b"GIF", b"\xff\xd8\xff\xe0 cut off", None])
def test_files_that_are_not_images(content, tmp_path):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(
        DistilPoseError, match=r"a\.jpg.*(cut off|empty)" if content is not None else r"a\.jpg.*No such file"
    ):
        read_rgb(tmp_path / "a.jpg")


def test_unreadable_images_of_a_folder_are_skipped(tmp_path):
    for name in ("1.png", "3.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "2.png").write_bytes(b"")
    one, two, three = ImageFiles(find_images(tmp_path)).frames(lambda path: path.name == "3.png")
    assert (one.number, two.number, three.number) == (1, 2, 3)
    assert one.image.shape == (8, 8, 3)
    assert two.image is None
    assert "2.png" in two.fault
    assert three.image is None
    assert three.fault is None


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for name in ("000000000785.jpg", "000000000007.PNG", "notes.txt", ".hidden.jpg"):
        (place / name).write_bytes(b"")
    return place


def test_images_of_a_folder_by_name(folder):
    assert [path.name for path in find_images(folder)] == ["000000000007.PNG", "000000000785.jpg"]
    assert find_images(folder / "notes.txt") == [folder / "notes.txt"]


def test_sources_without_images(tmp_path):
    with pytest.raises(DistilPoseError, match=rf"'{tmp_path}'.*\.jpg"):
        find_images(tmp_path)
    with pytest.raises(DistilPoseError, match=r"absent\.jpg' does not exist"):
        find_images(tmp_path / "absent.jpg")


def test_numbers_are_cocos_where_all_names_are(folder):
    images = find_images(folder)
    assert list(image_ids(images).values()) == [7, 785]
    assert list(image_ids([*images, folder / "me.jpg"]).values()) == [1, 2, 3]
    assert list(image_ids([folder / "7.jpg", folder / "007.jpg"]).values()) == [1, 2]


def test_sequences_are_in_the_order_of_their_numbers(tmp_path):
    names = [f"Frame_{number}.jpg" if number % 2 else f"frame_{number}.jpg" for number in range(2, 121)]
    for name in np.random.default_rng(0).permutation(names):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_images(tmp_path)] == names


def test_what_a_folder_has_beside_images_is_counted(tmp_path, caplog, monkeypatch):
    """Five photographs, of which two HEIC."""
    monkeypatch.setattr(image_formats, "register_heif", lambda: False)
    for name in ("1.jpg", "2.heic", "3.HEIC", "4.jfif", "5.JPE", "notes.txt", "README", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "raw").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["1.jpg", "4.jfif", "5.JPE"]
    for fact in (
        "2 .heic (pip install 'distilpose[heic]'",
        "1 .txt",
        "1 file without a suffix",
        "1 folder",
        "1 hidden",
    ):
        assert fact in caplog.text
    with pytest.raises(DistilPoseError, match=r"2\.heic.*distilpose\[heic\]"):
        read_rgb(tmp_path / "2.heic")
    for name in ("1.jpg", "4.jfif", "5.JPE"):
        (tmp_path / name).unlink()
    with pytest.raises(DistilPoseError, match=r"2 \.heic \(pip install"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", {}), (".JPE", {"format": "JPEG"}), (".jfif", {"format": "JPEG"}), (".png", {}), (".bmp", {}), (".dib", {}),
        (".webp", {"lossless": True}), (".tif", {"compression": "tiff_lzw"}), (".gif", {}), (".jp2", {"irreversible": False}),
        (".ppm", {}), (".tga", {}), (".avif", {"quality": 100}), (".heic", {"quality": -1}),
    ],
)  # fmt: skip
def test_formats_as_pillow_reads_them(suffix, options, tmp_path):
    if suffix == ".heic" and not image_formats.register_heif():
        pytest.skip("pillow-heif is not installed")
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20, :30], picture[20:, 30:] = (250, 0, 0), (0, 0, 200)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture).save(path, **options)
    assert find_images(tmp_path) == [path]
    pixels = read_rgb(path)
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert abs(pixels.astype(int) - expected).max() <= 6
    assert abs(pixels.astype(int) - picture)[4:16, 4:26].max() <= 12


@pytest.mark.parametrize("suffix", [".tif", ".ppm", ".tga", ".gif", ".jp2"])
def test_truncated_files_of_other_formats_are_not_half_grey(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DistilPoseError, match="cut off"):
        read_rgb(path)


def test_files_of_several_pictures_are_counted(tmp_path):
    pages = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    for name in ("a.gif", "b.tif", "c.webp"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    for name in ("d.gif", "e.tif", "f.png"):
        pages[0].save(tmp_path / name)
    source = ImageFiles(find_images(tmp_path))
    assert all(frame.fault is None for frame in source.frames())
    assert source.several == 3
