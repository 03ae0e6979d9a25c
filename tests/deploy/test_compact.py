"""Compaction against the masked network it came from."""

import copy

import pytest
import torch

from pulvinar.core.errors import InputError
from pulvinar.deploy.calibration import calibrate, upper_bound
from pulvinar.deploy.compact import CompactNetwork, compact, compact_to, dense_network, masked_network, static_network
from pulvinar.deploy.files import load, save
from pulvinar.networks.gates import Gate

KINDS = [("resnet18", "conv2"), ("resnet50", "conv1"), ("resnet50", "conv2"), ("resnet50", "both")]


@pytest.mark.long
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize(("network", "gated_convs"), KINDS)
def test_compact_equals_the_gated_pass_on_every_image(network, gated_convs, group, make_network, make_images):
    """Oracle: the gated pass of the network itself, which computes and masks every channel. float64, so nothing hides."""
    model = make_network(network, gated_convs=gated_convs, group=group)
    generator = torch.Generator().manual_seed(2)
    kept = [torch.randperm(n, generator=generator)[: n // 2].sort().values for n in model.shape.gate_channels]
    kept[0], kept[-1] = kept[0][:0], torch.arange(model.shape.gate_channels[-1])  # nothing kept, nothing dropped
    made = compact_to(model, kept)
    batch = make_images(12)
    expected = model(batch, gated=True)
    found = made.inspect(batch)
    torch.testing.assert_close(found.features, expected.features, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(made(batch), found.features, rtol=0, atol=0)
    for logits, wanted, missed, dropped in zip(found.logits, expected.logits, found.misses, made.dropped, strict=True):
        torch.testing.assert_close(logits, wanted, rtol=1e-9, atol=1e-9)
        assert torch.equal(missed, (wanted[:, dropped] >= 0).any(1))
    rates = [float(missed.double().mean()) for missed in found.misses]
    assert max(rates) > 0.5
    assert rates[-1] == 0
    wrong = made.no_fallback()(batch)
    missed_somewhere = torch.stack(found.misses).any(0)
    assert (wrong - expected.features)[missed_somewhere].abs().max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize(("network", "gated_convs"), KINDS)
def test_no_weight_is_stored_twice(network, gated_convs, make_network):
    """As many numbers as the masked form has, whatever is dropped."""
    model = make_network(network, gated_convs=gated_convs)
    kept = [torch.arange(0, n, 3) for n in model.shape.gate_channels]
    sizes = [sum(p.numel() for p in made.parameters()) for made in (compact_to(model, kept), masked_network(model))]
    assert sizes[0] == sizes[1]


def test_only_missed_images_are_computed_again(make_network, make_images):
    """One image of many that misses must cost the fallback of one image: the convolutions see one row."""
    model = make_network("resnet18", seed=0)
    batch = make_images(40)
    batch[1:] = 0.9 * batch[1] + 0.1 * batch[1:]  # alike, so that the first alone asks for some channels
    opened = [logits >= 0 for logits in model(batch, gated=True).logits]
    kept = [part[1:].any(0).nonzero()[:, 0] for part in opened]  # all but what the first image alone asks for
    made = compact_to(model, kept)
    rows = []
    for block in made.blocks:
        for layer in block.enter.values():
            layer.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    found = made.inspect(batch)
    n_missed = [int(missed.sum()) for missed in found.misses]
    assert sum(n_missed) > 0
    assert rows == [n for n in n_missed if n]
    assert set(rows) == {1}


def test_channels_that_never_open_are_dropped(make_network, make_images):
    """Planted: a gate's row is far below zero for half of the channels."""
    model = make_network("resnet18")
    for block in model.blocks:
        gate = block.gates["0"]
        gate.expand.weight.data[::2] = 0
        closed = torch.nn.Linear(gate.expand.in_features, gate.expand.out_features, bias=True).double()
        closed.weight.data.copy_(gate.expand.weight.data)
        closed.bias.data.zero_()
        closed.bias.data[::2] = -1
        gate.expand = closed
    made = compact(model, make_images(100))
    for kept, n in zip(made.kept, model.shape.gate_channels, strict=True):
        assert set(kept.tolist()) <= set(range(1, n, 2))
    assert made.calibration["own_misses"] == [0] * 8
    torch.testing.assert_close(made(make_images(9, 7)), model(make_images(9, 7), gated=True).features, rtol=1e-11, atol=1e-11)


def test_the_left_out_miss_rate_is_that_of_leaving_each_image_out(make_network, make_images):
    """Oracle: the loop that calibrates n times without one image and asks whether that image misses."""
    model = make_network("resnet18")
    batch = make_images(100, 3)
    for rare in (0.0, 0.05):
        found = calibrate(model, batch, rare=rare)
        opened = [logits >= 0 for logits in model(batch, gated=True).logits]
        slow = torch.zeros(8, 100, dtype=torch.bool)
        for left in range(100):
            rest = torch.arange(100) != left
            for gate, part in enumerate(opened):
                dropped = part[rest].double().mean(0) <= rare + 1e-12
                slow[gate, left] = bool((part[left] & dropped).any())
        assert found.left_out_misses == tuple(slow.sum(1).tolist())
        assert found.any_left_out == int(slow.any(0).sum()) > 0


def test_batches_and_one_tensor_calibrate_alike(make_network, make_images):
    model, batch = make_network("resnet18"), make_images(120, 3)
    one, many = calibrate(model, batch, batch_size=40), calibrate(model, list(batch.split(40)))
    assert [kept.tolist() for kept in one.kept] == [kept.tolist() for kept in many.kept]
    assert one.fingerprint == many.fingerprint != calibrate(model, make_images(120, 4), batch_size=40).fingerprint


def test_the_upper_bound_is_clopper_pearsons():
    """Closed form for none seen: 1 - .05^(1/n), the rule of three."""
    assert upper_bound(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert upper_bound(1000, 1000) == 1.0


def test_masked_dense_and_static_forms_equal_the_passes_they_come_from(make_network, make_images):
    model, batch = make_network("resnet50", gated_convs="both"), make_images(6)
    gated = model(batch, gated=True)
    torch.testing.assert_close(masked_network(model)(batch), gated.features, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(dense_network(model)(batch), model(batch).features, rtol=1e-11, atol=1e-11)
    kept = [torch.arange(0, n, 2) for n in model.shape.gate_channels]
    kept[1] = kept[1][:0]
    masks = [
        torch.zeros(n, dtype=torch.float64).index_fill(0, k, 1.0) for n, k in zip(model.shape.gate_channels, kept, strict=True)
    ]
    expected = model(batch, gated=True, masks=masks).features
    torch.testing.assert_close(static_network(model, kept)(batch), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.long
@pytest.mark.parametrize(("network", "gated_convs"), KINDS)
def test_macs_are_those_that_torch_counts(network, gated_convs, make_network, make_images):
    """Oracle: torch's FlopCounterMode on the network as it runs, half its count; gates and misses included."""
    from torch.utils.flop_counter import FlopCounterMode

    model = make_network(network, gated_convs=gated_convs)
    kept = [torch.arange(0, n, 3) for n in model.shape.gate_channels]
    made = compact_to(model, kept)

    def counted(network: CompactNetwork, batch: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            network(batch)
        return counter.get_total_flops() // 2

    macs = made.macs
    batch = make_images(5)
    assert counted(dense_network(model), batch) == 5 * macs.dense == 5 * model.macs.dense
    misses = [int(missed.sum()) for missed in made.inspect(batch).misses]
    assert counted(made, batch) == 5 * macs.static + sum(n * cost for n, cost in zip(misses, macs.missing, strict=True))
    assert counted(made.no_fallback(), batch) == 5 * macs.static
    assert macs.expected([n / 5 for n in misses]) == pytest.approx(
        macs.static + sum(n * c for n, c in zip(misses, macs.missing, strict=True)) / 5
    )
    assert masked_network(model).macs.static == macs.dense + macs.gates


def test_refusals_say_what_fits(make_network, make_images):
    model = make_network("resnet18")
    with pytest.raises(InputError, match=r"3, 16, 16.*3, 20, 20"):
        compact(model, make_images(100, size=20))
    with pytest.raises(InputError, match=r"40 images came, 100 or more.*3 / n \(8% with 40\)"):
        compact(model, make_images(40))
    with pytest.raises(InputError, match=r"no gates.*dense_network"):
        compact(make_network("resnet18", passes=("dense",)), make_images(100))
    with pytest.raises(InputError, match="8 gates"):
        compact_to(model, [torch.arange(2)])
    with pytest.raises(InputError, match="indices of 8 channels"):
        compact_to(model, [torch.tensor([0, 9]), *[torch.arange(n) for n in model.shape.gate_channels[1:]]])
    with pytest.raises(InputError, match="rare"):
        compact(model, make_images(100), rare=1.0)


def test_the_network_is_left_as_it_was(make_network, make_images):
    model = make_network("resnet18").train()
    before = copy.deepcopy(model.state_dict())
    compact(model, make_images(100))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.long
@pytest.mark.parametrize(("network", "gated_convs"), KINDS)
def test_the_other_forms_come_back_from_the_parts_bit_for_bit(network, gated_convs, make_network):
    """Oracle: the forms made from the network itself."""
    model = make_network(network, gated_convs=gated_convs)
    kept = [torch.randperm(n, generator=torch.Generator().manual_seed(4))[: n // 2] for n in model.shape.gate_channels]
    made = compact_to(model, kept)
    for found, wanted in (
        (made.masked(), masked_network(model)),
        (made.dense(), dense_network(model, source="gated")),
        (made.with_kept([part[:3] for part in kept], "compact"), compact_to(model, [part[:3] for part in kept])),
    ):
        assert found.form == wanted.form
        pairs = zip(found.state_dict().items(), wanted.state_dict().items(), strict=True)
        assert all(name == other and torch.equal(value, expected) for (name, value), (other, expected) in pairs)
    with pytest.raises(InputError, match="no gates any more"):
        made.dense().masked()


def test_kept_channels_are_filled_up_with_those_nearest_to_opening(make_network, make_images):
    """Oracle: sorting every gate's channels by count and highest logit."""
    model, batch = make_network("resnet18"), make_images(100, 3)
    plain, filled = calibrate(model, batch, rare=0.3), calibrate(model, batch, rare=0.3, multiple=6)
    logits = [part.detach() for part in model(batch, gated=True).logits]
    grown = 0
    for old, new, part in zip(plain.kept, filled.kept, logits, strict=True):
        n_channels = part.shape[1]
        assert len(new) == min(n_channels, -(-len(old) // 6) * 6)
        keys = [(int((part[:, c] >= 0).sum()), float(part[:, c].max())) for c in range(n_channels)]
        assert sorted(keys[c] for c in new.tolist()) == sorted(keys)[n_channels - len(new) :]  # of equal ones any will do
        grown += len(new) - len(old)
    assert grown > 0
    assert sum(filled.left_out_misses) < sum(plain.left_out_misses)


def fix(model, *, free=0, seed=4):
    """Fix all gates but the first `free` decisions of each; about half open."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, Gate):
            module.fixed.copy_((torch.rand(len(module.fixed), generator=generator) < 0.5) * 2.0 - 1)
            module.fixed[:free] = 0
    return model


@pytest.mark.long
@pytest.mark.parametrize("free", [0, 2])
@pytest.mark.parametrize(("network", "gated_convs"), KINDS)
def test_fixed_gates_cost_nothing_and_change_nothing(network, gated_convs, free, make_network, make_images):
    """Oracle: the gated pass, also on images that no calibration saw."""
    model = fix(make_network(network, gated_convs=gated_convs), free=free)
    made = compact(model, make_images(100), multiple=4)
    batch = 3 * make_images(12, seed=9)
    found, expected = made.inspect(batch), model(batch, gated=True)
    torch.testing.assert_close(found.features, expected.features, rtol=1e-10, atol=1e-10)
    for logits, wanted in zip(found.logits, expected.logits, strict=True):
        assert torch.equal(logits >= 0, wanted >= 0)
    assert [block.settled for block in made.blocks] == [not free] * len(made.blocks)
    if not free:
        calls = []
        for block in made.blocks:
            for layer in (*block.gates.values(), *block.enter.values(), *block.leave.values()):
                layer.register_forward_hook(lambda *_: calls.append(1))
        made(batch)
        assert not calls
        assert made.macs.gates == 0
        static = static_network(model, [(logits[0] >= 0).nonzero()[:, 0] for logits in expected.logits])
        assert made.macs.static == static.macs.static
        torch.testing.assert_close(made(batch), static(batch), rtol=1e-10, atol=1e-10)
    masked = made.masked()
    torch.testing.assert_close(masked(batch), expected.features, rtol=1e-10, atol=1e-10)
    assert not any(block.settled for block in masked.blocks)
    imposed = [torch.ones_like(gate) for gate in expected.gates]
    torch.testing.assert_close(
        made.inspect(batch, gates=imposed).features, model(batch, gated=True, all_open=True).features, rtol=1e-10, atol=1e-10
    )


def test_a_settled_network_is_settled_when_it_is_read_again(tmp_path, make_network, make_images):
    made = compact(fix(make_network("resnet18")), make_images(100))
    save(tmp_path / "net", made)
    again = load(tmp_path / "net")
    assert all(block.settled for block in again.blocks)
    torch.testing.assert_close(again(make_images(3)), made(make_images(3)), rtol=0, atol=0)
