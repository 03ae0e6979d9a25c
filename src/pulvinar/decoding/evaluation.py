"""Score a voxel selection and its controls by retrieval on the outer test images, each with a decoder of its own.

Every control gets what the selection got in stage 2: the same shared decoder, the same number of epochs, the same seed; a plain
ridge on the selection's own voxels stands beside them.
Outputs of repeated trials of a test image are averaged (unit length first), then compared with the images' embeddings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.core.progress import bar, track
from pulvinar.core.storage import read_arrays, write_arrays, write_json
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import is_of_labels
from pulvinar.data.nearness import Nearest, near_options, nearest_in_training
from pulvinar.data.responses import Responses, mean_over_repeats
from pulvinar.data.splits import Split
from pulvinar.decoding import side_by_side
from pulvinar.decoding.controls import Control, control_selections, evidence_of, selectors_shown
from pulvinar.decoding.data import Embedding, Trials, held_out_data, training_data, usable_voxels
from pulvinar.decoding.decoder_training import DecoderTrainer, decode
from pulvinar.decoding.plain_ridge import CRITERION, ridge_outputs
from pulvinar.decoding.settings import AdaptationSettings, DecodingSettings
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, SharedDecoder
from pulvinar.scores.overlap import coverage_per_area, overlap
from pulvinar.scores.resampling import LEVEL, bootstrap_shares, paired_difference, share_interval
from pulvinar.scores.retrieval import (
    DIRECTIONS,
    Protocol,
    Retrieval,
    mindeye2_labels,
    near_duplicates,
    one_of_each_label,
    protocols_for,
    retrieval_scores,
)
from pulvinar.selection.selector import Answers

Evaluation = dict[str, Any]
Fresh = Callable[[int], tuple[SharedDecoder, nn.Linear, torch.Generator]]
N_EXAMPLES = 12
NULL_OF = {"mean": "null_mean", "percentile_95": "null_percentile_95", "p_value": "p_value"}
SIMPLEST = "univariate"  # the score per voxel that a selection has to beat to be worth its cost


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderOfSubject:
    """A finished decoder: input layer on the selected voxels (voxel,) bool, the shared part, and its target embedding."""

    shared: SharedDecoder
    layer: nn.Linear
    selected: np.ndarray
    embedding: Embedding


@dataclass(frozen=True, kw_only=True, eq=False)
class _Test:
    """Test trials on all voxels, test images in order, their embedding, and who is in whose gallery."""

    trials: Trials
    images: list[str]
    true: np.ndarray
    duplicates: np.ndarray
    n_labels: int = 0  # where labels are all that stimuli are told apart by

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """Those that so many test images allow; of labels that of the whole gallery, which has one image of each."""
        return ("every_candidate",) if self.n_labels else protocols_for(len(self.images))


def evaluate_selections(
    run: RunFolder,
    experiment: Experiment,
    decoder: DecoderOfSubject,
    settings: AdaptationSettings,
    *,
    fresh: Fresh,
    train_shared: bool,
    controls: bool = True,
) -> Evaluation:
    """The table of the selection and its controls, written as evaluation.json with predictions and artifacts.

    settings.protocol is that of the headline scores and of all differences; scores under the other one stand in the rows too
    where there are 300 test images or more.
    """
    responses, seed, protocol = experiment.subjects[experiment.target], settings.seed, settings.protocol
    chosen_from = {"n_sessions": settings.n_sessions, "drop_bad_voxels": settings.drop_bad_voxels}
    candidates = usable_voxels(experiment, experiment.target, **chosen_from)  # type: ignore[arg-type]
    every = len(candidates) == responses.n_voxels
    voxels = None if every else np.isin(np.arange(responses.n_voxels), candidates)
    train = training_data(
        experiment,
        experiment.target,
        decoder.embedding,
        scaling=settings.scaling,
        voxels=voxels,
        n_sessions=settings.n_sessions,
    )
    test = test_images(experiment, decoder.embedding, settings)
    chosen_by = run.facts.get("selection", {}).get("chosen_by", "the learnt selection")
    every_control = [Control(name=run.method, description=chosen_by, selected=decoder.selected)]
    if controls:
        answers = Answers(responses=responses, candidates=candidates, truth=experiment.truth.get(experiment.target, {}))
        learnt, shown = decoder.selected, selectors_shown(answers.truth, without=run.method, beside=settings.beside)
        evidence = evidence_of(responses, candidates, train, settings, n_voxels=int(learnt.sum()))
        others = control_selections(evidence, answers, shown, learnt=learnt)
        every_control += track(others, "voxels of the controls", 1 + len(shown))
    refits = _Refits(fresh=fresh, settings=settings, train_shared=train_shared, train=train, candidates=candidates)
    predictions = _predictions(run, every_control, decoder, refits, test)
    scored: dict[str, dict[Protocol, Retrieval]] = {}
    rows: list[dict[str, Any]] = []
    reference, reference_name = reference_of(experiment, settings.roi)
    with bar("scoring the selection and its controls", len(every_control)) as progress:
        for control in every_control:
            if control.selected is not None:
                predicted = predictions[control.name]
                scored[control.name] = {name: score(predicted, test, seed, name) for name in test.protocols}
            rows.append(row_of(control, scored.get(control.name), reference, scored[run.method], run.method, seed, protocol))
            top1 = rows[-1]["brain_to_image_top1"]
            progress.advance(note=f"{control.name} {top1:.3f}" if top1 is not None else f"{control.name} unavailable")
    ours, headline = scored[run.method], {name: found[protocol] for name, found in scored.items()}
    evaluation = _summary(rows, ours, test, settings, reference_name)
    evaluation["headroom"] = _headroom(headline, seed)
    nearest = _nearest(experiment, test, decoder.embedding)
    if nearest is not None:
        evaluation["near_training"] = nearest.summary()
        rows = [{**row, **_apart(headline.get(row["name"]), nearest.is_near, seed)} for row in rows]
        evaluation["rows"] = rows
    evaluation["coverage"] = _coverage(experiment, decoder.selected)
    evaluation["roi"] = settings.roi
    evaluation["rois"] = _known_rois(responses, decoder.selected)
    _write_artifacts(run, experiment, test, headline[run.method], reference)
    write_json(run.path / "evaluation.json", evaluation, sealed=True)
    return evaluation


def test_images(experiment: Experiment, embedding: Embedding, settings: AdaptationSettings) -> _Test:
    """Test trials on all voxels, test images in order, and what they are compared with."""
    used = {"scaling": settings.scaling, "n_sessions": settings.n_sessions}
    trials = held_out_data(experiment, experiment.target, embedding, **used)  # type: ignore[arg-type]
    images = list(dict.fromkeys(trials.stimulus_ids))
    true = embedding.of(experiment, images).numpy()
    if not is_of_labels(experiment.stimuli, embedding.name):
        return _Test(trials=trials, images=images, true=true, duplicates=near_duplicates(true, settings.near_duplicate))
    if settings.protocol == "draws":
        raise InputError("protocol=draws: draws of images need an embedding of each; these have labels alone")
    labels = [experiment.stimuli.labels[row] for row in experiment.stimuli.rows(images)]  # type: ignore[index]
    return _Test(trials=trials, images=images, true=true, duplicates=one_of_each_label(labels), n_labels=len(set(labels)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Refits:
    """How a control gets its decoder: what it starts from, and the training trials on the candidate voxels (indices)."""

    fresh: Fresh
    settings: DecodingSettings
    train_shared: bool
    train: Trials
    candidates: np.ndarray

    def trainer(self, control: Control, shared: SharedDecoder | None) -> DecoderTrainer:
        """The trainer of a control's decoder; shared: a frozen part that is there already."""
        selected = _require_voxels(control)
        own, layer, generator = self.fresh(int(selected.sum()))
        inside = torch.from_numpy(np.flatnonzero(selected[self.candidates]))
        data = [(self.train.responses[:, inside].contiguous(), self.train.target)]
        return DecoderTrainer(shared or own, [layer], data, self.settings, generator, train_shared=self.train_shared)


def _predictions(
    run: RunFolder, controls: Sequence[Control], decoder: DecoderOfSubject, refits: _Refits, test: _Test
) -> dict[str, np.ndarray]:
    """Predicted embedding (image, dim) of the test images with each selection; kept in the run, so done once."""
    predictions, wanted = {}, []
    for control in controls:
        stored = None if control.selected is None else _stored_prediction(run, control, test)
        if stored is not None:
            predictions[control.name] = stored
        elif control.name == run.method:
            predictions[control.name] = _predict(run, control, decoder.shared, decoder.layer, refits.settings, test)
        elif control.selected is not None and control.decoder == "ridge":
            inside = np.flatnonzero(control.selected[refits.candidates])
            predictions[control.name] = _kept(run, control, ridge_outputs(refits.train, inside, _shown(control, test)), test)
        elif control.selected is not None:
            wanted.append(control)
    settings = refits.settings
    with bar("decoders of the controls", len(wanted) * settings.epochs) as shown:
        for group in _groups(wanted, decoder.shared.shape, refits):
            trainers: list[DecoderTrainer] = []
            for control in group:
                trainers.append(refits.trainer(control, trainers[0].shared if trainers else None))
            for _ in side_by_side.train(trainers):
                shown.advance(len(group))
            for control, trainer in zip(group, trainers, strict=True):
                predictions[control.name] = _predict(run, control, trainer.shared, trainer.layers[0], settings, test)
    return predictions


def _groups(wanted: Sequence[Control], shape: DecoderShape, refits: _Refits) -> list[list[Control]]:
    """Controls whose decoders are trained side by side; those that are `apart` by themselves."""
    found = []
    for apart in (False, True):
        lot = [control for control in wanted if control.apart == apart]
        counts = [int(_require_voxels(control).sum()) for control in lot]
        places = side_by_side.groups(counts, shape, refits.settings, train_shared=refits.train_shared)
        found += [[lot[place] for place in group] for group in places]
    return found


def _require_voxels(control: Control) -> np.ndarray:
    if control.selected is None:
        raise ValueError("a control without voxels has no predictions")
    return control.selected


def _stored_prediction(run: RunFolder, control: Control, test: _Test) -> np.ndarray | None:
    path = run.path / "predictions" / f"{control.name}.npz"
    stored = read_arrays(path) if path.is_file() else None
    if stored is None or str(stored.get("penalty", "")) != _penalty(control):
        return None
    same = np.array_equal(stored["selected"], _require_voxels(control)) and list(stored["stimulus"]) == test.images
    return stored["predicted"] if same else None


def _penalty(control: Control) -> str:
    """How a ridge's penalty was chosen, which is kept with what it predicts; empty for decoders."""
    return CRITERION if control.decoder == "ridge" else ""


def _predict(
    run: RunFolder, control: Control, shared: SharedDecoder, layer: nn.Linear, settings: DecodingSettings, test: _Test
) -> np.ndarray:
    projected: Tensor = decode(shared, layer, _shown(control, test), precision=settings.precision)["projected"]
    return _kept(run, control, projected, test)


def _shown(control: Control, test: _Test) -> Tensor:
    """Responses to the test images, trial by trial, on the control's voxels."""
    return test.trials.responses[:, torch.from_numpy(np.flatnonzero(_require_voxels(control)))].contiguous()


def _kept(run: RunFolder, control: Control, outputs: Tensor, test: _Test) -> np.ndarray:
    """The mean over repeats of each image's outputs (trial, dim) of unit length, written into the run."""
    unit = nn.functional.normalize(outputs, dim=1).numpy()
    predicted, images, _ = mean_over_repeats(unit, test.trials.stimulus_ids)
    path = run.path / "predictions" / f"{control.name}.npz"
    named = {"penalty": np.array(penalty)} if (penalty := _penalty(control)) else {}
    write_arrays(path, predicted=predicted, selected=_require_voxels(control), stimulus=np.array(images), **named)
    return predicted


def score(predicted: np.ndarray, test: _Test, seed: int, protocol: Protocol) -> Retrieval:
    """Near-duplicates are not in each other's gallery; the papers' draws have all 300."""
    generator = np.random.default_rng([seed, 0x5C0])
    excluded = test.duplicates if protocol == "every_candidate" else None
    return retrieval_scores(predicted, test.true, generator=generator, excluded=excluded, protocol=protocol)


def reference_of(experiment: Experiment, roi: str) -> tuple[np.ndarray | None, str | None]:
    """What the selection is compared with: planted voxels where known, else the annotated ROI."""
    truth = experiment.truth.get(experiment.target, {})
    if "responsive" in truth:
        return np.asarray(truth["responsive"]).astype(bool), "planted"
    rois = experiment.subjects[experiment.target].rois
    return (rois[roi], "annotated") if roi in rois else (None, None)


def row_of(
    control: Control,
    scored: Mapping[Protocol, Retrieval] | None,
    reference: np.ndarray | None,
    own: Mapping[Protocol, Retrieval],
    method: str,
    seed: int,
    protocol: Protocol,
) -> dict[str, Any]:
    """One row of the table: flat names, intervals as pairs. Scores under another protocol have its name in front."""
    selected, retrieval, ours = control.selected, None if scored is None else scored[protocol], own[protocol]
    row: dict[str, Any] = {
        "name": control.name,
        "description": control.description,
        "n_voxels": None if selected is None else int(selected.sum()),
        "oracle": control.oracle,
    }
    for direction in DIRECTIONS:
        for score in ("top1", "top5", "median_rank"):
            row[f"{direction}_{score}"] = None if retrieval is None else retrieval.scores[f"{direction}_{score}"]
        interval = None if retrieval is None else [retrieval.scores[f"{direction}_top1_{end}"] for end in ("low", "high")]
        row[f"{direction}_top1_interval"] = interval
        row[f"{direction}_top1_above_null"] = None if retrieval is None else retrieval.scores[f"{direction}_top1_above_null"]
    for other in [name for name in own if name != protocol]:
        for key in (f"{direction}_top1" for direction in DIRECTIONS):
            scored_there = None if scored is None else scored[other].scores
            row[f"{other}_{key}"] = None if scored_there is None else scored_there[key]
            row[f"{other}_{key}_interval"] = (
                None if scored_there is None else [scored_there[f"{key}_low"], scored_there[f"{key}_high"]]
            )
    agreement = None if selected is None or reference is None else overlap(selected, reference)
    for score in ("precision", "recall", "dice"):
        row[score] = None if agreement is None else getattr(agreement, score)
    if control.unavailable:
        row["unavailable"] = control.unavailable
    if retrieval is not None and control.name != method:
        for direction, prefix in zip(DIRECTIONS, ("", "image_to_brain_"), strict=True):
            generator = np.random.default_rng([seed, 0xD1F])
            pair = [result.per_image[direction].weighted_top1 for result in (retrieval, ours)]
            difference = paired_difference(*pair, generator=generator, of_shares=True)
            row[f"{prefix}difference_to_{method}"] = difference.difference
            row[f"{prefix}difference_to_{method}_interval"] = [difference.low, difference.high]
            row[f"{prefix}difference_to_{method}_p_value"] = difference.p_value_images
    return row


def _nearest(experiment: Experiment, test: _Test, embedding: Embedding) -> Nearest | None:
    """The nearest training image of every scored one; None where there is nothing to compare by but labels."""
    if test.n_labels:
        return None
    split = Split(train=experiment.split.train, test=tuple(test.images))
    return nearest_in_training(experiment.stimuli, split, near_options(experiment.facts), otherwise=(embedding.name,))


def _apart(retrieval: Retrieval | None, is_near: np.ndarray, seed: int) -> dict[str, Any]:
    """Top-1 of both directions over the test images without a near training image; the gallery is that of all.

    `apart_DIRECTION_top1` with its interval over images; None where no image is left.
    """
    found: dict[str, Any] = {}
    for direction in DIRECTIONS:
        values = np.full(len(is_near), np.nan) if retrieval is None else retrieval.per_image[direction].top1
        values = values[~is_near & np.isfinite(values)]
        found |= {f"apart_{direction}_top1": None, f"apart_{direction}_top1_interval": None}
        if len(values):
            generator = np.random.default_rng([seed, 0xA9A])
            resampled = bootstrap_shares(len(values), 2000, generator) @ values
            found[f"apart_{direction}_top1"] = float(values.mean())
            found[f"apart_{direction}_top1_interval"] = list(share_interval(values, resampled))
    return found


def _headroom(scored: Mapping[str, Retrieval], seed: int) -> dict[str, Any] | None:
    """What the truth gains over the simplest score per voxel, brain -> image; None where either is not there.

    Where no interval of a gain lies above zero, this world cannot tell a good selection from a simple one.
    """
    gains: dict[str, dict[str, Any]] = {}
    for name in ("true_voxels", "true_best"):
        if name in scored and SIMPLEST in scored:
            pair = [scored[place].per_image["brain_to_image"].weighted_top1 for place in (name, SIMPLEST)]
            gain = paired_difference(*pair, generator=np.random.default_rng([seed, 0xD1F]), of_shares=True)
            gains[name] = {"difference": gain.difference, "interval": [gain.low, gain.high]}
    if not gains:
        return None
    return {"simplest": SIMPLEST, "gains": gains, "tells": any(gain["interval"][0] > 0 for gain in gains.values())}


def _gallery(found: Retrieval) -> dict[str, Any]:
    """Size, chance and permutation null (brain -> image) of a protocol's gallery."""
    size = found.scores["gallery_size"]
    null = {name: found.scores[f"brain_to_image_top1_{place}"] for name, place in NULL_OF.items()}
    return {"gallery_size": round(size, 1) if size % 1 else int(size), "chance": found.scores["chance"], "null": null}


def _summary(
    rows: list[dict[str, Any]],
    ours: Mapping[Protocol, Retrieval],
    test: _Test,
    settings: AdaptationSettings,
    reference_name: str | None,
) -> Evaluation:
    n_duplicates, broken, protocol = int(test.duplicates.sum()), [], settings.protocol
    if settings.scaling != "train_stats":
        broken.append("z-scored per session: sessions with test trials give their own statistics")
    if protocol == "draws" and n_duplicates:
        broken.append("near-duplicates of the target stay in its gallery, as in the papers that draw galleries")
    return {
        "rows": rows,
        "interval_level": LEVEL,
        **_gallery(ours[protocol]),
        "n_images": len(test.images),
        "protocol": protocol,
        "protocols": {name: _gallery(found) for name, found in ours.items()},
        "scaling": settings.scaling,
        "n_test_trials_averaged": len(test.trials.stimulus_ids) / len(test.images),
        "near_duplicates_left_out": n_duplicates if protocol == "every_candidate" and not test.n_labels else 0,
        "identified": f"the label, among {test.n_labels}: one image of each in a gallery" if test.n_labels else "the image",
        "near_duplicate_cosine": settings.near_duplicate,
        "reference": reference_name,
        "labels": {"mindeye2": mindeye2_labels},
        "rules_broken": broken,
    }


def _coverage(experiment: Experiment, selected: np.ndarray) -> list[dict[str, Any]]:
    truth = experiment.truth.get(experiment.target, {})
    if "area" not in truth:
        return []
    areas = coverage_per_area(selected, np.asarray(truth["area"]).astype(np.int64))
    return [
        {"area": int(name), "name": f"area {name}", "n_voxels": area.n_voxels, "n_selected": area.n_selected}
        for name, area in areas.items()
    ]


def _known_rois(responses: Responses, selected: np.ndarray) -> list[dict[str, Any]]:
    """Per ROI of the subject: how much of it was selected, and how much of the selection lies in it. Most agreement first."""
    rows = []
    for name, inside in responses.rois.items():
        both = overlap(selected, inside)
        rows.append(
            {
                "roi": name,
                "n_voxels": both.n_reference,
                "n_selected": both.n_both,
                "share_of_roi": both.recall,
                "share_of_selection": both.precision,
                "dice": both.dice,
            }
        )
    return sorted(rows, key=lambda row: -(row["dice"] or 0.0))


def _write_artifacts(
    run: RunFolder, experiment: Experiment, test: _Test, ours: Retrieval, reference: np.ndarray | None
) -> None:
    """The reference beside the selection in maps.npz, and a dozen test trials with what was retrieved for them."""
    maps = read_arrays(run.path / "artifacts" / "maps.npz")
    truth = experiment.truth.get(experiment.target, {})
    maps.pop("reference", None)  # of an evaluation before
    if reference is not None:
        maps["reference"] = reference
    if "area" in truth:
        maps["area"] = np.asarray(truth["area"])
    write_arrays(run.path / "artifacts" / "maps.npz", **maps)
    if experiment.stimuli.read_image is None:
        return
    images = ours.per_image["brain_to_image"]
    right, wrong = np.flatnonzero(images.rank <= 1), np.flatnonzero(images.rank > 1)
    rng = np.random.default_rng(0)
    n_wrong = min(len(wrong), max(N_EXAMPLES // 2, N_EXAMPLES - len(right)))
    chosen = np.concatenate([rng.permutation(right)[: N_EXAMPLES - n_wrong], rng.permutation(wrong)[:n_wrong]])
    size = experiment.stimuli.image(int(experiment.stimuli.rows(test.images[:1])[0])).shape[:2]
    pixels = [_thumbnail(experiment, name, size) for name in test.images]
    write_arrays(
        run.path / "artifacts" / "examples.npz",
        seen=np.stack([pixels[row] for row in chosen]),
        retrieved=np.stack([[pixels[place] for place in images.retrieved[row][:5]] for row in chosen]),
        rank=np.rint(images.rank[chosen]).astype(np.int64),
        stimulus=np.array([test.images[row] for row in chosen]),
    )


def _thumbnail(experiment: Experiment, stimulus_id: str, size: tuple[int, int]) -> np.ndarray:
    """The image at one common size, at most 128 pixels along an edge: uint8."""
    from PIL import Image

    image = Image.fromarray(experiment.stimuli.image(int(experiment.stimuli.rows([stimulus_id])[0])))
    scale = min(1.0, 128 / max(size))
    return np.asarray(image.resize((max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))))
