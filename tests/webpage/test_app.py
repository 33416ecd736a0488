from __future__ import annotations

import asyncio
import json
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from pictures import encoded
from starlette.testclient import TestClient

from distilpose.inference import Predictor
from distilpose.models import create_model
from distilpose.skeleton import Skeleton
from distilpose.webpage.app import FOLDER, make_app
from distilpose.webpage.limits import Limits, decode_image
from distilpose.webpage.poses import Poses

HOSTILE = "<img src=x onerror=alert(1)>"


def client_of(poses, hosts=(), **limits):
    return TestClient(make_app(poses, Limits(**limits), hosts), base_url="http://localhost:7860")


def ask(client, photo=None, boxes=None, **options):
    photo = encoded() if photo is None else photo
    form = {} if boxes is None else {"boxes": json.dumps(boxes)}
    return client.post("/predict", files={"photo": ("photo.jpg", photo)}, data=form, **options)


@pytest.fixture
def client(poses):
    return client_of(poses)


@pytest.fixture
def gated():
    """A student, and an event that its forward pass waits for."""
    gate = threading.Event()
    gate.set()
    torch.manual_seed(0)
    model = create_model("student_xs")
    model.register_forward_pre_hook(lambda module, arguments: gate.wait(20) and None)
    yield Poses(Predictor(model, device="cpu"), "gated"), gate
    gate.set()


def test_the_page_and_its_files(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    names = re.findall(r'(?:src|href)="([\w.]+)"', page.text)
    scripts = [path.name for path in FOLDER.glob("*.js")]
    assert set(names) == {"page.css", "page.js"}
    for name in {*names, *scripts}:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200
        assert answer.text == (FOLDER / name).read_text()
    imported = re.findall(r'from "\./(\w+\.js)"', " ".join((FOLDER / name).read_text() for name in scripts))
    assert {*imported, "page.js"} == set(scripts)


def test_every_response_has_the_security_headers(client):
    responses = [client.get("/"), client.get("/about"), client.get("/nothing"), ask(client), ask(client, b"none")]
    responses.append(client.get("/", headers={"host": "example.com"}))
    for answer in responses:
        assert "default-src 'self'; img-src 'self' blob: data:" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_page_loads_nothing_from_elsewhere_and_inserts_no_markup():
    for path in FOLDER.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|//\w+\.\w+/|@import", text), path
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|DOMParser", text), (
                path
            )
            assert not re.search(r"<script(?! type=\"module\" src=\")|<style| style=\"| on\w+=\"", text), path


def test_about(client, networks):
    about = client.get("/about").json()
    assert [model["name"] for model in about["models"]] == ["one", "two"]
    assert about["teacher"]["model"] == "teacher_xs"
    assert about["models"][0]["joints"] == list(networks["one"].skeleton.names)
    assert about["models"][0]["sides"][:3] == ["centre", "left", "right"]
    assert about["limits"]["max_persons"] == 20


def test_a_prediction(client, poses):
    answer = ask(client, encoded("PNG"), [[10, 5, 40, 80]])
    assert answer.status_code == 200
    content = answer.json()
    assert content == json.loads(json.dumps(poses(decode_image(encoded("PNG"), Limits()), [[10, 5, 40, 80]])))
    assert len(ask(client).json()["boxes"]) == 1


@pytest.mark.parametrize(
    ("photo", "boxes", "status"),
    [
        (b"not an image", None, 422),
        (encoded()[:2000], None, 422),
        (encoded("GIF"), None, 422),
        (None, [[0, 0, 5]], 422),
        (None, [[0, 0, 5, 5]] * 21, 422),
        (encoded(size=(300, 300)), None, 413),
        (encoded("PNG", (700, 700)), None, 413),
    ],
)
def test_errors_are_one_sentence(poses, photo, boxes, status):
    answer = ask(client_of(poses, max_megabytes=1, max_pixels=80_000), photo, boxes)
    assert answer.status_code == status
    assert re.fullmatch(r"[A-Z].*\.", answer.json()["error"])
    assert "Traceback" not in answer.text


def test_malformed_forms(client):
    assert client.post("/predict", content=b"{}").status_code == 422
    assert client.post("/predict", data={"boxes": "[]"}, files={"other": b"x"}).status_code == 422
    assert client.post("/predict", files=[("photo", b"x"), ("photo", b"y")]).status_code == 422
    assert ask(client, boxes=[[0, 0, 5, 5]] * 9000).status_code == 422
    for header in ("multipart/form-data", "multipart/form-data; boundary=b"):
        answer = client.post("/predict", content=b"--b\r\nnonsense", headers={"content-type": header})
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"].startswith("The form")
    assert client.get("/predict").status_code == 405


def test_nothing_sent_is_written_to_the_disk(poses, monkeypatch):
    def roll(self):
        raise AssertionError("written to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", roll)
    photo = encoded("PNG", (1000, 1200))
    assert len(photo) > 3 * 2**20
    assert ask(client_of(poses), photo).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/app.py", "/limits.py", "/__init__.py", "/../demo.py", "/..%2fdemo.py", "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd", "/page.html/../app.py", "/page.js%00.py", "/..\\demo.py", "/file:///etc/passwd",
    ],
)  # fmt: skip
def test_no_other_file_is_reached(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200), ("127.0.0.1:7860", 200), ("[::1]:7860", 200), ("pose.lan", 200), ("LOCALHOST", 200),
        ("example.com", 400), ("localhost.example.com", 400), ("127.0.0.1.nip.io:7860", 400), ("", 400),
    ],
)  # fmt: skip
def test_host_names(poses, host, status):
    answer = client_of(poses, ["pose.lan"]).get("/about", headers={"host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403), ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://example.com"}, 403), ({"origin": "null"}, 403), ({"origin": "http://localhost.example.com"}, 403),
        ({"origin": "http://localhost:7860"}, 200), ({"origin": "https://localhost", "sec-fetch-site": "same-origin"}, 200),
    ],
)  # fmt: skip
def test_requests_of_other_pages(client, headers, status):
    assert ask(client, headers=headers).status_code == status


def test_names_of_joints_are_only_text():
    skeleton = Skeleton.from_names([HOSTILE, "left_paw", "right_paw"])
    client = client_of(Poses(Predictor(create_model("student_xs", skeleton=skeleton), device="cpu"), HOSTILE))
    about = client.get("/about")
    assert about.headers["content-type"] == "application/json"
    assert about.json()["models"][0]["joints"][0] == HOSTILE
    assert HOSTILE not in client.get("/").text
    assert ask(client).status_code == 200


@pytest.mark.slow
def test_a_prediction_that_takes_too_long_and_the_next(gated):
    poses, gate = gated
    client = client_of(poses, seconds=0.5)
    gate.clear()
    answer = ask(client)
    assert answer.status_code == 504
    assert "0.5 s" in answer.json()["error"]
    assert ask(client).status_code == 504  # the first cannot be stopped
    gate.set()
    assert ask(client).status_code == 200


async def upload(app, photo, ends):
    """Status and body of the response to an upload. If not `ends`, the upload stalls after the bytes of the image."""
    head = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\n'
    pieces, answers = [head, photo, *([b"\r\n--b--\r\n"] if ends else [])], []

    async def receive():
        if not pieces:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces) or not ends}

    async def send(message):
        answers.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "headers": headers,
        "query_string": b"",
        "scheme": "http",
    }
    await app(scope, receive, send)
    return answers[0]["status"], answers[1]["body"]


def test_an_image_that_does_not_arrive(poses):
    status, body = asyncio.run(upload(make_app(poses, Limits(seconds=0.2)), b"", ends=False))
    assert status == 408
    assert b"did not arrive" in body


@pytest.mark.slow
def test_a_full_queue(gated):
    poses, gate = gated
    app = make_app(poses, Limits(waiting=2))
    gate.clear()
    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(ask, client) for _ in range(6)]
        while sum(answer.done() for answer in answers) < 3:
            time.sleep(0.01)
        gate.set()
        responses = [answer.result() for answer in answers]
    assert sorted(answer.status_code for answer in responses) == [200] * 3 + [503] * 3
    full = next(answer for answer in responses if answer.status_code == 503)
    assert int(full.headers["retry-after"]) > 0
    assert "try again" in full.json()["error"]


def test_an_unexpected_error_shows_no_details(monkeypatch, poses):
    def fail(*arguments):
        raise KeyError("secret")

    monkeypatch.setattr(Poses, "__call__", fail)
    client = TestClient(make_app(poses, Limits()), base_url="http://localhost", raise_server_exceptions=False)
    answer = ask(client)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]
    assert client.get("/about").status_code == 200
