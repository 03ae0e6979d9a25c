"""Every figure of the report of a run, for a notebook or a paper: `plot.scores(run)`, `plot.roi(run)`, …

Each takes a run (what `pulvinar.load` gives, or its folder) and returns the matplotlib `Figure` that stands on its page. ax:
axes to put it into instead, as a picture, because most have several axes of their own; the figure of `ax` comes back.
`panels(run)` says which ones a run has; asking for another is a `NotFoundError` that says what it needs. Simulated data are
marked.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.places import place_of
from pulvinar.report import run_folder
from pulvinar.report.drawing import DOTS_PER_INCH, marked, style
from pulvinar.report.page import topic_page


def __getattr__(name: str) -> Any:
    figures = [known for known, found in globals().items() if callable(found) and getattr(found, "__module__", "") == __name__]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{suggest(name, figures)}")


Source = str | os.PathLike[str]  # a run, or its folder


def panels(run: Source) -> list[str]:
    """Names of the figures that a run has pieces for."""
    return list(_drawers(run)[0])


def panel(run: Source, name: str, *, ax: Axes | None = None) -> Figure:
    """The figure of this name."""
    found, simulated = _drawers(run)
    if name not in found:
        missing = "its page has more once it is evaluated" if not _is_evaluated(run) else "its folder has no pieces for it"
        raise NotFoundError(f"{os.fspath(run)}: no figure '{name}' ({missing}){suggest(name, list(found)) if found else ''}")
    with mpl.rc_context(style()):
        drawn = found[name]()
        figure = marked(drawn) if simulated else drawn
        return figure if ax is None else _into(ax, figure)


def _drawers(run: Source) -> tuple[dict[str, Callable[[], Figure]], bool]:
    folder = Path(place_of("run", run, "a run (pulvinar.load, pulvinar.fit) or its folder"))
    if folder.is_dir() and not (folder / "run.json").is_file() and any(folder.glob("*/run.json")):
        from pulvinar.gating.figures import drawers

        return drawers(folder), False
    read = run_folder.read(folder)
    return topic_page(read).drawers(read), read.simulated


def _is_evaluated(run: Source) -> bool:
    return (Path(run) / "evaluation.json").is_file()


def _into(ax: Axes, figure: Figure) -> Figure:
    """Show a figure inside axes, in its own proportions."""
    figure.set_dpi(DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ax.imshow(np.asarray(canvas.buffer_rgba()), interpolation="antialiased")
    ax.set_axis_off()
    owner = ax.get_figure(root=True)
    if owner is None:
        raise InputError("ax: these axes have been removed from their figure")
    return owner


def _of(run: Source, stem: str, which: str | None, what: str, mark: str, ax: Axes | None) -> Figure:
    """A figure that a run may have several of, such as `map-subj01`."""
    names = [name for name in panels(run) if name == stem or name.startswith(f"{stem}{mark}")]
    if which is not None or not names:
        return panel(run, stem if which is None else f"{stem}{mark}{which}", ax=ax)
    if len(names) > 1:
        choices = ", ".join(name.removeprefix(f"{stem}{mark}") for name in names)
        raise InputError(f"{what}: the run has several; name one of: {choices}")
    return panel(run, names[0], ax=ax)


def scores(run: Source, target: str | None = None, *, ax: Axes | None = None) -> Figure:
    """The run beside its controls, with intervals. target: of an RSA run, which measurement."""
    return _of(run, "scores", target, "target", "_", ax)


def stages(run: Source, target: str | None = None, *, ax: Axes | None = None) -> Figure:
    """RSA: what each stage of the network carries. target: which measurement."""
    return _of(run, "stages", target, "target", "_", ax)


def brain_map(run: Source, subject: str | None = None, *, ax: Axes | None = None) -> Figure:
    """Encoding: r of every voxel and the layer that predicts it, on the brain of a subject."""
    return _of(run, "map", subject, "subject", "-", ax)


def roi(run: Source, *, ax: Axes | None = None) -> Figure:
    """Decoding: the kept voxels against the reference, and the learned weights."""
    return panel(run, "roi", ax=ax)


def curves(run: Source, *, ax: Axes | None = None) -> Figure:
    """How selection and training went, epoch by epoch."""
    return panel(run, "curves", ax=ax)


def trials(run: Source, *, ax: Axes | None = None) -> Figure:
    """Decoding: test trials, the image that was seen and the five that were retrieved."""
    return panel(run, "trials", ax=ax)


def summary(run: Source, *, ax: Axes | None = None) -> Figure:
    """Decoding: voxels, scores and some trials in one picture."""
    return panel(run, "summary", ax=ax)


def rois(run: Source, *, ax: Axes | None = None) -> Figure:
    """Encoding: r per ROI beside null and noise ceiling."""
    return panel(run, "rois", ax=ax)


def layers(run: Source, *, ax: Axes | None = None) -> Figure:
    """Encoding: how well each layer predicts each ROI."""
    return panel(run, "layers", ax=ax)


def transfer(run: Source, *, ax: Axes | None = None) -> Figure:
    """Encoding: tuned networks on other subjects (`pulvinar encoding transfer`)."""
    return panel(run, "transfer", ax=ax)


def information(run: Source, *, ax: Axes | None = None) -> Figure:
    """Encoding: information about the images (`pulvinar encoding information`)."""
    return panel(run, "information", ax=ax)


def landscape(run: Source, *, ax: Axes | None = None) -> Figure:
    """Encoding: models by what they classify alike (`pulvinar encoding classify`)."""
    return panel(run, "landscape", ax=ax)


def salience(run: Source, *, ax: Axes | None = None) -> Figure:
    """Encoding: where each hemisphere's model looks (`pulvinar encoding salience`)."""
    return panel(run, "salience", ax=ax)


def tradeoff(run: Source, *, ax: Axes | None = None) -> Figure:
    """Pictures: pixel correlation beside two-way identification."""
    return panel(run, "tradeoff", ax=ax)


def rdms(run: Source, *, ax: Axes | None = None) -> Figure:
    """RSA: predicted and measured RDMs."""
    return panel(run, "rdms", ax=ax)


def arrangement(run: Source, *, ax: Axes | None = None) -> Figure:
    """RSA: the images as predicted and measured dissimilarities arrange them."""
    return panel(run, "arrangement", ax=ax)


def accuracy(run: Source, *, ax: Axes | None = None) -> Figure:
    """Self-supervised: accuracy against multiply-adds; of a folder of runs, all of them."""
    return panel(run, "accuracy", ax=ax)


def channels(run: Source, *, ax: Axes | None = None) -> Figure:
    """Self-supervised: channels always open, decided by image, always shut, per gate."""
    return panel(run, "channels", ax=ax)


def choices(run: Source, *, ax: Axes | None = None) -> Figure:
    """Self-supervised, of levels or routes: share of the images that take each of them."""
    return panel(run, "choices", ax=ax)


def embedding(run: Source, *, ax: Axes | None = None) -> Figure:
    """Self-supervised: the test images as their features arrange them."""
    return panel(run, "embedding", ax=ax)
