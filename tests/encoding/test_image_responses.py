"""Mean z-scored responses of images. Oracle: the mean and standard deviation spelled out, trial by trial."""

import numpy as np
import pytest

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.encoding import image_responses
from pulvinar.encoding.image_responses import ImageResponses, choose_voxels

SHOWN = ["c", "a", "b", "a", "d", "a", "b", "e", "d", "c", "e", "a"] * 4 + ["f"]  # once, 8 and 16 times
SESSIONS = np.repeat([0, 1], [24, 25])
TRAIN, TEST = ("a", "b", "c"), ("d", "e", "f")


@pytest.fixture(scope="module")
def responses() -> Responses:
    """49 trials of 5 voxels, each with a mean and a spread of its own, the last one constant."""
    values = np.random.default_rng(0).normal(size=(49, 5)) * [1, 2, 0.1, 5, 0] + [0, 3, -1, 10, 2]
    return Responses(
        subject="s",
        values=values.astype(np.float32),
        stimulus_ids=SHOWN,
        sessions=SESSIONS,
        geometry=Geometry.from_points(np.argwhere(np.ones((5, 1, 1))).astype(float)),
        rois=ROIs({"lh.V1": np.arange(5) == 0, "rh.V1": np.arange(5) == 1, "V2": np.arange(5) > 2}, n_voxels=5),
    )


def _by_hand(responses: Responses, images: tuple[str, ...], *, per_session: bool) -> dict[str, np.ndarray]:
    """Each trial less the mean of the training trials (of its session), over their spread; then the mean over an image's."""
    total = {name: [] for name in images}
    for trial, name in enumerate(SHOWN):
        if name not in images:
            continue
        fit = [other for other, shown in enumerate(SHOWN) if shown in TRAIN]
        if per_session:
            fit = [other for other in fit if SESSIONS[other] == SESSIONS[trial]]
        known = np.asarray(responses.values, np.float64)[fit]
        spread = known.std(0)
        total[name].append((responses.values[trial] - known.mean(0)) / np.where(spread > 0, spread, 1))
    return {name: np.sum(rows, axis=0) / len(rows) for name, rows in total.items()}


@pytest.mark.parametrize("scaling", ["train_stats", "per_session"])
@pytest.mark.parametrize("trials_per_block", [3, 512])
def test_images_have_the_mean_of_their_trials(responses, scaling, trials_per_block, monkeypatch):
    monkeypatch.setattr(image_responses, "TRIALS_PER_BLOCK", trials_per_block)
    fit_trials = responses.trials_of(TRAIN)
    train = ImageResponses(responses, TRAIN, fit_trials=fit_trials, scaling=scaling)
    for images, opened in ((TRAIN, train), (TEST, train.other(TEST))):
        wanted = _by_hand(responses, images, per_session=scaling == "per_session")
        assert opened.ids == list(dict.fromkeys(name for name in SHOWN if name in images))
        assert opened.counts.tolist() == [SHOWN.count(name) for name in opened.ids]
        voxels = np.array([3, 0, 4])
        read = opened.read(voxels)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, [wanted[name][voxels] for name in opened.ids], rtol=2e-5, atol=2e-5)


def test_single_trials_are_scaled_alike(responses):
    train = ImageResponses(responses, TRAIN, fit_trials=responses.trials_of(TRAIN), scaling="train_stats")
    trials = train.read_trials(np.arange(4))
    np.testing.assert_allclose(trials.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(trials.std(0), 1, rtol=1e-5)


def test_images_that_were_not_shown_are_refused(responses):
    with pytest.raises(InputError, match="no trial shows one of the 1 images"):
        ImageResponses(responses, ["z"], fit_trials=np.arange(3), scaling="train_stats")


def test_rois_are_chosen_by_name_or_by_both_halves(responses):
    assert choose_voxels(responses, None).tolist() == [0, 1, 2, 3, 4]
    assert choose_voxels(responses, ["V1"]).tolist() == [0, 1]
    assert choose_voxels(responses, ["rh.V1", "V2"]).tolist() == [1, 3, 4]
    with pytest.raises(
        NotFoundError, match=r"roi: s has no ROI 'v2'; there are: lh.V1, rh.V1, V2; choose one with --set roi=V2"
    ):
        choose_voxels(responses, ["V1", "v2"])
