"""Pretrain a decoder over subjects: an input layer each, everything behind it shared.

Paper: TROI (Wang et al., voxel selection for small-sample decoding), section 2.1, after MindEye2 (Scotti et al. 2024).
Where: equation 1 (MixCo) and 2-4 (losses) in training/decoding.py, targets in objectives/contrastive.py, network in
models/decoder.py.
Differs from the papers and why: the MLP is real and starts linear (models/decoder.py); epochs, rate, width and temperatures
are ours, chosen on planted worlds for hundreds of trials and a pooled embedding (the paper's: 150 epochs, 3e-4, 4096 wide,
temperatures .006 and .004-.0075 for 256 x 1664 tokens); the diffusion prior is a linear regression head here.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pulvinar.config import number_problems, setting
from pulvinar.data.experiment import Experiment, require_target_roi
from pulvinar.data.scaling import Mode
from pulvinar.data.splits import training_trials
from pulvinar.errors import InputError
from pulvinar.models.decoder import SharedDecoder, input_layer
from pulvinar.progress import bar, log
from pulvinar.training.decoding import DecoderTrainer, DecodingSettings
from pulvinar.training.decoding_data import Embedding, Trials, fit_embedding, training_data
from pulvinar.training.runs import RunFolder

NEEDS = ("responses of two or more subjects", "an annotated ROI in each but the target")
PUBLISHED: list[dict] = []


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the pretraining."""

    seed: int = setting(0, "initial weights, order of trials, mixing")
    feature: str | None = setting(None, "name of the embedding to decode; none: the only one there is")
    roi: str = setting("annotated", "ROI of the other subjects that is their input")
    scaling: Mode = setting("train_stats", "z-scoring of responses: train_stats or per_session (transductive)")
    drop_bad_voxels: bool = setting(False, "leave out constant and NaN voxels instead of refusing them")
    hidden: int = setting(256, "width of the shared decoder (papers: 4096)")
    n_blocks: int = setting(2, "residual blocks")
    dropout: float = setting(0.15, "share of hidden units dropped in training")
    epochs: int = setting(40, "passes over the trials (paper: 150)")
    batch_size: int = setting(24, "trials of each subject in a step (paper: 24)")
    learning_rate: float = setting(1e-3, "peak rate of AdamW, one-cycle (MindEye2: 3e-4)")
    weight_decay: float = setting(0.05, "of AdamW, not on biases and norms")
    mixed_share: float = setting(1 / 3, "first part of the epochs with MixCo, SoftCLIP afterwards (paper: 1/3)")
    mixing_beta: float = setting(0.2, "both parameters of the Beta distribution of MixCo weights (paper: 0.2)")
    temperature: float = setting(0.2, "of BiMixCo (MindEye2: 0.006, for long token embeddings)")
    soft_temperature: float = setting(0.2, "of SoftCLIP (MindEye2: 0.004 to 0.0075)")
    prior_weight: float = setting(5.0, "weight of the regression error beside the contrastive loss (epsilon of eq. 4)")
    input_scale: float = setting(0.1, "initial weights of input layers: normal, this over sqrt(n_voxels)")

    def problems(self) -> list[str]:
        """What is out of range."""
        wrong = []
        for name in ("hidden", "epochs", "batch_size", "learning_rate", "temperature", "soft_temperature", "mixing_beta"):
            if not getattr(self, name) > 0:
                wrong.append(f"cross_subject_decoder.{name} is above 0, not {getattr(self, name)}")
        for name in ("n_blocks", "weight_decay", "prior_weight", "input_scale"):
            if not getattr(self, name) >= 0:
                wrong.append(f"cross_subject_decoder.{name} is 0 or more, not {getattr(self, name)}")
        wrong += number_problems("cross_subject_decoder", self)
        for name in ("mixed_share", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                wrong.append(f"cross_subject_decoder.{name} lies in [0, 1], not {getattr(self, name)}")
        return wrong

    def decoding(self) -> DecodingSettings:
        """What the trainer needs of these."""
        return DecodingSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            mixed_share=self.mixed_share,
            mixing_beta=self.mixing_beta,
            temperature=self.temperature,
            soft_temperature=self.soft_temperature,
            prior_weight=self.prior_weight,
        )


def check(config: Config, experiment: Experiment) -> tuple[Embedding, dict[str, Trials]]:
    """Everything that can be wrong with the input, before a run folder is made; and the training data."""
    others = [name for name in experiment.subjects if name != experiment.target]
    if not others:
        raise InputError(f"pretraining needs subjects beside the target {experiment.target}; fit troi with pretrain=false")
    embedding = fit_embedding(experiment, config.feature)
    data = {}
    for name in others:
        voxels = require_target_roi(experiment, config.roi, name)
        if config.drop_bad_voxels:
            responses = experiment.subjects[name]
            bad = responses.bad_voxels(training_trials(responses, experiment.split))
            voxels = voxels & ~np.isin(np.arange(responses.n_voxels), bad)
        if not voxels.any():
            raise InputError(f"ROI '{config.roi}' of {name} has no voxels to learn from")
        data[name] = training_data(experiment, name, embedding, scaling=config.scaling, voxels=voxels)
    return embedding, data


def fit(config: Config, experiment: Experiment, run: RunFolder) -> None:
    """Train, with checkpoints, to the end of the epochs; the result is the checkpoint 'decoder' of the run."""
    embedding, data = check(config, experiment)
    generator = torch.Generator().manual_seed(config.seed)
    dim = len(embedding.mean)
    shared = SharedDecoder(hidden=config.hidden, dim=dim, n_blocks=config.n_blocks, dropout=config.dropout)
    shared.initialise(generator)
    layers = [input_layer(d.responses.shape[1], config.hidden, generator, scale=config.input_scale) for d in data.values()]
    pairs = [(d.responses, d.target) for d in data.values()]
    trainer = DecoderTrainer(shared, layers, pairs, config.decoding(), generator, train_shared=True)
    if state := run.load():
        trainer.restore(state)
        log(f"resumed after epoch {trainer.epoch}")
    with bar(f"pretraining on {len(data)} subjects", config.epochs) as shown:
        shown.advance(trainer.epoch)
        while not trainer.done:
            loss = trainer.run_epoch()
            run.log(phase="pretrain", epoch=trainer.epoch, loss=loss)
            shown.advance(note=f"loss {loss:.3f}")
            if run.due() and not trainer.done:
                run.save(trainer.state())
    result = {
        "shared": dict(shared.state_dict()),
        "architecture": {"hidden": config.hidden, "dim": dim, "n_blocks": config.n_blocks, "dropout": config.dropout},
        "embedding": {"name": embedding.name, "mean": torch.from_numpy(np.asarray(embedding.mean)), "spread": embedding.spread},
        "subjects": list(data),
        "trained_on": sorted({name for d in data.values() for name in d.stimulus_ids}),
    }
    run.save(result, name="decoder")
    run.finish(subjects=list(data), n_trials={name: len(d.stimulus_ids) for name, d in data.items()})
