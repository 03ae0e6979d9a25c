"""Oracles: planted scales, a loop over single columns, the unequal treatment of held-out images, time windows by hand."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch

from pulvinar.core.errors import InputError
from pulvinar.rsa.aggregation import (
    Candidate,
    Columns,
    Layout,
    MeasuredRDMs,
    folds_of_images,
    held_out_score,
    nested_scales,
    pairs_of,
    train_scales,
)
from pulvinar.rsa.aggregation_settings import AggregationConfig
from pulvinar.rsa.stage_mask import feature_products

SETTINGS = AggregationConfig(epochs=60, learning_rate=0.05, n_inner_folds=3)
GROUPS = [str(row) for row in range(24)]


def features(n_images=24, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return feature_products(
        {
            "early": torch.randn(n_images, 8, 3, 3, generator=generator, dtype=dtype),
            "late": torch.randn(n_images, 6, 1, 1, generator=generator, dtype=dtype),
        }
    )


def planted(found, seed=1, n_subjects=4, noise=0.02):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(found.n_scales, 1, generator=generator) * 2
    rdm = found.rdm(truth)[:, 0]
    return truth[:, 0], rdm + noise * torch.randn(n_subjects, 1, len(rdm), generator=generator)


def measured(rdms, **changes):
    return MeasuredRDMs(rdms, **{"time_sampling": "gaussian", "use_reliability": True, **changes})


def trained(found, target, images, settings=SETTINGS, identity=0.0):
    columns = Columns(
        pairs=pairs_of(images),
        identity=torch.full((images.shape[1],), identity),
        start=torch.ones(found.n_scales, images.shape[1]),
    )
    kept = {}
    generator = torch.Generator().manual_seed(0)

    def record(step, scales):
        kept[step] = scales.clone()

    train_scales([found], [target], columns, settings, generator, record, n_steps=settings.epochs)
    return kept


def test_planted_scales_are_found():
    found = features()
    truth, rdms = planted(found)
    kept = trained(found, measured(rdms), torch.ones(24, 1, dtype=torch.bool), dataclasses.replace(SETTINGS, epochs=200))
    assert scipy.stats.spearmanr(kept[200][:, 0].abs(), truth).statistic > 0.9  # .97 to .99 over seeds 0 to 4
    assert set(kept) == {0, *range(10, 201, 10)}


@pytest.mark.long
@pytest.mark.parametrize("change", [{}, {"loss": "l1"}, {"group_weight": 0.1}, {"stage_mean_weight": 0.1}])
def test_columns_do_not_mix(change):
    """Oracle: each column trained by itself."""
    found, settings = features(), dataclasses.replace(SETTINGS, epochs=20, **change)
    _, rdms = planted(found)
    images = torch.rand(24, 3, generator=torch.Generator().manual_seed(2)) < 0.7
    together = trained(found, measured(rdms), images, settings, identity=0.1)[20]
    for column in range(3):
        alone = trained(found, measured(rdms), images[:, [column]], settings, identity=0.1)[20]
        torch.testing.assert_close(together[:, [column]], alone, atol=1e-4, rtol=1e-3)


def test_held_out_images_do_not_reach_the_scales():
    found = features()
    _, rdms = planted(found)
    images = torch.arange(24)[:, None] < 18
    first, second = torch.triu_indices(24, 24, offset=1)
    changed = rdms.clone()
    changed[..., ~((first < 18) & (second < 18))] += 5.0
    with_truth = trained(found, measured(rdms, use_reliability=False), images)[60]
    with_other = trained(found, measured(changed, use_reliability=False), images)[60]
    torch.testing.assert_close(with_truth, with_other)


def test_pairs_in_batches_and_not_negative():
    found = features()
    _, rdms = planted(found)
    settings = dataclasses.replace(SETTINGS, batch_pairs=40, non_negative=True, learning_rate=0.2)
    images = torch.ones(24, 1, dtype=torch.bool)
    kept = trained(found, measured(rdms), images, settings)
    assert kept[60].min() >= 0
    assert torch.equal(kept[60], trained(found, measured(rdms), images, settings)[60])


@pytest.mark.long
def test_nested_choice_uses_training_images_only_and_takes_the_best_candidate():
    found = features()
    _, rdms = planted(found)
    training = torch.stack([torch.arange(24) < 18, torch.arange(24) >= 6], dim=1)

    def nested(values):
        return nested_scales(
            {"plain": Layout(variants=[found]), "even": Layout(variants=[found], balance="channel")},
            [measured(values, use_reliability=False)],
            training,
            GROUPS,
            dataclasses.replace(SETTINGS, identity_weights=(0.0, 10.0)),
        )

    results = nested(rdms)
    for part in results:
        assert part.inner_scores[part.chosen] == max(part.inner_scores.values())
        assert len(part.inner_scores) == 2 * 2 * 21
    first, second = torch.triu_indices(24, 24, offset=1)
    changed = rdms.clone()
    changed[..., ~((first < 18) & (second < 18))] *= -3.0
    other = nested(changed)
    assert other[0].chosen == results[0].chosen
    torch.testing.assert_close(other[0].scales, results[0].scales)
    assert other[1].inner_scores != results[1].inner_scores


def test_a_fixed_step_is_kept():
    found = features()
    _, rdms = planted(found)
    result = nested_scales(
        {"plain": Layout(variants=[found])},
        [measured(rdms)],
        torch.ones(24, 1, dtype=torch.bool),
        GROUPS,
        dataclasses.replace(SETTINGS, identity_weights=(0.1,), early_stopping=False),
    )[0]
    assert result.chosen == Candidate(layout="plain", identity_weight=0.1, step=60)


def test_times_are_drawn_around_the_middle_and_the_expectation_is_theirs():
    rdms = torch.arange(9.0)[None, :, None].expand(2, 9, 3).clone()
    target = measured(rdms)
    places = (np.arange(9) + 0.5) / 9 - 0.5
    chances = np.exp(-0.5 * (places / 0.25) ** 2)
    np.testing.assert_allclose(target.chances, chances / chances.sum(), rtol=1e-5)
    torch.testing.assert_close(target.expected, torch.full((2, 3), 4.0))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([target.sample(generator)[:, 0] for _ in range(2000)]).flatten()
    counts = torch.bincount(drawn.long(), minlength=9) / len(drawn)
    np.testing.assert_allclose(counts, chances / chances.sum(), atol=0.02)
    average = measured(rdms, time_sampling="average")
    torch.testing.assert_close(average.sample(generator), rdms.mean(1))


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gaussian_times_beat_the_average_where_the_signal_sits_in_the_middle(seed):
    """The window begins and ends with the geometry of other scales."""
    found = features(seed=seed)
    _, middle = planted(found, seed=seed + 1, noise=0.0)
    _, edges = planted(found, seed=seed + 20, noise=0.0)
    strength = torch.exp(-0.5 * (torch.linspace(-0.5, 0.5, 15) / 0.2) ** 2)[:, None]
    rdms = strength * middle + (1 - strength) * edges  # subject time pair
    images, settings = torch.ones(24, 1, dtype=torch.bool), dataclasses.replace(SETTINGS, epochs=120, learning_rate=0.02)
    gained = {}
    for sampling in ("gaussian", "average"):
        scales = trained(found, measured(rdms, time_sampling=sampling), images, settings)[120]
        gained[sampling] = np.corrcoef(found.rdm(scales)[:, 0], middle[0, 0])[0, 1]
    assert gained["gaussian"] > gained["average"] + 0.005  # .013 to .077 over seeds 0 to 4


def test_folds_keep_sources_together():
    groups = ["a", "a", "b", "c", "d", "d", "e", "f"]
    folds = folds_of_images(groups, 3, torch.Generator().manual_seed(0))
    assert folds[0] == folds[1]
    assert folds[4] == folds[5]
    assert set(folds.tolist()) == {0, 1, 2}
    with pytest.raises(InputError, match="cannot be split"):
        folds_of_images(["a", "b"], 3, torch.Generator())


def test_held_out_score_is_spearman():
    rdms = torch.rand(3, 1, 30, generator=torch.Generator().manual_seed(1))
    predicted, pairs = torch.rand(12, generator=torch.Generator().manual_seed(2)), torch.arange(5, 17)
    expected = scipy.stats.spearmanr(predicted, rdms[:, 0].mean(0)[pairs]).statistic
    assert held_out_score(predicted, [measured(rdms)], pairs) == pytest.approx(expected, abs=1e-6)
