"""The scores of a decoding run beside their controls.

A control is compared with the run by the paired difference of their scores (control minus run) and its interval: where the
interval holds zero the comparison is a tie, whichever score is larger. Without an interval it is 'not told'.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pulvinar.report.run_folder import SCORE
from pulvinar.scores.resampling import interval_text
from pulvinar.scores.table import NO_BREAK, Column, Row, Table
from pulvinar.selection import selectors

LABELS = {"troi": "TROI", "ridge": "Ridge, same voxels"}  # selectors have their own
GALLERIES = {"draws": "30 draws of 300", "every_candidate": "every candidate"}  # columns of the protocol that is no headline
SCORES = (  # of a decoding run; score_table puts what compares with the run behind them
    Column("n_voxels", "voxels", form=",.0f", definition="How many voxels the decoder of this row reads."),
    Column(SCORE, "brain → image", "top-1, %", ".1%", "Share of trials whose embedding finds its image first."),
    Column("image_to_brain_top1", "image → brain", "top-1, %", ".1%", "Share of images that find their embedding."),
    Column("brain_to_image_top5", "brain → image", "top-5, %", ".1%", "Share of trials whose image is among the first five "
        "that their embedding finds.", minor=True),
    Column("brain_to_image_median_rank", "median rank", "brain → image", "g", "Median over trials of the place of their image "
        "among all of the gallery; 1 is found first, lower is better.", minor=True),
    Column("precision", "precision", form=".2f", definition="Share of the kept voxels that are reference voxels."),
    Column("recall", "recall", form=".2f", minor=True, definition="Share of the reference voxels that are kept."),
    Column("dice", "Dice", form=".2f", minor=True, definition="Twice the shared voxels over the sum of both counts."),
)  # fmt: skip
PUBLISHED = (replace(SCORES[1], label="brain → image top-1"), replace(SCORES[2], label="image → brain top-1"))  # of papers
OTHER_GALLERIES = tuple(
    replace(
        column,
        key=f"{protocol}_{column.key}",
        unit=f"top-1, %, {gallery}",
        minor=True,
        definition=f"{column.definition.rstrip('.')}; gallery: {gallery}.",
    )
    for protocol, gallery in GALLERIES.items()
    for column in SCORES[1:3]
)
DIFFERENCE = Column("difference_to_run", "minus the run", "points", "+.1%", "Brain → image top-1 of this row less that of the "
    "run, paired image by image; percentage points.")  # fmt: skip
VERDICT = Column("verdict", "against", "the run", definition="A tie is a 95 % interval of the difference to the run that holds "
    "zero; lower and higher are beyond it.")  # fmt: skip
VERDICTS = {"lower": "lower", "higher": "higher", "tie": "tie", "not told": "not told", "run": "this run", "none": "–"}


def label(name: str) -> str:
    """A row's name as a reader would write it.

    >>> label("ceiling_oracle"), label("top_reliable"), label("feature-reweighted RSA")
    ('Noise ceiling (oracle)', 'Top reliable', 'Feature-reweighted RSA')
    """
    if name in selectors.files():
        return selectors.selector(name).label
    words = name.replace("_", " ")
    return LABELS.get(name) or words[:1].upper() + words[1:]


def in_sentence(name: str) -> str:
    """A control's label inside a sentence: 'annotated ROI', but 'ANOVA'.

    >>> in_sentence("annotated"), in_sentence("anova")
    ('annotated ROI', 'ANOVA')
    """
    text = label(name)
    return text if text[:2].isupper() else text[0].lower() + text[1:]


def count(value: float | None) -> str:
    """A whole number with thousands marked, a dash for none.

    >>> count(8000), count(None)
    ('8,000', '–')
    """
    return "–" if absent(value) else f"{value:,.0f}"


def percent(share: float | None, digits: int | None = None) -> str:
    """A share in percent, with a space that does not break; without `digits`, one decimal below 10 % and none above.

    >>> print(percent(.614), percent(.0033), percent(.614, 1), percent(None), sep=", ")
    61 %, 0.3 %, 61.4 %, –
    """
    if share is None or absent(share):
        return "–"
    if digits is None:
        digits = 0 if abs(share) >= 0.0995 or share == 0 else 1
    return f"{100 * share:.{digits}f}{NO_BREAK}%"


def said_interval(bounds: Sequence[float | None] | None, write: Callable[[float], str]) -> str:
    """An interval that stands alone: '95 % interval [55 %, 67 %]'; says so where there is none."""
    text = interval_text(bounds, write)
    return f"95{NO_BREAK}% interval {text}" if text else "no interval"


def absent(value: float | None) -> bool:
    """Whether there is no number: None, NaN or infinite."""
    return value is None or not math.isfinite(value)


def points(difference: float) -> str:
    """A signed difference of shares, in percentage points, with a real minus."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def score_table(rows: Sequence[Row], method: str, *, told: bool = False) -> Table:
    """The columns in which a row has a value, each row with its verdict.

    told: without those under another protocol that repeat the headline's in every row (300 images: one draw of 300).
    """
    again = {f"{protocol}_{key}": key for protocol in GALLERIES for key in (SCORE, "image_to_brain_top1")}
    every = [
        Column("name", "voxels used", words=label, note="description", lead=True),
        *SCORES[:3],
        *OTHER_GALLERIES,
        *SCORES[3:],
        replace(DIFFERENCE, key=f"difference_to_{method}", label=f"minus {label(method)}"),
        replace(VERDICT, unit=label(method), words=lambda kind: VERDICTS[kind]),
    ]
    shown = [
        column
        for column in every
        if column.key in ("name", "verdict") or any(row.get(column.key) is not None for row in rows)
        if not (told and column.key in again and all(row.get(column.key) == row.get(again[column.key]) for row in rows))
    ]
    ours = [place for place, row in enumerate(rows) if row["name"] == method]
    found = [{**row, "verdict": verdict(row, method)} for row in rows]
    return Table(shown, found, ours, elsewhere="On the page of the run and in its scores.csv")


def verdict(row: Row, method: str) -> str:
    """'lower', 'tie' or 'higher' than the run, 'not told' without an interval, 'run' for itself, 'none' without a score.

    A tie is an interval of the paired difference that holds zero.
    """
    if row["name"] == method:
        return "run"
    if row.get(SCORE) is None:
        return "none"
    bounds = row.get(f"difference_to_{method}_interval")
    if bounds is None or any(map(absent, bounds)):
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
    sentences = [f"{words[kind]} {len(names)} of {n_controls}: {', '.join(names)}." for kind, names in groups.items() if names]
    if not groups["lower"]:
        sentences.insert(0, f"{ours} beats none of its {n_controls} controls.")
    if oracles:
        sentences.append(f"Oracles, which have seen an answer and are not counted: {', '.join(oracles)}.")
    return " ".join(sentences)


def headroom(found: Mapping[str, Any] | None) -> str:
    """What the truth gains over the simplest score per voxel, and whether this world can tell selections apart; '' without."""
    if not found:
        return ""
    gains = [
        f"{in_sentence(name)} {points(gain['difference'])} points {interval_text(gain['interval'], points)}"
        for name, gain in found["gains"].items()
    ]
    simplest = in_sentence(found["simplest"])
    gained = f"Against the simplest score ({simplest}) the truth gains: {', '.join(gains)} (95{NO_BREAK}% intervals)."
    if found["tells"]:
        return f"{gained} So there is something to win here."
    tie = "What could be reached ties with the simplest score: this world cannot tell a good selection from a simple one."
    return f"{gained} {tie}"


def near_training(found: Mapping[str, Any] | None, row: Row | None) -> str:
    """How many test images have a near training image, and a row's score without them; '' where it was not looked for."""
    if not found:
        return ""
    near, n_images = found["n_near"], found["n_test_images"]
    compared = f"cosine of {', '.join(found['by'])} at {found['near_from_cosine']:g} or more"
    if not near:
        return f"No test image has a near training image ({compared}; the largest is {found['largest_cosine']:.2f})."
    sentences = f"{near} of {n_images} test images have a near training image ({compared})."
    if row is None or row.get(f"apart_{SCORE}") is None:
        return f"{sentences} Without them there is no score."
    apart = f"{percent(row[f'apart_{SCORE}'])} {interval_text(row[f'apart_{SCORE}_interval'], percent)}"
    usual = f"{percent(row[SCORE])} {interval_text(row.get(f'{SCORE}_interval'), percent)}"
    return (
        f"{sentences} Top-1, brain → image: {usual} of all, {apart} of the {n_images - near} others (95{NO_BREAK}% intervals)."
    )


def records(rows: Sequence[Row], method: str) -> list[dict[str, Any]]:
    """The rows of the table as they are kept: raw values (shares, not percents), interval bounds, verdict and reason."""
    reasons = ({"unavailable": row.get("unavailable")} for row in rows)
    return [entry | reason for entry, reason in zip(score_table(rows, method).records(), reasons, strict=True)]
