"""The sentence of a run, word by word, from numbers that are set here."""

from pathlib import Path

import numpy as np
import pytest

from pulvinar.core.storage import read_json, write_json
from pulvinar.report import run_folder
from pulvinar.report.findings import cautions, coverage, headline
from pulvinar.report.page import build


def changed(run: Path, name: str, **values: object) -> run_folder.Run:
    """The run after some entries of one of its JSON files were replaced."""
    write_json(run / name, read_json(run / name) | values)
    return run_folder.read(run)


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_the_headline_is_computed_from_the_run(finished_run: Path) -> None:
    found = headline(run_folder.read(finished_run))
    lead = "300 of 8,188 voxels kept; 61 % of 300 images identified, 95 % interval [55 %, 67 %]"
    assert plain(found.lead) == lead
    rest = "Best fair control: univariate (smoothed) 57 % [51 %, 63 %] with 300 voxels (a tie). Chance is 0.3 %."
    assert plain(found.rest) == rest


def test_a_score_within_the_null_is_said_not_to_be_above_chance(make_run, tmp_path: Path) -> None:
    run = changed(make_run(tmp_path / "run"), "evaluation.json", null={"mean": 0.5, "percentile_95": 0.61})
    assert "the score is not above it (95th percentile of the null 61\u00a0%)" in headline(run).rest


def decoding_rows(rows: list[dict], **by_name: dict) -> list[dict]:
    return [{**row, **by_name.get(row["name"], {})} for row in rows]


def test_the_best_fair_control_is_no_oracle_and_has_no_larger_budget(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    rows = read_json(folder / "evaluation.json")["rows"]
    score, difference = "brain_to_image_top1", "difference_to_troi_interval"
    better = {score: 0.9, "difference_to_troi": 0.29, difference: [0.2, 0.4]}
    # of 8,188 voxels, and the oracle: not fair, however high; of a larger budget it is said beside
    found = headline(changed(folder, "evaluation.json", rows=decoding_rows(rows, all=better, ceiling_oracle=better)))
    assert "Best fair control: univariate (smoothed)" in found.rest
    assert "with a larger budget: all voxels 90" in found.rest
    # a flag makes an oracle too, whatever its name
    told = decoding_rows(rows, univariate_smoothed={"oracle": True})
    assert "Best fair control: ANOVA" in headline(changed(folder, "evaluation.json", rows=told)).rest
    # fair and higher: named, and a caution
    run = changed(folder, "evaluation.json", rows=decoding_rows(rows, random=better))
    assert "Best fair control: random voxels 90" in headline(run).rest
    assert any("fair control scores higher: random voxels" in text for text in cautions(run))


@pytest.mark.slow
def test_what_training_and_scoring_warned_of_is_a_caution(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    run = changed(folder, "run.json", cautions=["the gates were moved"], evaluation_cautions=["ROI 'a' has 3 voxels"])
    assert cautions(run) == ["the gates were moved", "ROI 'a' has 3 voxels"]
    page = build(folder).read_text()
    assert '<ul class="cautions"><li>the gates were moved</li>' in page


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
