"""`pulvinar verify`: nothing differs in a run as it was written; whatever is changed is named. Oracle: what was changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pulvinar.cli import main
from pulvinar.core.storage import read_arrays, read_json, write_arrays, write_json


@pytest.fixture(scope="module")
def evaluated(world, finished, tmp_path_factory) -> Path:
    """A run of troi with its controls scored. Not to be changed."""
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("verify") / "run"))
    assert main(["evaluate", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def run(evaluated, tmp_path) -> Path:
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


def verified(capsys, *arguments) -> tuple[int, dict]:
    capsys.readouterr()
    code = main(["verify", *map(str, arguments), "--json", "--quiet"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.long
def test_nothing_differs_in_a_run_as_it_was_written(run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, found = verified(capsys, run)
    assert (code, found["ok"], found["differences"]) == (0, True, {})
    rows = [row for row in read_json(run / "evaluation.json")["rows"] if row["brain_to_image_top1"] is not None]
    assert found["n_scores"] > 15 * len(rows)
    assert found["n_files"] == len(before)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main(["verify", str(run), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("nothing differs: ")


def test_a_score_that_the_predictions_do_not_give_is_named(run, capsys):
    evaluation = read_json(run / "evaluation.json")
    evaluation["rows"][1]["image_to_brain_top5"] += 0.01
    write_json(run / "evaluation.json", evaluation, sealed=True)  # by somebody who knows the seal
    code, found = verified(capsys, run)
    assert code == 1
    assert list(found["differences"]) == [f"evaluation.json: {evaluation['rows'][1]['name']}: image_to_brain_top5"]


def test_other_predictions_give_other_scores(run, capsys):
    path = run / "predictions" / "troi.npz"
    kept = read_arrays(path)
    write_arrays(path, **{**kept, "predicted": np.roll(kept["predicted"], 1, axis=0)})
    code, found = verified(capsys, run)
    assert code == 1
    assert any(name.startswith("evaluation.json: troi: brain_to_image_top1") for name in found["differences"])


@pytest.mark.parametrize(
    "name", ["checkpoints/decoder.safetensors", "predictions/ridge.npz", "evaluation.json", "metrics.jsonl"]
)
def test_a_changed_byte_is_named_with_its_file(name, run, capsys):
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 4
    (run / name).write_bytes(content)
    code, found = verified(capsys, run)
    if name != "metrics.jsonl" or code:  # a digit of a log is no score, and has no checksum
        assert code == 1
        assert name in found["differences"]


def test_what_is_missing_is_said(run, tmp_path, capsys):
    (run / "predictions" / "ridge.npz").unlink()
    code, found = verified(capsys, run)
    assert code == 1
    assert "ridge.npz" in found["differences"]["evaluation.json"]
    facts = read_json(run / "run.json")
    facts["data"]["path"] = str(tmp_path / "gone")
    write_json(run / "run.json", facts)
    code, found = verified(capsys, run)
    assert code == 1
    assert "say where they are with --data" in found["differences"]["evaluation.json"]


def test_a_run_that_was_not_evaluated_has_its_files_checked(finished, capsys):
    code, found = verified(capsys, finished)
    assert (code, found["n_scores"], found["ok"]) == (0, 0, True)
    assert found["n_files"] > 8
