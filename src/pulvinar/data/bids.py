"""BIDS names: the entities in a file name, and which table or sidecar holds for a run (the inheritance principle).

A table or sidecar holds for every run that has all of its entities: `task-look_events.tsv` for all runs of that task. It lies
in the run's folder or above it, up to the dataset's root; the nearest one counts (BIDS specification, common principles).
Two that lie equally near are refused: nothing says which of them is right.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import read_json

NUMBERS = ("run", "echo")  # entities whose values are numbers: padding does not count
OF_DERIVATIVES = (
    "space",
    "res",
    "den",
    "desc",
    "cohort",
    "label",
    "hemi",
    "part",
    "echo",
    "rec",
)  # forms of one and the same scan
EVENTS = ("_events.tsv", "_events.tsv.gz", "_events.csv")  # endings in any case; what is no .tsv claims its run all the same
NOT_RAW = ("derivatives", "sourcedata", "code", "stimuli")  # folders of a dataset that hold no raw data


def entities(name: str) -> dict[str, str]:
    """The key-value pairs of a BIDS file name; numbers without leading zeros, so that run-1 and run-01 agree.

    >>> entities("sub-01_task-look_run-02_events.tsv")
    {'sub': '01', 'task': 'look', 'run': '2'}
    """
    pairs = dict(part.split("-", 1) for part in name.partition(".")[0].split("_") if "-" in part)
    return {key: value.lstrip("0") or "0" if key in NUMBERS else value for key, value in pairs.items()}


def of_scan(found: Mapping[str, str]) -> dict[str, str]:
    """The entities that tell scans apart, without those that tell forms of one scan apart."""
    return {key: value for key, value in found.items() if key not in OF_DERIVATIVES}


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Files that match, sorted, without hidden ones (such as the ._ files that macOS leaves)."""
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))


def dataset_root(folder: Path) -> Path:
    """The folder that holds the subject's `sub-XX`; `folder` itself where it lies in none."""
    folder = folder.absolute()
    inside = [place for place in (folder, *folder.parents) if place.name.startswith("sub-")]
    return inside[0].parent if inside else folder


def _level(path: Path, root: Path, run: Mapping[str, str]) -> int | None:
    """How deep a file lies on the way from the root to the folder of a run; None beside that way."""
    way = [f"sub-{run.get('sub', '')}", *([f"ses-{run['ses']}"] if "ses" in run else []), "func"]
    parts = path.absolute().parent.relative_to(root).parts
    return len(parts) if list(parts) in [way[:depth] for depth in range(len(way) + 1)] else None


@dataclass(frozen=True, kw_only=True)
class EventFiles:
    """The events tables of a folder: those below it, and those above it that hold for its subject."""

    folder: Path
    root: Path
    paths: Sequence[Path]

    def of(self, run: str) -> Path:
        """The table of one run, by the name of its series.

        Raises `FileError` where there is none, `InputError` naming both where two fit equally well.
        """
        own = of_scan(entities(run))
        fitting = [path for path in self.paths if of_scan(entities(path.name)).items() <= own.items()]
        if not fitting:
            wanted = "_".join(f"{key}-{value}" for key, value in own.items()) + "_events.tsv"
            existing = [path.name for path in self.paths or visible_files(self.folder, "**/*events*")][:4]
            shown = f"there are: {', '.join(existing)}" if existing else "there is no file of events"
            raise FileError(f"{self.folder}: no {wanted} for {run} (nor one that holds for it); {shown}")
        levels = {path: _level(path, self.root, own) for path in fitting}
        astray = [path for path, level in levels.items() if level is None]
        nearest = max((level for level in levels.values() if level is not None), default=None)
        chosen = fitting if astray else [path for path, level in levels.items() if level == nearest]
        if len(chosen) > 1:
            raise InputError(
                f"{self.folder}: {len(chosen)} events tables fit {run}: {_listed(chosen, self.root)}. One run has one table: "
                "move the others (a backup, an older version) out of this folder, or let `events` name the right folder"
            )
        return chosen[0]


def find_events(folder: Path) -> EventFiles:
    """Every table of events under a folder, and those in the folders above it up to the dataset's root."""
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of events")
    root = dataset_root(folder)
    below = [path for path in _tables(folder, "**/*") if not _outside_raw(path.relative_to(folder).parts[:-1])]
    above = [path for place in _above(folder, root) for path in _tables(place, "*")]
    return EventFiles(folder=folder, root=root, paths=[*below, *above])


def _tables(folder: Path, pattern: str) -> list[Path]:
    return [path for path in visible_files(folder, pattern) if path.name.lower().endswith(EVENTS)]


def _outside_raw(folders: Sequence[str]) -> bool:
    return any(name in NOT_RAW or name.startswith(".") for name in folders)


def _above(folder: Path, root: Path) -> Iterator[Path]:
    folder = folder.absolute()
    while folder != root:
        folder = folder.parent
        yield folder


def _listed(paths: Sequence[Path], root: Path) -> str:
    return ", ".join(str(path.absolute().relative_to(root)) for path in paths[:4])


# --- sidecars ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A value of a sidecar, and the file that states it."""

    value: Any
    path: Path


def sidecar_values(name: str, folder: Path, keys: Sequence[str]) -> dict[str, Stated]:
    """What the `*_bold.json` files of a run say about some keys: those in its folder and above it; the nearest counts.

    name: of the series. folder: where it lies, or the raw data of its subject. Raises `InputError` where two files that lie
    equally near state different values, `FileError` for a file that is not JSON.
    """
    own, root = entities(name), dataset_root(folder)
    found: dict[str, tuple[int, Stated]] = {}
    for place in sorted(
        {folder.absolute(), *_above(folder, root), *_run_folders(root, own)}, key=lambda place: len(place.parts)
    ):
        for path in visible_files(place, "*bold.json"):
            its = {key: value for key, value in entities(path.name).items() if key not in ("echo", "part")}
            if not its.items() <= own.items():
                continue
            content = read_json(path)
            if not isinstance(content, dict):
                raise FileError(
                    f'{path}: a sidecar is a JSON object, such as {{"RepetitionTime": 2.0}}; {_short(content)} came'
                )
            for key in keys:
                if key in content:
                    _keep(found, key, len(place.parts), Stated(value=content[key], path=path))
    return {key: stated for key, (_, stated) in found.items()}


def _run_folders(root: Path, own: Mapping[str, str]) -> list[Path]:
    """The folders on the way from a dataset's root to a run, as far as they are there."""
    way = [f"sub-{own.get('sub', '')}", *([f"ses-{own['ses']}"] if "ses" in own else []), "func"]
    return [place for depth in range(1, len(way) + 1) if (place := root.joinpath(*way[:depth])).is_dir()]


def _keep(found: dict[str, tuple[int, Stated]], key: str, level: int, stated: Stated) -> None:
    if key in found and found[key][0] == level and found[key][1].value != stated.value:
        other = found[key][1]
        raise InputError(
            f"{stated.path} says {key} = {_short(stated.value)}, but {other.path.name} beside it says {_short(other.value)}; "
            "keep one of them"
        )
    found[key] = (level, stated)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
