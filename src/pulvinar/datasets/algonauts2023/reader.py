"""Reads the challenge's folders: pictures, responses of both hemispheres, regions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulvinar.core.config import LARGEST_SEED, build, parse_assignments, setting
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log, track
from pulvinar.data.array_files import read_array
from pulvinar.data.experiment import SIMULATED, Experiment
from pulvinar.data.hemispheres import TwoHemispheres, vertex_points
from pulvinar.data.image_files import ImageFiles, find_images
from pulvinar.data.planted_layout import SOURCES, TRUTH
from pulvinar.data.responses import Responses
from pulvinar.data.restricted_unpickling import read_mapping
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split, split_by_source
from pulvinar.data.stimuli import Stimuli
from pulvinar.data.tables import sources_of
from pulvinar.datasets.algonauts2023.facts import FACTS
from pulvinar.datasets.algonauts2023.writer import MAPPINGS
from pulvinar.datasets.nsd.files import N_IMAGES, subject_name

HEMISPHERES = ("lh", "rh")
TRAINING_IMAGES = {1: 9841, 2: 9841, 3: 9082, 4: 8779, 5: 9841, 6: 9082, 7: 9841, 8: 8779}
VERTICES = dict.fromkeys(range(1, 9), (19004, 20544)) | {6: (18978, 20220), 8: (18981, 20530)}
FSAVERAGE_VERTICES = 163842


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,2,5; none: all whose folder is there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=subject_name)
    test_share: float = setting(
        0.15, "share of the training pictures that are the outer test (the paper's authors: 0.15)", above=0, below=1
    )
    seed: int = setting(0, "of the choice of test pictures", at_least=0, below=LARGEST_SEED)


def load(source: str) -> Experiment:
    """The experiment in the challenge's folder: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    Responses and pictures stay on disk. ROIs are named lh.V1v, rh.V1v, ...; no noise ceiling comes with the data. Raises
    `FileError` or `InputError` naming the file that is missing, damaged, or of another length.
    """
    folder, _, query = source.partition("?")
    root = Path(folder)
    options = build(
        Options, parse_assignments([pair for pair in query.split("&") if pair], refuse_repeated=True), name="algonauts2023"
    )
    names = [subject_name(name) for name in options.subjects] or sorted(
        path.name for path in root.glob("subj0?") if path.is_dir()
    )
    if not names:
        raise FileError(f"{root}: no folder subj01 to subj08; the unpacked challenge data are needed")
    pictures = {name: _pictures(root / name, "training") for name in track(names, "listing pictures", len(names))}
    unseen = {name: challenge_images(root, name) for name in names}
    subjects = {name: _responses(root / name, name, list(pictures[name])) for name in names}
    files = {stimulus: path for found in (*unseen.values(), *pictures.values()) for stimulus, path in found.items()}
    ids = sorted(files)
    stimuli = Stimuli(
        ids=ids, sources=sources_of(root / SOURCES, ids), read_image=ImageFiles([files[name] for name in ids]), pixel_keys=ids
    )
    hidden = {stimulus for found in unseen.values() for stimulus in found}
    target = subject_name(options.target) if options.target else names[0]
    return Experiment(
        name=f"Algonauts 2023 ({', '.join(names)})",
        stimuli=stimuli,
        subjects=subjects,
        split=_split(pictures, hidden, stimuli, options),
        target=target,
        facts={
            **FACTS.kept,
            "positions": vertex_points.__doc__ or "",
            SIMULATED: (root / TRUTH).is_dir(),
        },
    )


def _split(pictures: Mapping[str, Mapping[str, Path]], hidden: set[str], stimuli: Stimuli, options: Options) -> Split:
    """A share of the pictures with responses for the outer test, the same for all; a challenge test picture trains nobody."""
    usable = sorted({stimulus for found in pictures.values() for stimulus in found} - hidden)
    if len(usable) < 2:
        raise InputError(f"test_share: {options.test_share} of {len(usable)} pictures leaves nothing on one side")
    sources = dict(zip(stimuli.ids, stimuli.sources, strict=True))
    if len(set(sources.values())) < len(sources):
        own = Stimuli(ids=usable, sources=[sources[name] for name in usable])
        return split_by_source(own, test_share=options.test_share, seed=options.seed)
    count = max(1, round(options.test_share * len(usable)))
    if count >= len(usable):
        raise InputError(f"test_share: {options.test_share} of {len(usable)} pictures leaves nothing on one side")
    chosen = set(np.random.default_rng(options.seed).choice(len(usable), count, replace=False).tolist())
    sides = {
        side: tuple(name for row, name in enumerate(usable) if (row in chosen) == (side == "test"))
        for side in ("train", "test")
    }
    return Split(train=sides["train"], test=sides["test"])


def _pictures(folder: Path, split: str) -> dict[str, Path]:
    """Stimulus id (nsd-00013) -> file, in the order of the numbers in the file names (that of the responses)."""
    images = folder / f"{split}_split" / f"{split}_images"
    found: dict[str, Path] = {}
    for place, (stem, path) in enumerate(sorted(find_images(images).items()), start=1):
        words = stem.split("_")
        if len(words) != 2 or not words[1].startswith("nsd-"):
            raise InputError(f"{path}: names like train-0001_nsd-00013.png are needed")
        number = words[1].removeprefix("nsd-")
        if not number.isdecimal() or int(number) >= N_IMAGES:
            raise InputError(f"{path}: {words[1]} is no picture of NSD, whose numbers are 00000 to {N_IMAGES - 1}")
        if words[0].split("-")[-1] != f"{place:0{len(words[0].split('-')[-1])}d}":
            raise FileError(f"{images}: picture number {place} is missing; {path.name} comes in its place")
        if words[1] in found:
            raise InputError(f"{path}: the same picture ({words[1]}) as {found[words[1]].name}")
        found[words[1]] = path
    return found


def challenge_images(root: str | Path, subject: str) -> dict[str, Path]:
    """Stimulus id -> file of a subject's challenge test pictures, in the submission's order; empty if they are not there."""
    folder = Path(root) / subject
    return _pictures(folder, "test") if (folder / "test_split" / "test_images").is_dir() else {}


def challenge_stimuli(root: str | Path, subject: str) -> Stimuli:
    """A subject's challenge test pictures as stimuli, for `predict` and the submission."""
    found = challenge_images(root, subject)
    if not found:
        raise FileError(f"{Path(root) / subject}: no test_split/test_images")
    return Stimuli(ids=list(found), sources=list(found), read_image=ImageFiles(list(found.values())))


def _responses(folder: Path, name: str, ids: Sequence[str]) -> Responses:
    halves = {}
    for side in HEMISPHERES:
        path = folder / "training_split" / "training_fmri" / f"{side}_training_fmri.npy"
        halves[side] = read_array(path)
        if halves[side].ndim != 2 or halves[side].dtype != np.float32:
            raise InputError(f"{path}: float32 (image, vertex) is needed, {halves[side].dtype} {halves[side].shape} came")
        if len(halves[side]) != len(ids):
            raise InputError(f"{path}: {len(halves[side])} rows for the {len(ids)} training pictures of {name}")
    sizes = {side: values.shape[1] for side, values in halves.items()}
    vertices = {side: _vertices(folder, side, sizes[side]) for side in HEMISPHERES}
    numbered = all(found is not None for found in vertices.values())
    left, right = (np.arange(sizes[side]) if found is None else found for side, found in vertices.items())
    return Responses(
        subject=name,
        values=TwoHemispheres(halves["lh"], halves["rh"]),  # type: ignore[arg-type]  # has the indexing that Responses needs
        stimulus_ids=ids,
        geometry=vertex_points(left, right, template="fsaverage" if numbered else ""),
        rois=_rois(folder, sizes),
    )


def _vertices(folder: Path, side: str, size: int) -> np.ndarray | None:
    """fsaverage numbers of the challenge's vertices; None where the file is not there."""
    path = folder / "roi_masks" / f"{side}.all-vertices_fsaverage_space.npy"
    if not path.is_file():
        return None
    mask = read_array(path)
    if int((mask > 0).sum()) != size:
        raise InputError(f"{path}: {int((mask > 0).sum())} vertices, but the responses have {size}")
    return np.flatnonzero(mask > 0)


def _rois(folder: Path, sizes: Mapping[str, int]) -> ROIs:
    """lh.NAME and rh.NAME of every region that has a vertex."""
    masks, n_left, n_vertices = {}, sizes["lh"], sizes["lh"] + sizes["rh"]
    for kind, names in MAPPINGS.items():
        mapping = folder / "roi_masks" / f"mapping_{kind}.npy"
        if mapping.is_file():
            _require_same_mapping(mapping, names)
        for side in HEMISPHERES:
            path = folder / "roi_masks" / f"{side}.{kind}_challenge_space.npy"
            if not path.is_file():
                log(f"{path} is not there; going on without these regions")
                continue
            labels = read_array(path)
            if labels.shape != (sizes[side],):
                raise InputError(f"{path}: {labels.shape} labels for {sizes[side]} vertices")
            if strangers := sorted(set(np.unique(labels).tolist()) - {0, *names}):
                raise InputError(f"{path}: label {strangers[0]:g} is no region; they are 0 (none) to {max(names)}")
            for number, name in names.items():
                inside = np.zeros(n_vertices, bool)
                part = slice(0, n_left) if side == "lh" else slice(n_left, n_vertices)
                inside[part] = labels == number
                if inside.any():
                    masks[f"{side}.{name}"] = inside
    return ROIs(masks, n_voxels=n_vertices)


def _require_same_mapping(path: Path, names: Mapping[int, str]) -> None:
    found = {number: name for number, name in read_mapping(path).items() if number != 0}
    if found != dict(names):
        raise InputError(f"{path}: regions {found}, but the challenge's are {dict(names)}")
