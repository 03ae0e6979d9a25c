"""Pretrain a decoder over subjects: an input layer each, everything behind it shared.

Paper: TROI (Wang et al., voxel selection for small-sample decoding), section 2.1, after MindEye2 (Scotti et al. 2024).
Where: equation 1 (MixCo) and 2-4 (losses) in training/decoding.py, targets in objectives/contrastive.py, network in
models/decoder.py, settings in training/decoding_settings.py.
Differs from the papers and why: the MLP is real and starts linear (mixer=compat is MindEye2's); epochs, rate, width and
temperatures are ours, chosen on planted worlds for hundreds of trials and a pooled embedding; a linear regression head stands
where the papers train a diffusion prior.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pulvinar.config import setting
from pulvinar.data.experiment import Experiment, require_target_roi
from pulvinar.data.splits import training_trials
from pulvinar.errors import InputError
from pulvinar.models.decoder import SharedDecoder, input_layer
from pulvinar.training.decoder_checkpoint import CHECKPOINT, decoder_state
from pulvinar.training.decoder_size import Phase, training_phase
from pulvinar.training.decoding import DecoderTrainer
from pulvinar.training.decoding_data import (
    Embedding,
    Trials,
    embedding_shape,
    fit_embedding,
    refuse_copied_responses,
    training_data,
)
from pulvinar.training.decoding_settings import DecodingSettings
from pulvinar.training.loop import run_to_end, seeded
from pulvinar.training.runs import RunFolder

NEEDS = ("responses of two or more subjects", "an annotated ROI in each but the target")
PUBLISHED: list[dict] = []


@dataclass(frozen=True, kw_only=True)
class Config(DecodingSettings):
    """Settings of the pretraining."""

    METHOD: ClassVar[str] = "cross_subject_decoder"

    roi: str = setting("annotated", "ROI of the other subjects that is their input")

    def idle(self) -> dict[str, str]:
        """Settings of MixCo, where no epoch has it (stage 1 of troi always has)."""
        return (
            {} if self.mixed_share > 0 else dict.fromkeys(("temperature", "mixing_beta"), "it counts with mixed_share>0 only")
        )


def check(config: Config, experiment: Experiment) -> tuple[Embedding, dict[str, Trials]]:
    """Everything that can be wrong with the input, before a run folder is made; and the training data."""
    others = [name for name in experiment.subjects if name != experiment.target]
    if not others:
        raise InputError(f"pretraining needs subjects beside the target {experiment.target}; fit troi with pretrain=false")
    refuse_copied_responses(experiment, others)
    embedding = fit_embedding(experiment, config.feature, centre=config.centre)
    data = {}
    for name in others:
        voxels = require_target_roi(experiment, config.roi, name)
        if config.drop_bad_voxels:
            responses = experiment.subjects[name]
            bad = responses.bad_voxels(training_trials(responses, experiment.split))
            voxels = voxels & ~np.isin(np.arange(responses.n_voxels), bad)
        if not voxels.any():
            raise InputError(f"roi: '{config.roi}' of {name} has no voxels to learn from")
        data[name] = training_data(experiment, name, embedding, scaling=config.scaling, voxels=voxels)
    return embedding, data


def phases(config: Config, experiment: Experiment) -> list[Phase]:
    """What the fit will need, from shapes alone."""
    others = [name for name in experiment.subjects if name != experiment.target]
    sizes = [int(require_target_roi(experiment, config.roi, name).sum()) for name in others]
    trials = [len(training_trials(experiment.subjects[name], experiment.split)) for name in others]
    shape = config.shape(**embedding_shape(experiment, config.feature))
    return [training_phase("pretraining", shape, config.training(), n_voxels=sizes, n_trials=trials, train_shared=True)]


def fit(config: Config, experiment: Experiment, run: RunFolder) -> None:
    """Train, with checkpoints, to the end of the epochs; the result is the checkpoint 'decoder' of the run."""
    embedding, data = check(config, experiment)
    generator = seeded(config.seed)
    shared = SharedDecoder(config.shape(n_tokens=embedding.n_tokens, dim=embedding.dim))
    shared.initialise(generator)
    layers = [input_layer(d.responses.shape[1], config.hidden, generator, scale=config.input_scale) for d in data.values()]
    pairs = [(d.responses, d.target) for d in data.values()]
    trainer = DecoderTrainer(shared, layers, pairs, config.training(), generator, train_shared=True)
    run_to_end(trainer, f"pretraining on {len(data)} subjects", run, state=run.load(), phase="pretrain")
    result = {
        **decoder_state(shared, embedding),
        "subjects": list(data),
        "trained_on": sorted({name for d in data.values() for name in d.stimulus_ids}),
    }
    run.save(result, name=CHECKPOINT)
    run.finish(subjects=list(data), n_trials={name: len(d.stimulus_ids) for name, d in data.items()})
