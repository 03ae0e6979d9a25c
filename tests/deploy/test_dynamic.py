"""Dynamic execution. Oracle: the masked network, which computes every channel and multiplies by the gates."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pulvinar.core.errors import InputError
from pulvinar.deploy.block_forms import buckets, whole_convolutions
from pulvinar.deploy.compact import compact, compact_to, dense_network, masked_network
from pulvinar.deploy.dynamic import Choice, DynamicNetwork, choose_forms, forms_for
from pulvinar.deploy.packed import PackedConvolution
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import Gate

KINDS = [("resnet18", "conv2"), ("resnet50", "conv1"), ("resnet50", "conv2"), ("resnet50", "both")]
FORMS = ["masked", "gathered", "patterns", "sorted 3"]


def halved(model: GatedResNet):
    """Half of every gate's channels kept, except: none of the first gate, all of the last."""
    generator = torch.Generator().manual_seed(2)
    kept = [torch.randperm(n, generator=generator)[: n // 2].sort().values for n in model.shape.gate_channels]
    kept[0], kept[-1] = kept[0][:0], torch.arange(model.shape.gate_channels[-1])
    return compact_to(model, kept)


def everywhere(network, form: str, batch: int = 1) -> DynamicNetwork:
    blocks = range(len(network.blocks))
    return DynamicNetwork(network, [Choice(block=n, batch=batch, form=form, milliseconds={}, pattern_hits=0.0) for n in blocks])


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("network", "gated_convs"), KINDS)
def test_every_form_equals_the_masked_network(network, gated_convs, form, make_network, make_images):
    model = make_network(network, gated_convs=gated_convs)
    made, batch = halved(model), make_images(9)
    expected = model(batch, gated=True)
    assert 0.1 < expected.densities.mean() < 0.9
    dynamic = everywhere(made, form)
    torch.testing.assert_close(dynamic(batch), expected.features, rtol=1e-11, atol=1e-11)
    for found, gates in zip(dynamic.gates(batch), expected.gates, strict=True):
        assert torch.equal(found, gates.bool())
    for n in range(3):
        torch.testing.assert_close(dynamic(batch[n : n + 1]), expected.features[n : n + 1], rtol=1e-11, atol=1e-11)


def test_without_gates_it_is_the_dense_network_with_packed_weights(make_network, make_images):
    model, batch = make_network("resnet50"), make_images(3)
    dynamic = DynamicNetwork(dense_network(model))
    torch.testing.assert_close(dynamic(batch), model(batch).features, rtol=1e-11, atol=1e-11)
    assert dynamic.mac_share(batch) == 1


@pytest.mark.parametrize("form", FORMS)
def test_packed_float32_agrees_to_rounding(form, make_network, make_images):
    model = make_network("resnet18", group=4).float()
    batch = make_images(8).float()
    expected = masked_network(model)(batch)
    found = everywhere(halved(model), form)(batch)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_gates_that_all_shut_leave_the_constant_of_an_empty_convolution(make_network, make_images):
    model = make_network("resnet18")
    model.logit_shift.fill_(-1e6)
    expected = model(make_images(4), gated=True).features
    for form in FORMS:
        torch.testing.assert_close(everywhere(halved(model), form)(make_images(4)), expected, rtol=1e-11, atol=1e-11)


def test_whole_weights_are_those_of_the_masked_network_reordered(make_network):
    model = make_network("resnet50", gated_convs="both")
    for cut, full in zip(halved(model).blocks, masked_network(model).blocks, strict=True):
        for number, (weight, bias) in enumerate(whole_convolutions(cut)):
            wanted = full.convolutions[number]
            rows, columns = (cut.gates[str(n)].order if str(n) in cut.gates else slice(None) for n in (number, number - 1))
            torch.testing.assert_close(weight, wanted.weight[rows][:, columns], rtol=0, atol=0)
            torch.testing.assert_close(bias, wanted.bias[rows], rtol=0, atol=0)


@pytest.mark.long
@pytest.mark.parametrize("form", ["gathered", "patterns", "masked"])
def test_work_is_what_torch_counts(form, make_network, make_images):
    """Oracle: FlopCounterMode / 2 on what is really computed (float64, so that no packed operation hides from it)."""
    made = halved(make_network("resnet50", gated_convs="both"))
    network = everywhere(made, form)
    batch = make_images(5)
    if form == "masked":
        made.no_fallback()
        for block in network.forms:  # nobody misses: gates of dropped channels shut
            for number, gate in enumerate(block.block.gates.values()):
                gate.expand.weight[block.n_kept[number] :] = 0
                gate.expand.bias[block.n_kept[number] :] = -1
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(batch)
    assert network.mac_share(batch) * network.dense_macs * len(batch) == pytest.approx(counter.get_total_flops() / 2)


def test_patterns_are_packed_once_and_the_oldest_forgotten(make_network, make_images):
    made = halved(make_network("resnet18"))
    network = DynamicNetwork(made, everywhere(made, "patterns").choices, max_patterns=2)
    network(make_images(1))
    network(make_images(1))
    assert {(block.n_packed, block.n_found) for block in network.forms} == {(1, 1)}
    network(make_images(30))
    assert max(block.n_packed for block in network.forms) > 3
    assert max(len(block.cache) for block in network.forms) == 2


def test_buckets_separate_planted_kinds_of_gates():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randperm(24, generator=generator) % 2
    opened = torch.rand(24, 40, generator=generator) < torch.where(kind[:, None] == torch.arange(40) % 2, 0.9, 0.05)
    found = buckets(opened, 2)
    assert sorted(torch.cat(found).tolist()) == list(range(24))
    assert all(len(set(kind[rows].tolist())) == 1 for rows in found)
    assert [len(rows) for rows in buckets(opened[:3], 16)] == [1, 1, 1]


def test_choices_are_measured_for_every_block_and_size_and_can_be_written(make_network, make_images):
    model = make_network("resnet18").float()
    network = choose_forms(halved(model), make_images(40).float(), batch_sizes=(1, 8), n_batches=4, n_rounds=2)
    assert [(choice.block, choice.batch) for choice in network.choices] == [(n, b) for b in (1, 8) for n in range(8)]
    for choice in network.choices:
        assert tuple(choice.milliseconds) == forms_for(choice.batch)
        assert choice.milliseconds[choice.form] == min(choice.milliseconds.values()) > 0
        assert 0 <= choice.pattern_hits <= 1
    assert [len(forms) for forms in json.loads(json.dumps(network.facts()))["forms"].values()] == [8, 8]
    batch = make_images(20).float()
    torch.testing.assert_close(network(batch), masked_network(model)(batch), rtol=1e-4, atol=1e-5)


def test_the_nearest_size_below_decides_and_gathering_is_for_one_image(make_network):
    made = halved(make_network("resnet18"))
    choices = [
        Choice(block=n, batch=b, form=form, milliseconds={}, pattern_hits=0.0)
        for b, form in ((1, "gathered"), (16, "sorted 4"))
        for n in range(8)
    ]
    network = DynamicNetwork(made, choices)
    assert [network.form_of(0, n) for n in (1, 5, 16, 100)] == ["gathered", "patterns", "sorted 4", "sorted 4"]
    assert DynamicNetwork(made).form_of(0, 1) == "masked"


def test_a_network_without_gates_and_too_few_images_are_refused(make_network, make_images):
    with pytest.raises(InputError, match="dense form has no gates"):
        choose_forms(dense_network(make_network("resnet18")), make_images(64))
    with pytest.raises(InputError, match="64 or more"):
        choose_forms(halved(make_network("resnet18")), make_images(40))


@pytest.mark.parametrize(("outputs", "inputs"), [(5, 3), (0, 3), (5, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_convolution_is_the_plain_one(outputs, inputs, dtype):
    generator = torch.Generator().manual_seed(0)
    weight, bias, maps = (
        torch.randn(shape, generator=generator, dtype=dtype)
        for shape in ((outputs, inputs, 3, 3), (outputs,), (2, inputs, 7, 7))
    )
    packed = PackedConvolution(weight, bias, stride=2, padding=1, relu=True)
    expected = bias[:, None, None].expand(2, outputs, 4, 4).relu()
    if inputs and outputs:
        expected = torch.nn.functional.conv2d(maps, weight, bias, 2, 1).relu()
    for n in (2, 1):
        torch.testing.assert_close(packed(maps[:n]), expected[:n], rtol=1e-5, atol=1e-5)


def test_settled_blocks_have_one_form_and_cost_no_gate(make_network, make_images):
    """Gates of the first blocks are fixed by hand; oracle: the gated pass."""
    model, batch = make_network("resnet18", seed=0), make_images(64)
    for gate in [module for module in model.modules() if isinstance(module, Gate)][:3]:
        gate.fixed.copy_(torch.tensor([1.0, -1.0]).repeat(len(gate.fixed))[: len(gate.fixed)])
    made = compact(model, make_images(100, seed=3))
    assert [block.settled for block in made.blocks] == [True] * 3 + [False] * 5
    dynamic = choose_forms(made, batch, batch_sizes=(1, 32), n_batches=2, n_rounds=1)
    assert all(list(choice.milliseconds) == ["masked"] for choice in dynamic.choices if choice.block < 3)
    assert all(len(choice.milliseconds) > 1 for choice in dynamic.choices if choice.block >= 3)
    expected = model(batch, gated=True)
    torch.testing.assert_close(dynamic(batch), expected.features, rtol=1e-11, atol=1e-11)
    for found, gates in zip(dynamic.gates(batch), expected.gates, strict=True):
        assert torch.equal(found, gates.bool())
    for gate in [module for module in model.modules() if isinstance(module, Gate)]:
        gate.fixed.copy_(torch.tensor([1.0, -1.0]).repeat(len(gate.fixed))[: len(gate.fixed)])
    every = compact(model, make_images(100, seed=3))
    assert DynamicNetwork(every).mac_share(batch) == pytest.approx(every.macs.share)
