"""What a data set's owners offer: listings of public S3 buckets and figshare articles, and files at web addresses.

S3 is read without a name, over HTTPS: `?list-type=2` gives 1,000 keys at a time, as XML. figshare's interface gives name, size,
MD5 and address of every file of an article. Where a mirror is named, it is asked instead: a web folder with the files as they
lie in a fetched one, with its `fetched.json`; or an address of S3's and figshare's form.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.storage import reading
from pulvinar.data.dataset import Facts, PublishedFile
from pulvinar.data.downloads import Client, without_credentials

FIGSHARE = "https://api.figshare.com"
RECORD = "fetched.json"  # in a fetched folder: every file with size, SHA-256 and source
MD5_TAG = re.compile(r"[0-9a-f]{32}")  # an S3 tag of this form is the MD5 of what is public: it was not uploaded in parts
LARGEST_ANSWER = 2**26  # bytes of one page of a listing
PLACEHOLDER = re.compile(r"\{subject\}|\{session\}|\*")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file to fetch: place in the folder, address, and what is known of it before it is here."""

    path: str
    url: str
    n_bytes: int | None = None
    checksum: str = ""
    unpack: bool = False

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if any(part in ("", ".", "..") for part in parts) or re.search(r"[\\:\0]", self.path):
            raise FileError(
                f"{without_credentials(self.url)}: its name {self.path!r} would lead out of the folder; not fetched"
            )


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which files are asked for: subjects by their names in the files, sessions by number (none: all), images or not."""

    subjects: Sequence[str] = ()
    sessions: Sequence[int] = ()
    images: bool = False


def offered(facts: Facts, wish: Wish, client: Client, mirror: str | None = None) -> list[RemoteFile]:
    """The files of a data set that fit a wish, as its sources list them now.

    `NotFoundError` where a file that is needed is not offered; `FileError` where a source does not answer.
    """
    wanted = [file for file in facts.files if file.source and (wish.images or not file.images)]
    mirrored = _mirrored(mirror, client) if mirror else None
    found: dict[str, RemoteFile] = {}
    for file in wanted:
        for subject in wish.subjects if "{subject}" in file.path else [""]:
            if mirrored is None:
                remotes = list(_fitting(file, subject, wish, facts, client, mirror))
            else:
                remotes = [remote for remote in mirrored if _is_meant(_pattern(file.path, subject), remote.path, wish, facts)]
            if not remotes and not file.optional and (mirrored is None or not file.unpack):
                raise _missing(file, subject, wish, mirror)
            found |= {remote.path: remote for remote in remotes}
    if mirrored is not None and any(file.unpack for file in wanted):
        found |= {remote.path: remote for remote in mirrored}  # what the archive held, unpacked there
    return list(found.values())


def _missing(file: PublishedFile, subject: str, wish: Wish, mirror: str | None) -> NotFoundError:
    name = file.path.replace("{subject}", subject)
    of = f" in sessions {', '.join(map(str, wish.sessions))}" if wish.sessions and "{session}" in file.path else ""
    place = without_credentials(mirror) if mirror else file.source
    return NotFoundError(
        f"{place}: nothing there fits {name}{of}. Its owners may have moved it; the data set's page says how to get it by hand"
    )


def _fitting(
    file: PublishedFile, subject: str, wish: Wish, facts: Facts, client: Client, mirror: str | None
) -> Iterator[RemoteFile]:
    pattern = _pattern(file.path, subject)
    listing: Iterable[RemoteFile]
    if file.source.startswith("s3://"):
        listing = _of_s3(file.source, _beginning(file.path, subject), client, mirror)
    elif file.source.startswith("figshare:"):
        listing = _of_figshare(file.source, client, mirror)
    else:
        listing = [_at_address(file, mirror)]
    for remote in listing:
        if _is_meant(pattern, remote.path, wish, facts):
            yield RemoteFile(
                path=remote.path,
                url=remote.url,
                n_bytes=file.n_bytes if remote.n_bytes is None else remote.n_bytes,
                checksum=file.checksum or remote.checksum,
                unpack=file.unpack,
            )


def _pattern(path: str, subject: str) -> re.Pattern[str]:
    """What the names of a published file look like; a session is one number in all places of a name."""
    parts, seen = [], False
    for text in re.split(f"({PLACEHOLDER.pattern})", path):
        if text == "{subject}":
            parts.append(re.escape(subject))
        elif text == "{session}":
            parts.append(r"(?P=session)" if seen else r"(?P<session>[0-9]{1,9})")
            seen = True
        else:
            parts.append(r"[^/]*" if text == "*" else re.escape(text))
    return re.compile("".join(parts))


def _beginning(path: str, subject: str) -> str:
    """What every name that fits begins with."""
    rest = path.replace("{subject}", subject) if subject else path
    return PLACEHOLDER.split(rest)[0]


def _is_meant(pattern: re.Pattern[str], name: str, wish: Wish, facts: Facts) -> bool:
    found = pattern.fullmatch(name)
    if found is None:
        return False
    session = found.groupdict().get("session")
    public = not facts.sessions or session is None or int(session) in facts.sessions
    return public and (not wish.sessions or session is None or int(session) in wish.sessions)


def _of_s3(source: str, beginning: str, client: Client, mirror: str | None) -> Iterator[RemoteFile]:
    """The objects below a prefix of a public bucket."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    bucket, _, region = bucket.partition("@")
    prefix = f"{prefix}/" if prefix else ""
    base, token = _s3_address(bucket, region, mirror), ""
    while True:
        query = {"list-type": "2", "prefix": prefix + beginning, **({"continuation-token": token} if token else {})}
        url = f"{base}?{urlencode(query)}"
        answer = _xml(client.get(url, LARGEST_ANSWER, what="a listing"), url)
        for item in answer.iterfind("Contents"):
            key, tag = item.findtext("Key") or "", (item.findtext("ETag") or "").strip('"')
            if key.endswith("/") or not key.startswith(prefix):
                continue
            with reading(without_credentials(url), "a listing of S3"):
                n_bytes = _size(item.findtext("Size") or 0)
            yield RemoteFile(
                path=key.removeprefix(prefix),
                url=base + quote(key),
                n_bytes=n_bytes,
                checksum=f"md5:{tag}" if MD5_TAG.fullmatch(tag) else "",
            )
        token = answer.findtext("NextContinuationToken") or ""
        if answer.findtext("IsTruncated") != "true" or not token:
            return


def _size(stated: Any) -> int:
    """Bytes of a file as a listing states them; `ValueError` for what is none."""
    if (size := int(stated)) < 0:
        raise ValueError(f"a file of {size} bytes")
    return size


def _s3_address(bucket: str, region: str, mirror: str | None) -> str:
    if mirror:
        return f"{mirror.rstrip('/')}/{bucket}/"
    if "." in bucket:  # a certificate of S3 does not cover such names
        return f"https://s3.amazonaws.com/{bucket}/"
    return f"https://{bucket}.s3.{f'{region}.' if region else ''}amazonaws.com/"


def _xml(content: bytes, url: str) -> ElementTree.Element:
    if b"<!" in content:  # a document type, which no listing has; entities are defined there
        raise FileError(f"{without_credentials(url)}: no listing of S3 came (a page with a document type)")
    with reading(without_credentials(url), "a listing of S3"):
        root = ElementTree.fromstring(content)
    for item in root.iter():
        item.tag = item.tag.rpartition("}")[2]
    if root.tag != "ListBucketResult":
        raise FileError(f"{without_credentials(url)}: no listing of S3 came, but <{root.tag}>")
    return root


def _of_figshare(source: str, client: Client, mirror: str | None) -> list[RemoteFile]:
    """The files of an article, in its newest version."""
    article, found, page = source.removeprefix("figshare:"), [], 1
    base = (mirror or FIGSHARE).rstrip("/")
    while True:
        url = f"{base}/v2/articles/{article}/files?page_size=1000&page={page}"
        listed = client.json(url, LARGEST_ANSWER)
        with reading(without_credentials(url), "figshare's list of files"):
            found += [_figshare_file(item) for item in listed]
        if len(listed) < 1000:
            return found
        page += 1


def _figshare_file(item: dict[str, Any]) -> RemoteFile:
    md5 = item.get("computed_md5") or item.get("supplied_md5") or ""
    return RemoteFile(
        path=str(item["name"]), url=str(item["download_url"]), n_bytes=_size(item["size"]), checksum=f"md5:{md5}" if md5 else ""
    )


def _at_address(file: PublishedFile, mirror: str | None) -> RemoteFile:
    address = urlsplit(f"{file.source.rstrip('/')}/{quote(file.path)}")
    url = f"{mirror.rstrip('/')}/{address.netloc}{address.path}" if mirror else address.geturl()
    return RemoteFile(path=file.path, url=url)


def _mirrored(mirror: str, client: Client) -> list[RemoteFile] | None:
    """What a mirror with a `fetched.json` holds; None where it has none and is asked as the sources are."""
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise InputError(f"--from: a web address, http:// or https://, is needed; {mirror} came")
    url = f"{mirror.rstrip('/')}/{RECORD}"
    record = client.json(url, LARGEST_ANSWER, missing_ok=True)
    if record is None:
        return None
    with reading(without_credentials(url), "the record of a fetched folder"):
        return [
            RemoteFile(
                path=str(path),
                url=f"{mirror.rstrip('/')}/{quote(path)}",
                n_bytes=_size(entry["bytes"]),
                checksum=f"sha256:{entry['sha256']}",
            )
            for path, entry in record["files"].items()
        ]
