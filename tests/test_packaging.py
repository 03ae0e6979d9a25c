"""What packages say of pulvinar is what pyproject.toml says."""

import re
import sys
from pathlib import Path

import pytest

from pulvinar.core.config import read_toml

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = read_toml(ROOT / "pyproject.toml")
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def test_the_conda_recipe_has_the_dependencies_and_the_version() -> None:
    project, text = PYPROJECT["project"], (ROOT / "packaging/conda/recipe.yaml").read_text(encoding="utf-8")
    wanted = {re.match(r"[\w-]+", line)[0]: line for line in project["dependencies"]}  # type: ignore[index]
    lines = {f"{CONDA_NAMES.get(name, name)} {line.removeprefix(name)}" for name, line in wanted.items()}
    run = text.partition("  run:\n")[2].partition("\ntests:")[0]
    assert set(re.findall(r"^    - (?!python )(.+)$", run, re.MULTILINE)) == lines
    assert f"version: {project['version']}\n" in text
    assert f'python_min: "{project["requires-python"].removeprefix(">=")}"' in text
    for built_with in PYPROJECT["build-system"]["requires"]:
        assert re.sub(r"(?=>)", " ", built_with, count=1) in text


def test_the_citation_has_the_version() -> None:
    version = PYPROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_extra_is_in_the_image_or_left_out_by_name() -> None:
    text = (ROOT / "packaging/Dockerfile").read_text(encoding="utf-8")
    extras = re.search(r"ARG EXTRAS=(\S+)", text)[1].split(",")  # type: ignore[index]
    assert {*extras, "cluster"} == set(PYPROJECT["project"]["optional-dependencies"])


def test_the_image_is_of_a_python_that_is_supported_and_of_files_that_are_here() -> None:
    text, project = (ROOT / "packaging/Dockerfile").read_text(encoding="utf-8"), PYPROJECT["project"]
    python = re.search(r"^FROM python:([\d.]+)-slim$", text, re.MULTILINE)[1]  # type: ignore[index]
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    copied = [name for line in re.findall(r"^COPY (.+) /\S+$", text, re.MULTILINE) for name in line.split()]
    assert {"pyproject.toml", "src", "README.md", *project["license-files"]} <= set(copied)  # what the build reads
    assert all((ROOT / name).exists() for name in copied)


def test_the_conda_recipe_says_what_the_package_says_of_itself() -> None:
    project, text = PYPROJECT["project"], (ROOT / "packaging/conda/recipe.yaml").read_text(encoding="utf-8")
    assert f"  license: {project['license']}\n" in text
    assert f"  summary: {project['description']}\n" in text
    for name, place in project["scripts"].items():
        assert f"      - {name} = {place}\n" in text


def test_no_link_of_the_long_description_leads_into_the_folder() -> None:
    """The substitutions of pyproject.toml, as they are made when the package is built."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for change in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_the_smoke_script_is_named_in_contributing() -> None:
    assert "packaging/smoke.sh" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
