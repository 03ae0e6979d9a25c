"""Backbones for other people's code. Oracles: the run's own network, torchvision, timm."""

import copy
import json

import pytest
import timm
import torch
import torchvision
from torch import nn

from pulvinar.core.errors import FileError, InputError
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import Gate
from pulvinar.networks.plain_resnet import PlainResNet, plain_resnet
from pulvinar.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from pulvinar.networks.resnet_shape import is_standard, resnet_shape

SIZE = 32
KINDS = [("resnet18", "conv2", 1), ("resnet50", "both", 1), ("resnet18", "conv2", 4)]


def network_of(name="resnet18", *, width=0.125, stem="imagenet", gated_convs="conv2", group=1, **options) -> GatedResNet:
    """Drawn weights, batch-norms that do something, gates that depend on the image."""
    generator = torch.Generator().manual_seed(1)
    shape = resnet_shape(name, size=SIZE, width=width, stem=stem, gated_convs=gated_convs, gate_group=group)
    made = GatedResNet(shape, size=SIZE, **options).initialise(generator)
    for module in made.modules():
        if isinstance(module, BatchNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    made.logit_shift.fill_(-0.05)
    return made.eval()


def plain(network: GatedResNet, source="dense", **options) -> PlainResNet:
    return plain_resnet(network, source=source, mean=IMAGENET_MEAN, std=IMAGENET_STD, **options).eval()


def images(n=6, seed=2) -> torch.Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.long
@pytest.mark.parametrize(("name", "gated_convs", "group"), KINDS)
@pytest.mark.parametrize("separate_norms", ["blocks", "all"])
def test_both_passes_are_those_of_the_run(name, gated_convs, group, separate_norms):
    network = network_of(name, gated_convs=gated_convs, group=group, separate_norms=separate_norms, gate_bias=0.1)
    batch = images()
    for source in ("dense", "gated"):
        wanted = network(batch, source == "gated")
        made = plain(network, source)
        torch.testing.assert_close(made(batch), wanted.features, rtol=1e-5, atol=1e-5)
        assert float(made.hard_share) == pytest.approx(float(wanted.hard_share)) or source == "dense"
    assert not torch.equal(plain(network)(batch), plain(network, "gated")(batch))


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_the_dense_pass_loads_into_torchvision_and_timm(name):
    """strict=True but for the head; features equal to 1e-5 of the largest."""
    network = network_of(name, width=1.0)
    made, batch = plain(network), images(2)
    for library in (getattr(torchvision.models, name)(), timm.create_model(name)):
        head = {"fc.weight": library.fc.weight, "fc.bias": library.fc.bias}
        library.load_state_dict({**made.state_dict(), **head}, strict=True)
        library.fc = nn.Identity()
        found, wanted = library.eval()(batch), network(batch).features
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
    assert is_standard(made.shape)
    assert "layer1.0.conv1.weight" in made.state_dict()


@pytest.mark.long
@pytest.mark.parametrize(("name", "gated_convs", "group"), KINDS)
def test_compact_equals_the_gated_pass_where_nothing_is_missed(name, gated_convs, group):
    network = network_of(name, gated_convs=gated_convs, group=group)
    batch = images()
    wanted = network(batch, True)
    kept = [(logits >= 0).any(0).nonzero()[:, 0] for logits in wanted.logits]
    made = plain(network, "gated", kept=kept)
    torch.testing.assert_close(made(batch), wanted.features, rtol=1e-5, atol=1e-5)
    assert made.macs.dense < network.macs.dense
    others = [part[: len(part) // 2] for part in kept]
    assert not torch.allclose(plain(network, "gated", kept=others)(batch), wanted.features, rtol=1e-3)


def test_a_gate_that_keeps_nothing_keeps_a_channel():
    network = network_of()
    kept = [torch.zeros(0, dtype=torch.long) for _ in network.shape.gate_channels]
    assert plain(network, "gated", kept=kept)(images()).isfinite().all()


@pytest.mark.long
def test_ten_steps_of_fine_tuning_lower_the_loss_in_every_mode():
    torch.manual_seed(0)  # of the fresh head
    network, labels = network_of(stem="cifar", width=0.125), torch.arange(32) % 2
    batch = images(32) + 2.0 * labels[:, None, None, None]
    kept = [torch.arange(n // 2) for n in network.shape.gate_channels]
    for source, cut in (("dense", None), ("gated", None), ("gated", kept)):
        model = plain(network, source, kept=cut, num_classes=2).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch), labels) + 0.1 * model.mac_share
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_noise_of_the_gates_is_drawn_in_training_alone_and_from_the_seed():
    network, batch = network_of(), images()
    first, again = (plain(network, "gated", seed=seed).train() for seed in (3, 3))
    drawn = first(batch)
    assert torch.equal(drawn, again(batch))
    assert not torch.equal(drawn, first(batch))
    assert torch.equal(first.eval()(batch), first(batch))


def test_a_module_is_copied_in_the_middle_of_training():
    model = plain(network_of(), "gated").train()
    model(images()).sum().backward()
    copied = copy.deepcopy(model).eval()
    assert torch.equal(copied(images()), model.eval()(images()))


def test_manners_of_timm():
    model = plain(network_of(), num_classes=5)
    maps = model.forward_features(images())
    assert maps.shape == (6, model.num_features, 1, 1)
    assert model.forward_head(maps, pre_logits=True).shape == (6, model.num_features)
    assert torch.equal(model.forward_head(maps), model(images()))
    assert model.get_classifier().out_features == model.num_classes == 5
    model.reset_classifier(0)
    assert model(images()).shape == (6, model.num_features)
    assert model.default_cfg["mean"] == IMAGENET_MEAN
    assert model.default_cfg["input_size"] == (3, SIZE, SIZE)
    assert dict(model.named_modules())[model.default_cfg["first_conv"]] is model.conv1
    assert all(".gate" in name for name in plain(network_of(), "gated").no_weight_decay())
    with pytest.raises(InputError, match="num_classes"):
        model.reset_classifier(-1)


def test_pixels_and_normalised_images_each_have_their_name():
    model = plain(network_of())
    pixels = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first = pixels.permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = model((first / 255 - mean) / std)
    for given in (pixels, first, first / 255):
        torch.testing.assert_close(model.from_pixels(given), wanted)
    for wrong in (first / 255, first.float()):
        with pytest.raises(InputError, match=r"model.from_pixels\(x\) takes pixels"):
            model(wrong)
    with pytest.raises(InputError, match=r"pixels in \[0, 1\] are needed"):
        model.from_pixels((first / 255 - mean) / std)
    with pytest.raises(InputError, match="uint8, or floating"):
        model.from_pixels(first.long())
    model(torch.zeros(1, 3, SIZE, SIZE))  # a dummy of zeros is no picture
    as_they_are = plain_resnet(network_of(), source="dense", mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    assert as_they_are(first / 255).isfinite().all()  # pixels are normalised there


def test_what_a_network_has_not_is_refused():
    with pytest.raises(InputError, match="no gated pass"):
        plain(network_of(passes=("dense",)), "gated")


@pytest.mark.parametrize("mode", ["dense", "gated", "compact"])
def test_files_give_the_network_back_bit_for_bit(mode, tmp_path):
    network = network_of(gate_bias=0.1, group=4)
    kept = [torch.arange(n // 2) for n in network.shape.gate_channels] if mode == "compact" else None
    model = plain(network, "dense" if mode == "dense" else "gated", kept=kept, num_classes=3)
    model.facts, model.card = {"method": "x"}, "# card\n"
    model.save_pretrained(tmp_path / "net")
    back = PlainResNet.from_pretrained(tmp_path / "net").eval()
    assert torch.equal(back(images()), model(images()))
    assert (back.mode, back.mean, back.facts, back.card) == (mode, model.mean, model.facts, model.card)
    assert PlainResNet.from_pretrained(tmp_path / "net", num_classes=7).num_classes == 7
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    with pytest.raises(FileError, match="exists"):
        model.save_pretrained(tmp_path / "net")


def test_timm_loads_the_files_of_a_network_that_it_has(tmp_path):
    model = plain(network_of(width=1.0))
    model.save_pretrained(tmp_path / "net")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    torch.testing.assert_close(loaded(images()), model(images()), rtol=1e-5, atol=1e-5)
    assert loaded.pretrained_cfg["mean"] == pytest.approx(IMAGENET_MEAN)
    plain(network_of(width=0.125)).save_pretrained(tmp_path / "narrow")  # and another width under a name that it has not
    with pytest.raises(RuntimeError, match="pulvinar_resnet18"):
        timm.create_model(f"local-dir:{tmp_path / 'narrow'}", pretrained=True)


def test_damaged_and_other_files_are_refused(tmp_path):
    plain(network_of()).save_pretrained(tmp_path / "net")
    config = json.loads((tmp_path / "net" / "config.json").read_text())
    (tmp_path / "net" / "config.json").write_text(json.dumps({**config, "num_classes": 4}))
    with pytest.raises(FileError, match="do not fit each other"):
        PlainResNet.from_pretrained(tmp_path / "net")
    (tmp_path / "net" / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(FileError, match="save_pretrained"):
        PlainResNet.from_pretrained(tmp_path / "net")
    with pytest.raises(FileError, match="no such folder, and no OWNER/NAME"):
        PlainResNet.from_pretrained(tmp_path / "absent")


def test_the_hub_gets_and_gives_the_same_files(tmp_path, monkeypatch):
    """The hub is played by a folder: what is uploaded there is what is fetched."""
    import shutil

    import huggingface_hub

    class Hub:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, repo_id, private, exist_ok):
            (tmp_path / repo_id).mkdir(parents=True)

        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, tmp_path / repo_id, dirs_exist_ok=True)
            return f"hub/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tmp_path / name))
    model = plain(network_of())
    assert model.push_to_hub("someone/net") == "hub/someone/net"
    assert torch.equal(PlainResNet.from_pretrained("hf-hub:someone/net").eval()(images()), model(images()))
    with pytest.raises(InputError, match="OWNER/NAME is needed"):
        model.push_to_hub("net")


def test_gates_that_are_fixed_stay_so():
    network = network_of()
    gate = next(module for module in network.modules() if isinstance(module, Gate))
    gate.fixed.copy_(torch.tensor([1.0, -1.0]).repeat(len(gate.fixed))[: len(gate.fixed)])
    torch.testing.assert_close(plain(network, "gated")(images()), network(images(), True).features, rtol=1e-5, atol=1e-5)
