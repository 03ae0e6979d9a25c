"""Pictures from a finished decoder: a small image decoder, a low-level branch, a diffusion prior.

Papers: MindEye2 (Scotti et al. 2024), which TROI builds on: low-level branch, diffusion prior, blend; TROI section 2.1
(equation 3: the prior's target is mixed too). Where, all in decoding/pictures: networks in picture_decoder.py,
image_autoencoder.py and diffusion_prior.py, losses in picture_training.py, scores and controls in reconstruction.py.

Differs from the papers and why:
- The image decoder is ours and small: it needs no weights, only the training images. `pulvinar reconstruct --generator` puts
  a large pretrained one in its place.
- The low-level branch reads the selected voxels, and is trained on the new subject alone; the papers pretrain it over
  subjects.
- `prior=linear` is the decoder's own regression head; `prior=diffusion` trains a prior on the finished decoder, on the new
  subject's trials (in the papers it is trained with the decoder, over subjects).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pulvinar.core import devices
from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.devices import DeviceSetting
from pulvinar.core.errors import InputError
from pulvinar.data.experiment import Experiment
from pulvinar.decoding.data import Trials
from pulvinar.decoding.decoder_checkpoint import has_layer
from pulvinar.decoding.decoder_runs import OpenedDecoder, open_decoder, require_decoder_run
from pulvinar.decoding.pictures.picture_decoder import GRID, SMALLEST_SIDE
from pulvinar.decoding.pictures.picture_parts import Parts, PartsShape, open_parts, pixels_of
from pulvinar.decoding.pictures.picture_training import (
    Loss,
    PartSettings,
    PartTrainer,
    as_pictures,
    low_level_loss,
    picture_loss,
    prior_loss,
)
from pulvinar.decoding.pictures.reconstruction import as_text, evaluate_pictures
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end, seeded
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.diffusion_prior import DiffusionPrior
from pulvinar.scores.published import published

Prior = Literal["linear", "diffusion"]
FEWEST_IMAGES = 16
# fewer are refused (ours): a decoder of pictures cannot be learnt from them


@dataclass(frozen=True, kw_only=True)
class Config(DeviceSetting):
    """Settings of the parts that make pictures."""

    seed: int = setting(
        0, "initial weights, order of images and trials, noise", at_least=0, below=LARGEST_SEED, heading="Image decoder"
    )
    picture_size: int = setting(
        64, "side of the pictures that the embedded decoder makes, in pixels", at_least=SMALLEST_SIDE, multiple_of=GRID
    )
    n_images: int = setting(20_000, "training images that the image decoder learns from, at most", above=0)
    n_components: int = setting(256, "principal components of the pixels, the embedded autoencoder's latents (ours)", above=0)
    width: int = setting(48, "channels of the image decoder (ours)", above=0, multiple_of=2)
    ridge: float = setting(0.01, "penalty of the image decoder's linear start, of each dimension's variance (ours)", at_least=0)
    epochs: int = setting(
        3, "passes of the image decoder over the training images; 0: its linear part alone (ours)", at_least=0
    )
    batch_size: int = setting(32, "images in a step (ours)", above=0, counts="epochs>0")
    learning_rate: float = setting(
        3e-4, "peak rate of AdamW of the image decoder, one-cycle (ours)", above=0, counts="epochs>0"
    )
    embedding_noise: float = setting(
        0.1,
        "noise on the embeddings that the image decoder learns from, in their spreads (ours)",
        at_least=0,
        counts="epochs>0",
    )
    autoencoder: str | None = setting(
        None,
        "folder of a diffusers AutoencoderKL or AutoencoderTiny for the low-level branch; none: the components",
        counts="low_level_epochs>0",
    )
    low_level_epochs: int = setting(
        60, "passes of the low-level branch over the trials; 0: no such branch (ours)", at_least=0, heading="Low-level branch"
    )
    low_level_hidden: int = setting(256, "width of the low-level branch (ours)", above=0, counts="low_level_epochs>0")
    low_level_dropout: float = setting(
        0.3,
        "share of voxels and hidden units dropped in its training (ours)",
        at_least=0,
        at_most=1,
        counts="low_level_epochs>0",
    )
    low_level_rate: float = setting(
        1e-3, "peak rate of AdamW of the low-level branch (ours)", above=0, counts="low_level_epochs>0"
    )
    contrastive: float = setting(
        0.1,
        "weight of the contrastive term beside L1 in the low-level branch (MindEye2: 0.1)",
        at_least=0,
        counts="low_level_epochs>0",
    )
    contrastive_temperature: float = setting(0.5, "of that term (ours)", above=0, counts="low_level_epochs>0 and contrastive>0")
    blend: float = setting(
        0.5,
        "share of the low-level picture in the blend of both, in pixels (ours; MindEye2: 0.25)",
        at_least=0,
        at_most=1,
        counts="low_level_epochs>0",
    )
    prior: Prior = setting(
        "linear", "linear: the decoder's regression head; diffusion: a prior trained on its output", heading="Prior"
    )
    prior_epochs: int = setting(
        60, "passes of the prior over the trials (papers: 150, with the decoder)", above=0, counts="prior=diffusion"
    )
    prior_rate: float = setting(3e-4, "peak rate of AdamW of the prior (MindEye2: 3e-4)", above=0, counts="prior=diffusion")
    prior_tokens: int = setting(
        1, "tokens that the embedding falls into (MindEye2: 256 of 1,664)", above=0, counts="prior=diffusion"
    )
    prior_layers: int = setting(6, "transformer layers of the prior (MindEye2: 6)", above=0, counts="prior=diffusion")
    prior_heads: int = setting(
        4, "attention heads of the prior (MindEye2: 32, with 52 wide each)", above=0, counts="prior=diffusion"
    )
    prior_head_dim: int = setting(32, "width of each head (MindEye2: 52)", above=0, counts="prior=diffusion")
    prior_samples: int = setting(
        8, "embeddings that are sampled and averaged for a picture (ours; papers: 1)", above=0, counts="prior=diffusion"
    )
    condition_dropout: float = setting(
        0.2,
        "share of rows without their condition in the prior's training (MindEye2: 0.2)",
        at_least=0,
        at_most=1,
        counts="prior=diffusion",
    )
    mix_prior_target: bool = setting(
        True, "mix the prior's target as its input (TROI equation 3); false: as MindEye2", counts="prior=diffusion"
    )
    mixed_share: float = setting(
        1 / 3,
        "first part of the prior's epochs with mixed trials (paper: 1/3)",
        at_least=0,
        at_most=1,
        counts="prior=diffusion",
    )
    mixing_beta: float = setting(
        0.2,
        "both parameters of the Beta distribution of the weights (paper: 0.2)",
        above=0,
        counts="prior=diffusion and mixed_share>0",
    )
    trial_batch_size: int = setting(
        24,
        "trials in a step of low-level branch and prior (paper: 24)",
        above=0,
        counts="low_level_epochs>0 or prior=diffusion",
    )
    weight_decay: float = setting(0.05, "of AdamW in all parts, not on biases and norms", at_least=0)
    measures: tuple[str, ...] = setting(
        (), "networks that compare pictures in the evaluation, beside those without weights (docs/pictures.md)"
    )
    weights: str | None = setting(
        None, "folder of files with the measures' weights; none: where their libraries keep them", counts="measures!=()"
    )

    def shape(self, *, dim: int, n_voxels: int) -> PartsShape:
        """What the networks are built from."""
        return PartsShape(
            dim=dim,
            n_voxels=n_voxels,
            picture_size=self.picture_size,
            width=self.width,
            autoencoder=self.autoencoder,
            low_level_hidden=self.low_level_hidden if self.low_level_epochs else 0,
            low_level_dropout=self.low_level_dropout,
            prior_tokens=self.prior_tokens if self.prior == "diffusion" else 0,
            prior_layers=self.prior_layers,
            prior_heads=self.prior_heads,
            prior_head_dim=self.prior_head_dim,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The experiment, and the training images (ids) that are learnt from, test images never among them."""

    experiment: Experiment
    train: list[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined(Prepared):
    """The same with the decoder's run, and the decoder where that run is the subject's own."""

    pretrained: RunFolder
    decoder: OpenedDecoder | None


def prepare(config: Config, experiment: Experiment) -> Prepared:
    """What can be wrong with the data; the training images."""
    train, stimuli = list(experiment.split.train), experiment.stimuli
    if stimuli.read_image is None:
        raise InputError("pictures need the images: these stimuli came without (images of the description, docs/data.md)")
    if len(train) < FEWEST_IMAGES:
        raise InputError(f"training images: {FEWEST_IMAGES} or more are needed to learn pictures from, {len(train)} came")
    if len(train) > config.n_images:
        chosen = np.random.default_rng([config.seed, 0x91C]).choice(len(train), config.n_images, replace=False)
        train = [train[row] for row in np.sort(chosen)]
    for name in (train[0], *experiment.split.test[:1]):
        height, width = stimuli.image(int(stimuli.rows([name])[0])).shape[:2]
        if min(height, width) < SMALLEST_SIDE:
            raise InputError(f"image of stimulus '{name}': {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels or more are needed, "
                             f"{width} x {height} came")  # fmt: skip
    responses = experiment.subjects[experiment.target]
    if not set(experiment.split.test) & set(responses.stimulus_ids):
        raise InputError(f"responses of {experiment.target}: no trial shows a test stimulus; there is nothing to reconstruct")
    return Prepared(experiment=experiment, train=train)


def join(config: Config, prepared: Prepared, pretrained: RunFolder | None) -> Joined:
    """What can be wrong with the decoder's run; the decoder."""
    if pretrained is None:
        raise InputError("picture_decoder needs a finished run of troi or cross_subject_decoder (--pretrained RUN)")
    result = require_decoder_run(pretrained).read("decoder")
    if result is None:
        raise InputError(f"{pretrained.path}: has no decoder checkpoint")
    dim = len(result["embedding"]["mean"])
    if config.prior == "diffusion" and dim % config.prior_tokens:
        raise InputError(f"prior_tokens: an embedding of {dim} numbers does not fall into {config.prior_tokens} equal tokens")
    decoder = open_decoder(pretrained, prepared.experiment) if has_layer(pretrained) else None
    return Joined(**vars(prepared), pretrained=pretrained, decoder=decoder)


def fit(config: Config, joined: Joined, run: RunFolder) -> None:
    """Train the parts one after the other, with checkpoints; the result is the checkpoint 'pictures' of the run."""
    experiment, train, pretrained = joined.experiment, joined.train, joined.pretrained
    state = run.load() or {"parts": {}, "adapted": None, "current": None, "trainer": None}
    decoder = joined.decoder or open_decoder(pretrained, experiment, adapted=state["adapted"])
    if state["adapted"] is None and joined.decoder is None:
        adapted = {"selected": torch.from_numpy(decoder.selected), "layer": dict(decoder.layer.state_dict())}
        state = {**state, "adapted": adapted}
        run.save(state)
    pixels = pixels_of(experiment, train, config.picture_size, "reading training images")
    trials = decoder.training(experiment)
    shape = config.shape(dim=len(decoder.embedding.mean), n_voxels=int(decoder.selected.sum()))
    parts = Parts.build(shape, as_pictures(pixels), n_components=config.n_components, seed=config.seed)
    parts.to(devices.current())
    for name, begin in _beginnings(config, experiment, decoder, parts, train, pixels, trials).items():
        if name not in state["parts"]:
            state = _train(config, name, begin, parts, state, run)
        getattr(parts, name).load_state_dict(state["parts"][name])
    result = {
        "components": dict(parts.components.state_dict()),
        "parts": state["parts"],
        "shape": shape.plain(),
        "n_components": parts.components.n_components,
        "adapted": state["adapted"],
        "trained_on": train,
        "blend": config.blend,
        "prior_samples": config.prior_samples,
        "pretrained": {"method": pretrained.method, "embedding": decoder.embedding.name},
    }
    run.save(result, name="pictures")
    run.finish(
        n_training_images=len(train),
        n_trials=len(trials.stimulus_ids),
        prior=config.prior,
        decoder_run=_path_to(pretrained.path.resolve(), run.path.resolve()),
    )


def _path_to(pretrained: Path, run: Path) -> str:
    """Relative where one lies in the other, so that they can be moved together; else absolute."""
    together = pretrained.is_relative_to(run) or run.is_relative_to(pretrained)
    return Path(os.path.relpath(pretrained, run) if together else pretrained).as_posix()


Begin = Callable[[torch.Generator], tuple[Loss, int, PartSettings]]


def _beginnings(
    config: Config,
    experiment: Experiment,
    decoder: OpenedDecoder,
    parts: Parts,
    train: list[str],
    pixels: torch.Tensor,
    trials: Trials,
) -> dict[str, Begin]:
    """Part -> what gives its network first weights, and its loss, number of rows and settings."""
    device = devices.current()

    def image_decoder(generator: torch.Generator) -> tuple[Loss, int, PartSettings]:
        embedding = decoder.embedding.of(experiment, train)
        latents = torch.cat([parts.components.encode(as_pictures(block.to(device))) for block in pixels.split(256)])
        parts.image_decoder.initialise(embedding.to(device), latents, generator, ridge=config.ridge)
        loss = picture_loss(parts.image_decoder, pixels, embedding, noise=config.embedding_noise)
        return loss, len(train), _settings(config, config.epochs, config.batch_size, config.learning_rate)

    def low_level(generator: torch.Generator) -> tuple[Loss, int, PartSettings]:
        branch = parts.require("low_level")
        branch.initialise(generator, scale=0.3)
        shown = list(dict.fromkeys(trials.stimulus_ids))
        seen = pixels_of(experiment, shown, parts.autoencoder.side, "reading the images of the trials")
        latents = torch.cat([parts.autoencoder.encode(as_pictures(block.to(device))).cpu() for block in seen.split(64)])
        row = {name: place for place, name in enumerate(shown)}
        of_trial = latents[torch.tensor([row[name] for name in trials.stimulus_ids])]
        loss = low_level_loss(
            branch,
            trials.responses,
            of_trial,
            contrastive=config.contrastive,
            temperature=config.contrastive_temperature,
        )
        settings = _settings(config, config.low_level_epochs, config.trial_batch_size, config.low_level_rate)
        return loss, len(trials.responses), settings

    def prior(generator: torch.Generator) -> tuple[Loss, int, PartSettings]:
        network: DiffusionPrior = parts.require("prior")
        network.initialise(generator)
        loss = prior_loss(
            network,
            decoder.output,
            trials.responses,
            trials.target,
            condition_dropout=config.condition_dropout,
            mixed_share=config.mixed_share,
            mixing_beta=config.mixing_beta,
            mix_target=config.mix_prior_target,
        )
        return loss, len(trials.responses), _settings(config, config.prior_epochs, config.trial_batch_size, config.prior_rate)

    every = {"image_decoder": image_decoder, "low_level": low_level, "prior": prior}
    return {name: begin for name, begin in every.items() if getattr(parts, name) is not None}


def _settings(config: Config, epochs: int, batch_size: int, rate: float) -> PartSettings:
    return PartSettings(epochs=epochs, batch_size=batch_size, learning_rate=rate, weight_decay=config.weight_decay)


def _train(config: Config, name: str, begin: Begin, parts: Parts, state: State, run: RunFolder) -> State:
    """One part to the end of its epochs; the state with its weights."""
    generator = seeded(config.seed, 8 + len(state["parts"]), n_streams=16)
    loss, n_rows, settings = begin(generator)
    trainer = PartTrainer(getattr(parts, name), loss, n_rows, settings, generator)
    run_to_end(
        trainer,
        f"training {name.replace('_', ' ')}",
        run,
        state=state["trainer"] if state["current"] == name else None,
        save=lambda reached: run.save({**state, "current": name, "trainer": reached}),
        phase=name,
    )
    weights = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    following = {**state, "parts": {**state["parts"], name: weights}, "current": None, "trainer": None}
    run.save(following)
    return following


def evaluate(run: RunFolder, experiment: Experiment, config: Config, *, controls: bool = True) -> dict[str, Any]:
    """All test images reconstructed and scored beside their controls; written into the run."""
    pictures = open_parts(run, experiment)
    return evaluate_pictures(
        run, experiment, pictures, measures=config.measures, weights=config.weights, controls=controls, seed=config.seed
    )


METHOD = Method(
    name="picture_decoder",
    config=Config,
    needs=("a finished run of troi (or cross_subject_decoder)", "the training images"),
    topic="pictures",
    published=published(
        "decoding", ("troi/table1", "mindeye2/table10"), metrics=("pixcorr", "ssim", "inception", "swav"), dataset="NSD subj1"
    ),
    pretrained="troi",
    prepare=prepare,
    join=join,
    fit=fit,
    evaluate=evaluate,
    table=as_text,
)
