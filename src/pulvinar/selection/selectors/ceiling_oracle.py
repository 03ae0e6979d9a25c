"""The largest noise ceilings: those released with the data, or from all trials, the test trials among them."""

import numpy as np
from jaxtyping import Float

from pulvinar.core.errors import DegenerateError
from pulvinar.scores.noise_ceiling import signal_to_noise
from pulvinar.selection.selector import Evidence, Selector


def score(evidence: Evidence) -> Float[np.ndarray, " voxel"]:
    """Ceiling or ncsnr from data that no selection may see; `DegenerateError` where too few stimuli have repeats."""
    responses, candidates = evidence.known.responses, evidence.known.candidates
    if responses.noise_ceiling is not None:
        return responses.noise_ceiling[candidates]
    every = responses.read(np.arange(responses.n_trials), candidates)
    sd = every.std(0)
    found = signal_to_noise((every - every.mean(0)) / np.where(sd > 0, sd, 1), list(responses.stimulus_ids))
    if found.ncsnr is None:
        raise DegenerateError(found.reason)
    return found.ncsnr


def describe(evidence: Evidence) -> str:
    """With where the ceilings come from."""
    released = evidence.known.responses.noise_ceiling is not None
    return "largest noise ceiling, oracle: has seen the test trials" + (" (released)" if released else "")


SELECTOR = Selector(
    name="ceiling_oracle", label="Noise ceiling (oracle)", description=describe, score=score, oracle=True, place=5
)
