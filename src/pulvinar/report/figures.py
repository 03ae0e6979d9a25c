"""All figures of a run, as PNG and SVG under its `artifacts/figures/`."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from pulvinar.report import curves_figure, roi_figure, score_figure, summary_picture, trial_figure
from pulvinar.report.drawing import save, style
from pulvinar.report.run_folder import Run


def draw(run: Run) -> dict[str, Path]:
    """Draw what the run has pieces for: 'roi', 'curves', 'scores', 'trials', 'summary'; name -> path without suffix.

    Each is written as `.png` and `.svg`, 'summary' as a `.png` of 1600 x 900 pixels. Raises `FileError` where they cannot
    be written.
    """
    folder = run.folder / "artifacts" / "figures"
    with mpl.rc_context(style()):
        figures = _figures(run)
        for name, figure in figures.items():
            save(figure, folder, name)
        summary = summary_picture.draw(run)
        if summary is not None:
            save(summary, folder, "summary", formats=("png",), dpi=100)
            figures["summary"] = summary
    return {name: folder / name for name in figures}


def _figures(run: Run) -> dict[str, Figure]:
    figures = {}
    if run.maps is not None:
        figures["roi"] = roi_figure.draw(run.maps, str((run.evaluation or {}).get("reference") or ""))
    if curves_figure.curves(run.records):
        figures["curves"] = curves_figure.draw(run.records, run.facts.get("selection") or {})
    if run.rows and run.evaluation is not None:
        figures["scores"] = score_figure.draw(run.evaluation, run.method)
    if run.examples is not None and len(run.examples.rank):
        gallery_size = (run.evaluation or {}).get("gallery_size")
        figures["trials"] = trial_figure.draw(run.examples, gallery_size)
    return figures
