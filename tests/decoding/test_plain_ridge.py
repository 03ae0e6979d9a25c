"""The penalty of the plain ridge. Oracles: scikit-learn's Ridge refitted without each image, evaluation's ranks, RidgeCV."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from pulvinar.core.errors import DegenerateError
from pulvinar.core.storage import write_arrays
from pulvinar.decoding import evaluation, plain_ridge
from pulvinar.decoding.controls import Control
from pulvinar.decoding.data import Trials
from pulvinar.decoding.plain_ridge import ALPHAS, ridge_outputs
from pulvinar.scores.retrieval import near_duplicates, retrieval_scores


def made(n_images: int, n_voxels: int, n_dims: int, seed: int = 0) -> tuple[Trials, np.ndarray, np.ndarray, np.ndarray]:
    """Trials in any order with one to three repeats; of the images mean responses, embedding and counts, in that order.

    Of the dims, which have a mean, few are strong; the third image is nearly the second.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n_images, n_dims))
    latent[2] = latent[1] + 0.05 * rng.normal(size=n_dims)
    target = (latent * 1.5 ** -np.arange(n_dims) + 0.2).astype(np.float32)
    images = rng.permutation(np.repeat(np.arange(n_images), np.resize([1, 3, 2], n_images)))
    clean = latent[images] @ rng.normal(size=(n_dims, n_voxels))
    responses = (clean + 8 * rng.normal(size=clean.shape)).astype(np.float32)
    order = list(dict.fromkeys(images.tolist()))
    trials = Trials(
        responses=torch.from_numpy(responses),
        target=torch.from_numpy(target[images]),
        stimulus_ids=tuple(f"image {image}" for image in images),
    )
    means = np.stack([responses[images == image].astype(float).mean(0) for image in order])
    return trials, means, target[order], np.bincount(images)[order].astype(float)


def refitted(x: np.ndarray, y: np.ndarray, counts: np.ndarray, alpha: float) -> np.ndarray:
    """What ridge without each image predicts of it."""
    left = ~np.eye(len(x), dtype=bool)
    fits = [Ridge(alpha=alpha).fit(x[one], y[one].astype(float), sample_weight=counts[one]) for one in left]
    return np.concatenate([fit.predict(x[[image]]) for image, fit in enumerate(fits)])


def log_rank(predicted: np.ndarray, true: np.ndarray) -> float:
    """By evaluation's ranks, both directions."""
    excluded = near_duplicates(true, 0.95)
    found = retrieval_scores(predicted, true, generator=np.random.default_rng(0), excluded=excluded, n_permutations=1)
    return float(np.mean([np.log(found.per_image[direction].rank) for direction in found.per_image]))


def alphas_for(x: np.ndarray, counts: np.ndarray) -> list[float]:
    centred = (x - np.average(x, axis=0, weights=counts)) * np.sqrt(counts)[:, None]
    return [alpha * np.square(np.linalg.norm(centred)) / min(x.shape) for alpha in ALPHAS]


@pytest.mark.parametrize(("n_voxels", "n_dims"), [(12, 9), (70, 9), (12, 60)])
def test_the_penalty_is_the_one_that_identifies_left_out_images(n_voxels, n_dims):
    trials, x, y, counts = made(40, n_voxels, n_dims)
    assert near_duplicates(y, 0.95).any()
    alphas = alphas_for(x, counts)
    looped = [refitted(x, y, counts, alpha) for alpha in alphas]
    ranks = [log_rank(predicted, y) for predicted in looped]
    errors = [counts @ np.square(predicted - y).sum(1) for predicted in looped]
    found = plain_ridge.left_out_scores(plain_ridge._Ridge.of(x, counts), torch.from_numpy(y), alphas)
    np.testing.assert_allclose(found, list(zip(ranks, errors, strict=True)), rtol=1e-6)
    best = int(np.argmin(ranks))
    assert best != np.argmin(errors)  # or the test could not tell the two
    shown = torch.from_numpy(np.random.default_rng(1).normal(size=(5, n_voxels)).astype(np.float32))
    fit = Ridge(alpha=alphas[best]).fit(x, y, sample_weight=counts)
    np.testing.assert_allclose(ridge_outputs(trials, np.arange(n_voxels), shown), fit.predict(shown), atol=1e-5)


def test_targets_of_one_dim_have_the_penalty_of_least_squared_error():
    trials, x, y, counts = made(60, 8, 1)
    alphas = alphas_for(x, counts)
    fit = RidgeCV(alphas=alphas).fit(x, y[:, 0], sample_weight=counts)
    assert alphas[0] < fit.alpha_ < alphas[-1]
    output = ridge_outputs(trials, np.arange(8), torch.from_numpy(x.astype(np.float32)))
    np.testing.assert_allclose(output[:, 0], fit.predict(x), atol=1e-5)


def test_of_many_images_some_are_identified_among_each_other(monkeypatch):
    """The same ones whenever it is asked; the others still train."""
    monkeypatch.setattr(plain_ridge, "MOST_IDENTIFIED", 39)
    monkeypatch.setattr(plain_ridge, "N_IDENTIFIED", 15)
    _, x, y, counts = made(40, 12, 9)
    asked = np.sort(np.random.default_rng(0).permutation(40)[:15])
    alpha = alphas_for(x, counts)[4]
    ridge = plain_ridge._Ridge.of(x, counts)
    (found,) = plain_ridge.left_out_scores(ridge, torch.from_numpy(y), [alpha])
    predicted = refitted(x, y, counts, alpha)[asked]
    assert found == pytest.approx((log_rank(predicted, y[asked]), counts[asked] @ np.square(predicted - y[asked]).sum(1)))


def test_an_image_without_a_direction_is_not_identified():
    _, x, y, counts = made(40, 12, 9)
    y[5] = 0
    alpha, others = alphas_for(x, counts)[4], np.delete(np.arange(40), 5)
    ((found, _),) = plain_ridge.left_out_scores(plain_ridge._Ridge.of(x, counts), torch.from_numpy(y), [alpha])
    predicted = refitted(x, y, counts, alpha)
    assert found * 40 == pytest.approx(log_rank(predicted[others], y[others]) * 39)


def test_responses_that_do_not_vary_are_refused():
    trials, *_ = made(10, 4, 3)
    flat = Trials(responses=torch.ones_like(trials.responses), target=trials.target, stimulus_ids=trials.stimulus_ids)
    with pytest.raises(DegenerateError, match="4 voxels to 10 training images; they do not vary"):
        ridge_outputs(flat, np.arange(4), torch.ones(2, 4))


def test_kept_predictions_of_a_ridge_are_taken_up_by_the_same_rule_alone(tmp_path):
    """Of an older run, whose penalty was chosen otherwise, they are made anew; those of decoders are kept."""
    selected, test = (
        np.array([True, False]),
        SimpleNamespace(images=["a", "b"], trials=SimpleNamespace(stimulus_ids=["a", "b"])),
    )
    run, outputs = SimpleNamespace(path=tmp_path), torch.eye(2)
    for decoder, kept_by_an_older_run in (("ridge", False), ("trained", True)):
        control = Control(name=decoder, description="", selected=selected, decoder=decoder)
        predicted = evaluation._kept(run, control, outputs, test)
        np.testing.assert_array_equal(evaluation._stored_prediction(run, control, test), predicted)
        write_arrays(
            tmp_path / "predictions" / f"{decoder}.npz", predicted=predicted, selected=selected, stimulus=np.array(["a", "b"])
        )
        assert (evaluation._stored_prediction(run, control, test) is not None) == kept_by_an_older_run
