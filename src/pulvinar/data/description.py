"""A description file (TOML) that lists the files of an experiment; every mistake in it is reported at once.

Paths are relative to the folder of the description. docs/data.md shows each key.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pulvinar.core.config import convert, mistakes_of, read_toml, suggest
from pulvinar.core.errors import ConfigError, PulvinarError
from pulvinar.core.storage import reads
from pulvinar.data.array_files import ARRAY_SUFFIXES
from pulvinar.data.brain_files import AFFINE_TOLERANCE, SURFACE_SUFFIXES, VOLUME_SUFFIXES
from pulvinar.data.cifti_files import CIFTI_SUFFIXES, PARTS, is_cifti
from pulvinar.data.fmriprep import WINDOW_S
from pulvinar.data.matlab_files import MATLAB_SUFFIXES
from pulvinar.data.named_meshes import known_name, sizes
from pulvinar.data.pictures import PictureOptions
from pulvinar.data.surface_files import SIDES, VERTEX_SUFFIXES
from pulvinar.data.table_responses import PARQUET_SUFFIXES, is_table_file
from pulvinar.data.tables import TABLE_SUFFIXES

Value = TypeVar("Value")
NamedArray = tuple[Path, str | None]
BySide = Mapping[str, NamedArray]  # 'left', 'right' or both
ONLY_FMRIPREP = (
    *("events", "space", "task", "entities", "window_s", "trial_type", "type_column", "repetition_time"),
    "drop_unmeasured_trials",
)
ONLY_TABLES = ("voxel_columns", "subject_column", "table_subject")
NUMBERS = (*ARRAY_SUFFIXES, *MATLAB_SUFFIXES)
PER_VOXEL = (*NUMBERS, *VOLUME_SUFFIXES)  # a .dscalar.nii is a .nii too
RESPONSES = (*PER_VOXEL, *PARQUET_SUFFIXES, *TABLE_SUFFIXES)
PER_VERTEX = (*VERTEX_SUFFIXES, *NUMBERS)
AXES = {"trial,voxel": ("trial", "voxel"), "voxel,trial": ("voxel", "trial")}


@dataclass(frozen=True, kw_only=True)
class SubjectFiles:
    """Where the data of one subject are. Responses come from `responses` with `trials`, or from `fmriprep` with `events`.

    sides: 'left' and 'right' -> the files of a hemisphere, in the place of `responses`. axes: the order of an array's axes, as
    `AXES`; None: (trial, voxel). coordinates: a file of them, or they themselves (voxel, 3). surface: files of one mesh, whose
    side is `surface_side`, or of left and right; mesh: the name of one instead. greyordinates: parts of a CIFTI file.
    voxel_columns: which columns of a table are voxels, by how their names begin or as a list of names; table_subject: what
    its column `subject_column` calls this one. trials: none where a table says it itself.
    """

    name: str
    responses: Sequence[NamedArray]
    sides: Mapping[str, Sequence[NamedArray]]
    axes: tuple[str, str] | None
    trials: Sequence[Path]
    stimulus_column: str | None
    scale: float
    mask: Path | None
    coordinates: NamedArray | np.ndarray | None
    surface: Sequence[Path]
    surface_side: str
    mesh: str
    vertices: NamedArray | None
    greyordinates: Sequence[str]
    voxel_columns: str | Sequence[str]
    subject_column: str
    table_subject: str
    fmriprep: Path | None
    events: Path | None
    space: str | None
    task: str | None
    entities: Mapping[str, str]
    window_s: tuple[float, float]
    trial_type: Sequence[str]
    type_column: str | None
    repetition_time: float | None
    drop_unmeasured_trials: bool
    affine_tolerance: float
    rois: Mapping[str, NamedArray | BySide]
    noise_ceiling: NamedArray | BySide | None
    drop_bad_voxels: bool


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a description file says, checked: types, known keys, and that the files are there."""

    path: Path
    name: str
    target: str
    facts: Mapping[str, Any]
    images: Path | None
    pictures: PictureOptions
    features: Mapping[str, NamedArray]
    table: Path | None
    test_share: float | None
    seed: int
    subjects: Sequence[SubjectFiles]


@reads("a description")
def read_description_file(path: str | os.PathLike[str]) -> Description:
    """The checked description; `ConfigError` lists every mistake (unknown keys, wrong types, missing files) together."""
    path = Path(path)
    mistakes: list[str] = []
    top = _Section(read_toml(path), "", path.parent, mistakes)
    stimuli, split = top.section("stimuli"), top.section("split")
    tables = top.raw("subject", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        mistakes.append("a description needs one or more [[subject]] tables")
        tables = []
    subjects = [_subject(table, number, path.parent, mistakes) for number, table in enumerate(tables, start=1)]
    names = [subject.name for subject in subjects]
    mistakes += [f"two [[subject]] tables are named '{name}'" for name in sorted(set(names)) if names.count(name) > 1]
    description = Description(
        path=path,
        name=top.value("name", str, path.stem),
        target=top.value("target", str, names[-1] if names else ""),
        facts=top.table("facts"),
        images=stimuli.folder("images"),
        pictures=_picture_options(stimuli, mistakes),
        features=stimuli.arrays("features"),
        table=stimuli.file("table", TABLE_SUFFIXES),
        test_share=split.value("test_share", float, None),
        seed=split.value("seed", int, 0),
        subjects=subjects,
    )
    if names and description.target not in names:
        mistakes.append(f"target: no [[subject]] is named '{description.target}'{suggest(description.target, names)}")
    if description.seed < 0:
        mistakes.append(f"split.seed is 0 or more, not {description.seed}")
    if description.test_share is not None and not 0 < description.test_share < 1:
        mistakes.append(f"split.test_share is a number between 0 and 1, not {description.test_share}")
    for section in (top, stimuli, split):
        section.refuse_unknown()
    if mistakes:
        raise ConfigError(f"{path}:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))
    return description


def _picture_options(stimuli: "_Section", mistakes: list[str]) -> PictureOptions:
    """`stimuli.background` and `stimuli.white`: how the files of the image folder are read."""
    options = PictureOptions(
        background=stimuli.value("background", str, PictureOptions.background), white=stimuli.value("white", int, None)
    )
    mistakes += [f"stimuli.{mistake.removeprefix('stimuli.')}" for mistake in mistakes_of(options, "stimuli")]
    return options


def _subject(table: dict[str, Any], number: int, folder: Path, mistakes: list[str]) -> SubjectFiles:
    name = table.get("name")
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name.startswith("."):
        mistakes.append(f"subject {number}: name is a text that can name a file, such as 'sub-01', not {name!r}")
        name = f"subject {number}"
    section = _Section(table, f"{name}.", folder, mistakes)
    section.raw("name", None)
    by_side = _has_sides(table.get("responses"))
    mesh, surface, surface_side = _surface(section)
    subject = SubjectFiles(
        name=name,
        responses=[] if by_side else section.several("responses", section.raw("responses", []), RESPONSES),
        sides=_by_side(section, "responses") if by_side else {},
        axes=_axes(section, table),
        trials=section.files("trials", TABLE_SUFFIXES),
        stimulus_column=section.value("stimulus_column", str, None),
        scale=section.value("scale", float, 1.0),
        mask=section.file("mask", VOLUME_SUFFIXES),
        coordinates=_coordinates(section),
        surface=surface,
        surface_side=surface_side,
        mesh=mesh,
        vertices=section.array("vertices", section.raw("vertices", None), NUMBERS),
        greyordinates=_parts(section, table),
        voxel_columns=_voxel_columns(section),
        subject_column=section.value("subject_column", str, "subject"),
        table_subject=section.value("table_subject", str, name),
        fmriprep=section.folder("fmriprep"),
        events=section.folder("events"),
        space=section.value("space", str, None),
        task=section.value("task", str, None),
        entities=section.texts_by_name("entities"),
        window_s=section.value("window_s", tuple[float, ...], WINDOW_S),
        trial_type=section.texts("trial_type"),
        type_column=section.value("type_column", str, None),
        repetition_time=section.value("repetition_time", float, None),
        drop_unmeasured_trials=section.value("drop_unmeasured_trials", bool, False),
        affine_tolerance=section.value("affine_tolerance", float, AFFINE_TOLERANCE),
        rois={
            key: place
            for key, item in section.table("rois").items()
            if (place := _per_voxel(section, f"rois.{key}", item)) is not None
        },
        noise_ceiling=_per_voxel(section, "noise_ceiling", section.raw("noise_ceiling", None)),
        drop_bad_voxels=section.value("drop_bad_voxels", bool, False),
    )
    section.refuse_unknown()
    mistakes += [f"{name}: {mistake}" for mistake in _contradictions(subject, table)]
    return subject


def _has_sides(given: Any) -> bool:
    return isinstance(given, dict) and any(side in given for side in SIDES)


def _by_side(section: "_Section", key: str) -> dict[str, list[NamedArray]]:
    """{ left = ..., right = ... }: one file of a hemisphere, or a list of them in the order of the trials."""
    inner = section.section(key)
    found = {side: inner.several(side, inner.raw(side, []), PER_VERTEX) for side in SIDES if side in inner.given}
    inner.refuse_unknown()
    counts = {side: len(inner.items(side)) for side in found}
    if len(set(counts.values())) > 1:
        section.mistakes.append(
            f"{section.where}{key}: {counts['left']} files of the left hemisphere, {counts['right']} of the right"
        )
    return found


def _per_voxel(section: "_Section", key: str, given: Any) -> NamedArray | BySide | None:
    """A path (or one of several arrays in a file), or that of each hemisphere."""
    if not _has_sides(given):
        return section.array(key, given, PER_VOXEL)
    inner = _Section(given, f"{section.where}{key}.", section.folder_of_file, section.mistakes)
    found = {side: place for side in SIDES if (place := inner.array(side, inner.raw(side, None), PER_VERTEX))}
    inner.refuse_unknown()
    return found


def _surface(section: "_Section") -> tuple[str, list[Path], str]:
    """Name of a mesh, or its files (left before right), and the side of a single one where that was said."""
    given = section.raw("surface", [])
    if isinstance(given, str) and (known := known_name(given)):
        return known, [], ""
    if isinstance(given, str) and not given.lower().endswith(SURFACE_SUFFIXES):
        section.mistakes.append(
            f"{section.where}surface: {', '.join(SURFACE_SUFFIXES)} fits, or the name of a mesh (vertices of a hemisphere: "
            f"{sizes()}), not '{given}'"
        )
        return "", [], ""
    if isinstance(given, dict):
        inner = section.section("surface")
        files = {side: path for side in SIDES if (path := inner.file(side, SURFACE_SUFFIXES))}
        inner.refuse_unknown()
        return "", list(files.values()), next(iter(files)) if len(files) == 1 else ""
    return "", section.files("surface", SURFACE_SUFFIXES), ""


def _axes(section: "_Section", table: Mapping[str, Any]) -> tuple[str, str] | None:
    given = section.value("axes", str, "")
    plain = given.replace(" ", "").casefold()
    if plain and plain not in AXES:
        section.mistakes.append(f"{section.where}axes is one of {' and '.join(repr(name) for name in AXES)}, not '{given}'")
    return AXES.get(plain)


def _parts(section: "_Section", table: Mapping[str, Any]) -> list[str]:
    given = section.texts("greyordinates")
    wrong = [part for part in given if part not in PARTS]
    if wrong:
        section.mistakes.append(f"{section.where}greyordinates lists some of {', '.join(PARTS)}, not '{wrong[0]}'")
    return [part for part in given if part in PARTS] or ["left", "right"]


def _coordinates(section: "_Section") -> NamedArray | np.ndarray | None:
    """The file of the places of the voxels, or the places themselves: a list of [x, y, z]."""
    given = section.raw("coordinates", None)
    if not isinstance(given, list):
        return section.array("coordinates", given, NUMBERS)
    try:
        points = np.array(given, dtype=np.float64)
    except (ValueError, TypeError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        section.mistakes.append(f"{section.where}coordinates is a file, or a list of [x, y, z] in mm, not {given!r}")
        return None
    return points


def _voxel_columns(section: "_Section") -> str | Sequence[str]:
    """How the names of the voxels' columns begin, or those names; '' for all columns but those of trials."""
    if isinstance(section.given.get("voxel_columns"), list):
        return section.texts("voxel_columns")
    return section.value("voxel_columns", str, "")


def _contradictions(subject: SubjectFiles, given: Mapping[str, Any]) -> list[str]:
    """What one subject's keys lack or say twice; looks at which keys were given, so that a missing file is not said twice."""
    found = []
    if ("responses" in given) == ("fmriprep" in given):
        found.append("one of responses (with trials) and fmriprep (with events) is needed")
    wrong_company = (
        ("fmriprep", ("trials", "coordinates", "surface", "scale", "axes", "greyordinates", *ONLY_TABLES)),
        ("responses", ONLY_FMRIPREP),
    )
    for key, strangers in wrong_company:
        if key in given and ("responses" in given) != ("fmriprep" in given):
            found += [f"{stranger} does not go with {key}" for stranger in strangers if stranger in given]
    tables = [path for path, _ in subject.responses if _is_table(path)]
    if "responses" in given and "trials" not in given and not tables:
        found.append("trials is needed: a table with a column 'stimulus', one row per trial")
    if "fmriprep" in given and "events" not in given:
        found.append("events is needed: the folder that holds the BIDS *_events.tsv files of this subject")
    places = [key for key in ("mask", "coordinates", "surface") if key in given]
    is_cifti_study = any(is_cifti(path) for path, _ in subject.responses)
    if is_cifti_study and set(places) - {"surface"}:
        found.append(f"CIFTI says itself where its places are; {' and '.join(places)} came")
    elif "responses" in given and len(places) != 1 and not is_cifti_study:
        way = "; coordinates = [[x, y, z], ...] gives a column of the table a place in mm, such as a region its centre"
        found.append(
            f"one of mask, coordinates and surface says where the voxels are; {' and '.join(places) or 'none'} came"
            + (way if tables and not places else "")
        )
    if any(_is_volume(path) for path, _ in subject.responses) and "mask" not in given:
        found.append("responses in NIfTI need a mask (NIfTI, in the same grid)")
    if "vertices" in given and "surface" not in given:
        found.append("vertices needs surface, the mesh that they belong to")
    found += _mixed(subject, given, is_cifti_study, tables)
    if not (subject.scale > 0 and math.isfinite(subject.scale)):
        found.append(f"scale is a positive number, not {subject.scale}")
    if not 0 <= subject.affine_tolerance < 1:
        found.append(f"affine_tolerance is a length in mm from 0 to 1, not {subject.affine_tolerance}")
    if len(subject.window_s) != 2 or not subject.window_s[0] < subject.window_s[1]:
        found.append(f"window_s is two times in seconds after the onset, such as [4.0, 8.0], not {list(subject.window_s)}")
    return found


def _mixed(subject: SubjectFiles, given: Mapping[str, Any], is_cifti_study: bool, tables: Sequence[Path]) -> list[str]:
    """Keys of one form of responses beside files of another."""
    found, by_side = [], bool(subject.sides)
    kinds = {_kind(path) for path, _ in subject.responses}
    if len(kinds) > 1 and kinds != {"NIfTI", "arrays"}:
        found.append(f"responses are files of one form, not {' and '.join(sorted(kinds))}")
    if by_side and "surface" not in given:
        found.append("responses of the left and right hemisphere need surface: the name of a mesh, or the files of both")
    if by_side and "vertices" in given:
        found.append("vertices does not go with responses of the left and right hemisphere, which hold every vertex")
    if "greyordinates" in given and not is_cifti_study:
        found.append("greyordinates goes with responses in CIFTI (.dtseries.nii, .dscalar.nii)")
    found += [
        f"{key} goes with responses in a table" for key in ("voxel_columns", "table_subject") if key in given and not tables
    ]
    arrays = [path for path, _ in (*subject.responses, *(place for places in subject.sides.values() for place in places))]
    if "axes" in given and any(_kind(path) != "arrays" for path in arrays):
        found.append(
            "axes goes with responses in arrays (.npy, .npz, .h5, .mat); the other files say themselves what a trial is"
        )
    if "responses" in given and subject.surface_side and not by_side and "vertices" not in given and not is_cifti_study:
        found.append(
            f"surface has the {subject.surface_side} hemisphere alone; give the responses as {{ {subject.surface_side} = ... }}"
        )
    return found


def _kind(path: Path) -> str:
    """What form a file of responses has, by its name."""
    name = path.name.lower()
    forms = {"CIFTI": CIFTI_SUFFIXES, "NIfTI": VOLUME_SUFFIXES, "files of a surface": VERTEX_SUFFIXES, "arrays": NUMBERS}
    return next((form for form, suffixes in forms.items() if name.endswith(suffixes)), "tables")


def _is_table(path: Path) -> bool:
    try:
        return is_table_file(path)
    except PulvinarError:  # said when it is read
        return False


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(VOLUME_SUFFIXES) and not is_cifti(path)


class _Section:
    """One table of the file: hands out checked values, notes mistakes, and remembers which keys are known."""

    def __init__(self, table: Mapping[str, Any], where: str, folder: Path, mistakes: list[str]) -> None:
        self.given, self.where, self.folder_of_file, self.mistakes = table, where, folder, mistakes
        self.known: list[str] = []

    def raw(self, key: str, default: Any) -> Any:
        self.known.append(key)
        return self.given.get(key, default)

    def value(self, key: str, hint: Any, default: Value) -> Value:
        given = self.raw(key, None)
        if given is None:
            return default
        try:
            return convert(given, hint)
        except (ValueError, TypeError):
            words = {str: "text", bool: "true or false", float: "a number", int: "a whole number"}
            self.mistakes.append(f"{self.where}{key} is {words.get(hint, 'a list of numbers')}, not {given!r}")
            return default

    def table(self, key: str) -> dict[str, Any]:
        given = self.raw(key, {})
        if isinstance(given, dict):
            return given
        self.mistakes.append(f"{self.where}{key} is a table (such as {key}.name = ...), not {given!r}")
        return {}

    def section(self, key: str) -> "_Section":
        return _Section(self.table(key), f"{self.where}{key}.", self.folder_of_file, self.mistakes)

    def texts(self, key: str) -> list[str]:
        """A text or a list of texts, as a list."""
        given = self.items(key)
        wrong = [item for item in given if not isinstance(item, str) or not item]
        if wrong:
            self.mistakes.append(f"{self.where}{key} is a text or a list of texts, not {wrong[0]!r}")
        return [item for item in given if isinstance(item, str) and item]

    def texts_by_name(self, key: str) -> dict[str, str]:
        """A table of texts; whole numbers, as in res = 2, count as texts."""
        given = self.table(key)
        wrong = [name for name, item in given.items() if not isinstance(item, str | int) or isinstance(item, bool)]
        self.mistakes += [f"{self.where}{key}.{name} is a text, not {given[name]!r}" for name in wrong]
        return {name: str(item) for name, item in given.items() if name not in wrong}

    def items(self, key: str) -> list[Any]:
        """A value or a list of them, as a list."""
        given = self.raw(key, [])
        return given if isinstance(given, list) else [given]

    def path(self, key: str, given: Any, suffixes: Sequence[str]) -> Path | None:
        if not isinstance(given, str) or not given:
            self.mistakes.append(f"{self.where}{key} is the path of a file, not {given!r}")
            return None
        path = self.folder_of_file / given
        if not path.name.lower().endswith(tuple(suffixes)):
            self.mistakes.append(f"{self.where}{key}: {', '.join(suffixes)} fits, not '{given}'")
            return None
        if not path.is_file():
            self.mistakes.append(f"{self.where}{key}: no such file: {path}")
            return None
        return path

    def files(self, key: str, suffixes: Sequence[str]) -> list[Path]:
        """The files of a key that takes one path or a list of them."""
        return [path for item in self.items(key) if (path := self.path(key, item, suffixes))]

    def arrays(self, key: str, suffixes: Sequence[str] = ARRAY_SUFFIXES) -> dict[str, NamedArray]:
        """A table of arrays by name."""
        given = self.table(key).items()
        return {name: place for name, item in given if (place := self.array(f"{key}.{name}", item, suffixes))}

    def several(self, key: str, given: Any, suffixes: Sequence[str]) -> list[NamedArray]:
        """One array or a list of them."""
        items = given if isinstance(given, list) else [given]
        return [place for item in items if (place := self.array(key, item, suffixes))]

    def file(self, key: str, suffixes: Sequence[str]) -> Path | None:
        given = self.raw(key, None)
        return None if given is None else self.path(key, given, suffixes)

    def folder(self, key: str) -> Path | None:
        given = self.raw(key, None)
        if given is None:
            return None
        if not isinstance(given, str) or not (self.folder_of_file / given).is_dir():
            self.mistakes.append(f"{self.where}{key}: no such folder: {self.folder_of_file / str(given)}")
            return None
        return self.folder_of_file / given

    def array(self, key: str, given: Any, suffixes: Sequence[str] = ARRAY_SUFFIXES) -> NamedArray | None:
        """A path, or `{ file = path, array = name }` for one of several arrays in an .npz or HDF5 file."""
        if given is None:
            return None
        if not isinstance(given, dict):
            path = self.path(key, given, suffixes)
            return None if path is None else (path, None)
        inner = _Section(given, f"{self.where}{key}.", self.folder_of_file, self.mistakes)
        path, array = inner.file("file", suffixes), inner.value("array", str, None)
        if "file" not in given:
            self.mistakes.append(f"{self.where}{key} is a path, or {{ file = path, array = name }}")
        inner.refuse_unknown()
        return None if path is None else (path, array)

    def refuse_unknown(self) -> None:
        for key in self.given:
            if key not in self.known:
                self.mistakes.append(f"'{self.where}{key}' is not a key of a description{suggest(key, self.known)}")
