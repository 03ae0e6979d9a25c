"""Downloads of single files; the oracle is the content that the server has."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from pulvinar.core.errors import FileError, NotFoundError
from pulvinar.data.archives import unpack
from pulvinar.data.downloads import Client

sys.path.insert(0, str(Path(__file__).parents[1]))
from web_server import Web, serving

CONTENT = os.urandom(1_000_000)


@pytest.fixture
def web():
    with serving() as web:
        web.files["/a.bin"] = CONTENT
        yield web


@pytest.fixture
def client() -> Client:
    return Client(timeout_s=0.5, first_pause_s=0.001)


def get(client: Client, web: Web, folder: Path, *, n_bytes: int | None = len(CONTENT), checksum: str = "", **more):
    return client.fetch(f"{web.url}/a.bin", folder / "a.bin", n_bytes=n_bytes, checksum=checksum, **more)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_file_and_its_checksum(web: Web, client: Client, tmp_path: Path):
    arrived: list[int] = []
    fetched = get(client, web, tmp_path, checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}", arrived=arrived.append)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert (fetched.n_bytes, fetched.sha256, fetched.checked) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "md5")
    assert sum(arrived) == len(CONTENT)
    assert left(tmp_path) == ["a.bin"]


def test_cuts_are_continued_where_they_ended(web: Web, client: Client, tmp_path: Path):
    web.faults.cut_after["a.bin"] = [100_000, 0, 300_000, 1]
    get(client, web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in web.asked] == ["", "bytes=100000-", "bytes=100000-", "bytes=400000-", "bytes=400001-"]
    assert web.sent == len(CONTENT)


def test_part_of_an_earlier_call_is_continued(web: Web, tmp_path: Path):
    web.faults.cut_after["a.bin"] = [600_000, *[0] * 5]
    with pytest.raises(FileError, match=r"breaks off.*5 times in a row; what has come is kept"):
        get(Client(timeout_s=0.5, first_pause_s=0.001), web, tmp_path)
    assert left(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    arrived: list[int] = []
    get(Client(), web, tmp_path, arrived=arrived.append)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert web.sent == len(CONTENT)
    assert arrived[0] == 600_000


@pytest.mark.parametrize(
    "note", ["[1]", "3", '{"url": "U", "tag": "x", "bytes": "9"}', '{"url": "U", "tag": "x", "bytes": [9]}']
)
def test_a_note_that_holds_something_else_begins_anew(web: Web, client: Client, tmp_path: Path, note: str):
    """Oracle: what the server has."""
    (tmp_path / "a.bin.part").write_bytes(b"other")
    (tmp_path / "a.bin.part.json").write_text(note.replace("U", f"{web.url}/a.bin"))
    get(client, web, tmp_path, n_bytes=None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("has_tags", [True, False], ids=["tag", "no tag"])
def test_part_of_a_file_that_has_changed_is_thrown_away(web: Web, client: Client, tmp_path: Path, has_tags: bool):
    web.faults.tags = has_tags
    web.faults.cut_after["a.bin"] = [600_000, *[0] * 5]
    with pytest.raises(FileError, match="breaks off"):
        get(client, web, tmp_path)
    web.files["/a.bin"] = bytes(len(CONTENT))
    get(client, web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == bytes(len(CONTENT))


def test_server_without_ranges_sends_all_of_it_again(web: Web, client: Client, tmp_path: Path):
    web.faults.ranges = False
    web.faults.cut_after["a.bin"] = [600_000]
    arrived: list[int] = []
    get(client, web, tmp_path, arrived=arrived.append)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert sum(arrived) == len(CONTENT)


def test_wrong_content_once_is_fetched_again(web: Web, client: Client, tmp_path: Path):
    web.faults.instead["a.bin"] = [bytes(len(CONTENT))]
    get(client, web, tmp_path, checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_wrong_content_twice_is_refused(web: Web, client: Client, tmp_path: Path):
    wrong = hashlib.md5(bytes(5)).hexdigest()
    with pytest.raises(FileError, match=f"MD5 {hashlib.md5(CONTENT).hexdigest()}, {wrong} is published. It was fetched twice"):
        get(client, web, tmp_path, checksum=f"md5:{wrong}")
    assert left(tmp_path) == []


def test_another_size_is_refused(web: Web, client: Client, tmp_path: Path):
    with pytest.raises(FileError, match="has 1000000 bytes, 999999 are published"):
        get(client, web, tmp_path, n_bytes=len(CONTENT) - 1)
    assert not (tmp_path / "a.bin").exists()


def test_not_there_is_said_at_once(web: Web, client: Client, tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"/b.bin: it is not there, or not any more \(404"):
        client.fetch(f"{web.url}/b.bin", tmp_path / "b.bin", n_bytes=None, checksum="")
    assert len(web.asked) == 1


def test_closed_is_said_at_once_and_busy_is_tried_again(web: Web, client: Client, tmp_path: Path):
    web.faults.status["a.bin"] = [503, 429, 500]
    get(client, web, tmp_path)
    web.faults.status["a.bin"] = [403]
    with pytest.raises(FileError, match="it is not public"):
        client.fetch(f"{web.url}/a.bin", tmp_path / "c.bin", n_bytes=None, checksum="")


def test_slow_answer_is_given_up_and_asked_again(web: Web, client: Client, tmp_path: Path):
    web.faults.first_pause_s["a.bin"] = [1.0]
    get(client, web, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(web.asked) == 2


def test_nobody_answers(client: Client, tmp_path: Path):
    with pytest.raises(FileError, match="refuses the connection, 5 times in a row"):
        client.fetch("http://127.0.0.1:9/a.bin", tmp_path / "a.bin", n_bytes=None, checksum="")


def test_web_page_in_place_of_a_file(web: Web, client: Client, tmp_path: Path):
    web.faults.html.add("/a.bin")
    with pytest.raises(FileError, match="sends a web page, no file"):
        get(client, web, tmp_path, n_bytes=None)


def test_answer_whose_end_cannot_be_told_is_refused(web: Web, client: Client, tmp_path: Path):
    web.faults.lengths = False
    with pytest.raises(FileError, match="does not say how long the file is"):
        get(client, web, tmp_path, n_bytes=None)
    get(client, web, tmp_path, n_bytes=None, checksum=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_nothing_secret_is_kept_or_said(web: Web, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen: list[object] = []
    with client.answer(f"{web.url}/a.bin") as response:
        seen.append(response.request.headers.get("Authorization"))
    assert seen == [None]
    web.faults.cut_after["a.bin"] = [10, *[0] * 5]
    address = web.url.replace("http://", "http://me:secret@") + "/a.bin?token=secret"
    with pytest.raises(FileError) as refused:
        client.fetch(address, tmp_path / "a.bin", n_bytes=None, checksum="")
    assert "secret" not in str(refused.value)
    assert "secret" not in json.dumps(json.loads((tmp_path / "a.bin.part.json").read_text()))


def test_archive_with_a_link_is_not_unpacked(tmp_path: Path):
    import io
    import tarfile

    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        file.addfile(tarfile.TarInfo("fine"), io.BytesIO())
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        file.addfile(link)
    with pytest.raises(FileError, match="holds out, which is neither file nor folder"):
        unpack(tmp_path / "a.tar.gz", tmp_path)
    assert left(tmp_path) == ["a.tar.gz"]


def test_archive_that_leads_out_of_the_folder_is_refused(tmp_path: Path):
    import io
    import tarfile

    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/a.tar.gz", "w:gz") as file:
        member = tarfile.TarInfo("../out")
        member.size = 1
        file.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(FileError, match=r"a\.tar\.gz"):
        unpack(tmp_path / "in/a.tar.gz", tmp_path / "in")
    assert left(tmp_path) == ["in"]
