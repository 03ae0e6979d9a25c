"""TROI: a new subject's region of interest from an hour of data, and a decoder on it.

Paper: trainable voxel selection for small-sample cross-subject decoding (TROI). Stage 1, section 2.2 (equations 5-7 and
algorithm 1): the pretrained decoder is frozen; a mask, an input layer and a regression head's error decide which voxels stay
(selection/voxel_mask.py, decoding/mask_training.py). Stage 2, section 2.3: the input layer is built anew on the kept voxels
and trained with the schedule restarted (decoding/adaptation.py).

Differs from the paper and why:
- Threshold, L1 weight, filter width, mask rate, epsilon are not given in the paper; ours are labelled so in Config.
- Cross-fitting (`n_folds`), the geometric low-pass (`low_pass`) and the geometric schedule (`schedule`) are ours; each
  paper form can be chosen: n_folds=1, low_pass=smooth, schedule=threshold.
- Without pretraining (`pretrain=false`) the shared part is first trained on the new subject alone, all voxels, and trained
  again from new weights in stage 2.
- The head that stands for the prior stays at its pretrained weights in both stages, and so does a diffusion prior
  (pretrained.prior=diffusion), whose error the mask and the input layers are trained by; the paper trains it on.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from pulvinar.core.config import setting
from pulvinar.data.experiment import Experiment
from pulvinar.decoding.adaptation import (
    NEEDS,
    PRETRAINED,
    SCORING,
    Joined,
    Prepared,
    Size,
    evaluate,
    join,
    refit,
    require_settings,
    saver,
    stream,
    training_ids,
    write_selection,
)
from pulvinar.decoding.adaptation import prepare as prepare_trials
from pulvinar.decoding.data import half_of
from pulvinar.decoding.decoder_size import Phase, mask_phase
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.mask_training import FrozenDecoder, MaskSettings, MaskTrainer, folds_by_stimulus, require_full_folds
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, input_layer
from pulvinar.scores.published import published

Rewind = Literal["reinitialised", "kept_restarted", "kept_constant", "none"]


@dataclass(frozen=True, kw_only=True)
class Config(MaskSettings):
    """Settings of stage 1 and 2. Those of the shared decoder's network count where pretrain=false."""

    rewind: Rewind = setting(
        "reinitialised",
        "stage 2: reinitialised (paper), kept_restarted, kept_constant, none",
        heading="Stage 2: the decoder on the kept voxels",
    )

    def learning_rate_at(self, done: float) -> float:
        """The rate of stage 2 after this share of the steps; without rewinding it stays at a tenth."""
        return 0.1 * self.learning_rate if self.rewind == "kept_constant" else super().learning_rate_at(done)


def _require_settings(config: Config, experiment: Experiment) -> None:
    """What can be wrong before a trial is read."""
    require_settings(config, experiment)
    folds = folds_by_stimulus(training_ids(config, experiment), config.n_folds, stream(config, 2))
    require_full_folds(folds, config.n_folds)


def prepare(config: Config, experiment: Experiment) -> Prepared:
    """The new subject's trials, read and scaled; raises what is wrong with them or with the settings."""
    _require_settings(config, half_of(experiment, config.half))
    return prepare_trials(config, experiment)


def phases(config: Config, experiment: Experiment, shape: DecoderShape | None = None) -> list[Phase]:
    """What the fit will need, from shapes alone. shape: of the pretrained decoder; None without one."""
    experiment = half_of(experiment, config.half)
    _require_settings(config, experiment)
    size = Size.of(config, experiment, shape)
    first = [] if size.pretrained else [size.training("decoder on own trials", size.n_voxels)]
    selecting = mask_phase(size.shape, config, n_voxels=size.n_voxels, n_trials=size.n_trials)
    return [*first, selecting, *([size.stage_2()] if config.rewind != "none" else [])]


def fit(config: Config, checked: Joined, run: RunFolder) -> None:
    """Stage 1 and 2, with checkpoints; the result is the checkpoint 'decoder' and artifacts/maps.npz of the run."""
    state = run.load() or {"phase": "warm" if not checked.pretrained else "select", "trainer": None}
    if state["phase"] == "warm":
        state = _warm(config, checked, run, state)
    if state["phase"] == "select":
        state = _select(config, checked, run, state)
    refit(config, checked, run, state, keep_layer=config.rewind != "reinitialised", train=config.rewind != "none")


def _warm(config: Config, checked: Joined, run: RunFolder, state: State) -> State:
    """Without pretraining: the shared decoder is trained on the new subject's own trials, all candidate voxels."""
    generator, trials = stream(config, 1), checked.trials
    layer = input_layer(trials.responses.shape[1], config.hidden, generator, scale=config.input_scale)
    data = [(trials.responses, trials.target)]
    trainer = DecoderTrainer(checked.shared, [layer], data, config, generator, train_shared=True)
    run_to_end(trainer, "decoder on own trials", run, state=state["trainer"], save=saver(run, state), phase="warm")
    following = {"phase": "select", "trainer": None, "shared": dict(checked.shared.state_dict())}
    run.save(following)
    return following


def _mask_trainer(config: Config, checked: Joined, state: State) -> MaskTrainer:
    """Stage 1 at its start."""
    if "shared" in state:
        checked.shared.load_state_dict(state["shared"])
    generator = stream(config, 2)
    geometry = checked.target.geometry.take(checked.candidates)
    low_pass = geometry.low_pass(config.sigma if config.low_pass != "none" else 0.0)
    folds = folds_by_stimulus(checked.trials.stimulus_ids, config.n_folds, generator)
    objective = FrozenDecoder(checked.shared, checked.trials.target, config)
    return MaskTrainer(checked.trials.responses, folds, objective, low_pass, config, generator)


def _select(config: Config, checked: Joined, run: RunFolder, state: State) -> State:
    """Stage 1: rounds until the budget is met."""
    trainer = _mask_trainer(config, checked, state)
    keep = saver(run, state)
    run_to_end(trainer, "stage 1, selecting voxels", run, state=state.pop("trainer"), save=keep, phase="select")
    return _close_selection(checked, run, trainer)


def _close_selection(checked: Joined, run: RunFolder, trainer: MaskTrainer) -> State:
    outcome, mask = trainer.outcome, trainer.last_mask
    if outcome is None:
        raise RuntimeError("stage 1 ended without an outcome")
    weights = {"mask": mask, "mask_smoothed": trainer.low_pass @ mask}
    ran = {"path": outcome.path, "rounds": trainer.round, "epochs": trainer.epoch}
    selection = write_selection(checked, run, outcome.kept, weights, **ran)
    alive, weight, bias = trainer.mean_input_weights()
    rows = np.flatnonzero(np.isin(alive, np.flatnonzero(outcome.kept)))
    full = torch.zeros(int(outcome.kept.sum()), weight.shape[1])
    full[torch.from_numpy(np.searchsorted(np.flatnonzero(outcome.kept), alive[rows]))] = weight[torch.from_numpy(rows)]
    following = {
        "phase": "refit",
        "trainer": None,
        "stage_1": {"weight": full.T.contiguous(), "bias": bias},
        **({} if checked.pretrained else {"shared": dict(checked.shared.state_dict())}),  # else it stands in the pretrained run
        "selection": selection,
    }
    run.facts["selection"] = selection
    run.save(following)
    return following


METHOD = Method(
    name="troi",
    config=Config,
    needs=NEEDS,
    published=published(
        "decoding", ("troi/table1", "troi/table2"), metrics=("image_to_brain_top1", "brain_to_image_top1"), dataset="NSD subj1"
    ),
    on_several_devices=True,
    keeps_memory=("fit",),
    pretrained=PRETRAINED,
    reads_pretrained=lambda config: config.pretrain,
    of_pretrained=("centre",),
    scoring=SCORING,
    prepare=prepare,
    join=join,
    fit=fit,
    evaluate=evaluate,
    phases=phases,
)
