"""Tutorials run as they stand, show a picture first, and the gallery has every thumbnail there is, none too large."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NAMES = sorted(page.stem for page in (DOCS / "tutorials").glob("*.md"))
LARGEST = 60_000  # bytes of a thumbnail


@pytest.fixture
def tutorials(monkeypatch):
    """docs/run_tutorials.py."""
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return importlib.import_module("run_tutorials")


def test_there_are_tutorials():
    assert len(NAMES) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_begins_with_what_comes_out_and_a_picture(name, tutorials):
    lines = [line for line in (DOCS / f"tutorials/{name}.md").read_text(encoding="utf-8").splitlines() if line]
    first_code = next(number for number, line in enumerate(lines) if line.startswith("```"))
    assert lines[1].startswith("You get ")
    assert any(f"(../images/tutorials/{name}.png)" in line for line in lines[:first_code])
    assert f"tutorials/{name}\n" in (DOCS / "index.md").read_text(encoding="utf-8")
    assert tutorials.picture(name).endswith(".png")
    with Image.open(DOCS / f"images/tutorials/{name}.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_and_makes_its_picture(name, tutorials, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tutorials.run(name, tmp_path)
    with Image.open(tmp_path / tutorials.picture(name)) as picture:
        assert min(picture.size) > 200


def test_a_command_that_fails_ends_a_tutorial(tutorials, tmp_path, monkeypatch):
    monkeypatch.setattr(tutorials, "blocks", lambda name: [("bash", "pulvinar report nothing\n")])
    monkeypatch.setattr(tutorials, "plant", lambda folder: None)
    with pytest.raises(RuntimeError, match="exit code 2"):
        tutorials.run("roi", tmp_path)


def test_the_gallery_shows_every_thumbnail():
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    there = {path.name: path.stat().st_size for path in (DOCS / "images" / "gallery").glob("*.png")}
    assert set(re.findall(r"\(images/gallery/([^)]+)\)", page)) == set(there)
    assert len(there) >= 20
    reports = {name for name in there if "--report-" in name}
    assert {name.partition("--")[0] for name in reports} == set(NAMES)  # of every wing
    assert max(there.values()) <= LARGEST
