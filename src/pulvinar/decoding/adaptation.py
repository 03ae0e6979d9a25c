"""A decoder for a new subject on voxels that something selected: what every way to select has before and after it.

Stage 2 of TROI (voxel-selection paper, section 2.3): the input layer is built anew on the kept voxels and trained with the
schedule restarted (decoding/decoder_training.py), behind it the decoder pretrained on other subjects. Without one
(`pretrain=false`) the shared part is trained with it, from new weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn

from pulvinar.core import devices
from pulvinar.core.errors import InputError, MissingDependencyError
from pulvinar.core.progress import log
from pulvinar.core.storage import read_arrays, write_arrays
from pulvinar.data.experiment import Experiment, require_target_roi
from pulvinar.data.feature_tables import choose_feature
from pulvinar.data.responses import Responses
from pulvinar.data.splits import training_trials
from pulvinar.decoding.data import (
    Embedding,
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
from pulvinar.decoding.decoder_size import Phase, training_phase
from pulvinar.decoding.decoder_training import DecoderTrainer, on_voxels
from pulvinar.decoding.evaluation import DecoderOfSubject, Evaluation, evaluate_selections
from pulvinar.decoding.settings import AdaptationSettings
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end, seeded
from pulvinar.learning.processes import is_first, require_rows, wait
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer
from pulvinar.scores.retrieval import N_DRAWN, protocols_for
from pulvinar.selection.voxel_mask import voxel_budget

PRETRAINED = "cross_subject_decoder"
SCORING = ("roi", "near_duplicate", "protocol", "beside")  # settings that an evaluation may have otherwise than the fit
NEEDS = ("responses of a new subject", "a finished run of cross_subject_decoder (or pretrain=false)")


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


def prepare(config: AdaptationSettings, experiment: Experiment) -> Prepared:
    """The new subject's trials, read and scaled; raises what is wrong with them or with the settings."""
    experiment = half_of(experiment, config.half)
    require_settings(config, experiment)
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
    require_rows(min(config.batch_size, len(scaled.responses)))
    return Prepared(experiment=experiment, scaled=scaled)


def training_ids(config: AdaptationSettings, experiment: Experiment) -> list[str]:
    """What each training trial of the new subject showed."""
    responses = experiment.subjects[experiment.target]
    trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, config.n_sessions))
    return [responses.stimulus_ids[trial] for trial in trials]


def require_settings(config: AdaptationSettings, experiment: Experiment) -> None:
    """What can be wrong before a trial is read."""
    responses = experiment.subjects[experiment.target]
    if not set(experiment.split.test) & set(responses.stimulus_ids):
        raise InputError(f"responses of {experiment.target}: no trial shows a test stimulus")
    _require_protocol(config, experiment)
    if config.roi != AdaptationSettings.roi and not any(config.roi in subject.rois for subject in experiment.subjects.values()):
        require_target_roi(experiment, config.roi, experiment.target)
    require_scalable(experiment, experiment.target, scaling=config.scaling, n_sessions=config.n_sessions)
    choose_feature(experiment.stimuli, config.feature)
    if config.lora_rank and find_spec("peft") is None:
        raise MissingDependencyError("lora_rank: peft is not installed; run: pip install 'pulvinar[encoding]'")


def _require_protocol(config: AdaptationSettings, experiment: Experiment) -> None:
    n_images = len(set(experiment.split.test) & set(experiment.subjects[experiment.target].stimulus_ids))
    if config.protocol not in protocols_for(n_images):
        raise InputError(f"protocol=draws: {N_DRAWN} test images are needed, {n_images} came; use every_candidate")


def join(config: AdaptationSettings, prepared: Prepared, pretrained: RunFolder | None) -> Joined:
    """The decoder to start from; `InputError` or `LeakError` where it does not fit the data."""
    experiment, decoder = prepared.experiment, None
    if config.pretrain:
        if pretrained is None:
            raise InputError(f"a finished run of {PRETRAINED} is needed (--pretrained RUN), or --set pretrain=false")
        decoder = stored_decoder(pretrained.require(method=PRETRAINED))
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


def _new_decoder(config: AdaptationSettings, embedding: Embedding) -> SharedDecoder:
    shared = SharedDecoder(config.shape(n_tokens=embedding.n_tokens, dim=embedding.dim))
    shared.initialise(seeded(config.seed))
    return shared


def stream(config: AdaptationSettings, phase: int) -> torch.Generator:
    """The random numbers of one phase of a fit."""
    return seeded(config.seed, phase, n_streams=16)


def saver(run: RunFolder, state: State) -> Callable[[State], None]:
    """Checkpoints inside a phase: what the phase began with, and where its trainer stands."""
    return lambda reached: run.save({**state, "trainer": reached})


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a fit will need, from shapes alone: voxels to choose from, trials, and the decoder. shape: of the pretrained one."""

    config: AdaptationSettings
    shape: DecoderShape
    pretrained: bool
    n_voxels: int
    n_trials: int

    @classmethod
    def of(cls, config: AdaptationSettings, experiment: Experiment, shape: DecoderShape | None) -> "Size":
        """shape: None where there is no pretrained decoder."""
        usable = usable_voxels(
            experiment, experiment.target, n_sessions=config.n_sessions, drop_bad_voxels=config.drop_bad_voxels
        )
        return cls(
            config=config,
            shape=shape or config.shape(**embedding_shape(experiment, config.feature)),
            pretrained=shape is not None,
            n_voxels=len(usable),
            n_trials=len(training_ids(config, experiment)),
        )

    def training(self, name: str, n_voxels: int) -> Phase:
        """Training an input layer on so many voxels, and the shared part where it is not pretrained."""
        return training_phase(
            name,
            self.shape,
            self.config,
            n_voxels=[n_voxels],
            n_trials=[self.n_trials],
            train_shared=not self.pretrained,
        )

    def stage_2(self) -> Phase:
        """Training on the kept voxels."""
        return self.training("stage 2", voxel_budget(self.config.n_voxels, self.n_voxels))


def write_selection(checked: Joined, run: RunFolder, kept: np.ndarray, weights: dict[str, np.ndarray], **facts: Any) -> State:
    """The kept voxels (candidate,) bool and weights of the candidates as maps.npz of the run; what the run says of them."""
    n_voxels = checked.target.n_voxels
    whole = {name: np.zeros(n_voxels, np.float32) for name in weights}
    selected = np.zeros(n_voxels, bool)
    for name, values in weights.items():
        whole[name][checked.candidates] = values
    selected[checked.candidates[kept]] = True
    if is_first():
        write_arrays(run.path / "artifacts" / "maps.npz", **checked.target.geometry.arrays(), **whole, selected=selected)
    wait()
    return {"n_voxels": int(selected.sum()), "n_candidates": len(checked.candidates), **facts}


def refit(
    config: AdaptationSettings, checked: Joined, run: RunFolder, state: State, *, keep_layer: bool = False, train: bool = True
) -> None:
    """Stage 2: the input layer on the kept voxels of maps.npz; the result is the checkpoint 'decoder' of the run.

    state: `selection`; `trainer`, where it stands; where stage 1 trained them, `stage_1` (the layer that `keep_layer` starts
    from) and `shared` (the shared part that is used as it is without `train`).
    """
    run.facts["selection"] = state["selection"]
    maps = read_arrays(run.path / "artifacts" / "maps.npz")
    kept = torch.from_numpy(maps["selected"][checked.candidates])
    shared, changes = checked.shared, not checked.pretrained or config.lora_rank > 0
    if not checked.pretrained:
        shared.initialise(stream(config, 3))
    start = {name: weights.clone() for name, weights in shared.state_dict().items()} if changes else None
    if not train and not checked.pretrained:
        shared.load_state_dict(state["shared"])
    generator = stream(config, 4)
    layer = input_layer(int(kept.sum()), shared.hidden, generator, scale=config.input_scale)
    if keep_layer:
        layer.load_state_dict(state["stage_1"])
    data = [(on_voxels(checked.trials.responses, kept), checked.trials.target)]
    trainer = DecoderTrainer(shared, [layer], data, config, generator, train_shared=not checked.pretrained)
    if train:
        run_to_end(trainer, "stage 2", run, state=state["trainer"], save=saver(run, state), phase="refit")
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


def evaluate(run: RunFolder, experiment: Experiment, config: AdaptationSettings, *, controls: bool = True) -> Evaluation:
    """The selection (against its controls at the same budget) on the outer test images; written into the run."""
    stored, experiment = stored_decoder(run.require(method=run.method)), half_of(experiment, config.half)
    _require_protocol(config, experiment)
    if config.roi != run.settings()["roi"]:  # asked for in the evaluation
        require_target_roi(experiment, config.roi, experiment.target)
    result, shared = stored.state, stored.shared

    def fresh(n_voxels: int) -> tuple[SharedDecoder, nn.Linear, torch.Generator]:
        """What a control's refit starts from: the same shared decoder and the same generator as stage 2."""
        start, generator = SharedDecoder(shared.shape), stream(config, 4)
        start.load_state_dict(result["start"] or result["shared"])
        return start, input_layer(n_voxels, start.hidden, generator, scale=config.input_scale), generator

    selected = result["selected"].numpy()
    layer = nn.Linear(int(selected.sum()), shared.hidden)
    layer.load_state_dict(result["layer"])
    here = devices.current()
    decoder = DecoderOfSubject(shared=shared.to(here), layer=layer.to(here), selected=selected, embedding=stored.embedding)
    trained_alike = {"fresh": fresh, "train_shared": result["train_shared"]}
    return evaluate_selections(run, experiment, decoder, config, **trained_alike, controls=controls)
