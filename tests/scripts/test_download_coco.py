"""The download script against an HTTP server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "download_coco.py"
VAL = "annotations/person_keypoints_val2017.json"


@pytest.fixture
def script(load_script, monkeypatch):
    """The script as a module, with short delays."""
    module = load_script("download_coco")
    monkeypatch.setattr(module, "DELAY", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", 5.0)
    return module


class Site:
    """A server, its files, and the ranges of its requests."""

    def __init__(self, files: dict[str, bytes]):
        self.files, self.asked = files, []
        self.ranges = True
        self.cuts: list[int] = []  # bytes after which the next responses break off
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                site.asked.append(wanted)
                body = site.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                end = start + site.cuts.pop(0) if site.cuts else None
                self.wfile.write(body[start:end])

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def pack(members: dict[str, bytes]) -> bytes:
    """A zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


MEMBERS = {
    VAL: json.dumps({"images": [], "padding": "x" * 5000}).encode(),
    "annotations/captions_val2017.json": b"not wanted",
    "val2017/000000000139.jpg": b"\xff\xd8" + b"one" * 900 + b"\xff\xd9",
    "val2017/000000000285.jpg": b"\xff\xd8" + b"two" * 900 + b"\xff\xd9",
}
BODY = pack(MEMBERS)


@pytest.fixture
def site():
    place = Site({"/zips/small.zip": BODY})
    yield place
    place.close()


@pytest.fixture
def archive(script):
    return script.Archive("zips/small.zip", len(BODY), hashlib.sha256(BODY).hexdigest(), (VAL, "val2017"))


def assert_complete(root: Path) -> None:
    """Exactly the expected files exist, with their content."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert files == {name: content for name, content in MEMBERS.items() if "captions" not in name}
    assert sorted(path.name for path in root.iterdir()) == ["annotations", "val2017"]


def test_fetches_and_unpacks_and_then_skips(script, site, archive, tmp_path):
    root = tmp_path / "deep" / "coco"
    assert script.fetch(archive, root, site.url) is True
    assert_complete(root)
    assert script.fetch(archive, root, site.url) is False
    assert site.asked == [None]


def test_resumes_an_earlier_run(script, site, archive, tmp_path):
    (tmp_path / "small.zip.part").write_bytes(BODY[:1000])
    script.fetch(archive, tmp_path, site.url)
    assert site.asked == ["bytes=1000-"]
    assert_complete(tmp_path)


def test_resumes_after_broken_connections(script, site, archive, tmp_path):
    site.cuts = [700, 500, 0, 0]
    script.fetch(archive, tmp_path, site.url)
    assert site.asked == [None, "bytes=700-", "bytes=1200-", "bytes=1200-", "bytes=1200-"]
    assert_complete(tmp_path)


def test_a_server_without_ranges(script, site, archive, tmp_path):
    site.ranges = False
    (tmp_path / "small.zip.part").write_bytes(b"?" * 1000)
    script.fetch(archive, tmp_path, site.url)
    assert site.asked == ["bytes=1000-"]
    assert_complete(tmp_path)


def test_a_partial_file_that_is_too_long_is_downloaded_again(script, site, archive, tmp_path):
    (tmp_path / "small.zip.part").write_bytes(BODY + b"?")
    script.fetch(archive, tmp_path, site.url)
    assert_complete(tmp_path)


def test_a_complete_part_needs_no_server(script, archive, tmp_path):
    (tmp_path / "small.zip.part").write_bytes(BODY)
    script.fetch(archive, tmp_path, "http://127.0.0.1:9")
    assert_complete(tmp_path)


def test_an_archive_in_the_folder_is_used_and_kept(script, archive, tmp_path):
    (tmp_path / "small.zip").write_bytes(BODY)
    script.fetch(archive, tmp_path, "http://127.0.0.1:9")
    assert (tmp_path / "small.zip").read_bytes() == BODY
    (tmp_path / "small.zip").unlink()
    assert_complete(tmp_path)


def test_existing_files_are_kept(script, site, archive, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / VAL).write_text("mine")
    script.fetch(archive, tmp_path, site.url)
    assert (tmp_path / VAL).read_text() == "mine"
    assert len(list((tmp_path / "val2017").iterdir())) == 2


def test_a_wrong_digest(script, site, archive, tmp_path):
    site.files["/zips/small.zip"] = BODY[:-1] + b"?"
    with pytest.raises(script.FetchError, match="SHA-256"):
        script.fetch(archive, tmp_path, site.url)
    assert not list(tmp_path.iterdir())


def test_a_wrong_size_is_found_before_the_download(script, site, archive, tmp_path):
    site.files["/zips/small.zip"] = b"<html>please log in</html>"
    with pytest.raises(script.FetchError, match="has 26 bytes"):
        script.fetch(archive, tmp_path, site.url)
    assert not list(tmp_path.iterdir())


def test_an_archive_of_other_content(script, site, archive, tmp_path):
    lacking = archive._replace(holds=("val2017", "test2017"))
    with pytest.raises(script.FetchError, match="does not contain test2017"):
        script.fetch(lacking, tmp_path, site.url)
    assert not list(tmp_path.glob(".unpacking*"))


def test_giving_up_keeps_the_partial_file(script, site, archive, tmp_path):
    site.cuts = [700, *[0] * 9]
    with pytest.raises(script.FetchError, match=r"cannot be downloaded .* the 700 of"):
        script.fetch(archive, tmp_path, site.url)
    assert (tmp_path / "small.zip.part").read_bytes() == BODY[:700]
    assert len(site.asked) == 1 + script.ATTEMPTS


def test_too_little_space(script, site, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(script.shutil, "disk_usage", lambda _: script.shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(script.FetchError, match="--root"):
        script.fetch(archive, tmp_path, site.url)
    assert site.asked == []


@pytest.mark.parametrize("arguments", [["--parts", "val"], ["--parts", "annotations", "val"], []])
def test_without_a_network(script, tmp_path, arguments, monkeypatch):
    monkeypatch.setattr(script.shutil, "disk_usage", lambda _: script.shutil._ntuple_diskusage(1e12, 0, 1e12))
    with pytest.raises(SystemExit) as stop:
        script.main(["--root", str(tmp_path / "coco"), "--site", "http://127.0.0.1:9/", *arguments])
    assert stop.value.code.startswith("error: http://127.0.0.1:9/")
    assert "network" in stop.value.code


def test_the_detector_boxes_are_named(script, site, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "PARTS", {"small": archive})
    script.main(["--root", str(tmp_path), "--site", site.url])
    out = capsys.readouterr().out
    assert "small: done" in out
    assert str(tmp_path / "person_detection_results" / "COCO_val2017_detections_AP_H_56_person.json") in out


def test_an_absent_file_and_an_unwritable_root(script, site, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PARTS", {"small": archive})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match=r"error: .*file.*--root"):
        script.main(["--root", str(tmp_path / "file" / "coco"), "--site", site.url])
    site.files.clear()
    with pytest.raises(SystemExit, match="404"):
        script.main(["--root", str(tmp_path / "coco"), "--site", site.url])


def test_the_layout_is_the_one_training_expects(script):
    import yaml

    config = yaml.safe_load((SCRIPT.parents[1] / "conf" / "data" / "coco.yaml").read_text())
    fetched = {name for archive in script.PARTS.values() for name in archive.holds}
    assert fetched == {config[f"{split}_{kind}"] for split in ("train", "val") for kind in ("annotations", "images")}
    assert config["boxes"] == script.DETECTIONS
