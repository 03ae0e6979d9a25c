"""The page of an RSA run: what it says is computed from the evaluation; figures are there; arrangements keep distances."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from pulvinar.core.storage import write_arrays, write_json
from pulvinar.report import page
from pulvinar.rsa import figures as rsa_figures


def row(name: str, percent: float, lead: float | None = None) -> dict:
    made = {
        "target": "it",
        "name": name,
        "rho": percent / 100,
        "rho_interval": [0.0, 0.5],
        "percent": percent,
        "percent_interval": [percent - 3, percent + 3],
        "null_percent": 0.7,
        "null_percent_95": 2.0,
        "above_null_percent": percent - 0.7,
    }
    if lead is not None:
        made["ours_minus_this"] = {"rho": lead, "interval": [lead - 0.05, lead + 0.05], "p_value": 0.01}
    return made


def make(folder: Path) -> Path:
    """A made-up run of four images and two stages."""
    ceiling = {"upper": 0.3, "lower": 0.2, "n_pairs": 6, "n_subjects": 4}
    importance = [
        {
            "stage": name,
            "mean_scale": 1.2,
            "mean_scale_interval": [1, 1.4],
            "share": 0.5,
            "share_interval": [0.4, 0.6],
            "drop": 0.05,
            "drop_interval": [0, 0.1],
        }
        for name in ("early", "late")
    ]
    rows = [
        row("learning_to_aggregate", 31.4),
        row("unweighted", 11.0, 0.1),
        row("best stage", 30.0, 0.01),
        row("confound: pixels", 9, 0.2),
    ]
    write_json(folder / "run.json", {"method": "learning_to_aggregate", "topic": "rsa", "status": "finished", "seed": 0})
    write_json(
        folder / "evaluation.json",
        {"rows": rows, "ceilings": {"it": {"scored": ceiling, "all": ceiling}}, "importance": {"it": importance}},
    )
    points = np.random.default_rng(0).normal(size=(4, 3))
    predicted = squareform(pdist(points))
    predicted[0, 1] = predicted[1, 0] = np.nan
    write_arrays(folder / "artifacts" / "rdms.npz", predicted=predicted, measured_it=squareform(pdist(points)))
    return folder


@pytest.fixture
def run(tmp_path):
    """Made anew for every test."""
    return make(tmp_path)


@pytest.mark.long
def test_the_page_says_what_was_found(run):
    html = page.build(run).read_text()
    assert "it: 31.4 % of the ceiling on unseen images" in html
    assert "it: higher than 1 of 2 baselines by a 95 % interval that excludes zero" in html
    assert html.count("<img") == 4
    assert (run / "artifacts" / "scores.csv").read_text().count("\n") == 5


@pytest.mark.long
def test_the_headline_has_the_best_control_and_every_interval_its_level(run, check_intervals):
    html = page.build(run).read_text()
    assert "Best fair control: best stage 30.0 % [27.0, 33.0] (a tie)" in html
    assert check_intervals(run) > 10


def test_pairs_that_tie_share_a_rank():
    """Oracle: scipy's average ranks; the order of equal pairs must not be drawn as a difference."""
    rdm = squareform(np.array([1.0, 2, 2, 2, 2, 3]))
    assert sorted(set(rsa_figures._ranks(rdm)[np.triu_indices(4, 1)])) == [0.0, 0.5, 1.0]


def test_no_score_or_interval_is_cut_by_the_axis():
    rows = [row("learning_to_aggregate", 118.0), row("unweighted", 5.0)]
    rows[1]["percent_interval"] = [-7.0, 150.0]
    low, high = rsa_figures.scores(rows, {"upper": 0.3, "lower": 0.2}, "learning_to_aggregate").axes[0].get_xlim()
    assert low < -7
    assert high > 150


@pytest.mark.long
def test_a_score_below_the_null_is_said_not_to_be_above_chance(run):
    ceiling = {"upper": 0.3, "lower": 0.2, "n_pairs": 6, "n_subjects": 4}
    evaluation = {"rows": [row("learning_to_aggregate", 1.9)], "ceilings": {"it": {"scored": ceiling}}, "importance": {}}
    write_json(run / "evaluation.json", evaluation)
    assert "not above chance" in page.build(run).read_text()


def test_classical_scaling_keeps_distances_of_points_in_a_plane():
    """Oracle: the distances it was given."""
    points = np.random.default_rng(1).normal(size=(12, 2))
    rdm = squareform(pdist(points))
    np.testing.assert_allclose(squareform(pdist(rsa_figures.classical_scaling(rdm))), rdm, atol=1e-9)


def test_no_value_of_an_rsa_run_becomes_markup(run, refuse_markup):
    assert refuse_markup(run) > 5
