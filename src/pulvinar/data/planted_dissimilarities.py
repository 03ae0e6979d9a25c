"""RDMs of made-up subjects from known scales of a network's stages: the truth that a fit has to find again.

The embedding of an image is the concatenation of its stages' features, each times its scale; the RDM is the correlation
distance of every pair of embeddings. A subject sees it through noise; in MEG it comes and goes, strongest mid-window.
"""

from collections.abc import Mapping

import numpy as np

from pulvinar.core.errors import InputError, NotFoundError

Features = Mapping[str, np.ndarray]  # stage -> (image, ..., channel)
Scales = Mapping[str, float | np.ndarray]  # stage -> one number, or one per channel
LARGEST_DISTANCE = 2.0  # of a correlation distance


def embedding_rdm(features: Features, scales: Scales) -> np.ndarray:
    """1 - Pearson r of the scaled, concatenated features of every pair of images: (image, image), in [0, 2].

    Raises `NotFoundError` for a stage without a scale or a scale without a stage, `InputError` where counts differ.
    """
    if set(features) != set(scales):
        raise NotFoundError(f"stages are {', '.join(features)}, but scales came for {', '.join(scales) or 'none'}")
    parts = []
    for stage, values in features.items():
        scale = np.asarray(scales[stage], np.float64)
        if scale.ndim and scale.shape != values.shape[-1:]:
            raise InputError(f"scales of '{stage}': one, or one for each of {values.shape[-1]} channels; {scale.shape} came")
        parts.append((values * scale).reshape(len(values), -1))
    lengths = {stage: len(values) for stage, values in features.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"features of the stages are of different numbers of images: {lengths}")
    rdm = np.asarray(1 - np.corrcoef(np.concatenate(parts, axis=1)))
    np.fill_diagonal(rdm, 0)
    return np.clip((rdm + rdm.T) / 2, 0, LARGEST_DISTANCE)


def subject_rdms(rdm: np.ndarray, *, n_subjects: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The RDM as `n_subjects` would show it: (subject, image, image) in [0, 2], each with its own noise.

    noise: its standard deviation in units of the standard deviation of the RDM over pairs. At each pair it is cut off at the
    same distance above and below, where the nearer of 0 and 2 lies: so the mean over many subjects is the RDM itself.
    """
    spread = _spread(rdm)
    return np.stack([_add(rdm, noise * spread * _pair_noise(len(rdm), rng)) for _ in range(n_subjects)])


def timed_subject_rdms(
    rdm: np.ndarray, *, n_subjects: int, course: np.ndarray, noise: float, carry: float, rng: np.random.Generator
) -> np.ndarray:
    """The RDM over time: (subject, time, image, image), with d(t) = m + course(t) (d - m) + noise, m the mean over pairs.

    course: (time,) how much of the RDM shows at each time, 0 to 1. carry: correlation of the noise between successive times.
    """
    spread, middle = _spread(rdm), rdm[np.triu_indices(len(rdm), 1)].mean()
    subjects = np.empty((n_subjects, len(course), *rdm.shape))
    for subject in subjects:
        drift = _pair_noise(len(rdm), rng)
        for time, share in enumerate(course):
            if time:
                drift = carry * drift + np.sqrt(1 - carry**2) * _pair_noise(len(rdm), rng)
            subject[time] = _add(middle + share * (rdm - middle), noise * spread * drift)
    return subjects


def gaussian_course(n_times: int, width: float) -> np.ndarray:
    """(time,) 1 in the middle of the window, falling off as a Gaussian of standard deviation `width` window lengths."""
    place = np.linspace(0, 1, n_times) if n_times > 1 else np.array([0.5])
    return np.exp(-((place - 0.5) ** 2) / (2 * width**2))


def _spread(rdm: np.ndarray) -> float:
    return float(rdm[np.triu_indices(len(rdm), 1)].std())


def _pair_noise(n_images: int, rng: np.random.Generator) -> np.ndarray:
    """Symmetric noise of unit variance: half from the pair alone, half from its two images (a noisy image has a noisy row)."""
    pair = rng.standard_normal((n_images, n_images))
    image = rng.standard_normal(n_images)
    alone = np.triu(pair, 1)
    return np.sqrt(0.5) * (alone + alone.T) + 0.5 * (image[:, None] + image[None, :])


def _add(rdm: np.ndarray, noise: np.ndarray) -> np.ndarray:
    room = np.minimum(rdm, LARGEST_DISTANCE - rdm)
    noisy = rdm + np.clip(noise, -room, room)
    np.fill_diagonal(noisy, 0)
    return noisy
