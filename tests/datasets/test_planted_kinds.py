"""Kinds of planted worlds. Oracles: what each promises (signal, copies, shared noise, places), measured on many trials."""

from typing import get_args

import numpy as np
import pytest

from pulvinar.datasets.simulated import Config, plant_subject
from pulvinar.datasets.simulated.settings import Kind

KINDS = get_args(Kind)
AREAS = ("energy", "colour", "middle", "late")
N_STIMULI, N_TRIALS = 200, 1200


def subject(kind, *, seed=0, n_trials=N_TRIALS):
    """Responses (trial, voxel), the features of what was shown by area, the truth, and places of voxels."""
    rng = np.random.default_rng([seed, 5])
    areas = {name: rng.standard_normal((N_STIMULI, 12)) / np.arange(1, 13) for name in AREAS}
    rows = rng.integers(0, N_STIMULI, n_trials)
    config = Config(kind=kind, n_subjects=1, n_voxels=600, responsive_share=0.4, ceiling_median=0.3)
    ids = [f"image{row}" for row in range(N_STIMULI)]
    responses, truth = plant_subject(config, "new", [(1, rows)], ids, areas, np.random.default_rng([seed, 6]))
    shown = np.column_stack([features[rows] for features in areas.values()])
    return responses.read(np.arange(n_trials)), shown, truth, np.array(responses.geometry.grid_place).T


@pytest.fixture(scope="module")
def subjects():
    return {kind: subject(kind) for kind in KINDS}


def explained(values, known):
    """R2 (voxel,) of a regression on what is known (trial, column)."""
    known = np.column_stack([np.ones(len(known)), known])
    return 1 - (values - known @ np.linalg.lstsq(known, values, rcond=None)[0]).var(0) / values.var(0)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_variance_is_one_and_signal_is_what_the_ceiling_says(subjects, kind):
    """Drifts carry over trials, so their variance over 1,200 of them spreads more; a gain takes a part of the signal away."""
    values, shown, truth, _ = subjects[kind]
    assert np.median(values.std(0)) == pytest.approx(
        1, abs=0.1
    )  # smooth noise is scaled by one trial's: .93 in so small a head
    assert np.abs(values.std(0) - 1).max() < 0.5
    some = truth["responsive"]
    ceiling = truth["noise_ceiling"]
    share = ceiling / (3 - 2 * ceiling)
    error = explained(values, shown)[some] - share[some] - (1 - share[some]) * shown.shape[1] / len(values)
    assert np.median(error) == pytest.approx(0, abs=0.04)
    assert np.abs(error).max() < 0.2


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_plants_the_same_subject(kind):
    first, again, other = (subject(kind, seed=seed, n_trials=20)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def residuals(values, shown):
    known = np.column_stack([np.ones(len(shown)), shown])
    return values - known @ np.linalg.lstsq(known, values, rcond=None)[0]


@pytest.mark.long
def test_early_areas_are_strong_and_narrow_where_areas_are_unequal(subjects):
    """Oracle: of the early features the first 4 columns span all that early voxels follow."""
    values, shown, truth, _ = subjects["unequal"]
    early, late = np.isin(truth["area"], (1, 2)), np.isin(truth["area"], (3, 4))
    assert np.median(truth["noise_ceiling"][early]) > 1.8 * np.median(truth["noise_ceiling"][late])
    narrow, whole = (explained(values[:, early], shown[:, columns]).mean() for columns in (np.r_[:4, 12:16], np.r_[:24]))
    assert whole - narrow < 0.01
    assert explained(values[:, late], shown[:, np.r_[:4, 12:16]]).mean() < 0.01
    plain = subjects["plain"]
    early = np.isin(plain[2]["area"], (1, 2))
    narrow, whole = (explained(plain[0][:, early], shown[:, columns]).mean() for columns in (np.r_[:4, 12:16], np.r_[:24]))
    assert whole - narrow > 0.01


def closest(matrix, n):
    """Mean of the n largest of each row, the diagonal left out."""
    matrix = np.abs(matrix - np.diag(np.diagonal(matrix)))
    return np.sort(matrix, axis=1)[:, -n:].mean(1)


def test_patches_share_their_noise_and_their_tuning(subjects):
    """Half of the variance is noise in common, so residuals of a patch correlate by .5 over what signal leaves; 14 others."""
    for kind, least, most in (("redundant", 0.5, 1.0), ("plain", 0.0, 0.45)):
        values, shown, truth, _ = subjects[kind]
        core = truth["noise_ceiling"] > 0.4 if kind == "redundant" else truth["responsive"]
        near = closest(np.corrcoef(residuals(values[:, core & truth["responsive"]], shown).T), 8)
        assert least < np.median(near) < most, kind


def test_carriers_hold_the_echo_of_responsive_voxels_and_no_image(subjects):
    values, shown, truth, _ = subjects["suppress"]
    carrier, some = truth["carrier"], truth["responsive"]
    assert carrier.sum() == 60
    assert not (carrier & (some | truth["irrelevant"])).any()
    assert explained(values[:, carrier], shown).mean() == pytest.approx(shown.shape[1] / len(values), abs=0.01)
    noise = residuals(values, shown)
    silent = ~carrier & ~some & ~truth["irrelevant"]
    others = np.flatnonzero(silent)[:60]
    assert np.median(explained(noise[:, some], noise[:, carrier])) > 0.35
    assert np.median(explained(noise[:, some], noise[:, others])) < 0.25


def test_eight_factors_hide_two_fifths_of_the_voxels(subjects):
    values, shown, truth, _ = subjects["hidden"]
    some = np.flatnonzero(truth["responsive"])
    noise = residuals(values[:, some], shown)
    left, singular, _ = np.linalg.svd(noise, full_matrices=False)
    by_factors = explained(noise, left[:, :8] * singular[:8])
    assert (by_factors > 0.6).mean() == pytest.approx(0.4, abs=0.04)
    hidden = truth["noise_ceiling"][some][by_factors > 0.6]
    assert np.median(hidden) < 0.6 * np.median(truth["noise_ceiling"][some][by_factors <= 0.6])


def test_areas_apart_lie_in_two_pieces_and_one_is_missing(subjects):
    """Oracle: mean distance of an area's voxels to its middle."""
    widths = {}
    for kind in ("plain", "apart"):
        _, _, truth, place = subjects[kind]
        there = np.unique(truth["area"])[1:]
        widths[kind] = np.mean([np.linalg.norm(p - p.mean(0), axis=1).mean()
                                for p in (place[truth["area"] == number] for number in there)])  # fmt: skip
        assert len(there) == (3 if kind == "apart" else 4)
    assert widths["apart"] > 1.2 * widths["plain"]


@pytest.mark.long
def test_drifts_are_slow_and_touch_all_voxels(subjects):
    def slow(kind):
        values = subjects[kind][0] - subjects[kind][0].mean(0)
        left, singular, _ = np.linalg.svd(values, full_matrices=False)
        course = left[:, 0] * singular[0]
        return np.corrcoef(course[:-20], course[20:])[0, 1]

    assert slow("drift") > 0.4
    assert slow("plain") < 0.2
