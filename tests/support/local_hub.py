"""A Hugging Face hub on this machine: as much of its HTTP interface as huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest


@dataclass
class Repository:
    """Files by commit; a revision is a commit or a branch, which names one.

    Attributes:
        gated: Reading files needs this token.
        cut: Files of which a download ends after half, each time.
    """

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    gated: str | None = None
    cut: set[str] = field(default_factory=set)

    def commit_of(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


def repository_of(*folders: Path) -> Repository:
    """A repository whose commits are the folders' files; the last of them is main."""
    commits = {}
    for folder in folders:
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        digest = hashlib.sha1(repr(sorted(files.items())).encode())
        commits[digest.hexdigest()] = files
    return Repository(commits, {"main": list(commits)[-1]})


@dataclass
class LocalHub:
    """The running server.

    Attributes:
        requests: What was asked for, as "METHOD /path".
        tokens: The tokens that requests carried.
        down: Answer every request with 503.
    """

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    down: bool = False

    def downloads(self) -> list[str]:
        """Names of the files whose contents were sent, in order."""
        got = [r for r in self.requests if r.startswith("GET ") and "/resolve/" in r]
        return [request.split("/resolve/")[1].split("/", 1)[1] for request in got]


@contextmanager
def local_hub(repositories: Mapping[str, Repository]) -> Iterator[LocalHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = LocalHub(f"http://127.0.0.1:{server.server_port}", dict(repositories))
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path, offline: bool = False) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE do where they are set before Python starts.

    huggingface_hub reads them when it is imported.
    """
    settings = huggingface_hub.constants
    monkeypatch.setattr(settings, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(settings, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(settings, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(settings, "HF_HUB_OFFLINE", offline)
    for name, value in hub_environment(url, cache).items():
        monkeypatch.setenv(name, value)


def hub_environment(url: str, cache: Path) -> dict[str, str]:
    """For a process that starts: the hub and nothing but it."""
    return {
        "HF_ENDPOINT": url,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        pass

    @property
    def hub(self) -> LocalHub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def _answer(self, with_body: bool) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        authorization = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if authorization:
            self.hub.tokens.add(authorization)
        if self.hub.down:
            return self._refuse(503, "", "")
        api = path.startswith("/api/models/")
        parts = [unquote(p) for p in path.removeprefix("/api/models").strip("/").split("/")]
        name, rest = "/".join(parts[:2]), parts[2:]
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._refuse(401, "RepoNotFound", "Repository not found")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repository.commit_of(revision)
        if commit is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if api:
            tree = bool(rest) and rest[0] == "tree"
            return self._json(_tree(files) if tree else _info(name, commit, files))
        if repository.gated not in (None, authorization):
            return self._refuse(403, "GatedRepo", "Access to this model is restricted")
        file = "/".join(rest[2:])
        if file not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        cut = with_body and file in repository.cut
        return self._file(files[file], commit, with_body, cut)

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, body: bytes, commit: str, with_body: bool, cut: bool) -> None:
        start = 0
        wanted = self.headers.get("Range")
        if wanted is not None:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(200 if wanted is None else 206)
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if with_body:
            self.wfile.write(body[start : len(body) // 2] if cut else body[start:])
        self.close_connection = cut

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _info(name: str, commit: str, files: Mapping[str, bytes]) -> dict[str, object]:
    return {
        "_id": "0",
        "id": name,
        "modelId": name,
        "sha": commit,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": file} for file in files],
    }


def _tree(files: Mapping[str, bytes]) -> list[dict[str, object]]:
    return [
        {"type": "file", "oid": hashlib.sha1(body).hexdigest(), "size": len(body), "path": file}
        for file, body in files.items()
    ]
