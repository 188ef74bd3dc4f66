"""A small hub on this machine, with the bad habits of real networks, for tests of downloads."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class FakeHub:
    """What is served and how.

    Attributes:
        repositories: Content by repository and path.
        faults: By path, what happens at each request for it, in turn: "cut" (the half of what is asked for), "stall"
            (the half, then silence), "wrong" (other bytes), "more" (too many), a number (that HTTP status), "" (all
            is well). At the end of the list all is well.
        listing_faults: The same of requests for a listing: a number, "endless", "in a circle", anything else for a page
            that is none.
        ranges: Whether byte ranges are understood.
        page_size: Files per page of a listing in the manner of Hugging Face.
    """

    repositories: dict[str, dict[str, bytes]]
    faults: dict[str, list[str | int]] = field(default_factory=dict)
    listing_faults: list[str | int] = field(default_factory=list)
    ranges: bool = True
    page_size: int = 1000
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path of the file, its Range header
    endpoint: str = ""

    def asked(self, path: str) -> list[str | None]:
        """The Range header of every request for the file."""
        return [header for asked, header in self.requests if asked == path]

    def tree(self, repository: str, first: int) -> tuple[list[dict[str, Any]], bool]:
        """A page of a listing; files of more than 40 bytes are the large ones, with a SHA-256 sum."""
        entries: list[dict[str, Any]] = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"}]
        for path, content in self.repositories[repository].items():
            git = hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"type": "file", "oid": git, "size": len(content), "path": path}
            if len(content) > 40:
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries[first : first + self.page_size], first + self.page_size < len(entries)


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Run the hub; its address is in ``endpoint``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            path = unquote(url.path).removeprefix("/")
            if path.startswith("api/models/"):
                self.tree(path.removeprefix("api/models/").removesuffix("/tree/main"), int(query.get("first", 0)))
            elif path.startswith("api/v1/models/") and path.endswith("/repo/files"):
                self.scope_files(path.removeprefix("api/v1/models/").removesuffix("/repo/files"))
            elif path.startswith("api/v1/models/"):
                self.file(path.removeprefix("api/v1/models/").removesuffix("/repo"), query["FilePath"])
            else:
                repository, _, name = path.partition("/resolve/main/")
                self.file(repository, name)

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def listing_fails(self, repository: str) -> bool:
            fault = hub.listing_faults.pop(0) if hub.listing_faults else ""
            if repository not in hub.repositories:
                fault = 404
            if isinstance(fault, int):
                self.answer(fault, b"")
            elif fault == "endless":
                self.answer(200, b"[" + b" " * 5_000_000)
            elif fault == "in a circle":
                self.answer(200, b"[]", Link=f'<{hub.endpoint}{self.path}>; rel="next"')
            elif fault:
                self.answer(200, b"<html>a login page</html>")
            return bool(fault)

        def tree(self, repository: str, first: int) -> None:
            if not self.listing_fails(repository):
                entries, more = hub.tree(repository, first)
                following = f"{hub.endpoint}/api/models/{repository}/tree/main?first={first + hub.page_size}"
                self.answer(
                    200, json.dumps(entries).encode(), **({"Link": f'<{following}>; rel="next"'} if more else {})
                )

        def scope_files(self, repository: str) -> None:
            if not self.listing_fails(repository):
                files = [
                    {"Type": "blob", "Path": path, "Size": len(content), "Sha256": sha256(content)}
                    for path, content in hub.repositories[repository].items()
                ]
                files.append({"Type": "tree", "Path": "folder", "Size": 0, "Sha256": ""})
                self.answer(200, json.dumps({"Code": 200, "Data": {"Files": files}}).encode())

        def file(self, repository: str, path: str) -> None:
            header = self.headers["Range"]
            hub.requests.append((path, header))
            content = hub.repositories[repository][path]
            faults = hub.faults.get(path) or [""]
            fault = faults.pop(0)
            if isinstance(fault, int):
                self.answer(fault, b"")
                return
            if fault == "wrong":
                content = bytes(byte ^ 1 for byte in content)
            start = int(header.removeprefix("bytes=").removesuffix("-")) if header and hub.ranges else 0
            body = content[start:] + (b"more" if fault == "more" else b"")
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault in ("cut", "stall") else body)
            if fault == "stall":
                time.sleep(1.0)
            self.close_connection = fault in ("cut", "stall")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
