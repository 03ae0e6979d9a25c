"""Levels and routes in pieces. Oracles: the gated pass they come from, the form that computes everything, sums by hand."""

import json

import numpy as np
import onnx
import pytest
import torch

from pulvinar.core.errors import FileError, InputError
from pulvinar.deploy.choices import ChoiceNetwork, choice_network
from pulvinar.deploy.compact import compact, dense_network, static_network
from pulvinar.deploy.equality import relative_differences
from pulvinar.deploy.files import load, load_choices, save
from pulvinar.deploy.onnx_files import choice_model, export_choices, run_with
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import LevelGate
from pulvinar.networks.resnet_shape import resnet_shape

LEVELS = (0.0, 0.25, 0.5, 1.0)
FORMS = {
    "levels": ("resnet18", {"levels": LEVELS}),
    "two levels": ("resnet18", {"levels": (0.25, 1.0)}),
    "routes": ("resnet18", {"routes": 3}),
    "bottleneck levels": ("resnet50", {"levels": LEVELS, "gated_convs": "conv1"}),
    "bottleneck routes": ("resnet50", {"routes": 2, "gated_convs": "both"}),
}


def trained(name: str, options: dict) -> GatedResNet:
    """A network whose choices depend on the image, with batch-norms that do something; float64."""
    generator = torch.Generator().manual_seed(4)
    made = GatedResNet(resnet_shape(name, size=16, width=0.125, **options), size=16, gate_bias=0.0).initialise(generator)
    for module in made.double().modules():
        if isinstance(module, BatchNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, LevelGate):
            module.expand.weight.data.mul_(6)
            module.expand.bias.data[1:] = -1.0
    if made.router is not None:
        made.router.expand.weight.data.mul_(6)
        made.router.expand.weight.data -= made.router.expand.weight.data.mean(0)
    made.logit_shift.fill_(0.1)
    return made.eval()


def named(form: str):
    return pytest.param(form, marks=pytest.mark.slow) if form.startswith("bottleneck") else form


@pytest.fixture(scope="module", params=[named(form) for form in FORMS])
def pair(request) -> tuple[GatedResNet, ChoiceNetwork]:
    network = trained(*FORMS[request.param])
    return network, choice_network(network)


def pixels(n: int = 40, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 2, 2, generator=generator, dtype=torch.float64)
    fine = torch.rand(n, 3, 16, 16, generator=generator, dtype=torch.float64)
    return 0.8 * torch.nn.functional.interpolate(coarse, size=16, mode="nearest") + 0.2 * fine


def normalised(network: ChoiceNetwork, images: torch.Tensor) -> torch.Tensor:
    mean, sd = (torch.tensor(values, dtype=images.dtype)[:, None, None] for values in (network.mean, network.sd))
    return (images - mean) / sd


def test_pieces_are_the_gated_pass_on_every_image(pair):
    network, made = pair
    batch = normalised(made, pixels())
    with torch.no_grad():
        wanted = network(batch, gated=True)
    found = made.inspect(batch)
    assert len(torch.stack(found.choices).unique()) > 1  # more than one option is met
    torch.testing.assert_close(found.features, wanted.features, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made.masked().inspect(batch).features, wanted.features, rtol=1e-9, atol=1e-9)
    assert made.macs.share(found.choices) == pytest.approx(float(wanted.hard_share))
    assert made.macs.dense == network.macs.dense


def test_each_image_runs_its_own_piece_and_no_other(pair):
    """Hooks: the images that go through a piece are those that chose it."""
    _, made = pair
    batch = normalised(made, pixels())
    choices = made.inspect(batch).choices
    seen: dict[tuple[int, int], int] = {}
    hooks = [
        piece.register_forward_pre_hook(lambda _, given, key=(n, o): seen.__setitem__(key, len(given[0])))
        for n, options in enumerate(made.pieces)
        for o, piece in enumerate(options)
    ]
    made.inspect(batch)
    for hook in hooks:
        hook.remove()
    for number in range(len(made.whole)):
        taken = choices[0 if len(choices) == 1 else number]
        counts = torch.bincount(taken, minlength=made.n_options).tolist()
        assert {o: count for o, count in enumerate(counts) if count} == {o: n for (b, o), n in seen.items() if b == number}


def test_imposed_choices_are_a_static_network(pair):
    network, made = pair
    batch = normalised(made, pixels(6))
    n = len(made.segments)
    for option in range(made.n_options):
        fixed = static_network(network, [options[option] for options in made.options])
        found = made.inspect(batch, choices=[torch.full((6,), option)] * n)
        torch.testing.assert_close(found.features, fixed(batch), rtol=1e-9, atol=1e-9)
        macs = made.macs
        assert macs.fixed + sum(each[option] for each in macs.options) == fixed.macs.static + network.macs.gates


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_files_are_the_masked_network(pair, runtime):
    """Oracle: the form that computes everything, in torch. Relative 1e-5, and the same choices."""
    pytest.importorskip(runtime)
    made = pair[1].masked(masked=False).float()
    images = pixels(12).float()
    wanted = made.masked().inspect(normalised(made, images))
    taken = torch.stack(wanted.choices, 1).numpy()
    for network, one_image in ((made, False), (made, True), (made.masked(), False)):
        run = run_with(choice_model(network, one_image=one_image).SerializeToString(), runtime)
        parts = [run(part) for part in np.split(images.numpy(), 12 if one_image else 1)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert np.array_equal(found["choices"], taken)
        assert relative_differences(wanted.features.numpy(), found["features"]).max() < 1e-5
        np.testing.assert_allclose(found["scores"], torch.cat(wanted.scores, 1).numpy(), rtol=1e-3, atol=1e-4)


def test_an_image_outside_of_the_range_gets_nan_and_the_others_theirs():
    made = choice_network(trained(*FORMS["levels"])).float()
    run = pytest.importorskip("onnxruntime") and run_with(choice_model(made).SerializeToString(), "onnxruntime")
    images = pixels(3).float().numpy()
    alone = run(images)["features"]
    session = pytest.importorskip("onnxruntime").InferenceSession(choice_model(made).SerializeToString())
    images[1] *= 255
    features = session.run(["features"], {"images": images})[0]
    assert np.isnan(features[1]).all()
    np.testing.assert_allclose(features[[0, 2]], alone[[0, 2]], rtol=1e-5, atol=1e-6)


def test_a_file_says_what_it_is_and_is_not_overwritten(tmp_path):
    made = choice_network(trained(*FORMS["routes"])).float()
    done = export_choices(
        made, tmp_path / "routes.onnx", one_image=True, facts={"method": "dual_gating", "run": "/elsewhere/runs/a"}
    )
    assert done["form"] == "routes"
    said = {entry.key: entry.value for entry in onnx.load(tmp_path / "routes.onnx").metadata_props}
    assert said["form"] == "routes"
    assert said["batch"] == "1"
    assert json.loads(said["macs"])["dense"] == made.macs.dense
    assert "/elsewhere" not in said["facts"]
    with pytest.raises(FileError):
        export_choices(made, tmp_path / "routes.onnx")


def test_a_folder_keeps_whole_weights_once_and_gives_the_same_network(pair, tmp_path):
    made = pair[1]
    batch = normalised(made, pixels(8))
    assert len(made.pieces) == len(made.whole)  # cut before it is written
    save(tmp_path / "net", made, facts={"method": "dual_gating"})
    again = load_choices(tmp_path / "net")
    torch.testing.assert_close(again(batch), made(batch), rtol=0, atol=0)
    n_numbers = sum(value.numel() for value in made.state_dict().values())
    whole = sum(value.numel() for value in made.dense().state_dict().values())
    assert n_numbers == whole + sum(value.numel() for value in made.choosers.state_dict().values())
    with pytest.raises(FileError, match="a compact network is needed, this is a network in pieces"):
        load(tmp_path / "net")


def test_new_weights_are_cut_anew():
    made = choice_network(trained(*FORMS["levels"]))
    batch = normalised(made, pixels(4))
    before = made(batch)
    state = {name: 1.1 * value for name, value in made.state_dict().items()}
    made.load_state_dict(state)
    assert not torch.allclose(made(batch), before)
    torch.testing.assert_close(made(batch), made.masked()(batch), rtol=1e-9, atol=1e-9)


def test_other_gates_are_refused_on_either_side():
    plain = trained("resnet18", {})
    with pytest.raises(InputError, match="levels or routes are needed; this resnet18 has gates of channels"):
        choice_network(plain)
    with pytest.raises(InputError, match="its gates choose levels, not channels"):
        compact(trained(*FORMS["levels"]), normalised(choice_network(trained(*FORMS["levels"])), pixels(120)))


def test_the_dense_form_is_the_whole_network_without_gates(pair):
    network, made = pair
    batch = normalised(made, pixels(4))
    torch.testing.assert_close(made.dense()(batch), dense_network(network, source="gated")(batch), rtol=1e-9, atol=1e-9)
