"""Oracles: the RDM of explicitly scaled features, the same run again, planted scales of a random network."""

import dataclasses

import numpy as np
import pytest
import torch

from pulvinar.core.config import mistakes_of, to_toml
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.storage import write_arrays
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.staged import extract
from pulvinar.rsa.methods import learning_to_aggregate as method
from pulvinar.rsa.side_by_side import open_networks

QUICK = method.Config(
    network="squeezenet1_0", image_size=64, stages=3, layouts=("none:3",), epochs=20, n_inner_folds=3, n_folds=3, n_repeats=1,
    n_permutations=20, n_bootstrap=20, images_per_step=5, crops="none",
)  # fmt: skip


def pictures(n_images=18, seed=0) -> np.ndarray:
    """Coarse random patterns, as pictures of 64 pixels."""
    coarse = np.random.default_rng(seed).integers(0, 255, (n_images, 8, 8, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def stimuli_of(images) -> Stimuli:
    ids = [f"image-{row:02d}" for row in range(len(images))]
    return Stimuli(ids=ids, sources=ids, read_image=lambda row: images[row])


@pytest.fixture(scope="module")
def data() -> Dissimilarities:
    """RDMs of four subjects from the last stage of the same random network, one target with time points."""
    images = pictures()
    network = open_networks(QUICK, None).only
    late = list(extract(network, images, pool=3).values())[-1].reshape(18, -1)
    rdm = 1 - np.corrcoef(late)
    noise = np.random.default_rng(1).normal(scale=0.02, size=(4, 18, 18))
    rdms = rdm + (noise + noise.transpose(0, 2, 1)) * (1 - np.eye(18))
    targets = {"evc": SubjectRDMs(name="evc", rdms=rdms)}
    targets["meg_early"] = SubjectRDMs(name="meg_early", rdms=np.stack([rdms, rdms], axis=1), times=np.array([60.0, 80.0]))
    return Dissimilarities(name="planted", stimuli=stimuli_of(images), targets=targets)


def fitted(path, data, **changes):
    config = dataclasses.replace(QUICK, **changes)
    facts = {"name": data.name, "path": "", "target": None, "fingerprint": data.fingerprint()}
    run = RunFolder.create(path, method="learning_to_aggregate", config_toml=to_toml(config), seed=config.seed, data=facts)
    method.METHOD.train(config, data, run)
    return config, RunFolder.reopen(path)


@pytest.mark.long
def test_prediction_is_the_rdm_of_explicitly_scaled_features(data, tmp_path):
    config, run = fitted(tmp_path / "run", data)
    images = pictures(7, seed=9)
    predicted = method.predict(run, stimuli_of(images), config)["rdm"]
    scales = run.read("scales")["scales"].numpy()
    maps = extract(open_networks(config, None).only, images, pool=3)
    embedding, start = [], 0
    for values in maps.values():
        n_channels = values.shape[1]
        embedding.append((values * scales[start : start + n_channels, None, None]).reshape(7, -1))
        start += n_channels
    np.testing.assert_allclose(predicted, 1 - np.corrcoef(np.concatenate(embedding, axis=1)), atol=1e-4)
    assert predicted.dtype == np.float64
    np.testing.assert_array_equal(predicted, predicted.T)
    assert (np.diagonal(predicted) == 0).all()


def test_images_of_other_sizes_are_predicted(data, tmp_path):
    config, run = fitted(tmp_path / "run", data)
    images = [np.random.default_rng(row).integers(0, 255, (50 + 9 * row, 80, 3)).astype(np.uint8) for row in range(4)]
    assert method.predict(run, stimuli_of(images), config)["rdm"].shape == (4, 4)
    with pytest.raises(InputError, match="two or more"):
        method.predict(run, stimuli_of(images[:1]), config)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": "stage", "layouts": ("stage:3",)},
        {"resolution": "feature"},
        {"crops": "cached_crops", "n_crops": 2},
        pytest.param(
            {"roi": ("evc", "meg_early"), "centring": "channel", "layouts": ("channel:3", "none:2")}, marks=pytest.mark.slow
        ),
        pytest.param({"crops": "run_network", "epochs": 2}, marks=pytest.mark.slow),
        pytest.param({"train": "all", "epochs": 2, "loss": "mse", "early_stopping": False}, marks=pytest.mark.slow),
        {"batch_pairs": 40, "epochs": 2, "loss": "l1", "early_stopping": False},
    ],
)
def test_modes_fit_predict_and_evaluate(data, tmp_path, changes):
    config, run = fitted(tmp_path / "run", data, **changes)
    assert np.isfinite(method.predict(run, stimuli_of(pictures(5, seed=2)), config)["rdm"]).all()
    evaluation = method.evaluate(run, data, config, controls=changes.get("resolution") == "stage")
    assert evaluation["rows"][0]["name"] == "learning_to_aggregate"
    assert {row["target"] for row in evaluation["rows"]} == set(config.roi or ("evc",))
    assert "learning_to_aggregate" in method.METHOD.table(evaluation)


@pytest.mark.slow
def test_everything_trained_changes_the_network_and_is_what_predicts(data, tmp_path):
    config, run = fitted(tmp_path / "run", data, train="all", epochs=2, network_rate=1e-3, early_stopping=False)
    images = stimuli_of(pictures(5, seed=2))
    predicted = method.predict(run, images, config)["rdm"]
    result = run.read("scales")
    assert result["network"]
    before = open_networks(config, None).only.module.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in result["network"].items())
    assert np.abs(predicted - method.predict(fitted(tmp_path / "other", data)[1], images, QUICK)["rdm"]).max() > 1e-3


@pytest.mark.long
def test_other_weights_than_the_fitted_are_refused(data, tmp_path):
    network = open_networks(QUICK, None).only.module
    weights = tmp_path / "weights.npz"
    write_arrays(weights, **{name: value.numpy() for name, value in network.state_dict().items()})
    config, run = fitted(tmp_path / "run", data, weights=str(weights))
    assert run.read("scales")["library"]["weights"] == str(weights)
    changed = {name: value.numpy() * 1.01 for name, value in network.state_dict().items()}
    write_arrays(weights, **changed)
    with pytest.raises(InputError, match="checksum"):
        method.predict(run, stimuli_of(pictures(3)), config)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"roi": ("evd",)}, NotFoundError, "did you mean 'evc'"),
        ({"weights": "nowhere/weights.npz"}, FileError, "weights.npz"),
        ({"n_inner_folds": 9}, InputError, "n_inner_folds"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(data, changes, error, message):
    with pytest.raises(error, match=message):
        method.prepare(dataclasses.replace(QUICK, **changes), data)


def test_settings_out_of_range_are_all_named():
    config = method.Config(
        layouts=("none-7",), identity_weights=(-1.0,), crop_share=0.0, epochs=0, mean=(0.5,), train="all", crops="cached_crops"
    )
    problems = mistakes_of(config, "learning_to_aggregate")
    for name in ("layouts", "identity_weights", "crop_share", "epochs", "mean", "crops"):
        assert any(name in problem for problem in problems), name
