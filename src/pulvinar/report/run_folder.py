"""A finished run as the report sees it: read from its folder alone, whole pieces or None."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core import storage
from pulvinar.core.errors import FileError
from pulvinar.core.storage import read_json, reads, require_folder
from pulvinar.data.geometry import Geometry

SCORE = "brain_to_image_top1"
CONTRADICTION = 0.02  # a difference of the other sign than the scores', by more than two points, is not rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """What was learned about each voxel (voxel,), and where the voxels are.

    mask: learned weight, no unit. mask_smoothed: the same after the low-pass. selected: kept or not.
    reference: the planted or annotated voxels. area: number of the area a voxel belongs to, 0 for none.
    """

    geometry: Geometry
    mask: np.ndarray
    mask_smoothed: np.ndarray
    selected: np.ndarray
    reference: np.ndarray | None
    area: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Test trials to look at: `seen` (trial, height, width, 3), `retrieved` (trial, 5, height, width, 3), both uint8.

    rank: place of the seen image in its gallery (trial,), 1 is right. stimulus: its id (trial,).
    """

    seen: np.ndarray
    retrieved: np.ndarray
    rank: np.ndarray
    stimulus: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """The pieces of a run folder; what the folder does not have is None or empty.

    facts: run.json. records: the lines of metrics.jsonl; `n_unread_lines` of them were not JSON (a run that was cut off).
    elsewhere: evaluations on other images or scored in other ways, by their folders' names.
    """

    folder: Path
    facts: Mapping[str, Any]
    config: str | None
    environment: Mapping[str, Any] | None
    records: tuple[Mapping[str, Any], ...]
    n_unread_lines: int
    evaluation: Mapping[str, Any] | None
    published: tuple[Mapping[str, Any], ...]
    maps: Maps | None
    examples: Examples | None
    elsewhere: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Name of the method, which is the name of its row among the controls too."""
        return str(self.facts["method"])

    @property
    def topic(self) -> str:
        """Which page the run has: decoding, encoding, pictures, rsa or self_supervised."""
        return str(self.facts.get("topic", "decoding"))

    @property
    def simulated(self) -> bool:
        """Whether the data were planted, not measured; every picture of the run then says so."""
        return is_simulated(self.facts, self.evaluation)

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """The scored rows: this run and its controls; empty before the evaluation."""
        return tuple(self.evaluation["rows"]) if self.evaluation else ()

    def row(self, name: str) -> Mapping[str, Any] | None:
        """The row of this name, if it has a score."""
        found = [row for row in self.rows if row["name"] == name and row.get(SCORE) is not None]
        return found[0] if found else None


def is_simulated(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> bool:
    """Whether a run's data were planted: said by run.json or, in older runs, by an evaluation against planted voxels."""
    return bool((facts.get("data") or {}).get("simulated")) or (evaluation or {}).get("reference") == "planted"


@reads("a run")
def read(folder: str | os.PathLike[str]) -> Run:
    """The run in a folder. `FileError` names the folder and what makes it no run, or the piece that cannot be read."""
    folder = Path(folder)
    facts = _read_facts(folder)
    records, n_unread_lines = _read_records(folder / "metrics.jsonl")
    return Run(
        folder=folder,
        facts=facts,
        config=_read_text(folder / "config.toml"),
        environment=_read_mapping(folder / "environment.json"),
        records=records,
        n_unread_lines=n_unread_lines,
        evaluation=_read_evaluation(folder / "evaluation.json", str(facts["method"])),
        published=_read_published(folder / "published.json"),
        maps=_read_maps(folder / "artifacts" / "maps.npz"),
        examples=_read_examples(folder / "artifacts" / "examples.npz"),
        elsewhere=_read_elsewhere(folder / "evaluations", str(facts["method"])),
    )


def _read_facts(folder: Path) -> Mapping[str, Any]:
    require_folder(folder, "run folder")
    if not (folder / "run.json").is_file():
        contents = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise FileError(f"{folder}: not a run folder: run.json is missing; there is: {contents}")
    facts = _read_mapping(folder / "run.json")
    if facts is None or "method" not in facts:
        raise FileError(f"{folder / 'run.json'}: 'method' is missing; it names the method that made this run")
    return facts


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 text: {error}") from error


def _read_mapping(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path}: a JSON object is needed, {type(value).__name__} came")
    return value


def _read_records(path: Path) -> tuple[tuple[Mapping[str, Any], ...], int]:
    """The JSON objects of a JSON-lines file, and how many lines were none."""
    records, n_unread_lines = [], 0
    for line in filter(str.strip, (_read_text(path) or "").splitlines()):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            n_unread_lines += 1
    return tuple(records), n_unread_lines


def _read_evaluation(path: Path, method: str) -> Mapping[str, Any] | None:
    evaluation = _read_mapping(path)
    if evaluation is None:
        return None
    rows = evaluation.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
        raise FileError(f"{path}: 'rows' must be a list of objects with a 'name' each")
    ours = next((row.get(SCORE) for row in rows if row["name"] == method), None)
    for row in rows:
        _refuse_contradiction(row, ours, method, path)
    return evaluation


def _read_elsewhere(folder: Path, method: str) -> dict[str, Mapping[str, Any]]:
    found = {path.parent.name: _read_evaluation(path, method) for path in sorted(folder.glob("*/evaluation.json"))}
    return {name: evaluation for name, evaluation in found.items() if evaluation is not None}


def _refuse_contradiction(row: Mapping[str, Any], ours: float | None, method: str, path: Path) -> None:
    """A row's `difference_to_<method>` is its score minus ours; the opposite sign would turn every verdict around."""
    given, score = row.get(f"difference_to_{method}"), row.get(SCORE)
    if given is None or score is None or ours is None:
        return
    if given * (score - ours) < 0 and min(abs(given), abs(score - ours)) > CONTRADICTION:
        raise FileError(
            f"{path}: row '{row['name']}': difference_to_{method} is {given}, but {SCORE} is {score} against {ours}; "
            f"the difference is the row minus {method}"
        )


def _read_published(path: Path) -> tuple[Mapping[str, Any], ...]:
    if not path.is_file():
        return ()
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise FileError(f"{path}: a list of JSON objects is needed")
    return tuple(value)


@reads("arrays of a run")
def read_arrays(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file of the run, None if there is no such file; `FileError` where one that is needed is missing."""
    if not path.is_file():
        return None
    arrays = storage.read_arrays(path)
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise FileError(f"{path}: no array '{missing[0]}'; there are: {', '.join(arrays) or 'none'}")
    return arrays


def _read_maps(path: Path) -> Maps | None:
    arrays = read_arrays(path, ("coordinates", "mask", "mask_smoothed", "selected"))
    if arrays is None:
        return None
    n_voxels = len(arrays["coordinates"])
    for name in {"mask", "mask_smoothed", "selected", "reference", "area"} & set(arrays):
        if arrays[name].shape != (n_voxels,):
            raise FileError(f"{path}: '{name}' has shape {arrays[name].shape} for {n_voxels} voxels")
    reference = arrays.get("reference")
    return Maps(
        geometry=Geometry.from_arrays(arrays),
        mask=arrays["mask"],
        mask_smoothed=arrays["mask_smoothed"],
        selected=arrays["selected"].astype(bool),
        reference=None if reference is None else reference.astype(bool),
        area=arrays.get("area"),
    )


def _read_examples(path: Path) -> Examples | None:
    arrays = read_arrays(path, ("seen", "retrieved", "rank", "stimulus"))
    if arrays is None:
        return None
    n_trials = len(arrays["seen"])
    for name in ("retrieved", "rank", "stimulus"):
        if len(arrays[name]) != n_trials:
            raise FileError(f"{path}: {len(arrays[name])} of '{name}' for {n_trials} of 'seen'")
    return Examples(seen=arrays["seen"], retrieved=arrays["retrieved"], rank=arrays["rank"], stimulus=arrays["stimulus"])
