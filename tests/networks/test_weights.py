"""Oracle: the network the weights came from; misfits and damage made by hand."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import squeezenet1_0

from pulvinar.core.errors import FileError, InputError
from pulvinar.networks.weights import fit_weights, is_file_name, plain_names, read_sidecar, read_weights


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt", ".pth", ".ckpt"])
def test_every_format_brings_the_same_weights(tmp_path: Path, suffix: str):
    state = small().state_dict()
    back = read_weights(write(tmp_path / f"net{suffix}", state))
    assert list(back) == list(state) or set(back) == set(state)
    for name, value in state.items():
        assert torch.equal(back[name], value)


def test_wrappers_and_checkpoints_are_opened(tmp_path: Path):
    state = small().state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "run.pt")
    assert set(read_weights(tmp_path / "run.pt")) == set(state)
    assert list(plain_names({"network.0.weight": torch.zeros(1)})) == ["0.weight"]
    assert list(plain_names({"network.0.weight": torch.zeros(1), "head": torch.zeros(1)})) == ["network.0.weight", "head"]
    old = "features.denseblock1.denselayer12.norm.1.weight"
    assert list(plain_names({old: torch.zeros(1)})) == ["features.denseblock1.denselayer12.norm1.weight"]


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("made_by_unpickling"),))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"0.weight": Evil()}, "evil.pt")
    np.savez("evil.npz", weight=np.array([Evil()], dtype=object))
    Path("evil.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.npz", "evil.pth"):
        with pytest.raises(FileError, match=name):
            read_weights(name)
    assert not Path("made_by_unpickling").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str):
    path = write(tmp_path / f"net{suffix}", small().state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match=f"net{suffix}: cannot be read"):
        read_weights(path)


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(FileError, match="no such file of weights"):
        read_weights(tmp_path / "gone.npz")
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"files with .safetensors, .npz"):
        read_weights(tmp_path / "net.onnx")
    torch.save({"epoch": 3}, tmp_path / "run.pt")
    with pytest.raises(InputError, match="a state dict"):
        read_weights(tmp_path / "run.pt")
    assert is_file_name("gone.npz")
    assert is_file_name(tmp_path / "net.onnx")
    assert not is_file_name("IMAGENET1K_V1")
    assert not is_file_name("hf-hub:timm/resnet18.a1_in1k")


def test_weights_that_fit_are_loaded_without_the_batch_counter():
    state = {name: value + 1 for name, value in small().state_dict().items() if not name.endswith("num_batches_tracked")}
    network = small()
    fit_weights(network, {name: value.double() for name, value in state.items()}, source="file")
    for name, value in state.items():
        assert torch.equal(network.state_dict()[name], value)
    assert network.state_dict()["1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("1.bias"), r"key '1.bias' is missing .*1 missing, 0 unexpected, 0 of another shape"),
        (lambda state: state.update({"3.weight": torch.zeros(1)}), "key '3.weight' is unexpected"),
        (lambda state: state.update({"2.weight": torch.zeros(2, 5)}), r"'2.weight' is \(2, 5\), the network has \(2, 4\)"),
        (lambda state: state.update({"2.bias": torch.tensor([0.0, torch.nan])}), "'2.bias' holds values that are not finite"),
        (lambda state: state.update({"x": state.pop("0.bias")}), "'0.bias' is missing; the file's first unexpected key is 'x'"),
    ],
)
def test_the_first_misfit_is_named_and_nothing_is_loaded(change, message: str):
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = {name: value + 1 for name, value in network.state_dict().items()}
    change(state)
    with pytest.raises(InputError, match=message):
        fit_weights(network, state, source="file")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_sidecar(tmp_path: Path):
    assert read_sidecar(tmp_path / "net.npz") == {}
    (tmp_path / "net.json").write_text('{"mean": [0.5, 0.5, 0.5], "image_size": 96}')
    assert read_sidecar(tmp_path / "net.npz") == {"mean": [0.5, 0.5, 0.5], "image_size": 96}
    for content in ('{"average": 1}', "[1]"):
        (tmp_path / "net.json").write_text(content)
        with pytest.raises(InputError, match=r"net.json: an object with any of mean, std"):
            read_sidecar(tmp_path / "net.npz")
    for content, message in (('{"mean": 0.5}', "net.json"), ('{"std": [1, 1, 0]}', "net.json: std: three numbers above 0")):
        (tmp_path / "net.json").write_text(content)
        with pytest.raises(InputError, match=message):
            read_sidecar(tmp_path / "net.npz")


def test_squeezenet_from_the_shared_data(shared_data: Path):
    state = read_weights(shared_data / "weights/squeezenet1_0_imagenet.npz")
    network = squeezenet1_0()
    fit_weights(network, state, source="squeezenet")
    assert sum(value.numel() for value in network.parameters()) == 1_248_424
