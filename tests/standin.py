"""A hub on 127.0.0.1: answers what huggingface_hub asks for, and misbehaves on demand.

    GET  /api/models/OWNER/NAME/revision/REVISION     commit and files: size, git's hash, sha256 of large ones
    HEAD, GET /OWNER/NAME/resolve/REVISION/FILE       small files at once, large ones by way of the next
    GET  /cdn/SHA256                                  with ranges; under another host's name, as the real one

Every request is noted in `asked`: (method, path without query, Range).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "6cee5e81ee83917806bbde320786a8fb61efebee"
LARGE = (".safetensors", "tokenizer.json", ".bin", ".onnx")


def git_id(content: bytes) -> str:
    """git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub(ThreadingHTTPServer):
    """repositories: name → file → content. Faults, by file name: `cut` ends the answer after so many bytes of
    the file, `short` has only so many although it lists more, `wrong` sends other bytes, `stall` waits after
    so many. `page`: what is answered to everything."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.cut, self.short, self.stall = dict[str, int](), dict[str, int](), dict[str, int]()
        self.wrong: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.page: bytes | None = None

    @property
    def address(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> list[str]:
        """The files whose bytes were sent, in order, once each."""
        names = [
            path.split(f"/{COMMIT}/")[1]
            for method, path, _ in self.asked
            if method == "GET" and COMMIT in path
        ]
        return list(dict.fromkeys(names))


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing: `asked` is the log."""

    def do_HEAD(self) -> None:
        """Headers alone."""
        self.do_GET()

    def do_GET(self) -> None:
        """One answer."""
        path = unquote(self.path.split("?")[0])
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        if self.server.page is not None:
            return self.send(200, self.server.page, {"Content-Type": "text/html"})
        if listing := re.fullmatch(r"/api/models/(.+)/revision/(.+)", path):
            return self.list(*listing.groups())
        if file := re.fullmatch(rf"/(.+)/resolve/(?:main|{COMMIT})/(.+)", path):
            return self.resolve(*file.groups())
        if path.startswith("/cdn/"):
            return self.content(path.removeprefix("/cdn/"))
        return self.send(404, b"{}")

    def list(self, repository: str, revision: str) -> None:
        """Commit and files of a repository."""
        files = self.server.repositories.get(repository)
        if files is None:
            return self.send(401, b"{}", {"X-Error-Message": "Invalid username or password."})
        if revision not in ("main", COMMIT):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings: list[dict[str, Any]] = []
        for name, content in files.items():
            siblings.append({"rfilename": name, "size": len(content), "blobId": git_id(content)})
            if name.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                siblings[-1]["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 135}
        self.send(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())

    def resolve(self, repository: str, name: str) -> None:
        """A small file, or the way to a large one."""
        content = self.server.repositories[repository].get(name)
        about = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if content is None:
            return self.send(404, b"{}", about | {"X-Error-Code": "EntryNotFound"})
        if not name.endswith(LARGE):
            return self.send(200, content, about | {"ETag": f'"{git_id(content)}"'})
        sha256 = hashlib.sha256(content).hexdigest()
        about |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        elsewhere = self.server.address.replace("127.0.0.1", "localhost")
        return self.send(302, b"", about | {"Location": f"{elsewhere}/cdn/{sha256}"})

    def content(self, sha256: str) -> None:
        """A large file from a byte on, with this file's fault."""
        files = [item for files in self.server.repositories.values() for item in files.items()]
        name, content = next(item for item in files if hashlib.sha256(item[1]).hexdigest() == sha256)
        content = self.server.wrong.get(name, content)[: self.server.short.get(name)]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if start >= len(content):
            return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        place = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        stop = self.server.cut.get(name, self.server.stall.get(name))
        self.send(206 if asked else 200, content[start:], place, None if stop is None else stop - start)
        if name in self.server.stall:
            self.server.stalled.set()
            self.server.go_on.wait(30)

    def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, only: int | None = None
    ) -> None:
        """An answer that claims all of `body`, of which `only` so many bytes are sent before a cut."""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if only is None else body[: max(only, 0)])
            self.wfile.flush()
        self.close_connection = only is not None
