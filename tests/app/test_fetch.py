"""`pulvinar data fetch` against a server of the tests that has S3's and figshare's forms; oracle: the folders it serves."""

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from pulvinar.app import registry
from pulvinar.app.data import open_data, simulate
from pulvinar.app.fetch import Record, _subject, fetch
from pulvinar.cli import main
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data import downloads
from pulvinar.datasets.bold5000.facts import FACTS

sys.path.insert(0, str(Path(__file__).parents[1]))
from web_server import Web, serving

FETCHED = [name for name in registry.names("datasets") if any(f.source for f in registry.dataset(name).facts.files)]


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "LONGEST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world in BOLD5000's layout."""
    folder = tmp_path_factory.mktemp("bold5000") / "there"
    simulate(str(folder), layout="bold5000", assignments=["n_voxels=200", "n_sessions=1", "image_size=16"])
    return folder


@pytest.fixture
def web(planted: Path):
    with serving() as web:
        names = [path.name for path in sorted(planted.iterdir()) if path.is_file() and path.name.startswith("CSI")]
        web.article("14456124", planted, names)
        web.bucket("openneuro.org", planted / "derivatives", prefix="ds001499/derivatives/")
        yield web


def get(web: Web, out: Path, *, subjects: tuple[str, ...] = ("1", "CSI2"), **more):
    return fetch("bold5000", out=str(out), subjects=subjects, mirror=web.url, **more)


@pytest.mark.long
def test_what_is_fetched_is_what_is_served_and_opens(web: Web, planted: Path, tmp_path: Path):
    web.page = 2  # listings of several pages
    result = get(web, tmp_path / "here")
    for path in (tmp_path / "here").rglob("*"):
        if path.is_file() and path.name not in ("fetched.json", ".lock"):
            assert path.read_bytes() == (planted / path.relative_to(tmp_path / "here")).read_bytes()
    assert list((tmp_path / "here/derivatives/spm/sub-CSI1").glob("*.nii.gz"))
    shutil.copytree(planted / "BOLD5000_Stimuli", tmp_path / "here/BOLD5000_Stimuli")
    shutil.copytree(planted / "features", tmp_path / "here/features")
    here, there = (open_data("experiment", f"bold5000:{place}?subjects=1,2") for place in (tmp_path / "here", planted))
    for name in here.subjects:
        np.testing.assert_array_equal(here.subjects[name].read(np.arange(5)), there.subjects[name].read(np.arange(5)))
    record = json.loads((tmp_path / "here/fetched.json").read_text())["files"]
    assert len(record) == result["files"] == result["fetched_now"]
    assert {entry["compared_with"] for entry in record.values()} == {"md5"}
    name = next(iter(record))
    assert record[name]["sha256"] == hashlib.sha256((planted / name).read_bytes()).hexdigest()


def test_the_same_command_fetches_only_what_is_missing(web: Web, tmp_path: Path):
    get(web, tmp_path, subjects=("1",))
    (tmp_path / "CSI1_imgnames.txt").unlink()
    web.asked.clear()
    assert get(web, tmp_path, subjects=("1",))["fetched_now"] == 1
    assert [path for path, _ in web.asked if path.startswith("/download")] == ["/download/CSI1_imgnames.txt"]


def test_sessions_alone(web: Web, tmp_path: Path):
    item = next(item for item in web.articles["14456124"] if "CSI1" in item["name"] and "ses-01" in item["name"])
    web.articles["14456124"].append({**item, "name": item["name"].replace("ses-01", "ses-02")})
    get(web, tmp_path, subjects=("1",), sessions=(1,))
    assert [path.name for path in tmp_path.glob("*_ses-*")] == ["CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz"]
    with pytest.raises(NotFoundError, match=r"nothing there fits CSI1_GLMbetas.* in sessions 99"):
        get(web, tmp_path, subjects=("1",), sessions=(99,))


def test_damage_here_is_found_with_checksums_always(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    get(web, tmp_path, subjects=("1",))
    path = tmp_path / "CSI1_imgnames.txt"
    path.write_bytes(path.read_bytes()[::-1])
    assert get(web, tmp_path, subjects=("1",))["fetched_now"] == 0
    monkeypatch.setenv("PULVINAR_CHECKSUMS", "always")
    with pytest.raises(FileError, match=r"CSI1_imgnames.txt: damaged, or changed"):
        get(web, tmp_path, subjects=("1",))


def test_files_that_lay_here_are_taken_in_or_refused(web: Web, planted: Path, tmp_path: Path):
    shutil.copy(planted / "CSI1_imgnames.txt", tmp_path)
    web.asked.clear()
    get(web, tmp_path, subjects=("1",))
    assert "/download/CSI1_imgnames.txt" not in [path for path, _ in web.asked]
    (tmp_path / "other").mkdir()
    content = (planted / "CSI1_imgnames.txt").read_bytes()
    (tmp_path / "other/CSI1_imgnames.txt").write_bytes(content[:-1])
    with pytest.raises(FileError, match=r"exists already with .* bytes"):
        get(web, tmp_path / "other", subjects=("1",))
    (tmp_path / "other/CSI1_imgnames.txt").write_bytes(content[::-1])
    with pytest.raises(FileError, match="exists already with another MD5"):
        get(web, tmp_path / "other", subjects=("1",))
    assert (tmp_path / "other/CSI1_imgnames.txt").read_bytes() == content[::-1]


def test_all_files_that_did_not_come_are_listed_and_the_others_kept(web: Web, tmp_path: Path):
    web.faults.status = {"CSI1_imgnames.txt": [403], "CSI1_brainmask.nii.gz": [404]}
    with pytest.raises(FileError, match=r"2 of .* files did not come") as refused:
        get(web, tmp_path, subjects=("1",))
    assert "CSI1_imgnames.txt: it is not public" in str(refused.value)
    assert "CSI1_brainmask.nii.gz: it is not there" in str(refused.value)
    assert list(tmp_path.glob("CSI1_GLMbetas*.nii.gz"))
    assert get(web, tmp_path, subjects=("1",))["fetched_now"] == 2


def test_wrong_checksum_is_refused_and_leaves_nothing(web: Web, tmp_path: Path):
    for item in web.articles["14456124"]:
        item["computed_md5"] = "0" * 32 if item["name"] == "CSI1_imgnames.txt" else item["computed_md5"]
    with pytest.raises(FileError, match=r"CSI1_imgnames.txt: not written.* It was fetched twice"):
        get(web, tmp_path, subjects=("1",))
    assert not list(tmp_path.glob("CSI1_imgnames*"))


def test_no_room_is_said_before_anything_comes(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    with pytest.raises(FileError, match="are to be fetched, 1 kB are free; nothing was fetched"):
        get(web, tmp_path)
    assert not [path for path, _ in web.asked if path.startswith("/download")]


def test_a_full_disk_on_the_way(web: Web, tmp_path: Path):
    """/dev/full stands for the disk: its system call is that of a full one."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "CSI1_imgnames.txt.part").symlink_to("/dev/full")
    with pytest.raises(FileError, match="the disk is full; make room, and the same command continues it"):
        get(web, tmp_path, subjects=("1",))
    assert not (tmp_path / "CSI1_imgnames.txt").exists()


def test_an_answer_that_is_no_listing(web: Web, tmp_path: Path):
    web.articles.clear()
    with pytest.raises(NotFoundError, match="v2/articles/14456124/files: it is not there"):
        get(web, tmp_path)


@pytest.mark.parametrize("size", ["h1", "-4", "1e3"])
@pytest.mark.parametrize("form", ["S3", "figshare", "mirror"])
def test_a_listing_with_a_size_that_is_none(web: Web, tmp_path: Path, form: str, size: str):
    """Each of the three forms of listing; the first that is asked is the one that is wrong."""
    if form == "mirror":
        web.files["/mirror/fetched.json"] = json.dumps({"files": {"x": {"bytes": size, "sha256": "0" * 64}}}).encode()
        where, said = f"{web.url}/mirror", "the record of a fetched folder"
    elif form == "figshare":
        (files,) = web.articles.values()
        files[0]["size"] = size
        where, said = web.url, "figshare's list of files"
    else:
        web.size = size
        where, said = web.url, "a listing of S3"
    with pytest.raises(FileError, match=f"cannot be read as {said}"):
        fetch("bold5000", out=str(tmp_path / "here"), subjects=("1",), mirror=where)


def test_names_that_lead_out_of_the_folder_are_refused(web: Web, tmp_path: Path):
    web.files["/mirror/fetched.json"] = json.dumps({"files": {"../x": {"bytes": 1, "sha256": "0" * 64}}}).encode()
    with pytest.raises(FileError, match=r"its name '\.\./x' would lead out of the folder"):
        fetch("bold5000", out=str(tmp_path / "here"), subjects=("1",), mirror=f"{web.url}/mirror")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"dataset": "bold5000"}',
        '{"dataset": "bold5000", "files": {"a": 1}, "archives": {}}',
        '{"dataset": "bold5000", "files": {"a": {"bytes": 1}}, "archives": {}}',
        '{"dataset": "bold5000", "files": {}, "archives": {"a.zip": ["b"]}}',
    ],
)
def test_a_record_that_holds_something_else_is_refused(tmp_path: Path, content: str):
    (tmp_path / "fetched.json").write_text(content)
    with pytest.raises(FileError, match=r"fetched\.json"):
        Record(tmp_path, "bold5000")


def test_a_fetched_folder_is_a_mirror(web: Web, tmp_path: Path):
    get(web, tmp_path / "first", subjects=("1",))
    with serving() as mirror:
        mirror.bucket("lab/bold5000", tmp_path / "first")
        fetch("bold5000", out=str(tmp_path / "second"), subjects=("1",), mirror=f"{mirror.url}/lab/bold5000")
        first, second = (json.loads((tmp_path / name / "fetched.json").read_text())["files"] for name in ("first", "second"))
        assert {path: entry["sha256"] for path, entry in first.items()} == {p: entry["sha256"] for p, entry in second.items()}
        with pytest.raises(NotFoundError, match="nothing there fits CSI2"):
            fetch("bold5000", out=str(tmp_path / "third"), subjects=("2",), mirror=f"{mirror.url}/lab/bold5000")


def test_an_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        member = tarfile.TarInfo("stl10_binary/train_X.bin")
        member.size = 5
        file.addfile(member, io.BytesIO(b"12345"))
    with serving() as web:
        web.files["/ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"] = packed.getvalue()
        facts = registry.dataset("stl10").facts
        md5 = hashlib.md5(packed.getvalue()).hexdigest()
        object.__setattr__(facts.files[0], "checksum", f"md5:{md5}")
        try:
            for n_new in (1, 0):
                assert fetch("stl10", out=str(tmp_path), mirror=web.url)["fetched_now"] == n_new
        finally:
            object.__setattr__(facts.files[0], "checksum", "md5:91f7769df0f17e558f3565bffb0c7dfb")
        assert (tmp_path / "stl10_binary/train_X.bin").read_bytes() == b"12345"
        assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
            "fetched.json",
            "stl10_binary",
        ]
        with pytest.raises(FileError, match=r"MD5 .*, 91f7769df0f17e558f3565bffb0c7dfb is published"):
            fetch("stl10", out=str(tmp_path / "other"), mirror=web.url)


def test_terms_are_shown_and_have_to_be_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with serving() as web:
        web.files["/natural-scenes-dataset/nsddata/experiments/nsd/nsd_expdesign.mat"] = b"x"
        command = ["data", "fetch", "nsd", "--subjects", "1", "--out", str(tmp_path / "nsd"), "--from", web.url]
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "data access agreement" in said
        assert "--accept-terms" in said
        assert web.asked == []
        assert main([*command, "--accept-terms"]) == 2
        assert "nothing there fits nsddata/ppdata/subj01/func1pt8mm/brainmask.nii.gz" in capsys.readouterr().err


def test_dry_run_lists_and_writes_nothing(web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["data", "fetch", "bold5000", "--subjects", "1", "--out", str(tmp_path / "x"), "--from", web.url, "--dry-run"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "CSI1_brainmask.nii.gz" in said
    assert "by hand: the pictures" in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("imagenet100", {}, "is not fetched. By hand: register at image-net.org"),
        ("arrays", {}, "is not fetched"),
        ("bold5000", {}, "--subjects is needed: some of CSI1, CSI2"),
        ("bold5000", {"subjects": ("7",)}, "no '7'; there are CSI1"),
        ("mosaic", {"subjects": ("1",), "accept_terms": True}, "1 may be sub-01_NSD, sub-01_BOLD5000"),
        ("stl10", {"subjects": ("1",)}, "stl10 has none"),
        ("god", {"subjects": ("1",), "sessions": (1,)}, "are not by session"),
        ("laion_fmri", {"subjects": ("1",), "sessions": (31,)}, "public are 1 to 30; 31 came"),
        ("bold5000", {"subjects": ("1",), "parallel": 0}, "--parallel is 1 or more"),
        ("bold5000", {"subjects": ("1",), "mirror": "ftp://x"}, "a web address"),
    ],
)
def test_what_cannot_be_asked_for(name, more, said, tmp_path: Path):
    with pytest.raises((InputError, NotFoundError), match=said.replace("(", r"\(")):
        fetch(name, out=str(tmp_path / "x"), **more)
    assert not (tmp_path / "x").exists()


def test_subjects_by_name_number_and_pattern():
    assert _subject(("CSI1", "CSI2"), "2") == ["CSI2"]
    assert _subject(("sub-01", "sub-10"), "01") == ["sub-01"]
    assert _subject(registry.dataset("mosaic").facts.subjects, "*_GOD") == [f"sub-0{number}_GOD" for number in range(1, 6)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FETCHED)
def test_layouts_that_we_write_have_the_files_that_are_fetched(name, tmp_path: Path):
    """Every name that is needed is one that the data set's reader reads: our writer, which it is tested with, writes it."""
    found = registry.dataset(name)
    if found.generate is None:
        pytest.skip("no writer")
    simulate(str(tmp_path / "there"), layout=name)
    if name == "things_fmri":
        _as_openneuro(tmp_path / "there")
    with serving() as web:
        for file in found.facts.files:
            if file.source.startswith("s3://"):
                bucket, _, prefix = file.source.removeprefix("s3://").partition("/")
                web.bucket(bucket.partition("@")[0], tmp_path / "there", prefix=f"{prefix}/" if prefix else "")
            else:
                number = file.source.removeprefix("figshare:")
                if number and number not in web.articles:
                    web.article(number, tmp_path / "there", [p.name for p in (tmp_path / "there").iterdir() if p.is_file()])
        there = _first_subject(found.facts.subjects, tmp_path / "there")
        result = fetch(name, out=str(tmp_path / "here"), subjects=(there,), mirror=web.url, accept_terms=True)
    assert result["files"] >= 1


def _as_openneuro(root: Path) -> None:
    """THINGS' tables, which are written as figshare has them, as OpenNeuro has them; the reader takes both."""
    for table in list((root / "betas_csv").iterdir()):
        subject, _, kind = table.name.partition("_")
        name = {"ResponseData.h5": "voxel-wise-responses.h5", "StimulusMetadata.csv": "stimulus-metadata.tsv"}
        folder = root / "derivatives" / "ICA-betas" / subject / "voxel-metadata"
        folder.mkdir(parents=True, exist_ok=True)
        table.rename(folder / f"{subject}_task-things_{name.get(kind, 'voxel-metadata.tsv')}")


def _first_subject(names: tuple[str, ...], folder: Path) -> str:
    paths = " ".join(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return next(name for name in names if name in paths)


@pytest.mark.slow
def test_killed_and_started_again(web: Web, planted: Path, tmp_path: Path):
    """Killed in the middle (SIGKILL), then by SIGTERM; what has come is not asked for again."""
    web.files["/download/CSI1_imgnames.txt"] += b"\n" * 3_000_000
    content = web.files["/download/CSI1_imgnames.txt"]
    for item in web.articles["14456124"]:
        if item["name"] == "CSI1_imgnames.txt":
            item |= {"size": len(content), "computed_md5": hashlib.md5(content).hexdigest()}
    web.faults.pause_s = 0.02
    command = [sys.executable, "-m", "pulvinar.cli", "data", "fetch", "bold5000", "--subjects", "1", "--out", str(tmp_path)]
    part = tmp_path / "CSI1_imgnames.txt.part"
    for number, least in ((signal.SIGKILL, 300_000), (signal.SIGTERM, 900_000)):
        process = subprocess.Popen([*command, "--from", web.url], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (part.is_file() and part.stat().st_size > least) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == 143
    assert "interrupted. Kept: what has come" in said
    come, sent = part.stat().st_size, web.sent
    web.faults.pause_s = 0.0
    get(web, tmp_path, subjects=("1",))
    assert (tmp_path / "CSI1_imgnames.txt").read_bytes() == content
    assert ("/download/CSI1_imgnames.txt", f"bytes={come}-") in web.asked
    assert web.sent - sent <= sum(len(f) for p, f in web.files.items() if "CSI1" in p) - come
    assert not list(tmp_path.glob("*.part*"))


def test_facts_name_each_file_once():
    paths = [file.path for file in FACTS.files]
    assert len(set(paths)) == len(paths)
