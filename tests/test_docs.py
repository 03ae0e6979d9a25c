"""The pages are true: links lead somewhere, commands parse, settings are listed, and no file names a place of one machine."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pulvinar.app.sweeps.engines import slurm
from pulvinar.app.sweeps.grid import cells
from pulvinar.cli import parser
from pulvinar.core.config import build, describe, read_toml
from pulvinar.decoding.methods import cross_subject_decoder, troi

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = (".ci", "benchmarks", "docs", "examples", "src", "tests")  # the project's own: a user's runs may lie beside them
# Spelled in parts, so that this file does not name them itself.
HOSTS = [
    ".".join(parts)
    for parts in (("pypi", "org"), ("".join(("python", "hosted")), "org"), ("conda", "anaconda"), ("npmjs", "org"))
]
PLACES = ["/" + place for place in ("work/", "home/", "Users/", "root/", "tmp/")]


def fences(text: str) -> list[tuple[str, str]]:
    """(language, content) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for language, block in fences(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines() if language in {"", "bash", "sh"} else ():
                if found := re.match(r"(?:\$ )?(?:uv run )?pulvinar +([^#]+)", line):
                    yield page.name, found[1].strip()


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_commands_parse(page: str, command: str) -> None:
    try:
        parser().parse_args(shlex.split(command))
    except SystemExit as stop:
        pytest.fail(f"{page}: `pulvinar {command}` is refused with exit code {stop.code}")


def test_there_are_commands_to_parse() -> None:
    shown = {shlex.split(command)[0] for _, command in commands()}
    assert {"demo", "data", "fit", "evaluate", "report", "sweep"} <= shown


def test_grid_of_the_page_of_sweeps_is_a_grid(tmp_path: Path) -> None:
    blocks = fences((ROOT / "docs/sweeps.md").read_text(encoding="utf-8"))
    grids = [block for language, block in blocks if language == "toml" and "[grid]" in block]
    assert len(grids) == 1
    (tmp_path / "grid.toml").write_text(grids[0], encoding="utf-8")
    made = cells(read_toml(tmp_path / "grid.toml"))
    assert len(made) == 12
    assert made[0].name == "full,n_voxels=1000,seed=0"  # the folder the page names
    for cell in made:
        build(troi.Config, cell.settings, name="troi")
    (table,) = (block for language, block in blocks if language == "toml" and "[slurm]" in block)
    (tmp_path / "slurm.toml").write_text(table, encoding="utf-8")
    build(slurm.Config, read_toml(tmp_path / "slurm.toml")["slurm"], name="slurm")


def test_settings_table_of_the_decoder_is_up_to_date() -> None:
    lines = ["| setting | default | what |", "|---|---|---|"]
    for name, fits, default, text in describe(cross_subject_decoder.Config):
        shown = "none" if default is None else f"{default:.4g}" if isinstance(default, float) else str(default)
        lines.append(f"| `{name}` | {shown} | {text} ({fits}) |")
    table = "\n".join(lines)
    page = (ROOT / "docs/methods/cross_subject_decoder.md").read_text(encoding="utf-8")
    assert table in page, f"the table that belongs into docs/methods/cross_subject_decoder.md:\n{table}"


def test_floors_of_the_architecture_page_are_those_that_are_checked() -> None:
    contract = read_toml(ROOT / "pyproject.toml")["tool"]["importlinter"]["contracts"][0]
    floors = [floor for layer in contract["layers"] for floor in layer.split(" | ")]
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert [line.split()[0] for line in page.split("```")[1].splitlines() if line] == floors


def test_every_file_that_the_architecture_page_passes_is_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = [place for place in re.findall(r"`([\w/]+\.py)`", page) if "/" in place]
    assert len(named) > 40
    assert not [place for place in named if not (ROOT / "src/pulvinar" / place).is_file()]


@pytest.mark.long
def test_no_registry_and_no_place_of_one_machine_is_named() -> None:
    named = []
    kinds = {".py", ".md", ".toml", ".yaml", ".cff", ".css", ".html", ".csv", ""}
    own = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    texts = [path for path in own if path.is_file() and path.suffix in kinds and path.name != ".git"]
    assert len(texts) > 400  # or the walk has lost a folder
    for path in sorted(texts):
        text = path.read_text(encoding="utf-8", errors="replace")
        named += [f"{path.relative_to(ROOT)}: {word}" for word in HOSTS if word in text]
        absolute = [place for place in PLACES if re.search(rf"(?<![\w.~/}}]){re.escape(place)}", text)]
        named += [f"{path.relative_to(ROOT)}: {place}" for place in absolute]
    assert not named


def _defined(name: str) -> bool:
    """Whether a function or class of the package, such as linear.ridge.search, is there."""
    module, _, own = name.rpartition(".")
    file = ROOT / "src/pulvinar" / f"{module.replace('.', '/')}.py"
    return file.is_file() and bool(re.search(rf"^(?:def|class) {own}\b", file.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_function_beside_an_equation_is_there():
    pages = [*(ROOT / "docs/methods").glob("*.md"), ROOT / "docs/pictures.md", ROOT / "docs/rsa.md", ROOT / "docs/deploy.md"]
    named = {
        (page.name, name)
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") or re.match(r"\d\. \(", line)
        for name in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+\.\w+)`", line)
        if (ROOT / "src/pulvinar" / name.partition(".")[0]).is_dir() and not name.endswith(".py")
    }
    assert len(named) > 40
    assert {(page, name) for page, name in named if not _defined(name)} == set()


def _without_section(text: str, title: str) -> str:
    """The text without one section: docs/nsd.md's is written anew from its benchmark."""
    return re.sub(rf"^## {title}.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)


def test_intervals_of_the_documents_are_in_the_one_notation():
    """docs/words.md: `.68 [.63, .73]`; two numbers in brackets without a comma, or with a word between, are another one."""
    number = r"[-+−]?(?:\d+\.?\d*|\.\d+)"
    other = re.compile(rf"\[{number}(?: | to |; | – )+{number}\]|interval {number} to {number}")
    found = [
        f"{path.name}: {match.group()}"
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for match in other.finditer(_without_section(path.read_text(encoding="utf-8"), "Four subjects who see photographs"))
    ]
    assert found == []
