from __future__ import annotations

import hashlib
import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from distilpose import create_model, load_model
from distilpose.errors import DistilPoseError
from distilpose.models import remote, save_model


@pytest.fixture
def file(tmp_path):
    return save_model(create_model("student_xs", depth=1, width=32, heads=2), tmp_path / "model.safetensors")


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A file server: its address, and its contents by name, each with the length that its header states."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    contents = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            content, length = contents.get(self.path.lstrip("/"), (None, 0))
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content or b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", contents
    server.shutdown()
    server.server_close()


def digest(content):
    return hashlib.sha256(content).hexdigest()


def cached_files(tmp_path):
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_file_with_its_digest_is_downloaded_once(served, file, tmp_path):
    address, contents = served
    content = file.read_bytes()
    contents["m.safetensors"] = content, len(content)
    source = f"{address}/m.safetensors#sha256={digest(content)}"
    assert load_model(source).name == "student_xs"
    assert cached_files(tmp_path) == [f"{digest(content)}.safetensors"]
    contents.clear()
    assert load_model(source).name == "student_xs"


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_downloaded_again(served, file, tmp_path):
    address, contents = served
    content = file.read_bytes()
    contents["m.safetensors"] = content, len(content)
    source = f"{address}/m.safetensors#sha256={digest(content)}"
    cached = remote.local_file(source)
    cached.write_bytes(content[:-1] + b"x")
    assert remote.local_file(source).read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "wanted", "cut", "facts"),
    [
        ("m.safetensors", "0" * 64, 0, "0{64}"),
        ("m.safetensors", "", 0, "sha256=DIGEST"),
        ("m.safetensors", None, 7, "cannot be downloaded"),
        ("m.ckpt", None, 0, "sha256=DIGEST"),
        ("other.safetensors", None, 0, "404"),
    ],
)
def test_other_files_raise_and_are_not_kept(served, file, tmp_path, name, wanted, cut, facts):
    address, contents = served
    content = file.read_bytes()
    contents["m.safetensors"] = contents["m.ckpt"] = content[: len(content) - cut], len(content)
    with pytest.raises(DistilPoseError, match=facts):
        load_model(f"{address}/{name}#sha256={digest(content) if wanted is None else wanted}")
    assert cached_files(tmp_path) == []


def test_a_shared_folder_is_a_model(file):
    assert load_model(file.parent).name == "student_xs"
    with pytest.raises(DistilPoseError, match=r"\.ckpt.*model\.safetensors"):
        load_model(file.parent.parent)


@pytest.mark.parametrize("name", ["nowhere.ckpt", "runs/nowhere.safetensors", "a/b/c", "{here}/nowhere", "hf://a"])
def test_paths_are_not_looked_up_on_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_from_hub", lambda *names: pytest.fail(f"{names} looked up on the hub"))
    with pytest.raises(DistilPoseError, match=r"is not a model file.*https://"):
        load_model(name.format(here=tmp_path))


class Evil:
    def __reduce__(self):
        return open, ("stolen", "w")


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_runs_code_does_not(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write({"state_dict": {}, "hyper_parameters": {"model": Evil()}}, tmp_path / "evil.ckpt")
    with pytest.raises(DistilPoseError, match="cannot be read"):
        load_model("evil.ckpt")
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize("key", ["pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"])
def test_an_untrusted_file_downloads_and_opens_nothing(tmp_path, monkeypatch, key):
    model = create_model("student_timm", backbone="resnet10t", depth=1, width=32, heads=2, input_size=(64, 48))
    config = json.loads(json.dumps(model.config))
    config |= {"pretrained": True, "backbone_options": {key: {"url": "http://127.0.0.1:9/stolen"}}}
    monkeypatch.setattr(type(model), "config", config)
    file = save_model(model, tmp_path / "model.safetensors")
    monkeypatch.undo()
    assert load_model(file).name == "student_timm"


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"backbone": "hf-hub:somebody/network"}, "hf-hub:somebody/network"),
        ({"input_size": "wide"}, r"model\.safetensors"),
    ],
)
def test_a_model_that_cannot_be_built_is_named(tmp_path, monkeypatch, change, facts):
    model = create_model("student_timm", backbone="resnet10t", depth=1, width=32, heads=2, input_size=(64, 48))
    monkeypatch.setattr(type(model), "config", json.loads(json.dumps(model.config)) | change)
    file = save_model(model, tmp_path / "model.safetensors")
    monkeypatch.undo()
    with pytest.raises(DistilPoseError, match=facts):
        load_model(file)
