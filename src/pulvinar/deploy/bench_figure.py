"""How long a network for use takes: a panel per batch size, a row per runtime, a dot per form with its quartiles."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pulvinar.report.drawing import BOTH, INK, MUTED, REFERENCE_ONLY, RULE, SELECTED_ONLY

Rows = Sequence[Mapping[str, Any]]
FORMS = {"dense": (INK, "o"), "masked": (MUTED, "X"), "compact": (SELECTED_ONLY, "s"), "dynamic": (BOTH, "D")}
FORMS |= {"levels": (SELECTED_ONLY, "s"), "routes": (SELECTED_ONLY, "s")}  # never beside compact
BETWEEN = 0.17  # rows of one runtime's forms
MISSES = {0.0: 1.0, 0.01: 0.6, 0.1: 0.35}  # opacity of a miss rate


def draw(rows: Rows) -> Figure:
    """Milliseconds of a batch on a logarithmic axis; paler dots are higher miss rates."""
    batches = sorted({row["batch"] for row in rows})
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    figure = Figure(figsize=(10, 1.3 + 0.62 * len(runtimes)), layout="constrained")
    axes = figure.subplots(1, len(batches), squeeze=False, sharey=True)[0]
    for axis, batch in zip(axes, batches, strict=True):
        _panel(axis, [row for row in rows if row["batch"] == batch], runtimes)
        axis.set_title(f"batch of {batch}" if batch > 1 else "one image at a time")
    shown = [form for form in FORMS if any(row["form"] == form for row in rows)]
    marks = [Line2D([], [], color=FORMS[form][0], marker=FORMS[form][1], linestyle="none", label=form) for form in shown]
    rates = sorted({row["miss_rate"] for row in rows})
    if len(rates) > 1:
        text = ", ".join(f"{100 * rate:g}" for rate in rates)
        marks.append(Line2D([], [], linestyle="none", label=f"from dark to pale: {text} % of images miss"))
    figure.legend(handles=marks, loc="outside upper left", ncols=len(marks), handletextpad=0.2, columnspacing=1.2)
    return figure


def _panel(axis: Axes, rows: Rows, runtimes: Sequence[str]) -> None:
    for row in rows:
        colour, marker = FORMS[row["form"]]
        height = runtimes.index(row["runtime"]) + BETWEEN * (min(3, list(FORMS).index(row["form"])) - 1.5)
        opacity = MISSES.get(row["miss_rate"], 0.35)
        bounds = [row["lower_quartile"], row["upper_quartile"]]
        axis.plot(bounds, [height] * 2, color=colour, linewidth=1.4, alpha=opacity, solid_capstyle="butt")
        axis.plot(row["milliseconds"], height, color=colour, marker=marker, markersize=5, alpha=opacity, linestyle="none")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0), numticks=12))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(runtimes)), runtimes)
    axis.set_ylim(len(runtimes) - 0.5, -0.5)
    axis.set_xlabel("milliseconds a batch (median, quartiles over rounds)")
    axis.grid(axis="x", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    for edge in range(1, len(runtimes)):
        axis.axhline(edge - 0.5, color=REFERENCE_ONLY, linewidth=0.4)
