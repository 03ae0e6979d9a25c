"""The largest noise ceilings, from repeated trials of the training data."""

import numpy as np
from jaxtyping import Float

from pulvinar.core.errors import DegenerateError
from pulvinar.scores.noise_ceiling import SignalToNoise, signal_to_noise
from pulvinar.selection.selector import Evidence, Selector


def own(evidence: Evidence) -> SignalToNoise:
    """Signal to noise over repeats of a stimulus; of a class, where classes were shown (one repeated class is enough)."""
    least = {} if evidence.labels is None else {"minimum_repeated_stimuli": 1}
    return signal_to_noise(evidence.responses, evidence.stimuli, **least)


def score(evidence: Evidence) -> Float[np.ndarray, " voxel"]:
    """ncsnr; `DegenerateError` where too few stimuli have repeats."""
    found = evidence.once(own)
    if found.ncsnr is None:
        raise DegenerateError(found.reason)
    return found.ncsnr


def describe(evidence: Evidence) -> str:
    """With the number of stimuli it rests on."""
    n_repeated = int((np.unique(np.asarray(evidence.stimuli), return_counts=True)[1] > 1).sum())
    return f"largest noise ceiling, own training data ({n_repeated} repeated stimuli)"


SELECTOR = Selector(
    name="ceiling",
    label="Noise ceiling",
    description=describe,
    score=score,
    missing=lambda evidence: evidence.once(own).reason or None,
    place=4,
)
