"""Oracles: what was planted (ceilings, areas, sources), measured on the responses; the same seed twice."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.config import build, mistakes_of
from pulvinar.core.errors import ConfigError, FileError, InputError, LeakError
from pulvinar.data.photographs import BUNDLED, bundled_path
from pulvinar.data.splits import Split
from pulvinar.datasets.simulated import Config, simulate
from pulvinar.scores.noise_ceiling import ceiling_r2, signal_to_noise

TINY = {"n_voxels": 300, "n_subjects": 2, "n_trials": 40, "n_pretraining_trials": 30, "n_test_images": 12}


def tiny(**changes):
    return simulate(Config(**(TINY | changes)))


@pytest.fixture(scope="module")
def world():
    return tiny()


@pytest.fixture(scope="module")
def repeated():
    """One subject; 500 training images shown twice and 60 test images four times, reliable."""
    return simulate(
        Config(
            n_voxels=600,
            n_subjects=1,
            n_trials=600,
            repeated_share=0.99,
            n_test_images=60,
            ceiling_median=0.6,
            n_test_repeats=4,
        )
    )


@pytest.mark.long
def test_the_same_seed_plants_the_same_world_bit_for_bit(world):
    again, other = tiny(), tiny(seed=1)
    assert again.fingerprint() == world.fingerprint()
    for name in world.subjects:
        assert np.array_equal(again.subjects[name].values, world.subjects[name].values)
        for key, values in world.truth[name].items():
            assert np.array_equal(again.truth[name][key], values)
    assert np.array_equal(again.stimuli.features["embedding"], world.stimuli.features["embedding"])
    assert not np.array_equal(other.subjects["subj02"].values, world.subjects["subj02"].values)
    assert not np.array_equal(other.truth["subj02"]["area"], world.truth["subj02"]["area"])


@pytest.mark.long
def test_sizes_and_sessions_are_those_asked_for(world):
    assert world.target == "subj02"
    target, other = world.subjects["subj02"], world.subjects["subj01"]
    assert target.n_voxels == 300
    assert 270 <= other.n_voxels <= 330
    assert other.n_trials == 30
    counts = dict(zip(*np.unique(target.sessions, return_counts=True), strict=True))
    assert counts == {1: 40, 2: 12, 3: 12, 4: 12}
    first = [name for name, session in zip(target.stimulus_ids, target.sessions, strict=True) if session == 1]
    assert len(first) - len(set(first)) == 4  # .1 of the images twice: .1 * 40 / 1.1
    assert world.stimuli.image(0).shape == (64, 64, 3)
    assert world.truth["subj02"]["responsive"].sum() == pytest.approx(0.1 * 300, abs=5)
    assert np.array_equal(world.truth["subj02"]["responsive"], world.truth["subj02"]["area"] > 0)
    assert set(np.unique(world.truth["subj02"]["area"])) == set(range(6))


def test_training_and_test_pictures_are_apart(world):
    source = dict(zip(world.stimuli.ids, world.stimuli.sources, strict=True))
    train, test = ({source[name] for name in side} for side in (world.split.train, world.split.test))
    assert not train & test
    assert len(test) == 6
    shown = set(world.subjects["subj01"].stimulus_ids)
    assert not shown & set(world.split.test)
    assert set(world.split.test) <= set(world.subjects["subj02"].stimulus_ids)
    own = world.subjects["subj02"]
    assert not shown & set(own.stimulus_ids)  # subjects saw different training images


def test_a_test_image_moved_into_training_is_refused(world):
    train, test = world.split.train, world.split.test
    with pytest.raises(LeakError, match="source picture"):
        dataclasses.replace(world, split=Split(train=(*train, test[0]), test=test[1:]))


def test_bundled_pictures_are_all_there():
    assert all(bundled_path(name).is_file() for names in BUNDLED.values() for name in names)


@pytest.mark.long
@pytest.mark.parametrize("median", [0.2, 0.35, 0.6])
def test_the_median_ceiling_is_the_one_asked_for(median):
    truth = tiny(ceiling_median=median, n_voxels=1000).truth["subj02"]
    assert np.median(truth["noise_ceiling"][truth["responsive"]]) == pytest.approx(median, abs=0.005)
    assert np.median(truth["noise_ceiling"][truth["irrelevant"]]) == pytest.approx(median, abs=0.02)
    assert not truth["noise_ceiling"][~truth["responsive"] & ~truth["irrelevant"]].any()


@pytest.mark.slow
def test_the_ceiling_measured_from_repeats_is_the_planted_one(repeated):
    """300 images twice: the standard error of a correlation is about .05; noise of single voxels varies by a few percent."""
    responses, truth = repeated.subjects["subj01"], repeated.truth["subj01"]
    first = np.flatnonzero(responses.sessions == 1)
    found = signal_to_noise(responses.read(first), [responses.stimulus_ids[trial] for trial in first])
    measured, planted = ceiling_r2(found.ncsnr, 3), truth["noise_ceiling"]
    some = truth["responsive"] | truth["irrelevant"]
    assert np.corrcoef(measured[some], planted[some])[0, 1] > 0.85
    assert np.median(np.abs(measured[some] - planted[some])) < 0.1
    assert np.median(measured[some] - planted[some]) == pytest.approx(0, abs=0.06)


@pytest.mark.long
def test_noise_has_unit_variance_with_the_signal(repeated):
    responses = repeated.subjects["subj01"]
    spread = responses.read(np.arange(responses.n_trials)).std(0)
    assert np.median(spread) == pytest.approx(1, abs=0.05)
    assert spread.min() > 0.7
    assert spread.max() < 1.4


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_annotated_roi_is_loose(seed):
    """Seen over seeds 0-2 at 2,000 voxels: holds .69-.76 of the responsive voxels with precision .38-.45."""
    experiment = tiny(seed=seed, n_voxels=2000)
    for name, responses in experiment.subjects.items():
        roi, responsive = responses.rois["annotated"], experiment.truth[name]["responsive"]
        assert (roi & responsive).sum() / responsive.sum() > 0.5
        assert (roi & responsive).sum() / roi.sum() < 0.6


def halves(experiment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean test responses of odd and of even repeats (image, voxel), and the embedding (image, dim)."""
    responses, images = experiment.subjects[experiment.target], list(experiment.split.test)
    sessions = np.unique(responses.sessions)[1:]
    ids = np.array(responses.stimulus_ids)
    place = {name: row for row, name in enumerate(images)}
    means = []
    for half in (sessions[0::2], sessions[1::2]):
        total = np.zeros((len(images), responses.n_voxels))
        for session in half:
            trials = np.flatnonzero(responses.sessions == session)
            total[[place[name] for name in ids[trials]]] += responses.read(trials)
        means.append(total / len(half))
    return means[0], means[1], experiment.stimuli.feature("embedding")[experiment.stimuli.rows(images)]


@pytest.mark.long
def test_irrelevant_blobs_repeat_with_the_stimulus_but_carry_no_image():
    """Blobs are reliable as areas are; only areas can be predicted from the embedding (200 images, 8 components)."""
    experiment = simulate(
        Config(
            n_voxels=800,
            n_subjects=1,
            n_trials=60,
            n_test_images=200,
            n_test_repeats=2,
            ceiling_median=0.9,
            irrelevant_share=0.1,
        )
    )
    odd, even, embedding = halves(experiment)
    truth = experiment.truth[experiment.target]
    reliability = np.array([np.corrcoef(odd[:, v], even[:, v])[0, 1] for v in range(800)])
    silent = ~truth["responsive"] & ~truth["irrelevant"]
    assert np.median(reliability[truth["irrelevant"]]) > 0.5
    assert np.median(reliability[truth["responsive"]]) > 0.5
    assert abs(np.median(reliability[silent])) < 0.05
    mean, design = (odd + even) / 2, np.column_stack([np.ones(200), embedding[:, :8]])
    fitted = design @ np.linalg.lstsq(design, mean, rcond=None)[0]
    share = fitted.var(0) / mean.var(0)  # 8 of 199 degrees of freedom fit by chance: .04
    assert np.median(share[truth["irrelevant"]]) < 0.07
    assert np.median(share[truth["responsive"]]) > 0.15


def test_test_responses_are_on_the_scale_of_training_responses_with_few_images():
    """Fewer training images than tuning dimensions: directions that training images leave empty are not blown up."""
    experiment = simulate(Config(n_voxels=300, n_subjects=1, n_trials=20, n_test_images=60, ceiling_median=0.9))
    responses, truth = experiment.subjects["subj01"], experiment.truth["subj01"]
    first = responses.sessions == 1
    values = responses.read(np.arange(responses.n_trials))[:, truth["responsive"]]
    ratio = values[~first].std(0) / values[first].std(0)
    assert 0.4 < np.median(ratio) < 2.5


@pytest.mark.long
def test_a_world_without_signal_and_one_without_blobs():
    assert not tiny(ceiling_median=0.0).truth["subj02"]["noise_ceiling"].any()
    assert not tiny(irrelevant_share=0.0).truth["subj02"]["irrelevant"].any()


# --- pictures of one's own ----------------------------------------------------------------------------------------------


def write_pictures(folder, n: int, *, blank: bool = False) -> None:
    rng = np.random.default_rng(0)
    for number in range(n):
        path = folder / f"part{number % 2}" / f"{number // 2}.png"  # the same file names in two folders
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((80, 90, 3), 128) if blank else rng.integers(0, 256, (10, 12, 3)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def test_a_folder_of_pictures_takes_the_place_of_the_bundled_ones(tmp_path):
    write_pictures(tmp_path, 8)
    experiment = tiny(images=str(tmp_path))
    assert set(experiment.stimuli.sources) == {f"part{part}/{number}.png" for part in (0, 1) for number in range(4)}
    source = dict(zip(experiment.stimuli.ids, experiment.stimuli.sources, strict=True))
    assert len({source[name] for name in experiment.split.test}) == 2  # .3 of 8


def test_folders_that_do_not_serve_are_refused(tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        tiny(images=str(tmp_path / "nothing"))
    write_pictures(tmp_path, 3)
    with pytest.raises(InputError, match="3 pictures"):
        tiny(images=str(tmp_path))
    write_pictures(tmp_path, 6)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"not a picture")
    with pytest.raises(FileError, match=r"\.png: cannot be read as an image"):
        tiny(images=str(tmp_path))


def test_blank_pictures_are_refused_instead_of_searched_for_ever(tmp_path):
    write_pictures(tmp_path, 4, blank=True)
    with pytest.raises(InputError, match="90 x 80 pixels is blank"):
        tiny(images=str(tmp_path))


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_subjects", 0),
        ("n_voxels", 199),
        ("n_trials", 19),
        ("n_test_images", 9),
        ("n_test_repeats", 0),
        ("responsive_share", 1.0),
        ("ceiling_median", -0.1),
        ("noise_autocorrelation", 1.0),
        ("ceiling_spread", -1.0),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    assert any(f"simulated.{name}" in line and str(value) in line for line in mistakes_of(Config(**{name: value}), "simulated"))
    with pytest.raises(ConfigError, match=name):
        build(Config, {name: value}, name="simulated")


def test_settings_at_their_defaults_fit_and_all_mistakes_come_at_once():
    assert mistakes_of(Config(), "simulated") == []
    assert len(mistakes_of(Config(n_voxels=1, n_trials=1, responsive_share=0.9, irrelevant_share=0.2), "simulated")) == 3
