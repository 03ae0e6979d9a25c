"""One changed byte in what a command uses: exit code 2 and the file's name. Oracle: the same command on the file as it was."""

import json
import shutil
from pathlib import Path

import h5py
import pytest

from pulvinar.cli import main
from pulvinar.core.errors import FileError
from pulvinar.data import experiment as experiments
from pulvinar.learning.runs import RunFolder


def change_a_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 16
    path.write_bytes(content)


@pytest.fixture
def damaged(world: Path, tmp_path: Path) -> Path:
    """The world with checksums, one byte of the new subject's last trial changed (which no fingerprint of a run samples)."""
    folder = experiments.save(experiments.load(world), tmp_path / "damaged")
    path = folder / "responses" / "sub-03.h5"
    with h5py.File(path) as file:
        offset = file["values"].id.get_offset() + (file["values"].shape[0] - 2) * file["values"].shape[1] * 4
    change_a_byte(path, offset)
    return folder


def commands(data: Path, run: Path, out: Path) -> list[list[str]]:
    return [
        ["fit", "troi", "--data", str(data), "--out", str(out)],
        ["fit", "troi", "--data", str(data), "--dry-run"],
        ["evaluate", str(run), "--data", str(data)],
        ["reconstruct", str(run), "--data", str(data)],
    ]


@pytest.mark.long
def test_damaged_responses_are_refused_wherever_they_are_used(damaged: Path, finished: Path, tmp_path: Path, capsys):
    for command in commands(damaged, finished, tmp_path / "run"):
        assert main(command) == 2, command
        assert "responses/sub-03.h5 damaged, or changed since written" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["data", "inspect", str(damaged), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files_that_differ_from_checksums"] == ["responses/sub-03.h5"]
    assert main(["fit", "troi", "--data", str(damaged), "--dry-run", "--checksums", "never"]) == 0


def test_a_damaged_result_is_refused_wherever_it_is_used(world: Path, finished: Path, tmp_path: Path, capsys):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "checkpoints" / "decoder.safetensors"
    change_a_byte(path, path.stat().st_size - 7)
    for command in (
        ["evaluate", str(run), "--data", str(world)],
        ["deploy", "compact", str(run), "--out", str(tmp_path / "net")],
    ):
        assert main(command) == 2, command
        assert "decoder.safetensors: cannot be read as a checkpoint: damaged" in capsys.readouterr().err


def test_a_damaged_evaluation_is_not_reported(finished: Path, tmp_path: Path, capsys):
    from pulvinar.core.storage import write_json

    run = Path(shutil.copytree(finished, tmp_path / "run"))
    write_json(run / "evaluation.json", {"rows": [{"name": "troi", "top1": 0.25}]}, sealed=True)
    text = (run / "evaluation.json").read_text()
    (run / "evaluation.json").write_text(text.replace("0.25", "0.35"))
    assert main(["report", str(run)]) == 2
    assert "evaluation.json: damaged, or changed since it was written" in capsys.readouterr().err


def test_a_run_goes_on_from_a_whole_checkpoint_alone(finished: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    path = run / "checkpoints" / "latest.safetensors"
    change_a_byte(path, path.stat().st_size - 7)
    with pytest.raises(FileError, match=r"latest\.safetensors"):
        RunFolder.reopen(run).load()
