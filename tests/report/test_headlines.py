"""One rule for the headlines of every kind of run, its cautions, and marks on pictures of simulated data."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.storage import read_json, write_arrays, write_json, write_text
from pulvinar.learning.loss_watch import trouble, troubles
from pulvinar.report import page, run_folder
from pulvinar.report.drawing import SIMULATED
from pulvinar.report.findings import cautions, headline


def probe_row(branch: str, linear: float, share: float | None, difference: tuple[float, float] | None = None) -> dict:
    row = {"name": branch, "branch": branch, "description": f"row of {branch}", "mac_share": share}
    for kind, value in (("knn", linear - 0.05), ("linear", linear)):
        row |= {kind: value, f"{kind}_interval": [value - 0.02, value + 0.02]}
    if difference is not None:
        row["linear_difference"] = {"difference": np.mean(difference), "low": difference[0], "high": difference[1]}
    return row


@pytest.fixture
def gated(tmp_path) -> Path:
    """Made anew for every test."""
    return make(tmp_path)


def make(folder: Path) -> Path:
    """A dual-gated run that is worse than raw pixels, whose loss doubled and whose budget is not met."""
    rows = [
        probe_row("gated", 0.122, 0.13),
        probe_row("dense", 0.5, 1.0, (0.3, 0.4)),
        probe_row("pixels", 0.365, None, (0.2, 0.28)),
        probe_row("static", 0.11, 0.13, (-0.04, 0.02)),
    ]
    evaluation = {"rows": rows, "chance": 0.1, "n_test": 400, "n_train": 900, "channels": None, "budget": {"asked": 0.1}}
    write_json(folder / "evaluation.json", evaluation | {"settings": {"k": 1}})
    data = {"name": "pictures", "path": "pictures"}
    facts = {"method": "dual_gating", "topic": "self_supervised", "status": "finished", "seed": 0, "data": data}
    write_json(folder / "run.json", facts | {"budget": {"asked": 0.1}, "cautions": ["epoch 2: the network is collapsing"]})
    write_text(folder / "config.toml", "seed = 0\nbudget = 0.1\n")
    losses = [10.0, 9.0, 20.0]
    lines = [{"epoch": n + 1, "loss": loss, "collapsing": n == 2} for n, loss in enumerate(losses)]
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    generator = np.random.default_rng(0)
    correct = {f"{kind}_{row['branch']}": generator.random(400) < row[kind] for row in rows for kind in ("knn", "linear")}
    write_arrays(folder / "predictions" / "correct.npz", **correct)
    return folder


@pytest.mark.long
def test_a_gated_run_that_loses_to_raw_pixels_says_so(gated, check_intervals) -> None:
    found = headline(run_folder.read(gated))
    lead, rest = (text.replace("\u00a0", " ") for text in found)
    assert lead == "12.2 % by a linear probe with 13 % of the multiply-adds, 95 % interval [10.2 %, 14.2 %]"
    assert rest.startswith("Best fair control: raw pixels 36.5 % [34.5 %, 38.5 %] (higher); with a larger budget: dense 50.0 %")
    assert "Chance is 10 %" in rest
    said = " ".join(cautions(run_folder.read(gated))).replace("\u00a0", " ")
    for part in ("raw pixels", "loss rose", "20 in epoch 3", "collapsing", "budget was not met: 10.0 %", "13.0 % reached"):
        assert part in said
    html = page.build(gated).read_text()
    for text in cautions(run_folder.read(gated)):
        assert text in html
    assert check_intervals(gated) > 8


def picture_row(name: str, score: float, *, sees_answer: bool = False) -> dict:
    return {
        "name": name, "description": name, "sees_answer": sees_answer, "pixcorr": 0.2, "pixcorr_interval": [0.1, 0.3],
        "clip": score, "clip_interval": [score - 0.04, score + 0.04], "clip_difference_interval": [-0.02, 0.01],
    }  # fmt: skip


def test_the_page_of_pictures_names_the_best_control_that_has_not_seen_the_answer(
    tmp_path, check_intervals, refuse_markup, monkeypatch
) -> None:
    make_pictures(tmp_path)
    assert refuse_markup(tmp_path) > 5
    monkeypatch.undo()
    html = page.build(tmp_path).read_text().replace("\u00a0", " ")
    assert "two-way identification 80 % (clip), 95 % interval [76 %, 84 %]" in html
    assert "Best fair control: best gallery match 79 %" in html
    assert SIMULATED in html
    assert check_intervals(tmp_path) > 8


def make_pictures(folder: Path) -> Path:
    """A run of pictures whose best row has seen the answer."""
    rows = [picture_row("picture_decoder", 0.8), picture_row("mean image", 0.5), picture_row("best gallery match", 0.79)]
    rows.append(picture_row("best test match", 0.95, sees_answer=True))
    kinds = {"pixcorr": {"kind": "pixcorr"}, "clip": {"kind": "two_way"}}
    write_json(
        folder / "evaluation.json",
        {"rows": rows, "metrics": kinds, "n_images": 80, "skipped": {"swav": f"no weights: {'x' * 90}"}},
    )
    data = {"name": "a world", "path": "w", "simulated": True}
    facts = {"method": "picture_decoder", "topic": "pictures", "status": "finished", "seed": 0, "data": data}
    write_json(folder / "run.json", facts)
    return folder


@pytest.mark.long
def test_the_page_of_a_decoding_run_says_every_level(make_run, tmp_path, check_intervals) -> None:
    folder = make_run(tmp_path / "run")
    page.build(folder)
    assert check_intervals(folder) > 20


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([3.0, 2.0, 1.0], ""),
        ([3.0], ""),
        ([5.0, 10.0], "5 in epoch 1, 10 in epoch 2"),
        ([5.0, 3.0, 4.5, 4.6], "3 in epoch 2, 4.6 in epoch 4"),  # most of the gain is lost again
        ([5.0, 3.0, 3.4], ""),
        ([5.0, 4.99, 4.996], ""),  # noise of a training that hardly moves
        ([-0.9, -0.5], "the loss rose"),  # negative losses (SimSiam)
        ([2.0, float("nan"), 1.0], "not finite in 1 of 3 epochs, first in epoch 2"),
    ],
)
def test_losses_that_went_wrong(losses, said) -> None:
    assert said in trouble(losses) if said else trouble(losses) == ""


def test_scheduled_terms_and_rounds_of_a_selection_may_rise() -> None:
    rising = [{"loss": 1.0 + 2 * n, "budget": 2.0 * n} for n in range(4)]
    select = [{"phase": "select", "loss": float(n)} for n in range(4)]
    assert troubles([*rising, *select]) == []
    assert len(troubles([{"phase": "refit", "loss": float(n)} for n in range(4)])) == 1
    assert "not finite" in troubles([{"epoch": 1, "loss": None}, {"epoch": 2, "loss": 1.0}])[0]


@pytest.mark.slow
def test_every_picture_of_simulated_data_says_so(make_run, tmp_path) -> None:
    """A strip in its colour, by which the picture is higher; and nothing of the kind on measured data."""
    marked = {}
    for simulated in (True, False):
        folder = make_run(tmp_path / f"{simulated}", with_truth=False)
        facts = read_json(folder / "run.json")
        write_json(folder / "run.json", facts | {"data": facts["data"] | {"simulated": simulated}})
        page.build(folder)
        figures = folder / "artifacts" / "figures"
        marked[simulated] = {path.stem: Image.open(path).size for path in figures.glob("*.png")}
        colour = {name: _vermilion(figures / f"{name}.png") for name in marked[simulated]}
        assert all(share > 0.004 for share in colour.values()) is simulated, colour
        assert (SIMULATED in (folder / "report.html").read_text()) is simulated
    assert marked[True]["summary"] == marked[False]["summary"] == (1600, 900)
    assert all(marked[True][name][1] > marked[False][name][1] for name in marked[True] if name != "summary")


def _vermilion(path: Path) -> float:
    """Share of the uppermost rows in the colour of the strip."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)[:26]
    return float((np.abs(pixels - [0xD5, 0x5E, 0x00]).max(-1) < 40).mean())


@pytest.mark.long
def test_no_page_names_a_path_of_the_machine(make_run, tmp_path) -> None:
    folder = make_run(tmp_path / "run")
    facts = read_json(folder / "run.json")
    place = str(tmp_path / "deep" / "world")
    for path in (place, f"nsd:{place}?subject=1"):
        write_json(folder / "run.json", facts | {"data": facts["data"] | {"path": path}, "cautions": [f"{place}/x.npz: odd"]})
        write_text(folder / "config.toml", f'weights = "{place}/w.safetensors"\nratio = "1/300"\n')
        html = page.build(folder).read_text()
        text = re.sub(r'src="[^"]*"', "", html)
        assert "world" in text
        assert str(tmp_path) not in text
        assert "w.safetensors" in text
        assert "1/300" in text
        assert "x.npz: odd" in text
