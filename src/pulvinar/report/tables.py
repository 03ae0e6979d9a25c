"""The scores beside their controls: as HTML and CSV (text_table.py: as text); and what is published beside ours.

A control is compared with the run by the paired difference of their scores (control minus run) and its interval: where the
interval holds zero the comparison is a tie, whichever score is larger. Without an interval it is 'not told'.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pulvinar.metrics.resampling import interval_text
from pulvinar.report.run_folder import SCORE

Row = Mapping[str, Any]

LABELS = {
    "troi": "TROI",
    "ridge": "Ridge, same voxels",
    "annotated": "Annotated ROI",
    "all": "All voxels",
    "random": "Random voxels",
    "ceiling": "Noise ceiling",
    "ceiling_oracle": "Noise ceiling (oracle)",
    "univariate": "Univariate",
    "univariate_smoothed": "Univariate (smoothed)",
    "anova": "ANOVA",
    "true_voxels": "All true voxels (oracle)",
    "true_best": "Best true voxels (oracle)",
}
METRICS = {
    "brain_to_image_top1": "brain → image top-1",
    "image_to_brain_top1": "image → brain top-1",
    "brain_to_image_top5": "brain → image top-5",
    "brain_to_image_median_rank": "median rank",
    "n_voxels": "voxels",
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "inception": "Inception, two-way",
    "swav": "SwAV distance",
}
GALLERIES = {"draws": "30 draws of 300", "every_candidate": "every candidate"}  # columns of the protocol that is no headline
NO_BREAK = "\u00a0"
INTERVAL = f"[95{NO_BREAK}%]"  # in the head of a column with intervals
VERDICTS = {"lower": "lower", "higher": "higher", "tie": "tie", "not told": "not told", "run": "this run", "none": "–"}


def label(name: str) -> str:
    """A row's name as a reader would write it.

    >>> label("ceiling_oracle"), label("top_reliable")
    ('Noise ceiling (oracle)', 'Top reliable')
    """
    return LABELS.get(name) or name.replace("_", " ").capitalize()


def in_sentence(name: str) -> str:
    """A control's label inside a sentence: 'annotated ROI', but 'ANOVA'.

    >>> in_sentence("annotated"), in_sentence("anova")
    ('annotated ROI', 'ANOVA')
    """
    text = label(name)
    return text if text[:2].isupper() else text[0].lower() + text[1:]


def metric(name: str) -> str:
    """A metric's name as a reader would write it."""
    return METRICS.get(name) or name.replace("_", " ")


def count(value: float | None) -> str:
    """A whole number with thousands marked, a dash for none.

    >>> count(8000), count(None)
    ('8,000', '–')
    """
    return "–" if _absent(value) else f"{value:,.0f}"


def percent(share: float | None, digits: int | None = None) -> str:
    """A share in percent, with a space that does not break; without `digits`, one decimal below 10 % and none above.

    >>> print(percent(.614), percent(.0033), percent(.614, 1), percent(None), sep=", ")
    61 %, 0.3 %, 61.4 %, –
    """
    if share is None or _absent(share):
        return "–"
    if digits is None:
        digits = 0 if abs(share) >= 0.0995 or share == 0 else 1
    return f"{100 * share:.{digits}f}{NO_BREAK}%"


def said_interval(bounds: Sequence[float | None] | None, write: Callable[[float], str]) -> str:
    """An interval that stands alone: '95 % interval [55 %, 67 %]'; says so where there is none."""
    text = interval_text(bounds, write)
    return f"95{NO_BREAK}% interval {text}" if text else "no interval"


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def points(difference: float) -> str:
    """A signed difference of shares, in percentage points, with a real minus."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def share(value: float) -> str:
    """A share in percent, one decimal, without the sign."""
    return f"{100 * value:.1f}"


@dataclass(frozen=True)
class Column:
    """One column of the table: where its value stands in a row, its heading and unit, and how a value is written."""

    key: str
    heading: str
    unit: str
    write: Callable[[float], str]

    def value(self, row: Row) -> str:
        """The written value, a dash for none."""
        value = row.get(self.key)
        return "–" if value is None or _absent(value) else self.write(value)

    def interval(self, row: Row) -> str:
        """The written interval ('[55.0, 67.0]'), empty for none."""
        return interval_text(row.get(f"{self.key}_interval"), self.write)

    def head(self, rows: Sequence[Row]) -> str:
        """What stands below the heading: the unit, and the level where a row has an interval."""
        return f"{self.unit} {INTERVAL}".strip() if any(self.interval(row) for row in rows) else self.unit


def columns(rows: Sequence[Row], method: str) -> list[Column]:
    """The columns in which at least one row has a value."""
    every = [
        Column("n_voxels", "voxels", "", count),
        Column(SCORE, "brain → image", "top-1, %", share),
        Column("image_to_brain_top1", "image → brain", "top-1, %", share),
        *[
            Column(f"{protocol}_{direction}_top1", heading, f"top-1, %, {gallery}", share)
            for protocol, gallery in GALLERIES.items()
            for direction, heading in (("brain_to_image", "brain → image"), ("image_to_brain", "image → brain"))
        ],
        Column("brain_to_image_top5", "brain → image", "top-5, %", share),
        Column("brain_to_image_median_rank", "median rank", "brain → image", lambda value: f"{value:g}"),
        Column("precision", "precision", "", "{:.2f}".format),
        Column("recall", "recall", "", "{:.2f}".format),
        Column("dice", "Dice", "", "{:.2f}".format),
        Column(f"difference_to_{method}", f"minus {label(method)}", "points", points),
    ]
    return [column for column in every if any(row.get(column.key) is not None for row in rows)]


def told_columns(rows: Sequence[Row], method: str) -> list[Column]:
    """`columns` without those under another protocol that repeat the headline's in every row (300 images: one draw of 300)."""
    again = {f"{protocol}_{key}": key for protocol in GALLERIES for key in (SCORE, "image_to_brain_top1")}
    return [
        column
        for column in columns(rows, method)
        if column.key not in again or any(row.get(column.key) != row.get(again[column.key]) for row in rows)
    ]


def verdict(row: Row, method: str) -> str:
    """'lower', 'tie' or 'higher' than the run, 'not told' without an interval, 'run' for itself, 'none' without a score.

    A tie is an interval of the paired difference that holds zero.
    """
    if row["name"] == method:
        return "run"
    if row.get(SCORE) is None:
        return "none"
    bounds = row.get(f"difference_to_{method}_interval")
    if bounds is None or any(map(_absent, bounds)):
        return "not told"
    return "lower" if bounds[1] < 0 else "higher" if bounds[0] > 0 else "tie"


def is_oracle(row: Row) -> bool:
    """Whether a row has seen an answer, by its own word, or by that of its name or description."""
    return bool(row.get("oracle") or row.get("sees_answer")) or "oracle" in f"{row['name']} {row.get('description')}".lower()


def standing(rows: Sequence[Row], method: str) -> str:
    """One sentence per verdict that occurred: which controls (no oracles) the run beats, ties with and loses to."""
    groups: dict[str, list[str]] = {"lower": [], "tie": [], "higher": [], "not told": []}
    for row in rows:
        if not is_oracle(row):
            groups.get(verdict(row, method), []).append(in_sentence(row["name"]))
    oracles = [
        f"{in_sentence(row['name'])} ({VERDICTS[kind]})"
        for row in rows
        if is_oracle(row) and (kind := verdict(row, method)) in groups
    ]
    n_controls, ours = sum(map(len, groups.values())), label(method)
    if not n_controls:
        return "No control was scored, so nothing can be said about what the selection is worth."
    words = {
        "lower": f"{ours} scores higher than",
        "tie": "It ties (the 95 % interval of the difference holds zero) with",
        "higher": "It scores lower than",
        "not told": "No interval was stored for the difference to",
    }
    said = [f"{words[kind]} {len(names)} of {n_controls}: {', '.join(names)}." for kind, names in groups.items() if names]
    if not groups["lower"]:
        said.insert(0, f"{ours} beats none of its {n_controls} controls.")
    if oracles:
        said.append(f"Oracles, which have seen an answer and are not counted: {', '.join(oracles)}.")
    return " ".join(said)


def headroom(found: Mapping[str, Any] | None) -> str:
    """What the truth gains over the simplest score per voxel, and whether this world can tell selections apart; '' without."""
    if not found:
        return ""
    gains = [
        f"{in_sentence(name)} {points(gain['difference'])} points {interval_text(gain['interval'], points)}"
        for name, gain in found["gains"].items()
    ]
    simplest = in_sentence(found["simplest"])
    said = f"Against the simplest score ({simplest}) the truth gains: {', '.join(gains)} (95{NO_BREAK}% intervals)."
    if found["tells"]:
        return f"{said} So there is something to win here."
    return (
        f"{said} What could be reached ties with the simplest score: this world cannot tell a good selection from a simple one."
    )


def as_html(rows: Sequence[Row], method: str) -> str:
    """The table as HTML; a row that is not available shows its reason instead of scores."""
    shown = told_columns(rows, method)
    heads = "".join(f'<th class="number">{escape(c.heading)}<small>{escape(c.head(rows))}</small></th>' for c in shown)
    body = "\n".join(_html_row(row, shown, method) for row in rows)
    against = f"<th>against {escape(label(method))}</th>"
    head = f"<thead><tr><th>voxels used</th>{heads}{against}</tr></thead>"
    return f'<table class="scores">\n{head}\n<tbody>\n{body}\n</tbody></table>'


def _html_row(row: Row, shown: Sequence[Column], method: str) -> str:
    description = f"<small>{escape(str(row['description']))}</small>" if row.get("description") else ""
    name = f'<th scope="row">{escape(label(row["name"]))}{description}</th>'
    if row.get("unavailable"):
        reason = f'<td class="unavailable" colspan="{len(shown) + 1}">not available: {escape(str(row["unavailable"]))}</td>'
        return f'<tr class="none">{name}{reason}</tr>'
    cells = "".join(f'<td class="number">{c.value(row)}<small>{c.interval(row)}</small></td>' for c in shown)
    kind = verdict(row, method)
    mark = f'<td><span class="verdict {kind.replace(" ", "-")}">{VERDICTS[kind]}</span></td>'
    return f'<tr class="{kind.replace(" ", "-")}">{name}{cells}{mark}</tr>'


def as_csv(rows: Sequence[Row], method: str) -> str:
    """The table as CSV: raw values (shares, not percents), interval bounds as in `csv_text`, verdict and reason."""
    shown = [column.key for column in columns(rows, method)]
    with_interval = {key for key in shown if any(row.get(f"{key}_interval") for row in rows)}
    entries = []
    for row in rows:
        entry = {"name": row["name"], "description": row.get("description", "")}
        for key in shown:
            entry[key] = row.get(key)
            if key in with_interval:
                entry[f"{key}_interval"] = row.get(f"{key}_interval")
        entries.append({**entry, "verdict": verdict(row, method), "unavailable": row.get("unavailable") or ""})
    return csv_text(entries)


def csv_text(entries: Sequence[Row]) -> str:
    """Entries as CSV with a header; columns in the order in which they first come. Intervals say their level in their names.

    A pair `score_interval` becomes the columns `score_low_95` and `score_high_95`, and so are `score_low`, `score_high` named.
    """
    entries = [_with_levels(entry) for entry in entries]
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return text.getvalue()


def _with_levels(entry: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in entry.items():
        if name.endswith("_interval"):
            low, high = value or (None, None)
            stem = name.removesuffix("_interval")
            found |= {f"{stem}_low_95": low, f"{stem}_high_95": high}
        else:
            found[f"{name}_95" if name.rpartition("_")[2] in ("low", "high") else name] = value
    return found


def published_html(published: Sequence[Row], ours: Sequence[tuple[str, str, Row]]) -> str:
    """Published rows by metric; below them ours: (name, data, metric -> value), a dash where there is no such value."""
    metrics = list(dict.fromkeys(str(row["metric"]) for row in published))
    grouped: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in published:
        gallery = f", gallery of {row['gallery_size']}" if row.get("gallery_size") else ""
        key = (str(row.get("table", "")), f"{row.get('setting', '')}{gallery}", str(row.get("method", "")))
        grouped.setdefault(key, {})[str(row["metric"])] = _published_value(row)
    heads = "".join(f'<th class="number">{escape(metric(name))}</th>' for name in metrics)
    body = [
        f'<tr><th scope="row">{escape(method)}<small>{escape(setting)}</small></th><td>{escape(table)}</td>'
        + "".join(f'<td class="number">{values.get(name, "–")}</td>' for name in metrics)
        + "</tr>"
        for (table, setting, method), values in grouped.items()
    ]
    for name, data, values in ours:
        cells = "".join(f'<td class="number">{_ours(values, published, key)}</td>' for key in metrics)
        lead = f'<th scope="row">{escape(name)}<small>{escape(data)}</small></th>'
        body.append(f'<tr class="run">{lead}<td>–</td>{cells}</tr>')
    head = f"<thead><tr><th>method</th><th>table</th>{heads}</tr></thead>"
    return f'<table class="published">{head}<tbody>{"".join(body)}</tbody></table>'


def _published_value(row: Row) -> str:
    value = row.get("value")
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.1f}{NO_BREAK}%" if row.get("unit") == "percent" else f"{value:g}"


def _ours(row: Row, published: Sequence[Row], name: str) -> str:
    """Our value of a published metric: retrieval scores as percents, others as they are."""
    value = row.get(name)
    if not isinstance(value, int | float):
        return "–"
    as_percent = any(other.get("unit") == "percent" for other in published if other["metric"] == name)
    return percent(value, 1) if as_percent else f"{value:.3g}"
