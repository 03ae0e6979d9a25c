"""TROI: a new subject's region of interest from an hour of data, and a decoder on it.

Paper: trainable voxel selection for small-sample cross-subject decoding (TROI). Stage 1, section 2.2 (equations 5-7 and
algorithm 1): the pretrained decoder is frozen; a mask, an input layer and a regression head's error decide which voxels stay
(selection/voxel_mask.py, training/mask_training.py). Stage 2, section 2.3: the input layer is built anew on the kept voxels
and trained with the schedule restarted (training/decoding.py).

Differs from the paper and why:
- Threshold, L1 weight, filter width, mask rate, epsilon are not given in the paper; ours are labelled so in Config.
- Cross-fitting (`n_folds`), the geometric low-pass (`low_pass`) and the geometric schedule (`schedule`) are ours; each
  paper form can be chosen: n_folds=1, low_pass=smooth, schedule=threshold.
- Without pretraining (`pretrain=false`) the shared part is first trained on the new subject alone, all voxels, and trained
  again from new weights in stage 2.
- The head that stands for the prior stays at its pretrained weights in both stages.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.config import number_problems, setting
from pulvinar.data.experiment import Experiment
from pulvinar.data.scaling import Mode
from pulvinar.data.splits import training_trials
from pulvinar.errors import InputError, LeakError
from pulvinar.evaluation.decoding import DecoderOfSubject, Evaluation, evaluate_selections
from pulvinar.models.decoder import SharedDecoder, input_layer
from pulvinar.progress import bar, log
from pulvinar.selection.voxel_mask import Combine, Schedule, voxel_budget
from pulvinar.storage import read_arrays, write_arrays
from pulvinar.training.checkpoints import State
from pulvinar.training.decoding import DecoderTrainer, DecodingSettings, Mixing, decoding_loss
from pulvinar.training.decoding_data import (
    Embedding,
    Trials,
    choose_feature,
    first_sessions,
    fit_embedding,
    require_scalable,
    training_data,
    usable_voxels,
)
from pulvinar.training.mask_training import MaskSettings, MaskTrainer, folds_by_stimulus, require_full_folds
from pulvinar.training.runs import RunFolder

BACKBONE = "cross_subject_decoder"  # the method whose run this one reads
NEEDS = ("responses of a new subject", "a finished run of cross_subject_decoder (or pretrain=false)")
_PAPER = "NSD subj1, 1 hour of target, 3,000 voxels"
PUBLISHED: list[dict[str, Any]] = [
    {"table": table, "setting": _PAPER, "method": method, "metric": metric, "value": value, "unit": "percent"}
    for table, method, forward, backward in (
        ("1", "TROI", 93.6, 85.3),
        ("1", "MindEye2, annotated ROI, 7 subjects", 94.0, 77.6),
        ("2", "TROI without pretraining", 81.7, 70.7),
        ("2", "TROI without low-pass", 89.3, 78.7),
        ("2", "TROI without low-pass and rewinding", 63.3, 44.3),
    )
    for metric, value in (("image_to_brain_top1", forward), ("brain_to_image_top1", backward))
]

Rewind = Literal["reinitialised", "kept_restarted", "kept_constant", "none"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of stage 1 and 2."""

    seed: int = setting(0, "initial weights, folds, order of trials, mixing")
    n_voxels: int | float = setting(0.04, "voxel budget: a count, or a share of the candidates (paper: 3000 of 96,000)")
    n_sessions: int | None = setting(None, "first sessions of the new subject to learn from; none: all there are")
    feature: str | None = setting(None, "embedding to decode; none: the pretrained decoder's, else the only one there is")
    scaling: Mode = setting("train_stats", "z-scoring of responses: train_stats or per_session (transductive)")
    drop_bad_voxels: bool = setting(False, "leave out constant and NaN voxels instead of refusing them")
    pretrain: bool = setting(True, "use a decoder pretrained on the other subjects")
    n_folds: int = setting(4, "cross-fitting folds of stage 1 (ours); 1 trains mask and layer on the same trials (paper)")
    n_rounds: int = setting(5, "rounds of stage 1 (paper: about 15 epochs in all)")
    epochs_per_round: int = setting(12, "passes over the trials in a round (ours)")
    mask_batch_size: int = setting(12, "trials of each fold in a step of stage 1 (ours; with one fold the paper has 24)")
    mask_learning_rate: float = setting(3e-3, "Adam rate of the mask (ours)")
    l1_weight: float = setting(1e-3, "psi, times the sum of the mask; above 8,000 voxels times 8000 / voxels (ours)")
    threshold: float = setting(0.1, "th: voxels at or below it are cut (ours)")
    sigma: float = setting(1.0, "standard deviation of the Gaussian low-pass, in voxel spacings (ours)")
    low_pass: Combine = setting("geometric", "geometric (ours), smooth (paper), or none")
    schedule: Schedule = setting("geometric", "survivors per round: geometric path to the budget (ours) or threshold (paper)")
    shrink: bool = setting(True, "cut columns of empty voxels (false computes them all, for comparison)")
    rewind: Rewind = setting("reinitialised", "stage 2: reinitialised (paper), kept_restarted, kept_constant, none")
    epochs: int = setting(40, "passes over the trials in stage 2 (paper: 150)")
    batch_size: int = setting(24, "trials in a step of stage 2 (paper: 24)")
    learning_rate: float = setting(
        1e-3, "peak rate of AdamW in both stages; input layers above 8,000 voxels less (MindEye2: 3e-4)"
    )
    weight_decay: float = setting(0.05, "of AdamW in stage 2, not on biases")
    mixed_share: float = setting(1 / 3, "first part of stage 2 with MixCo, SoftCLIP afterwards (paper: 1/3)")
    mixing_beta: float = setting(0.2, "both parameters of the Beta distribution of MixCo weights (paper: 0.2)")
    temperature: float = setting(0.2, "of BiMixCo (ours; MindEye2: 0.006)")
    soft_temperature: float = setting(0.2, "of SoftCLIP (ours; MindEye2: 0.004 to 0.0075)")
    prior_weight: float = setting(5.0, "epsilon, weight of the regression error (ours)")
    input_scale: float = setting(0.1, "initial weights of the input layer: normal, this over sqrt(n_voxels) (ours)")
    hidden: int = setting(256, "width of the shared decoder where pretrain=false")
    roi: str = setting("annotated", "ROI of the new subject for the annotated control; never used for the selection")
    near_duplicate: float = setting(0.95, "test images with embeddings of a larger cosine are not in each other's gallery")

    def problems(self) -> list[str]:
        """What is out of range."""
        positive = ["n_rounds", "epochs_per_round", "mask_batch_size", "mask_learning_rate", "epochs", "batch_size", "n_folds"]
        positive += ["learning_rate", "temperature", "soft_temperature", "mixing_beta", "hidden"]
        wrong = [f"troi.{name} is above 0, not {getattr(self, name)}" for name in positive if not getattr(self, name) > 0]
        if not 0 <= self.mixed_share <= 1:
            wrong.append(f"troi.mixed_share lies in [0, 1], not {self.mixed_share}")
        for name in ("l1_weight", "sigma", "threshold", "prior_weight", "weight_decay", "input_scale"):
            if not getattr(self, name) >= 0:
                wrong.append(f"troi.{name} is 0 or more, not {getattr(self, name)}")
        wrong += number_problems("troi", self)
        if isinstance(self.n_voxels, float) and not 0 < self.n_voxels <= 1:
            wrong.append(f"troi.n_voxels is a count (whole number) or a share in (0, 1], not {self.n_voxels}")
        if isinstance(self.n_voxels, int) and self.n_voxels < 1:
            wrong.append(f"troi.n_voxels is 1 or more, not {self.n_voxels}")
        return wrong

    def decoding(self) -> DecodingSettings:
        """What the trainer of stage 2 needs."""
        constant = self.rewind == "kept_constant"
        return DecodingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate * (0.1 if constant else 1.0),
            weight_decay=self.weight_decay,
            mixed_share=self.mixed_share,
            mixing_beta=self.mixing_beta,
            temperature=self.temperature,
            soft_temperature=self.soft_temperature,
            prior_weight=self.prior_weight,
            schedule="constant" if constant else "one_cycle",
        )

    def masking(self, budget: int) -> MaskSettings:
        """What the trainer of stage 1 needs."""
        return MaskSettings(
            budget=budget,
            n_rounds=self.n_rounds,
            epochs_per_round=self.epochs_per_round,
            batch_size=self.mask_batch_size,
            learning_rate=self.learning_rate,
            mask_learning_rate=self.mask_learning_rate,
            l1_weight=self.l1_weight,
            threshold=self.threshold,
            weight_decay=0.0,
            input_scale=0.3 * self.input_scale,
            mixing_beta=self.mixing_beta,
            n_folds=self.n_folds,
            combine=self.low_pass,
            schedule=self.schedule,
            shrink=self.shrink,
        )


class FrozenDecoder:
    """The objective of stage 1: hidden activities through the frozen decoder against the target embedding."""

    def __init__(self, shared: SharedDecoder, target: Tensor, settings: DecodingSettings) -> None:
        for parameter in shared.parameters():
            parameter.requires_grad_(False)
        self.shared, self.target, self.settings = shared, target, settings
        self.n_outputs = shared.hidden

    def loss(self, outputs: Tensor, trials: Tensor, mixing: Mixing, generator: torch.Generator | None) -> Tensor:
        """Equation 4 on these trials."""
        return decoding_loss(self.shared(outputs, generator), self.target[trials], mixing, self.settings)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Input that has been looked at: candidate voxels (indices), their trials, the budget, the decoder to start from."""

    candidates: np.ndarray
    trials: Trials
    budget: int
    embedding: Embedding
    shared: SharedDecoder
    pretrained: bool

    def without_responses(self) -> "Checked":
        """The same, holding no responses."""
        return replace(self, trials=replace(self.trials, responses=torch.empty(0)))


def check_input(config: Config, experiment: Experiment) -> tuple[np.ndarray, int]:
    """What can be wrong with the new subject's data: candidate voxels (indices) and the budget. Before anything is written."""
    responses = experiment.subjects[experiment.target]
    if not set(experiment.split.test) & set(responses.stimulus_ids):
        raise InputError(f"responses of {experiment.target}: no trial shows a test stimulus")
    candidates = usable_voxels(
        experiment, experiment.target, n_sessions=config.n_sessions, drop_bad_voxels=config.drop_bad_voxels
    )
    if len(candidates) < responses.n_voxels:
        log(f"left out {responses.n_voxels - len(candidates)} constant or NaN voxels of {experiment.target}")
    require_scalable(experiment, experiment.target, scaling=config.scaling, n_sessions=config.n_sessions)
    trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, config.n_sessions))
    ids = [responses.stimulus_ids[trial] for trial in trials]
    require_full_folds(folds_by_stimulus(ids, config.n_folds, _generator(config, 2)), config.n_folds)
    choose_feature(experiment, config.feature)
    return candidates, voxel_budget(config.n_voxels, len(candidates))


def check(config: Config, experiment: Experiment, backbone: RunFolder | None) -> Checked:
    """The input with the decoder to start from; `InputError` or `LeakError` where they do not fit."""
    candidates, budget = check_input(config, experiment)
    decoder = None if not config.pretrain or backbone is None else backbone.require(method=BACKBONE).load(name="decoder")
    if config.pretrain and decoder is None:
        raise InputError("troi needs a finished run of cross_subject_decoder (--backbone RUN), or --set pretrain=false")
    embedding = fit_embedding(experiment, config.feature) if decoder is None else _embedding_of(decoder, config, experiment)
    n_voxels = experiment.subjects[experiment.target].n_voxels
    voxels = None if len(candidates) == n_voxels else np.isin(np.arange(n_voxels), candidates)
    trials = training_data(
        experiment, experiment.target, embedding, scaling=config.scaling, voxels=voxels, n_sessions=config.n_sessions
    )
    return Checked(
        candidates=candidates,
        trials=trials,
        budget=budget,
        embedding=embedding,
        shared=_shared_decoder(config, decoder, len(embedding.mean)),
        pretrained=decoder is not None,
    )


def _embedding_of(decoder: State, config: Config, experiment: Experiment) -> Embedding:
    """The embedding the decoder was trained on; refuses a decoder that has seen this target or its test images."""
    if experiment.target in decoder["subjects"]:
        raise LeakError(f"the pretrained decoder was trained on {experiment.target}, the new subject; pretrain without it")
    seen = set(decoder["trained_on"]) & set(experiment.split.test)
    if seen:
        raise LeakError(f"the pretrained decoder was trained on {len(seen)} of the test images, among them {sorted(seen)[:3]}")
    stored = decoder["embedding"]
    if config.feature not in (None, stored["name"]):
        raise InputError(f"feature: the pretrained decoder decodes '{stored['name']}', not '{config.feature}'")
    embedding = Embedding(stored["name"], stored["mean"].numpy(), stored["spread"])
    embedding.of(experiment, experiment.split.test[:1])
    return embedding


def _shared_decoder(config: Config, decoder: State | None, dim: int) -> SharedDecoder:
    if decoder is not None:
        shared = SharedDecoder(**decoder["architecture"])
        shared.load_state_dict(decoder["shared"])
        return shared
    shared = SharedDecoder(hidden=config.hidden, dim=dim, n_blocks=2, dropout=0.15)
    shared.initialise(torch.Generator().manual_seed(config.seed))
    return shared


def fit(config: Config, experiment: Experiment, run: RunFolder, backbone: RunFolder | None = None) -> None:
    """Stage 1 and 2, with checkpoints; the result is the checkpoint 'decoder' and artifacts/maps.npz of the run."""
    checked = check(config, experiment, backbone)
    state = run.load() or {"phase": "warm" if not checked.pretrained else "select", "trainer": None}
    if state["trainer"] is not None:
        log(f"resumed in phase '{state['phase']}'")
    if state["phase"] == "warm":
        state = _warm(config, checked, run, state)
    if state["phase"] == "select":
        trainer = _mask_trainer(config, checked, experiment, state)
        checked, state = checked.without_responses(), {**state, "trainer": None}  # only the trainer's are left, to be cut
        state = _select(config, checked, experiment, run, trainer, state)
        del trainer
    _refit(config, checked, experiment, run, state)


def _generator(config: Config, phase: int) -> torch.Generator:
    return torch.Generator().manual_seed(config.seed * 16 + phase)


def _run_trainer(trainer: DecoderTrainer, run: RunFolder, *, phase: str, keep: State) -> None:
    """All epochs of a trainer, with progress and checkpoints; `keep` goes into each checkpoint."""
    with bar({"warm": "decoder on own trials", "refit": "stage 2"}[phase], trainer.settings.epochs) as shown:
        shown.advance(trainer.epoch)
        while not trainer.done:
            loss = trainer.run_epoch()
            run.log(phase=phase, epoch=trainer.epoch, loss=loss)
            shown.advance(note=f"loss {loss:.3f}")
            if run.due() and not trainer.done:
                run.save({**keep, "phase": phase, "trainer": trainer.state()})


def _warm(config: Config, checked: Checked, run: RunFolder, state: State) -> State:
    """Without pretraining: the shared decoder is trained on the new subject's own trials, all candidate voxels."""
    generator, trials = _generator(config, 1), checked.trials
    layer = input_layer(trials.responses.shape[1], config.hidden, generator, scale=config.input_scale)
    data = [(trials.responses, trials.target)]
    trainer = DecoderTrainer(checked.shared, [layer], data, config.decoding(), generator, train_shared=True)
    if state["trainer"] is not None:
        trainer.restore(state["trainer"])
    _run_trainer(trainer, run, phase="warm", keep={})
    following = {"phase": "select", "trainer": None, "shared": dict(checked.shared.state_dict())}
    run.save(following)
    return following


def _mask_trainer(config: Config, checked: Checked, experiment: Experiment, state: State) -> MaskTrainer:
    """Stage 1 at its start, or where the checkpoint left it."""
    if "shared" in state:
        checked.shared.load_state_dict(state["shared"])
    generator, settings = _generator(config, 2), config.masking(checked.budget)
    geometry = experiment.subjects[experiment.target].geometry.take(checked.candidates)
    low_pass = geometry.low_pass(config.sigma if config.low_pass != "none" else 0.0)
    folds = folds_by_stimulus(checked.trials.stimulus_ids, config.n_folds, generator)
    objective = FrozenDecoder(checked.shared, checked.trials.target, config.decoding())
    trainer = MaskTrainer(checked.trials.responses, folds, objective, low_pass, settings, generator)
    if state["trainer"] is not None:
        trainer.restore(state["trainer"])
    return trainer


def _select(
    config: Config, checked: Checked, experiment: Experiment, run: RunFolder, trainer: MaskTrainer, state: State
) -> State:  # fmt: skip
    """Stage 1: rounds until the budget is met."""
    kept_shared = {"shared": state["shared"]} if "shared" in state else {}
    with bar("stage 1, selecting voxels", config.n_rounds * config.epochs_per_round) as shown:
        shown.advance(trainer.epoch)
        while not trainer.done:
            record = trainer.run_epoch()
            run.log(phase="select", **record)
            shown.advance(note=f"round {record['round']}, {record['n_alive']} voxels, loss {record['loss']:.3f}")
            if run.due() and not trainer.done:
                run.save({**kept_shared, "phase": "select", "trainer": trainer.state()})
    return _close_selection(config, checked, experiment, run, trainer)


def _close_selection(config: Config, checked: Checked, experiment: Experiment, run: RunFolder, trainer: MaskTrainer) -> State:
    outcome, responses = trainer.outcome, experiment.subjects[experiment.target]
    if outcome is None:
        raise RuntimeError("stage 1 ended without an outcome")
    whole = {name: np.zeros(responses.n_voxels, np.float32) for name in ("mask", "mask_smoothed")}
    whole["mask"][checked.candidates] = trainer.last_mask
    whole["mask_smoothed"][checked.candidates] = trainer.low_pass @ trainer.last_mask
    selected = np.zeros(responses.n_voxels, bool)
    selected[checked.candidates[outcome.kept]] = True
    geometry = responses.geometry
    places = ("coordinates", "index", "shape", "affine", "vertex", "mesh_coordinates", "mesh_faces")
    arrays = {name: np.asarray(getattr(geometry, name)) for name in places if getattr(geometry, name) is not None}
    write_arrays(run.path / "artifacts" / "maps.npz", **arrays, **whole, selected=selected)
    selection = {
        "n_voxels": int(selected.sum()),
        "n_candidates": len(checked.candidates),
        "path": outcome.path,
        "rounds": trainer.round,
        "epochs": trainer.epoch,
    }
    alive, weight, bias = trainer.mean_input_weights()
    rows = np.flatnonzero(np.isin(alive, np.flatnonzero(outcome.kept)))
    full = torch.zeros(int(outcome.kept.sum()), weight.shape[1])
    full[torch.from_numpy(np.searchsorted(np.flatnonzero(outcome.kept), alive[rows]))] = weight[torch.from_numpy(rows)]
    following = {
        "phase": "refit",
        "trainer": None,
        "stage_1": {"weight": full.T.contiguous(), "bias": bias},
        "shared": dict(checked.shared.state_dict()),
        "selection": selection,
    }
    run.facts["selection"] = selection
    run.save(following)
    return following


def _start_of_stage_2(config: Config, checked: Checked, state: State) -> tuple[SharedDecoder, bool]:
    """The shared decoder that every refit starts from, and whether it is trained (only without pretraining)."""
    shared = checked.shared
    shared.load_state_dict(state["shared"])
    if not checked.pretrained:
        shared.initialise(_generator(config, 3))
    return shared, not checked.pretrained


def _refit(config: Config, checked: Checked, experiment: Experiment, run: RunFolder, state: State) -> None:
    """Stage 2: the input layer on the kept voxels, in one of the readings of rewinding."""
    run.facts["selection"] = state["selection"]
    maps = read_arrays(run.path / "artifacts" / "maps.npz")
    kept = torch.from_numpy(maps["selected"][checked.candidates])
    shared, train_shared = _start_of_stage_2(config, checked, state)
    start = {name: weights.clone() for name, weights in shared.state_dict().items()}
    if config.rewind == "none":
        shared.load_state_dict(state["shared"])
    generator = _generator(config, 4)
    layer = input_layer(int(kept.sum()), shared.hidden, generator, scale=config.input_scale)
    if config.rewind != "reinitialised":
        layer.load_state_dict(state["stage_1"])
    trials = training_data(
        experiment,
        experiment.target,
        checked.embedding,
        scaling=config.scaling,
        voxels=maps["selected"],
        n_sessions=config.n_sessions,
    )
    data = [(trials.responses, trials.target)]
    trainer = DecoderTrainer(shared, [layer], data, config.decoding(), generator, train_shared=train_shared)
    if state["trainer"] is not None:
        trainer.restore(state["trainer"])
    if config.rewind != "none":
        keep = {name: state[name] for name in ("stage_1", "shared", "selection")}
        _run_trainer(trainer, run, phase="refit", keep=keep)
    result = {
        "selected": torch.from_numpy(maps["selected"]),
        "layer": dict(layer.state_dict()),
        "shared": dict(shared.state_dict()),
        "start": start,
        "architecture": {
            "hidden": shared.hidden,
            "dim": shared.output.out_features,
            "n_blocks": len(shared.blocks),
            "dropout": shared.dropout,
        },
        "embedding": {
            "name": checked.embedding.name,
            "mean": torch.from_numpy(np.asarray(checked.embedding.mean)),
            "spread": checked.embedding.spread,
        },
        "train_shared": train_shared,
    }
    run.save(result, name="decoder")
    run.finish()


def evaluate(run: RunFolder, experiment: Experiment, config: Config, *, controls: bool = True) -> Evaluation:
    """The selection (against its controls at the same budget) on the outer test images; written into the run."""
    result = run.require(method="troi").load(name="decoder")
    if result is None:
        raise InputError(f"{run.path}: has no decoder checkpoint")
    stored = result["embedding"]
    embedding = Embedding(stored["name"], stored["mean"].numpy(), stored["spread"])
    shared = SharedDecoder(**result["architecture"])

    def fresh(n_voxels: int) -> tuple[SharedDecoder, nn.Linear, torch.Generator]:
        """What a control's refit starts from: the same shared decoder and the same generator as stage 2."""
        start = SharedDecoder(**result["architecture"])
        start.load_state_dict(result["start"])
        generator = _generator(config, 4)
        return start, input_layer(n_voxels, start.hidden, generator, scale=config.input_scale), generator

    shared.load_state_dict(result["shared"])
    selected = result["selected"].numpy()
    layer = nn.Linear(int(selected.sum()), shared.hidden)
    layer.load_state_dict(result["layer"])
    return evaluate_selections(
        run,
        experiment,
        DecoderOfSubject(shared=shared, layer=layer, selected=selected, embedding=embedding),
        fresh=fresh,
        settings=config.decoding(),
        train_shared=result["train_shared"],
        scaling=config.scaling,
        n_sessions=config.n_sessions,
        drop_bad_voxels=config.drop_bad_voxels,
        sigma=config.sigma,
        roi=config.roi,
        near_duplicate=config.near_duplicate,
        seed=config.seed,
        controls=controls,
    )
