"""Oracles: scipy (ranks), scikit-learn (cosine, top-k accuracy), slow loops, fixed points of permutations, chance."""

from math import comb

import numpy as np
import pytest
from scipy import stats
from scipy.stats import rankdata
from sklearn.metrics import top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores import retrieval
from pulvinar.scores.retrieval import (
    cosine_similarities,
    mindeye2_labels,
    near_duplicates,
    protocols_for,
    retrieval_scores,
)

DIRECTIONS = ("brain_to_image", "image_to_brain")


def noisy(n_stimuli: int, noise: float, seed: int = 0, n_dims: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true embeddings; the prediction is the truth, one shared direction, and noise."""
    generator = np.random.default_rng(seed)
    true = generator.normal(0, 1, (n_stimuli, n_dims))
    shared = generator.normal(0, 1, n_dims)  # makes the two directions differ
    return (true + shared + noise * generator.normal(0, 1, true.shape)).astype(np.float32), true.astype(np.float32)


def score(predicted, true, **settings):
    return retrieval_scores(predicted, true, generator=np.random.default_rng(0), **settings)


def test_cosines_are_those_of_scikit_learn(monkeypatch):
    predicted, true = noisy(20, 1.0)
    monkeypatch.setattr(retrieval, "DIMS_PER_BLOCK", 5)
    expected = cosine_similarity(predicted.astype(float), true.astype(float))
    np.testing.assert_allclose(cosine_similarities(predicted, true), expected, atol=1e-12)


def test_whole_gallery_in_both_directions():
    """Ranks by scipy; top-k by scikit-learn. Each direction is named after its query."""
    predicted, true = noisy(60, 1.5)
    found = score(predicted, true)
    cosine = cosine_similarity(predicted.astype(float), true.astype(float))
    for direction, queries in zip(DIRECTIONS, (cosine, cosine.T), strict=True):
        ranks = rankdata(-queries, axis=1).diagonal()
        np.testing.assert_array_equal(found.per_image[direction].rank, ranks)
        assert found.scores[f"{direction}_median_rank"] == np.median(ranks)
        for k in (1, 5):
            expected = top_k_accuracy_score(np.arange(60), queries, k=k)
            np.testing.assert_allclose(found.scores[f"{direction}_top{k}"], expected)
        np.testing.assert_array_equal(found.per_image[direction].retrieved, np.argsort(-queries, axis=1)[:, :5])
    assert found.scores["brain_to_image_top1"] != found.scores["image_to_brain_top1"]
    assert (found.scores["n_images"], found.scores["gallery_size"], found.scores["chance"]) == (60, 60, 1 / 60)


def test_directions_swap_with_the_arguments():
    predicted, true = noisy(40, 1.5)
    forward, backward = score(predicted, true).scores, score(true, predicted).scores
    assert forward["brain_to_image_top1"] == backward["image_to_brain_top1"]
    assert forward["image_to_brain_top5"] == backward["brain_to_image_top5"]
    assert mindeye2_labels == {"Image": "image_to_brain_top1", "Brain": "brain_to_image_top1"}
    assert set(mindeye2_labels.values()) <= set(forward)


def test_constant_prediction_scores_chance_exactly():
    """Given the brain all queries rank alike: 1 of n is right. Given the image all candidates tie: 1/n, 5/n, rank (n + 1)/2."""
    true = np.random.default_rng(0).normal(0, 1, (30, 8))
    scores = score(np.ones((30, 8)), true).scores
    for direction in DIRECTIONS:
        np.testing.assert_allclose(scores[f"{direction}_top1"], 1 / 30)
        np.testing.assert_allclose(scores[f"{direction}_top5"], 5 / 30)
        np.testing.assert_allclose(scores[f"{direction}_median_rank"], 15.5)
        np.testing.assert_allclose(scores[f"{direction}_top1_null_mean"], 1 / 30)
        np.testing.assert_allclose(scores[f"{direction}_top1_above_null"], 0, atol=1e-12)
        assert scores[f"{direction}_top1_p_value"] == 1


def test_ties_are_expected_under_random_breaking():
    """Three images share an embedding: each is found with probability 1/3, at expected rank 2; slow loop over random orders."""
    true = np.eye(10)
    true[1] = true[2] = true[0]
    found = score(true, true).per_image["brain_to_image"]
    np.testing.assert_allclose(found.top1, [1 / 3] * 3 + [1] * 7)
    np.testing.assert_allclose(found.rank, [2] * 3 + [1] * 7)
    generator, places = np.random.default_rng(0), []
    for _ in range(3000):
        order = generator.permutation(10)
        shown = order[np.argsort(-(true @ true[0])[order], kind="stable")]
        places.append(int(np.flatnonzero(shown == 0)[0]))
    np.testing.assert_allclose(found.top1[0], np.mean(np.array(places) == 0), atol=0.04)
    np.testing.assert_allclose(found.rank[0], 1 + np.mean(places), atol=0.06)


def test_top5_splits_a_tie_over_the_fifth_place():
    """Four candidates above, the right one tied with two others: it is fifth with probability 1/3."""
    similarity = np.zeros((8, 8))
    similarity[0] = [0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.1]
    above, tied = retrieval._places(similarity, np.ones((8, 8), bool))
    assert (above[0], tied[0]) == (4, 2)
    np.testing.assert_allclose(retrieval._among_first(5, above, tied)[0], 1 / 3)
    np.testing.assert_allclose(retrieval._among_first(1, above, tied)[0], 0)


def test_null_of_perfect_predictions_is_fixed_points_of_permutations():
    """P(k fixed points) is Poisson(1) for n = 300: mean 1, P(<= 2) = .92, P(<= 3) = .98, so the 95th percentile is 3 of 300."""
    true = np.random.default_rng(0).normal(0, 1, (300, 20))
    scores = score(true, true, n_permutations=4000).scores
    for direction in DIRECTIONS:
        assert scores[f"{direction}_top1"] == 1
        assert abs(scores[f"{direction}_top1_null_mean"] - 1 / 300) < 4 / 300 / np.sqrt(4000)
        np.testing.assert_allclose(scores[f"{direction}_top1_null_percentile_95"], 3 / 300)
        np.testing.assert_allclose(scores[f"{direction}_top1_above_null"], 1 - scores[f"{direction}_top1_null_mean"])
        assert scores[f"{direction}_top1_p_value"] == 1 / 4001
        wilson = stats.binomtest(300, 300).proportion_ci(method="wilson")
        np.testing.assert_allclose([scores[f"{direction}_top1_{end}"] for end in ("low", "high")], wilson, atol=1e-9)


def test_first_by_query_is_the_slow_loop_with_exclusions():
    generator = np.random.default_rng(1)
    similarity = np.round(generator.normal(0, 1, (15, 9)))  # ties
    gallery = generator.random((9, 9)) > 0.3
    np.fill_diagonal(gallery, True)
    expected = np.zeros((15, 9))
    for query in range(15):
        for target in range(9):
            candidates = similarity[query, gallery[target]]
            if similarity[query, target] == candidates.max():
                expected[query, target] = 1 / (candidates == candidates.max()).sum()
    np.testing.assert_allclose(retrieval._first_by_query(similarity, gallery), expected)


def test_null_is_the_slow_loop_over_permuted_queries():
    predicted, true = noisy(25, 1.0, n_dims=3)
    excluded = near_duplicates(true, 0.8)
    assert excluded.any()
    scores = score(predicted, true, excluded=excluded, n_permutations=60).scores
    generator, cosine = np.random.default_rng(0), cosine_similarities(predicted, true)
    permutations = generator.permuted(np.tile(np.arange(25), (60, 1)), axis=1)
    for direction, queries in zip(DIRECTIONS, (cosine, cosine.T), strict=True):
        permuted = []
        for permutation in permutations:
            asked = queries[permutation]
            hits = [asked[i, i] == asked[i, ~excluded[i]].max() for i in range(25)]
            permuted.append(np.mean(hits))
        np.testing.assert_allclose(scores[f"{direction}_top1_null_mean"], np.mean(permuted))
        np.testing.assert_allclose(scores[f"{direction}_top1_null_percentile_95"], np.percentile(permuted, 95))


def test_near_duplicates_are_not_in_the_gallery():
    """Images 0 and 1 are alike and their predictions swapped; 2 and 3 are the same image, and their predictions are equal."""
    predicted, true = noisy(40, 0.3)
    true[1] = true[0] + 0.01
    predicted[[0, 1]] = true[[1, 0]]
    true[3] = true[2]
    predicted[[2, 3]] = true[[2, 3]]
    excluded = near_duplicates(true, 0.99)
    np.testing.assert_array_equal(np.argwhere(excluded), [[0, 1], [1, 0], [2, 3], [3, 2]])
    with_them, without = score(predicted, true), score(predicted, true, excluded=excluded)
    for direction in DIRECTIONS:
        np.testing.assert_array_equal(with_them.per_image[direction].rank[:4], [2, 2, 1.5, 1.5])
        np.testing.assert_array_equal(without.per_image[direction].rank[:4], [1, 1, 1, 1])
        np.testing.assert_array_equal(without.per_image[direction].top1[:4], [1, 1, 1, 1])
        for target, twin in ((0, 1), (1, 0), (2, 3), (3, 2)):
            assert twin not in without.per_image[direction].retrieved[target]
    np.testing.assert_allclose(without.scores["gallery_size"], (36 * 40 + 4 * 39) / 40)
    np.testing.assert_allclose(without.scores["chance"], (36 / 40 + 4 / 39) / 40)


def test_retrieved_rows_end_where_the_gallery_ends():
    excluded = np.zeros((4, 4), bool)
    excluded[0, 2:] = True
    retrieved = score(np.eye(4), np.eye(4), excluded=excluded).per_image["brain_to_image"].retrieved
    np.testing.assert_array_equal(retrieved, [[0, 1, -1, -1], [1, 0, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2]])


def test_interval_of_top1_is_that_of_a_proportion():
    predicted, true = noisy(400, 2.5, n_dims=40)
    scores = score(predicted, true, n_bootstrap=4000).scores
    for name in ("brain_to_image_top1", "image_to_brain_top5"):
        share = scores[name]
        assert 0.2 < share < 0.9
        half = 1.96 * np.sqrt(share * (1 - share) / 400)
        np.testing.assert_allclose([scores[f"{name}_low"], scores[f"{name}_high"]], [share - half, share + half], atol=0.006)


def test_thirty_draws_are_the_mean_over_galleries_of_300():
    """Closed form of an image: C(n - 1 - g, 299) / C(n - 1, 299), with g candidates above it in the whole set."""
    predicted, true = noisy(420, 2.0)
    found = score(predicted, true, protocol="draws")
    whole = score(predicted, true)
    above = (whole.per_image["brain_to_image"].rank - 1).astype(int)
    expected = np.mean([comb(419 - g, 299) / comb(419, 299) for g in above])
    assert abs(found.scores["brain_to_image_top1"] - expected) < 0.01  # over 20 seeds: sd .0017, at most .004
    assert found.scores["brain_to_image_top1"] > whole.scores["brain_to_image_top1"]
    assert (found.scores["gallery_size"], found.scores["chance"]) == (300, 1 / 300)
    assert found.per_image["brain_to_image"].n_draws.sum() == 30 * 300


@pytest.mark.long
def test_thirty_draws_are_the_slow_loop():
    predicted, true = noisy(310, 2.0)
    found = score(predicted, true, protocol="draws", n_permutations=5)
    generator, cosine = np.random.default_rng(0), cosine_similarities(predicted, true)
    draws = [np.sort(generator.choice(310, 300, replace=False)) for _ in range(30)]
    permutations = generator.permuted(np.tile(np.arange(310), (5, 1)), axis=1)
    for direction, queries in zip(DIRECTIONS, (cosine, cosine.T), strict=True):
        top1 = [np.mean(queries[np.ix_(d, d)].argmax(1) == np.arange(300)) for d in draws]
        median = [np.median(rankdata(-queries[np.ix_(d, d)], axis=1).diagonal()) for d in draws]
        np.testing.assert_allclose(found.scores[f"{direction}_top1"], np.mean(top1))
        np.testing.assert_allclose(found.scores[f"{direction}_median_rank"], np.mean(median))
        null = [np.mean([np.mean(queries[np.ix_(p[d], d)].argmax(1) == np.arange(300)) for d in draws]) for p in permutations]
        np.testing.assert_allclose(found.scores[f"{direction}_top1_null_mean"], np.mean(null))


@pytest.mark.long
def test_draws_depend_on_the_seed_alone_and_300_images_draw_themselves():
    predicted, true = noisy(300, 2.0)
    drawn, whole = score(predicted, true, protocol="draws").scores, score(predicted, true).scores
    np.testing.assert_allclose(drawn["image_to_brain_top1"], whole["image_to_brain_top1"])
    a, true = noisy(320, 2.0)
    settings = {"protocol": "draws", "n_permutations": 3}
    first, second = score(a, true, **settings), score(true, true, **settings)
    counts = [found.per_image["image_to_brain"].n_draws for found in (first, second)]
    np.testing.assert_array_equal(*counts)
    assert score(a, true, **settings).scores == first.scores


def test_refuses_what_cannot_be_scored():
    predicted, true = noisy(299, 1.0)
    with pytest.raises(InputError, match="300 test images are needed, 299 came; use protocol=every_candidate"):
        score(predicted, true, protocol="draws")
    with pytest.raises(InputError, match="298 predicted but 299 true"):
        score(predicted[:298], true)
    with pytest.raises(InputError, match="12 and 11 dims"):
        score(predicted, true[:, :11])
    with pytest.raises(InputError, match="two or more"):
        score(predicted[:1], true[:1])
    zero, infinite = predicted.copy(), predicted.copy()
    zero[3], infinite[4, 0] = 0, np.inf
    with pytest.raises(DegenerateError, match="row 3 has length zero"):
        score(zero, true)
    with pytest.raises(InputError, match="row 4 has a value that is not finite"):
        score(infinite, true)
    with pytest.raises(InputError, match="cosine in"):
        near_duplicates(true, 1.5)


@pytest.mark.parametrize(
    ("excluded", "message"),
    [
        (np.zeros((2, 3), bool), r"excluded must be \(3, 3\)"),
        (np.eye(3, dtype=bool), "target 0 is excluded from its own gallery"),
        (np.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]], bool), "all other candidates of target 1 are excluded"),
    ],
)
def test_refuses_exclusions_that_do_not_fit(excluded, message):
    with pytest.raises(InputError, match=message):
        score(np.eye(3), np.eye(3), excluded=excluded)


@pytest.mark.parametrize("direction", ["brain_to_image", "image_to_brain"])
def test_all_or_none_right_has_the_interval_of_wilson(direction):
    """Oracle: scipy. A bootstrap of 48 of 48 would say [1, 1]."""
    true = np.eye(48)
    for predicted, n_right in ((true, 48), (np.roll(true, 1, axis=0), 0)):
        scores = retrieval_scores(predicted, true, generator=np.random.default_rng(0), n_permutations=10, n_bootstrap=50).scores
        expected = stats.binomtest(n_right, 48).proportion_ci(method="wilson")
        found = scores[f"{direction}_top1_low"], scores[f"{direction}_top1_high"]
        np.testing.assert_allclose(found, (expected.low, expected.high), atol=1e-9)


def test_draws_with_exclusions_are_the_slow_loop_in_every_number(monkeypatch):
    """4 draws of 8 of 17 images, some in none, some left out of galleries; scores, null and interval one by one."""
    monkeypatch.setattr(retrieval, "N_DRAWN", 8)
    monkeypatch.setattr(retrieval, "N_DRAWS", 4)
    predicted, true = noisy(17, 3.0, n_dims=3)
    excluded = near_duplicates(true, 0.7)
    found = score(predicted, true, protocol="draws", excluded=excluded, n_permutations=30, n_bootstrap=40, n_retrieved=3)
    generator, cosine = np.random.default_rng(0), cosine_similarities(predicted, true)
    draws = [np.sort(generator.choice(17, 8, replace=False)) for _ in range(4)]
    permutations = generator.permuted(np.tile(np.arange(17), (30, 1)), axis=1)
    counts = generator.multinomial(17, np.full(17, 1 / 17), size=40)
    galleries = [[d for d in draw if not excluded[i, d]] for draw in draws for i in draw]
    sizes = np.array([len(gallery) for gallery in galleries])
    assert 1 < sizes.min() < 8
    assert (found.scores["n_images"], found.scores["gallery_size"]) == (17, sizes.mean())
    assert found.scores["chance"] == pytest.approx((1 / sizes).mean())
    n_draws = np.bincount(np.concatenate(draws), minlength=17)
    assert (n_draws == 0).any()
    for direction, queries in zip(DIRECTIONS, (cosine, cosine.T), strict=True):

        def above(draw, target, query, queries=queries):
            return sum(queries[query, c] > queries[query, target] for c in draw if not excluded[target, c])

        ranks = [{int(target): 1 + above(draw, target, target) for target in draw} for draw in draws]
        images = found.per_image[direction]
        rank = [np.mean([r[i] for r in ranks if i in r]) if n_draws[i] else np.nan for i in range(17)]
        np.testing.assert_allclose(images.rank, rank)
        np.testing.assert_array_equal(images.n_draws, n_draws)
        assert found.scores[f"{direction}_median_rank"] == np.mean([np.median(list(r.values())) for r in ranks])
        for k in (1, 5):
            hits = np.array([sum(r[i] <= k for r in ranks if i in r) for i in range(17)])
            np.testing.assert_allclose(getattr(images, f"top{k}"), np.where(n_draws, hits / np.maximum(n_draws, 1), np.nan))
            assert found.scores[f"{direction}_top{k}"] == pytest.approx(hits.sum() / 32)
            resampled = (counts * hits).sum(1) / (counts * n_draws).sum(1)
            ends = found.scores[f"{direction}_top{k}_low"], found.scores[f"{direction}_top{k}_high"]
            assert 0 < hits.sum() < 32
            assert ends == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))
        null = [np.mean([above(d, i, p[i]) == 0 for d in draws for i in d]) for p in permutations]
        assert found.scores[f"{direction}_top1_null_mean"] == pytest.approx(np.mean(null))
        assert found.scores[f"{direction}_top1_null_percentile_95"] == pytest.approx(np.percentile(null, 95))
        top1 = found.scores[f"{direction}_top1"]
        assert found.scores[f"{direction}_top1_above_null"] == pytest.approx(top1 - np.mean(null))
        as_high = np.sum(np.array(null) >= top1 - 1e-12)
        assert found.scores[f"{direction}_top1_p_value"] == (as_high + 1) / 31
        assert images.retrieved.shape == (17, 3)
        assert images.weighted_top1.mean() == pytest.approx(top1)
        assert (found.protocol, set(found.per_image)) == ("draws", set(DIRECTIONS))


def test_what_is_done_where_nothing_is_said():
    """The whole gallery, 1,000 permutations (the smallest p is 1 / 1,001), 2,000 resamples, five candidates."""
    predicted, true = noisy(12, 0.8)
    found = score(predicted, true)
    assert found.protocol == "every_candidate"
    assert found.scores["brain_to_image_top1_p_value"] == 1 / 1001
    assert found.per_image["brain_to_image"].retrieved.shape == (12, 5)
    said = score(predicted, true, protocol="every_candidate", n_permutations=1000, n_bootstrap=2000, n_retrieved=5)
    assert said.scores == found.scores
    assert [protocols_for(n) for n in (299, 300, 301)] == [
        ("every_candidate",), *[("every_candidate", "draws")] * 2
    ]  # fmt: skip
    two = score(np.eye(2), np.eye(2)).scores
    assert (two["gallery_size"], two["chance"], two["brain_to_image_top1"]) == (2, 0.5, 1)


def test_a_pair_at_the_threshold_is_no_duplicate_and_thresholds_are_cosines():
    """Cosines of (1, 0), (0, 1), (3, 4): 0, .6, .8."""
    true = np.array([[1.0, 0], [0, 1], [3, 4]])
    assert np.argwhere(np.triu(near_duplicates(true, 0.6))).tolist() == [[1, 2]]
    assert np.argwhere(np.triu(near_duplicates(true, 0.59))).tolist() == [[0, 2], [1, 2]]
    assert not near_duplicates(true, 1.0).any()
    assert near_duplicates(true, -1.0).sum() == 6
    with pytest.raises(InputError, match="cosine in"):
        near_duplicates(true, -1.1)


def test_equal_embeddings_tie_whatever_their_scale_and_the_side_of_a_bad_one_does_not_matter():
    """Cosines differ in the 16th decimal where products are summed in another order; 12 are kept."""
    predicted, true = noisy(20, 1.0, n_dims=300)
    true = np.concatenate([true, true[:4]]).astype(np.float64)
    true[20:] *= np.linspace(0.1, 0.9, 4)[:, None]
    cosine = cosine_similarities(predicted, true)
    np.testing.assert_array_equal(cosine[:, :4], cosine[:, 20:])
    np.testing.assert_array_equal(np.round(cosine, 12), cosine)
    assert (np.round(cosine, 11) != cosine).any()
    for place, value, error, words in (
        (2, 0, DegenerateError, "row 2 has length zero"),
        (3, np.nan, InputError, "row 3 has a value"),
    ):
        spoilt = true.copy()
        spoilt[place] = value
        for pair in ((predicted, spoilt), (spoilt, predicted)):
            with pytest.raises(error, match=words):
                cosine_similarities(*pair)
