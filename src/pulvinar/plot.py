"""Every figure of the report of a run, for a notebook or a paper: `plot.scores(run)`, `plot.roi(run)`, …

Each takes a run (what `pulvinar.load` gives, or its folder) and returns the matplotlib `Figure` that stands on its page. ax:
axes to put it into instead, as a picture, because most have several axes of their own; `ax` comes back.
`panels(run)` says which ones a run has; asking for another is a `NotFoundError` that says what it needs. Simulated data are
marked.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast, overload

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


class _Panel(Protocol):
    @overload
    def __call__(self, run: Source, *which: str | None, ax: None = None, **named: str | None) -> Figure: ...
    @overload
    def __call__(self, run: Source, *which: str | None, ax: Axes, **named: str | None) -> Axes: ...


def _typed(function: Callable[..., Figure | Axes]) -> _Panel:
    """The function itself; without axes a figure comes back, with them the axes."""
    return cast(_Panel, function)


def panels(run: Source) -> list[str]:
    """Names of the figures that a run has pieces for."""
    return list(_drawers(run)[0])


@_typed
def panel(run: Source, name: str, *, ax: Axes | None = None) -> Figure | Axes:
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


def _into(ax: Axes, figure: Figure) -> Axes:
    """Show a figure inside axes, in its own proportions."""
    if ax.get_figure(root=True) is None:
        raise InputError("ax: these axes have been removed from their figure")
    figure.set_dpi(DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ax.imshow(np.asarray(canvas.buffer_rgba()), interpolation="antialiased")
    ax.set_axis_off()
    return ax


def _of(run: Source, stem: str, which: str | None, what: str, mark: str, ax: Axes | None) -> Figure | Axes:
    """A figure that a run may have several of, such as `map-subj01`."""
    names = [name for name in panels(run) if name == stem or name.startswith(f"{stem}{mark}")]
    if which is not None or not names:
        return panel(run, stem if which is None else f"{stem}{mark}{which}", ax=ax)
    if len(names) > 1:
        choices = ", ".join(name.removeprefix(f"{stem}{mark}") for name in names)
        raise InputError(f"{what}: the run has several; name one of: {choices}")
    return panel(run, names[0], ax=ax)


@_typed
def scores(run: Source, target: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """The run beside its controls, with intervals. target: of an RSA run, which measurement."""
    return _of(run, "scores", target, "target", "_", ax)


@_typed
def stages(run: Source, target: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """RSA: what each stage of the network carries. target: which measurement."""
    return _of(run, "stages", target, "target", "_", ax)


@_typed
def brain_map(run: Source, subject: str | None = None, *, ax: Axes | None = None) -> Figure | Axes:
    """Encoding: r of every voxel and the layer that predicts it, on the brain of a subject."""
    return _of(run, "map", subject, "subject", "-", ax)


@_typed
def roi(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Decoding: the kept voxels against the reference, and the learned weights."""
    return panel(run, "roi", ax=ax)


@_typed
def curves(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """How selection and training went, epoch by epoch."""
    return panel(run, "curves", ax=ax)


@_typed
def trials(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Decoding: test trials, the image that was seen and the five that were retrieved."""
    return panel(run, "trials", ax=ax)


@_typed
def summary(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Decoding: voxels, scores and some trials in one picture."""
    return panel(run, "summary", ax=ax)


@_typed
def rois(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Encoding: r per ROI beside null and noise ceiling."""
    return panel(run, "rois", ax=ax)


@_typed
def layers(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Encoding: how well each layer predicts each ROI."""
    return panel(run, "layers", ax=ax)


@_typed
def transfer(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Encoding: tuned networks on other subjects (`pulvinar encoding transfer`)."""
    return panel(run, "transfer", ax=ax)


@_typed
def information(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Encoding: information about the images (`pulvinar encoding information`)."""
    return panel(run, "information", ax=ax)


@_typed
def landscape(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Encoding: models by what they classify alike (`pulvinar encoding classify`)."""
    return panel(run, "landscape", ax=ax)


@_typed
def salience(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Encoding: where each hemisphere's model looks (`pulvinar encoding salience`)."""
    return panel(run, "salience", ax=ax)


@_typed
def tradeoff(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Pictures: pixel correlation beside two-way identification."""
    return panel(run, "tradeoff", ax=ax)


@_typed
def rdms(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """RSA: predicted and measured RDMs."""
    return panel(run, "rdms", ax=ax)


@_typed
def arrangement(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """RSA: the images as predicted and measured dissimilarities arrange them."""
    return panel(run, "arrangement", ax=ax)


@_typed
def accuracy(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Self-supervised: accuracy against multiply-adds; of a folder of runs, all of them."""
    return panel(run, "accuracy", ax=ax)


@_typed
def channels(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Self-supervised: channels always open, decided by image, always shut, per gate."""
    return panel(run, "channels", ax=ax)


@_typed
def choices(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Self-supervised, of levels or routes: share of the images that take each of them."""
    return panel(run, "choices", ax=ax)


@_typed
def embedding(run: Source, *, ax: Axes | None = None) -> Figure | Axes:
    """Self-supervised: the test images as their features arrange them."""
    return panel(run, "embedding", ax=ax)
