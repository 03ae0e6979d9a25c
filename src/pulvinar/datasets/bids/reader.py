"""From a BIDS folder to an experiment: subjects, runs, trials, what they showed, and responses that are computed when asked
for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import FileError, InputError, of_every
from pulvinar.core.progress import log, warn
from pulvinar.core.storage import read_json
from pulvinar.data.brain_files import Mask, above_0, read_volume, values_inside
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.inspect import inspect
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues
from pulvinar.data.set_folder import choose_target, truth_of, with_annotated
from pulvinar.data.source_options import parse_source
from pulvinar.datasets.bids.estimates import RunEstimate, common_mask
from pulvinar.datasets.bids.facts import OWN
from pulvinar.datasets.bids.folders import Folders, find_folders, subject_name, subjects_of
from pulvinar.datasets.bids.glmsingle import find_outputs, of_session, read_betas
from pulvinar.datasets.bids.runs import BidsRun, find_runs
from pulvinar.datasets.bids.settings import Options
from pulvinar.datasets.bids.stimuli import (
    images_shown,
    labels_shown,
    require_one_kind,
    split_images,
    split_runs,
    trial_numbers,
)

ROIS = "rois"
OF_MODELS = ("hrf", "drift", "noise", "scale", "confounds", "nuisance", "others", "smoothing_mm")


def load(source: str) -> Experiment:
    """The experiment in a BIDS folder: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    Reads events, sidecars, masks and confounds; series are read, run by run, when responses are asked for, and betas kept in
    the cache folder. Raises `FileError`, `InputError` or `NotFoundError` naming the file, what came, and the option that
    chooses.
    """
    return _open(source)[0]


def look(source: str) -> dict[str, Any]:
    """What is in the folder, without reading a series: subjects, stimuli, split, facts, and each run with its files."""
    experiment, runs = _open(source)
    found = inspect(experiment, read_responses=False)
    found["runs"] = [_described(name, run) for name, own in runs.items() for run in own]
    return found


def _described(subject: str, run: BidsRun) -> dict[str, Any]:
    types = dict.fromkeys(run.shown.names if run.labels_shown else run.shown.types)
    return {
        "subject": subject,
        "run": run.key,
        "series": run.bold.name,
        "events": run.shown.path.name,
        "volumes": len(run.times.times),
        "step_s": run.times.step,
        "trials": len(run.shown.names),
        "types": ", ".join(kind for kind in types if kind) or None,
    }


def _open(source: str) -> tuple[Experiment, dict[str, list[BidsRun]]]:
    root, options = parse_source(source, Options, name="bids")
    folders = find_folders(root, options)
    names = subjects_of(folders, options)
    target = choose_target(names, subject_name(options.target) if options.target else None)
    outputs = _outputs(folders, names, options)
    estimate = options.estimate or ("glmsingle" if outputs else "lss")
    if folders.is_raw and estimate != "glmsingle":
        warn(
            f"{root}: series are raw: neither realigned nor distortion-corrected; preprocess them (fMRIPrep) for more than a "
            f"look",
            once=True,
        )
    runs = of_every(names, lambda name: find_runs(folders, name, options, estimate=estimate))
    masks = of_every(names, lambda name: common_mask(runs[name], options))
    estimates: dict[str, list[RunEstimate]] = {}
    if estimate != "glmsingle":
        estimates = of_every(names, lambda name: [RunEstimate(run, masks[name], options, estimate) for run in runs[name]])
        runs = {name: [own.run for own in estimates[name]] for name in names}
    if require_one_kind(runs):
        stimuli, shown, run_of = labels_shown(runs)
        split, how = split_runs(runs, stimuli, run_of, options)
    else:
        stimuli, shown = images_shown(folders.raw, runs, options)
        stimuli, split, how = split_images(folders.raw, stimuli, options)
    cache = SessionCache(int(options.memory_gb * 1e9))
    subjects, truth = {}, {}
    for name in names:
        places = trial_numbers(runs[name])[2]
        if estimate == "glmsingle":
            values: Any = _glmsingle_values(outputs[name], runs[name], masks[name])
        else:
            values = _lazy_values(name, estimates[name], places, cache)
        subjects[name] = _responses(folders, name, runs[name], masks[name], values, shown[name], options)
        truth[name] = _truth(folders, name, masks[name])
    experiment = Experiment(
        name=_name(folders.raw),
        stimuli=stimuli,
        subjects=subjects,
        split=split,
        target=target,
        truth={name: own for name, own in truth.items() if own},
        facts=_facts(folders, options, estimate, how, runs),
    )
    return experiment, runs


def _truth(folders: Folders, name: str, mask: Mask) -> dict[str, np.ndarray]:
    """The answers of a planted world, on the voxels of the mask."""
    return truth_of(folders.raw / OWN, name, lambda volume: volume[mask.inside])


def _lazy_values(name: str, estimates: Sequence[RunEstimate], places: np.ndarray, cache: SessionCache) -> SessionValues:
    """The responses of a subject, each run's computed when one of its trials is asked for."""
    n_voxels = estimates[0].mask.n_voxels
    return SessionValues(name, lambda run: estimates[run].values(), places, n_voxels=n_voxels, dtype=np.float32, cache=cache)


def _outputs(folders: Folders, names: Sequence[str], options: Options) -> dict[str, dict[str | None, Path]]:
    """Subject -> GLMsingle's files, where they are asked for or found; empty where they are not to be used."""
    if options.estimate not in (None, "glmsingle"):
        return {}
    found = {name: own for name in names if (own := find_outputs(folders, name))}
    without = [name for name in names if name not in found]
    if options.estimate == "glmsingle" and without:
        raise FileError(
            f"{folders.derivatives}: no TYPED_FITHRF_GLMDENOISE_RR.hdf5 (or .mat) of {', '.join(without)} in a folder "
            f"NAME/{without[0]}/"
        )
    if found and without:
        raise InputError(
            f"{folders.derivatives}: GLMsingle's betas of {', '.join(found)}, none of {', '.join(without)}; choose with "
            f"estimate=lss, or "
            "subjects=..."
        )
    chosen = [key for key in OF_MODELS if getattr(options, key) != getattr(Options(), key)]
    if found and options.estimate is None and chosen:
        raise InputError(
            f"{folders.derivatives}: GLMsingle's betas are there, for which {', '.join(chosen)} says nothing; choose with "
            f"estimate=lss or "
            "estimate=glmsingle"
        )
    if found and options.estimate is None:
        log(f"{folders.derivatives}: GLMsingle's betas are taken (estimate=lss for nilearn's)")
    return found


def _glmsingle_values(outputs: dict[str | None, Path], runs: Sequence[BidsRun], mask: Mask) -> np.ndarray:
    """Betas of all runs (trial, voxel); runs are in the order of their sessions, so a session's file is read once, whole."""
    files = [of_session(outputs, run) for run in runs]
    parts = [
        read_betas(path, mask, [run for run, own in zip(runs, files, strict=True) if own == path])
        for path in dict.fromkeys(files)
    ]
    return np.concatenate(parts)


def _responses(
    folders: Folders, name: str, runs: Sequence[BidsRun], mask: Mask, values: Any, shown: Sequence[str], options: Options
) -> Responses:
    sessions, numbers, _ = trial_numbers(runs)
    return Responses(
        subject=name,
        values=values,
        stimulus_ids=shown,
        sessions=sessions,
        runs=numbers,
        geometry=Geometry.from_mask(mask.inside, mask.affine),
        rois=ROIs(_rois(folders, name, mask, options), n_voxels=mask.n_voxels),
    )


def _rois(folders: Folders, name: str, mask: Mask, options: Options) -> Mapping[str, np.ndarray]:
    """Region -> bool (voxel,) of every mask with a label in a folder of derivatives, on the grid of the series."""
    folder = folders.derivatives / (options.rois or ROIS)
    paths = sorted(folder.glob(f"{name}/**/{name}*_label-*_mask.nii*"))
    if options.rois is not None and not paths:
        raise FileError(f"{folder}: no {name}/**/{name}*_label-*_mask.nii.gz there")
    found: dict[str, np.ndarray] = {}
    for path in paths:
        region = path.name.split("_label-")[1].split("_")[0].split(".")[0]
        if region in found:
            raise InputError(f"{path}: a second mask of '{region}' of {name}; keep the one in the space of the series")
        inside = above_0(values_inside(read_volume(path), mask), f"{path}: ROI '{region}'")
        if not inside.any():
            log(f"{path}: no voxel of it is in the mask; it is left out")
            continue
        found[region] = inside
    return with_annotated(found)


def _name(root: Path) -> str:
    """The study's own name."""
    described = root / "dataset_description.json"
    content = read_json(described) if described.is_file() else {}
    name = content.get("Name") if isinstance(content, dict) else None
    return name if isinstance(name, str) and name.strip() else root.resolve().name


def _facts(
    folders: Folders, options: Options, estimate: str, how: str, runs: Mapping[str, Sequence[BidsRun]]
) -> dict[str, Any]:
    described = folders.raw / "dataset_description.json"
    content = read_json(described) if described.is_file() else {}
    content = content if isinstance(content, dict) else {}
    own = {key.lower(): str(content[key]) for key in ("License", "HowToAcknowledge", "DatasetDOI") if content.get(key)}
    return {
        **own,
        "series": f"{folders.pipeline}: {next(iter(runs.values()))[0].bold.name} and others",
        "responses": _estimated(options, estimate),
        "test": how,
    }


def _estimated(options: Options, estimate: str) -> str:
    """How responses came about, in words."""
    if estimate == "glmsingle":
        return "betas of GLMsingle (TYPED_FITHRF_GLMDENOISE_RR), percent signal change; fitted on all trials, also of the test"
    smoothed = f", smoothed with {options.smoothing_mm:g} mm" if options.smoothing_mm else ""
    if estimate == "window":
        window = f"{options.window_from_s:g} to {options.window_to_s:g} s after onset"
        return f"mean of detrended, z-scored volumes {window}{smoothed}: a simple estimate"
    kind = "least squares all" if estimate == "lsa" else f"least squares separate ({options.others})"
    drift = {"cosine": f"cosines to {options.high_pass_hz:g} Hz", "polynomial": f"polynomial of order {options.drift_order}"}
    parts = [
        f"single-trial betas by nilearn, {kind}",
        f"hrf {options.hrf}",
        f"drift {drift.get(options.drift, 'none')}",
        f"noise {options.noise}",
        "percent of the mean" if options.scale == "percent" else "unscaled",
        f"confounds {', '.join(options.confounds) or 'none'}",
    ]
    nuisance = f", in the model too: {', '.join(options.nuisance)}" if options.nuisance else ""
    return "; ".join(parts) + nuisance + smoothed + "; each run's model has all of its trials, those of the test too"
