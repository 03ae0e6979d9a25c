"""`pulvinar encoding`: what finished encoding runs say about transfer, information, classes, salience, and over subjects.

Each writes its result into the first run's artifacts/, where the report finds it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.app.stored_runs import uses_run
from pulvinar.core.config import build
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import track
from pulvinar.core.sampling import evenly_spaced
from pulvinar.core.storage import read_json, write_arrays, write_json
from pulvinar.data.experiment import Experiment
from pulvinar.encoding import comparison as encoding_comparison
from pulvinar.encoding import image_classification
from pulvinar.encoding import transfer as encoding_transfer
from pulvinar.encoding.data import EncodedSubject, open_subject
from pulvinar.encoding.files import encoders_of, hemisphere_places, read_predictions, read_voxel_maps, region_masks
from pulvinar.encoding.fit import UNTUNED
from pulvinar.encoding.models import Model, models_of
from pulvinar.encoding.scores import COLUMNS
from pulvinar.encoding.settings import POOLED, EncodingConfig, TuningConfig, open_named
from pulvinar.encoding.tuning_run import choice_folds, plan_of
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.information import cosine_similarity, information_bound
from pulvinar.scores.resampling import LEVEL, interval_text
from pulvinar.scores.table import Column, Table

N_SALIENCE_IMAGES, N_SHOWN = 50, 8


def _open(path: str) -> tuple[RunFolder, Any]:
    """A finished encoding run and its settings."""
    run = RunFolder.reopen(path)
    config = build(registry.method(run.method).config, run.settings(), name=run.method)
    if not isinstance(config, EncodingConfig):
        raise InputError(f"{path}: a run of {run.method} is no encoding model; one of ridge_encoding or of tuning is needed")
    return run, config


def _models(paths: Sequence[str]) -> dict[str, Model]:
    """All models of some runs; a name that several runs have gets the run's folder in front."""
    places = [Path(path).resolve() for path in paths]
    n_parts = 1 if len({place.name for place in places}) == len(places) else 2
    every = [("/".join(place.parts[-n_parts:]), models_of(*_open(str(place)))) for place in places]
    count = Counter(name for _, models in every for name in models)
    return {
        name if count[name] == 1 else f"{folder}/{name}": model for folder, models in every for name, model in models.items()
    }


@uses_run
def transfer(
    runs: Sequence[str],
    *,
    untuned: str | None = None,
    data: str | None = None,
    subjects: Sequence[str] | None = None,
    roi: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The transfer matrix of the models of some runs: each on every subject, against the untuned one.

    untuned: a run whose (first) model they are compared with; none: the 'untuned' that a tuned run keeps. data: another
    experiment; none: the first run's own, with its ROI and subjects.
    """
    models = _models(runs)
    first, config = _open(runs[0])
    plain = next(iter(_models([untuned]).values())) if untuned is not None else models.get(UNTUNED)
    if plain is None:
        raise InputError("--untuned: a run with the untuned network is needed; none of these runs keeps one")
    tuned = {name: model for name, model in models.items() if not name.endswith(UNTUNED) and model is not plain}
    own_data = data is None
    experiment: Experiment = open_data("experiment", data or first.facts["data"]["path"])
    names = list(subjects or ((first.facts.get("subjects") or ()) if own_data else experiment.subjects))
    opened = {name: _open_subject(experiment, config, name, roi=roi, own_data=own_data) for name in names}
    owners = {name: model.owner for name, model in tuned.items() if model.owner is not None and own_data}

    def folds(name: str, given: EncodedSubject) -> Any:
        model = tuned[name]
        _, own = _open(str(model.run.path))
        if not own_data or not isinstance(own, TuningConfig) or (model.owner or POOLED) not in (given.name, POOLED):
            return None
        return choice_folds(own, plan_of(own, experiment, given.name), given)

    found = encoding_transfer.transfer_matrix(
        {name: model.source for name, model in tuned.items()},
        opened,
        untuned=plain.source,
        settings=config,
        owners=owners,
        folds=folds,
        seed=seed,
    )
    result = {"data": experiment.name, "interval_level": LEVEL, **found.as_dict(), "text": encoding_transfer.as_text(found)}
    write_json(first.path / "artifacts" / "transfer.json", result, sealed=True)
    return result


def _open_subject(
    experiment: Experiment, config: EncodingConfig, name: str, *, roi: Sequence[str] | None, own_data: bool
) -> EncodedSubject:
    if own_data and roi is None:
        return open_named(config, experiment, name)
    return open_subject(experiment, name, roi=roi, scaling=config.scaling, drop_bad_voxels=config.drop_bad_voxels)


@uses_run
def information(run: str, *, candidates: int | None = None, n_permutations: int = 100, seed: int = 0) -> dict[str, Any]:
    """Lower bound in nats on what images and responses share, per subject, ROI and hemisphere, on the outer test images.

    Similarity: cosine of the predicted with the measured pattern over the region's voxels.
    """
    opened, _ = _open(run)
    rows = []
    for subject in opened.facts["subjects"]:
        found, regions = read_predictions(opened, subject), region_masks(read_voxel_maps(opened, subject))
        for (roi, side), inside in track(regions.items(), f"information of {subject}", len(regions)):
            if inside.sum() < 2:
                continue
            bound = information_bound(
                cosine_similarity(found["predicted"][:, inside], found["measured"][:, inside]),
                generator=np.random.default_rng([seed, 0x1F0]),
                n_candidates=candidates,
                n_permutations=n_permutations,
            )
            rows.append({"subject": subject, "roi": roi, "hemisphere": side, "n_voxels": int(inside.sum()), **asdict(bound)})
    result = {
        "rows": rows,
        "similarity": "cosine of predicted and measured patterns",
        "unit": "nats",
        "interval_level": LEVEL,
    }
    write_json(opened.path / "artifacts" / "information.json", result, sealed=True)
    return result


INFORMATION = (
    Column("nats", "information", "nats", ".3f", "Lower bound of what predictions of the region say about the image: log K - "
        "InfoNCE, on images whose temperature was fit on others; at most log K.", bounds=("low", "high")),
    Column("null_percentile_95", "null", "95th percentile", ".3f", "Of the bound when responses are given to other images."),
    Column("p_value", "p", "", ".3f", "Share of permutations of the responses that reach the bound."),
)  # fmt: skip


def information_text(result: dict[str, Any]) -> str:
    """The bounds for a terminal."""
    columns = [
        *COLUMNS[:4],
        *INFORMATION,
    ]
    lines = [Table(columns, result["rows"]).text()]
    first = result["rows"][0]
    lines.append(f"at most log K = {first['largest']:.3f} nats can be shown with K = {first['n_candidates']} candidate images")
    return "\n".join(lines)


@uses_run
def classify(runs: Sequence[str], *, images: str, layer: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Classes of labelled images from the frozen features of every model; from three models on their landscape too."""
    models = _models(runs)
    opened = open_data("images", images)
    result = image_classification.classification_table(
        {name: model.source for name, model in models.items()}, opened, layer=layer, seed=seed
    )
    first, _ = _open(runs[0])
    write_json(first.path / "artifacts" / "classification.json", result, sealed=True)
    return {**result, "text": image_classification.as_text(result)}


@uses_run
def salience(
    run: str,
    *,
    images: str | None = None,
    other: str | None = None,
    subject: str | None = None,
    roi: str | None = None,
    n_images: int = N_SALIENCE_IMAGES,
    seed: int = 0,
) -> dict[str, Any]:
    """Salience of left- against right-hemisphere voxels, on images and mirror images, and the lateralisation index.

    other: a run whose model is the right hemisphere's (the left's is then `run`'s); none: both are voxels of `run`. images: a
    folder of pictures; none: the run's outer test images, evenly drawn.
    """
    from pulvinar.encoding.salience import PatternScore, hemisphere_salience

    first, _ = _open(run)
    name = subject or first.facts["subjects"][0]
    if name not in first.facts["subjects"]:
        raise InputError(f"--subject: {name} is not among {', '.join(first.facts['subjects'])}")
    models: dict[str, Any] = {}
    for side, path in (("lh", run), ("rh", other or run)):
        opened, own = _open(path)
        places = hemisphere_places(read_voxel_maps(opened, name), side, roi)
        if not len(places):
            raise InputError(f"{path}: {name} has no encoded voxel in {side}{f' {roi}' if roi else ''}")
        found, encoder = models_of(opened, own), encoders_of(opened, name)[0]
        model = found[encoder["network"]] if "network" in encoder else next(iter(found.values()))
        models[side] = (model.network(), PatternScore(encoder, places), model.pool)
    pictures = _pictures(first, name, images, n_images)
    result = hemisphere_salience(models, pictures, generator=np.random.default_rng([seed, 0x5A1]))
    facts = {
        "subject": name,
        "roi": roi,
        "convolution": result.convolution,
        "images": images or "outer test images",
        "y": "half the squared length of the predicted pattern less the mean pattern",
        "interval_level": LEVEL,
        **asdict(result.index),
    }
    write_json(first.path / "artifacts" / "salience.json", facts, sealed=True)
    shown = slice(0, N_SHOWN)
    write_arrays(
        first.path / "artifacts" / "salience.npz",
        images=np.stack([_small(picture) for picture in pictures[shown]]),
        **{f"{side}": result.maps[side][shown] for side in ("lh", "rh")},
        **{f"{side}_mirrored": result.mirrored[side][shown] for side in ("lh", "rh")},
    )
    return facts


def _pictures(run: RunFolder, subject: str, folder: str | None, n_images: int) -> list[np.ndarray]:
    if folder is not None:
        from pulvinar.data.image_files import ImageFiles, open_images

        _, paths, options = open_images(folder)
        files = sorted(paths, key=lambda path: path.name)
        read = ImageFiles(files, options)
        return [read(row) for row in evenly_spaced(len(files), n_images)]
    experiment: Experiment = open_data("experiment", run.facts["data"]["path"])
    if experiment.stimuli.read_image is None:
        raise InputError(f"--images: a folder of pictures is needed; the data of {run.path} came without")
    rows = experiment.stimuli.rows(read_predictions(run, subject)["id"].tolist())
    return [experiment.stimuli.image(int(rows[place])) for place in evenly_spaced(len(rows), n_images)]


def _small(image: np.ndarray, side: int = 160) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def salience_text(facts: dict[str, Any]) -> str:
    """The index for a terminal."""
    return (
        f"{facts['subject']}{' ' + facts['roi'] if facts['roi'] else ''}, salience at {facts['convolution']}, "
        f"{facts['n_images']} images and their mirror images ({facts['n_left_out']} without salience left out)\n"
        f"share in the left half, flip-corrected: left hemisphere {facts['left_share_lh']:.3f}, "
        f"right {facts['left_share_rh']:.3f}\n"
        f"lateralisation index {facts['index']:+.4f} {interval_text((facts['low'], facts['high']), '{:+.4f}'.format)} (95 %), "
        f"p {facts['p_value']:.4f} (above 0: each hemisphere looks at the opposite half)"
    )


@uses_run
def compare(runs: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Scores of evaluated runs over subjects: against chance, and against the first run, paired over subjects."""
    opened = [RunFolder.reopen(path) for path in runs]
    tables = {}
    for run in opened:
        _open(str(run.path))
        if not (run.path / "evaluation.json").is_file():
            raise FileError(f"{run.path}: was not evaluated; run `pulvinar evaluate {run.path}` first")
        name = run.path.resolve().name
        tables[name if name not in tables else str(run.path)] = read_json(run.path / "evaluation.json")["rows"]
    predictions = [{name: read_predictions(run, name) for name in run.facts["subjects"]} for run in opened]
    encoding_comparison.require_same_images(dict(zip(tables, predictions, strict=True)))
    rows = [asdict(row) for row in encoding_comparison.over_subjects(tables, seed=seed)]
    intervals = {
        name: encoding_comparison.crossed_interval(own, predictions[0], seed=seed)
        for name, own in list(zip(tables, predictions, strict=True))[1:]
    }
    result = {"rows": rows, "whole": intervals, "interval_level": LEVEL}
    write_json(opened[0].path / "artifacts" / "comparison.json", result, sealed=True)
    return result


def comparison_text(result: dict[str, Any]) -> str:
    """The comparison for a terminal."""
    n_subjects = len(result["rows"][0]["subjects"])
    lines = [f"mean r over {n_subjects} subjects; p: signs of whole subjects flipped, at least {2 / 2**n_subjects:.3g}"]
    lines.append(encoding_comparison.score_table(result["rows"]).text())
    for name, found in result["whole"].items():
        lines.append(encoding_comparison.whole_text(name, found))
    return "\n".join(lines)
