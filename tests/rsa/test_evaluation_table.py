"""Oracles: assembling spelled out in loops, scipy, the official ceiling, and models whose truth is known."""

import numpy as np
import pytest
import scipy.stats
import torch

from pulvinar.data.stimuli import Stimuli
from pulvinar.rsa import evaluation as rsa
from pulvinar.rsa.aggregation import Candidate, ChosenScales, Layout, MeasuredRDMs, nested_scales
from pulvinar.rsa.aggregation_scores import baselines, best_stage, predictions, single_stages, stage_importance
from pulvinar.rsa.aggregation_settings import AggregationConfig
from pulvinar.rsa.stage_mask import feature_products
from pulvinar.scores.rdm_ceiling import noise_ceiling

N_IMAGES = 24
GROUPS = [str(row) for row in range(N_IMAGES)]
FIRST, SECOND = np.triu_indices(N_IMAGES, 1)


def splits(n_repeats=4) -> rsa.Splits:
    return rsa.Splits.repeated(GROUPS, n_repeats=n_repeats, n_folds=3, seed=0)


def world(seed=0, noise=0.15, late_only=False):
    """Features of two stages, and subjects' RDMs from the channels of the first (or only the second) stage."""
    generator = torch.Generator().manual_seed(seed)
    features = feature_products(
        {name: torch.randn(N_IMAGES, 6, 2, 2, generator=generator) for name in ("early", "late")}, resolution="channel"
    )
    truth = (features.stage == 1).float() if late_only else torch.tensor([3.0, 3.0, 0.1, 0.1, 0.1, 0.1] * 2)
    rdm = features.rdm(truth[:, None])[:, 0]
    return features, rdm + noise * torch.randn(5, 1, len(rdm), generator=generator)


def scored(rdms, confounds=None, n_repeats=4) -> rsa.Scored:
    return rsa.Scored(
        measured=rdms, splits=splits(n_repeats), confounds=confounds or {}, n_permutations=60, n_bootstrap=60, seed=0
    )


def learned(features, rdms, training):
    return nested_scales(
        {"plain": Layout(variants=[features])},
        [MeasuredRDMs(rdms, time_sampling="average", use_reliability=True)],
        training,
        GROUPS,
        AggregationConfig(epochs=60, learning_rate=0.05, identity_weights=(0.03,), n_inner_folds=3),
    )


def test_every_image_is_held_out_once_a_repeat_and_sources_stay_together():
    made = rsa.Splits.repeated([str(row // 2) for row in range(N_IMAGES)], n_repeats=3, n_folds=4, seed=1)
    assert made.training.shape == (N_IMAGES, 12)
    assert ((~made.training).sum(1) == 3).all()
    assert (made.training[::2] == made.training[1::2]).all()


@pytest.mark.parametrize("n_unseen", [1, 2])
def test_assembled_predictions_are_the_mean_over_splits_that_held_them_out(n_unseen):
    made = splits()
    predicted = torch.rand(len(FIRST), made.training.shape[1], generator=torch.Generator().manual_seed(1))
    ours = made.assemble(predicted, n_unseen)
    for pair, (i, j) in enumerate(zip(FIRST, SECOND, strict=True)):
        values = []
        for split, training in enumerate(made.training.T.numpy()):
            if int(~training[i]) + int(~training[j]) == n_unseen:
                train = predicted[torch.from_numpy(training[FIRST] & training[SECOND]), split].numpy()
                values.append((float(predicted[pair, split]) - train.mean()) / train.std())
        if values:
            assert float(ours[pair]) == pytest.approx(np.mean(values), abs=1e-4)
        else:
            assert torch.isnan(ours[pair])


def test_row_of_a_fixed_model_is_scipys_on_the_unseen_pairs_with_their_own_ceiling():
    _, rdms = world()
    model, what = torch.rand(len(FIRST), generator=torch.Generator().manual_seed(2)) + rdms.mean((0, 1)), scored(rdms)
    row, pairs = rsa.score_rows({"model": model}, what)[0], what.unseen
    assert 0 < len(pairs) < len(FIRST)
    rho = [scipy.stats.spearmanr(model[pairs], subject[0, pairs]).statistic for subject in rdms]
    upper = np.mean([scipy.stats.spearmanr(rdms.mean((0, 1))[pairs], s[0, pairs]).statistic ** 2 for s in rdms])
    assert row["rho"] == pytest.approx(np.mean(rho), abs=1e-6)
    assert row["percent"] == pytest.approx(100 * np.mean(np.square(rho)) / upper, abs=1e-4)
    assert row["above_null_percent"] == pytest.approx(row["percent"] - row["null_percent"], abs=1e-4)
    assert row["percent_interval"][0] < row["percent"] < row["percent_interval"][1] + row["null_percent"]
    assert rsa.ceilings(what)["scored"]["upper"] == pytest.approx(upper, abs=1e-6)
    assert rsa.ceilings(what)["all"]["lower"] == pytest.approx(noise_ceiling(rdms).lower)


@pytest.mark.long
def test_learned_scales_beat_the_unweighted_and_shuffled_images_leave_chance():
    features, rdms = world()
    what = scored(rdms)
    found = learned(features, rdms, what.splits.training)
    ours = predictions({"plain": Layout(variants=[features])}, found)
    models = {"ours": ours, "unweighted concatenation": features.rdm(torch.ones(features.n_scales, 1))[:, 0]}
    rows = rsa.table(models, what)
    assert rows[0]["rho"] > rows[1]["rho"] + 0.1  # .18 to .27 over seeds 0 to 3
    assert rows[1]["ours_minus_this"]["interval"][0] > 0
    assert "ours_minus_this" not in rows[0]
    order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(3))
    square = torch.zeros(5, N_IMAGES, N_IMAGES)
    square[:, FIRST, SECOND] = rdms[:, 0]
    square = (square + square.transpose(1, 2))[:, order][:, :, order]
    shuffled = square[:, FIRST, SECOND][:, None]
    again = predictions({"plain": Layout(variants=[features])}, learned(features, shuffled, what.splits.training))
    row = rsa.score_rows({"shuffled": again}, scored(shuffled))[0]
    assert abs(row["rho"]) < 0.15  # standard error of 24 images, about .08


def test_predictions_of_splits_that_chose_different_layouts_stay_in_their_places():
    plain, other = world()[0], world(seed=1)[0]
    layouts = {"plain": Layout(variants=[plain]), "other": Layout(variants=[other], balance="channel")}
    generator = torch.Generator().manual_seed(5)
    chosen = [
        ChosenScales(
            scales=torch.rand(plain.n_scales, generator=generator),
            chosen=Candidate(layout=name, identity_weight=0.0, step=1),
            inner_scores={},
        )
        for name in ("other", "plain", "other")
    ]
    made = predictions(layouts, chosen)
    for split, part in enumerate(chosen):
        alone = layouts[part.chosen.layout].features.rdm(part.scales[:, None])[:, 0]
        torch.testing.assert_close(made[:, split], alone)


def test_partial_rho_of_a_confound_is_nothing_and_of_its_own_row_is_not_given():
    _, rdms = world()
    silhouette = torch.rand(len(FIRST), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    what = scored(rdms + 3 * silhouette.float(), {"silhouette": silhouette})
    rows = {row["name"]: row for row in rsa.table({"model": silhouette + 0.0}, what)}
    assert rows["confound: silhouette"]["rho"] > 0.8
    assert rows["confound: silhouette"]["rho_beyond_confounds"]["silhouette"] is None
    assert rows["model"]["rho_beyond_confounds"] == {"silhouette": None, "all": None}


def test_best_stage_is_chosen_in_training_and_its_importance_shows():
    features, rdms = world(late_only=True, noise=0.05)
    what = scored(rdms)
    target = MeasuredRDMs(rdms, time_sampling="average", use_reliability=False)
    rdm, names = best_stage(single_stages(features), [target], what.splits)
    assert set(names) == {"late"}
    torch.testing.assert_close(rdm[:, 0], single_stages(features)["late"])
    layouts = {"plain": Layout(variants=[features])}
    training = what.splits.training
    places = torch.arange(len(FIRST))
    found = stage_importance(layouts, learned(features, rdms, training), what, training=training, places=places)
    rows = {row["stage"]: row for row in found}
    assert rows["late"]["share"] > 0.6
    assert rows["late"]["share"] + rows["early"]["share"] == pytest.approx(1)
    assert rows["late"]["drop"] > 0.3
    assert rows["late"]["drop_interval"][0] > 0
    assert abs(rows["early"]["drop"]) < 0.15
    assert abs(rows["late"]["mean_scale"]) > abs(rows["early"]["mean_scale"])


def test_feature_reweighted_rsa_finds_planted_channels():
    """Squared distances with known non-negative weights, no noise: what is predicted for unseen pairs is nearly them."""
    generator = torch.Generator().manual_seed(5)
    features = feature_products({"only": torch.randn(N_IMAGES, 8, 3, 3, generator=generator)})
    first, second = torch.from_numpy(FIRST), torch.from_numpy(SECOND)
    distances = features.own[first] + features.own[second] - 2 * features.between
    truth = distances @ torch.tensor([5.0, 0, 0, 3.0, 0, 0, 0, 1.0])
    target = MeasuredRDMs(truth.repeat(3, 1, 1), time_sampling="average", use_reliability=False)
    rows = baselines({"": Layout(variants=[features])}, [target], splits(1), GROUPS, n_folds=3, seed=0)
    assert "feature-reweighted RSA" in rows
    unseen = splits(1).pairs(2)
    for split in range(3):
        pairs = unseen[:, split]
        assert np.corrcoef(rows["feature-reweighted RSA"][pairs, split], truth[pairs])[0, 1] > 0.97
        assert np.corrcoef(rows["unweighted concatenation"][pairs], truth[pairs])[0, 1] < 0.97


def test_confounds_of_pictures_and_labels():
    white = np.full((6, 40, 40, 3), 255, np.uint8)
    for row in range(6):
        white[row, 5 : 15 + 3 * row, 8 : 20 + row] = (40 * row, 10, 200)
    stimuli = Stimuli(ids=list("abcdef"), sources=list("abcdef"), labels=list("xxyyzz"), read_image=lambda row: white[row])
    given = np.ones((6, 6)) - np.eye(6)
    given[0, 1] = given[1, 0] = 0.5
    found = rsa.confound_rdms(stimuli, {"V1": given})
    assert set(found) == {"pixels", "silhouette", "category", "v1"}
    np.testing.assert_array_equal(found["category"][:5], [0, 1, 1, 1, 1])
    assert float(found["silhouette"][0]) < float(found["silhouette"][4])
