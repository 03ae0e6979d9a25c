"""Reads the Natural Object Dataset: runs of CIFTI betas with their lists of pictures, atlas and receptive fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from pulvinar.core.config import LARGEST_SEED, build, parse_assignments, setting
from pulvinar.core.errors import DegenerateError, FileError, InputError
from pulvinar.core.progress import log, track, warn
from pulvinar.core.storage import reading, require_file
from pulvinar.data.cifti_files import CorticalMaps, read_cortex
from pulvinar.data.experiment import SIMULATED, Experiment
from pulvinar.data.hemispheres import vertex_points
from pulvinar.data.image_ids import ids_of_mentions
from pulvinar.data.planted_layout import SOURCES, TRUTH
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.set_folder import pictures_in
from pulvinar.data.splits import split_by_source
from pulvinar.data.stimuli import Stimuli
from pulvinar.data.tables import sources_of
from pulvinar.datasets.nod.facts import FACTS

AREAS = ("V1", "V2", "V3", "V4")
PRF_ROWS = ("angle", "eccentricity", "size", "R2")

ZScore = Literal["run", "vertex"]


def _name(text: str) -> str:
    """'sub-01' for '1' or 'sub-01'; `InputError` for what is no number."""
    digits = text.removeprefix("sub-")
    if not digits.isdecimal():
        raise InputError(f"subjects are numbers, not {text!r}")
    return f"sub-{int(digits):02d}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,2; none: all whose results are there", reads=_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=_name)
    atlas: str | None = setting(None, "HCP-MMP atlas, a .dlabel.nii of your own")
    missing: Literal["refuse", "skip"] = setting("refuse", "what to do about a run that is not there")
    n_vertices: int = setting(
        50, "vertices of largest receptive-field R2 per area and hemisphere; all if fewer (paper: 50)", at_least=1
    )
    zscore: ZScore = setting("run", "each run over all its values (as the authors), or each vertex within its run")
    images: bool = setting(True, "open stimuli/imagenet where it is there")
    test_share: float = setting(0.15, "share of the pictures that are the outer test", above=0, below=1)
    seed: int = setting(0, "of the choice of test pictures", at_least=0, below=LARGEST_SEED)


def load(source: str) -> Experiment:
    """The experiment in NOD's folder: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    ROIs are named lh.V1, rh.V1, ...; pictures are shown once, so no noise ceiling is known. Raises `FileError`, `InputError` or
    `NotFoundError` naming the file that is missing or does not fit.
    """
    folder, _, query = source.partition("?")
    root = Path(folder)
    options = build(Options, parse_assignments([pair for pair in query.split("&") if pair], refuse_repeated=True), name="nod")
    place = root / "derivatives" / "ciftify"
    names = [_name(text) for text in options.subjects] or sorted(path.parent.name for path in place.glob("sub-*/results"))
    if not names:
        raise FileError(f"{place}: no sub-XX/results there")
    atlas = read_cortex(options.atlas) if options.atlas else None
    subjects = {name: _subject(place / name / "results", name, atlas, options) for name in names}
    shown = [stimulus for responses in subjects.values() for stimulus in responses.stimulus_ids]
    id_of = ids_of_mentions(shown, origin=str(place))
    subjects = {
        name: replace(responses, stimulus_ids=[id_of[stimulus] for stimulus in responses.stimulus_ids])
        for name, responses in subjects.items()
    }
    ids = sorted(set(id_of.values()))
    stimuli = Stimuli(
        ids=ids,
        sources=sources_of(root / SOURCES, ids),
        labels=[stimulus.rpartition("_")[0] for stimulus in ids],
        read_image=pictures_in(root / "stimuli" / "imagenet", ids, origin=root / "derivatives") if options.images else None,
        pixel_keys=ids,
    )
    return Experiment(
        name=f"Natural Object Dataset ({', '.join(names)})",
        stimuli=stimuli,
        subjects=subjects,
        split=split_by_source(stimuli, test_share=options.test_share, seed=options.seed),
        target=_name(options.target) if options.target else names[0],
        facts={
            **FACTS.kept,
            "zscore": options.zscore,
            SIMULATED: (root / TRUTH).is_dir(),
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """The files of one run, and where it stands."""

    betas: Path
    labels: Path
    session: int
    run: int


def _runs(results: Path, options: Options) -> list[_Run]:
    found = []
    for folder in sorted(results.glob("ses-imagenet*_task-imagenet_run-*")):
        session, _, run = folder.name.partition("_task-imagenet_run-")
        number = session.removeprefix("ses-imagenet")
        if not (number.isdecimal() and run.isdecimal()):
            raise InputError(f"{folder}: names like ses-imagenet01_task-imagenet_run-1 are needed")
        files = {pattern: sorted(folder.glob(pattern)) for pattern in ("*_beta.dscalar.nii", "*_label.txt")}
        for pattern, paths in files.items():
            if len(paths) != 1:
                raise FileError(f"{folder}: one {pattern} is needed, {len(paths)} are there")
        betas, labels = (paths[0] for paths in files.values())
        found.append(_Run(betas=betas, labels=labels, session=int(number), run=int(run)))
    if not found:
        raise FileError(f"{results}: no folder ses-imagenetKK_task-imagenet_run-R")
    by_number: dict[tuple[int, int], _Run] = {}
    for one in found:
        other = by_number.setdefault((one.session, one.run), one)
        if other is not one:
            raise InputError(f"{results}: {other.betas.parent.name} and {one.betas.parent.name} are one run; keep one of them")
    _require_all_runs(results, set(by_number), options)
    return [by_number[number] for number in sorted(by_number)]


def _require_all_runs(results: Path, present: set[tuple[int, int]], options: Options) -> None:
    """`FileError` naming the runs before the last one of the subject's longest session that are not there, in any session."""
    sessions, last = {session for session, _ in present}, max(run for _, run in present)
    missing = sorted({(session, run) for session in sessions for run in range(1, last + 1)} - present)
    if not missing:
        return
    names = ", ".join(f"session {session} run {run}" for session, run in missing)
    if options.missing == "refuse":
        raise FileError(f"{results}: {names}: not there; fetch it, or go on without it with missing=skip")
    log(f"{results}: without {names}")


def _subject(results: Path, name: str, atlas: CorticalMaps | None, options: Options) -> Responses:
    runs = _runs(results, options)
    first = read_cortex(runs[0].betas)
    kept, rois = _choose_vertices(results, name, first, atlas, options)
    values, ids, sessions, numbers = [], [], [], []
    for one in track(runs, f"reading {name}", len(runs)):
        maps = read_cortex(one.betas)
        if not (np.array_equal(maps.vertex, first.vertex) and np.array_equal(maps.side, first.side)):
            raise InputError(f"{one.betas}: other vertices than in {first.path}")
        shown = _labels(one.labels)
        if len(shown) != len(maps.values):
            raise InputError(f"{one.labels}: {len(shown)} pictures for the {len(maps.values)} trials of {one.betas.name}")
        _require_same_order(one, maps.names, shown)
        values.append(_standardised(maps, options.zscore)[:, kept])
        ids += shown
        sessions += [one.session] * len(shown)
        numbers += [one.run] * len(shown)
    side, vertex = first.side[kept], first.vertex[kept]
    return Responses(
        subject=name,
        values=np.concatenate(values),
        stimulus_ids=ids,
        sessions=np.array(sessions),
        runs=np.array(numbers),
        geometry=vertex_points(vertex[side == "lh"], vertex[side == "rh"], template="fs_LR_32k"),
        rois=ROIs(rois, n_voxels=len(kept)),
    )


def _labels(path: Path) -> list[str]:
    """The pictures of the trials as the file names them; `load` makes ids of them, over all subjects."""
    with reading(require_file(path, "list of pictures"), "text"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _require_same_order(run: _Run, maps: Sequence[str], shown: Sequence[str]) -> None:
    """`InputError` where the maps of the betas bear the names of the pictures in another order than the list has them."""
    named, listed = ([PurePosixPath(name).stem for name in names] for names in (maps, shown))
    if named != listed and sorted(named) == sorted(listed):
        row = next(row for row, (one, other) in enumerate(zip(named, listed, strict=True)) if one != other)
        raise InputError(
            f"{run.labels}: trial {row + 1} shows {listed[row]}, but its map in {run.betas.name} is called {named[row]}; "
            "the pictures are in another order than the maps"
        )


def _standardised(maps: CorticalMaps, zscore: ZScore) -> np.ndarray:
    """z-scored betas float32 (trial, place): over all values of the run, or per vertex (one that is constant becomes 0)."""
    values = maps.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{maps.path}: {int((~np.isfinite(values)).sum())} values are not finite")
    if zscore == "run":
        if not values.std() > 0:
            raise DegenerateError(f"{maps.path}: all values of the run are the same")
        return ((values - values.mean()) / values.std()).astype(np.float32)
    spread = values.std(0)
    return ((values - values.mean(0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def _choose_vertices(
    results: Path, name: str, maps: CorticalMaps, atlas: CorticalMaps | None, options: Options
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Places that are kept (left before right, as `maps` lists them), and ROI masks on them."""
    if atlas is None:
        log(f"{name}: no atlas was given; the whole cortex is read, without ROIs")
        return np.arange(len(maps.vertex)), {}
    r2 = _receptive_field_r2(results, maps)
    if r2 is None:
        log(f"{name}: no receptive fields (ses-prf_task-prf); all vertices of {', '.join(AREAS)} are read")
    chosen = {
        f"{side}.{area}": _best(np.flatnonzero(_in_area(atlas, maps, side, area)), r2, options.n_vertices)
        for side in ("lh", "rh")
        for area in AREAS
    }
    empty = [area for area, places in chosen.items() if not len(places)]
    if len(empty) == len(chosen):
        raise InputError(f"{atlas.path}: none of its labels is L_V1_ROI to R_V4_ROI on vertices of {maps.path.name}")
    if empty:
        warn(f"{atlas.path}: {name} has no vertex in {', '.join(empty)}; going on with the other areas")
    kept = np.unique(np.concatenate(list(chosen.values())))
    return kept, {area: np.isin(kept, places) for area, places in chosen.items() if len(places)}


def _in_area(atlas: CorticalMaps, maps: CorticalMaps, side: str, area: str) -> np.ndarray:
    """Which places are in this area of the atlas (labels such as L_V1_ROI)."""
    if not atlas.labels:
        raise InputError(f"{atlas.path}: has no labels; a .dlabel.nii is needed")
    names: Mapping[int, str] = atlas.labels[0]
    keys = [key for key, label in names.items() if label in (f"{side[0].upper()}_{area}_ROI", f"{side[0].upper()}_{area}")]
    place = atlas.places_of(maps.side, maps.vertex)
    labels = np.where(place >= 0, atlas.values[0][place], -1)
    return np.isin(labels, keys) & (maps.side == side)


def _receptive_field_r2(results: Path, maps: CorticalMaps) -> np.ndarray | None:
    files = sorted((results / "ses-prf_task-prf").glob("*_params.dscalar.nii"))
    if not files:
        return None
    if len(files) > 1:
        raise InputError(f"{files[0].parent}: {', '.join(path.name for path in files)}: one file of receptive fields is needed")
    fields = read_cortex(files[0])
    if len(fields.values) != len(PRF_ROWS):
        raise InputError(f"{fields.path}: rows {', '.join(PRF_ROWS)} are needed, {len(fields.values)} rows came")
    place = fields.places_of(maps.side, maps.vertex)
    return np.where(place >= 0, np.nan_to_num(fields.values[PRF_ROWS.index("R2")], nan=-np.inf)[place], -np.inf)


def _best(places: np.ndarray, r2: np.ndarray | None, count: int) -> np.ndarray:
    if r2 is None:
        return places
    return np.sort(places[np.argsort(-r2[places], kind="stable")[:count]])
