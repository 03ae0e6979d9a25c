"""`pulvinar data fetch`: a public data set, or some subjects of it, from where its owners offer it.

Nothing is fetched but by this command. What came is listed in `fetched.json` of the folder, with size, SHA-256, source, and
what it was compared with; the same command again fetches what is missing, and continues what was cut.
"""

import fnmatch
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulvinar.app import registry
from pulvinar.core import checksums
from pulvinar.core.errors import FileError, InputError, NotFoundError, PulvinarError
from pulvinar.core.locks import holding
from pulvinar.core.places import remove_left_overs
from pulvinar.core.progress import bar, log, warn
from pulvinar.core.storage import checksum, read_json, reading, write_json
from pulvinar.data.archives import unpack
from pulvinar.data.dataset import Dataset, Facts
from pulvinar.data.downloads import Client, Fetched, without_credentials
from pulvinar.data.published_files import RECORD, RemoteFile, Wish, offered

MB = 1_000_000


def fetch(
    name: str,
    *,
    out: str,
    subjects: Sequence[str] = (),
    sessions: Sequence[int] = (),
    images: bool = False,
    mirror: str | None = None,
    accept_terms: bool = False,
    parallel: int = 4,
    timeout_s: float = 60.0,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Fetch what is asked for into the folder `out`; how many files and bytes it has, and what is left to do by hand.

    subjects: names, their numbers, patterns (*_NSD), or all. mirror: a web address to ask in place of the sources.
    `InputError` where nothing can be fetched, or terms are not agreed to; `FileError` lists every file that did not come.
    """
    found = registry.dataset(name)
    _require_sources(found)
    wish = Wish(subjects=_subjects(found, subjects), sessions=_sessions(found, sessions), images=images)
    _require_agreement(found, accept_terms)
    if parallel < 1 or not timeout_s > 0:
        raise InputError(f"--parallel is 1 or more and --timeout above 0 s, not {parallel} and {timeout_s:g}")
    client, folder = Client(timeout_s=timeout_s), Path(out)
    files = _with_sizes(offered(found.facts, wish, client, mirror), client)
    if dry_run:
        return _summary(found, folder, files, fetched=[], dry_run=True)
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder):
        remove_left_overs(folder)
        record = Record(folder, name)
        missing = [file for file in files if not record.has(file)]
        _require_room(folder, files, missing)
        _fetch_all(client, record, missing, parallel)
    return _summary(found, folder, files, fetched=missing, dry_run=False)


def _require_sources(found: Dataset) -> None:
    if not any(file.source for file in found.facts.files):
        known = [name for name in registry.names("datasets") if any(f.source for f in registry.dataset(name).facts.files)]
        how = f" By hand: {found.facts.by_hand}." if found.facts.by_hand else ""
        page = f" {found.facts.url}" if found.facts.url else ""
        raise InputError(f"{found.name}: is not fetched.{how}{page} Fetched are {', '.join(known)}")


def _require_agreement(found: Dataset, accepted: bool) -> None:
    facts = found.facts
    log(f"{found.name}: licence: {facts.licence or 'none stated'}" + (f"; {facts.terms}" if facts.terms else ""))
    if facts.agreement and not accepted:
        raise InputError(f"{found.name}: {facts.agreement} ({facts.url}). Where that is done and you agree, say --accept-terms")


def _subjects(found: Dataset, asked: Sequence[str]) -> tuple[str, ...]:
    """The names in the files of the subjects that are asked for."""
    names = found.facts.subjects
    if not any("{subject}" in file.path for file in found.facts.files):
        if asked:
            raise InputError(f"--subjects: {found.name} has none")
        return ()
    if not asked:
        raise InputError(f"--subjects is needed: some of {', '.join(names)}; or all")
    chosen = [name for word in asked for name in (names if word == "all" else _subject(names, word))]
    return tuple(dict.fromkeys(chosen))


def _subject(names: Sequence[str], word: str) -> list[str]:
    fitting = [name for name in names if name == word] or fnmatch.filter(names, word)
    if not fitting and word.isdecimal():
        fitting = [name for name in names if int((re.findall(r"\d+", name) or ["-1"])[0]) == int(word)]
        if len(fitting) > 1:
            raise InputError(f"--subjects: {word} may be {', '.join(fitting)}; name them, or a pattern such as '*_NSD'")
    if not fitting:
        raise NotFoundError(f"--subjects: no '{word}'; there are {', '.join(names)}")
    return fitting


def _sessions(found: Dataset, asked: Sequence[int]) -> tuple[int, ...]:
    if asked and not any("{session}" in file.path for file in found.facts.files):
        raise InputError(f"--sessions: the files of {found.name} are not by session")
    private = [session for session in asked if found.facts.sessions and session not in found.facts.sessions]
    if private:
        first, last = found.facts.sessions[0], found.facts.sessions[-1]
        raise InputError(f"--sessions: public are {first} to {last}; {', '.join(map(str, private))} came")
    return tuple(asked)


def _with_sizes(files: Sequence[RemoteFile], client: Client) -> list[RemoteFile]:
    """The files, with the sizes that their servers say where none is published."""
    from dataclasses import replace

    return [file if file.n_bytes is not None else replace(file, n_bytes=client.size_of(file.url)) for file in files]


def _require_room(folder: Path, files: Sequence[RemoteFile], missing: Sequence[RemoteFile]) -> None:
    """Say how much there is to fetch; `FileError` where it does not fit on the disk."""
    here = sum(part.stat().st_size for file in missing if (part := folder / f"{file.path}.part").is_file())
    needed = sum(file.n_bytes or 0 for file in missing) - here
    unknown = sum(file.n_bytes is None for file in missing)
    free = shutil.disk_usage(folder).free
    log(
        f"{folder}: {len(files)} files, {len(missing)} of them to fetch: {_said(needed)}"
        + (f" and {unknown} whose size is not said" if unknown else "")
        + f"; {_said(free)} are free"
        + ("; archives need room once more, to be unpacked" if any(file.unpack for file in missing) else "")
    )
    if needed > free:
        raise FileError(f"{folder}: {_said(needed)} are to be fetched, {_said(free)} are free; nothing was fetched")


def _said(n_bytes: int) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes} bytes"


class Record:
    """`fetched.json`: what a folder holds and where it came from. Written after every file; one thread at a time."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self._path = folder, folder / RECORD
        self._content: dict[str, Any] = (
            _read_record(self._path) if self._path.is_file() else {"dataset": name, "files": {}, "archives": {}}
        )
        if self._content.get("dataset") != name:
            raise FileError(f"{self._path}: the folder holds {self._content.get('dataset')}, not {name}; name another one")

    def has(self, file: RemoteFile) -> bool:
        """Whether a file is here as fetched; one that lay here is taken in, if it is the one that is offered."""
        if file.unpack:
            members = self._content["archives"].get(file.path)
            return members is not None and all(self._is_here(path) for path in members)
        entry, path = self._content["files"].get(file.path), self.folder / file.path
        if entry is None:
            return path.exists() and self._take_in(file, path)
        if not self._is_here(file.path):
            return False
        if file.n_bytes not in (None, entry["bytes"]):
            warn(f"{path}: has {file.n_bytes} bytes at its source now, {entry['bytes']} here; remove it to fetch the new one")
        return True

    def _is_here(self, path: str) -> bool:
        place, entry = self.folder / path, self._content["files"][path]
        if not place.is_file() or place.stat().st_size != entry["bytes"]:
            return False
        if checksums.mode() == "always":
            checksums.require(place, entry["sha256"], written_in=str(self._path))
        return True

    def _take_in(self, file: RemoteFile, path: Path) -> bool:
        """Record a file that was here before."""
        if file.n_bytes is not None and path.stat().st_size != file.n_bytes:
            raise FileError(
                f"{path}: exists already with {path.stat().st_size} bytes; {file.n_bytes} are offered. Remove it first"
            )
        kind, _, expected = file.checksum.partition(":")
        if kind and checksum(path, kind) != expected:
            raise FileError(f"{path}: exists already with another {kind.upper()} than is published. Remove it first")
        self.add(file, Fetched(n_bytes=path.stat().st_size, sha256=checksum(path), checked=kind or "size"))
        return True

    def add(self, file: RemoteFile, fetched: Fetched) -> None:
        """Record a file that came; an archive is unpacked first, and goes."""
        if file.unpack:
            log(f"unpacking {file.path}")
            members = unpack(self.folder / file.path, self.folder)
            paths = [path.relative_to(self.folder).as_posix() for path in members]
            for path, name in zip(members, paths, strict=True):
                found = Fetched(n_bytes=path.stat().st_size, sha256=checksum(path), checked=f"the archive's {fetched.checked}")
                self._content["files"][name] = _entry(file, found)
            self._content["archives"][file.path] = paths
            (self.folder / file.path).unlink()
        else:
            self._content["files"][file.path] = _entry(file, fetched)
        write_json(self._path, self._content, sealed=True)


def _read_record(path: Path) -> dict[str, Any]:
    """The content of a `fetched.json`; `FileError` where it is not what `Record` writes."""
    content = read_json(path)
    with reading(path, "the record of a fetched folder"):
        if not all({"bytes", "sha256"} <= entry.keys() for entry in content["files"].values()):
            raise FileError(f"{path}: a file stands there without its bytes and SHA-256")
        known = content["files"].keys()
        unknown = [one for members in content["archives"].values() for one in members if one not in known]
    if unknown:
        raise FileError(f"{path}: {unknown[0]} came out of an archive, but is not among its files; fetch into another folder")
    return content


def _entry(file: RemoteFile, fetched: Fetched) -> dict[str, Any]:
    source = without_credentials(file.url)
    return {"bytes": fetched.n_bytes, "sha256": fetched.sha256, "source": source, "compared_with": fetched.checked}


def _fetch_all(client: Client, record: Record, files: Sequence[RemoteFile], parallel: int) -> None:
    """Fetch in several threads, the largest files first; `FileError` lists those that did not come."""
    counted, mistakes, total = _Count(), [], sum(file.n_bytes or 0 for file in files)
    in_order = sorted(files, key=lambda file: -(file.n_bytes or 0))
    with bar("fetching, MB", total // MB) as shown, _stopping(client, parallel) as pool:
        pending = {
            pool.submit(
                client.fetch,
                file.url,
                record.folder / file.path,
                n_bytes=file.n_bytes,
                checksum=file.checksum,
                arrived=counted.add,
            ): file
            for file in in_order
        }
        while pending:
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            mistakes += [error for future in done if (error := _finish(record, pending.pop(future), future))]
            shown.advance(counted.n_bytes // MB - shown.done, note=f"{len(files) - len(pending)} of {len(files)} files")
    if mistakes:
        lines = "\n".join(f"  {error}" for error in mistakes[:20])
        more = f"\n  and {len(mistakes) - 20} more" if len(mistakes) > 20 else ""
        raise FileError(
            f"{len(mistakes)} of {len(files)} files did not come; the same command tries them again:\n{lines}{more}"
        )


def _finish(record: Record, file: RemoteFile, future: "Future[Fetched]") -> PulvinarError | None:
    try:
        record.add(file, future.result())
    except PulvinarError as error:
        return error
    return None


@contextmanager
def _stopping(client: Client, parallel: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that end between two pieces when the block ends in an exception (Ctrl-C)."""
    pool = ThreadPoolExecutor(parallel)
    try:
        yield pool
    except BaseException:
        client.stopped.set()
        raise
    finally:
        pool.shutdown(cancel_futures=client.stopped.is_set())


class _Count:
    """Bytes that have come, of all threads."""

    def __init__(self) -> None:
        self.n_bytes, self._lock = 0, threading.Lock()

    def add(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes += n_bytes


def _summary(
    found: Dataset, folder: Path, files: Sequence[RemoteFile], *, fetched: Sequence[RemoteFile], dry_run: bool
) -> dict[str, Any]:
    facts: Facts = found.facts
    listed = {"would_fetch": {file.path: file.n_bytes for file in files}} if dry_run else {}
    return {
        "dataset": found.name,
        "folder": str(folder),
        "files": len(files),
        "bytes": sum(file.n_bytes or 0 for file in files),
        "fetched_now": len(fetched),
        **listed,
        "by_hand": facts.by_hand,
        "citation": facts.citation,
        "licence": facts.licence,
        "terms": facts.terms,
    }
