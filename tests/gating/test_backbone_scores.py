"""The whole evaluation on a network and images with a planted class. Oracles: the pieces called one by one, masks by hand."""

import numpy as np
import pytest
import torch

from pulvinar.core.config import mistakes_of
from pulvinar.core.errors import InputError
from pulvinar.data.image_set import ImageSet
from pulvinar.gating.backbone_scores import as_text, gated_features, score_backbone
from pulvinar.gating.evaluation import fitted_to, resized
from pulvinar.gating.settings import ScoreSettings
from pulvinar.learning.image_features import crops_of_epoch
from pulvinar.learning.views import ViewSettings, plain_view
from pulvinar.linear.linear_probe import linear_probe
from pulvinar.linear.neighbours import knn_accuracy
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape

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
    return score_backbone(network, data, seed=1, settings=ScoreSettings(probe_seeds=2))


@pytest.mark.slow
def test_scores_equal_the_pieces_called_one_by_one(network, data, scored):
    result, arrays = scored.values, scored.correct
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


@pytest.mark.long
def test_every_row_stands_at_the_reached_multiply_adds(scored):
    result = scored.values
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
    result = scored.values
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
    result = score_backbone(network, data, settings=ScoreSettings(probe_seeds=1)).values
    assert [row["name"] for row in result["rows"]] == ["dense", "pixels"]
    assert result["knn_gated"] is None
    assert result["channels"] is None
    assert result["mac_share"] == 1


def test_images_without_labels_are_refused(network, data):
    unlabelled = ImageSet(name="bare", train=data.train, test=data.test)
    with pytest.raises(InputError, match="no training image has a label"):
        score_backbone(network, unlabelled)


def test_other_images_are_resized_to_the_networks_size(data):
    generator = np.random.default_rng(3)
    large = generator.integers(0, 256, (90, 20, 30, 3), dtype=np.uint8)
    labels = np.arange(90) % 2
    target = ImageSet(name="large", train=large[:60], test=large[60:], train_labels=labels[:60], test_labels=labels[60:])
    fitted = fitted_to(16, target)
    assert fitted.train.shape == (60, 16, 16, 3)
    assert fitted.test.shape == (30, 16, 16, 3)
    assert fitted.name == "large"
    assert fitted.test_labels is target.test_labels
    assert resized(data.test, 16) is data.test


def test_settings_reach_the_neighbours_and_the_probe(network, data):
    images, labels = data.labelled()
    settings = ScoreSettings(k=9, metric="cosine", weighting="exponential", temperature=0.5, probe_seeds=1)
    given = score_backbone(network, data, settings=settings, controls=False)
    with torch.no_grad():
        train, test = (network(plain_view(torch.from_numpy(part), VIEWS)).features for part in (images, data.test))
    expected = knn_accuracy(
        train, labels, test, data.test_labels, k=9, metric="cosine", weighting="exponential", temperature=0.5
    )
    assert given.values["knn_dense"] == pytest.approx(expected.accuracy, abs=0.02)
    assert given.values["settings"]["k"] == 9
    assert "9-NN" in as_text(given.values)
    np.testing.assert_allclose(given.features["dense"], test, atol=1e-4, rtol=1e-3)
    np.testing.assert_array_equal(given.features["label"], data.test_labels)


def test_crops_are_drawn_anew_each_epoch_and_are_not_jittered(data):
    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)

    features_of_epoch = crops_of_epoch(forward, data.train[:40], views=VIEWS, batch_size=16, seed=2)
    first, second = features_of_epoch(0), features_of_epoch(1)
    assert first.shape == (40, 3 * 16 * 16)
    assert (first - second).abs().mean() > 0.1
    torch.testing.assert_close(features_of_epoch(0), first)
    flat = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None] * 6, (40, 16, 16, 3)).copy()
    settings = ViewSettings()
    one_colour = crops_of_epoch(forward, flat, views=settings)(3)
    whole = plain_view(torch.from_numpy(flat), settings).flatten(1)
    torch.testing.assert_close(one_colour, whole, atol=1e-4, rtol=1e-4)  # any crop of a plain picture is the picture


@pytest.mark.slow
def test_a_probe_on_crops_equals_the_pieces_called_one_by_one(data):
    few = ImageSet(
        name="few", train=data.train[1:33], test=data.test, train_labels=np.arange(1, 33) % 3, test_labels=data.test_labels
    )
    shape = resnet_shape("resnet18", size=16, width=0.125)
    network = GatedResNet(shape, size=16, passes=("dense",)).initialise(torch.Generator().manual_seed(0)).eval()
    settings = ScoreSettings(linear="faithful", crops=True, probe_seeds=2)
    scored = score_backbone(network, few, settings=settings, seed=3, controls=False)

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixels).features

    with torch.no_grad():
        train, test = (forward(plain_view(torch.from_numpy(part), VIEWS)) for part in (few.train, few.test))
    crops = crops_of_epoch(forward, few.train, seed=3)
    options = {"recipe": "faithful", "n_seeds": 2, "seed": 3}
    expected = linear_probe(train, few.train_labels, test, few.test_labels, features_of_epoch=crops, **options)
    plain = linear_probe(train, few.train_labels, test, few.test_labels, **options)
    assert (scored.correct["linear_dense"] != expected.correct).mean() < 0.02
    assert (scored.correct["linear_dense"] != plain.correct).mean() > 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k is 1 or more"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"weighting": "exponential"}, "set metric=cosine too"),
        ({"crops": True}, "set linear=faithful too"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    assert message in " ".join(mistakes_of(ScoreSettings(**settings), "evaluate"))


def test_resizing_equals_pillows(data):
    from PIL import Image

    large = np.random.default_rng(3).integers(90, 160, (2, 20, 30, 3), dtype=np.uint8)  # no overshoot to clip in between
    theirs = np.asarray(Image.fromarray(large[1][:, 5:25]).resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(resized(large, 16)[1].astype(int) - theirs).max() <= 1  # Pillow rounds between its two directions
