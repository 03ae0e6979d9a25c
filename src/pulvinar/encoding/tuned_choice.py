"""Which backbone encodes a subject: the tuned one, or the untuned where tuning did not help (ours; the paper: the tuned one).

Both are compared on the training images that were held out from tuning: the mean over the encoded voxels of the R^2 that each
voxel's chosen layer and penalty has on them, the same folds and the same choices for both. The untuned one encodes unless the
tuned one is better by LEAST_GAIN; then its encoder is the one whose layers and penalties were chosen by folds over all training
images. No test image takes part.
"""

from collections.abc import Callable

import numpy as np
import torch

from pulvinar.core.progress import log
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.encoder import EncoderSettings, Folds, Layers
from pulvinar.encoding.fit import Unit, load_encoder
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.encoding import mean_or_none

UNTUNED, TUNED = "untuned", "tuned"
LEAST_GAIN = 0.002  # in R^2 (ours): on 100 images smaller gains are chance, and the epoch was chosen on these images too


def choice_unit(given: EncodedSubject, untuned: Callable[[], Layers], settings: EncoderSettings, folds: Folds) -> Unit:
    """Makes encoder-SUBJECT that of the better backbone, with `choice` (R^2 of both, images) in it.

    Where that is the untuned one, the encoder on the tuned one stays as tuned-SUBJECT. untuned: layers of the training images.
    folds: hold out images that the backbone was not tuned on.
    """

    def work(run: RunFolder, state: State | None, save: Callable[[State], None]) -> None:
        tuned = run.read(f"{TUNED}-{given.name}") or load_encoder(run, given.name)
        trainer = given.trainer(untuned(), settings, folds=folds)
        run_to_end(trainer, f"{given.name}: tuned or untuned backbone", run, state=state, save=save)
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
            f"{r2[UNTUNED]:.4f}); the untuned backbone encodes. fall_back=false encodes with the tuned one"
        )
        run.save(tuned, name=f"{TUNED}-{given.name}")
        run.save({**load_encoder(run, given.name, name=UNTUNED), "choice": choice}, name=f"encoder-{given.name}")

    return work


def _mean(scores: np.ndarray | torch.Tensor, layers: np.ndarray | torch.Tensor) -> float:
    """Mean of the chosen layer's R^2 over the voxels that vary. scores: (layer, voxel), NaN for others; layers: (voxel,)."""
    every, chosen = np.asarray(scores), np.asarray(layers)
    return mean_or_none(every[chosen, np.arange(len(chosen))]) or 0.0
