"""Stub servers of W&B and MLflow, which support starting, logging and ending a run."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

PROJECT = {"id": "P", "name": "distilpose", "entity": {"id": "E", "name": "me"}}
RUN = {
    "id": "R", "name": "run", "displayName": "run", "description": "", "config": "{}", "sweepName": None, "project": PROJECT,
    "historyLineCount": 0, "summaryMetrics": "{}",
}  # fmt: skip
VIEWER = {"id": "V", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
QUERIES = {
    "RunResumeStatus": {"model": {**PROJECT, "bucket": None}},
    "UpsertBucket": {"upsertBucket": {"bucket": RUN, "inserted": True}},
    "iewer": {"viewer": VIEWER},
    "ServerFeatures": {"serverInfo": {"features": []}},
}
MLFLOW = {
    "experiments/get-by-name": {
        "experiment": {"experiment_id": "1", "name": "distilpose", "lifecycle_stage": "active"}
    },
    "runs/create": {"run": {"info": {"run_id": "a" * 32, "experiment_id": "1"}, "data": {}}},
    "runs/get": {"run": {"info": {"run_id": "a" * 32, "experiment_id": "1"}, "data": {}}},
}


@contextmanager
def tracker(status: int = 200):
    """Start a stub: its address, the received requests as text, and the status that it returns. A request of /gone sets 401."""
    stub = SimpleNamespace(status=status, sent=[])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            stub.sent.append(f"{self.path} {body.decode(errors='replace')}")
            content = {}
            if self.path == "/gone":
                stub.status, status = 401, stub.status
                return self.reply({}, status)
            if self.path == "/graphql":
                query = json.loads(body)["query"]
                content = {"data": next((reply for name, reply in QUERIES.items() if name in query), {})}
                if "CreateRunFiles" in query:
                    names = json.loads(body)["variables"]["files"]
                    files = [{"name": name, "uploadUrl": f"{stub.address}/file"} for name in names]
                    content = {"data": {"createRunFiles": {"runID": "R", "uploadHeaders": [], "files": files}}}
            elif "/mlflow/" in self.path:
                content = MLFLOW.get(self.path.partition("/mlflow/")[2].partition("?")[0], {})
            self.reply(content if stub.status == 200 else {"errors": [{"message": "no"}]}, stub.status)

        def reply(self, content, status):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server looks for

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
