"""docs/bids.md runs as it stands, and the study that it writes passes the BIDS validator where that is at hand."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pulvinar.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bids.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("pulvinar ")]


@pytest.mark.slow
def test_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PULVINAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        assert main([*shlex.split(command)[1:], "--quiet"]) == 0, command
    kept = list((tmp_path / "cache/betas").glob("*.json"))
    assert len(kept) == 6  # two subjects, three runs
    assert {json.loads(path.read_text())["settings"]["estimate"] for path in kept} == {"lsa"}
    page = (tmp_path / "runs/study/report.html").read_text(encoding="utf-8")
    assert "TROI" in page


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bids-validator-deno") is None, reason="bids-validator-deno is not installed")
@pytest.mark.parametrize("part", [".", "derivatives/fmriprep", "derivatives/rois", "derivatives/pulvinar"])
def test_a_written_study_is_valid(tmp_path, part):
    command = next(command for command in COMMANDS if "simulate" in command)
    words = [str(tmp_path / "study") if word == "study" else word for word in shlex.split(command)[1:]]
    assert main([*words, "--quiet"]) == 0
    found = subprocess.run(
        ["bids-validator-deno", str(tmp_path / "study" / part), "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
