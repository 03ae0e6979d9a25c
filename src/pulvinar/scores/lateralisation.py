"""Which half of the picture a model of a hemisphere looks at, freed of what is in the pictures by their mirror images.

    share_n = (l_n + l'_n) / 2,      index = mean_n [share_n(right hemisphere) - share_n(left hemisphere)]

(ours) l_n: share of salience in the left half of image n, l'_n: in the left half of its mirror image. Salience that follows
the content has l'_n = 1 - l_n, hence a share of 1/2; salience that keeps to a side has l'_n = l_n. The index lies in [-1, 1]:
positive where each hemisphere's model looks at the opposite (contralateral) half, 0 where they look alike.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores.resampling import bootstrap_shares, percentile_interval, sign_flip_p_value


@dataclass(frozen=True, kw_only=True)
class Lateralisation:
    """Index with its bootstrap interval and two-sided p, and the mean flip-corrected left share of either hemisphere.

    p_value: hemispheres swapped image by image (sign flips of the paired differences). n_left_out: images on which one of the
    models has no salience at all.
    """

    index: float
    low: float
    high: float
    p_value: float
    left_share_lh: float
    left_share_rh: float
    n_images: int
    n_left_out: int


def left_share(salience: Float[np.ndarray, "image height width"]) -> Float[np.ndarray, " image"]:
    """Share of the salience in the left half of each image, in [0, 1]; a middle column counts half; NaN without any.

    Raises `InputError` for negative salience, of which a share means nothing.
    """
    if (salience < 0).any():
        raise InputError(f"salience: 0 or more is needed, {float(salience.min()):.3g} came; rectify it (Grad-CAM does)")
    width = salience.shape[2]
    weight = np.clip(width / 2 - np.arange(width), 0.0, 1.0)
    columns = salience.astype(np.float64).sum(1)
    total = columns.sum(1)
    return columns @ weight / np.where(total > 0, total, np.nan)


def corrected_left_share(
    salience: Float[np.ndarray, "image height width"], mirrored: Float[np.ndarray, "image height width"]
) -> Float[np.ndarray, " image"]:
    """Mean of the left shares on the images and on their mirror images (`mirrored`, as they lie there); NaN without any."""
    return (left_share(salience) + left_share(mirrored)) / 2


def lateralisation(
    left_hemisphere: Float[np.ndarray, " image"],
    right_hemisphere: Float[np.ndarray, " image"],
    *,
    generator: np.random.Generator,
    n_permutations: int = 10_000,
    n_bootstrap: int = 2000,
) -> Lateralisation:
    """The index of two models from their corrected left shares on the same images; interval and test over images."""
    difference = right_hemisphere - left_hemisphere
    usable = np.isfinite(difference)
    if usable.sum() < 5:
        raise DegenerateError(f"lateralisation: both models have salience on {int(usable.sum())} images; 5 or more are needed")
    difference = difference[usable]
    shares = bootstrap_shares(len(difference), n_bootstrap, generator)
    low, high = percentile_interval(shares @ difference)
    return Lateralisation(
        index=float(difference.mean()),
        low=low,
        high=high,
        p_value=sign_flip_p_value(difference, generator=generator, n_permutations=n_permutations),
        left_share_lh=float(left_hemisphere[usable].mean()),
        left_share_rh=float(right_hemisphere[usable].mean()),
        n_images=int(usable.sum()),
        n_left_out=int((~usable).sum()),
    )
