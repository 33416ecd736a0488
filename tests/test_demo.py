"""The demo command: the served page, and errors."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from hydra import compose, initialize_config_dir
from pictures import encoded

from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.validate_settings import validate
from distilpose.demo import DemoSettings, is_loopback, main, page_name
from distilpose.errors import DistilPoseError
from distilpose.models import create_model, save_model
from distilpose.webpage.poses import Poses


def demo(*overrides):
    return main.__wrapped__(configured(*overrides))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(create_model("student_xs"), tmp_path_factory.mktemp("model") / "student.safetensors")


@pytest.fixture(scope="module")
def place(checkpoint, tmp_path_factory):
    """Host and port of a running page; at the end it is interrupted, and must leave no file behind."""
    folder = tmp_path_factory.mktemp("cwd")
    server = subprocess.Popen(
        [sys.executable, "-m", "distilpose.demo", f"checkpoint={checkpoint}", "port=0", "device=cpu", "limits.max_megabytes=1",
         "padding=1.25"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = server.stdout.readline()
    address = re.match(r"(http://127\.0\.0\.1:\d+)/", line)
    assert address, line + server.communicate(timeout=400)[1]
    yield urlsplit(address[1]).hostname, urlsplit(address[1]).port
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=400)
    assert server.returncode == 0, errors
    assert errors == ""
    assert list(folder.iterdir()) == []


def form(photo: bytes, boxes: list) -> tuple[bytes, dict[str, str]]:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\n' + photo,
        b'\r\n--b\r\nContent-Disposition: form-data; name="boxes"\r\n\r\n'
        + json.dumps(boxes).encode()
        + b"\r\n--b--\r\n",
    ]
    return b"".join(parts), {"Content-Type": "multipart/form-data; boundary=b"}


def ask(place, photo, boxes):
    connection = http.client.HTTPConnection(*place, timeout=120)
    connection.request("POST", "/predict", *form(photo, boxes))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.slow
def test_twenty_at_once_are_all_answered(place):
    photos = [encoded(seed=seed) for seed in range(4)]
    expected = [ask(place, photo, [[5, 5, 60, 80]])[1] for photo in photos]
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda n: ask(place, photos[n % 4], [[5, 5, 60, 80]]), range(20)))
    assert [status for status, _ in answers] == [200] * 20
    assert [content for _, content in answers] == [expected[n % 4] for n in range(20)]  # each has its own


def send_chunks(line, pieces):
    line.sendall(
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    start = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\n'
    for piece in [start, *pieces]:
        line.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")


@pytest.mark.slow
def test_a_large_body_without_a_length(place):
    with socket.create_connection(place, timeout=60) as line:
        send_chunks(line, [bytes(2**17)] * 9)
        line.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 413")
    assert "larger than 1 MB" in answer


@pytest.mark.slow
def test_an_endless_body(place):
    with socket.create_connection(place, timeout=60) as line, pytest.raises(ConnectionError):
        send_chunks(line, (bytes(2**17) for _ in range(10_000)))
    assert ask(place, encoded(), [])[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/../../../../etc/passwd", "/..%2f..%2fetc/passwd", "/page.js/../app.py"])
def test_no_other_file_is_reached(place, path):
    with socket.create_connection(place, timeout=60) as line:  # clients would normalise the path
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 404")
    assert "root:" not in answer


def configured(*overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("demo", ["device=cpu", *map(str, overrides)])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("port=70000", "65535"),
        ("padding=0", "0"),
        ("names=gpu1.lab", "list"),
        ("teacher.checkpoint=1", "path"),
        ("limits.seconds=0", " s"),
        ("limits.max_megabytes=0", "MB"),
        ("limits.max_pixels=1.5", "whole"),
        ("limits.max_pixels=1000000000", "178956970"),
        ("limits.max_persons=0", "1"),
        ("limits.waiting=-1", "0"),
    ],
)
def test_settings_that_are_not_as_declared(override, expected):
    validate(configured("checkpoint=a.ckpt"), DemoSettings)
    with pytest.raises(DistilPoseError) as error:
        validate(configured("checkpoint=a.ckpt", override), DemoSettings)
    assert override in str(error.value)
    assert expected in str(error.value)


def test_a_port_that_is_in_use(checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DistilPoseError, match=f"port={port} .*in use.*port=0"):
            demo(f"checkpoint={checkpoint}", f"port={port}")


@pytest.mark.parametrize(("setting", "expected"), [("null", [1.5, 1.25]), ("2", [2, 2])])
def test_boxes_are_padded_as_each_run_was_trained(checkpoint, tmp_path, monkeypatch, setting, expected):
    (tmp_path / "config.yaml").write_text("data: {padding: 1.5}\n")
    shutil.copy(checkpoint, tmp_path / "student.safetensors")
    paddings = []

    def record(poses, image, boxes):
        paddings.extend(predictor.padding for predictor in poses.models.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(Poses, "__call__", record)
    with pytest.raises(KeyboardInterrupt):
        demo(f"checkpoint={tmp_path / 'student.safetensors'}", f"compare={checkpoint}", f"padding={setting}")
    assert paddings == expected


def test_names_of_checkpoints_on_the_page():
    assert page_name("/home/me/runs/best_run/checkpoints/last.ckpt") == "best_run"
    assert page_name("/home/me/student.safetensors") == "student"


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_which_addresses_are_local(host, local):
    assert is_loopback(host) is local
