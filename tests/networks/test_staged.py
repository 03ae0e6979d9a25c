"""Oracles: torchvision's feature extractor, the convolution written out, the network itself, other libraries' accuracy."""

import csv
import io
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data.stimuli import Stimuli
from pulvinar.networks.staged import StagedNetwork, extract, load_network


def pictures(n: int = 5, side: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> StagedNetwork:
    return load_network("squeezenet1_0", image_size=64)


def test_random_weights_depend_on_the_seed_alone_and_are_announced(capfd: pytest.CaptureFixture):
    before = torch.get_rng_state()
    first, same, other = (load_network("squeezenet1_0", image_size=64, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.checksum() == same.checksum() != other.checksum()
    assert "warning: network torchvision:squeezenet1_0: random weights (seed 3)" in capfd.readouterr().err


@pytest.mark.long
def test_features_are_those_of_torchvisions_extractor(network: StagedNetwork):
    pixels = network.preprocess(torch.from_numpy(pictures()))
    expected = create_feature_extractor(network.module, list(network.stages))(pixels)
    taken = network.features(pixels)
    assert tuple(taken) == network.stages
    for stage, maps in taken.items():
        torch.testing.assert_close(maps, expected[stage])
        assert tuple(maps.shape[1:]) == network.shapes[stage]
    torch.testing.assert_close(network(pixels), network.module(pixels))


def test_layers_that_work_in_place_do_not_change_what_was_taken():
    network = load_network("alexnet", image_size=64, stages=["features.0", "features.1", "classifier.6"])
    pixels = network.preprocess(torch.from_numpy(pictures(2)))
    taken = network.features(pixels)
    first = network.module.features[0]
    expected = functional.conv2d(pixels, first.weight, first.bias, stride=4, padding=2)
    torch.testing.assert_close(taken["features.0"], expected)
    torch.testing.assert_close(taken["features.1"], expected.relu())
    torch.testing.assert_close(taken["classifier.6"][:, :, 0, 0], network(pixels))


def test_hooks_are_removed_even_after_an_error(network: StagedNetwork):
    network.features(torch.zeros(1, 3, 64, 64))
    with pytest.raises(RuntimeError):
        network.features(torch.zeros(1, 3, 2, 2))
    assert not any(module._forward_hooks for module in network.modules())


def test_gradients_reach_weights_and_pixels_unless_frozen():
    network = load_network("squeezenet1_0", image_size=64)
    pixels = torch.randn(1, 3, 64, 64, requires_grad=True)
    network.features(pixels, pool=1)["features.12"].sum().backward()
    assert pixels.grad is not None
    assert network.module.features[0].weight.grad is not None
    assert network.freeze() is network
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.train().training
    assert not network.train().module.training
    assert network.unfreeze().train().module.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_extract_leaves_every_mode_as_it_was_and_evaluates():
    network = load_network("timm:resnet18", image_size=32).train()
    network.module.layer2.eval()
    weights = network.checksum()  # batch norm's statistics are in it
    extract(network, pictures(2, 32))
    assert network.checksum() == weights
    assert network.training
    assert network.module.layer1.training
    assert not network.module.layer2.training


def test_extract_gathers_batches_pools_and_reads_stimuli(network: StagedNetwork):
    images = pictures(5)
    with torch.no_grad():
        expected = network.features(network.preprocess(torch.from_numpy(images)))
    features = extract(network, images, batch_size=2)
    stimuli = Stimuli(ids=list("abcde"), sources=list("abcde"), read_image=lambda row: images[row])
    for other in (images, list(images), stimuli, torch.from_numpy(images)):
        pooled = extract(network, other, batch_size=3, pool=2, stages=["features.5", "features.12"])
        assert list(pooled) == ["features.5", "features.12"]
        by_hand = functional.adaptive_avg_pool2d(expected["features.5"], 2).numpy()
        np.testing.assert_allclose(pooled["features.5"], by_hand, atol=1e-5)
    for stage, values in features.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[stage].numpy(), atol=1e-5)
    small = load_network("timm:resnet18", image_size=32)
    assert extract(small, images, pool=4)["layer4"].shape == (5, 512, 1, 1)  # a map of one place stays


def test_bad_requests_are_refused(network: StagedNetwork):
    for arguments, message in (({"batch_size": 0}, "batch_size"), ({"pool": 0}, "pool"), ({"stages": []}, "none came")):
        with pytest.raises(InputError, match=message):
            extract(network, pictures(1), **arguments)
    with pytest.raises(InputError, match="images: 1 or more"):
        extract(network, [])
    with pytest.raises(NotFoundError, match=r"does not tap 'features.2'; did you mean"):
        extract(network, pictures(1), stages=["features.2"])
    with pytest.raises(NotFoundError, match=r"network 'squeeznet1_0' is none of the \d+ .*did you mean 'squeezenet1_0'"):
        load_network("squeeznet1_0")
    with pytest.raises(NotFoundError, match="image networks of timm"):
        load_network("timm:squeezenet1_0")
    with pytest.raises(InputError, match="vit_b_32 cannot be built for 100 pixels"):
        load_network("vit_b_32", image_size=100)
    with pytest.raises(InputError, match="does not take 16 x 16 pixels"):
        load_network("alexnet", image_size=16)


def test_a_bare_name_asks_torchvision_first():
    assert load_network("resnet18", image_size=32).name == "torchvision:resnet18"
    assert load_network("timm:resnet18", image_size=32).name == "timm:resnet18"


@pytest.mark.slow
def test_input_is_that_of_the_weights_configuration():
    assert load_network("timm:inception_v3", stages=["Mixed_5d"]).image_size == 299
    timm_vit = load_network("vit_tiny_patch16_224")
    assert (timm_vit.image_size, timm_vit.mean, timm_vit.std) == (224, (0.5,) * 3, (0.5,) * 3)
    given = load_network("squeezenet1_0", image_size=64, mean=[0, 0, 0.5], std=[1, 1, 1], resize="crop")
    assert (given.image_size, given.mean, given.std, given.preprocessing.resize) == (64, (0, 0, 0.5), (1,) * 3, "crop")


@pytest.mark.long
def test_a_file_with_other_classes_its_sidecar_and_tensorflows_input(tmp_path: Path, capfd: pytest.CaptureFixture):
    for n_classes in (7, 1001):
        network = torchvision.models.mobilenet_v2(num_classes=n_classes).eval()
        np.savez(tmp_path / f"net{n_classes}.npz", **{name: value.numpy() for name, value in network.state_dict().items()})
        staged = load_network("mobilenet_v2", weights=tmp_path / f"net{n_classes}.npz", image_size=32)
        pixels = torch.randn(1, 3, 32, 32)
        torch.testing.assert_close(staged(pixels), network(pixels))
        assert staged.mean == ((0.485, 0.456, 0.406) if n_classes == 7 else (128 / 255,) * 3)
    assert "1001 classes, so input as TensorFlow's" in capfd.readouterr().err
    (tmp_path / "net1001.json").write_text('{"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "image_size": 48, "resize": "crop"}')
    staged = load_network("mobilenet_v2", weights=tmp_path / "net1001.npz", std=[4, 5, 6])
    assert (staged.mean, staged.std, staged.image_size) == ((0.1, 0.2, 0.3), (4, 5, 6), 48)
    assert staged.preprocessing.resize == "crop"
    with pytest.raises(InputError, match=r"net7.npz do not fit the network: key 'features.0.weight' is missing"):
        load_network("squeezenet1_0", weights=tmp_path / "net7.npz")


def test_library_weights_come_from_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    network = torchvision.models.squeezenet1_0().eval()
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints/squeezenet1_0-b66bff10.pth"
    torch.save(network.state_dict(), file)
    for weights in ("default", "IMAGENET1K_V1"):
        staged = load_network("squeezenet1_0", weights=weights, image_size=64)
        assert torch.equal(staged.module.features[0].weight, network.features[0].weight)
    assert capfd.readouterr() == ("", "")
    torch.save({"features.0.weight": Path}, file)  # needs unpickling
    with pytest.raises(FileError, match="could not be fetched"):
        load_network("squeezenet1_0", weights="default")


def test_weights_that_cannot_be_fetched_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_network(*_arguments, **_settings):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(FileError, match=r"curl -L --create-dirs -o .*checkpoints/alexnet-owt-7be5be79.pth https://"):
        load_network("alexnet", weights="default")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for weights, repository in (("default", "timm/resnet18.a1_in1k"), ("hf-hub:lab/net", "lab/net")):
        with pytest.raises(FileError, match=f"run: hf download {repository}"):
            load_network("timm:resnet18", weights=weights)
    for name, there in (("resnet18", "IMAGENET1K_V1"), ("timm:resnet18", "a1_in1k, a2_in1k")):
        with pytest.raises(NotFoundError, match=f"has .*{there}.* 'V9' came"):
            load_network(name, weights="V9")


def test_a_cifar_network_does_not_fit_an_imagenet_one(shared_data: Path):
    with pytest.raises(InputError, match=r"'conv1.weight' is \(16, 3, 3, 3\), the network has \(64, 3, 7, 7\)"):
        load_network("resnet18", weights=shared_data / "weights/resnet20_cifar10.npz")


def caltech(folder: Path, n_classes: int, n_each: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Pictures, class and whether they are for training: the first classes, so many pictures of each and split."""
    with (folder / "caltech101_dev.csv").open() as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["class"] for row in rows})[:n_classes]
    kept = [
        row
        for name in classes
        for split in ("train", "test")
        for row in [row for row in rows if row["class"] == name and row["split"] == split][:n_each]
    ]
    with tarfile.open(folder / "caltech101_dev.tar") as archive:
        images = [np.asarray(Image.open(io.BytesIO(archive.extractfile(row["path"]).read())).convert("RGB")) for row in kept]
    return images, np.array([row["class"] for row in kept]), np.array([row["split"] == "train" for row in kept])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage", "least"), [("mobilenet_v2", "features.18", 0.9), ("squeezenet1_0", "features.12", 0.75)]
)
def test_shared_weights_tell_objects_apart(shared_data: Path, name: str, stage: str, least: float):
    from sklearn.linear_model import LogisticRegression

    images, labels, is_train = caltech(shared_data / "caltech101", n_classes=20, n_each=10)
    network = load_network(name, weights=shared_data / f"weights/{name}_imagenet.npz", stages=[stage])
    features = extract(network, images, pool=1)[stage].reshape(len(images), -1)
    model = LogisticRegression(max_iter=2000).fit(features[is_train], labels[is_train])
    assert model.score(features[~is_train], labels[~is_train]) > least
