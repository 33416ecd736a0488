"""Writes Matroska files of motion JPEG with any times, as screen recorders and phones do; OpenCV writes constant rates only."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2


def write_matroska(
    path: Path, images, times, duration: float | None = None, finished: bool = True, fps: float | None = None
) -> Path:
    """Write images (BGR) with their times in seconds.

    Args:
        path: .mkv
        images: frames.
        times: seconds of each.
        duration: stated in the header; None states none.
        finished: whether the segment's size is stated, which a recorder does at the end.
        fps: stated default duration of a frame, as 1 / fps.
    """
    height, width = images[0].shape[:2]
    video = _element(0xE0, _number(0xB0, width) + _number(0xBA, height))
    default = _number(0x23E383, round(1e9 / fps)) if fps else b""
    track = _number(0xD7, 1) + _number(0x73C5, 1) + _number(0x83, 1) + _element(0x86, b"V_MJPEG") + default + video
    info = _number(0x2AD7B1, 1_000_000) + _element(0x4D80, b"test") + _element(0x5741, b"test")
    if duration is not None:
        info += _element(0x4489, struct.pack(">d", 1000 * duration))
    clusters = b""
    for image, time in zip(images, times, strict=True):
        data = cv2.imencode(".jpg", image)[1].tobytes()
        clusters += _element(0x1F43B675, _number(0xE7, round(1000 * time)) + _element(0xA3, b"\x81\x00\x00\x80" + data))
    body = _element(0x1549A966, info) + _element(0x1654AE6B, _element(0xAE, track)) + clusters
    size = struct.pack(">Q", len(body) | 1 << 56) if finished else b"\x01" + b"\xff" * 7
    header = _number(0x4286, 1) + _number(0x42F7, 1) + _number(0x42F2, 4) + _number(0x42F3, 8)
    header += _element(0x4282, b"matroska") + _number(0x4287, 4) + _number(0x4285, 2)
    path.write_bytes(_element(0x1A45DFA3, header) + b"\x18\x53\x80\x67" + size + body)
    return path


def _element(number: int, content: bytes) -> bytes:
    name = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return name + struct.pack(">Q", len(content) | 1 << 56) + content


def _number(number: int, value: int) -> bytes:
    return _element(number, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
