"""One file from the web, whole and checked, or a part of it that the next call continues.

What has come lies in `NAME.part`, and what it is a part of (address, size, tag) in `NAME.part.json`. A cut is continued from
there by an HTTP range, by the same call and by the next one; where the file at the source has changed since, or the server
knows no ranges, it begins anew. The name itself appears when size and checksum are right. `requests` does HTTP: redirects,
proxies, TLS.
"""

import errno
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pulvinar.core.errors import FileError, NotFoundError
from pulvinar.core.progress import log
from pulvinar.core.storage import read_json, write_json

PIECE = 2**18  # bytes written at a time; an interrupt waits for one
TRIES = 5  # in a row without a byte
LONGEST_PAUSE_S = 30.0
WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)
ADVICE = {
    401: "it asks for a login, which is not given here",
    403: "it is not public, or not any more",
    404: "it is not there, or not any more",
    410: "its owners have removed it",
}


class CutError(Exception):
    """What came ended too early, or too slowly, and can be continued."""


class StoppedError(Exception):
    """Another file could not be fetched, or an interrupt came: what is under way ends between two pieces."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that is here whole: bytes, SHA-256, and what it was compared with (a checksum, or its size alone)."""

    n_bytes: int
    sha256: str
    checked: str


def without_credentials(url: str) -> str:
    """An address without user, password and query, as it may be written down."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class Client:
    """HTTP without logins, for several threads. timeout_s: for a connection, and between two pieces of an answer."""

    def __init__(self, *, timeout_s: float = 60.0, first_pause_s: float = 1.0) -> None:
        self.timeout_s, self.first_pause_s = timeout_s, first_pause_s
        self.stopped = threading.Event()
        self._local = threading.local()

    def _session(self) -> Any:
        """A session of this thread. No password of a .netrc file is sent anywhere, and no cookie is kept."""
        import requests

        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.auth = lambda request: request  # none, in place of the .netrc file's
            session.headers.update({"User-Agent": "pulvinar", "Accept-Encoding": "identity"})
            self._local.session = session
        return self._local.session

    @contextmanager
    def answer(self, url: str, **headers: str) -> Iterator[Any]:
        """The answer to a request, its content unread. `CutError` where it may be asked again, else `FileError`."""
        import requests

        try:
            with self._session().get(url, headers=headers, stream=True, timeout=self.timeout_s) as response:
                if url.startswith("https:") and not response.url.startswith("https:"):
                    raise FileError(f"{without_credentials(url)}: is sent on to an address without encryption; not followed")
                if response.status_code in WORTH_ANOTHER_TRY:
                    raise CutError(f"the server answers {response.status_code} {response.reason}")
                if response.status_code >= 400 and response.status_code != 416:
                    advice = ADVICE.get(response.status_code, "it is refused")
                    kind = NotFoundError if response.status_code in (404, 410) else FileError
                    raise kind(f"{without_credentials(url)}: {advice} ({response.status_code} {response.reason})")
                yield response
        except requests.exceptions.SSLError as error:
            raise FileError(f"{without_credentials(url)}: the server's certificate is not valid: {error}") from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema) as error:
            raise FileError(f"{without_credentials(url)}: is no web address: {error}") from error
        except requests.exceptions.RequestException as error:
            raise CutError(_reason(error)) from error

    def persisting(self, url: str, step: Callable[[], Any], progress: Callable[[], int]) -> Any:
        """What `step` gives, called again after every `CutError` for as long as one try in five brings bytes on."""
        failed, before = 0, progress()
        while True:
            try:
                return step()
            except CutError as cut:
                failed, before = (0 if progress() > before else failed + 1), progress()
                if failed >= TRIES:
                    raise FileError(
                        f"{without_credentials(url)}: {cut}, {TRIES} times in a row; what has come is kept, and the same "
                        "command continues it"
                    ) from cut
                pause = min(LONGEST_PAUSE_S, self.first_pause_s * 2**failed)
                log(f"{without_credentials(url)}: {cut}; trying again in {pause:g} s")
                if self.stopped.wait(pause):
                    raise StoppedError from None

    def get(self, url: str, most: int, *, what: str) -> bytes:
        """The whole of a small answer. most: bytes."""

        def step() -> bytes:
            content = bytearray()
            with self.answer(url) as response:
                for piece in _pieces(response):
                    content += piece
                    if len(content) > most:
                        raise FileError(f"{without_credentials(url)}: {what} of more than {most} bytes came; not read")
            return bytes(content)

        return self.persisting(url, step, lambda: 0)

    def json(self, url: str, most: int, *, missing_ok: bool = False) -> Any:
        """The JSON at an address; None where it is not there and may be missing."""
        try:
            return json.loads(self.get(url, most, what="JSON"))
        except NotFoundError:
            if missing_ok:
                return None
            raise
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FileError(f"{without_credentials(url)}: what came is no JSON ({error}); is this the address?") from None
        except ValueError as error:
            raise FileError(f"{without_credentials(url)}: no JSON came: {error}") from error

    def size_of(self, url: str) -> int | None:
        """Bytes of the file at an address, as its server says before it sends them; None where it does not."""

        def step() -> int | None:
            with self.answer(url) as response:
                return _stated(response)

        return self.persisting(url, step, lambda: 0)

    def fetch(
        self, url: str, path: Path, *, n_bytes: int | None, checksum: str, arrived: Callable[[int], None] = lambda n: None
    ) -> Fetched:
        """Make the file `path` of what is at `url`, going on where an earlier call ended.

        checksum: 'md5:...', 'sha256:...' or ''. arrived: told of bytes as they come, and of what lay here from before; of
        fewer than 0 where a part is thrown away. `FileError` where it does not come or is not as published.
        """
        part = _Part(path, url, n_bytes, checksum, arrived)
        fetched, wrong = self._whole(part)
        if wrong:
            log(f"{path.name}: came with {wrong}; fetching it once more")
            part.begin()
            fetched, wrong = self._whole(part)
        if wrong:
            part.remove()
            raise FileError(
                f"{path}: not written: what {without_credentials(url)} sends has {wrong}. It was fetched twice: the file "
                "has changed at its source, or something on the way changes it"
            )
        part.finish()
        return fetched

    def _whole(self, part: "_Part") -> tuple[Fetched, str]:
        """What has come when all has, and what is wrong with it."""
        self.persisting(part.url, lambda: self._go_on(part), lambda: part.done)
        return part.compared()

    def _go_on(self, part: "_Part") -> None:
        """Ask for what is missing, and write what comes."""
        if part.is_whole:
            return
        headers = {"Range": f"bytes={part.done}-", **({"If-Range": part.tag} if part.tag else {})} if part.done else {}
        with self.answer(part.url, **headers) as response:
            part.accept(response)
            for piece in _pieces(response):
                if self.stopped.is_set():
                    raise StoppedError
                part.write(piece)
            part.end()
        if not part.is_whole:
            raise CutError(f"ended after {part.done} of {part.n_bytes} bytes")


class _Part:
    """What has come of a file, and of which file at its source it is a part."""

    def __init__(self, path: Path, url: str, n_bytes: int | None, checksum: str, arrived: Callable[[int], None]) -> None:
        self.path, self.url, self.n_bytes, self.checksum, self._arrived = path, url, n_bytes, checksum, arrived
        self.file, self.note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
        self.done, self.tag, self._ended = 0, "", False
        with self._disk():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file.touch()
            self._take_up()

    def _take_up(self) -> None:
        """Go on with what an earlier call left, if it is of the same file for certain; else begin."""
        try:
            known = read_json(self.note)
        except FileError:
            known = {}
        if not isinstance(known, dict) or not isinstance(known.get("bytes"), int | None):
            known = {}
        size, here = known.get("bytes"), self.file.stat().st_size
        same = known.get("url") == without_credentials(self.url) and (self.n_bytes is None or size in (None, self.n_bytes))
        self.n_bytes = size if same and self.n_bytes is None else self.n_bytes
        if not same or not (known.get("tag") or self.checksum) or (self.n_bytes is not None and here > self.n_bytes):
            self.begin()
            return
        self.done, self.tag = here, str(known.get("tag") or "")
        self._arrived(here)

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are here: as many as are stated, or all that an answer of unknown length had."""
        return self._ended if self.n_bytes is None else self.done == self.n_bytes

    def accept(self, response: Any) -> None:
        """Compare what the answer says of the file with what is known of it; begin anew where it sends the whole file."""
        if response.status_code == 416:  # no such range: the file has another length than the part
            self.begin()
            raise CutError("has no bytes beyond those that are here")
        tag = _tag(response)
        if response.status_code == 206:
            start, total = _range_of(response)
            if start != self.done or (self.tag and tag and tag != self.tag):
                self.begin()
                raise CutError("sends another part than was asked for, or of a file that has changed")
        else:
            total = _stated(response)
            if self.done:
                log(f"{self.path.name}: its source sends all of it anew (it has changed, or ranges are not known there)")
                self.begin()
            self._refuse_page(response, total)
        self._require_size(total)
        self.tag = tag
        write_json(self.note, {"url": without_credentials(self.url), "bytes": self.n_bytes, "tag": self.tag})

    def _require_size(self, total: int | None) -> None:
        if total is None or self.n_bytes in (None, total):
            self.n_bytes = self.n_bytes if total is None else total
            return
        self.begin()
        raise FileError(
            f"{self.path}: not written: {without_credentials(self.url)} has {total} bytes, {self.n_bytes} are published. "
            "The file has changed at its source, or a page of a login or a proxy came in its place"
        )

    def _refuse_page(self, response: Any, total: int | None) -> None:
        """Refuse what is no file, and what may be cut without anybody seeing it."""
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind == "text/html" and self.n_bytes is None and self.path.suffix not in (".html", ".htm"):
            raise FileError(
                f"{self.path}: not written: {without_credentials(self.url)} sends a web page, no file (a login, a form, or a "
                "notice that it has moved)"
            )
        is_chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if total is None and self.n_bytes is None and not is_chunked and not self.checksum:
            raise FileError(
                f"{self.path}: not written: {without_credentials(self.url)} does not say how long the file is, and no checksum "
                "is published: whether all of it came could not be told"
            )

    def write(self, piece: bytes) -> None:
        """Add a piece to the end."""
        if self.n_bytes is not None and self.done + len(piece) > self.n_bytes:
            self.begin()
            raise FileError(f"{self.path}: not written: {without_credentials(self.url)} sends more than {self.n_bytes} bytes")
        with self._disk(), self.file.open("ab") as file:
            file.write(piece)
        self.done += len(piece)
        self._arrived(len(piece))

    def end(self) -> None:
        """The answer ended by itself."""
        self._ended = True

    def compared(self) -> tuple[Fetched, str]:
        """What the part is, and what is wrong with it ('' for nothing)."""
        kind, _, expected = self.checksum.partition(":")
        digests = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", kind or "sha256"}}
        with self.file.open("rb") as file:
            while piece := file.read(2**20):
                for digest in digests.values():
                    digest.update(piece)
        fetched = Fetched(n_bytes=self.done, sha256=digests["sha256"].hexdigest(), checked=kind or "size")
        if kind and (came := digests[kind].hexdigest()) != expected.lower():
            return fetched, f"{kind.upper()} {came}, {expected.lower()} is published"
        return fetched, ""

    def begin(self) -> None:
        """Throw away what is here."""
        self._arrived(-self.done)
        self.done, self.tag, self._ended = 0, "", False
        with self._disk():
            self.file.write_bytes(b"")
            self.note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave nothing."""
        self._arrived(-self.done)
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the file its name, its bytes being on the disk."""
        with self._disk():
            with self.file.open("rb") as file:
                os.fsync(file.fileno())
            self.file.replace(self.path)
            self.note.unlink(missing_ok=True)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """What the operating system refuses, in one line."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileError):
                raise
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full; make room, and the same command continues it" if full else error.strerror or str(error)
            raise FileError(f"{self.file}: cannot be written: {reason}") from error


def _pieces(response: Any) -> Iterator[bytes]:
    """The content as it is sent. `CutError` where it breaks off."""
    import urllib3

    try:
        while piece := response.raw.read(PIECE, decode_content=False):
            yield piece
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise CutError(_reason(error)) from error


def _stated(response: Any) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _tag(response: Any) -> str:
    """What changes when the file does: a strong ETag, else the time of the last change; '' for neither."""
    tag = response.headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified") or ""


def _range_of(response: Any) -> tuple[int, int | None]:
    """First byte and length of the whole file, of `Content-Range: bytes 5-9/10`."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if found is None:
        return -1, None
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _reason(error: Exception) -> str:
    """One short line of what requests and urllib3 wrap several times."""
    text = str(error).lower()
    for words, message in (
        ("timed out", "does not answer in time"),
        ("name or service not known", "no such host, or no network"),
        ("failed to resolve", "no such host, or no network"),
        ("refused", "refuses the connection"),
        ("incompleteread", "breaks off"),
        ("reset", "breaks off"),
    ):
        if words in text:
            return message
    return f"breaks off ({type(error).__name__})"
