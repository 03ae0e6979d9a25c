"""The demo from nothing to the report: minutes, so only with -m slow."""

import json
from pathlib import Path

import pytest

from pulvinar.cli import main


@pytest.mark.slow
def test_demo_finds_the_planted_voxels(tmp_path, capsys):
    """Oracle: the planted truth. Precision at half the planted voxels."""
    assert main(["demo", "--seed", "1", "--out", str(tmp_path / "demo"), "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) >= {"troi", "annotated", "all", "random", "ceiling", "univariate", "anova"}
    scores = {"name", "n_voxels", "brain_to_image_top1", "image_to_brain_top1", "precision", "recall", "dice"}
    assert all(scores <= set(row) for row in rows.values())
    assert {"seconds", "run", "report", "seed"} <= set(result)
    assert result["seed"] == 1
    assert rows["troi"]["precision"] >= 0.9
    assert Path(result["report"]).is_file()
