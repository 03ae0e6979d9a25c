"""A web server of the tests: files with ranges and tags, S3's and figshare's listings, and faults on demand."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass
class Faults:
    """What goes wrong, by the end of a path; counts go down as they happen."""

    cut_after: dict[str, list[int]] = field(default_factory=dict)  # bytes of the answer, one number for each answer
    status: dict[str, list[int]] = field(default_factory=dict)  # in place of an answer
    instead: dict[str, list[bytes]] = field(default_factory=dict)  # other content of the same length
    pause_s: float = 0.0  # between two pieces
    first_pause_s: dict[str, list[float]] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    tags: bool = True
    html: set[str] = field(default_factory=set)


@dataclass
class Web:
    """The server: `url`, what it has (`files`: path -> content), what was asked, and how many bytes of files it sent."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    articles: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, range
    sent: int = 0
    page: int = 1000  # keys of one page of S3's listing
    size: str = ""  # what that listing states of every file; empty: what is right

    def bucket(self, name: str, folder: Path, prefix: str = "") -> None:
        """Have a folder's files in an S3 bucket."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.files[f"/{name}/{prefix}{path.relative_to(folder).as_posix()}"] = path.read_bytes()

    def article(self, number: str, folder: Path, names: list[str], *, md5: dict[str, str] | None = None) -> None:
        """Have files in a figshare article."""
        for name in names:
            content = (folder / name).read_bytes()
            self.files[f"/download/{name}"] = content
            item = {"name": name, "size": len(content), "download_url": f"{self.url}/download/{quote(name)}"}
            known = (md5 or {}).get(name, hashlib.md5(content).hexdigest())
            self.articles.setdefault(number, []).append({**item, "computed_md5": known})


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()

    class Handler(_Handler):
        server_of_tests = web

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


def _fault(table: dict[str, list], path: str):
    found = next((end for end, values in table.items() if path.endswith(end) and values), None)
    return table[found].pop(0) if found else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_tests: Web

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        web, parts = self.server_of_tests, urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        web.asked.append((path, self.headers.get("Range", "")))
        if (pause := _fault(web.faults.first_pause_s, path)) is not None:
            time.sleep(pause)
        if (status := _fault(web.faults.status, path)) is not None:
            self._send(b"", status)
        elif "list-type" in query:
            self._send(self._listing(path.strip("/"), query), 200)
        elif article := re.fullmatch(r"/v2/articles/(\w+)/files", path):
            listed = web.articles.get(article[1])
            self._send(json.dumps(listed or []).encode(), 200 if listed is not None else 404)
        elif path in web.files:
            self._file(path, web.files[path])
        else:
            self._send(b"<h1>no such file</h1>", 404)

    def _listing(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        web, prefix = self.server_of_tests, query["prefix"][0]
        start = int(query.get("continuation-token", ["0"])[0])
        keys = sorted(path.removeprefix(f"/{bucket}/") for path in web.files if path.startswith(f"/{bucket}/{prefix}"))
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{web.size or len(content)}</Size>"
            f"<ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag></Contents>"
            for key in keys[start : start + web.page]
            if (content := web.files[f"/{bucket}/{key}"]) is not None
        )
        more = start + web.page < len(keys)
        token = f"<NextContinuationToken>{start + web.page}</NextContinuationToken>" if more else ""
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        return f'<?xml version="1.0"?><ListBucketResult xmlns="{space}">{items}{truncated}{token}</ListBucketResult>'.encode()

    def _file(self, path: str, content: bytes) -> None:
        faults = self.server_of_tests.faults
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        content = _fault(faults.instead, path) or content
        start, status, headers = 0, 200, {}
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found and faults.ranges and self.headers.get("If-Range", tag) == tag:
            start, status = int(found[1]), 206
            if start >= len(content):
                self._send(b"", 416)
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers |= {"ETag": tag} if faults.tags else {}
        headers |= {"Content-Type": "text/html"} if path in faults.html else {}
        self._send(content[start:], status, headers, cut=_fault(faults.cut_after, path))

    def _send(self, content: bytes, status: int, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        web = self.server_of_tests
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if web.faults.lengths:
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        step = 2**14 if web.faults.pause_s else max(1, len(content))
        try:
            for begin in range(0, len(content), step):
                piece = content[begin : begin + step] if cut is None else content[begin : min(begin + step, cut)]
                self.wfile.write(piece)
                web.sent += len(piece)
                time.sleep(web.faults.pause_s)
                if cut is not None and begin + step >= cut:
                    self.close_connection = True
                    return
        except OSError:  # the client has gone
            self.close_connection = True
