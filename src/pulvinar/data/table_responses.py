"""Responses in tables: a row per trial, a column per voxel, and columns that say what the trial was.

CSV and TSV, Parquet (pyarrow, extra `tables`), and pandas' HDF, which is read with h5py. In the last, whatever pandas pickled
(text in its fixed format, names of columns in its table format) is not read: such columns are refused with the way out.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, MissingDependencyError, NotFoundError
from pulvinar.core.hdf5 import open_hdf5, read_hdf5_array
from pulvinar.core.limits import require_plausible
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.core.untrusted import require_readable
from pulvinar.data.sessions import session_numbers
from pulvinar.data.tables import ATTRIBUTES, TABLE_SUFFIXES, Table, Trials, is_none, read_table

PARQUET_SUFFIXES = (".parquet", ".pq")
FRAME_SUFFIXES = (".h5", ".hdf5")
SUBJECT = "subject"
NEVER_VOXELS = (  # columns of trial tables in the field (BIDS events among them); no voxels unless a prefix says so
    *(
        "stimulus",
        "session",
        "run",
        SUBJECT,
        "trial",
        "trial_id",
        "repetition",
        "onset",
        "duration",
        "trial_type",
        "response_time",
    ),
    *(*ATTRIBUTES, "index", "__index_level_0__", "level_0"),
)
PANDAS = "pandas_type"
INDEX_OF_PARQUET = re.compile(r"__index_level_\d+__")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """Columns of a table by name, (row,) each: numbers as stored, text as a list. unread: name -> why it was not read."""

    path: Path
    columns: Mapping[str, np.ndarray | list[str]]
    n_rows: int
    unread: Mapping[str, str] = field(default_factory=dict)
    order: Sequence[str] = ()  # of all of them in the file; none: that of `columns`

    def name_of(self, name: str) -> str | None:
        """The column's name as the file writes it; upper and lower case do not count. None if there is no such column."""
        there = self.order or list(self.columns)
        return name if name in there else next((other for other in there if other.casefold() == name.casefold()), None)

    def texts(self, name: str) -> list[str]:
        """A column as text; whole numbers without a decimal point; `InputError` where a cell is empty."""
        values = self._column(name)
        cells = values if isinstance(values, list) else [_written(value) for value in values.tolist()]
        empty = [row for row, cell in enumerate(cells) if is_none(cell)]
        if empty:
            raise InputError(f"{self.path}: column '{name}' is empty in {len(empty)} rows, first in row {empty[0]}")
        return cells

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """Columns of numbers (row, column), of one type where they have one; `InputError` names a column that holds text."""
        found = []
        for name in names:
            values = self._column(name)
            found.append(_as_numbers(values, f"{self.path}: column '{name}'") if isinstance(values, list) else values)
            if found[-1].dtype.kind not in "iuf":
                raise InputError(f"{self.path}: column '{name}' holds {found[-1].dtype}; numbers are needed")
        return np.stack(found, axis=1)

    def _column(self, name: str) -> np.ndarray | list[str]:
        if name in self.unread:
            raise InputError(f"{self.path}: column '{name}' {self.unread[name]}")
        return self.columns[name]


def is_table_file(path: Path) -> bool:
    """Whether this is a table of responses: by its suffix, and of HDF5 by what pandas writes into it."""
    suffix = path.suffix.lower()
    if suffix in (*TABLE_SUFFIXES, *PARQUET_SUFFIXES):
        return True
    return suffix in FRAME_SUFFIXES and path.is_file() and h5py.is_hdf5(path) and bool(_frames_in(path))


@reads("a table")
def read_frame(path: Path, key: str | None = None) -> Frame:
    """The columns of a table. key: which of several frames of a pandas HDF file.

    Raises `FileError` for a damaged file, `MissingDependencyError` where pyarrow is missing, `InputError` for two columns of
    one name.
    """
    path = require_file(path, "table")
    suffix = path.suffix.lower()
    if key is not None and suffix not in FRAME_SUFFIXES:
        raise InputError(f"{path}: a table without a name; '{key}' was asked for")
    if suffix in TABLE_SUFFIXES:
        table: Table = read_table(path)
        return Frame(path=path, columns={name: list(cells) for name, cells in table.columns.items()}, n_rows=len(table))
    return _parquet(path) if suffix in PARQUET_SUFFIXES else _pandas_hdf(path, key)


# --- what a study needs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TableChoice:
    """Which columns and rows: those of voxels by how they begin or by name ('': all but those of trials), and the subject."""

    stimulus_column: str = "stimulus"
    voxels: str | Sequence[str] = ""
    subject_column: str = "subject"
    subject: str = ""


def responses_of(places: Sequence[tuple[Path, str | None]], choice: TableChoice) -> list[np.ndarray]:
    """Responses (trial, voxel) of every table, voxels in the order of the first one's columns.

    Columns of the others are found by their names. `InputError` where they are others, where the numbers in their names do not
    ascend, or where a column of text or a count of rows would be a voxel.
    """
    found: list[np.ndarray] = []
    first: list[str] = []
    for path, key in places:
        frame = read_frame(path, key)
        names = _voxel_columns(frame, choice)
        if not first:
            _refuse_order(path, names)
            first = names
        if set(names) != set(first):
            odd = sorted(set(names) ^ set(first))[0]
            raise InputError(f"{path} and {places[0][0]} differ in their columns of voxels, e.g. '{odd}'; the same are needed")
        found.append(frame.numbers(first)[_rows(frame, choice)])
    return found


def trials_of(places: Sequence[tuple[Path, str | None]], choice: TableChoice) -> Trials:
    """What the rows of the tables say of their trials: the stimulus; session, run, source, label, split if they are there."""
    frames = [read_frame(path, key) for path, key in places]
    together: dict[str, list[str]] = {}
    for name in (choice.stimulus_column, "session", "run", *ATTRIBUTES):
        if name in together:
            continue
        having = [frame for frame in frames if frame.name_of(name)]
        lacking = next((frame.path for frame in frames if frame not in having), None)
        if lacking is not None and (having or name == choice.stimulus_column):
            raise NotFoundError(
                f"{lacking}: no column '{name}'{suggest(name, _few(frames[0]))}. Name the one with the stimuli with "
                "stimulus_column, or give a table of the trials with trials"
                if name == choice.stimulus_column
                else f"{lacking}: no column '{name}', which {having[0].path} has; all tables of a subject need the same"
            )
        if having:
            cells = [_cells(frame, name, name in ATTRIBUTES) for frame in frames]
            together[name] = [
                own[row] for frame, own in zip(frames, cells, strict=True) for row in _rows(frame, choice).tolist()
            ]
    ids, origin = together.pop(choice.stimulus_column), ", ".join(str(path) for path, _ in places)
    numbered = {name: together.pop(name, ["0"] * len(ids)) for name in ("session", "run")}
    sessions, runs = (session_numbers(cells, name, origin) for name, cells in numbered.items())
    return Trials(origin=origin, stimulus_ids=ids, sessions=sessions, runs=runs, attributes=together)


def require_same_trials(places: Sequence[tuple[Path, str | None]], choice: TableChoice, trials: Trials) -> None:
    """Where tables name their stimuli and a trial table was given beside them: `InputError` for the first row that differs."""
    frames = [read_frame(*place) for place in places]
    if all(frame.name_of(choice.stimulus_column) in frame.columns for frame in frames):
        own = trials_of(places, choice).stimulus_ids
        for row, (one, other) in enumerate(zip(own, trials.stimulus_ids, strict=False)):
            if Path(one.replace("\\", "/")).stem != Path(other.replace("\\", "/")).stem:
                raise InputError(
                    f"{trials.origin}: row {row} is '{other}', but {places[0][0]} says '{one}' there; leave trials away, as "
                    "the table says it itself"
                )


def _cells(frame: Frame, name: str, may_be_empty: bool) -> list[str]:
    written = frame.name_of(name) or name
    if not may_be_empty:
        return frame.texts(written)
    values = frame._column(written)
    cells = values if isinstance(values, list) else [_written(value) for value in values.tolist()]
    return ["" if is_none(cell) else cell for cell in cells]


def _few(frame: Frame) -> list[str]:
    return list(frame.columns)[:20]


def _rows(frame: Frame, choice: TableChoice) -> np.ndarray:
    """Rows of this subject: all, where the table has no column of subjects."""
    written = frame.name_of(choice.subject_column)
    if written is None:
        _refuse_other_subjects(frame, choice)
        return np.arange(frame.n_rows)
    names = frame.texts(written)
    rows = np.array([row for row, name in enumerate(names) if name == choice.subject], dtype=np.int64)
    if not len(rows):
        raise InputError(
            f"{frame.path}: column '{written}' has no row of '{choice.subject}'"
            f"{suggest(choice.subject, sorted(set(names))[:20])}; say how the table calls this subject with table_subject"
        )
    return rows


def _refuse_other_subjects(frame: Frame, choice: TableChoice) -> None:
    """No column is called as that of the subjects should be, but one names this subject and others: whose rows are these?"""
    if choice.subject_column != SUBJECT:
        raise NotFoundError(f"{frame.path}: no column '{choice.subject_column}'{suggest(choice.subject_column, _few(frame))}")
    for name, cells in frame.columns.items():
        if isinstance(cells, list) and choice.subject in cells and len(set(cells)) > 1:
            raise InputError(
                f"{frame.path}: no column '{SUBJECT}', but '{name}' names '{choice.subject}' and others; "
                f"subject_column = '{name}' takes the rows of this subject alone"
            )


def _voxel_columns(frame: Frame, choice: TableChoice) -> list[str]:
    names = frame.order or list(frame.columns)
    if choice.voxels and not isinstance(choice.voxels, str):
        missing = [name for name in choice.voxels if name not in names]
        if missing:
            raise NotFoundError(f"{frame.path}: no column '{missing[0]}'{suggest(missing[0], _few(frame))}")
        chosen = list(choice.voxels)
    elif choice.voxels:
        chosen = [name for name in names if name.startswith(str(choice.voxels))]
        if not chosen:
            raise InputError(f"{frame.path}: no column begins with '{choice.voxels}'; there are {', '.join(_few(frame))}")
    else:
        never = {name.casefold() for name in (*NEVER_VOXELS, choice.stimulus_column, choice.subject_column)}
        chosen = [name for name in names if name.casefold() not in never and not INDEX_OF_PARQUET.fullmatch(name)]
        _refuse_no_voxels(frame, chosen)
    return chosen


def _refuse_no_voxels(frame: Frame, chosen: Sequence[str]) -> None:
    """Columns of text, or that count the rows, show that not all that is left are voxels."""
    odd = [name for name in chosen if isinstance(values := frame.columns.get(name), list) and not _are_numbers(values)]
    odd = odd or [
        name
        for name in chosen
        if isinstance(values := frame.columns.get(name), np.ndarray) and (values.dtype.kind not in "iuf" or _is_count(values))
    ]
    odd = odd or [name for name in chosen if isinstance(v := frame.columns.get(name), list) and _is_count(_as_numbers(v, name))]
    if odd:
        raise InputError(
            f"{frame.path}: is '{odd[0]}' a voxel? It holds text, or counts the rows. Say which columns are voxels by how "
            "their names begin, voxel_columns = 'v', or by name, voxel_columns = ['v1', 'v2']"
        )
    if not chosen:
        raise InputError(f"{frame.path}: no column is left for voxels; there are {', '.join(_few(frame))}")


def _is_count(values: np.ndarray) -> bool:
    """Whether these are 0, 1, 2, ... or 1, 2, 3, ..."""
    return len(values) > 2 and any(np.array_equal(values, np.arange(first, first + len(values))) for first in (0, 1))


def _refuse_order(path: Path, names: Sequence[str]) -> None:
    """Columns v0, v1, v10, v2 were sorted as text: are they the voxels in the order of their numbers, or of the file?"""
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    if len(names) < 2 or not all(parts) or len({part[1] for part in parts if part}) > 1:
        return
    numbers = [int(part[2]) for part in parts if part]
    place = next((row for row in range(1, len(numbers)) if numbers[row] <= numbers[row - 1]), None)
    if place is not None:
        raise InputError(
            f"{path}: the column '{names[place]}' comes after '{names[place - 1]}' (sorted as text?). Voxels are taken in the "
            "order of the columns; put the columns into the order of their numbers"
        )


# --- formats ----------------------------------------------------------------------------------------------------------


def _written(value: object) -> str:
    """A number, truth or text as a table of text writes it: 3.0 is 3."""
    if isinstance(value, bytes):
        return value.decode()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        _as_numbers(cells, "")
    except InputError:
        return False
    return True


def _as_numbers(cells: Sequence[str], who: str) -> np.ndarray:
    with contextlib.suppress(ValueError):
        if not any("_" in cell for cell in cells):  # which Python reads as nothing: 1_0 is 10
            return np.array(cells, dtype=np.float64)
    found = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            found[row] = np.nan if is_none(cell) else float(cell.replace("_", "?"))
        except ValueError as error:
            comma = " (a decimal point is needed, not a comma)" if "," in cell else ""
            raise InputError(f"{who}: '{cell}' in row {row} is no number{comma}") from error
    return found


def _parquet(path: Path) -> Frame:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(f"{path}: Parquet is read with pyarrow; run: pip install 'pulvinar[tables]'") from error
    require_readable(path, "parquet")
    with reading(path, "Parquet"), pyarrow.parquet.ParquetFile(path) as file:
        meta = file.metadata
        n_bytes = sum(
            meta.row_group(group).column(column).total_uncompressed_size
            for group in range(meta.num_row_groups)
            for column in range(meta.num_columns)
        )
        require_plausible(path, max(n_bytes, 8 * meta.num_rows))
        table = file.read()
    names = table.column_names
    twice = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"{path}: column '{twice[0]}' is there twice")
    columns: dict[str, np.ndarray | list[str]] = {}
    unread: dict[str, str] = {}
    for name, column in zip(names, table.columns, strict=True):
        with reading(path, f"Parquet, column '{name}'"):
            values = _of_arrow(column)
        if isinstance(values, str):
            unread[name] = values
        else:
            columns[name] = values
    return Frame(path=path, columns=columns, n_rows=table.num_rows, unread=unread, order=names)


def _of_arrow(column: "object") -> np.ndarray | list[str] | str:
    """Values of a column, or why it has none here. Missing numbers become NaN, missing text ''."""
    import pyarrow
    from pyarrow import types

    kind = column.type  # type: ignore[attr-defined]
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type  # type: ignore[attr-defined]
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or ((view := getattr(types, "is_string_view", None)) and view(kind))
    ):
        return ["" if text is None else text for text in column.to_pylist()]  # type: ignore[attr-defined]
    if types.is_integer(kind) or types.is_floating(kind):
        if column.null_count and types.is_integer(kind):  # type: ignore[attr-defined]
            column = column.cast(pyarrow.float64())  # type: ignore[attr-defined]
        return np.asarray(column.to_numpy())  # type: ignore[attr-defined]
    if types.is_boolean(kind):
        return ["" if truth is None else str(truth) for truth in column.to_pylist()]  # type: ignore[attr-defined]
    return f"holds {kind}; numbers or text are read"


def _frames_in(path: Path) -> list[str]:
    """Names of the frames that pandas wrote into an HDF5 file."""
    found = []
    with open_hdf5(path) as file, reading(path, "HDF5"):
        for name, node in file.items():
            if isinstance(node, h5py.Group) and PANDAS in node.attrs:
                found.append(name)
    return found


def _pandas_hdf(path: Path, key: str | None) -> Frame:
    names = _frames_in(path)
    if key is None and len(names) != 1:
        raise InputError(
            f"{path}: holds {len(names)} frames of pandas ({', '.join(names)}); name one: {{ file = ..., array = ... }}"
        )
    name = key.strip("/") if key is not None else names[0]
    if name not in names:
        raise NotFoundError(f"{path}: no frame '{name}'{suggest(name, names)}")
    with open_hdf5(path) as file:
        group = file[name]
        with reading(path, f"pandas' HDF, frame '{name}'"):
            kind = _written(group.attrs[PANDAS])
        if kind == "frame":
            return _fixed_frame(path, group)
        if kind == "frame_table":
            return _table_frame(path, group)
    raise InputError(f"{path}: '{name}' is a {kind} of pandas; a frame is needed (a row per trial, a column per voxel)")


FIXED_PICKLED = "is pickled in pandas' fixed format, and nothing is unpickled here; write it with to_parquet"
TABLE_PICKLED = "which is pickled; write it with to_hdf(format='table', data_columns=True) or to_parquet"


def _fixed_frame(path: Path, group: h5py.Group) -> Frame:
    if "axis1" not in group:
        raise InputError(
            f"{path}: the rows of '{group.name}' have several names each (a MultiIndex); reset_index() before it is written"
        )
    columns: dict[str, np.ndarray | list[str]] = {}
    unread: dict[str, str] = {}
    order, n_rows = _axis(group, "axis0"), len(group["axis1"])
    for number in range(int(group.attrs["nblocks"])):
        names, node = _axis(group, f"block{number}_items"), group[f"block{number}_values"]
        if node.dtype.hasobject or h5py.check_vlen_dtype(node.dtype):
            unread |= dict.fromkeys(names, FIXED_PICKLED)
        elif (kind := _written(node.attrs.get("value_type", ""))) and kind not in ("", "nan"):
            unread |= dict.fromkeys(names, f"holds {kind}; numbers or text are read")
        else:
            block = _rows_by_columns(path, group, number, (n_rows, len(names)))
            columns |= {name: np.ascontiguousarray(block[:, place]) for place, name in enumerate(names)}
    if sorted([*columns, *unread]) != sorted(order) or len(set(order)) < len(order):
        raise InputError(f"{path}: its columns and its blocks do not match, or a name is there twice")
    found = {name: columns[name] for name in order if name in columns}
    index = _named_index(group, order)
    return Frame(path=path, columns=found | index, n_rows=n_rows, unread=unread, order=[*order, *index])


def _rows_by_columns(path: Path, group: h5py.Group, number: int, shape: tuple[int, int]) -> np.ndarray:
    """A block as (row, column). pandas turns what it holds as (column, row) before it writes it, and says so: `transposed`."""
    name = f"block{number}_values"
    said, block = group[name].attrs.get("transposed"), read_hdf5_array(group, name)
    if said is None and shape[0] == shape[1]:
        raise InputError(
            f"{path}: {name} has shape {block.shape} and does not say which axis is the row (attribute transposed)"
        )
    turned = bool(said) if said is not None else block.shape == shape
    block = block if turned else block.T
    if block.shape != shape:
        raise InputError(f"{path}: {name} has shape {block.shape} for {shape[0]} rows and {shape[1]} columns")
    return block


def _named_index(group: h5py.Group, columns: Sequence[str]) -> dict[str, list[str]]:
    """The names of the rows, where pandas kept them as text under a name (such as the stimuli, of set_index('stimulus'))."""
    node = group["axis1"]
    name = _written(node.attrs.get("name", ""))
    if not name.isidentifier() or name in columns or node.dtype.kind != "S":
        return {}
    return {name: [_written(value) for value in read_hdf5_array(group, "axis1").tolist()]}


def _axis(group: h5py.Group, name: str) -> list[str]:
    """Names of columns; `InputError` where they are pickled."""
    node = group[name]
    if node.dtype.hasobject or h5py.check_vlen_dtype(node.dtype):
        raise InputError(
            f"{group.file.filename}: the names of the columns ({name}) are no text, and pickled; write it with to_parquet"
        )
    return [_written(value) for value in read_hdf5_array(group, name).tolist()]


def _table_frame(path: Path, group: h5py.Group) -> Frame:
    node = group["table"]
    if node.dtype.names is None:
        raise FileError(f"{path}: '{group.name}/table' is no table")
    values, columns = read_hdf5_array(group, "table"), {}
    for name in node.dtype.names:
        if name == "index":
            continue
        if re.fullmatch(r"values_block_\d+", name):
            raise InputError(f"{path}: the names of its columns stand in an attribute ({name}_kind), {TABLE_PICKLED}")
        own = values[name]
        columns[name] = [_written(cell) for cell in own.tolist()] if own.dtype.kind in "SU" else np.ascontiguousarray(own)
    return Frame(path=path, columns=columns, n_rows=len(values))
