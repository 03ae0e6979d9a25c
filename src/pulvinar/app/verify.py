"""`pulvinar verify`: is a run what was written? Every file with its checksums, and the reported scores made again.

The scores are made again from what the run keeps: predictions of decoders and encoders, which test images were right. Nothing
is trained and nothing in the folder changes.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.app.evaluate import scoring_of
from pulvinar.app.fit import require_same_data
from pulvinar.core import checksums, devices
from pulvinar.core.config import read_toml
from pulvinar.core.errors import FileError, PulvinarError
from pulvinar.core.places import TEMPORARY
from pulvinar.core.progress import log
from pulvinar.core.storage import read_arrays, read_json, reading, require_file
from pulvinar.decoding.rescoring import rescored_decoding
from pulvinar.encoding.rescoring import rescored_encoding
from pulvinar.learning import checkpoints
from pulvinar.learning.runs import RunFolder
from pulvinar.report import run_folder

RELATIVE, ABSOLUTE = 1e-5, 1e-9  # what sums in another order change
ROW = ("name", "subject", "roi", "hemisphere", "target")  # what tells rows apart, where they have it
Rows = Sequence[Mapping[str, Any]]


def verify(run: str, *, data: str | None = None) -> dict[str, Any]:
    """What differs in a run, and how much was checked: `differences` (file or score -> what), `n_files`, `n_scores`.

    data: where the data are, if they have moved; only scores of decoders and RDMs need them.
    """
    with checksums.using("always"):
        opened = RunFolder.reopen(run)
        differences, n_files = _files(opened.path)
        n_scores = 0
        if not differences:
            differences, n_scores = _scores(opened, data)
    return {"run": run, "ok": not differences, "differences": differences, "n_files": n_files, "n_scores": n_scores}


def as_text(result: Mapping[str, Any]) -> str:
    """A line for everything that differs, then how much was checked."""
    lines = [f"{place}: {verdict}" for place, verdict in result["differences"].items()]
    verdict = "nothing differs" if result["ok"] else f"{len(lines)} differ"
    return "\n".join([*lines, f"{verdict}: {result['n_files']} files, {result['n_scores']} numbers made again"])


# --- files --------------------------------------------------------------------------------------------------------------


def _files(folder: Path) -> tuple[dict[str, str], int]:
    """Files that cannot be read whole, or whose checksum does not fit -> why; how many there are."""
    differences, paths = {}, [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if TEMPORARY in name:
            differences[name] = "left over from a run that was ended"
            continue
        try:
            _read(path)
        except PulvinarError as error:
            differences[name] = str(error).removeprefix(f"{path}: ")
    try:
        run_folder.read(folder)
    except PulvinarError as error:
        differences.setdefault("run.json", str(error))
    return differences, len(paths)


def _read(path: Path) -> None:
    """Read a file to its end, by what it is."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".json": read_json,
        ".npz": read_arrays,
        ".toml": read_toml,
        ".safetensors": lambda path: checkpoints.read_tensors(path, "a checkpoint"),
        ".jsonl": _read_lines,
    }
    readers.get(path.suffix.lower(), require_file)(path)


def _read_lines(path: Path) -> None:
    with reading(path, "lines of JSON"):
        for line in filter(str.strip, path.read_text(encoding="utf-8-sig").splitlines()):
            json.loads(line)


# --- scores -------------------------------------------------------------------------------------------------------------


def _scores(run: RunFolder, data: str | None) -> tuple[dict[str, str], int]:
    """Scores that come out otherwise -> both numbers; how many were made again."""
    path = run.path / "evaluation.json"
    if not path.is_file():
        log(f"{run.path}: was not evaluated; there are no scores to make again")
        return {}, 0
    evaluation = read_json(path)
    reported = evaluation["rows"]
    topic = str(run.facts.get("topic", "decoding"))
    try:
        with reading(run.path, "an evaluated run"):
            made = _made_again(run, topic, evaluation, data)
    except PulvinarError as error:
        return {"evaluation.json": f"its scores cannot be made again: {error}"}, 0
    differences, n_scores = {}, 0
    for key, row in made.items():
        if key not in {_key(one) for one in reported}:
            differences[", ".join(key)] = "is not reported"
            continue
        stated = next(one for one in reported if _key(one) == key)
        for name, value in _numbers(row):
            n_scores += 1
            came = dict(_numbers(stated)).get(name)
            if not _is_same(came, value):
                differences[f"evaluation.json: {', '.join(key)}: {name}"] = f"{came} is reported, {value} comes out"
    return differences, n_scores


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ROW if row.get(name) is not None)


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """(name, number) of everything in a row that is a number, or None where one could be."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        own = f"{name}.{key}" if name else str(key)
        if isinstance(inner, Mapping | list | tuple):
            yield from _numbers(inner, own)
        elif inner is None or (isinstance(inner, int | float | np.number) and not isinstance(inner, bool)):
            yield own, None if inner is None or not math.isfinite(inner) else float(inner)


def _is_same(came: float | None, made: float | None) -> bool:
    if came is None or made is None:
        return came is made
    return math.isclose(came, made, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _made_again(
    run: RunFolder, topic: str, evaluation: Mapping[str, Any], data: str | None
) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """The rows that can be made again from what the run keeps, by what tells them apart."""
    reported = evaluation["rows"]
    if topic == "self_supervised":
        rows: Rows = _rescored_accuracies(run, reported)
    elif topic == "encoding":
        rows = rescored_encoding(run, reported)
    else:
        rows = _with_data(run, topic, evaluation, data)
    return {_key(row): row for row in rows}


def _rescored_accuracies(run: RunFolder, reported: Rows) -> list[dict[str, Any]]:
    """Mean over test images of which were right, of every branch."""
    correct = read_arrays(run.path / "predictions" / "correct.npz")
    return [
        {"name": row["name"], **{kind: float(correct[f"{kind}_{row['branch']}"].mean()) for kind in ("knn", "linear")}}
        for row in reported
    ]


def _with_data(run: RunFolder, topic: str, evaluation: Mapping[str, Any], data: str | None) -> Rows:
    method, source = registry.method(run.method), run.facts["data"]
    config, _ = scoring_of(run, ())
    if data is None and not Path(source["path"].rpartition(":")[2].partition("?")[0]).exists():
        raise FileError(f"{source['path']}: the data are not there any more; say where they are with --data")
    opened = open_data(method.data, data or source["path"], target=source["target"])
    require_same_data(run, opened)
    if topic == "decoding":
        return rescored_decoding(run, opened, config, evaluation)
    with tempfile.TemporaryDirectory() as place:  # scored anew where nothing of the run can change
        copy = RunFolder.reopen(shutil.copytree(run.path, Path(place) / "run"))
        if method.evaluate is None:
            return []
        with devices.using(config.device):
            found = method.evaluate(copy, opened, config, controls=False)
    return found["rows"]
