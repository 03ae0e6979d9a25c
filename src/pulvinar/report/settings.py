"""How a run was made: the protocol of its evaluation, its data and versions, its settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pulvinar.report.run_folder import SCORE, Run
from pulvinar.report.tables import count, near_training, percent

PROTOCOLS = {
    "every_candidate": "every test image stands in one gallery",
    "draws": "30 draws of 300 test images, mean over draws",
}
SCALINGS = {
    "train_stats": "z-scored with the statistics of the training trials in use (train_stats)",
    "per_session": "z-scored with each session's own non-test trials (per_session): transductive",
}

Facts = list[tuple[str, str]]


def facts_of_evaluation(run: Run) -> Facts:
    """Gallery, chance, permutation null, scaling of the test trials and rules broken; empty before the evaluation."""
    evaluation = run.evaluation
    if evaluation is None:
        return []
    protocol, scaling = str(evaluation.get("protocol")), str(evaluation.get("scaling"))
    averaged = evaluation.get("n_test_trials_averaged")
    rules = evaluation.get("rules_broken")
    others = [
        (
            "Also scored",
            f"{PROTOCOLS.get(name, name)}: gallery of {count(gallery.get('gallery_size'))}, chance "
            f"{percent(gallery.get('chance'), 2)} (columns of the table)",
        )
        for name, gallery in (evaluation.get("protocols") or {}).items()
        if name != protocol
    ]
    identified = evaluation.get("identified", "the image")
    near = near_training(evaluation.get("near_training"), run.row(run.method))
    return [
        *([("Identified", str(identified))] if identified != "the image" else []),
        ("Gallery", f"{count(evaluation.get('gallery_size'))} images; {PROTOCOLS.get(protocol, protocol)}"),
        *others,
        ("Chance", percent(evaluation.get("chance"), 2)),
        ("Permutation null", _null(run)),
        *([("Near training images", near)] if near else []),
        ("Test trials", _averaged(averaged)),
        ("Scaling", SCALINGS.get(scaling, scaling)),
        ("Reference voxels", _reference(evaluation)),
        ("Rules broken", "; ".join(map(str, rules)) if rules else "none" if rules is not None else "not recorded"),
    ]


def _reference(evaluation: Mapping[str, Any]) -> str:
    """What found and missed voxels are told apart by."""
    if not evaluation.get("reference"):
        return other_rois(evaluation) or "none came with these data"
    roi = f" (ROI {evaluation['roi']})" if evaluation["reference"] == "annotated" and "roi" in evaluation else ""
    return f"{evaluation['reference']}{roi}"


def other_rois(evaluation: Mapping[str, Any]) -> str:
    """The ROIs that the data have, where none is the one that the setting names; empty where they have none."""
    names = [str(row["roi"]) for row in evaluation.get("rois") or ()]
    if not names:
        return ""
    return (
        f"none of the ROIs of these data ({', '.join(names)}) is '{evaluation.get('roi', 'annotated')}'; "
        "choose one with `pulvinar evaluate RUN --set roi=NAME`"
    )


def _averaged(n_trials: float | None) -> str:
    if n_trials is None:
        return "how many repeats were averaged was not recorded"
    return "single trials" if n_trials == 1 else f"the outputs of {n_trials:g} repeats of an image are averaged"


def _null(run: Run) -> str:
    """Mean and 95th percentile over permuted images, and the score that is left above the mean."""
    null, row = (run.evaluation or {}).get("null"), run.row(run.method)
    if not null:
        return "not computed"
    text = f"mean {percent(null.get('mean'), 2)}, 95th percentile {percent(null.get('percentile_95'), 2)} (images permuted)"
    if row is not None and null.get("mean") is not None:
        text += f"; score less the null's mean {percent(row[SCORE] - null['mean'], 1)}"
    return text


def facts_of_run(run: Run) -> Facts:
    """Data, seed, duration, and the versions of environment.json."""
    data = run.facts.get("data") or {}
    facts = [
        ("Method", run.method),
        ("Data", str(data.get("name") or "not recorded")),
        ("Data from", Path(str(data.get("path") or "").partition("?")[0]).name),
        ("Data fingerprint", str(data.get("fingerprint") or "")),
        ("Target subject", str(data.get("target") or "")),
        ("Seed", str(run.facts.get("seed", "not recorded"))),
        ("Duration", _duration(run.facts.get("seconds"))),
    ]
    if run.environment is None:
        facts.append(("Versions", "not recorded (environment.json is not in this run)"))
    else:
        facts += [(str(name), str(value)) for name, value in run.environment.items() if not isinstance(value, dict | list)]
    return [(name, value) for name, value in facts if value]


def _duration(seconds: float | None) -> str:
    """Seconds as a reader would say them.

    >>> _duration(123.4), _duration(7260), _duration(8.25)
    ('2 min 3 s', '2 h 1 min', '8.2 s')
    """
    if seconds is None:
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def settings_of(config: str) -> list[tuple[str, str, str]]:
    """The lines of config.toml: setting, value as written, and the comment above it."""
    rows: list[tuple[str, str, str]] = []
    comments: list[str] = []
    for line in map(str.strip, config.splitlines()):
        if line.startswith("#"):
            comments.append(line.lstrip("# "))
        elif line.startswith("["):
            rows.append((line, "", ""))
        elif "=" in line:
            name, value = (part.strip() for part in line.split("=", 1))
            rows.append((name, value, " ".join(comments)))
            comments = []
    return rows
