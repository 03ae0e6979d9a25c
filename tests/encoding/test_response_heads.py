"""Oracles: the paper's widths; a perceptron written out; which maps a subject's responses touch."""

import pytest
import torch

from pulvinar.encoding.response_heads import COLDEST, ContrastiveHead, RegressionHead, head_widths


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_widths_are_the_papers_within_bounds():
    assert head_widths({"one": 500}, hidden=None, output=None) == (400, 100)
    assert head_widths({"one": 300, "two": 500}, hidden=None, output=None) == (400, 100)  # mean, and a quarter of it
    assert head_widths({"one": 5}, hidden=None, output=None) == (16, 16)
    assert head_widths({"one": 40_000}, hidden=None, output=None) == (1024, 1024)
    assert head_widths({"one": 500}, hidden=7, output=3) == (7, 3)


def test_the_contrastive_head_is_the_one_written_out():
    head = ContrastiveHead(6, {"one": 10}, hidden=4, output=3).eval()
    features, responses = batch(5, 6), batch(5, 10, seed=1)
    images, brains = head(features, responses, "one")
    first, second, last = (layer.weight for layer in head.perceptron.layers)
    scale = (1 + 1e-5) ** -0.5  # batch-norm as it starts
    for found, start in ((images, features @ head.image.weight.T), (brains, responses @ head.brains[0].weight.T)):
        hidden = torch.relu(scale * torch.relu(scale * start @ first.T) @ second.T)
        torch.testing.assert_close(found, hidden @ last.T)


def test_sides_keep_their_own_statistics():
    head = ContrastiveHead(6, {"one": 10}, hidden=4, output=3).train()
    head(10 + batch(50, 6), batch(50, 10, seed=1), "one")
    of_images, of_brains = (head.perceptron.norms[side][0].running_mean for side in ("image", "brain"))
    assert not torch.allclose(of_images, of_brains)


@pytest.mark.parametrize("make", [ContrastiveHead, RegressionHead])
def test_a_subject_touches_its_own_map_alone(make):
    head = make(6, {"one.a": 10, "two": 8})  # a name may hold a dot
    ours, theirs = head(batch(5, 6), batch(5, 8, seed=1), "two")
    (ours.sum() + theirs.sum()).backward()
    assert head.brains[0].weight.grad is None
    assert head.brains[1].weight.grad is not None


def test_a_learnt_temperature_has_a_floor():
    head = ContrastiveHead(6, {"one": 10}, temperature=0.3, learn_temperature=True)
    assert head.temperature.item() == pytest.approx(0.3)
    with torch.no_grad():
        head.log_temperature.fill_(-20.0)
    assert head.temperature.item() == pytest.approx(COLDEST)
    assert not ContrastiveHead(6, {"one": 10}).log_temperature.requires_grad
