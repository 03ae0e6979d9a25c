"""The whole evaluation on a network and images with a planted class. Oracles: the pieces called one by one, masks by hand."""

import numpy as np
import pytest
import torch

from pulvinar.data.image_set import ImageSet
from pulvinar.errors import InputError
from pulvinar.evaluation.backbone_scores import ScoreSettings, as_text, gated_features, score_backbone
from pulvinar.evaluation.linear_probe import linear_probe
from pulvinar.evaluation.neighbours import knn_accuracy
from pulvinar.evaluation.transfer import resized, score_transfer
from pulvinar.models.gated_resnet import GatedResNet
from pulvinar.models.resnet_shape import resnet_shape
from pulvinar.training.views import ViewSettings, plain_view

VIEWS = ViewSettings()


@pytest.fixture(scope="module")
def data() -> ImageSet:
    """Three classes told apart by colour, with noise, and images without a label."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = generator.integers(0, 180, (240, 16, 16, 3), dtype=np.uint8)
    for colour in range(3):
        images[labels == colour, :, :, colour] += 14
    train_labels = labels[:180].copy()
    train_labels[::10] = -1
    return ImageSet(name="colours", train=images[:180], test=images[180:], train_labels=train_labels, test_labels=labels[180:])


@pytest.fixture(scope="module")
def network(data) -> GatedResNet:
    made = GatedResNet(resnet_shape("resnet18", size=16, width=0.25), size=16).initialise(torch.Generator().manual_seed(0))
    made.train()
    with torch.no_grad():
        for _ in range(8):
            pixels = plain_view(torch.from_numpy(data.train), VIEWS)
            made(pixels)
            made(pixels, gated=True)
    return made.eval()


@pytest.fixture(scope="module")
def scored(network, data):
    return score_backbone(network, data, seed=1, settings=ScoreSettings(n_probe_seeds=2))


def test_scores_equal_the_pieces_called_one_by_one(network, data, scored):
    result, arrays = scored
    images, labels = data.labelled()
    with torch.no_grad():
        train, test = (network(plain_view(torch.from_numpy(part), VIEWS), gated=True) for part in (images, data.test))
    nearest = knn_accuracy(train.features, labels, test.features, data.test_labels)
    assert result["knn_gated"] == pytest.approx(nearest.accuracy, abs=0.02)
    probe = linear_probe(train.features, labels, test.features, data.test_labels, n_seeds=2, seed=1)
    assert result["linear_gated"] == pytest.approx(probe.accuracy, abs=0.03)
    assert result["mac_share"] == pytest.approx(float(test.hard_share), abs=1e-6)
    assert result["n_train"] == len(labels) == 162
    assert arrays["linear_dense"].shape == (2, 60)
    assert arrays["knn_static"].mean() == next(row["knn"] for row in result["rows"] if row["name"] == "static")


def test_every_row_stands_at_the_reached_multiply_adds(scored):
    result, _ = scored
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["gated", "dense", "pixels", "random_gates", "static", "static_random", "pruned"]
    for name in ("static", "static_random", "pruned", "random_gates"):
        assert rows[name]["mac_share"] == pytest.approx(result["mac_share"], abs=0.02)
        assert rows[name]["mac_share"] <= result["mac_share"] + 0.003
    assert rows["dense"]["mac_share"] == 1
    for row in rows.values():
        assert row["linear_interval"][0] <= row["linear"] <= row["linear_interval"][1]
    difference = rows["pixels"]["linear_difference"]
    assert difference["difference"] == pytest.approx(rows["pixels"]["linear"] - rows["gated"]["linear"])
    assert result["linear_pixels"] > 0.8  # colour is linear in pixels
    text = as_text(result)
    assert "random_gates" in text
    assert "60 test images" in text


def test_channels_are_counted_on_test_images(network, data, scored):
    result, _ = scored
    with torch.no_grad():
        gates = network(plain_view(torch.from_numpy(data.test), VIEWS), gated=True).gates
    on = sum(int((gate.min(0).values == 1).sum()) for gate in gates)
    off = sum(int((gate.max(0).values == 0).sum()) for gate in gates)
    total = sum(network.shape.gate_channels)
    assert result["channels"]["always_on"] == pytest.approx(on / total, abs=0.01)
    assert result["channels"]["always_off"] == pytest.approx(off / total, abs=0.01)
    assert len(result["channels"]["gates"]) == 8


def test_features_do_not_depend_on_the_batch(network, data):
    one, many = (gated_features(network, data.test, views=VIEWS, batch_size=size) for size in (60, 7))
    torch.testing.assert_close(one.features, many.features, atol=1e-4, rtol=1e-3)


def test_a_dense_network_has_no_gated_row(data):
    shape = resnet_shape("resnet18", size=16, width=0.125)
    network = GatedResNet(shape, size=16, passes=("dense",)).initialise(torch.Generator().manual_seed(0))
    result, _ = score_backbone(network, data, settings=ScoreSettings(n_probe_seeds=1))
    assert [row["name"] for row in result["rows"]] == ["dense", "pixels"]
    assert result["knn_gated"] is None
    assert result["channels"] is None
    assert result["mac_share"] == 1


def test_images_without_labels_are_refused(network, data):
    unlabelled = ImageSet(name="bare", train=data.train, test=data.test)
    with pytest.raises(InputError, match="no training image has a label"):
        score_backbone(network, unlabelled)


def test_transfer_resizes_to_the_networks_size(network, data):
    generator = np.random.default_rng(3)
    large = generator.integers(0, 256, (90, 20, 30, 3), dtype=np.uint8)
    labels = np.arange(90) % 2
    target = ImageSet(name="large", train=large[:60], test=large[60:], train_labels=labels[:60], test_labels=labels[60:])
    result, _ = score_transfer(network, target, settings=ScoreSettings(n_probe_seeds=1))
    assert result["target"] == "large"
    assert [row["name"] for row in result["rows"]] == ["gated", "dense"]
    assert resized(data.test, 16) is data.test


def test_resizing_equals_pillows(data):
    from PIL import Image

    large = np.random.default_rng(3).integers(90, 160, (2, 20, 30, 3), dtype=np.uint8)  # no overshoot to clip in between
    theirs = np.asarray(Image.fromarray(large[1][:, 5:25]).resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(resized(large, 16)[1].astype(int) - theirs).max() <= 1  # Pillow rounds between its two directions
