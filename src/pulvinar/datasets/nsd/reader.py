"""Reads the Natural Scenes Dataset: trials, voxels, images; and single values, to be compared with the files."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from pulvinar.core.config import setting
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.hdf5 import open_hdf5, read_hdf5_array
from pulvinar.core.progress import log, track
from pulvinar.core.storage import require_file
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import SUFFIXES, read_rows
from pulvinar.data.hdf5_images import HDF5Images
from pulvinar.data.responses import Responses
from pulvinar.data.session_values import SessionCache, SessionValues, trial_places
from pulvinar.data.source_options import parse_source
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import ReadImage, Stimuli
from pulvinar.data.volume_box import is_oracle, require_box
from pulvinar.datasets.nsd import files as nsd_files
from pulvinar.datasets.nsd.beside import (
    SESSION,
    Beside,
    BesideName,
    Gamma,
    JoinedImages,
    OneBack,
    images_of,
    open_beside,
    said_of,
)
from pulvinar.datasets.nsd.facts import FACTS
from pulvinar.datasets.nsd.files import N_IMAGES, TRIALS_PER_SESSION, Design, subject_name
from pulvinar.datasets.nsd.spaces import WHOLE, Place, Space, SurfaceSpace, VolumeSpace, masks_of

SESSIONS = {1: 40, 2: 40, 3: 32, 4: 30, 5: 40, 6: 32, 7: 40, 8: 30}
HELD_BACK = 3  # last sessions of each subject that became public in August 2023
TRUTH = "truth.h5"  # beside nsddata in a generated folder
PLANTED = "a planted world in NSD's layout; none of the numbers are NSD's"

TestSet = Literal["shared1000", "shared982", "synthetic", "imagery", "imagery_vision"]
BESIDE = get_args(BesideName)
SpaceName = Literal["func1pt8mm", "func1mm", "fsaverage"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,2,5,7; none: all whose betas are on disk", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first of the subjects", reads=subject_name)
    sessions: int | None = setting(
        None, "first sessions of each subject to take training trials from; none: all on disk", at_least=1
    )
    test_sessions: Literal["all", "same"] = setting("all", "sessions to take test trials from: all on disk, or the same")
    test: TestSet = setting(
        "shared1000", "test images: NSD's own, or a session beside it: synthetic, imagery (imagined), imagery_vision (seen)"
    )
    split: Literal["owners", "ood"] = setting("owners", "ood is test=synthetic")
    one_back: OneBack = setting("drop", "of test=synthetic: what to do about a picture shown twice in a row: drop, keep")
    gamma: Gamma = setting(
        "stored",
        "of test=synthetic: pictures as stored (linear), or sqrt, what a third party says that the screen made",
    )
    missing: Literal["refuse", "skip"] = setting("refuse", "what to do about a session that is not there")
    betas: str = setting("betas_fithrf_GLMdenoise_RR", "folder name of the betas")
    space: SpaceName | None = setting(None, "func1pt8mm, func1mm or fsaverage; none: the first of these with betas on disk")
    format: Literal["hdf5", "nifti"] | None = setting(None, "of volume betas; none: HDF5 if there is any, else NIfTI")
    voxels: str = setting(WHOLE, "brain, or a ROI file (nsdgeneral, streams, ...): its voxels above 0")
    box: str | None = setting(
        None, "only voxels in a box: 60x40x40, 60x40x40@ROI, fit:ROI or 10:70,0:40,20:60", reads=require_box
    )
    others: str | None = setting(None, "voxels of the subjects beside the target (no box for them); none: as for the target")
    repeats: int | None = setting(None, "trials averaged, for the noise ceiling; none: as the test images come", at_least=1)
    features: tuple[str, ...] = setting((), "embeddings, .npy or file.h5:dataset; none: the files in features/ of the folder")
    images: bool = setting(True, "open nsd_stimuli.hdf5 where it is there")
    image_size: int | None = setting(None, "pixels along an edge; none: 425, as stored", at_least=1)
    check_pixels: bool = setting(
        False, "compare the pixels of all test and training images (slow) instead of trusting the table"
    )
    check_affine: bool = setting(True, "refuse volumes of a subject whose affines differ by more than 0.001 mm")
    memory_gb: float = setting(8.0, "sessions kept in memory, in all", above=0)

    def problems(self) -> list[str]:
        """What does not go together."""
        if self.split == "ood" and self.test != "shared1000":
            return [f"split=ood is test=synthetic; test={self.test} came beside it"]
        if self.space == "fsaverage" and (self.box is not None or self.format is not None):
            return ["box and nsd.format belong to a volume, not to space=fsaverage"]
        return []


@dataclass(frozen=True, kw_only=True, eq=False)
class NSDExperiment(Experiment):
    """An experiment that still knows where its voxels are in NSD (subject -> space), and whose are fewer (option `others`)."""

    spaces: Mapping[str, Space] = field(default_factory=dict)
    restricted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target in self.restricted:
            raise InputError(
                f"target: the voxels of {self.target} are those of the option others; name it in the source, "
                f"nsd:FOLDER?target={_number(self.target)}&..."
            )


def load(source: str) -> NSDExperiment:
    """The experiment in an NSD folder: `FOLDER`, or `FOLDER?name=value&name=value` with the names of `Options`.

    Reads tables, masks and headers; betas and images stay on disk until asked for. `FileError` names a file or session that is
    missing or damaged, `InputError` one that belongs to another subject or holds other numbers than it should.
    """
    root, options = parse_source(source, Options, name="nsd")
    if options.split == "ood":
        options = replace(options, test="synthetic")
    if not (root / "nsddata").is_dir():
        raise FileError(
            f"{root}: not a folder of the Natural Scenes Dataset; nsddata, nsddata_betas, nsddata_stimuli lie in it"
        )
    design = nsd_files.read_design(root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat")
    options = replace(options, space=options.space or _find_space(root, options))
    names = _find_subjects(root, options)
    target = subject_name(options.target) if options.target else names[0]
    if target not in names:
        raise InputError(f"target: {target} is not among the subjects that are read ({', '.join(names)})")
    spaces = {name: _open_space(root, name, options, is_target=name == target) for name in names}
    trials = {name: _choose_trials(design, name, spaces[name], options) for name in names}
    rows = {name: design.images_of(_number(name), trials[name].numbers) for name in names}
    repeats = _inverse_repeats(design, trials, options)
    cache, subjects, beside = SessionCache(int(options.memory_gb * 1e9)), {}, {}
    for name in track(names, "reading masks and tables", len(names)):
        if options.test in BESIDE:
            beside[name] = open_beside(root, name, options.test, one_back=options.one_back)  # type: ignore[arg-type]  # one of BESIDE
        subjects[name] = _responses(name, spaces[name], trials[name], rows[name], repeats, cache, beside.get(name))
    others = sorted({one for own in beside.values() for one in own.ids})
    shown = np.unique(np.concatenate(list(rows.values())))
    planted = (root / TRUTH).is_file()
    return NSDExperiment(
        name=f"{'Planted world in NSD layout' if planted else 'Natural Scenes Dataset'} ({', '.join(names)})",
        stimuli=_stimuli(root, shown, others, design, options),
        subjects=subjects,
        split=_split(design, trials, rows, others, options),
        target=target,
        truth=_truth(root, spaces),
        facts=_facts(options, target, trials, spaces) | ({"planted": PLANTED} if planted else {}),
        spaces=spaces,
        restricted=tuple(name for name in names if options.others is not None and name != target),
    )


def _number(name: str) -> int:
    return int(name.removeprefix("subj"))


def _find_space(root: Path, options: Options) -> SpaceName:
    """The first space in which any subject has betas; func1pt8mm if there is none."""
    for space in get_args(SpaceName):
        if list(root.glob(f"nsddata_betas/ppdata/subj0?/{space}/{options.betas}")):
            return space
    return "func1pt8mm"


def _find_subjects(root: Path, options: Options) -> list[str]:
    if options.subjects:
        return list(dict.fromkeys(subject_name(name) for name in options.subjects))
    present = [name for name in map(subject_name, map(str, SESSIONS)) if _place(root, name, options).betas_folder.is_dir()]
    if not present:
        pattern = _place(root, "subjAA", options).betas_folder
        raise FileError(f"{pattern}: no subject (subj01 to subj08) has such a folder of betas")
    return present


def _place(root: Path, name: str, options: Options) -> Place:
    return Place(root=root, subject=name, space=options.space or "func1pt8mm", betas=options.betas)


def _open_space(root: Path, name: str, options: Options, *, is_target: bool) -> Space:
    place = _place(root, name, options)
    own = is_target or options.others is None
    voxels = options.voxels if own or options.others is None else options.others
    if options.space == "fsaverage":
        return SurfaceSpace(place, voxels=voxels)
    return VolumeSpace(
        place,
        voxels=voxels,
        box=options.box if own else None,
        file_format=options.format,
        check_affine=options.check_affine,
    )


# --- trials -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trials:
    """Sessions read, and of the trials kept: session and row in it (trial, 2), number over all sessions (trial,)."""

    sessions: list[int]
    places: np.ndarray
    numbers: np.ndarray


def _choose_trials(design: Design, name: str, space: Space, options: Options) -> _Trials:
    """All trials of the training sessions; of later sessions the test trials; none that older work could not have had."""
    sessions = _sessions(name, space, options)
    places = trial_places(sessions, TRIALS_PER_SESSION)
    numbers = (places[:, 0] - 1) * TRIALS_PER_SESSION + places[:, 1]
    if numbers.max() >= len(design.order):
        raise InputError(f"{name}: session {max(sessions)}, but {design.path} lists {len(design.order)} trials")
    shared = design.is_shared(numbers)
    keep = np.ones(len(numbers), bool)
    if options.sessions is not None:
        keep = (places[:, 0] <= options.sessions) | (shared & (options.test_sessions == "all"))
    if options.test in BESIDE:
        keep &= ~shared
    if options.test == "shared982":
        keep &= ~shared | (places[:, 0] <= SESSIONS[_number(name)] - HELD_BACK)
    return _Trials(sessions=sorted(set(places[keep, 0].tolist())), places=places[keep], numbers=numbers[keep])


def _sessions(name: str, space: Space, options: Options) -> list[int]:
    """Sessions on disk, in order; a gap among them, or fewer than asked for, is refused by name (or skipped)."""
    present = sorted(space.sessions)
    wanted = range(1, max(present[-1], options.sessions or 0) + 1)
    missing = [number for number in wanted if number not in present]
    if missing and options.missing == "refuse":
        files = ", ".join(f"betas_session{number:02d}" for number in missing)
        raise FileError(
            f"{space.place.betas_folder}: {files} is missing ({name} has sessions {', '.join(map(str, present))}); "
            "fetch it, or leave it out with missing=skip"
        )
    if missing:
        log(f"{name}: without session {', '.join(map(str, missing))}")
    if not present or present[0] > (options.sessions or present[0]):
        raise FileError(f"{space.place.betas_folder}: none of the first {options.sessions} sessions is there")
    return present


def _test_columns(design: Design, options: Options) -> np.ndarray:
    """Which of the 1,000 shared images are test images: bool (1000,)."""
    if options.test != "shared982":
        return np.ones(nsd_files.N_SHARED, bool)
    early = design.order[: (max(SESSIONS.values()) - HELD_BACK) * TRIALS_PER_SESSION]
    return np.isin(np.arange(nsd_files.N_SHARED), early)


def _inverse_repeats(design: Design, trials: Mapping[str, _Trials], options: Options) -> dict[str, float]:
    """Mean of 1/n over the test images of each subject, n trials each; (A/3 + B/2 + C) / (A + B + C) for mixed repeats."""
    if options.repeats is not None:
        return dict.fromkeys(trials, 1 / options.repeats)
    shown = {name: design.order[own.numbers[design.is_shared(own.numbers)]].tolist() for name, own in trials.items()}
    return {
        name: float(np.mean([1 / times for times in Counter(columns).values()])) if columns else 1 / 3
        for name, columns in shown.items()
    }


def _responses(
    name: str,
    space: Space,
    trials: _Trials,
    rows: np.ndarray,
    repeats: Mapping[str, float],
    cache: SessionCache,
    beside: Beside | None,
) -> Responses:
    """A subject's trials of NSD, and then those of the session beside it, whose ceiling NSD's ncsnr does not say."""
    places, runs, ids = trials.places, nsd_files.runs_of_session()[trials.places[:, 1]], list(map(nsd_files.stimulus_id, rows))
    read = space.read
    if beside is not None:
        own = np.stack([np.full(len(beside.rows), SESSION), np.arange(len(beside.rows))], axis=1)
        places, runs, ids = np.concatenate([places, own]), np.concatenate([runs, beside.runs]), [*ids, *beside.ids]
        read = functools.partial(_read_either, space, beside)
    values = SessionValues(
        name,
        read,
        places,
        n_voxels=space.geometry.n_voxels,
        dtype=space.dtype,
        cache=cache,
        trials_per_session=TRIALS_PER_SESSION,
    )
    ceiling = None
    if space.ncsnr is not None and beside is None:
        power = np.square(np.nan_to_num(space.ncsnr, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64))
        ceiling = (power / (power + repeats[name])).astype(np.float32)
    return Responses(
        subject=name,
        values=values,  # type: ignore[arg-type]  # has the indexing that Responses needs
        scale=space.scale,
        stimulus_ids=ids,
        sessions=places[:, 0],
        runs=runs,
        geometry=space.geometry,
        rois=masks_of(space),
        noise_ceiling=ceiling,
    )


def _read_either(space: Space, beside: Beside, session: int) -> np.ndarray:
    return beside.read(space) if session == SESSION else space.read(session)


# --- stimuli ----------------------------------------------------------------------------------------------------------


def _stimuli(root: Path, rows: np.ndarray, others: Sequence[str], design: Design, options: Options) -> Stimuli:
    """The images shown, those of a session beside NSD behind. The 73,000 are different photographs by the dataset's own table,
    so `pixel_keys` are their rows.
    """
    ids = [nsd_files.stimulus_id(row) for row in rows]
    path = root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    read_image: ReadImage | None = None
    if options.images and path.is_file():
        read_image = HDF5Images(path, "imgBrick", rows.tolist(), size=options.image_size)
    elif options.images:
        log(f"{path} is not there; going on without images")
    places = options.features or tuple(
        str(file) for file in sorted((root / "features").glob("*")) if file.suffix in SUFFIXES and file.is_file()
    )
    if not places:
        log(f"no embedding of the images: methods that decode need one; put it into {root / 'features'}, or give features=FILE")
    features = dict(read_rows(place, rows, n_rows=N_IMAGES, ids=ids) for place in places)
    if others:
        test: Any = options.test
        features = _with_others(root, features, others, test)
        if read_image is not None:
            second = images_of(root, test, others, size=options.image_size, gamma=options.gamma)
            read_image = None if second is None else JoinedImages(read_image, len(ids), second)
    sources = nsd_files.read_photographs(root / "nsddata" / "experiments" / "nsd" / "nsd_stim_info_merged.csv", design)
    every = [*ids, *others]
    return Stimuli(
        ids=every,
        sources=[*(sources.get(int(row), name) for row, name in zip(rows, ids, strict=True)), *others],
        features=features,
        read_image=read_image,
        pixel_keys=None if options.check_pixels else every,
    )


def _with_others(
    root: Path, features: Mapping[str, np.ndarray], others: Sequence[str], test: BesideName
) -> dict[str, np.ndarray]:
    """Embeddings with the rows of a session beside NSD behind, from `features/nsdsynthetic/NAME.npz` (with ids); those that
    are not there for both are left out, and said."""
    folder = root / "features" / ("nsdsynthetic" if test == "synthetic" else "nsdimagery")
    found = {}
    for name, values in features.items():
        path = next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)
        if path is None:
            log(f"{folder}: no '{name}' of the pictures beside NSD; going on without this embedding (or give feature=FILE)")
            continue
        own = read_rows(str(path), np.zeros(len(others), np.int64), n_rows=len(others), ids=others)[1]
        found[name] = np.concatenate([np.asarray(values), np.asarray(own)])
    return found


def _split(
    design: Design,
    trials: Mapping[str, _Trials],
    rows: Mapping[str, np.ndarray],
    others: Sequence[str],
    options: Options,
) -> Split:
    is_test, test, train = _test_columns(design, options), set(), set()
    for name, own in trials.items():
        column = design.order[own.numbers]
        shared = column < nsd_files.N_SHARED
        train |= set(rows[name][~shared].tolist())
        test |= set(rows[name][shared & is_test[np.minimum(column, nsd_files.N_SHARED - 1)]].tolist())
    both = {"train": train, "test": test}
    sides = {side: tuple(nsd_files.stimulus_id(row) for row in sorted(found)) for side, found in both.items()}
    return Split(train=sides["train"], test=tuple(others) or sides["test"])


def _truth(root: Path, spaces: Mapping[str, Space]) -> dict[str, dict[str, np.ndarray]]:
    """Answers of a planted world (`truth.h5` beside nsddata, volumes (x, y, z)), on the voxels that are read."""
    path = root / TRUTH
    if not path.is_file():
        return {}
    found: dict[str, dict[str, np.ndarray]] = {}
    with open_hdf5(require_file(path)) as file:
        for name, space in spaces.items():
            if name in file and isinstance(space, VolumeSpace):
                group = file[name]
                found[name] = {key: read_hdf5_array(group, key)[tuple(space.index.T)] for key in group}
    return found


def _facts(options: Options, target: str, trials: Mapping[str, _Trials], spaces: Mapping[str, Space]) -> dict[str, Any]:
    oracles = ["noise_ceiling: the released ncsnr has seen all sessions, test trials too"]
    if options.box is not None and is_oracle(options.box):
        oracles.append(f"box {options.box}: placed by the annotated region of {target}")
    if options.voxels != WHOLE:
        oracles.append(f"voxels {options.voxels}: the annotated region of {target}")
    beside = said_of(options.test, options.one_back, options.gamma) if options.test in BESIDE else {}  # type: ignore[arg-type]
    return {
        **FACTS.kept,
        **beside,
        "options": {key: value for key, value in asdict(options).items() if value not in (None, ())},
        "sessions": {name: own.sessions for name, own in trials.items()},
        "voxels": {name: space.geometry.n_voxels for name, space in spaces.items()},
        "oracles": oracles,
    }


# --- probes and generated folders -------------------------------------------------------------------------------------


def probes(experiment: NSDExperiment, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """`n` random single values as the experiment holds them, to be compared with the files by other means.

    Each: subject, trial (0-based over all sessions), voxel [x, y, z] in NIfTI axes (surface: hemisphere and vertex), beta in
    percent signal change, image (0-based row of the stimuli), roi {file: label number}.
    """
    generator, found, names = np.random.default_rng(seed), [], list(experiment.subjects)
    for _ in range(n):
        name = names[generator.integers(len(names))]
        responses, space = experiment.subjects[name], experiment.spaces[name]
        trial, voxel = int(generator.integers(responses.n_trials)), int(generator.integers(responses.n_voxels))
        found.append(
            {
                "subject": name,
                "trial": int(responses.values.trial_numbers[trial]),  # type: ignore[attr-defined]
                **space.where(voxel),
                "beta": float(responses.read(np.array([trial]), np.array([voxel]))[0, 0]),
                "image": _image_of(responses.stimulus_ids[trial]),
                "roi": {file: int(labels[voxel]) for file, labels in space.labels.items()},
            }
        )
    return found


def _image_of(stimulus: str) -> int | str:
    """Row (0-based) of NSD's stimuli, or the id of a picture beside them."""
    number = stimulus.removeprefix("nsd")
    return int(number) if number.isdecimal() else stimulus
