"""The documentation site: `uv run --group docs sphinx-build -W --keep-going docs build/site`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # public_names.py, score_definitions.py

project = "pulvinar"
author = "the pulvinar developers"
release = version = version_of("pulvinar")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "public_names",
    "score_definitions",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"pulvinar {release}"
html_theme_options = {"navigation_with_keys": True}
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_use_ivar = True  # attributes of estimators, some of which are properties too
default_role = "code"  # `name` in a docstring
