"""What `pulvinar doctor` says. Oracles: the package's own metadata, os, and caches and files planted here."""

import json
import os
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from pulvinar.app import doctor
from pulvinar.cli import main
from pulvinar.core import places

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    for name in ("one", "two"):
        (folder / "features" / name).mkdir(parents=True)
        (folder / "features" / name / "layer.npy").write_bytes(b"x" * 2**20)
    (folder / "checked.json").write_text("{}")
    (folder / "notes.txt").write_text("somebody's own")
    monkeypatch.setenv("PULVINAR_CACHE", str(folder))
    return folder


def test_every_extra_of_the_package_is_explained():
    assert set(doctor.EXTRAS) == set(metadata("pulvinar").get_all("Provides-Extra"))


def test_it_is_one_json_object_of_what_is_here(cache, capsys):
    assert main(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["threads"]["processors"] == os.cpu_count()
    assert result["cache"] == {"path": str(cache), "bytes": 2 * 2**20 + 2 + len("somebody's own"), "features": 2}
    assert result["memory"]["total"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert {disk["name"] for disk in result["disks"]} == {"here", "cache", "temporary"}
    assert result["devices"]["asked"] == "system"


def test_it_fits_a_terminal_and_names_what_is_missing(cache, capsys, monkeypatch):
    there = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: None if package in ("submitit", "nilearn") else there(package))
    left = places.temporary_name(cache / "x")
    left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{_dead()}-")).write_text("half")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "nilearn MISSING" in text
    assert "extras that are not installed:\n" in text
    assert "\n  cluster        sweep --on slurm, sweep --on dask (needs submitit)" in text
    assert "pip install 'pulvinar[cluster]'" in text
    assert "1 unfinished files of killed processes" in " ".join(text.split())


def _dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_torch_is_imported_only_where_it_is_asked():
    code = "import sys\nfrom pulvinar.cli import main\nmain(['doctor'])\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_torch_says_its_devices(capsys):
    import torch

    assert main(["doctor", "--devices", "--json"]) == 0
    devices = json.loads(capsys.readouterr().out)["devices"]
    assert devices["asked"] == "torch"
    assert len(devices["gpus"]) == torch.cuda.device_count()


@pytest.mark.skipif(fcntl is None, reason="no such locks on this system")
def test_the_cache_is_emptied_but_for_what_is_in_use_and_what_is_not_ours(cache, capsys):
    with (cache / "features" / "two" / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(["doctor", "--clear-cache"]) == 0
    assert f"freed 1.0 MB in {cache}; 1 sets of features are in use and stay" in capsys.readouterr().out
    assert sorted(path.relative_to(cache) for path in cache.rglob("*") if path.is_file()) == [
        Path("features/two/layer.npy"),
        Path("features/two/lock"),
        Path("notes.txt"),
    ]
    assert main(["doctor", "--clear-cache", "--devices"]) == 2
