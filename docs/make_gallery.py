"""Run the tutorials, keep their pictures, and make the gallery: every figure of their runs, small, and the page of them.

    python docs/make_gallery.py            # all: minutes
    python docs/make_gallery.py encode     # one; the others stay as they are

Thumbnails lie in docs/images/gallery, none above 60 kB; docs/gallery.md is written anew from what lies there.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

import run_tutorials
from PIL import Image

IMAGES = run_tutorials.DOCS / "images"
WIDTH, LARGEST = 480, 60_000  # pixels; bytes
CAPTIONS = {"map": "brain_map", "scores": "scores", "stages": "stages"}  # panel -> function of pulvinar.plot, where it differs
HEAD = """# Gallery

Every figure that the reports of the [tutorials](tutorials/roi.md) have, as `pulvinar.plot` draws it.
All data are planted: SIMULATED. Each is one call on a run, such as `pulvinar.plot.roi(run)` ([reference](reference/plot.md));
`pulvinar report` puts them on a page.

![Kept voxels against the annotated ROI](images/tutorials/roi.png)

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
        old.unlink()
    for run in sorted(path.parent for path in folder.glob("runs/*/run.json")):
        for panel in plot.panels(run):
            made = io.BytesIO()
            plot.panel(run, panel).savefig(made, format="png", dpi=110)
            (IMAGES / "gallery" / f"{name}--{panel}.png").write_bytes(thumbnail(made.getvalue()))


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
        shown = sorted((IMAGES / "gallery").glob(f"{name}--*.png"))
        lines += [f"## {title(name)}\n", f"[The tutorial](tutorials/{name}.md).\n"] if shown else []
        for path in shown:
            panel = path.stem.partition("--")[2]
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
