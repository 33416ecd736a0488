"""A local Hugging Face hub for tests: it accepts an uploaded folder and serves its files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 40


@contextmanager
def hub(writable: bool = True):
    """Start the hub: returns its address, and its files by repository and name. Tests may add files."""
    files: dict[str, dict[str, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self, content, status=200, **headers):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": len(body), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/api/repos/create":
                request = json.loads(body)
                name = "/".join(filter(None, [request.get("organization"), request["name"]]))
                if not writable:
                    return self.answer({"error": "You don't have the rights to create a model"}, 403)
                files.setdefault(name, {})
                return self.answer({"url": f"{address}/{name}", "name": name})
            if self.path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            name, _, action = self.path.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")
            if action == "preupload":
                requested = json.loads(body)["files"]
                return self.answer(
                    {
                        "files": [
                            {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in requested
                        ]
                    }
                )
            assert action == "commit", self.path
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer({"commitUrl": f"{address}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})

        def do_GET(self):
            name, _, file = self.path.lstrip("/").partition("/resolve/")
            if name.startswith("api/models/"):
                name = name.removeprefix("api/models/").partition("/revision")[0]
                name, is_tree, _ = name.partition("/tree/")
                if name not in files:
                    return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
                if is_tree:
                    rows = [
                        {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for path, content in files[name].items()
                    ]
                    return self.answer(rows)
                return self.answer(
                    {"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files[name]]}
                )
            file = file.partition("/")[2]
            if name not in files:
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            if file not in files[name]:
                return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            content = files[name][file]
            return self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"')

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address, files
    finally:
        server.shutdown()
        server.server_close()
