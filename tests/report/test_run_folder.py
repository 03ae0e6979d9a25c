"""What is refused, and with which words; what may be missing."""

from pathlib import Path

import numpy as np
import pytest

from pulvinar.core.errors import FileError
from pulvinar.core.storage import read_json, write_json
from pulvinar.report import run_folder


def test_a_folder_without_run_json_says_what_is_missing_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FileError, match=r"not a run folder: run\.json is missing; there is: notes\.txt"):
        run_folder.read(tmp_path)


def test_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such run folder"):
        run_folder.read(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="it is a file"):
        run_folder.read(tmp_path / "file")


def test_run_json_alone_is_a_run(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"method": "troi"})
    run = run_folder.read(tmp_path)
    assert run.method == "troi"
    assert run.rows == run.records == run.published == ()
    assert run.maps is run.examples is run.evaluation is run.config is None


@pytest.mark.parametrize(
    "name", ["run.json", "evaluation.json", "published.json", "artifacts/maps.npz", "artifacts/examples.npz"]
)
def test_a_truncated_piece_is_named(make_run, tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run")
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=Path(name).name):
        run_folder.read(run)


def test_pickled_arrays_are_refused(make_run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    np.savez(run / "artifacts" / "maps.npz", coordinates=np.array([{}], dtype=object))
    with pytest.raises(FileError, match=r"maps\.npz.*holds Python objects"):
        run_folder.read(run)


def test_arrays_of_another_length_are_named(make_run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with np.load(run / "artifacts" / "maps.npz") as file:
        arrays = dict(file)
    np.savez(run / "artifacts" / "maps.npz", **arrays | {"selected": arrays["selected"][:-1]})
    with pytest.raises(FileError, match="'selected' has shape"):
        run_folder.read(run)


def test_a_difference_of_the_wrong_sign_is_refused(make_run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    evaluation = read_json(run / "evaluation.json")
    next(row for row in evaluation["rows"] if row["name"] == "random")["difference_to_troi"] = 0.52
    write_json(run / "evaluation.json", evaluation)
    with pytest.raises(
        FileError, match=r"row 'random': difference_to_troi is 0\.52, but brain_to_image_top1 is 0\.09 against 0\.61"
    ):
        run_folder.read(run)


def test_a_cut_off_line_of_metrics_is_counted(make_run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "refit", "epo')
    read = run_folder.read(run)
    assert read.n_unread_lines == 1
    assert len(read.records) == 75


@pytest.mark.parametrize("kind", ["volume", "surface", "points"])
def test_the_geometry_is_told_by_its_arrays(make_run, tmp_path: Path, kind: str) -> None:
    maps = run_folder.read(make_run(tmp_path / "run", kind=kind)).maps
    assert maps is not None
    assert maps.geometry.kind == kind
