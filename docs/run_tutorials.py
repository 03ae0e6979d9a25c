"""Run the tutorials as they stand on their pages; for docs/make_gallery.py and the tests.

Blocks run in their order in a folder of their own, in which examples/plant_study.py has written `study/` and `pictures.npz`: of
```bash the lines that begin with `pulvinar`, of ```python everything. A tutorial's last `savefig("NAME.png")` is its picture.
"""

import importlib.util
import os
import re
import shlex
from pathlib import Path

DOCS = Path(__file__).resolve().parent
TUTORIALS = DOCS / "tutorials"
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r'savefig\("([\w.-]+\.png)"')


def names() -> list[str]:
    """The tutorials there are."""
    return sorted(page.stem for page in TUTORIALS.glob("*.md"))


def blocks(name: str) -> list[tuple[str, str]]:
    """(language, text) of every block that runs."""
    return FENCE.findall((TUTORIALS / f"{name}.md").read_text(encoding="utf-8"))


def plant(folder: Path) -> None:
    """The data of all tutorials, by the example that makes them."""
    spec = importlib.util.spec_from_file_location("plant_study", DOCS.parent / "examples" / "plant_study.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("examples/plant_study.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.plant(folder)
    example.plant_pictures(folder)


def run(name: str, folder: Path) -> dict[str, object]:
    """Run a tutorial in a folder; the names that its Python blocks leave. A command that fails is a `RuntimeError`."""
    import matplotlib as mpl

    from pulvinar.cli import main

    mpl.use("Agg")
    plant(folder)
    before, found = Path.cwd(), {"__name__": "tutorial"}
    os.chdir(folder)
    try:
        for language, text in blocks(name):
            if language == "python":
                exec(compile(text, f"{name}.md", "exec"), found)
                continue
            for line in text.replace("\\\n", " ").splitlines():
                if line.startswith("pulvinar ") and (code := main(shlex.split(line, comments=True)[1:])):
                    raise RuntimeError(f"{name}.md: `{line}` ended with exit code {code}")
    finally:
        os.chdir(before)
    return found


def picture(name: str) -> str:
    """The file that a tutorial's last `savefig` writes."""
    return PICTURE.findall("".join(text for _, text in blocks(name)))[-1]
