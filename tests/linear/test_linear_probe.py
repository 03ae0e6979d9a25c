"""Oracle of the solver: scikit-learn's LogisticRegression. Of the recipe: a plain loop with torch's own pieces."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pulvinar.core.errors import InputError
from pulvinar.linear.linear_probe import choose_l2, inner_rows, linear_probe, solve_logistic


@pytest.fixture
def problem() -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
    """Four classes linear in 12 features of very different scales, with noise."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(900, 12))
    labels = (latent @ generator.normal(size=(12, 4)) + 2 * generator.normal(size=(900, 4))).argmax(1)
    features = torch.from_numpy(latent * np.logspace(-2, 2, 12) + 5)
    return features[:600], labels[:600], features[600:], labels[600:]


@pytest.mark.parametrize("weight", [1e-1, 1e-3])
def test_the_solver_equals_scikit_learn(problem, weight):
    train, labels, test, _ = problem
    scaler = StandardScaler().fit(train)
    scaled = torch.from_numpy(scaler.transform(train))
    ours, bias = solve_logistic(scaled, torch.from_numpy(labels), 4, weight, n_steps=500)
    theirs = LogisticRegression(C=1 / (weight * len(train)), tol=1e-10, max_iter=5000).fit(scaled.numpy(), labels)
    probabilities = torch.softmax(torch.from_numpy(scaler.transform(test)) @ ours.T + bias, 1)
    np.testing.assert_allclose(probabilities, theirs.predict_proba(scaler.transform(test)), atol=1e-5)


def test_exact_probe_scores_as_scikit_learn_at_the_chosen_weight(problem):
    train, labels, test, truth = problem
    score = linear_probe(train, labels, test, truth, n_seeds=3)
    assert score.correct.shape == (3, 300)
    scaler = StandardScaler().fit(train)
    for weight, accuracy in zip(score.l2_weights, score.accuracies, strict=True):
        theirs = LogisticRegression(C=1 / (weight * len(train)), tol=1e-8, max_iter=5000).fit(scaler.transform(train), labels)
        assert accuracy == pytest.approx(theirs.score(scaler.transform(test), truth), abs=0.01)
    assert score.accuracy == pytest.approx(score.accuracies.mean())


def test_the_weight_is_chosen_on_an_inner_part_of_each_class():
    """Oracle: scikit-learn fitted on the outer part at each weight, scored on the inner part."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 150, generator=generator, dtype=torch.float64)
    labels = torch.arange(200) % 2
    features[:, 0] += 1.5 * labels
    rows = inner_rows(labels, torch.Generator().manual_seed(4))
    assert len(rows.unique()) == 40
    assert int(labels[rows].sum()) == 20
    outer = np.setdiff1d(np.arange(200), rows.numpy())
    scores = {
        weight: LogisticRegression(C=1 / (weight * len(outer)), tol=1e-8, max_iter=5000)
        .fit(features[outer].numpy(), labels[outer].numpy())
        .score(features[rows].numpy(), labels[rows].numpy())
        for weight in (1.0, 1e-1, 1e-4)
    }
    chosen = choose_l2(features, labels, 2, (1e-4, 1e-1, 1.0), torch.Generator().manual_seed(4))
    assert len(set(scores.values())) > 1
    assert scores[chosen] == max(scores.values())


def test_faithful_recipe_equals_a_loop_spelled_out(problem):
    train, labels, test, truth = problem
    score = linear_probe(train / 100, labels, test / 100, truth, recipe="faithful", n_seeds=1, seed=3)
    generator = torch.Generator().manual_seed(3000)
    layer = torch.nn.Linear(12, 4)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-(12**-0.5), 12**-0.5, generator=generator)
    velocity = [torch.zeros_like(parameter) for parameter in layer.parameters()]
    x, y = (train / 100).float(), torch.from_numpy(labels)
    for epoch in range(100):
        rate = 0.3 if epoch < 60 else 0.03 if epoch < 80 else 0.003
        order = torch.randperm(600, generator=generator)
        for rows in (order[:512], order[512:]):
            loss = -torch.log_softmax(layer(x[rows]), 1)[torch.arange(len(rows)), y[rows]].mean()
            gradients = torch.autograd.grad(loss, list(layer.parameters()))
            with torch.no_grad():
                for parameter, step, gradient in zip(layer.parameters(), velocity, gradients, strict=True):
                    step.mul_(0.9).add_(gradient)
                    parameter.sub_(rate * step)
    expected = (layer((test / 100).float()).argmax(1).numpy() == truth).mean()
    assert score.accuracy == pytest.approx(expected, abs=0.005)


def test_augmented_features_are_asked_for_each_epoch(problem):
    train, labels, test, truth = problem
    epochs = []

    def features_of_epoch(epoch: int) -> torch.Tensor:
        epochs.append(epoch)
        return train / 100

    given = linear_probe(
        train / 100, labels, test / 100, truth, recipe="faithful", n_seeds=1, features_of_epoch=features_of_epoch
    )
    assert epochs == list(range(100))
    cached = linear_probe(train / 100, labels, test / 100, truth, recipe="faithful", n_seeds=1)
    np.testing.assert_array_equal(given.correct, cached.correct)


def test_constant_features_do_not_break_the_probe(problem):
    train, labels, test, truth = problem
    more = [torch.cat([part, torch.full((len(part), 2), 7.0, dtype=part.dtype)], 1) for part in (train, test)]
    plain = linear_probe(train, labels, test, truth, n_seeds=1)
    assert linear_probe(more[0], labels, more[1], truth, n_seeds=1).accuracy == pytest.approx(plain.accuracy, abs=0.01)


def test_shuffled_labels_score_chance():
    """Within four standard errors of a quarter."""
    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(2000, 10, generator=generator), torch.randint(0, 4, (2000,), generator=generator)
    score = linear_probe(features[:1000], labels[:1000], features[1000:], labels[1000:], n_seeds=1)
    assert score.accuracy == pytest.approx(0.25, abs=4 * (0.1875 / 1000) ** 0.5)


def test_what_does_not_fit_is_refused(problem):
    train, labels, test, truth = problem
    with pytest.raises(InputError, match="12 training and 11 test features"):
        linear_probe(train, labels, test[:, :11], truth)
    with pytest.raises(InputError, match="n_seeds"):
        linear_probe(train, labels, test, truth, n_seeds=0)
