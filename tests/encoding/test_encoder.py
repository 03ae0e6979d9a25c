"""The encoding trainer: folds, choice, resumption, and the three regressions against scikit-learn and planted truths."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge

from pulvinar.core import memory
from pulvinar.core.errors import ConfigError, InputError
from pulvinar.data.splits import folds_by_source
from pulvinar.encoding.encoder import EncoderSettings, EncoderTrainer, predict
from pulvinar.linear import ridge, ridge_layer
from pulvinar.scores.encoding import correlations

ALPHAS = (1.0, 10.0, 100.0, 1000.0)


def world(n_images=120, seed=0):
    """Two layers; the first half of 12 voxels follows the first, the rest the second. Responses of training and test images."""
    rng = np.random.default_rng(seed)
    layers = {"early": rng.standard_normal((n_images, 3, 4)), "late": rng.standard_normal((n_images, 20))}
    flat = [values.reshape(n_images, -1) for values in layers.values()]
    signal = np.hstack([flat[0] @ rng.standard_normal((12, 6)), flat[1] @ rng.standard_normal((20, 6))])
    responses = (signal + 2 * rng.standard_normal((n_images, 12))).astype(np.float32)
    half = {name: (values[: n_images // 2], values[n_images // 2 :]) for name, values in layers.items()}
    train, test = ({name: parts[side] for name, parts in half.items()} for side in (0, 1))
    return train, test, responses[: n_images // 2], responses[n_images // 2 :]


def trainer(layers, responses, *, groups=None, sources=None, **settings):
    settings = EncoderSettings(**({"alphas": ALPHAS, "voxels_per_block": 5} | settings))
    return EncoderTrainer(
        layers,
        lambda voxels: responses[:, voxels],
        n_voxels=responses.shape[1],
        sources=sources or [str(row) for row in range(len(responses))],
        settings=settings,
        groups=groups,
    )


def fitted(*given, **settings):
    made = trainer(*given, **settings)
    list(made.run())
    return made.fit()


def test_a_source_is_in_one_fold():
    sources = [f"picture-{row % 17}" for row in range(100)]
    folds = folds_by_source(sources, 5, seed=0)
    assert sorted(np.concatenate([held_out for _, held_out in folds]).tolist()) == list(range(100))
    for train, held_out in folds:
        assert not {sources[row] for row in train} & {sources[row] for row in held_out}
        assert 10 <= len(held_out) <= 30
    uneven = [f"large-{row % 4}" for row in range(80)] + [f"small-{row}" for row in range(40)]
    assert max(len(held_out) for _, held_out in folds_by_source(uneven, 5, seed=1)) <= 40
    assert [len(held_out) for _, held_out in folds_by_source(uneven, 4, seed=1)] == [30, 30, 30, 30]
    with pytest.raises(InputError, match="have 17"):
        folds_by_source(sources, 18, seed=0)


def test_the_planted_layer_is_chosen_and_predictions_are_those_of_a_ridge():
    """Planted truth: the layer of each voxel. Oracle of the predictions: scikit-learn's Ridge at the chosen alpha and layer."""
    train, test, responses, _ = world()
    state = fitted(train, responses)
    np.testing.assert_array_equal(state["layers"].numpy(), np.repeat([0, 1], 6))
    predicted = predict(state, test)
    for voxel in range(12):
        name = ("early", "late")[int(state["layers"][voxel])]
        model = Ridge(float(state["penalties"][voxel])).fit(train[name].reshape(60, -1), responses[:, voxel])
        np.testing.assert_allclose(predicted[:, voxel], model.predict(test[name].reshape(60, -1)), atol=1e-3)


def test_every_choice_of_layer_predicts_the_planted_world():
    """Planted truth: r above .6; a single layer misses half of the voxels, layers in one ridge and banded ridge do not."""
    train, test, responses, measured = world(n_images=240)
    groups, r = np.repeat([0, 1], 6), {}
    for choice in ("voxel", "roi", "single", "concatenated", "banded"):
        state = fitted(train, responses, layer_choice=choice, groups=groups if choice == "roi" else None, n_draws=4)
        r[choice] = correlations(predict(state, test), measured).mean()
    assert min(r[choice] for choice in ("voxel", "roi", "concatenated", "banded")) > 0.6
    assert r["single"] < r["voxel"] - 0.2
    with pytest.raises(InputError, match="needed"):
        trainer(train, responses, layer_choice="roi")
    with pytest.raises(InputError, match="11 came for 12"):
        trainer(train, responses, layer_choice="roi", groups=np.zeros(11, int))


def test_partial_least_squares_is_that_of_scikit_learn():
    """Oracle: PLSRegression with the chosen number of components, on all voxels together."""
    train, test, responses, measured = world(n_images=300)
    state = fitted({"late": train["late"]}, responses, regression="partial_least_squares", n_pls_components=(1, 3, 6))
    predicted = predict(state, {"late": test["late"]})
    for voxel, count in enumerate(state["penalties"].numpy()):
        model = PLSRegression(int(count), scale=False).fit(train["late"], responses)
        np.testing.assert_allclose(predicted[:, voxel], model.predict(test["late"])[:, voxel], atol=1e-3)
    assert correlations(predicted, measured)[6:].mean() > 0.6


def test_a_stopped_search_goes_on_to_the_same_bits():
    """Oracle: the uninterrupted search."""
    train, _, responses, _ = world()
    whole = fitted(train, responses)
    stopped = trainer(train, responses)
    for _, number in zip(stopped.run(), range(4), strict=False):
        assert number <= 4
        if stopped.n_done == 4:
            break
    resumed = trainer(train, responses)
    resumed.restore(
        {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in stopped.state().items()}
    )
    assert len(list(resumed.run())) == 2
    state = resumed.fit()
    assert torch.equal(state["penalties"], whole["penalties"])
    for place, part in whole["parts"].items():
        assert torch.equal(state["parts"][place]["weights"], part["weights"])


@pytest.mark.parametrize("choice", ["voxel", "roi", "single", "concatenated"])
def test_choosing_on_the_reported_images_is_never_worse(choice):
    """Closed form: a maximum over choices that holds the chosen one; on pure noise it is higher, and the nested r is 0."""
    train, test, responses, measured = world()
    rng = np.random.default_rng(5)
    noise, test_noise = (rng.standard_normal((60, 400)).astype(np.float32) for _ in range(2))
    for given, other in ((responses, measured), (noise, test_noise)):
        groups = np.arange(given.shape[1]) % 2
        made = trainer(train, given, layer_choice=choice, groups=groups, voxels_per_block=150)
        list(made.run())
        nested = np.nan_to_num(correlations(predict(made.fit(), test), other))
        optimistic = made.best_on(test, other)
        assert optimistic.mean() >= nested.mean() - 1e-6
    standard_error = nested.std() / np.sqrt(400)
    assert abs(nested.mean()) < 3 * standard_error
    assert optimistic.mean() > nested.mean() + 2 * standard_error


def test_layers_that_are_missing_or_of_another_size_are_named():
    train, test, responses, _ = world()
    state = fitted(train, responses)
    with pytest.raises(InputError, match="late are needed"):
        predict(state, {"early": test["early"]})
    with pytest.raises(InputError, match="'late': 20 features were fitted, 19"):
        predict(state, {"early": test["early"], "late": test["late"][:, 1:]})


def test_blocks_of_voxels_are_as_large_as_memory_allows(monkeypatch):
    """In blocks that memory chose, stopped and resumed without a limit: the scores of blocks of that size, to the bit."""
    layers, _, responses, _ = world()
    limits = []

    def block_size(each, *, most, what, fixed=0.0):
        limits.append((each, fixed, what))
        return 3

    with memory.using("4GB"):
        monkeypatch.setattr(memory, "block_size", block_size)
        made = trainer(layers, responses)
        assert {block.stop - block.start for block in made.blocks} == {3}
        assert len(limits) == len(layers)
        for _ in zip(range(3), made.run(), strict=False):
            pass
        state = made.state()
        monkeypatch.undo()
    resumed = trainer(layers, responses)
    resumed.restore(state)
    assert [block.stop for block in resumed.blocks] == [3, 6, 9, 12]
    list(resumed.run())
    straight = trainer(layers, responses, voxels_per_block=3)
    list(straight.run())
    torch.testing.assert_close(resumed.scores, straight.scores, rtol=0, atol=0)


def test_a_fit_does_not_go_on_in_less_memory_than_its_blocks_need(monkeypatch):
    layers, _, responses, _ = world()
    state = trainer(layers, responses, voxels_per_block=12).state()
    monkeypatch.setattr(memory, "block_size", lambda each, *, most, what, fixed=0.0: 2)
    with memory.using("4GB"):
        made = trainer(layers, responses)
        with pytest.raises(ConfigError, match="begun in blocks of 12 voxels, which need more"):
            made.restore(state)


@pytest.mark.parametrize("settings", [{"regression": "partial_least_squares"}, {"layer_choice": "banded"}])
def test_what_holds_all_voxels_at_once_is_refused_with_a_limit(settings):
    layers, _, responses, _ = world()
    with memory.using("4GB"), pytest.raises(ConfigError, match="hold all voxels at once"):
        trainer(layers, responses, **settings)


def test_what_a_layer_needs_is_more_than_it_takes():
    """Oracle: the sizes of all that is kept for the search."""
    n_images, n_features, n_voxels, alphas = 400, 120, 50, torch.tensor([1.0, 10, 100], dtype=torch.float64)
    at_once, each = ridge.bytes_of(n_images, n_features, n_folds=5, n_alphas=3)
    layer = ridge_layer.prepare(torch.randn(n_images, n_features), fit_intercept=True, smallest_alpha=1.0)
    rows = torch.arange(n_images)
    parts = [ridge.fold(layer, rows[rows % 5 != fold], rows[rows % 5 == fold]) for fold in range(5)]
    shared = [ridge.share_products(part, alphas, kernel=False, n_voxels=n_voxels) for part in parts]
    kept = sum(
        value.nbytes for part in (layer, *parts, *shared) for value in vars(part).values() if isinstance(value, torch.Tensor)
    )
    assert kept < at_once < 5 * kept
    responses = 4 * n_images * n_voxels
    assert 3 * responses < each * n_voxels < 12 * responses
