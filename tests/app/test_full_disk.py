"""A disk that is too small for what a command writes: exit code 2, one line, nothing left. In a process of its own, on a tmpfs.

HDF5 cannot close a file whose write failed, and ends the process then or when Python ends (it did, from 4 to 200 kB); a
memory map of a file without room ends it by SIGBUS.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUN = """
import contextlib, io, json, sys
from pulvinar.cli import main

def run(arguments):
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main([*arguments, "--quiet"])
        except SystemExit as error:
            code = f"exit {error.code}"
    return [code, said.getvalue()]

json.dump([run(arguments) for arguments in json.loads(sys.argv[1])], sys.stdout)
"""


def run_all(commands: list[list[str]]) -> list[tuple[int, str]]:
    """Exit code and stderr of each, from one process, which must end well itself."""
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(commands)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return [(code, said) for code, said in json.loads(done.stdout)]


@pytest.fixture(params=[4, 64])
def small(request, tmp_path):
    """A tmpfs of so many kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def write_description(folder: Path) -> Path:
    """Twenty trials of fifty voxels in files of their own."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    np.save(folder / "responses.npy", generator.normal(size=(20, 5000)).astype(np.float32))
    np.save(folder / "places.npy", np.argwhere(np.ones((50, 10, 10))).astype(float))
    np.savez(folder / "clip.npz", clip=generator.normal(size=(20, 4)), id=[f"s{row:02d}" for row in range(20)])
    rows = "".join(f"s{row:02d},{'test' if row > 14 else 'train'}\n" for row in range(20))
    (folder / "trials.csv").write_text("stimulus,split\n" + rows)
    (folder / "study.toml").write_text(
        '[stimuli]\nfeatures.clip = "clip.npz"\n[[subject]]\nname = "a"\nresponses = "responses.npy"\n'
        'trials = "trials.csv"\ncoordinates = "places.npy"\n'
    )
    return folder / "study.toml"


@pytest.mark.slow
def test_no_command_ends_badly_or_leaves_anything(small, world, finished, quick, tmp_path):
    description = write_description(tmp_path / "study")
    rdm = np.abs(np.subtract.outer(np.arange(200.0), np.arange(200.0))) + np.random.default_rng(0).random((200, 200))
    np.save(tmp_path / "rdm.npy", (rdm + rdm.T) * (1 - np.eye(200)))
    commands = [
        ["fit", "troi", "--data", str(world), "--out", str(small / "run"), "--set", *quick],
        ["data", "convert", str(description), str(small / "converted")],
        ["data", "simulate", "--out", str(small / "simulated"), "--n-voxels", "300"],
        ["report", str(finished), "--out", str(small / "report.html")],
        ["rsa", "submit", "--out", str(small / "submission"), f"evc={tmp_path / 'rdm.npy'}", f"it={tmp_path / 'rdm.npy'}"],
        ["deploy", "compact", str(finished), "--out", str(small / "net")],
    ]
    kept = {path for path in finished.rglob("*") if ".partial-" in path.name}
    for command, (code, said) in zip(commands, run_all(commands), strict=True):
        assert code == 2, (command, code, said)
        assert "error: " in said, (command, said)  # a warning may stand before it
        assert "disk is full" in said, (command, said)
    begun = small / "run"  # of a fit that had room for its folder: it goes on with --resume
    assert [path for path in small.rglob("*") if path != begun and begun not in path.parents] == []
    assert not list(small.rglob(".partial-*"))
    assert {path for path in finished.rglob("*") if ".partial-" in path.name} == kept


@pytest.mark.slow
def test_a_run_on_a_disk_that_fills_up_keeps_what_it_had(world, finished, tmp_path):
    """The evaluation of a run that lies on the disk itself: what was there before is there after."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        subprocess.run(["cp", "-r", str(finished), str(folder / "run")], check=True)
        before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
        with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        commands = [["evaluate", str(folder / "run"), "--data", str(world)], ["report", str(folder / "run")]]
        for code, said in run_all(commands):
            assert code == 2
            assert "disk is full" in said
        after = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
        assert after == before
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_the_values_of_an_hdf5_file_have_their_room_before_they_are_mapped(tmp_path):
    """Oracle: blocks on the disk. A hole would end the process (SIGBUS) where it is written through a memory map."""
    from pulvinar.data import experiment as experiments
    from pulvinar.data.geometry import Geometry
    from pulvinar.data.responses import Responses

    ids = [f"s{row}" for row in range(400)]
    geometry = Geometry.from_points(np.arange(500)[:, None])
    responses = Responses(subject="a", values=np.zeros((400, 500), np.float32), stimulus_ids=ids, geometry=geometry)
    experiments.create_response_file(responses, Path(tmp_path / "responses" / "a.h5"))
    found = (tmp_path / "responses" / "a.h5").stat()
    assert found.st_blocks * 512 >= found.st_size > 400 * 500 * 4
