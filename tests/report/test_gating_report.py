"""Pooled tables and figures of made-up self-supervised runs with known accuracies."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import write_arrays, write_json, write_text
from pulvinar.gating import figures as gating_figures
from pulvinar.gating.figures import figure
from pulvinar.gating.runs import PooledRow, compare, comparisons, find_runs, pool
from pulvinar.gating.sweep_page import _entries, name_of
from pulvinar.report import drawing
from pulvinar.report.page import build
from pulvinar.scores.resampling import paired_difference

N_IMAGES = 400


def make_run(
    folder, *, seed: int, budget: float, accuracies: dict[str, float], shares: dict[str, float], method: str = "dual_gating"
) -> None:
    generator = np.random.default_rng([seed, int(100 * budget)])
    correct, rows = {}, []
    for branch, accuracy in accuracies.items():
        correct[f"knn_{branch}"] = generator.random(N_IMAGES) < accuracy
        correct[f"linear_{branch}"] = generator.random((2, N_IMAGES)) < accuracy + 0.1
        rows.append({"name": branch, "branch": branch, "mac_share": shares.get(branch)})
    gates = [
        {"channels": 16, "always_on": 2 + n, "always_off": 10 - n, "dependent": 4, "density": 0.2 + 0.05 * n} for n in range(8)
    ]
    channels = {"always_on": 0.3, "always_off": 0.45, "dependent": 0.25, "n_images": N_IMAGES, "gates": gates}
    evaluation = {"rows": rows, "n_train": 1000, "channels": channels, "budget": {"asked": budget}}
    write_json(folder / "evaluation.json", evaluation)
    write_json(folder / "run.json", {"method": method, "seed": seed, "status": "finished", "data": {"name": "made up"}})
    write_text(folder / "config.toml", f"seed = {seed}\nbudget = {budget}\nepochs = 20\nwidth = 0.25\n")
    write_arrays(folder / "predictions" / "correct.npz", **correct)
    records = [
        {
            "epoch": n + 1,
            "loss": 40 * 0.9**n + 12,
            "variance": 20 * 0.9**n,
            "invariance": 12.0,
            "covariance": 8 * 0.9**n,
            "mac_share": budget + 0.4 * 0.7**n,
            "feature_rank": 40 - 20 * 0.8**n,
            "view_agreement": 1 - 0.7 * 0.8**n,
            "multiplier": 1.0,
        }
        for n in range(20)
    ]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))


def find(rows: list[PooledRow], group: str, branch: str) -> PooledRow:
    return next(row for row in rows if (row.group, row.branch) == (group, branch))


def make(folder: Path) -> Path:
    """Runs of budgets 10 and 30 %, three seeds each."""
    for budget, base in ((0.1, 0.44), (0.3, 0.5)):
        for seed in range(3):
            accuracies = {
                "gated": base,
                "dense": 0.55,
                "pixels": 0.3,
                "static": base - 0.05,
                "random_gates": 0.35,
                "pruned": 0.4,
            }
            shares = {"gated": budget + 0.002 * seed, "dense": 1.0, "static": budget, "random_gates": budget, "pruned": budget}
            name = f"dual_{100 * budget:.0f}_%,seed={seed}"
            make_run(folder / name, seed=seed, budget=budget, accuracies=accuracies, shares=shares)
    return folder


@pytest.fixture
def sweep(tmp_path):
    """Made anew for every test."""
    return make(tmp_path)


def test_seeds_of_equal_settings_are_pooled(sweep):
    rows = pool(find_runs(sweep))
    assert len(rows) == 12
    row = find(rows, "dual_10_%", "gated")
    assert row.seeds == (0, 1, 2)
    assert row.correct["linear"].shape == (3, N_IMAGES)
    assert row.mac_share == pytest.approx(0.102)
    low, high = row.interval("knn")
    assert low < row.score("knn") < high
    assert row.score("knn") == pytest.approx(0.44, abs=0.06)
    assert 0.03 < high - low < 0.15  # at least the binomial interval of one seed over sqrt(3)


def test_two_runs_of_one_seed_and_equal_settings_are_not_mixed(sweep):
    shutil.copytree(sweep / "dual_10_%,seed=0", sweep / "again")
    with pytest.raises(InputError, match="two runs of one seed and equal settings"):
        pool(find_runs(sweep))


def test_rows_are_compared_on_the_same_seeds_and_images(sweep):
    rows = pool(find_runs(sweep))
    gated, static = find(rows, "dual_30_%", "gated"), find(rows, "dual_30_%", "static")
    ours = compare(static, gated, "linear")
    theirs = paired_difference(static.correct["linear"], gated.correct["linear"], generator=np.random.default_rng(0))
    assert ours == theirs
    assert ours.difference == pytest.approx(static.score("linear") - gated.score("linear"))
    fewer = dataclasses.replace(gated, seeds=(2, 7), correct={kind: values[[2, 0]] for kind, values in gated.correct.items()})
    shared = compare(static, fewer, "knn").difference
    assert shared == pytest.approx((static.correct["knn"][2] - gated.correct["knn"][2]).mean())
    assert compare(static, dataclasses.replace(fewer, seeds=(8, 9)), "knn") is None


@pytest.mark.long
def test_rows_stand_beside_those_of_their_share(sweep):
    for seed in range(3):
        shares, accuracies = {"dense": 1.0}, {"dense": 0.6, "pixels": 0.3}
        make_run(sweep / f"dense,seed={seed}", seed=seed, budget=1.0, accuracies=accuracies, shares=shares, method="dense_ssl")
        make_run(
            sweep / f"narrow,seed={seed}",
            seed=seed,
            budget=0.95,
            accuracies=accuracies,
            shares={"dense": 0.29},
            method="dense_ssl",
        )
    ten, thirty, whole = comparisons(pool(find_runs(sweep)))
    assert (ten.budget, thirty.budget, whole.budget) == (0.1, 0.3, None)
    assert [name_of(row) for row in ten.rows] == [
        "dual 10 %: gated",
        "dual 10 %: static mask",
        "dual 10 %: random gates",
        "dual 10 %: pruned by magnitude",
        "raw pixels",
    ]
    assert [name_of(row) for row in thirty.rows][:2] == ["dual 30 %: gated", "narrow"]
    assert [name_of(row) for row in whole.rows] == ["dense", "dual 10 %: dense", "dual 30 %: dense", "raw pixels"]
    assert _entries(whole)[1]["linear_verdict"] == "lower"
    assert _entries(thirty)[1]["knn_verdict"] == "higher"
    apart = dataclasses.replace(whole.rows[1], seeds=(7, 8, 9))
    unlike = dataclasses.replace(whole, rows=(whole.reference, apart))
    assert _entries(unlike)[1]["linear_verdict"] == "not told"
    assert "linear_verdict" not in _entries(unlike)[0]


@pytest.mark.slow
def test_a_sweep_has_one_page(sweep):
    page = build(sweep).read_text()
    assert page.startswith("<!doctype html>")
    assert "At 10\u00a0% of the multiply-adds" in page
    assert "Every channel computed" in page
    assert page.count("<img") == 1
    lines = (sweep / "artifacts" / "comparisons.csv").read_text().splitlines()
    assert lines[0].startswith("budget,name,branch,n_seeds,mac_share,mac_shares,knn,knn_low_95,knn_high_95,linear")
    assert len(lines) == 1 + 5 + 5 + 3
    text = (sweep / "artifacts" / "comparisons.txt").read_text()
    (static,) = [line for line in text.splitlines() if line.startswith("dual 30 %: static mask")]
    rows = pool(find_runs(sweep))
    found = compare(find(rows, "dual_30_%", "static"), find(rows, "dual_30_%", "gated"), "linear")
    low, high = (f"{100 * bound:+.1f}".replace("-", "−") for bound in (found.low, found.high))
    assert f"[{low}, {high}] " in static


@pytest.mark.slow
def test_the_headline_of_a_sweep_names_the_best_fair_control_at_each_budget(sweep, check_intervals):
    page = build(sweep).read_text()
    head = page[page.index("<h1>") : page.index("</h1>")]
    best = find(pool(find_runs(sweep)), "dual_10_%", "pruned")
    assert "At 10\u00a0%: Best fair control: dual 10 %: pruned by magnitude" in head
    assert f"{100 * best.score('linear'):.1f}" in head
    assert "dual 10 %: dense" not in head
    assert check_intervals(sweep) > 20


@pytest.mark.long
def test_every_mark_stands_at_its_own_share_and_accuracy(sweep):
    """Oracle: the pooled rows. Marks of equal shares are not moved apart along the measured axis."""
    rows = pool(find_runs(sweep))
    drawn = gating_figures.draw_accuracy(rows)
    for axis, kind in zip(drawn.axes, ("knn", "linear"), strict=True):
        marks = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if len(line.get_xdata()) == 1}
        expected = {(100 * row.mac_share, 100 * row.score(kind)) for row in rows if row.branch != "pixels"}
        assert marks >= expected
        low, high = axis.get_xlim()
        assert low < min(share for share, _ in expected)
        assert max(share for share, _ in expected) == pytest.approx(100)
        assert high > 100


def test_a_share_of_nothing_has_a_place(sweep):
    rows = [dataclasses.replace(row, mac_shares=row.mac_shares * 0) for row in pool(find_runs(sweep)) if row.branch == "gated"]
    axis = gating_figures.draw_accuracy(rows).axes[0]
    assert axis.get_xscale() == "linear"
    assert axis.get_xlim()[0] < 0


@pytest.mark.slow
def test_a_sweep_of_planted_data_says_so_over_the_page(sweep):
    assert "SIMULATED" not in build(sweep).read_text()
    path = next(sweep.glob("dual*/run.json"))
    facts = json.loads(path.read_text())
    write_json(path, facts | {"data": facts["data"] | {"simulated": True}})
    assert '<header><p class="simulated">SIMULATED' in build(sweep).read_text()


def test_a_training_without_health_curves_is_one_panel_of_numbers_alone():
    records = [{"epoch": n, "loss": 1.0 / (n + 1), "term": 0.5, "collapsing": n == 2} for n in range(3)]
    made = gating_figures.draw_curves(records, None)
    assert [text.get_text() for text in made.axes[0].get_legend().get_texts()] == ["loss", "term"]
    width, height = made.get_size_inches()
    assert width >= 2.5 * height


def test_runs_of_other_settings_are_not_pooled(sweep):
    (folder,) = sweep.glob("dual_10*seed=2")
    write_text(folder / "config.toml", "seed = 2\nbudget = 0.1\nepochs = 40\nwidth = 0.25\n")
    rows = [row for row in pool(find_runs(sweep)) if row.branch == "gated"]
    assert sorted(len(row.seeds) for row in rows) == [1, 2, 3]


@pytest.mark.slow
def test_figures_of_a_run_and_of_a_sweep_are_written(sweep):
    run = find_runs(sweep)[0]
    drawn = figure(run)
    assert set(drawn) == {"accuracy", "channels", "curves"}
    for path in drawn.values():
        assert path.with_suffix(".svg").is_file()
        with Image.open(path.with_suffix(".png")) as picture:
            assert min(picture.size) > 400
    assert set(figure(sweep)) == {"accuracy"}


@pytest.mark.parametrize("n_groups", [1, 7, 24])
def test_no_two_groups_of_a_sweep_share_a_colour(n_groups):
    assert len(set(drawing.group_colours(n_groups))) == n_groups


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(sweep):
    run = find_runs(sweep)[0]
    first = {name: path.with_suffix(".png").read_bytes() for name, path in figure(run).items()}
    assert first == {name: path.with_suffix(".png").read_bytes() for name, path in figure(run).items()}


def test_no_run_is_refused(tmp_path):
    with pytest.raises(FileError, match="no evaluated self-supervised run"):
        figure(tmp_path)
    with pytest.raises(FileError, match="no such folder"):
        figure(tmp_path / "nothing")


def keep_features(run, n_images: int) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(n_images) % 3
    features = {name: generator.normal(size=(n_images, 16)) + 4 * np.eye(16)[labels] for name in ("gated", "dense")}
    write_arrays(run / "predictions" / "features.npz", **features, label=labels)


@pytest.mark.slow
def test_test_images_are_placed_by_principal_components_and_by_umap_only_when_asked(sweep, monkeypatch):
    """With a stand-in for UMAP, which takes its time: asked for once, kept, drawn, not computed again for the same features."""
    calls = []

    def first_two(features):
        calls.append(len(next(iter(features.values()))))
        return {name: values[:, :2] for name, values in features.items()}

    def title():
        made = gating_figures.drawers(run)["embedding"]()
        return made.axes[0].get_title(loc="left") + made.axes[0].get_title()

    monkeypatch.setattr(gating_figures, "place", first_two)
    run = find_runs(sweep)[0]
    keep_features(run, 120)
    assert title().endswith("(PCA)")
    assert calls == []
    for _ in range(2):
        gating_figures.keep_umap(run)
        assert title().endswith("(UMAP)")
    assert figure(run)["embedding"].with_suffix(".png").stat().st_size > 5000
    assert calls == [120]
    keep_features(run, 150)
    assert title().endswith("(PCA)")
    assert calls == [120]
    keep_features(run, 60)  # too few to be a map
    assert "embedding" not in figure(run)
    with pytest.raises(InputError, match="keeps no features"):
        gating_figures.keep_umap(run)


def test_principal_axes_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    values = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1]
    ours, theirs = gating_figures.principal_axes(values), PCA(2).fit_transform(values)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    assert (gating_figures.principal_axes(np.ones((5, 3))) == 0).all()
    assert gating_figures.principal_axes(np.arange(4.0)[:, None])[:, 1].tolist() == [0, 0, 0, 0]


@pytest.mark.slow
def test_classes_that_lie_apart_are_placed_apart():
    pytest.importorskip("umap")
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    placed = gating_figures.place({"dense": generator.normal(size=(300, 16)) + 8 * np.eye(16)[labels]})["dense"]
    centres = np.stack([placed[labels == label].mean(0) for label in range(3)])
    nearest = np.linalg.norm(placed[:, None] - centres, axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.95


def test_no_value_of_a_self_supervised_run_becomes_markup(sweep, refuse_markup):
    assert refuse_markup(min(sweep.iterdir())) > 5


@pytest.mark.slow
def test_no_value_of_a_sweep_becomes_markup(sweep, refuse_markup):
    for path in sorted(sweep.iterdir())[1:]:
        shutil.rmtree(path)
    assert refuse_markup(sweep) > 5
