"""What `pulvinar data inspect` prints: tables for people of what `inspect` found. Programs take --json."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pulvinar.core import terminal
from pulvinar.scores.table import Column, Row, Table

MOST_ROIS = 3  # that are named with their voxels
LONGEST_LIST = 12  # entries that are named; more are counted


def as_text(found: Mapping[str, Any]) -> str:
    """Tables of whatever there is: subjects, classes, targets, single values, and the rest in two columns."""
    parts = [terminal.strong(str(found.get("name", "data")))]
    parts += [made for key, table in TABLES.items() if found.get(key) for made in [table(found[key]).text()]]
    for entry in found.get("sets", ()):
        parts.append(f"{terminal.strong(entry['name'])}\n{_targets(entry['targets']).text()}")
        parts.append(_pairs(entry, without=("name", "targets")))
    parts.append(_pairs(found, without=("name", "sets", *TABLES)))
    return "\n\n".join(part for part in parts if part)


def _subjects(subjects: Mapping[str, Row]) -> Table:
    rows = [
        {
            **own,
            "subject": name,
            "repeats": ", ".join(f"{count} x {times}" for times, count in own["repeats"].items()),
            "rois": _rois(own["rois"]),
            "noise_ceiling": own["noise_ceiling_median"],
            "grid": " x ".join(map(str, own["grid"])) if own["grid"] else own["geometry"],
        }
        for name, own in subjects.items()
    ]
    columns = [
        Column("subject", "subject", lead=True),
        *(Column(key, key, form=",d") for key in ("trials", "sessions", "runs", "voxels")),
        Column("bad_voxels", "bad voxels", form=",d"),
        Column("stimuli", "stimuli", form=",d"),
        Column("repeats", "shown", "stimuli x times"),
        Column("rois", "ROIs", "voxels"),
        Column("grid", "grid"),
        Column("spacing_mm", "spacing", "mm", ".2f"),
        Column("noise_ceiling", "ceiling", "median", ".2f"),
    ]
    return Table(columns, rows)


def _rois(sizes: Mapping[str, int]) -> str:
    few = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    return few if len(sizes) <= MOST_ROIS else f"{len(sizes)} (--json)"


def _classes(classes: Mapping[str, Row]) -> Table:
    columns = [Column("class", "class", lead=True), Column("train", "training", form=",d"), Column("test", "test", form=",d")]
    return Table(columns, [{"class": name, **count} for name, count in classes.items()])


NAMES = ("subject", "session", "run")  # of what is looked at: they stand in every block of a narrow table


def _probes(probes: Sequence[Row]) -> Table:
    """What each says; data sets have keys of their own."""
    keys = dict.fromkeys(key for probe in probes for key in probe)
    columns = [Column(key, key.replace("_", " "), lead=key in NAMES) for key in keys]
    return Table(columns, [{key: _cell(value) for key, value in probe.items()} for probe in probes])


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)


def _targets(targets: Mapping[str, Row]) -> Table:
    columns = [
        Column("target", "target", lead=True),
        Column("subjects", "subjects", form="d"),
        Column("lower", "lower ceiling", "r^2", ".4f"),
        Column("upper", "upper ceiling", "r^2", ".4f"),
        Column("published_upper", "published", "r^2", ".4f"),
    ]
    return Table(columns, [{"target": name, **row} for name, row in targets.items()])


TABLES: dict[str, Callable[[Any], Table]] = {
    "subjects": _subjects,
    "classes": _classes,
    "targets": _targets,
    "runs": _probes,
    "probes": _probes,
}


def _pairs(found: Mapping[str, Any], without: Sequence[str]) -> str:
    rows = [(key.replace("_", " "), _said(value)) for key, value in found.items() if key not in without]
    return terminal.two_columns(rows)


def _said(value: Any) -> str:
    """A value in words: nothing is left out but the entries of long lists, which are counted."""
    if isinstance(value, Mapping):
        return _listed([_entry(str(key).replace("_", " "), inner) for key, inner in value.items()], "; ")
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    return _listed([_said(inner) for inner in value], ", ")


def _entry(name: str, value: Any) -> str:
    """What a mapping inside another has stands in brackets."""
    return f"{name} ({_said(value)})" if isinstance(value, Mapping) and value else f"{name}: {_said(value)}"


def _listed(entries: Sequence[str], between: str) -> str:
    more = f"{between}and {len(entries) - LONGEST_LIST} more (--json)" if len(entries) > LONGEST_LIST else ""
    return between.join(entries[:LONGEST_LIST]) + more or "none"
