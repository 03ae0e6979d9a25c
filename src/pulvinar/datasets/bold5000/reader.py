"""Reads BOLD5000: betas by session, the list of pictures, masks of regions, and the pictures where they are there."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pulvinar.core.config import setting, suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.core.storage import reading
from pulvinar.data.brain_files import above_0, read_volume
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.image_ids import ids_of
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues
from pulvinar.data.set_folder import (
    choose_subjects,
    choose_target,
    find_one,
    pictures_in,
    stimuli_of,
    title,
    truth_of,
    with_annotated,
)
from pulvinar.data.source_options import TrialOptions, parse_source
from pulvinar.data.splits import Split
from pulvinar.data.volume_series import VolumeSeries, open_series
from pulvinar.datasets.bold5000.facts import BETAS, FACTS, MISSPELT, N_REPEATED, ROIS, SESSIONS, TRIALS_PER_RUN, trials_of

STIMULI = "BOLD5000_Stimuli/Scene_Stimuli"
REPEATED_LIST = f"{STIMULI}/repeated_stimuli_113_list.txt"
REPEATED_MARK = "rep_"  # in front of a name in the lists of the first release
MEASURED, BRAIN = "measured", "brainmask"


def subject_name(text: str) -> str:
    """'CSI1' for '1', 'CSI1' or 'sub-CSI1'; `InputError` for what is none of the four."""
    digits = text.removeprefix("sub-").removeprefix("CSI")
    if f"CSI{digits}" not in SESSIONS:
        raise InputError(f"subjects are 1 to 4, not {text!r}")
    return f"CSI{digits}"


@dataclass(frozen=True, kw_only=True)
class Options(TrialOptions):
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,2; none: all whose betas are there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=subject_name)
    sessions: int | None = setting(None, "first sessions of each subject; none: all that are there", at_least=1)
    missing: Literal["refuse", "skip"] = setting("refuse", "what to do about a session that is not there")
    betas: str = setting(BETAS, "which betas, as their files are named")
    voxels: str = setting(MEASURED, "measured (numbers, and not all 0), brainmask, or a region such as PPA or lh.PPA")


def load(source: str) -> Experiment:
    """The experiment in a folder of BOLD5000: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    Reads headers, the first volume of every session, lists and masks; betas stay on disk until asked for. Raises `FileError`,
    `InputError` or `NotFoundError` naming the file that is missing or does not fit.
    """
    root, options = parse_source(source, Options, name="bold5000")
    present = sorted({path.name[:4] for path in root.glob(f"**/CSI?_GLMbetas-{options.betas}_ses-*.nii*")} & set(SESSIONS))
    wanted = list(map(subject_name, options.subjects))
    names = choose_subjects(root, present, wanted, what=f"CSIx_GLMbetas-{options.betas}_ses-YY.nii.gz")
    target = choose_target(names, subject_name(options.target) if options.target else None)
    cache, lists = SessionCache(int(options.memory_gb * 1e9)), {name: picture_list(root, name) for name in names}
    subjects, truth = {}, {}
    for name in track(names, "reading headers and masks", len(names)):
        subjects[name], truth[name] = _subject(root, name, lists[name], options, cache)
    ids = sorted({stimulus for own in subjects.values() for stimulus in own.stimulus_ids})
    test = _repeated(root, lists)
    return Experiment(
        name=title(root, "BOLD5000", names),
        stimuli=stimuli_of(
            root,
            ids,
            options,
            read_image=pictures_in(root / STIMULI / "Presented_Stimuli", ids, origin=root) if options.images else None,
        ),
        subjects=subjects,
        split=Split(train=tuple(i for i in ids if i not in test), test=tuple(i for i in ids if i in test)),
        target=target,
        truth={name: own for name, own in truth.items() if own},
        facts={**FACTS.kept, "betas": options.betas, "unit": "percent signal change, not z-scored"},
    )


# --- trials and pictures ----------------------------------------------------------------------------------------------


def picture_list(root: Path, subject: str) -> list[str]:
    """Id of the picture of every trial, over all sessions: line i of `CSIx_imgnames.txt`.

    An id is the file name without suffix and without the mark `rep_` of the first release. `InputError` where the lines are not
    as many as the trials of the first k sessions, for some k, or two files differ in their suffix alone.
    """
    path = find_one(root, f"{subject}_imgnames.txt", below=("", "*", "BOLD5000_Stimuli/Stimuli_Presentation_Lists/*"))
    with reading(path, "a list of pictures"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise InputError(f"{path}: line {lines.index('') + 1} is empty; there is a picture for every trial")
    counts = np.cumsum([trials_of(subject, session) for session in range(1, SESSIONS[subject] + 1)]).tolist()
    if len(lines) not in counts:
        near = min(counts, key=lambda count: abs(count - len(lines)))
        raise InputError(
            f"{path}: {len(lines)} pictures; the sessions of {subject} (9 or 10 runs of {TRIALS_PER_RUN}) end after "
            f"{', '.join(map(str, counts))} trials, the nearest is {near}"
        )
    files = [line.removeprefix(REPEATED_MARK) for line in lines]
    id_of = {name: Path(name).stem for name in dict.fromkeys(files)}
    twice = [stem for stem, times in Counter(id_of.values()).items() if times > 1]
    if twice:
        raise InputError(f"{path}: '{twice[0]}' stands there with two suffixes; is it one picture or two?")
    return [id_of[name] for name in files]


def _repeated(root: Path, lists: Mapping[str, Sequence[str]]) -> set[str]:
    """The pictures of the test: those of the published list, or those that were shown more than once, if they are 113."""
    shown = {name for own in lists.values() for name in own}
    path = root / REPEATED_LIST
    if path.is_file():
        with reading(path, "a list of pictures"):
            lines = [line.strip().removeprefix(REPEATED_MARK) for line in path.read_text(encoding="utf-8-sig").splitlines()]
        listed = set(ids_of([line for line in lines if line], origin=str(path)))
        if not listed & shown:
            raise InputError(f"{path}: none of its {len(listed)} pictures is in the lists of {', '.join(lists)}")
        return listed & shown
    repeated = {name for own in lists.values() for name, times in Counter(own).items() if times > 1}
    if len(repeated) != N_REPEATED:
        raise FileError(
            f"{path}: is not there, and of the pictures of {', '.join(lists)} {len(repeated)} were shown more than once, "
            f"not the {N_REPEATED} that are the test; fetch the list with the stimuli"
        )
    return repeated


# --- a subject --------------------------------------------------------------------------------------------------------


def _subject(
    root: Path, name: str, pictures: Sequence[str], options: Options, cache: SessionCache
) -> tuple[Responses, dict[str, np.ndarray]]:
    """Responses, and the truth of a planted world."""
    sessions = _sessions(root, name, len(pictures), options)
    first = next(iter(sessions.values()))
    for series in sessions.values():
        if series.grid != first.grid:
            raise InputError(f"{series.path}: grid {series.grid} (x, y, z), but {first.path} has {first.grid}")
    masks = _regions(root, name, first)
    inside = _chosen(root, name, sessions, masks, options.voxels)
    index = np.argwhere(inside)
    places = np.concatenate([[(number, row) for row in range(series.n_volumes)] for number, series in sessions.items()])
    before = {number: sum(trials_of(name, other) for other in range(1, number)) for number in sessions}
    values = SessionValues(
        name,
        lambda session: sessions[session].read(index),
        places,
        n_voxels=len(index),
        dtype=np.float32,
        cache=cache,
        stream=lambda session: sessions[session].blocks(index),
    )
    responses = Responses(
        subject=name,
        values=values,  # type: ignore[arg-type]  # has the indexing that Responses needs
        stimulus_ids=[pictures[before[int(session)] + int(row)] for session, row in places],
        sessions=places[:, 0],
        runs=places[:, 1] // TRIALS_PER_RUN + 1,
        geometry=Geometry.from_index(index, shape=first.grid, affine=first.affine),
        rois=ROIs(with_annotated({region: mask[inside] for region, mask in masks.items()}), n_voxels=len(index)),
    )
    return responses, truth_of(root, name, lambda volume: volume[inside])


def _sessions(root: Path, name: str, n_pictures: int, options: Options) -> dict[int, VolumeSeries]:
    """Session -> its file, checked: numbers of volumes as the design has them, none left out without being said."""
    pattern = f"{name}_GLMbetas-{options.betas}_ses-"
    found: dict[int, Path] = {}
    for path in sorted(path for path in root.glob(f"**/{pattern}*") if path.name.endswith((".nii", ".nii.gz"))):
        match = re.fullmatch(r"0*(\d+)", path.name.removeprefix(pattern).partition(".")[0])
        if match is None or not 1 <= int(match[1]) <= SESSIONS[name]:
            raise InputError(f"{path}: {name} has sessions 1 to {SESSIONS[name]}")
        if int(match[1]) in found:
            raise InputError(f"{path} and {found[int(match[1])]} are one session; keep one of them")
        found[int(match[1])] = path
    wanted = range(1, (options.sessions or max(found)) + 1)
    missing = [number for number in wanted if number not in found]
    if missing and options.missing == "refuse":
        raise FileError(f"{root}: {pattern}{missing[0]:02d}.nii.gz is missing; fetch it, or go on without it with missing=skip")
    kept = {number: open_series(found[number]) for number in wanted if number in found}
    if not kept:
        raise FileError(f"{root}: none of the first {options.sessions} sessions of {name} is there")
    for number, series in kept.items():
        if series.n_volumes != trials_of(name, number):
            raise InputError(
                f"{series.path}: {series.n_volumes} trials; session {number} of {name} has {trials_of(name, number)}"
            )
    last = max(kept)
    if sum(trials_of(name, number) for number in range(1, last + 1)) > n_pictures:
        raise InputError(f"{kept[last].path}: {name}_imgnames.txt has {n_pictures} pictures and ends before this session")
    return kept


def _chosen(
    root: Path, name: str, sessions: Mapping[int, VolumeSeries], masks: Mapping[str, np.ndarray], voxels: str
) -> np.ndarray:
    """Which voxels (x, y, z) are read."""
    firsts = [series.first() for series in sessions.values()]
    measured = np.all([np.isfinite(volume) for volume in firsts], axis=0) & np.any([volume != 0 for volume in firsts], axis=0)
    first = next(iter(sessions.values()))
    brain = _brain(root, name, first)
    if brain is not None and (brain != measured).any():
        log(
            f"{name}: {int(measured.sum())} voxels have betas, {int(brain.sum())} are in the brain mask, "
            f"{int((measured & brain).sum())} in both; read are those of voxels={voxels}"
        )
    if voxels == BRAIN and brain is None:
        raise FileError(f"{root / f'{name}_brainmask.nii.gz'}: no such file; voxels=measured needs none")
    known = {MEASURED: measured, **({BRAIN: brain} if brain is not None else {})}
    known |= {region: mask & measured for region, mask in masks.items()}
    for region in dict.fromkeys(region.removeprefix("lh.").removeprefix("rh.") for region in masks):
        known[region] = np.any([mask for side, mask in known.items() if side in (f"lh.{region}", f"rh.{region}")], axis=0)
    if voxels not in known:
        raise NotFoundError(f"voxels: {name} has no '{voxels}'{suggest(voxels, list(known))}")
    if not known[voxels].any():
        raise InputError(f"{name}: no voxel is left with voxels={voxels}")
    return known[voxels]


def _brain(root: Path, name: str, first: VolumeSeries) -> np.ndarray | None:
    try:
        path = find_one(root, f"{name}_brainmask.nii.gz")
    except FileError:
        return None
    return _mask(path, first)


def _regions(root: Path, name: str, first: VolumeSeries) -> dict[str, np.ndarray]:
    """lh.EarlyVis to rh.RSC (x, y, z) of ds001499's masks, those with misspelt names too.

    Joined by place in the array: the betas' header has voxel sizes but no position, so affines say nothing.
    """
    folder, found = root / "derivatives" / "spm" / f"sub-{name}", {}
    for path in sorted(folder.glob(f"sub-{name}_mask-*.nii*")):
        label = path.name.partition("_mask-")[2].partition(".")[0]
        label = MISSPELT.get(label, label)
        side, region = {"L": "lh", "R": "rh"}.get(label[:1], ""), label[2:]
        if not side or label[1:2] != "H" or region not in ROIS:
            raise InputError(f"{path}: regions are LH or RH with {', '.join(ROIS)}, not '{label}'")
        if f"{side}.{region}" in found:
            raise InputError(f"{path}: {side}.{region} is there under another name too")
        found[f"{side}.{region}"] = _mask(path, first)
    if not found:
        log(f"{folder}: no masks of regions there; going on without ROIs")
    return found


def _mask(path: Path, first: VolumeSeries) -> np.ndarray:
    volume = read_volume(path)
    if volume.stored.shape != first.grid:
        raise InputError(
            f"{path}: {volume.stored.shape} voxels, but the betas have {first.grid} ({first.path.name}). The betas' header has "
            "no position, so nothing can be resampled; go on without it by moving it out of the folder"
        )
    return above_0(volume.scaled(volume.stored), str(path))
