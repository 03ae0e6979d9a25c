"""Pretrain a decoder over subjects: an input layer each, everything behind it shared.

Paper: TROI (Wang et al., voxel selection for small-sample decoding), section 2.1, after MindEye2 (Scotti et al. 2024).
Where: equation 1 (MixCo) and 2-4 (losses) in decoding/decoder_training.py, targets in learning/contrastive.py, network in
networks/decoder.py, settings in decoding/settings.py.
Differs from the papers and why: the MLP is real and starts linear (mixer=compat is MindEye2's); epochs, rate, width and
temperatures are ours, chosen on planted worlds for hundreds of trials and a pooled embedding; a linear regression head stands
where the papers train a diffusion prior, unless prior=diffusion.
"""

from dataclasses import dataclass

from pulvinar.core.config import setting
from pulvinar.core.errors import InputError
from pulvinar.core.notebook import counted
from pulvinar.data.experiment import Experiment, require_target_roi
from pulvinar.data.splits import training_trials
from pulvinar.decoding.data import (
    Embedding,
    Trials,
    embedding_shape,
    fit_embedding,
    refuse_copied_responses,
    scaled_trials,
)
from pulvinar.decoding.decoder_checkpoint import CHECKPOINT, decoder_state
from pulvinar.decoding.decoder_size import Phase, training_phase
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.learning.loop import run_to_end, seeded
from pulvinar.learning.method import Method
from pulvinar.learning.processes import require_rows
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer
from pulvinar.networks.diffusion_prior import require_diffusers


@dataclass(frozen=True, kw_only=True)
class Config(DecodingSettings):
    """Settings of the pretraining."""

    roi: str = setting("annotated", "ROI of the other subjects that is their input")

    def idle(self) -> dict[str, str]:
        """Settings of MixCo, where no epoch has it (stage 1 of troi always has)."""
        return (
            {} if self.mixed_share > 0 else dict.fromkeys(("temperature", "mixing_beta"), "it counts with mixed_share>0 only")
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The embedding to decode, and the training trials of each subject but the target."""

    embedding: Embedding
    trials: dict[str, Trials]


def prepare(config: Config, experiment: Experiment) -> Prepared:
    """The training trials of the other subjects, and the embedding; raises what is wrong with them."""
    if config.prior == "diffusion":
        require_diffusers()
    others = _others(experiment)
    refuse_copied_responses(experiment, others)
    embedding = fit_embedding(experiment, config.feature, centre=config.centre)
    trials = {}
    for name in others:
        voxels = require_target_roi(experiment, config.roi, name)
        own = scaled_trials(experiment, name, scaling=config.scaling, voxels=voxels, drop_bad_voxels=config.drop_bad_voxels)
        require_rows(min(config.batch_size, len(own.responses)))
        trials[name] = own.with_target(experiment, embedding)
    return Prepared(embedding=embedding, trials=trials)


def _others(experiment: Experiment) -> list[str]:
    """The subjects but for the target; `InputError` where there are none."""
    others = [name for name in experiment.subjects if name != experiment.target]
    if not others:
        raise InputError(f"pretraining needs subjects beside the target {experiment.target}; without them set pretrain=false")
    return others


def phases(config: Config, experiment: Experiment, shape: DecoderShape | None = None) -> list[Phase]:
    """What the fit will need, from shapes alone."""
    others = _others(experiment)
    sizes = [int(require_target_roi(experiment, config.roi, name).sum()) for name in others]
    trials = [len(training_trials(experiment.subjects[name], experiment.split)) for name in others]
    shape = shape or config.shape(**embedding_shape(experiment, config.feature))
    return [training_phase("pretraining", shape, config, n_voxels=sizes, n_trials=trials, train_shared=True)]


def fit(config: Config, prepared: Prepared, run: RunFolder) -> None:
    """Train, with checkpoints, to the end of the epochs; the result is the checkpoint 'decoder' of the run."""
    embedding, data = prepared.embedding, prepared.trials
    generator = seeded(config.seed)
    shared = SharedDecoder(config.shape(n_tokens=embedding.n_tokens, dim=embedding.dim))
    shared.initialise(generator)
    layers = [input_layer(d.responses.shape[1], config.hidden, generator, scale=config.input_scale) for d in data.values()]
    pairs = [(d.responses, d.target) for d in data.values()]
    trainer = DecoderTrainer(shared, layers, pairs, config, generator, train_shared=True)
    run_to_end(trainer, f"pretraining on {counted(len(data), 'subject')}", run, state=run.load(), phase="pretrain")
    result = {
        **decoder_state(shared, embedding),
        "subjects": list(data),
        "trained_on": sorted({name for d in data.values() for name in d.stimulus_ids}),
    }
    run.save(result, name=CHECKPOINT)
    run.finish(subjects=list(data), n_trials={name: len(d.stimulus_ids) for name, d in data.items()})


METHOD = Method(
    name="cross_subject_decoder",
    config=Config,
    needs=("responses of two or more subjects", "an annotated ROI in each but the target"),
    on_several_devices=True,
    keeps_memory=("fit",),
    prepare=prepare,
    fit=fit,
    phases=phases,
)
