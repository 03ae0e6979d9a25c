"""Units of work of an encoding run, one after the other, resumable inside each: fit a subject's encoder, choose between two.

Ridge is not shared among processes: the first does these units alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log, warn
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.encoder import EncoderSettings, EncoderTrainer, Folds, Layers
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end
from pulvinar.learning.processes import first_alone
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.encoding import mean_or_none

LEAST_FALL = 0.005  # of the held-out error from the last but one alpha to the largest, as a share of a voxel's variance
PREDICTED_R2, FEWEST_PREDICTED, LARGEST_SHARE = 0.02, 0.05, 0.2  # predicted by a layer; share of all; share of the predicted

UNTUNED, TUNED = "untuned", "tuned"
LEAST_GAIN = 0.002  # in R^2 (ours): on 100 images smaller gains are chance, and the epoch was chosen on these images too

# A piece of a fit: (run, state, save). state: where an interrupted one stood; save keeps where this one stands.
Unit = Callable[[RunFolder, State | None, Callable[[State], None]], None]


def run_units(run: RunFolder, units: Sequence[Unit]) -> None:
    """All units in order; a killed run goes on inside the unit where it was."""
    state = run.load() or {"unit": 0, "inside": None}
    for number in range(int(state["unit"]), len(units)):

        def save(inside: State, number: int = number) -> None:
            run.save({"unit": number, "inside": inside})

        units[number](run, state["inside"], save)
        state = {"unit": number + 1, "inside": None}
        if number + 1 < len(units):
            run.save(state)


def encoder_unit(
    given: EncodedSubject,
    layers: Callable[[], Layers],
    settings: EncoderSettings,
    *,
    name: str = "encoder",
    folds: Folds | None = None,
    network: str | None = None,
) -> Unit:
    """Choose layers and penalties of one subject and fit all its training images: the checkpoint NAME-SUBJECT of the run.

    network: tag of the run's network whose layers these are, kept with the encoder; None where a run has no networks.
    """

    def fit_alone(run: RunFolder, state: State | None, save: Callable[[State], None]) -> None:
        trainer = given.trainer(layers(), settings, folds=folds)
        run_to_end(trainer, f"{given.name}: choosing layers and penalties", run, state=state, save=save)
        encoder = trainer.fit()
        _warn_of_small_alphas(given.name, trainer)
        if network is not None:
            encoder["network"] = network
        run.log(subject=given.name, checkpoint=name, **_summary(encoder))
        encoder["voxels"], encoder["n_voxels"] = torch.from_numpy(given.voxels), given.responses.n_voxels
        run.save(encoder, name=f"{name}-{given.name}")

    return lambda run, state, save: first_alone(lambda: fit_alone(run, state, save))


def _summary(encoder: State) -> dict[str, Any]:
    names, layers = list(encoder["names"]), encoder["layers"].numpy()
    return {
        "n_voxels": len(layers),
        "share_of_layer": {name: float((layers == number).mean()) for number, name in enumerate(names)},
        "median_penalty": float(np.median(encoder["penalties"].numpy())),
    }


def _warn_of_small_alphas(name: str, trainer: EncoderTrainer) -> None:
    """Where held-out errors of many voxels still fall at the largest alpha: a larger one would predict them better."""
    alphas, settings = np.array(trainer.settings.alphas), trainer.settings
    if settings.regression != "ridge" or settings.layer_choice == "banded" or len(alphas) < 2:
        return
    before, last = np.argsort(alphas)[-2:]
    falls = (trainer.scores[:, last] - trainer.scores[:, before]) / trainer.variance.clamp(min=1e-12)  # (layer, voxel)
    predicted = trainer.held_out_scores() > PREDICTED_R2
    short = (falls.numpy() > LEAST_FALL) & predicted
    shares = np.where(predicted.mean(1) > FEWEST_PREDICTED, short.sum(1) / np.maximum(predicted.sum(1), 1), 0)
    named = zip(trainer.layers, shares, strict=True)
    layers = [f"{layer} ({100 * share:.0f} %)" for layer, share in named if share > LARGEST_SHARE]
    if layers:
        warn(
            f"{name}: alphas end too low, at {alphas.max():g}: held-out errors of many voxels that these layers predict still "
            f"fall there: {', '.join(layers)}; give larger ones"
        )


def load_encoder(run: RunFolder, subject: str, *, name: str = "encoder") -> State:
    """A fitted encoder of a run; `InputError` where there is none."""
    encoder = run.read(f"{name}-{subject}")
    if encoder is None:
        raise InputError(f"{run.path}: has no checkpoint {name}-{subject}")
    if "backbone" in encoder:  # as older runs call it
        encoder["network"] = encoder.pop("backbone")
    return encoder


def choice_unit(given: EncodedSubject, untuned: Callable[[], Layers], settings: EncoderSettings, folds: Folds) -> Unit:
    """Makes encoder-SUBJECT that of the better network, with `choice` (R^2 of both, images) in it; the paper: the tuned one.

    Both are compared on the training images that were held out from tuning: the mean over the encoded voxels of the R^2 that
    each voxel's chosen layer and penalty has on them, the same folds and the same choices for both. The untuned one encodes
    unless the tuned one is better by LEAST_GAIN; then its encoder is the one whose layers and penalties were chosen by folds
    over all training images, and the encoder on the tuned one stays as tuned-SUBJECT. No test image takes part.
    untuned: layers of the training images. folds: hold out images that the network was not tuned on.
    """

    def choose_alone(run: RunFolder, state: State | None, save: Callable[[State], None]) -> None:
        tuned = run.read(f"{TUNED}-{given.name}") or load_encoder(run, given.name)
        trainer = given.trainer(untuned(), settings, folds=folds)
        run_to_end(trainer, f"{given.name}: tuned or untuned network", run, state=state, save=save)
        layers, _ = trainer.choice()
        r2 = {UNTUNED: _mean(trainer.held_out_scores(), layers), TUNED: _mean(tuned["layer_scores"], tuned["layers"])}
        choice = {**r2, "n_images": int(sum(len(held_out) for _, held_out in folds))}
        kept = TUNED if r2[TUNED] > r2[UNTUNED] + LEAST_GAIN else UNTUNED
        run.log(subject=given.name, encoded_with=kept, **{f"held_out_r2_{name}": value for name, value in r2.items()})
        if kept == TUNED:
            run.save({**tuned, "choice": choice}, name=f"encoder-{given.name}")
            return
        log(
            f"{given.name}: tuning did not help (R^2 on {choice['n_images']} held-out training images {r2[TUNED]:.4f}, untuned "
            f"{r2[UNTUNED]:.4f}); the untuned network encodes. fall_back=false encodes with the tuned one"
        )
        run.save(tuned, name=f"{TUNED}-{given.name}")
        run.save({**load_encoder(run, given.name, name=UNTUNED), "choice": choice}, name=f"encoder-{given.name}")

    return lambda run, state, save: first_alone(lambda: choose_alone(run, state, save))


def _mean(scores: np.ndarray | torch.Tensor, layers: np.ndarray | torch.Tensor) -> float:
    """Mean of the chosen layer's R^2 over the voxels that vary. scores: (layer, voxel), NaN for others; layers: (voxel,)."""
    every, chosen = np.asarray(scores), np.asarray(layers)
    return mean_or_none(every[chosen, np.arange(len(chosen))]) or 0.0
