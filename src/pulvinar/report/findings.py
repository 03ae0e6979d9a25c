"""What a run found, said by one rule for every kind of run, and what a reader must be warned of.

The rule: the score and its 95 % interval; the best *fair* control; chance; and every caution. A control is fair where it has
seen no answer (no oracle) and has no larger budget (voxels, multiply-adds) than the run. One with a larger budget is named
beside where it scores higher than the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pulvinar.learning.loss_watch import troubles
from pulvinar.report.run_folder import SCORE, Run
from pulvinar.report.tables import count, in_sentence, is_oracle, percent, said_interval
from pulvinar.scores.resampling import interval_text

Row = Mapping[str, Any]
SLACK = 1.02  # a control's multiply-adds may be this much above the run's: shares are met to within a channel


class Headline(NamedTuple):
    """The finding in two parts: what was done and the score with its interval; then the best fair control, and chance."""

    lead: str
    rest: str


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A control beside a score. value: larger is better. said: the value as written. larger: it has a larger budget.

    difference: the 95 % interval of control minus run, None where it is not known. budget: what it took, as written.
    """

    name: str
    value: float
    text: str
    larger: bool = False
    budget: str = ""
    difference: Sequence[float] | None = None

    @property
    def standing(self) -> str:
        """higher, lower or a tie, by the interval of the difference; empty where that is not known."""
        if not interval_text(self.difference, str) or self.difference is None:
            return ""
        low, high = self.difference
        return "higher" if low > 0 else "lower" if high < 0 else "a tie"

    def __str__(self) -> str:
        standing = f" ({self.standing})" if self.standing else ""
        return f"{self.name} {self.text}{f' with {self.budget}' if self.budget else ''}{standing}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One score of a run: value (larger is better), `said` with its interval, its rivals without oracles, and chance."""

    value: float
    text: str
    chance: str
    rivals: Sequence[Rival] = field(default_factory=tuple)
    of: str = ""  # which of several measurements

    @property
    def best_fair(self) -> Rival | None:
        """The control with the highest score among those with no larger budget."""
        return max((rival for rival in self.rivals if not rival.larger), key=lambda rival: rival.value, default=None)

    @property
    def rest(self) -> str:
        """The best fair control, those with a larger budget that score higher than the run, chance."""
        best = self.best_fair
        text = f"Best fair control: {best}" if best is not None else "No fair control was scored"
        above = [rival for rival in self.rivals if rival.larger and rival.value > self.value]
        more = f"; with a larger budget: {max(above, key=lambda rival: rival.value)}" if above else ""
        return f"{f'{self.of}: ' if self.of else ''}{text}{more}. {self.chance}."


def headline(run: Run) -> Headline:
    """The finding of a run in two parts."""
    done = _done(run)
    found = findings(run)
    if not found:
        reason = "The run was not evaluated." if run.evaluation is None else "This run has no score."
        return Headline(done or "not evaluated", reason)
    text = "; ".join(f"{one.of}: {one.text}" if one.of else one.text for one in found)
    return Headline(f"{done}; {text}" if done else text, " ".join(one.rest for one in found))


def findings(run: Run) -> list[Finding]:
    """The scores that a run is known by: one, of an RSA run one for each measurement; none before the evaluation."""
    if run.evaluation is None:
        return []
    makers: dict[str, Callable[[Run, Row], list[Finding]]] = {
        "decoding": _of_decoding,
        "encoding": _of_encoding,
        "pictures": _of_pictures,
        "rsa": _of_rsa,
        "self_supervised": _of_backbone,
    }
    return makers[run.topic](run, run.evaluation)


# --- the score of each kind of run -----------------------------------------------------------------------------------------


def _done(run: Run) -> str:
    """What was selected; empty where nothing is."""
    if run.topic != "decoding":
        return ""
    selection = run.facts.get("selection") or {}
    if selection.get("n_voxels") is None:
        return "No selection was recorded"
    candidates = f" of {count(selection['n_candidates'])}" if selection.get("n_candidates") is not None else ""
    return f"{count(selection['n_voxels'])}{candidates} voxels kept"


def _with_interval(text: str, bounds: Sequence[float] | None, write: Callable[[float], str]) -> str:
    return f"{text}, {said_interval(bounds, write)}"


def _of_decoding(run: Run, evaluation: Row) -> list[Finding]:
    ours = run.row(run.method)
    if ours is None:
        return []
    rivals = [
        Rival(
            name=in_sentence(row["name"]),
            value=row[SCORE],
            text=f"{percent(row[SCORE])} {interval_text(row.get(f'{SCORE}_interval'), percent)}".strip(),
            larger=(row.get("n_voxels") or 0) > (ours.get("n_voxels") or np.inf),
            budget=f"{count(row['n_voxels'])} voxels" if row.get("n_voxels") is not None else "",
            difference=row.get(f"difference_to_{run.method}_interval"),
        )
        for row in run.rows
        if row["name"] != run.method and row.get(SCORE) is not None and not is_oracle(row)
    ]
    text = f"{percent(ours[SCORE])} of {count(evaluation.get('gallery_size'))} images identified"
    chance = f"Chance is {percent(evaluation.get('chance'))}"
    limit = (evaluation.get("null") or {}).get("percentile_95")
    if limit is not None and ours[SCORE] <= limit:
        chance += f", and the score is not above it (95th percentile of the null {percent(limit)})"
    text = _with_interval(text, ours.get(f"{SCORE}_interval"), percent)
    return [Finding(value=ours[SCORE], text=text, rivals=rivals, chance=chance)]


def _of_encoding(run: Run, evaluation: Row) -> list[Finding]:
    rows = [row for row in run.rows if row["roi"] == "all" and row["hemisphere"] == "both" and row["r_nested"] is not None]
    if not rows:
        return []

    def mean(key: str) -> float | None:
        values = [row.get(key) for row in rows]
        return None if any(value is None for value in values) else float(np.mean(np.array(values, float)))

    write = "{:.3f}".format
    r, limit = float(np.mean([row["r_nested"] for row in rows])), mean("null_percentile_95")
    bounds = [mean("r_nested_low"), mean("r_nested_high")]
    whose = f"{len(rows)} subjects" if len(rows) > 1 else str(rows[0]["subject"])
    text = f"r = {write(r)} on held-out images ({whose})"
    own = rows[0].get("difference_low"), rows[0].get("difference_high")  # of the run less the untuned network
    rivals = []
    if (untuned := mean("r_untuned")) is not None and all(row.get("encoded_with", "tuned") == "tuned" for row in rows):
        turned = _turned(own) if len(rows) == 1 and None not in own else None
        rivals.append(Rival(name="the untuned network", value=untuned, text=write(untuned), difference=turned))
    if (baseline := mean("r_baseline")) is not None:
        name = f"{evaluation.get('baseline') or 'baseline'} features"
        rivals.append(Rival(name=name, value=baseline, text=write(baseline)))
    chance = f"Images permuted: r = {(mean('null_mean') or 0.0):.3f}"
    if limit is not None:
        chance += f", 95th percentile {write(limit)}"
        chance += ", and the score is not above it" if r <= limit else ""
    return [Finding(value=r, text=f"{text}, {said_interval(bounds, write)}", rivals=rivals, chance=chance)]


def _of_rsa(run: Run, evaluation: Row) -> list[Finding]:
    made = []
    for target in evaluation.get("ceilings") or {}:
        ours, *others = [row for row in run.rows if row.get("target") == target]
        rivals = [
            Rival(
                name=in_sentence(row["name"]),
                value=row["percent"],
                text=f"{row['percent']:.1f} % {interval_text(row.get('percent_interval'), '{:.1f}'.format)}".strip(),
                difference=_turned((row.get("ours_minus_this") or {}).get("interval")),
            )
            for row in others
            if not is_oracle(row)
        ]
        text = f"{ours['percent']:.1f} % of the ceiling on unseen images"
        above = ours["percent"] > ours["null_percent_95"]
        chance = f"Images permuted: {ours['null_percent']:.1f} %, 95th percentile {ours['null_percent_95']:.1f} %"
        chance += "" if above else ", and the score is not above it"
        text = f"{text}{'' if above else ', not above chance'}"
        text = _with_interval(text, ours.get("percent_interval"), "{:.1f}".format)
        made.append(Finding(value=ours["percent"], text=text, rivals=rivals, chance=chance, of=target))
    return made


def _turned(bounds: Sequence[Any] | None) -> list[float] | None:
    """The interval of b minus a from that of a minus b."""
    return None if not bounds else [-bounds[1], -bounds[0]]


def _of_backbone(run: Run, evaluation: Row) -> list[Finding]:
    if not run.rows:
        return []
    ours, *others = run.rows

    def write(share: float) -> str:
        return percent(share, 1)

    rivals = [
        Rival(
            name=in_sentence("raw pixels" if row["branch"] == "pixels" else row["name"]),
            value=row["linear"],
            text=f"{write(row['linear'])} {interval_text(row.get('linear_interval'), write)}".strip(),
            larger=is_larger(row.get("mac_share"), ours["mac_share"]),
            budget=f"{write(row['mac_share'])} of the multiply-adds" if row.get("mac_share") is not None else "",
            difference=_pair(row.get("linear_difference")),
        )
        for row in others
        if not is_oracle(row)
    ]
    work = f" with {percent(ours['mac_share'])} of the multiply-adds" if ours["mac_share"] < 1 else ""
    text = _with_interval(f"{write(ours['linear'])} by a linear probe{work}", ours.get("linear_interval"), write)
    chance = f"Chance is {percent(evaluation['chance'])} ({evaluation['n_test']:,} test images)"
    return [Finding(value=ours["linear"], text=text, rivals=rivals, chance=chance)]


def is_larger(theirs: float | None, ours: float) -> bool:
    """Whether a share of the multiply-adds is above another by more than a channel; None: no network, no multiply-adds."""
    return theirs is not None and np.isfinite(theirs) and theirs > SLACK * ours


def _pair(difference: Row | None) -> list[float] | None:
    return [difference["low"], difference["high"]] if difference else None


def _of_pictures(run: Run, evaluation: Row) -> list[Finding]:
    if not run.rows:
        return []
    named = [name for name, facts in evaluation["metrics"].items() if facts["kind"] == "two_way"]
    score = named[-1] if named else "pixcorr"
    write: Callable[[float], str] = percent if named else "{:.2f}".format
    ours = run.rows[0]
    rivals = [
        Rival(
            name=row["name"],
            value=row[score],
            text=f"{write(row[score])} {interval_text(row.get(f'{score}_interval'), write)}".strip(),
            difference=row.get(f"{score}_difference_interval"),
        )
        for row in run.rows[1:]
        if not is_oracle(row)
    ]
    text = f"two-way identification {write(ours[score])} ({score})" if named else f"PixCorr {write(ours[score])}"
    text = _with_interval(text, ours.get(f"{score}_interval"), write)
    text += f"; PixCorr {ours['pixcorr']:.2f}" if named else ""
    null = ours.get("pixcorr_null") or {}
    chance = "Chance is 50 %" if named else f"Images permuted: PixCorr {null.get('mean', 0.0):.2f}"
    return [Finding(value=ours[score], text=text, rivals=rivals, chance=f"{chance} ({evaluation['n_images']} test images)")]


# --- cautions --------------------------------------------------------------------------------------------------------------


def cautions(run: Run) -> list[str]:
    """What limits the numbers: an unfinished run, what training and scoring warned of, broken rules, rivals, missed areas."""
    text = []
    status = run.facts.get("status")
    if status != "finished":
        text.append(f"The run is not finished (status: {status}); what follows is what was written so far.")
    text += [f"A rule of evidence was broken: {rule}" for rule in (run.evaluation or {}).get("rules_broken") or ()]
    text += [*(run.facts.get("cautions") or ()), *troubles(run.records), *_of_training(run)]
    text += [*(run.facts.get("evaluation_cautions") or ()), *_rivals_above(run)]
    path = str((run.facts.get("selection") or {}).get("path") or "")
    if path.startswith("safety"):
        reason = path.removeprefix("safety").lstrip(": ") or "no reason was recorded"
        text.append(
            f"The threshold did not reach the voxel budget by itself ({reason}): the top of the smoothed mask was taken."
        )
    missed = [str(area.get("name") or area.get("area")) for area in coverage(run) if not area["n_selected"]]
    if missed:
        text.append(f"No voxel was kept in: {', '.join(missed)}.")
    if run.n_unread_lines:
        text.append(f"{run.n_unread_lines} line(s) of metrics.jsonl could not be read; the curves leave them out.")
    return list(dict.fromkeys(text))


def _of_training(run: Run) -> list[str]:
    """A network that ended collapsed; a budget of multiply-adds that is not met on the test images."""
    text = []
    last = next((record for record in reversed(run.records) if "collapsing" in record), None)
    if last is not None and last["collapsing"]:
        text.append(f"The network was collapsing when the training ended (epoch {last.get('epoch')}).")
    asked = (run.facts.get("budget") or {}).get("asked")
    reached = next((row.get("mac_share") for row in run.rows), None)
    if asked is not None and reached is not None and reached > 1.05 * asked + 0.005:
        text.append(f"The budget was not met: {percent(asked, 1)} of the multiply-adds asked, {percent(reached, 1)} reached.")
    return text


def _rivals_above(run: Run) -> list[str]:
    """The best fair control, where it is better than the run by an interval that excludes zero."""
    found = [(one, one.best_fair) for one in findings(run)]
    return [
        f"A fair control scores higher{f' ({one.of})' if one.of else ''}: {best.name} {best.text} (95 %)."
        for one, best in found
        if best is not None and best.standing == "higher"
    ]


def coverage(run: Run) -> list[dict]:
    """Voxels and kept voxels of each area, from the evaluation, else counted from the maps; empty without areas."""
    stored = (run.evaluation or {}).get("coverage")
    if stored:
        return [dict(area) for area in stored]
    if run.maps is None or run.maps.area is None:
        return []
    area, selected = run.maps.area, run.maps.selected
    numbers = [int(number) for number in np.unique(area) if number != 0]
    return [
        {"area": n, "name": f"area {n}", "n_voxels": int(np.sum(area == n)), "n_selected": int(np.sum(selected[area == n]))}
        for n in numbers
    ]
