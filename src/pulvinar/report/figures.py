"""All figures of a run, as PNG and SVG under its `artifacts/figures/`."""

from pathlib import Path
from types import ModuleType

import matplotlib as mpl
from matplotlib.figure import Figure

from pulvinar.report.drawing import save, style
from pulvinar.report.run_folder import Run


def draw(run: Run, topic: ModuleType) -> dict[str, Path]:
    """Draw what the run has pieces for, as its topic's page says; name -> path without suffix.

    Each is written as `.png` and `.svg`, 'summary' as a `.png` of 1600 x 900 pixels. Raises `FileError` where they cannot
    be written.
    """
    folder = run.folder / "artifacts" / "figures"
    with mpl.rc_context(style()):
        figures: dict[str, Figure] = {name: make() for name, make in topic.drawers(run).items()}
        for name, figure in figures.items():
            if name == "summary":
                save(figure, folder, name, simulated=run.simulated, formats=("png",), dpi=100)
            else:
                save(figure, folder, name, simulated=run.simulated)
    return {name: folder / name for name in figures}
