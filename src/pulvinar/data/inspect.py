"""What is in an experiment, or in an image set, in numbers."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.progress import track
from pulvinar.core.storage import reading, to_jsonable
from pulvinar.data.experiment import Experiment
from pulvinar.data.image_set import ImageSet
from pulvinar.data.nearness import near_options, nearest_in_training
from pulvinar.data.pictures import find_pictures, size_of
from pulvinar.data.responses import Responses
from pulvinar.data.split_choice import SPLIT_FACT, shared_clusters, trials_per_side
from pulvinar.data.stimuli import image_notes


def inspect(experiment: Experiment, *, read_responses: bool = True) -> dict[str, Any]:
    """A summary that JSON can hold: name, target, subjects, stimuli, split, facts, and whether a planted truth is known.

    Per subject: counts of trials, voxels, sessions, runs and stimuli shown; `repeats` (how often shown -> number of stimuli);
    ROI sizes in voxels; geometry kind, grid shape, spacing in mm; number of bad voxels (constant, NaN or infinite over all
    trials); median of the noise ceiling. `split`: which one, images and trials of each side, and `nearest`: how many test
    images have a near training image, and how many are in a cluster with training images. `image_notes`: what was done to
    pictures read from files. What does not apply is None. Reads all responses once, or not at all
    (then bad voxels are None).
    """
    stimuli = experiment.stimuli
    summary = {
        "name": experiment.name,
        "target": experiment.target,
        "subjects": {name: _subject(responses, read_responses) for name, responses in experiment.subjects.items()},
        "stimuli": {
            "count": len(stimuli),
            "sources": len(set(stimuli.sources)),
            "labels": None if stimuli.labels is None else len(set(stimuli.labels)),
            "features": {name: list(np.shape(values)) for name, values in stimuli.features.items()},
            "images": stimuli.read_image is not None,
            "image_notes": image_notes(stimuli),
        },
        "split": _split(experiment),
        "facts": dict(experiment.facts),
        "truth": bool(experiment.truth),
    }
    return to_jsonable(summary)


def _split(experiment: Experiment) -> dict[str, Any]:
    """Images and trials of each side, and how near they are to each other (None without an embedding)."""
    split, options = experiment.split, near_options(experiment.facts)
    nearest = nearest_in_training(experiment.stimuli, split, options)
    return {
        "name": experiment.facts.get(SPLIT_FACT),
        "train": len(split.train),
        "test": len(split.test),
        "trials": {name: trials_per_side(own, split) for name, own in experiment.subjects.items()},
        "nearest": None if nearest is None else nearest.summary() | (shared_clusters(experiment, options) or {}),
    }


def inspect_images(images: ImageSet) -> dict[str, Any]:
    """A summary of an image set that JSON can hold: counts, size, images per class, and what was done or left out.

    classes: name (or number) -> images of it for training and for the test; `unlabelled`: training images without a label.
    """
    sides = {"train": images.train_labels, "test": images.test_labels}
    names = list(images.class_names) or [str(number) for number in range(images.n_classes)]
    count = {
        side: np.zeros(len(names), int) if labels is None else np.bincount(labels[labels >= 0], minlength=len(names))
        for side, labels in sides.items()
    }
    summary = {
        "name": images.name,
        "train": len(images.train),
        "test": len(images.test),
        "height": images.size[0],
        "width": images.size[1],
        "classes": {name: {side: count[side][place] for side in sides} for place, name in enumerate(names)},
        "unlabelled": len(images.train) - int(count["train"].sum()),
        "notes": list(images.notes),
    }
    return to_jsonable(summary)


def inspect_pictures(folder: Path) -> dict[str, Any]:
    """A summary of a folder of pictures that are no image set as they are: how many in which folder, sizes (height x width)."""
    paths, left_out = find_pictures(folder)
    sizes: Counter[str] = Counter()
    for path in track(paths, "reading sizes", len(paths)):
        with reading(path, "image"):
            sizes[" x ".join(map(str, size_of(path)))] += 1
    return {
        "name": folder.resolve().name,
        "pictures": len(paths),
        "folders": dict(Counter(str(path.parent.relative_to(folder)) for path in paths)),
        "sizes": dict(sizes.most_common()),
        "notes": left_out,
    }


def probe_values(experiment: Experiment, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """`n` random single values as the experiment holds them, to be compared with the files by other means.

    Each: subject, trial (row of its responses, from 0), session, run, stimulus, voxel (its number from 0), `place` ([x, y, z]
    in the grid of a volume, else the point), value, rois (names), noise_ceiling (share of variance, or None).
    """
    generator, names, found = np.random.default_rng(seed), list(experiment.subjects), []
    for _ in range(n):
        own = experiment.subjects[names[generator.integers(len(names))]]
        trial, voxel = int(generator.integers(own.n_trials)), int(generator.integers(own.n_voxels))
        geometry = own.geometry
        found.append(
            {
                "subject": own.subject,
                "trial": trial,
                "session": int(own.sessions[trial]),
                "run": int(own.runs[trial]),
                "stimulus": own.stimulus_ids[trial],
                "voxel": voxel,
                "place": (geometry.coordinates if geometry.index is None else geometry.index)[voxel].tolist(),
                "value": float(own.read(np.array([trial]), np.array([voxel]))[0, 0]),
                "rois": [name for name, mask in own.rois.items() if mask[voxel]],
                "noise_ceiling": None if own.noise_ceiling is None else float(own.noise_ceiling[voxel]),
            }
        )
    return found


def _subject(responses: Responses, read_responses: bool) -> dict[str, Any]:
    shown = Counter(responses.stimulus_ids)
    geometry, ceiling = responses.geometry, responses.noise_ceiling
    return {
        "trials": responses.n_trials,
        "voxels": responses.n_voxels,
        "sessions": len(np.unique(responses.sessions)),
        "runs": len(np.unique(np.stack([responses.sessions, responses.runs]), axis=1).T),
        "stimuli": len(shown),
        "repeats": {str(times): count for times, count in sorted(Counter(shown.values()).items())},
        "rois": {name: int(mask.sum()) for name, mask in responses.rois.items()},
        "geometry": geometry.kind,
        "grid": None if geometry.shape is None else list(geometry.shape),
        "spacing_mm": geometry.spacing,
        "bad_voxels": len(responses.bad_voxels(np.arange(responses.n_trials))) if read_responses else None,
        "noise_ceiling_median": None if ceiling is None else float(np.median(ceiling)),
    }
