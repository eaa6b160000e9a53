"""A small hub on this machine: repositories of models over HTTP, as the Hugging Face hub serves them.

Its list names sizes and hashes, large files come by a redirect and in parts if asked for, and what it refuses carries
the hub's own error codes. Each way to go wrong can be switched on.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LARGE_BYTES = 10_000


@dataclass
class Asked:
    """One request: its path, and what of its headers matters."""

    path: str
    range: str
    agent: str
    encodings: str


@dataclass
class FakeHub:
    """What the hub holds, how it shall go wrong, and what it was asked."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    license: str = "apache-2.0"
    refuse_list: tuple[int, str] | None = None  # status and X-Error-Code for the list of files
    refuse_file: dict[int, str] = field(default_factory=dict)  # the same for files, once each
    answer_list: bytes | None = None  # something else than the hub's JSON
    cut_after: list[int] = field(default_factory=list)  # the next downloads break off after so many bytes
    always_cut: bool = False
    hold_after: int | None = None  # downloads stop there, with the connection open
    replace: bytes = b""  # what large files are served as instead
    knows_ranges: bool = True
    asked: list[Asked] = field(default_factory=list)
    address: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def paths(self, pattern: str) -> list[Asked]:
        """Return the requests whose paths have *pattern* in them."""
        return [asked for asked in self.asked if re.search(pattern, asked.path)]

    def list(self, repository: str) -> bytes:
        files = self.repositories[repository]
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": _git_hash(content)}
            | (
                {"lfs": {"size": len(content), "sha256": _sha256(content), "pointerSize": 134}}
                if _large(content)
                else {}
            )
            for name, content in sorted(files.items())
        ]
        return json.dumps(
            {
                "_id": "0", "id": repository, "modelId": repository, "sha": COMMIT, "private": False, "gated": False,
                "tags": [], "downloads": 0, "likes": 0, "cardData": {"license": self.license}, "siblings": siblings,
            }
        ).encode()  # fmt: skip


@contextlib.contextmanager
def serving() -> Iterator[FakeHub]:
    """Serve an empty hub until the block ends."""
    hub = FakeHub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers for one hub."""

    served: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, url = self.served, urlsplit(self.path)
        headers = [self.headers.get(name, "") for name in ("Range", "User-Agent", "Accept-Encoding")]
        hub.asked.append(Asked(self.path, *headers))
        path = unquote(url.path)
        if listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._list(listing[1], listing[2], blobs="blobs" in parse_qs(url.query))
        elif wanted := re.fullmatch(rf"/(?P<cdn>cdn/)?([^/]+/[^/]+)/resolve/(?:main|{COMMIT})/(.+)", path):
            self._file(wanted[2], wanted[3], redirected=wanted["cdn"] is not None)
        else:
            self._refuse(404, "")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the library's name
        """Keep the terminal clean."""

    def _list(self, repository: str, revision: str, *, blobs: bool) -> None:
        hub = self.served
        if hub.refuse_list is not None:
            self._refuse(*hub.refuse_list)
        elif repository not in hub.repositories:
            self._refuse(401, "RepoNotFound")  # the hub tells nobody what is there for others
        elif revision not in {"main", "v1", COMMIT}:
            self._refuse(404, "RevisionNotFound")
        else:
            assert blobs, "the list must have hashes"
            self._send(200, hub.answer_list or hub.list(repository), {"Content-Type": "application/json"})

    def _file(self, repository: str, name: str, *, redirected: bool) -> None:
        hub = self.served
        content = hub.repositories[repository].get(name)
        if content is None:
            self._refuse(404, "EntryNotFound")
        elif self.command == "HEAD" or (_large(content) and not redirected):
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_git_hash(content)}"', "Content-Length": str(len(content))}
            if _large(content):
                headers |= {"X-Linked-ETag": f'"{_sha256(content)}"', "X-Linked-Size": str(len(content))}
            if _large(content) and not redirected:
                headers |= {"Location": f"{hub.address}/cdn{self.path}", "Content-Length": "0"}
            self._send(302 if "Location" in headers else 200, b"", headers)
        elif hub.refuse_file and _large(content):
            status = next(iter(hub.refuse_file))
            self._refuse(status, hub.refuse_file.pop(status))
        else:
            self._content(hub.replace if hub.replace and _large(content) else content, large=_large(content))

    def _content(self, content: bytes, *, large: bool) -> None:
        hub = self.served
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start and hub.knows_ranges else 0
        if start and hub.knows_ranges and first >= len(content):
            self._refuse(416, "")
            return
        self.send_response(206 if start and hub.knows_ranges else 200)
        if start and hub.knows_ranges:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        rest = content[first:]
        if large and (hub.cut_after or hub.always_cut):
            rest = rest[: hub.cut_after.pop(0) if hub.cut_after else 0]
            self.close_connection = True
        if large and hub.hold_after is not None:
            self.wfile.write(rest[: hub.hold_after])
            hub.released.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(rest)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b'{"error": "no"}', {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _large(content: bytes) -> bool:
    return len(content) >= LARGE_BYTES


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
