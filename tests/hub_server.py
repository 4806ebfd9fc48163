"""A stand-in for the Hugging Face hub on this machine: repositories in memory, as its library asks for them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the stand-in holds. token: the one it accepts. asked: requests that it got."""

    address: str = ""
    token: str = "hf_good"
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing on the screen."""

        def do_HEAD(self) -> None:
            self._get(body=False)

        def do_GET(self) -> None:
            self._get(body=True)

        def do_POST(self) -> None:
            path = unquote(urlparse(self.path).path)
            hub.asked.append(f"POST {path}")
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._json(401, {"error": "Invalid username or password."})
            elif path == "/api/repos/create":
                asked = json.loads(content)
                name = f"{asked['organization']}/{asked['name']}"
                there = name in hub.repositories
                hub.repositories.setdefault(name, {})
                hub.private.setdefault(name, asked.get("visibility") == "private")
                self._json(409 if there else 200, {"url": f"{hub.address}/{name}"})
            elif path == "/api/validate-yaml":
                self._json(200, {"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(content)["files"]]
                self._json(200, {"files": [{**one, "shouldIgnore": False} for one in files]})
            else:
                self._commit(path.removeprefix("/api/models/").partition("/commit/")[0], content)

        def _commit(self, name: str, content: bytes) -> None:
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
            address = f"{hub.address}/{name}/commit/{COMMIT}"
            self._json(200, {"success": True, "commitOid": COMMIT, "commitUrl": address})

        def _get(self, body: bool) -> None:
            path = unquote(urlparse(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if path.startswith("/api/models/"):
                name, _, rest = path.removeprefix("/api/models/").partition("/revision/")
                name, _, tree = name.partition("/tree/")
                if name not in hub.repositories:
                    self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                elif (rest or tree or "main") not in ("main", COMMIT):
                    self._json(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
                elif tree:
                    self._json(200, [_entry(file, held) for file, held in hub.repositories[name].items()])
                else:
                    self._json(200, {"id": name, "modelId": name, "sha": COMMIT, "siblings": [], "private": False})
                return
            name, _, file = path.removeprefix("/").partition(f"/resolve/{COMMIT}/")
            held = hub.repositories.get(name, {}).get(file)
            if held is None:
                self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                return
            named = {"ETag": f'"{hashlib.sha1(held).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._send(200, held, {**named, "Content-Type": "application/octet-stream"}, body)

        def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool = True) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body and self.command != "HEAD":
                self.wfile.write(content)

    return Handler


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextlib.contextmanager
def served() -> Iterator[Hub]:
    """A stand-in that answers on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """Let the hub's library ask the stand-in, with its cache in a folder, as somebody with that token or nobody."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN_PATH": str(folder / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
