"""Oracles: the uninterrupted run, bit for bit; the weights before a step that failed; closed forms of spread and rank."""

import dataclasses

import numpy as np
import pytest
import torch

from pulvinar.core.config import build
from pulvinar.core.errors import ConfigError, DegenerateError, InputError
from pulvinar.data.image_set import ImageSet
from pulvinar.gating import settling
from pulvinar.gating.collapse import Health, Watch, effective_rank, health
from pulvinar.gating.methods.self_supervised import DenseConfig, DualConfig, prepare
from pulvinar.gating.siamese import make_network
from pulvinar.gating.siamese_training import SiameseTrainer, require_batch
from pulvinar.learning.views import plain_view
from pulvinar.selection.route_choice import one_sided

QUICK = {"epochs": 2, "batch_size": 8, "width": 0.0625, "projector_width": 16, "budget": 0.5, "precision": "float32"}


def images(n: int = 24, size: int = 16) -> ImageSet:
    generator = np.random.default_rng(0)
    return ImageSet(
        name="noise",
        train=generator.integers(0, 255, (n, size, size, 3)).astype(np.uint8),
        test=generator.integers(0, 255, (8, size, size, 3)).astype(np.uint8),
    )


def trainer(data: ImageSet | None = None, **settings) -> SiameseTrainer:
    config = build(DualConfig, QUICK | settings, name="dual_gating")
    data = data or images()
    prepare(config, data)
    network = make_network(config, data.side)
    return SiameseTrainer(network, data.train, config)


def finish(run: SiameseTrainer) -> list[dict]:
    records = []
    while not run.done:
        if record := run.run_steps():
            records.append(record)
    return records


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gate_form": "levels"},
        {"gate_form": "routes", "n_routes": 3, "gate_group": 2, "micro_batches": 2},
        pytest.param({"swap_views": True, "micro_batches": 2, "objective": "simsiam"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_taken_up_in_the_middle_of_an_epoch_is_the_whole_run(settings):
    whole = trainer(**settings)
    records = finish(whole)
    first = trainer(**settings)
    assert first.run_steps(2) is None
    state = first.state()
    state = {key: value.copy() if isinstance(value, dict) else value for key, value in state.items()}
    state["network"] = {name: value.clone() for name, value in state["network"].items()}
    second = trainer(**settings)
    second.restore(state)
    assert finish(second) == records
    for (name, a), b in zip(whole.network.state_dict().items(), second.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert whole.constraint == second.constraint


def test_the_papers_gates_stay_what_they_were_before_there_were_other_forms():
    """Numbers of the version before levels and routes: initial weights, and two epochs."""
    run = trainer()
    state = run.network.state_dict()
    assert run.config.gate_form == "subset"
    assert len(state) == 287
    assert float(sum(value.abs().double().sum() for value in state.values())) == pytest.approx(5168.699851939005, rel=1e-7)
    records = finish(run)
    assert [record["loss"] for record in records] == pytest.approx([42.293165842692055, 75.0790303548177], rel=1e-3)
    assert [record["mac_share"] for record in records] == pytest.approx([1.0008516709, 1.0015273491], abs=1e-5)


@pytest.mark.long
def test_another_seed_is_another_run_and_the_same_is_the_same():
    first, again, other = (finish(trainer(seed=seed, epochs=1))[0]["loss"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_weights():
    run = trainer()
    run.run_steps(1)
    before = {name: value.clone() for name, value in run.network.named_parameters()}
    run.loss.config = dataclasses.replace(run.config, invariance_weight=float("nan"))
    with pytest.raises(DegenerateError, match=r"step 2 \(epoch 1\): the loss is nan"):
        run.run_steps(1)
    for name, value in run.network.named_parameters():
        assert torch.equal(value, before[name])
    assert run.step_number == 1


def test_weights_that_are_not_finite_are_not_saved():
    run = trainer()
    run.run_steps(1)
    next(run.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(DegenerateError, match="after step 1"):
        run.state()


def test_a_tight_budget_is_held_more_stiffly():
    """At a tenth three times as stiff as at 30 %, and nine times the multiplier's rate; above 30 % as there."""
    tenth, usual, half = (trainer(budget=budget).constraint for budget in (0.1, 0.3, 0.5))
    assert tenth.stiffness == pytest.approx(3 * usual.stiffness)
    assert tenth.rate == pytest.approx(9 * usual.rate)
    assert (half.stiffness, half.rate) == (usual.stiffness, usual.rate)
    assert usual.stiffness == DualConfig().constraint_stiffness


def test_gates_stay_open_in_a_warm_up_without_gates():
    run = trainer(gates_open_share=0.5)
    run.run_steps(1)
    assert run.constraint.average is None
    _, branches = run.step(run.draw_views(torch.arange(8)))
    macs = run.network.encoder(gated=True).macs
    assert branches[0].share.item() == pytest.approx((macs.dense + macs.gates) / macs.dense)
    finish(run)
    assert run.constraint.average is not None


def test_batches_that_cannot_be_filled_or_divided_are_refused():
    config = build(DualConfig, QUICK, name="dual_gating")
    with pytest.raises(InputError, match="more than the 4 training images"):
        require_batch(4, config)
    with pytest.raises(InputError, match="3 micro-batches"):
        require_batch(24, dataclasses.replace(config, micro_batches=3))


def test_budget_below_the_floor_is_refused():
    with pytest.raises(InputError, match="stem, the downsamples and the gates"):
        trainer(budget=0.01)


def test_images_that_are_not_square_are_refused():
    data = images()
    flat = ImageSet(name="flat", train=data.train[:, :8], test=data.test[:, :8])
    with pytest.raises(InputError, match="square"):
        prepare(build(DualConfig, QUICK, name="dual_gating"), flat)


def test_mistakes_of_a_config_come_together():
    with pytest.raises(ConfigError) as caught:
        build(DualConfig, {"budget": 2, "epochs": 0, "buget": 0.1}, name="dual_gating")
    text = str(caught.value)
    assert "did you mean 'budget'" in text
    assert "dual_gating.budget lies in (0, 1], not 2.0" in text
    assert "dual_gating.epochs" in text


@pytest.mark.long
def test_settled_gates_are_on_the_budget_and_say_what_it_took():
    run = trainer(budget=0.35)
    config = build(DualConfig, QUICK | {"budget": 0.35}, name="dual_gating")
    data = images(64)
    encoder = run.network.encoder(gated=True)
    found = settling.settle(encoder, data.train, config, config.views()[0])
    share = settling.mac_share(encoder, data.train, config.views()[0])
    assert share == pytest.approx(0.35, abs=0.03)  # 120 gates, each up to .03 of the multiply-adds
    assert found["share_training"] == pytest.approx(share, abs=1e-6)
    assert float(encoder.logit_shift) == pytest.approx(found["logit_shift"])


@pytest.mark.long
@pytest.mark.parametrize(
    "settings", [{"gate_form": "levels"}, {"gate_form": "routes", "n_routes": 3}], ids=lambda settings: settings["gate_form"]
)
def test_levels_and_routes_are_settled_on_the_budget_too(settings):
    """Oracle: the multiply-adds of the widths that images really open, counted image by image."""
    run = trainer(budget=0.4, **settings)
    data = images(64)
    encoder = run.network.encoder(gated=True)
    settling.settle(encoder, data.train, run.config, run.config.views()[0])
    assert settling.mac_share(encoder, data.train, run.config.views()[0]) == pytest.approx(0.4, abs=0.06)
    pixels = plain_view(torch.from_numpy(data.train), run.config.views()[0])
    with torch.no_grad():
        opened = [gates.sum(1) for gates in encoder(pixels, gated=True).gates]
    macs = encoder.macs.per_image([part.double() for part in opened]) / encoder.macs.dense
    assert float(macs.mean()) == pytest.approx(settling.mac_share(encoder, data.train, run.config.views()[0]), abs=1e-5)


def test_the_term_of_routes_is_in_the_loss_and_of_no_other_form():
    _, branches = (run := trainer(gate_form="routes", route_weight=3.0)).step(run.draw_views(torch.arange(8)))
    terms = run.loss.terms(branches, done=0.5, constraint=run.constraint)
    assert float(terms["routes"]) == pytest.approx(3 * float(one_sided(branches[0].usage)))
    _, branches = (run := trainer()).step(run.draw_views(torch.arange(8)))
    assert "routes" not in run.loss.terms(branches, done=0.5, constraint=run.constraint)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"gate_form": "level"}, "gate_form"),
        ({"n_routes": 3}, "n_routes"),
        ({"gate_levels": (0.5, 1.0)}, "gate_levels"),
        ({"gate_form": "levels", "gate_levels": (0.5, 0.2, 1.0)}, "ascending shares"),
        ({"gate_form": "levels", "gate_group": 4}, "gate_group"),
        ({"gate_form": "routes", "fix_gates": 0.5}, "fix_gates"),
        ({"gate_form": "levels", "network": "resnet50", "gated_convs": "both"}, "conv1 or conv2"),
    ],
)
def test_settings_of_another_form_are_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        build(DualConfig, QUICK | settings, name="dual_gating", given=settings)


def test_a_method_without_gates_does_not_know_the_form():
    with pytest.raises(ConfigError, match="'gate_form' is not a setting of dense_ssl"):
        build(DenseConfig, {"gate_form": "levels"}, name="dense_ssl")


def gates_of(encoder, data: ImageSet) -> torch.Tensor:
    """Gates (image, channel) of inference on other images."""
    pixels = torch.from_numpy(data.test).permute(0, 3, 1, 2).float() / 255
    encoder.eval()
    with torch.no_grad():
        return torch.cat([logits >= 0 for logits in encoder(pixels, gated=True).logits], 1)


@pytest.mark.long
@pytest.mark.parametrize("when", [pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_gates_fixed_with_half_as_margin_are_one_mask_on_the_budget(when):
    settings = {"budget": 0.35, "fix_gates": when, "epochs": 4}
    run = trainer(**settings)
    finish(run)
    encoder, data = run.network.encoder(gated=True), images()
    assert (settling.free_channels(encoder) == 0) == (when < 1)
    config = build(DualConfig, QUICK | settings, name="dual_gating")
    found = settling.settle(encoder, data.train, config, config.views()[0])
    assert settling.free_channels(encoder) == 0
    assert found["fixed_open"] + found["fixed_shut"] == pytest.approx(1)
    assert found["share_training"] == pytest.approx(0.35, abs=0.03)
    opened = gates_of(encoder, data)
    assert torch.equal(opened, opened[:1].expand_as(opened))


def test_only_decided_gates_are_fixed_with_a_small_margin_and_the_budget_still_holds():
    run = trainer(budget=0.35)
    encoder, data, view = run.network.encoder(gated=True), images(64), run.views[0]
    for gate in settling._gates(encoder):  # every third decision depends on the image as it did, the others are far from 0
        gate.expand.bias.data += torch.tensor([-50.0, 0.0, 50.0]).repeat(len(gate.fixed))[: len(gate.fixed)] - 2
        gate.expand.weight.data *= 20
    before = settling.mac_share(encoder, data.train, view)
    settling.fix_gates(encoder, data.train, view, budget=before, margin=0.02)
    for gate in settling._gates(encoder):
        assert torch.equal(gate.fixed[0::3], -torch.ones_like(gate.fixed[0::3]))
        assert torch.equal(gate.fixed[2::3], torch.ones_like(gate.fixed[2::3]))
    assert settling.free_channels(encoder) > 0
    assert settling.mac_share(encoder, data.train, view) == pytest.approx(before, abs=0.02)


@pytest.mark.slow
def test_a_run_taken_up_after_gates_were_fixed_is_the_whole_run():
    settings = {"fix_gates": 0.5, "budget": 0.4}
    whole = trainer(**settings)
    records = finish(whole)
    for n_steps in (whole.n_steps // 2, whole.n_steps // 2 + 1):
        first = trainer(**settings)
        while first.step_number < n_steps:
            first.run_steps(n_steps - first.step_number)
        state = first.state() | {"network": {name: value.clone() for name, value in first.network.state_dict().items()}}
        second = trainer(**settings)
        second.restore(state)
        assert finish(second)[-1] == records[-1]


@pytest.mark.parametrize("wrong", [{"fix_gates": 1.5}, {"fix_margin": 0.6}, {"fix_gates": 0.5, "budget_mode": "none"}])
def test_impossible_settings_of_fixed_gates_are_named(wrong):
    with pytest.raises(ConfigError, match="fix_"):
        build(DualConfig, QUICK | wrong, name="dual_gating")


def test_effective_rank_and_spread_in_closed_form():
    directions = torch.eye(6, dtype=torch.float64)
    assert effective_rank(torch.cat([directions, -directions])) == pytest.approx(6)
    line = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None] * torch.ones(1, 4, dtype=torch.float64)
    assert effective_rank(line) == pytest.approx(1)
    assert effective_rank(torch.ones(5, 3)) == 0.0
    rows = torch.randn((64, 32), generator=torch.Generator().manual_seed(0))
    seen = health(rows, rows, rows + 0.01)
    assert seen.agreement == 1.0
    assert seen.spread == pytest.approx(1.0, abs=0.02)
    shuffled = health(torch.ones(64, 32), rows, rows.roll(1, 0))
    assert shuffled.agreement == 0.0
    assert shuffled.spread == pytest.approx(0.0, abs=1e-6)


def seen_by(*healths: tuple[float, float, float]) -> tuple[Watch, list[bool]]:
    watch, warned = Watch(), []
    for epoch, values in enumerate(healths, start=1):
        watch.see(Health(*values), epoch=epoch, n_images=128)
        warned.append(watch.collapsing)
    return watch, warned


def test_watch_warns_of_a_point_a_line_and_views_that_drift_apart(capsys):
    assert seen_by((0.3, 20, 0.01), (0.04, 20, 0.5))[1] == [False, True]
    assert "variance_weight" in capsys.readouterr().err
    assert seen_by((0.3, 1.5, 0.5))[1] == [True]
    # measured: dual VICReg of width .125 without the invariance term, and with it from half-open gates
    apart = ((0.287, 38.7, 0.008), (0.262, 41.3, 0.008), (0.274, 37.4, 0.0), (0.263, 39.6, 0.008))
    watch, warned = seen_by(*apart)
    assert warned == [False, False, True, True]
    text = capsys.readouterr().err
    assert text.count("invariance=true") == 1
    # measured: the same of width .25, where features spread along few directions
    few = ((0.506, 4.2, 0.016), (0.541, 3.0, 0.008), (0.558, 4.1, 0.008), (0.547, 4.3, 0.008), (0.562, 4.6, 0.02))
    assert seen_by(*few)[1] == [False, False, True, True, True]
    assert "few directions (rank 4.1)" in capsys.readouterr().err
    # views that do not find each other yet, along twelve directions (spread and rank measured): no collapse
    healthy = ((0.523, 12.4, 0.047), (0.579, 11.9, 0.02), (0.575, 12.6, 0.03), (0.559, 12.5, 0.188))
    assert not any(seen_by(*healthy)[1])
    slow = ((0.299, 32.4, 0.0), (0.35, 20.0, 0.008), (0.36, 15.0, 0.01), (0.397, 13.2, 0.016))
    assert not any(seen_by(*slow)[1])
    other = Watch()
    other.restore(watch.state())
    assert other.record() == watch.record()
