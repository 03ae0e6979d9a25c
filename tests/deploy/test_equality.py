"""Equality of forms, counted; and the images that try it."""

import numpy as np
import pytest
import torch

from pulvinar.core.errors import InputError
from pulvinar.deploy.compact import compact, compact_to
from pulvinar.deploy.equality import (
    Outputs,
    columns_of_blocks,
    compare,
    first_flips,
    onnx_form,
    relative_differences,
    torch_form,
)
from pulvinar.deploy.onnx_files import onnx_model, run_with
from pulvinar.deploy.probes import adversarial, noise


@pytest.fixture
def halved(make_network, make_images):
    """A float32 network that keeps half of the channels: those that open least, so that every gate is missed."""
    model = make_network("resnet18").float()
    logits = model(make_images(60, 5).float(), gated=True).logits
    return compact_to(model, [part.amax(0).argsort()[: part.shape[1] // 2] for part in logits])


@pytest.mark.long
def test_every_difference_between_runtimes_is_explained(halved, make_images):
    """Real misses in all blocks, in torch, ONNX Runtime and OpenVINO, against the masked form in the same runtime."""
    generator = torch.Generator().manual_seed(0)
    batches = [make_images(30).float().clamp(-1.5, 1.5), noise(halved, 30, generator)]
    forms = {"torch": (torch_form(halved.masked()), torch_form(halved))}
    for runtime in ("onnxruntime", "openvino"):
        forms[runtime] = tuple(
            onnx_form(run_with(onnx_model(network, runtime=runtime).SerializeToString(), runtime), network)
            for network in (halved.masked(), halved)
        )
    for name, (reference, found) in forms.items():
        result = compare(halved, reference, found, batches)
        assert result.n_images == 60, name
        assert min(result.misses) > 5, (name, result)
        assert result.holds, (name, result)
        assert result.max_relative_difference < 2e-6, name


def test_without_the_fallback_the_difference_is_found(halved, make_images):
    """The check must be able to fail: what the missing part would have added is far above the tolerance."""
    reference = torch_form(halved.masked())
    images = make_images(20).float()
    result = compare(halved, reference, torch_form(halved.no_fallback()), [images])
    assert not result.holds
    assert result.n_above_tolerance + result.flipped > 10


def test_a_planted_flip_is_counted_and_one_that_is_no_rounding_is_told(halved, make_images):
    """Planted: one logit moved to the other side of zero, once by a millionth and once by its whole size."""
    images = make_images(6).float()
    masked = torch_form(halved.masked())

    def planted(shift):
        def run(batch):
            found = masked(batch)
            logits, features = found.logits.copy(), found.features.copy()
            logits[2, 3] = -1e-9 if logits[2, 3] >= 0 else 1e-9
            logits[2, 40:] *= -1  # what follows in later blocks is not counted
            features[2] += 1  # a flipped image may differ
            return Outputs(features=features, logits=logits, misses=found.misses)

        return run

    result = compare(halved, masked, planted(0), [images])
    assert (result.flipped, result.flips, result.n_above_tolerance) == (1, 1, 0)
    exact = halved.masked().double().inspect(images[2:3].double()).logits[0][0]
    expected = abs(float(exact[3])) / float(exact.square().mean().sqrt())
    assert result.largest_flip == pytest.approx(expected, rel=1e-6)
    assert result.not_rounding == int(expected >= 1e-4) == 1
    assert not result.holds


def test_only_the_first_block_that_differs_counts():
    reference = np.ones((3, 6))
    found = reference.copy()
    found[0, [1, 3]] = -1
    found[1, [4, 5]] = -1
    first = first_flips(reference, found, [(0, 2), (2, 4), (4, 6)])
    assert first.sum(1).tolist() == [1, 2, 0]
    assert first[0, 1]


def test_relative_difference_is_of_the_largest_feature():
    a = np.array([[1.0, -4.0], [0.0, 0.0]])
    assert relative_differences(a, a + np.array([[0.5, 0.0], [0.0, 0.25]])).tolist() == [0.125, 0.25]


def test_not_a_number_is_above_every_tolerance(halved, make_images):
    images = make_images(4).float()
    masked = torch_form(halved.masked())

    def broken(batch):
        found = masked(batch)
        return Outputs(features=found.features * np.nan, logits=found.logits, misses=found.misses)

    assert compare(halved, masked, broken, [images]).n_above_tolerance == 4
    with pytest.raises(InputError, match="none came"):
        compare(halved, masked, masked, [])


def test_columns_of_blocks_are_those_of_the_concatenated_logits(make_network):
    model = make_network("resnet50", gated_convs="both")
    made = compact_to(model, [torch.arange(n) for n in model.shape.gate_channels])
    assert columns_of_blocks(made)[:4] == [(0, 16), (16, 32), (32, 48), (48, 80)]
    assert columns_of_blocks(made)[-1][1] == sum(model.shape.gate_channels)


@pytest.mark.long
def test_adversarial_images_open_dropped_channels_and_close_open_ones(make_network, make_images):
    """More images miss after the steps than before; pixels stay in [0, 1]."""
    model = make_network("resnet18", seed=0).float()
    halved = compact_to(model, [torch.arange(0, n, 2) for n in model.shape.gate_channels])
    generator = torch.Generator().manual_seed(0)
    start = make_images(24).float().clamp(-1.5, 1.5)
    before = halved.inspect(start)
    for gate in (1, 4):
        shut = (halved.masked().inspect(start).logits[gate] < 0).all(0).nonzero()[:, 0]
        if len(shut):
            moved = adversarial(halved, start, gate=gate, channels=shut, aim="open", generator=generator)
            assert (halved.inspect(moved).logits[gate][:, shut] >= 0).any(1).float().mean() > 0.5
        always = (before.logits[gate] >= 0).all(0).nonzero()[:, 0]
        if len(always):
            moved = adversarial(halved, start, gate=gate, channels=always, aim="close", generator=generator)
            assert (halved.inspect(moved).logits[gate][:, always] < 0).any(1).float().mean() > 0.5
            mean, sd = (torch.tensor(values)[:, None, None] for values in (halved.mean, halved.sd))
            pixels = moved * sd + mean
            assert -1e-6 < pixels.min() < pixels.max() < 1 + 1e-6
        assert len(shut) + len(always)


def test_imposed_gates_are_obeyed(halved, make_images):
    """Oracle: the gated network with imposed masks is the compact one whose own gates say the same."""
    images = make_images(5).float()
    own = halved.inspect(images)
    again = halved.inspect(images, gates=[logits >= 0 for logits in own.logits])
    assert torch.equal(own.features, again.features)
    closed = halved.inspect(images, gates=[torch.zeros_like(logits) for logits in own.logits])
    assert not torch.stack(closed.misses).any()
    assert not torch.equal(closed.features, own.features)


def test_a_gate_that_was_fixed_open_leaves_adversarial_images_as_they_are(make_network, make_images):
    model = make_network("resnet18")
    model.blocks[0].gates["0"].fixed.fill_(1)
    made, batch = compact(model, make_images(100)), make_images(3)
    assert torch.equal(adversarial(made, batch, gate=0, channels=[0, 1], aim="close"), batch)
    assert not torch.equal(adversarial(made, batch, gate=1, channels=[0, 1], aim="close"), batch)
