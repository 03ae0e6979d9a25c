"""The reference of the site has every public name, and what stands there can be used: docstring, example, parameters."""

import doctest
import inspect
import re
import sys
from pathlib import Path

import pytest

import pulvinar

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("pulvinar", "pulvinar.estimators", "pulvinar.metrics", "pulvinar.plot", "pulvinar.rsa", "pulvinar.selectors")
ARRAYS = (pulvinar.metrics, pulvinar.rsa)
# a file, an experiment, rsatoolbox
NEEDS_MORE = {"read_rdms", "build_rdms", "RDMSettings", "crossnobis_rdm", "squared_mahalanobis_rdm"}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_module_has_its_page(module):
    page = (ROOT / f"docs/reference/{module.removeprefix('pulvinar.')}.md").read_text(encoding="utf-8")
    assert f".. public:: {module}\n" in page
    assert "```python\n" in page
    assert f"reference/{module.removeprefix('pulvinar.')}\n" in (ROOT / "docs/index.md").read_text(encoding="utf-8")


def test_every_module_that_the_package_names_is_among_them():
    named = {f"pulvinar.{name}" for name in pulvinar.__all__ if inspect.ismodule(getattr(pulvinar, name))}
    assert named == set(MODULES) - {"pulvinar"}


@pytest.mark.parametrize("module", ARRAYS, ids=lambda module: module.__name__)
def test_functions_of_arrays_have_an_example(module):
    without = [name for name in module.__all__ if ">>>" not in (inspect.getdoc(getattr(module, name)) or "")]
    assert set(without) <= NEEDS_MORE


def test_docstrings_are_made_ready_for_the_site(monkeypatch):
    pytest.importorskip("sphinx", reason="the group docs is not installed")
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), *sys.path])
    import public_names

    assert doctest.testmod(public_names).failed == 0
    for module in ("pulvinar.metrics", "pulvinar.plot"):
        assert set(public_names.public_names(sys.modules[module])) >= set(
            getattr(sys.modules[module], "__all__", ["panels", "roi"])
        )
    made = public_names.ready(inspect.getdoc(pulvinar.metrics.information_bound), ["similarity", "n_candidates", "n_repeats"])
    assert re.findall(r"^:param (\w+):", made, flags=re.MULTILINE) == ["similarity", "n_candidates", "n_repeats"]
    assert "n_candidates: K" not in made.split(":param")[0]
