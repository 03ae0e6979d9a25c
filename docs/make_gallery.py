"""Run the tutorials, keep their pictures, and make the gallery: reports and figures of their runs, small, and the page of them.

    python docs/make_gallery.py            # all: minutes
    python docs/make_gallery.py encode     # one; the others stay as they are

Thumbnails lie in docs/images/gallery, none above 60 kB; docs/gallery.md is written anew from what lies there. The head of a
report is photographed by Chromium; where there is none, the photographs stay as they are.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import run_tutorials
from PIL import Image

IMAGES = run_tutorials.DOCS / "images"
WIDTH, LARGEST = 480, 60_000  # pixels; bytes
CAPTIONS = {"map": "brain_map"}  # panel -> function of pulvinar.plot, where it differs
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPORT = "report-"  # a thumbnail whose panel begins so is of the page of that run
HEAD = """# Gallery

The reports that the [tutorials](tutorials/roi.md) end with, and every figure in them, as `pulvinar.plot` draws it.
All data are planted: SIMULATED. A figure is one call on a run, such as `pulvinar.plot.roi(run)`
([reference](reference/plot.md)); `pulvinar report` puts them on a page of one file.

Made by `python docs/make_gallery.py`.
"""


def thumbnail(png: bytes) -> bytes:
    """A PNG of 480 pixels in as many colours as 60 kB allow."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for width in (WIDTH, WIDTH * 3 // 4, WIDTH // 2):
        small = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
        for colours in (256, 64, 16):
            made = io.BytesIO()
            small.quantize(colours).save(made, "PNG", optimize=True)
            if made.tell() <= LARGEST:
                return made.getvalue()
    raise ValueError(f"a picture of {picture.size} pixels does not fit into {LARGEST} bytes")


def keep_figures(name: str, folder: Path) -> None:
    """A thumbnail of every figure of every run below the folder, as TUTORIAL--PANEL.png."""
    from pulvinar import plot

    for old in (IMAGES / "gallery").glob(f"{name}--*.png"):
        if CHROMIUM or REPORT not in old.name:
            old.unlink()
    for run in sorted(path.parent for path in folder.glob("runs/*/run.json")):
        if CHROMIUM and (run / "report.html").is_file():
            (IMAGES / "gallery" / f"{name}--{REPORT}{run.name}.png").write_bytes(thumbnail(photograph(run / "report.html")))
        for panel in plot.panels(run):
            made = io.BytesIO()
            plot.panel(run, panel).savefig(made, format="png", dpi=110)
            (IMAGES / "gallery" / f"{name}--{panel}.png").write_bytes(thumbnail(made.getvalue()))


def photograph(page: Path) -> bytes:
    """The head of a page, a PNG 960 pixels wide."""
    with tempfile.TemporaryDirectory() as temporary:
        picture = Path(temporary) / "page.png"
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=960,1100")
        subprocess.run([str(CHROMIUM), *flags, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
        return picture.read_bytes()


def caption(panel: str) -> tuple[str, str]:
    """The function of pulvinar.plot that draws a panel, and what it says that it shows."""
    from pulvinar import plot

    stem = panel.partition("-")[0].partition("_")[0]
    function = CAPTIONS.get(stem, stem)
    return function, (getattr(plot, function).__doc__ or "").strip().splitlines()[0]


def title(name: str) -> str:
    """The heading of a tutorial."""
    return (run_tutorials.TUTORIALS / f"{name}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def write_page() -> None:
    """docs/gallery.md over the thumbnails there are."""
    lines = [HEAD]
    for name in run_tutorials.names():
        shown = sorted((IMAGES / "gallery").glob(f"{name}--*.png"), key=lambda path: (REPORT not in path.name, path.name))
        if not shown:
            continue
        lines += [f"## {title(name)}\n", f"[The tutorial](tutorials/{name}.md), and its picture:\n"]
        lines += [f"![{title(name)}](images/tutorials/{name}.png)\n"]
        for path in shown:
            panel = path.stem.partition("--")[2]
            if panel.startswith(REPORT):
                says = f"The report of `runs/{panel.removeprefix(REPORT)}`, its head."
                lines += [f"{says}\n", f"![{says.replace('`', '')}](images/gallery/{path.name})\n"]
                continue
            function, says = caption(panel)
            lines += [f"**`{function}`** {says}\n", f"![{says}](images/gallery/{path.name})\n"]
    (run_tutorials.DOCS / "gallery.md").write_text("\n".join(lines), encoding="utf-8")


def main(chosen: list[str]) -> None:
    """Run the chosen tutorials, or all; pictures, thumbnails, page."""
    (IMAGES / "gallery").mkdir(parents=True, exist_ok=True)
    (IMAGES / "tutorials").mkdir(parents=True, exist_ok=True)
    for name in chosen or run_tutorials.names():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            run_tutorials.run(name, folder)
            shutil.copyfile(folder / run_tutorials.picture(name), IMAGES / "tutorials" / f"{name}.png")
            keep_figures(name, folder)
    write_page()


if __name__ == "__main__":
    main(sys.argv[1:])
