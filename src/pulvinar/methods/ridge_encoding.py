"""Predict voxels from features of images: ridge on the layers of a backbone, scored on images that nothing was chosen on.

Paper: the encoding model of Mulrooney & Brockmeier 2024 (contrastive fine-tuning for encoding): features of tapped layers,
principal components, ridge with alpha per voxel, a layer per ROI, 5 folds; noise-normalised score of Gifford et al. 2023.
Where: models/ridge.py, models/banded_ridge.py and models/partial_least_squares.py; choice and fit in training/encoder.py;
scores in metrics/encoding.py and evaluation/encoding.py.
Differs from the paper and why: the paper's code picks alpha and layer on the folds it reports; here folds over the training
images choose, and the outer test images report (`r_nested`); what comes out when alpha and layer are chosen on the reported
images stands beside it (`r_optimistic`). Components are those of each fold's training images. A layer per voxel is the default.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pulvinar.config import number_problems, setting
from pulvinar.data.experiment import Experiment
from pulvinar.data.scaling import Mode, require_trials_per_session
from pulvinar.data.splits import training_trials
from pulvinar.data.stimuli import Stimuli
from pulvinar.errors import InputError
from pulvinar.evaluation import encoding as scoring
from pulvinar.evaluation import encoding_baseline as baselines
from pulvinar.evaluation.encoding_baseline import Baseline
from pulvinar.progress import bar, log
from pulvinar.storage import write_arrays, write_json
from pulvinar.training.checkpoints import State
from pulvinar.training.decoding_data import choose_feature
from pulvinar.training.encoder import (
    EncoderSettings,
    EncoderTrainer,
    LayerChoice,
    Layers,
    Regression,
    folds_by_source,
)
from pulvinar.training.encoder import (
    predict as predict_responses,
)
from pulvinar.training.image_responses import ImageResponses, choose_voxels, roi_groups
from pulvinar.training.layer_features import LayerFeatures, LayerSource
from pulvinar.training.runs import RunFolder

DATA = "experiment"
TOPIC = "encoding"
NEEDS = ("responses of a subject", "images and a backbone, or an embedding (feature) of each image")
_SETTING = "recomputed from the authors' result files: 8 subjects, AlexNet, mean over ROIs"
PUBLISHED: list[dict] = [
    {
        "table": "released results",
        "setting": _SETTING,
        "method": f"Mulrooney & Brockmeier 2024, untuned, {rois} ROIs",
        "metric": "r_nested",
        "value": value,
        "unit": "r",
    }
    for rois, value in (("early", 0.386), ("higher", 0.355))
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the encoding model."""

    seed: int = setting(0, "folds, permutations, draws of banded ridge, random weights of a backbone without weights")
    roi: tuple[str, ...] | None = setting(
        None, "ROIs whose voxels are encoded (V1v stands for lh.V1v and rh.V1v too); none: all"
    )
    subjects: tuple[str, ...] | None = setting(None, "whose responses; none: the experiment's target")
    feature: tuple[str, ...] | None = setting(None, "embeddings that the experiment holds, each a layer; none: the only one")
    backbone: str | None = setting(None, "network of torchvision or timm whose stages are the layers (instead of feature)")
    weights: str | None = setting(None, "its weights: a file, 'default' or a name; none: random")
    stages: tuple[str, ...] | None = setting(None, "modules to tap; none: one per resolution")
    n_stages: int | None = setting(None, "how many stages, spread evenly (instead of stages)")
    image_size: int | None = setting(None, "pixels along an edge of the network's input; none: the weights' own")
    pool: int | None = setting(None, "average each map to pool x pool places; none: whole maps")
    regression: Regression = setting("ridge", "ridge or partial_least_squares")
    alphas: tuple[float, ...] = setting(EncoderSettings.alphas, "penalties to choose from, per voxel (paper: 1e-1 to 1e7)")
    n_pls_components: tuple[int, ...] = setting(
        EncoderSettings.n_pls_components, "numbers of components of partial least squares"
    )
    layer_choice: LayerChoice = setting(
        "voxel", "layer of each voxel, roi or single for all; concatenated; or banded (himalaya)"
    )
    pca: int | None = setting(1000, "principal components of a layer before the ridge (paper: 1000); none: all")
    folds: int = setting(5, "inner folds over the training images' source pictures (paper: 5)")
    n_draws: int = setting(50, "draws of layer shares for banded ridge")
    scaling: Mode = setting("train_stats", "z-scoring of responses: train_stats or per_session (transductive)")
    drop_bad_voxels: bool = setting(False, "leave out constant and NaN voxels instead of refusing them")
    baseline: Baseline = setting("low_level", "features to beat: low_level (energy, colour), category (labels), both, none")
    n_permutations: int = setting(1000, "permutations of test images for p-values")
    voxels_per_block: int = setting(4096, "voxels in memory at a time")

    def problems(self) -> list[str]:
        """What is out of range or does not go together."""
        wrong = number_problems("ridge_encoding", self)
        for name in ("image_size", "pool", "pca", "n_stages", "n_draws", "n_permutations", "voxels_per_block"):
            value = getattr(self, name)
            if value is not None and value < 1:
                wrong.append(f"ridge_encoding.{name} is 1 or more, not {value}")
        if self.folds < 2:
            wrong.append(f"ridge_encoding.folds is 2 or more, not {self.folds}")
        for name in ("alphas", "n_pls_components"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                wrong.append(f"ridge_encoding.{name} are one or more numbers above 0, not {list(values)}")
        if self.backbone is not None and self.feature is not None:
            wrong.append("ridge_encoding.backbone and feature both say what the layers are; give one of them")
        if self.backbone is None:
            names = ("weights", "stages", "n_stages", "image_size", "pool")
            given = [name for name in names if getattr(self, name) is not None]
            wrong += [f"ridge_encoding.{name} belongs to a backbone; name one" for name in given]
        if self.stages is not None and self.n_stages is not None:
            wrong.append("ridge_encoding.stages and n_stages both say which stages; give one of them")
        if self.regression == "partial_least_squares" and self.layer_choice == "banded":
            wrong.append("ridge_encoding.layer_choice=banded is a ridge; regression=partial_least_squares needs another choice")
        return wrong

    def encoder(self) -> EncoderSettings:
        """What the trainer needs of these."""
        return EncoderSettings(
            alphas=self.alphas,
            regression=self.regression,
            n_pls_components=self.n_pls_components,
            layer_choice=self.layer_choice,
            n_components=self.pca,
            n_folds=self.folds,
            n_draws=self.n_draws,
            voxels_per_block=self.voxels_per_block,
            seed=self.seed,
        )

    def network(self) -> LayerSource:
        """The backbone of these settings."""
        return LayerSource(
            backbone=self.backbone,
            weights=self.weights,
            stages=self.stages if self.stages is not None else self.n_stages,
            image_size=self.image_size,
            pool=self.pool,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Subject:
    """One subject's encoded voxels, and its responses to its training and test images."""

    voxels: np.ndarray
    train: ImageResponses
    test: ImageResponses


def _subjects(config: Config, experiment: Experiment) -> list[str]:
    names = list(config.subjects or (experiment.target,))
    unknown = [name for name in names if name not in experiment.subjects]
    if unknown:
        raise InputError(f"subjects: {', '.join(unknown)} are not among {', '.join(experiment.subjects)}")
    return names


def check(config: Config, experiment: Experiment) -> None:
    """What can be wrong with the data, before anything is written or computed."""
    stimuli = experiment.stimuli
    if config.backbone is None:
        _source(config, experiment)
    elif stimuli.read_image is None:
        raise InputError(f"backbone={config.backbone}: needs images, and these stimuli came without; give feature=NAME instead")
    for name in _subjects(config, experiment):
        given = _open(config, experiment, name)
        rows = stimuli.rows(given.train.ids)
        folds_by_source([stimuli.sources[row] for row in rows], config.folds, config.seed)
        if len(given.test.ids) < 3:
            raise InputError(f"responses of {name}: {len(given.test.ids)} test images; a correlation needs 3 or more")
        if config.layer_choice == "roi":
            roi_groups(given.train.responses, given.voxels)
        log(f"{name}: {len(given.voxels)} voxels, {len(given.train.ids)} training and {len(given.test.ids)} test images")


def _open(config: Config, experiment: Experiment, name: str) -> _Subject:
    responses, split = experiment.subjects[name], experiment.split
    trials = training_trials(responses, split)
    voxels = choose_voxels(responses, config.roi)
    bad = np.intersect1d(
        np.union1d(responses.bad_voxels(trials), responses.not_finite_voxels(responses.trials_of(split.test))), voxels
    )
    if len(bad) and not config.drop_bad_voxels:
        responses.require_good_voxels(trials)
        responses.require_finite_voxels(responses.trials_of(split.test))
    if len(bad):
        log(f"{name}: left out {len(bad)} constant or NaN voxels")
    voxels = np.setdiff1d(voxels, bad)
    if not len(voxels):
        raise InputError(f"responses of {name}: no voxel is left to encode")
    if config.scaling == "per_session":
        require_trials_per_session(responses, np.concatenate([trials, responses.trials_of(split.test)]), fit_trials=trials)
    train = ImageResponses(responses, split.train, fit_trials=trials, scaling=config.scaling)
    return _Subject(voxels=voxels, train=train, test=train.other(split.test))


def _source(config: Config, experiment: Experiment) -> LayerSource:
    """Where the layers come from; `NotFoundError` or `InputError` for an embedding that is not there or not said."""
    if config.backbone is None:
        wanted = config.feature or (None,)
        return LayerSource(features=tuple(choose_feature(experiment, name) for name in wanted))
    return config.network()


def _trainer(config: Config, experiment: Experiment, given: _Subject, layers: Layers) -> EncoderTrainer:
    sources = [experiment.stimuli.sources[row] for row in experiment.stimuli.rows(given.train.ids)]
    return EncoderTrainer(
        layers,
        lambda places: given.train.read(given.voxels[places]),
        n_voxels=len(given.voxels),
        sources=sources,
        settings=config.encoder(),
        groups=roi_groups(given.train.responses, given.voxels) if config.layer_choice == "roi" else None,
    )


def fit(config: Config, experiment: Experiment, run: RunFolder) -> None:
    """Choose and fit, subject by subject; the results are the checkpoints encoder-SUBJECT of the run."""
    names = _subjects(config, experiment)
    opened = {name: _open(config, experiment, name) for name in names}
    shown = [image for given in opened.values() for image in given.train.ids]
    features = LayerFeatures(_source(config, experiment), experiment.stimuli, shown)
    state = run.load() or {"subject": names[0], "trainer": None}
    for name in names[names.index(state["subject"]) :]:
        trainer = _trainer(config, experiment, opened[name], features.of(opened[name].train.ids))
        if state["trainer"] is not None:
            trainer.restore(state["trainer"])
        with bar(f"{name}: choosing layers and penalties", trainer.n_units) as progress:
            progress.advance(trainer.n_done)
            for done in trainer.run():
                progress.advance(note=done)
                if run.due():
                    run.save({"subject": name, "trainer": trainer.state()})
        encoder = trainer.fit()
        run.log(subject=name, **_summary(encoder))
        encoder["voxels"], encoder["n_voxels"] = _tensor(opened[name].voxels), opened[name].train.responses.n_voxels
        run.save(encoder, name=f"encoder-{name}")
        following = names[names.index(name) + 1 :]
        state = {"subject": following[0] if following else name, "trainer": None}
        if following:
            run.save(state)
    run.finish(subjects=names, layers=list(features.layers))


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values)


def _summary(encoder: State) -> dict[str, Any]:
    names, layers = list(encoder["names"]), encoder["layers"].numpy()
    return {
        "n_voxels": len(layers),
        "share_of_layer": {name: float((layers == number).mean()) for number, name in enumerate(names)},
        "median_penalty": float(np.median(encoder["penalties"].numpy())),
    }


def _encoder(run: RunFolder, name: str) -> State:
    encoder = run.load(name=f"encoder-{name}")
    if encoder is None:
        raise InputError(f"{run.path}: has no checkpoint encoder-{name}")
    return encoder


def evaluate(run: RunFolder, experiment: Experiment, config: Config, *, controls: bool = True) -> dict[str, Any]:
    """Scores on the outer test images per subject, ROI and hemisphere; voxel maps in artifacts/, written into the run.

    controls: with the baseline, the unique variance beyond it and the optimistic number (all need further fits).
    """
    run.require(method="ridge_encoding")
    names = _subjects(config, experiment)
    opened = {name: _open(config, experiment, name) for name in names}
    shown = [image for one in opened.values() for image in (*one.train.ids, *one.test.ids)]
    features = LayerFeatures(_source(config, experiment), experiment.stimuli, shown)
    rows, ceilings = [], {}
    for name in names:
        given = opened[name]
        found = _predictions(config, experiment, given, features, _encoder(run, name), controls=controls)
        generator = np.random.default_rng([config.seed, 0x9E2])
        by_voxel = scoring.score_voxels(found, generator=generator, n_permutations=config.n_permutations)
        of_subject = scoring.score_regions(
            found, by_voxel, given.test, given.voxels, seed=config.seed, n_permutations=config.n_permutations
        )
        _write_maps(run, name, given, by_voxel, found)
        rows += [{"name": "ridge_encoding", **row} for row in of_subject]
        ceilings[name] = found.ceiling.source or found.ceiling.reason
    result = {
        "rows": rows,
        "scaling": config.scaling,
        "layer_choice": config.layer_choice,
        "regression": config.regression,
        "baseline": config.baseline,
        "ceilings": ceilings,
        "r_optimistic_is": "optimistic: alpha and layer are chosen on the very test images that it is reported on",
        "noise_normalised_is": "Algonauts 2023: mean over voxels of min(100, 100 max(r, 0)^2 / NC), NC = 0 as 1e-14",
        "n_permutations": config.n_permutations,
    }
    write_json(run.path / "evaluation.json", result)
    return result


def _predictions(
    config: Config, experiment: Experiment, given: _Subject, features: LayerFeatures, encoder: State, *, controls: bool
) -> scoring.Predictions:
    layers, test_layers = features.of(given.train.ids), features.of(given.test.ids)
    measured = given.test.read(given.voxels)
    every = ImageResponses(
        given.train.responses,
        [*given.train.ids, *given.test.ids],
        fit_trials=given.train.fit_trials,
        scaling=config.scaling,
        statistics=given.train.statistics,
    )
    ceiling = scoring.find_ceiling(every, given.test, given.voxels)
    reasons = {"noise_normalised": ceiling.reason} if ceiling.r2 is None else {}
    optimistic = baseline = joint = None
    if controls:
        optimistic = _trainer(config, experiment, given, layers).best_on(test_layers, measured)
        if optimistic is None:
            reasons["r_optimistic"] = "a banded search has no list of penalties to choose from on the test images"
        reason = baselines.missing_reason(config.baseline, experiment.stimuli)
        if not reason:
            baseline, joint = _with_baseline(config, experiment, given, layers, test_layers)
        reasons |= {key: reason for key in ("share_improved", "r_baseline", "unique_variance") if reason}
    else:
        reasons |= dict.fromkeys(("r_optimistic", "share_improved", "r_baseline", "unique_variance"), "controls were left out")
    return scoring.Predictions(
        predicted=predict_responses(encoder, test_layers),
        measured=measured,
        ceiling=ceiling,
        optimistic=optimistic,
        baseline=baseline,
        joint=joint,
        reasons=reasons,
    )


def _with_baseline(
    config: Config, experiment: Experiment, given: _Subject, layers: Layers, test_layers: Layers
) -> tuple[np.ndarray, np.ndarray]:
    """Test predictions of a ridge on the baseline's features alone, and of one on each layer with them."""
    own = baselines.baseline_features(config.baseline, experiment.stimuli, given.train.ids)
    new = baselines.baseline_features(config.baseline, experiment.stimuli, given.test.ids)
    alone = ({"baseline": baselines.side_by_side(own, own)}, {"baseline": baselines.side_by_side(new, own)})
    both = (
        baselines.with_baseline(layers, own, layers, own),
        baselines.with_baseline(test_layers, new, layers, own),
    )
    predicted = []
    for train, test in (alone, both):
        trainer = _trainer(config, experiment, given, train)
        with bar(f"baseline of {given.train.responses.subject}", trainer.n_units) as progress:
            for _ in trainer.run():
                progress.advance()
        predicted.append(predict_responses(trainer.fit(), test))
    return predicted[0], predicted[1]


def _write_maps(
    run: RunFolder, name: str, given: _Subject, by_voxel: dict[str, np.ndarray], found: scoring.Predictions
) -> None:  # fmt: skip
    geometry = given.train.responses.geometry
    arrays = {key: values.astype(np.float32) for key, values in by_voxel.items()}
    places = {"coordinates": geometry.coordinates[given.voxels]}
    for key in ("index", "vertex"):
        if getattr(geometry, key) is not None:
            places[key] = getattr(geometry, key)[given.voxels]
    for key in ("shape", "affine"):
        if getattr(geometry, key) is not None:
            places[key] = np.asarray(getattr(geometry, key))
    encoder = _encoder(run, name)
    arrays |= {"layer": encoder["layers"].numpy(), "penalty": encoder["penalties"].numpy()}
    write_arrays(run.path / "artifacts" / f"voxels-{name}.npz", voxel=given.voxels, **places, **arrays)
    test_ids = np.array(given.test.ids)
    write_arrays(run.path / "predictions" / f"{name}.npz", id=test_ids, predicted=found.predicted, measured=found.measured)


def predict(run: RunFolder, stimuli: Stimuli, config: Config) -> dict[str, np.ndarray]:
    """Predicted z-scored responses of each subject to new images: subject -> float32 (image, encoded voxel)."""
    source = config.network() if config.backbone is not None else LayerSource(features=tuple(run.facts["layers"]))
    layers = source.of(stimuli, np.arange(len(stimuli)))
    return {name: predict_responses(_encoder(run, name), layers) for name in run.facts["subjects"]}


def as_text(evaluation: dict[str, Any]) -> str:
    """The table that `pulvinar evaluate` prints."""
    columns = ("r_nested", "r_optimistic", "noise_normalised", "share_improved", "unique_variance", "share_significant")
    head = f"{'subject':<10}{'roi':<16}{'side':<6}{'voxels':>7}  " + "".join(f"{name:>18}" for name in columns)
    lines = [head]
    for row in evaluation["rows"]:
        values = "".join(f"{'-':>18}" if row.get(name) is None else f"{row[name]:>18.3f}" for name in columns)
        lines.append(f"{row['subject']:<10}{row['roi']:<16}{row['hemisphere']:<6}{row['n_voxels']:>7}  {values}")
    first = evaluation["rows"][0]
    lines += [f"{key.removesuffix('_reason')}: none: {first[key]}" for key in first if key.endswith("_reason")]
    lines.append(
        f"r_nested: {first['n_images']} test images that nothing was chosen on; its null (images permuted) in the first row: "
        f"mean {first['null_mean']:.3f}, 95th percentile {first['null_percentile_95']:.3f}"
    )
    lines.append(f"r_optimistic is {evaluation['r_optimistic_is']}")
    return "\n".join(lines)
