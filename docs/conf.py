"""The documentation site: `uv run --group docs sphinx-build -W --keep-going docs build/site`."""

from importlib.metadata import version as version_of

project = "pulvinar"
author = "the pulvinar developers"
release = version = version_of("pulvinar")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"pulvinar {release}"
html_theme_options = {"navigation_with_keys": True}
autodoc_typehints = "description"
