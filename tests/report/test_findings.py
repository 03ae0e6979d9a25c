"""The sentence of a run, word by word, from numbers that are set here."""

from pathlib import Path

import numpy as np
import pytest

from pulvinar.report import run_folder
from pulvinar.report.findings import cautions, coverage, headline
from pulvinar.storage import read_json, write_json


def changed(run: Path, name: str, **values: object) -> run_folder.Run:
    """The run after some entries of one of its JSON files were replaced."""
    write_json(run / name, read_json(run / name) | values)
    return run_folder.read(run)


def test_the_headline_is_computed_from_the_run(finished_run: Path) -> None:
    found = headline(run_folder.read(finished_run))
    assert found.lead.replace("\u00a0", " ") == "300 of 8,188 voxels kept; 61 % of 300 images identified"
    assert found.rest.replace("\u00a0", " ") == "Chance is 0.3 %; annotated ROI 58 % with 1,100 voxels (a tie)."


def test_a_score_within_the_null_is_said_not_to_be_above_chance(make_run, tmp_path: Path) -> None:
    run = changed(make_run(tmp_path / "run"), "evaluation.json", null={"mean": 0.5, "percentile_95": 0.61})
    assert "the score is not above it (95th percentile of the null 61\u00a0%)" in headline(run).rest


@pytest.mark.parametrize(
    ("absent", "named"), [(set(), "annotated ROI"), ({"annotated"}, "all voxels"), ({"annotated", "all"}, "oracle")]
)
def test_the_control_named_is_the_annotated_roi_then_all_voxels_then_the_best(make_run, tmp_path, absent, named) -> None:
    folder = make_run(tmp_path / "run")
    rows = [row for row in read_json(folder / "evaluation.json")["rows"] if row["name"] not in absent]
    assert named in headline(changed(folder, "evaluation.json", rows=rows)).rest


def test_a_run_that_was_not_evaluated_or_has_no_selection(make_run, tmp_path: Path) -> None:
    run = run_folder.read(make_run(tmp_path / "run", without=("evaluation.json",)))
    assert headline(run) == ("300 of 8,188 voxels kept", "The run was not evaluated.")
    assert headline(changed(tmp_path / "run", "run.json", selection=None)).lead == "No selection was recorded"


def test_a_clean_run_has_no_cautions(finished_run: Path) -> None:
    assert cautions(run_folder.read(finished_run)) == []


def test_cautions_name_what_limits_the_numbers(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    changed(folder, "run.json", status="interrupted", selection={"path": "safety: round 3 would keep none"})
    area = {"area": 2, "name": "lateral", "n_voxels": 50, "n_selected": 0}
    run = changed(folder, "evaluation.json", rules_broken=["scaled with test trials"], coverage=[area])
    said = cautions(run)
    assert len(said) == 4
    for text, part in zip(said, ("interrupted", "scaled with test trials", "round 3 would keep none", "lateral"), strict=True):
        assert part in text


def test_coverage_without_an_evaluation_is_counted_from_the_maps(make_run, tmp_path: Path) -> None:
    run = run_folder.read(make_run(tmp_path / "run", without=("evaluation.json",)))
    stored = {area["area"]: area for area in coverage(run)}
    assert set(stored) == set(np.unique(run.maps.area)) - {0}
    for number, area in stored.items():
        inside = [bool(s) for s, a in zip(run.maps.selected, run.maps.area, strict=True) if a == number]
        assert (area["n_voxels"], area["n_selected"]) == (len(inside), sum(inside))
