"""`pulvinar.load_backbone` and `pulvinar export-weights` from a run's folder; the page of backbones, run as it stands."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import pulvinar
from pulvinar.cli import main
from pulvinar.core.errors import InputError, PulvinarWarning
from pulvinar.core.progress import REPORTER
from pulvinar.learning.backbone_runs import load_backbone as stored
from pulvinar.learning.backbone_runs import save_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings, plain_view
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape

SIZE = 16
MEAN, SD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)
PAGE = Path(__file__).resolve().parents[2] / "docs/networks.md"


def write_run(path, *, width=0.125, passes=("dense", "gated"), stem="auto"):
    network = GatedResNet(resnet_shape("resnet18", size=SIZE, width=width, stem=stem), size=SIZE, passes=passes, gate_bias=0.0)
    network.initialise(torch.Generator().manual_seed(2)).eval()
    data = {"name": "noise", "path": str(path.parent / "secret" / "images.npz")}
    config = "seed = 0\n"
    run = RunFolder.create(path, method="dual_gating", config_toml=config, seed=0, data=data, topic="self_supervised")
    save_backbone(run, network, ViewSettings(mean=MEAN, sd=SD))
    run.finish()
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("backbones") / "run")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """As wide as the libraries' networks, with a stem of small images."""
    return write_run(tmp_path_factory.mktemp("backbones") / "wide", width=1.0)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (120, SIZE, SIZE, 3), dtype=np.uint8)


def test_features_of_pixels_are_those_of_the_run(run, pixels):
    """Oracle: the run's own network on its own view of the images."""
    backbone = stored(RunFolder.reopen(run))
    for mode in ("dense", "gated"):
        model = pulvinar.load_backbone(run, mode=mode).eval()
        wanted = backbone.network(plain_view(torch.from_numpy(pixels[:8]), backbone.views), mode == "gated").features
        torch.testing.assert_close(model.from_pixels(torch.from_numpy(pixels[:8])), wanted, rtol=1e-5, atol=1e-5)
        assert model.default_cfg["mean"] == MEAN
    assert pulvinar.load_backbone(run).training
    assert all(parameter.requires_grad for parameter in pulvinar.load_backbone(run).parameters())


@pytest.mark.long
def test_compact_is_calibrated_and_says_what_it_will_miss(run, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(REPORTER, "to_stderr", False)
    with pytest.warns(PulvinarWarning, match="will ask for a dropped channel"):
        model = pulvinar.load_backbone(run, mode="compact", calibrate=pixels, rare=0.3).eval()
    gated = pulvinar.load_backbone(run, mode="gated").eval()
    assert model.macs.dense < gated.macs.dense
    assert model.facts["calibration"]["n_images"] == 120
    np.savez(tmp_path / "images.npz", x_train=pixels)
    exact = pulvinar.load_backbone(run, mode="compact", calibrate=str(tmp_path / "images.npz")).eval()
    given = torch.from_numpy(pixels)
    torch.testing.assert_close(exact.from_pixels(given), gated.from_pixels(given), rtol=1e-5, atol=1e-5)


def test_wrong_modes_and_images_are_refused(run, pixels):
    with pytest.raises(InputError, match="did you mean 'gated'"):
        pulvinar.load_backbone(run, mode="gates")
    with pytest.raises(InputError, match="calibrate="):
        pulvinar.load_backbone(run, mode="compact")
    with pytest.raises(InputError, match="leave out calibrate"):
        pulvinar.load_backbone(run, mode="gated", calibrate=pixels)
    with pytest.raises(InputError, match=r"uint8 \(image, 16, 16, 3\)"):
        pulvinar.load_backbone(run, mode="compact", calibrate=pixels[:, :8])


def test_the_card_is_of_the_run_and_names_no_place(run):
    card = pulvinar.load_backbone(run, mode="gated").card
    assert card.startswith("---\nlibrary_name: pulvinar\n")
    for words in ("gated pass of a run of dual_gating", "Data: noise.", "seed = 0", "mean 0.4, 0.5, 0.6", "was not evaluated"):
        assert words in card
    assert str(run.parent) not in card


@pytest.mark.long
def test_weights_for_both_libraries(wide, tmp_path, capsys):
    """Oracle: the library's network with the file's weights, beside the run's dense pass."""
    batch = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    wanted = stored(RunFolder.reopen(wide)).network(batch).features
    for library in ("torchvision", "timm"):
        out = tmp_path / f"{library}.safetensors"
        assert main(["export-weights", str(wide), "--to", library, str(out), "--json", "--quiet"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["largest_difference"] <= 1e-5
        names = {"torch": torch, "net": timm.create_model("resnet18", num_classes=0)}
        exec("\n".join(said["stem_lines"]), names)
        net = names["net"].eval()
        net.load_state_dict(load_file(out))
        torch.testing.assert_close(net(batch), wanted, rtol=1e-5, atol=1e-5)


def test_what_a_library_cannot_load_is_refused(run, wide, tmp_path, capsys):
    for folder, name, words in (
        (run, "a.safetensors", "has other widths than that of timm"),
        (wide, "a.pth", "nothing is pickled"),
    ):
        assert main(["export-weights", str(folder), "--to", "timm", str(tmp_path / name), "--quiet"]) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_code_of_the_page_runs(wide, pixels, tmp_path, monkeypatch):
    """The section on trained backbones, block after block; the command between them too."""
    text = PAGE.read_text(encoding="utf-8").partition("## A trained backbone in your own code")[2]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "dual30").symlink_to(wide)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)  # of the fresh head
    labels = torch.arange(16) % 2
    chosen = pixels[:16] // 2 + (127 * labels.numpy()[:, None, None, None]).astype(np.uint8)  # dark and bright pictures
    names = {"pixels": torch.from_numpy(chosen), "labels": labels}
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "python", "bash", "python", "python"]
    for kind, block in blocks:
        if kind == "bash":
            assert main([*block.split()[1:], "--quiet"]) == 0
        else:
            exec(compile(block, "page", "exec"), names)
    assert np.mean(names["losses"][-3:]) < names["losses"][0]
    assert torch.equal(names["again"].from_pixels(names["pixels"]), names["model"].from_pixels(names["pixels"]))
