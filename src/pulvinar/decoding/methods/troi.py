"""TROI: a new subject's region of interest from an hour of data, and a decoder on it.

Paper: trainable voxel selection for small-sample cross-subject decoding (TROI). Stage 1, section 2.2 (equations 5-7 and
algorithm 1): the pretrained decoder is frozen; a mask, an input layer and a regression head's error decide which voxels stay
(selection/voxel_mask.py, decoding/mask_training.py). Stage 2, section 2.3: the input layer is built anew on the kept voxels
and trained with the schedule restarted (decoding/decoder_training.py).

Differs from the paper and why:
- Threshold, L1 weight, filter width, mask rate, epsilon are not given in the paper; ours are labelled so in Config.
- Cross-fitting (`n_folds`), the geometric low-pass (`low_pass`) and the geometric schedule (`schedule`) are ours; each
  paper form can be chosen: n_folds=1, low_pass=smooth, schedule=threshold.
- Without pretraining (`pretrain=false`) the shared part is first trained on the new subject alone, all voxels, and trained
  again from new weights in stage 2.
- The head that stands for the prior stays at its pretrained weights in both stages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from pulvinar.core.config import setting
from pulvinar.core.errors import InputError, MissingDependencyError
from pulvinar.core.progress import log
from pulvinar.core.storage import read_arrays, write_arrays
from pulvinar.data.experiment import Experiment, require_target_roi
from pulvinar.data.feature_tables import choose_feature
from pulvinar.data.responses import Responses
from pulvinar.data.splits import training_trials
from pulvinar.decoding.data import (
    Embedding,
    Half,
    ScaledTrials,
    Trials,
    embedding_shape,
    first_sessions,
    fit_embedding,
    half_of,
    require_scalable,
    scaled_trials,
    usable_voxels,
)
from pulvinar.decoding.decoder_checkpoint import CHECKPOINT, decoder_state, stored_decoder
from pulvinar.decoding.decoder_size import Phase, mask_phase, training_phase
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.evaluation import DecoderOfSubject, Evaluation, evaluate_selections
from pulvinar.decoding.mask_training import FrozenDecoder, MaskSettings, MaskTrainer, folds_by_stimulus, require_full_folds
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end, seeded
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer
from pulvinar.scores.published import published
from pulvinar.scores.retrieval import N_DRAWN, Protocol, protocols_for
from pulvinar.selection.voxel_mask import voxel_budget

BACKBONE = "cross_subject_decoder"
Rewind = Literal["reinitialised", "kept_restarted", "kept_constant", "none"]


@dataclass(frozen=True, kw_only=True)
class Config(MaskSettings):
    """Settings of stage 1 and 2. Those of the shared decoder's network count where pretrain=false."""

    METHOD: ClassVar[str] = "troi"

    n_sessions: int | None = setting(None, "first sessions of the new subject to learn from; none: all there are", at_least=1)
    half: Half = setting("both", "learn from one half of the training images (a, b), for the stability of the mask")
    pretrain: bool = setting(True, "use a decoder pretrained on the other subjects")
    sigma: float = setting(1.0, "standard deviation of the Gaussian low-pass, in voxel spacings (ours)", at_least=0)
    rewind: Rewind = setting("reinitialised", "stage 2: reinitialised (paper), kept_restarted, kept_constant, none")
    lora_rank: int = setting(
        0,
        "rank of updates of the pretrained decoder in stage 2; 0: input layer only (paper)",
        at_least=0,
        counts="rewind!=none",
    )
    roi: str = setting(
        "annotated",
        "ROI of the new subject for the annotated control, never used for the selection; of the others for the pretraining",
    )
    near_duplicate: float = setting(
        0.95, "test images with embeddings of a larger cosine are not in each other's gallery", at_least=-1, at_most=1
    )
    protocol: Protocol = setting(
        "every_candidate", "gallery of the headline: every_candidate, or draws (mean over 30 draws of 300, as the papers)"
    )

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = super().problems()
        if self.lora_rank and not self.pretrain:
            wrong.append("troi.lora_rank updates a pretrained decoder; leave it at 0 with pretrain=false")
        return wrong

    def learning_rate_at(self, done: float) -> float:
        """The rate of stage 2 after this share of the steps; without rewinding it stays at a tenth."""
        return 0.1 * self.learning_rate if self.rewind == "kept_constant" else super().learning_rate_at(done)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The experiment as it is used, and the new subject's trials on the candidate voxels."""

    experiment: Experiment
    scaled: ScaledTrials

    @property
    def target(self) -> Responses:
        """Responses of the new subject."""
        return self.experiment.subjects[self.experiment.target]

    @property
    def candidates(self) -> np.ndarray:
        """Candidate voxels (indices)."""
        return self.scaled.voxels


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined(Prepared):
    """The same with the decoder to start from, and the trials with their target."""

    trials: Trials
    embedding: Embedding
    shared: SharedDecoder
    pretrained: bool


def prepare(config: Config, experiment: Experiment) -> Prepared:
    """The new subject's trials, read and scaled; raises what is wrong with them or with the settings."""
    experiment = half_of(experiment, config.half)
    _require_settings(config, experiment)
    scaled = scaled_trials(
        experiment,
        experiment.target,
        scaling=config.scaling,
        n_sessions=config.n_sessions,
        drop_bad_voxels=config.drop_bad_voxels,
        finite_in_test=True,
    )
    n_left_out = experiment.subjects[experiment.target].n_voxels - len(scaled.voxels)
    if n_left_out:
        log(f"left out {n_left_out} constant or NaN voxels of {experiment.target}")
    voxel_budget(config.n_voxels, len(scaled.voxels))  # raises where it does not fit
    return Prepared(experiment=experiment, scaled=scaled)


def _require_settings(config: Config, experiment: Experiment) -> None:
    """What can be wrong before a trial is read."""
    responses = experiment.subjects[experiment.target]
    if not set(experiment.split.test) & set(responses.stimulus_ids):
        raise InputError(f"responses of {experiment.target}: no trial shows a test stimulus")
    _require_protocol(config, experiment)
    if config.roi != Config.roi and not any(config.roi in subject.rois for subject in experiment.subjects.values()):
        require_target_roi(experiment, config.roi, experiment.target)
    require_scalable(experiment, experiment.target, scaling=config.scaling, n_sessions=config.n_sessions)
    trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, config.n_sessions))
    ids = [responses.stimulus_ids[trial] for trial in trials]
    require_full_folds(folds_by_stimulus(ids, config.n_folds, _generator(config, 2)), config.n_folds)
    choose_feature(experiment.stimuli, config.feature)
    if config.lora_rank and find_spec("peft") is None:
        raise MissingDependencyError("lora_rank: peft is not installed; run: pip install 'pulvinar[encoding]'")


def _require_protocol(config: Config, experiment: Experiment) -> None:
    n_images = len(set(experiment.split.test) & set(experiment.subjects[experiment.target].stimulus_ids))
    if config.protocol not in protocols_for(n_images):
        raise InputError(f"troi.protocol=draws: {N_DRAWN} test images are needed, {n_images} came; use every_candidate")


def join(config: Config, prepared: Prepared, backbone: RunFolder | None) -> Joined:
    """The decoder to start from; `InputError` or `LeakError` where it does not fit the data."""
    experiment, decoder = prepared.experiment, None
    if config.pretrain:
        if backbone is None:
            raise InputError("troi needs a finished run of cross_subject_decoder (--backbone RUN), or --set pretrain=false")
        decoder = stored_decoder(backbone.require(method=BACKBONE))
        embedding = decoder.embedding_for(experiment, config.feature)
    else:
        embedding = fit_embedding(experiment, config.feature, centre=config.centre)
    return Joined(
        **vars(prepared),
        trials=prepared.scaled.with_target(experiment, embedding),
        embedding=embedding,
        shared=_new_decoder(config, embedding) if decoder is None else decoder.shared,
        pretrained=decoder is not None,
    )


def _new_decoder(config: Config, embedding: Embedding) -> SharedDecoder:
    shared = SharedDecoder(config.shape(n_tokens=embedding.n_tokens, dim=embedding.dim))
    shared.initialise(seeded(config.seed))
    return shared


def phases(config: Config, experiment: Experiment, shape: DecoderShape | None = None) -> list[Phase]:
    """What the fit will need, from shapes alone. shape: of the pretrained decoder; None without one."""
    experiment = half_of(experiment, config.half)
    _require_settings(config, experiment)
    responses = experiment.subjects[experiment.target]
    n_voxels = len(
        usable_voxels(experiment, experiment.target, n_sessions=config.n_sessions, drop_bad_voxels=config.drop_bad_voxels)
    )
    sessions = first_sessions(responses, config.n_sessions)
    n_trials = len(training_trials(responses, experiment.split, sessions=sessions))
    pretrained = shape is not None
    shape = shape or config.shape(**embedding_shape(experiment, config.feature))

    def training(name: str, n: int) -> Phase:
        return training_phase(name, shape, config, n_voxels=[n], n_trials=[n_trials], train_shared=not pretrained)

    selecting = mask_phase(shape, config, n_voxels=n_voxels, n_trials=n_trials)
    first = [] if pretrained else [training("decoder on own trials", n_voxels)]
    return [
        *first,
        selecting,
        *([training("stage 2", voxel_budget(config.n_voxels, n_voxels))] if config.rewind != "none" else []),
    ]


def fit(config: Config, checked: Joined, run: RunFolder) -> None:
    """Stage 1 and 2, with checkpoints; the result is the checkpoint 'decoder' and artifacts/maps.npz of the run."""
    state = run.load() or {"phase": "warm" if not checked.pretrained else "select", "trainer": None}
    if state["phase"] == "warm":
        state = _warm(config, checked, run, state)
    if state["phase"] == "select":
        state = _select(config, checked, run, state)
    _refit(config, checked, run, state)


def _generator(config: Config, phase: int) -> torch.Generator:
    return seeded(config.seed, phase, n_streams=16)


def _saver(run: RunFolder, state: State) -> Callable[[State], None]:
    """Checkpoints inside a phase: what the phase began with, and where its trainer stands."""
    return lambda reached: run.save({**state, "trainer": reached})


def _warm(config: Config, checked: Joined, run: RunFolder, state: State) -> State:
    """Without pretraining: the shared decoder is trained on the new subject's own trials, all candidate voxels."""
    generator, trials = _generator(config, 1), checked.trials
    layer = input_layer(trials.responses.shape[1], config.hidden, generator, scale=config.input_scale)
    data = [(trials.responses, trials.target)]
    trainer = DecoderTrainer(checked.shared, [layer], data, config, generator, train_shared=True)
    run_to_end(trainer, "decoder on own trials", run, state=state["trainer"], save=_saver(run, state), phase="warm")
    following = {"phase": "select", "trainer": None, "shared": dict(checked.shared.state_dict())}
    run.save(following)
    return following


def _mask_trainer(config: Config, checked: Joined, state: State) -> MaskTrainer:
    """Stage 1 at its start."""
    if "shared" in state:
        checked.shared.load_state_dict(state["shared"])
    generator = _generator(config, 2)
    geometry = checked.target.geometry.take(checked.candidates)
    low_pass = geometry.low_pass(config.sigma if config.low_pass != "none" else 0.0)
    folds = folds_by_stimulus(checked.trials.stimulus_ids, config.n_folds, generator)
    objective = FrozenDecoder(checked.shared, checked.trials.target, config)
    return MaskTrainer(checked.trials.responses, folds, objective, low_pass, config, generator)


def _select(config: Config, checked: Joined, run: RunFolder, state: State) -> State:
    """Stage 1: rounds until the budget is met."""
    trainer = _mask_trainer(config, checked, state)
    keep = _saver(run, state)
    run_to_end(trainer, "stage 1, selecting voxels", run, state=state.pop("trainer"), save=keep, phase="select")
    return _close_selection(checked, run, trainer)


def _close_selection(checked: Joined, run: RunFolder, trainer: MaskTrainer) -> State:
    outcome, responses = trainer.outcome, checked.target
    if outcome is None:
        raise RuntimeError("stage 1 ended without an outcome")
    whole = {name: np.zeros(responses.n_voxels, np.float32) for name in ("mask", "mask_smoothed")}
    whole["mask"][checked.candidates] = trainer.last_mask
    whole["mask_smoothed"][checked.candidates] = trainer.low_pass @ trainer.last_mask
    selected = np.zeros(responses.n_voxels, bool)
    selected[checked.candidates[outcome.kept]] = True
    write_arrays(run.path / "artifacts" / "maps.npz", **responses.geometry.arrays(), **whole, selected=selected)
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
        **({} if checked.pretrained else {"shared": dict(checked.shared.state_dict())}),  # else it stands in the backbone's run
        "selection": selection,
    }
    run.facts["selection"] = selection
    run.save(following)
    return following


def _refit(config: Config, checked: Joined, run: RunFolder, state: State) -> None:
    """Stage 2: the input layer on the kept voxels, in one of the readings of rewinding."""
    run.facts["selection"] = state["selection"]
    maps = read_arrays(run.path / "artifacts" / "maps.npz")
    kept = torch.from_numpy(maps["selected"][checked.candidates])
    shared, changes = checked.shared, not checked.pretrained or config.lora_rank > 0
    if not checked.pretrained:
        shared.initialise(_generator(config, 3))
    start = {name: weights.clone() for name, weights in shared.state_dict().items()} if changes else None
    if config.rewind == "none" and not checked.pretrained:
        shared.load_state_dict(state["shared"])
    generator = _generator(config, 4)
    layer = input_layer(int(kept.sum()), shared.hidden, generator, scale=config.input_scale)
    if config.rewind != "reinitialised":
        layer.load_state_dict(state["stage_1"])
    data = [(checked.trials.responses[:, kept].contiguous(), checked.trials.target)]
    trainer = DecoderTrainer(shared, [layer], data, config, generator, train_shared=not checked.pretrained)
    if config.rewind != "none":
        run_to_end(trainer, "stage 2", run, state=state["trainer"], save=_saver(run, state), phase="refit")
    trainer.merge_updates()
    result = {
        **decoder_state(shared, checked.embedding),
        "selected": torch.from_numpy(maps["selected"]),
        "layer": dict(layer.state_dict()),
        "start": start,  # what stage 2 started from, where it changed the shared part
        "train_shared": not checked.pretrained,
    }
    run.save(result, name=CHECKPOINT)
    run.finish()


def evaluate(run: RunFolder, experiment: Experiment, config: Config, *, controls: bool = True) -> Evaluation:
    """The selection (against its controls at the same budget) on the outer test images; written into the run."""
    stored, experiment = stored_decoder(run.require(method="troi")), half_of(experiment, config.half)
    _require_protocol(config, experiment)
    if config.roi != run.settings()["roi"]:  # asked for in the evaluation
        require_target_roi(experiment, config.roi, experiment.target)
    result = stored.state

    def fresh(n_voxels: int) -> tuple[SharedDecoder, nn.Linear, torch.Generator]:
        """What a control's refit starts from: the same shared decoder and the same generator as stage 2."""
        start = SharedDecoder(stored.shared.shape)
        start.load_state_dict(result["start"] or result["shared"])
        generator = _generator(config, 4)
        return start, input_layer(n_voxels, start.hidden, generator, scale=config.input_scale), generator

    shared = stored.shared
    selected = result["selected"].numpy()
    layer = nn.Linear(int(selected.sum()), shared.hidden)
    layer.load_state_dict(result["layer"])
    return evaluate_selections(
        run,
        experiment,
        DecoderOfSubject(shared=shared, layer=layer, selected=selected, embedding=stored.embedding),
        fresh=fresh,
        settings=config,
        train_shared=result["train_shared"],
        scaling=config.scaling,
        n_sessions=config.n_sessions,
        drop_bad_voxels=config.drop_bad_voxels,
        sigma=config.sigma,
        roi=config.roi,
        near_duplicate=config.near_duplicate,
        seed=config.seed,
        protocol=config.protocol,
        controls=controls,
    )


METHOD = Method(
    name="troi",
    config=Config,
    needs=("responses of a new subject", "a finished run of cross_subject_decoder (or pretrain=false)"),
    published=published(
        "decoding", ("troi/table1", "troi/table2"), metrics=("image_to_brain_top1", "brain_to_image_top1"), dataset="NSD subj1"
    ),
    backbone=BACKBONE,
    reads_backbone=lambda config: config.pretrain,
    of_backbone=("centre",),
    scoring=("roi", "near_duplicate", "protocol"),
    prepare=prepare,
    join=join,
    fit=fit,
    evaluate=evaluate,
    phases=phases,
)
