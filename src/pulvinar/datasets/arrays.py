"""Your own data: from the files that a description (TOML) lists, or from arrays in memory.

    experiment = read_description("mystudy.toml")        # docs/data.md shows every key
    experiment = from_arrays(responses=..., stimulus_ids=..., geometry=...)

Read are: responses from .npy, .npz, HDF5 (GLMsingle's too), MATLAB, NIfTI, GIFTI, MGH, CIFTI, tables (CSV, Parquet,
pandas' HDF) or fMRIPrep folders; geometry from a NIfTI mask, coordinates, GIFTI meshes or meshes by name; trial tables from CSV
and TSV; stimuli from image folders and embedding files.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from pulvinar.core.errors import InputError, of_every
from pulvinar.core.progress import log
from pulvinar.core.storage import reads
from pulvinar.data import fmriprep
from pulvinar.data.dataset import Dataset
from pulvinar.data.description import Description, SubjectFiles, read_description_file
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.image_ids import ImageNames, ids_of_mentions
from pulvinar.data.response_files import as_response_values, in_tables, make_responses, read_subject, table_choice
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.sessions import session_numbers
from pulvinar.data.splits import Split, split_by_source
from pulvinar.data.stimuli import Stimuli, image_notes
from pulvinar.data.stimulus_files import read_stimuli
from pulvinar.data.table_responses import trials_of
from pulvinar.data.tables import Trials, read_trials
from pulvinar.data.xarray_objects import read_assembly

Read = TypeVar("Read")
FMRIPREP_ESTIMATE = (
    "mean of detrended, z-scored volumes {0:g} to {1:g} s after onset, z-scored over all volumes of a run: a simple "
    "estimate; single-trial betas (GLMsingle) are better"
)


@reads("what a description lists")
def read_description(path: str | os.PathLike[str]) -> Experiment:
    """The experiment whose files a description (TOML) lists; docs/data.md shows each key.

    Raises `ConfigError` listing every mistake of the description at once; then, for files that do not hold what they should,
    `FileError`, `InputError` or `NotFoundError` naming them: of all subjects at once, first their runs, then their tables,
    then the stimuli and the split, then the responses and what belongs to their voxels.
    """
    description = read_description_file(path)
    runs = _of_every(description, _find_runs)
    trials: Mapping[str, Trials] = _of_every(description, lambda files: _read_trials(files, runs[files.name]))
    found = read_stimuli(
        images=description.images,
        features=description.features,
        table=description.table,
        trials=trials,
        pictures=description.pictures,
    )
    stimuli, trials = found.stimuli, found.trials
    split = _split(description, stimuli, found.sides)

    def read(files: SubjectFiles) -> Responses:
        log(f"reading {files.name}: {len(trials[files.name].stimulus_ids)} trials")
        return read_subject(files, trials[files.name], runs[files.name])

    subjects = _of_every(description, read)
    estimates = {
        f"responses of {files.name}": FMRIPREP_ESTIMATE.format(*files.window_s)
        for files in description.subjects
        if files.fmriprep is not None
    }
    spaces = {files.space for files in description.subjects}
    space = {"space": next(iter(spaces))} if len(spaces) == 1 and None not in spaces else {}
    experiment = Experiment(
        name=description.name,
        stimuli=stimuli,
        subjects=subjects,
        split=split,
        target=description.target,
        facts={**space, **description.facts, **estimates, **({"on_trust": dict(found.on_trust)} if found.on_trust else {})},
    )
    notes = image_notes(stimuli)  # all pictures have been read, to see that no test image is among those for training
    return experiment.with_facts({"images": "; ".join(notes)}) if notes else experiment


def _of_every(description: Description, read: Callable[[SubjectFiles], Read]) -> dict[str, Read]:
    """Name -> what is read of every subject; what is wrong with several of them is said at once."""
    files = {subject.name: subject for subject in description.subjects}
    return of_every(files, lambda name: read(files[name]))


def _find_runs(files: SubjectFiles) -> list[fmriprep.Run]:
    if files.fmriprep is None or files.events is None:
        return []
    return fmriprep.find_runs(
        files.fmriprep,
        events=files.events,
        space=files.space,
        task=files.task,
        window_s=files.window_s,
        stimulus_column=files.stimulus_column,
        trial_type=files.trial_type,
        type_column=files.type_column,
        entities=files.entities,
        repetition_time=files.repetition_time,
        drop_unmeasured_trials=files.drop_unmeasured_trials,
    )


def _read_trials(files: SubjectFiles, runs: Sequence[fmriprep.Run]) -> Trials:
    if runs:
        return fmriprep.trials_of(runs)
    if not files.trials and in_tables(files):
        return trials_of(files.responses, table_choice(files))
    return read_trials(files.trials, stimulus_column=files.stimulus_column or "stimulus")


def _split(description: Description, stimuli: Stimuli, sides: Mapping[str, str]) -> Split:
    """The split of the tables' column, or a random one by source picture; one of the two must be asked for."""
    if sides and description.test_share is not None:
        raise InputError(f"{description.path}: a table has a column 'split' and split.test_share is set too; keep one of them")
    if description.test_share is not None:
        return split_by_source(stimuli, test_share=description.test_share, seed=description.seed)
    if not sides:
        raise InputError(
            f"{description.path}: which stimuli are for the test? Give a column 'split' (train, test or empty) in the stimulus "
            "table or the trial tables, or the lines [split] and test_share = 0.2"
        )
    chosen = {side: tuple(name for name in stimuli.ids if sides.get(name) == side) for side in ("train", "test")}
    return Split(train=chosen["train"], test=chosen["test"])


def from_arrays(
    *,
    responses: Mapping[str, np.ndarray],
    stimulus_ids: Mapping[str, Sequence[str]],
    geometry: Mapping[str, Geometry | np.ndarray],
    stimuli: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    features: Mapping[str, np.ndarray] | None = None,
    images: Sequence[np.ndarray] | Callable[[int], np.ndarray] | None = None,
    split: Split | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    sessions: Mapping[str, np.ndarray] | None = None,
    runs: Mapping[str, np.ndarray] | None = None,
    rois: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    noise_ceilings: Mapping[str, np.ndarray] | None = None,
    scale: float = 1.0,
    drop_bad_voxels: bool = False,
    target: str | None = None,
    name: str = "arrays",
    facts: Mapping[str, Any] | None = None,
) -> Experiment:
    """An experiment from arrays in memory (or memory maps). Mappings are by subject name.

    responses: (trial, voxel); int16 stays and is multiplied by `scale` when read, other numbers become float32.
    stimulus_ids: one id per trial. geometry: coordinates (voxel, 3) in mm, or a `Geometry`: `Geometry.from_mask(mask,
    affine)` lists the voxels as `volume[mask]` does. rois: subject -> name -> bool (voxel,).
    stimuli: the ids in the order of `sources`, `labels`, `features` (stimulus, ...) and `images` (uint8 (height, width, 3)
    each, or a function of the row); without it the ids of the trials, sorted, and none of these may be given. Ids follow the
    rule of `data.image_ids`: without folder and suffix where they tell the stimuli apart. sessions, runs: whole numbers, or
    names such as ses-10.
    split: without it, `test_share` of the stimuli, by source picture, chosen with `seed`. target: the last subject without it.

    Raises `InputError`, `NotFoundError` or `DegenerateError` naming the argument or subject.
    """
    _require_same_subjects(responses, stimulus_ids=stimulus_ids, geometry=geometry)
    optional = {"sessions": sessions, "runs": runs, "rois": rois, "noise_ceilings": noise_ceilings}
    for argument, mapping in optional.items():
        _require_known_subjects(responses, argument, mapping or {})
    names, mentions = _ids(stimulus_ids, stimuli)
    subjects = {}
    for subject, given in responses.items():
        values, place = as_response_values(np.asanyarray(given), f"responses of {subject}"), geometry[subject]
        subjects[subject] = make_responses(
            subject=subject,
            values=values,
            scale=scale,
            trials=Trials(
                origin=f"stimulus_ids of {subject}",
                stimulus_ids=mentions[subject],
                sessions=_numbered((sessions or {}).get(subject, ()), "session", subject),
                runs=_numbered((runs or {}).get(subject, ()), "run", subject),
            ),
            geometry=place if isinstance(place, Geometry) else Geometry.from_points(place),
            rois=ROIs((rois or {}).get(subject, {}), n_voxels=values.shape[-1] if values.ndim else 0),
            noise_ceiling=(noise_ceilings or {}).get(subject),
            drop_bad_voxels=drop_bad_voxels,
        )
    if stimuli is None:
        _refuse_rows_without_ids(sources=sources, labels=labels, features=features, images=images)
    rows = _stimuli(names.ids, sources=sources, labels=labels, features=features, images=images)
    return Experiment(
        name=name,
        stimuli=rows,
        subjects=subjects,
        split=_by_id(split, names) if split else split_by_source(rows, test_share=test_share, seed=seed),
        target=target or list(subjects)[-1],
        facts=facts or {},
    )


def from_xarray(
    data: Any,
    *,
    geometry: Geometry | np.ndarray | Mapping[str, Geometry | np.ndarray] | None = None,
    features: Mapping[str, np.ndarray] | None = None,
    stimuli: Sequence[str] | None = None,
    **options: Any,
) -> Experiment:
    """An experiment from an xarray DataArray (trial, voxel) or Dataset, such as Brain-Score's (presentation, neuroid).

    Dims and coordinates: see `data.xarray_objects.read_assembly`; several subjects are told apart by the coordinate `subject`.
    geometry: where the voxels are, where the coordinates x, y and z do not say it; of one subject, or by subject. features,
    stimuli and the other options: as in `from_arrays`; those of a Dataset come from its variables (stimulus, dim).
    Raises `InputError` or `NotFoundError` naming the dim, coordinate or subject.
    """
    found = read_assembly(data)
    if geometry is None and not found.places:
        raise InputError(
            "data: where are the voxels? Coordinates x, y and z (mm) of the voxels are needed, or "
            "pulvinar.datasets.arrays.from_xarray(data, geometry=...)"
        )
    places: Any = found.places if geometry is None else geometry
    if not isinstance(places, Mapping):
        if len(found.responses) > 1:
            raise InputError(f"geometry: one for each of the subjects {', '.join(found.responses)} is needed")
        places = dict.fromkeys(found.responses, places)
    return from_arrays(
        responses=found.responses,
        stimulus_ids=found.stimulus_ids,
        geometry=places,
        stimuli=found.stimuli if stimuli is None else stimuli,
        features=(features or found.features) or None,
        rois=found.rois,
        sessions=found.sessions or None,
        runs=found.runs or None,
        **options,
    )


def _require_same_subjects(responses: Mapping[str, Any], **others: Mapping[str, Any]) -> None:
    if not responses:
        raise InputError("responses: one or more subjects are needed, none came")
    for argument, given in others.items():
        missing = [subject for subject in responses if subject not in given]
        if missing:
            raise InputError(f"{argument}: nothing for {', '.join(missing)}, of whom there are responses")
        _require_known_subjects(responses, argument, given)


def _require_known_subjects(responses: Mapping[str, Any], argument: str, given: Mapping[str, Any]) -> None:
    strangers = [subject for subject in given if subject not in responses]
    if strangers:
        raise InputError(f"{argument}: {', '.join(strangers)} came, but there are responses of {', '.join(responses)} only")


def _ids(stimulus_ids: Mapping[str, Sequence[str]], stimuli: Sequence[str] | None) -> tuple[ImageNames, dict[str, list[str]]]:
    """The stimuli (sorted where only the trials name them), and the ids of every subject's trials."""
    written = {subject: [str(name) for name in names] for subject, names in stimulus_ids.items()}
    if stimuli is None:
        id_of = ids_of_mentions([name for names in written.values() for name in names], origin="stimulus_ids")
        return (
            ImageNames(sorted(set(id_of.values())), "stimulus_ids"),
            {subject: [id_of[name] for name in names] for subject, names in written.items()},
        )
    listed = ImageNames([str(name) for name in stimuli], "stimuli")
    rows = {subject: listed.rows(names, origin=f"stimulus_ids of {subject}") for subject, names in written.items()}
    return listed, {subject: [listed.ids[row] for row in found] for subject, found in rows.items()}


def _by_id(split: Split, names: ImageNames) -> Split:
    found = {side: names.rows(list(getattr(split, side)), origin=f"split.{side}") for side in ("train", "test")}
    return Split(**{side: tuple(names.ids[row] for row in rows) for side, rows in found.items()})


def _numbered(given: np.ndarray | Sequence[Any], what: str, subject: str) -> np.ndarray:
    """Sessions or runs as they came, or what their names mean as numbers."""
    values = np.asarray(given)
    if values.dtype.kind not in "OSU":
        return values
    texts = [name.decode() if isinstance(name, bytes) else str(name) for name in values.ravel()]
    return session_numbers(texts, what, f"{what}s of {subject}").reshape(values.shape)


def _refuse_rows_without_ids(**rows: Any) -> None:
    given = [argument for argument, value in rows.items() if value is not None]
    if given:
        raise InputError(f"stimuli: the ids in the order of the rows of {', '.join(given)} are needed, none came")


def _stimuli(
    names: Sequence[str],
    *,
    sources: Sequence[str] | None,
    labels: Sequence[str] | None,
    features: Mapping[str, np.ndarray] | None,
    images: Sequence[np.ndarray] | Callable[[int], np.ndarray] | None,
) -> Stimuli:
    if images is not None and not callable(images) and len(images) != len(names):
        raise InputError(f"images: {len(images)} came for {len(names)} stimulus ids")
    return Stimuli(
        ids=names,
        sources=names if sources is None else [str(source) for source in sources],
        labels=None if labels is None else [str(label) for label in labels],
        features={name: np.asarray(values, np.float32) for name, values in (features or {}).items()},
        read_image=images if images is None or callable(images) else images.__getitem__,
    )


DATASET = Dataset(name="arrays")
