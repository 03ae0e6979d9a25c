"""Oracles: rsatoolbox on the same trials, planted patterns, offsets of runs that must not matter."""

import dataclasses

import numpy as np
import pytest
import rsatoolbox

from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.data.experiment import Experiment
from pulvinar.data.responses import Responses
from pulvinar.data.splits import Split
from pulvinar.datasets.arrays import from_arrays
from pulvinar.rsa.response_rdms import RDMSettings, build_rdms

N_IMAGES, N_VOXELS, N_RUNS = 12, 30, 4
IDS = [f"image-{number:02d}" for number in range(N_IMAGES)]
IT = np.arange(N_VOXELS) < 20
PAIRS = np.triu_indices(N_IMAGES, 1)


def planted(noise: float = 0.5, offset: float = 0.0, seed: int = 0) -> tuple[Experiment, np.ndarray]:
    """Two subjects who see every image once in each of four runs, in two sessions; images 0 and 1 have one pattern."""
    generator = np.random.default_rng(seed)
    true = generator.standard_normal((2, N_IMAGES, N_VOXELS))
    true[:, 1] = true[:, 0]
    responses, ids, runs = {}, {}, np.repeat(np.arange(N_RUNS), N_IMAGES)
    for row, subject in enumerate(("sub-01", "sub-02")):
        order = np.concatenate([generator.permutation(N_IMAGES) for _ in range(N_RUNS)])
        drift = offset * np.random.default_rng([seed, row]).standard_normal((N_RUNS, N_VOXELS))
        responses[subject] = true[row, order] + drift[runs] + noise * generator.standard_normal((len(order), N_VOXELS))
        ids[subject] = [IDS[image] for image in order]
    experiment = from_arrays(
        responses=responses,
        stimulus_ids=ids,
        geometry=dict.fromkeys(responses, generator.standard_normal((N_VOXELS, 3))),
        stimuli=IDS,
        sources=[f"picture-{number // 2}" for number in range(N_IMAGES)],
        images=lambda row: np.full((8, 8, 3), row, np.uint8),
        split=Split(train=tuple(IDS[:8]), test=tuple(IDS[8:])),
        sessions=dict.fromkeys(responses, runs // 2),
        runs=dict.fromkeys(responses, runs % 2),
        rois={subject: {"IT": IT, "V1": ~IT} for subject in responses},
    )
    return experiment, true


def unbalanced(experiment: Experiment, seed: int = 0) -> Experiment:
    """The same without a third of the trials, at random."""
    generator, subjects = np.random.default_rng(seed), {}
    for name, responses in experiment.subjects.items():
        subjects[name] = responses.take_trials(np.flatnonzero(generator.random(responses.n_trials) < 0.67))
    return dataclasses.replace(experiment, subjects=subjects)


def of_toolbox(responses: Responses, ids: tuple[str, ...], voxels: np.ndarray, noise: str) -> np.ndarray:
    """crossnobis by rsatoolbox: trials less the mean of their run, its noise covariance from their residuals."""
    values, run = (
        responses.read(np.arange(responses.n_trials))[:, voxels].astype(np.float64),
        responses.sessions * 2 + responses.runs,
    )
    for number in np.unique(run):
        values[run == number] -= values[run == number].mean(0)
    kept = np.array([name in ids for name in responses.stimulus_ids])
    image = np.array([ids.index(name) for name in np.array(responses.stimulus_ids)[kept]])
    values, run = values[kept], run[kept]
    residuals = values - np.stack([values[image == one].mean(0) for one in range(len(ids))])[image]
    precision = None
    if noise != "none":
        precision = rsatoolbox.data.noise.prec_from_residuals(residuals, dof=len(image) - len(ids), method=noise)
    order = np.argsort(image, kind="stable")  # the toolbox numbers images as they appear
    data = rsatoolbox.data.Dataset(values[order], obs_descriptors={"image": image[order], "run": run[order]})
    options = {"method": "crossnobis", "descriptor": "image", "cv_descriptor": "run", "noise": precision}
    return rsatoolbox.rdm.calc_rdm_unbalanced(data, **options).get_matrices()[0]


@pytest.mark.parametrize("noise", ["shrinkage_diag", "shrinkage_eye", "diag", "none"])
@pytest.mark.parametrize("whole", [True, False])
def test_crossnobis_is_that_of_rsatoolbox(noise: str, whole: bool) -> None:
    experiment, _ = planted(offset=1.0)
    experiment = experiment if whole else unbalanced(experiment)
    built = build_rdms(experiment, roi=["IT", "V1"], settings=RDMSettings(noise=noise))
    assert list(built.targets) == ["IT", "V1"]
    assert len(built.ids) == N_IMAGES if whole else 6 < len(built.ids) <= N_IMAGES
    for name, voxels in (("IT", IT), ("V1", ~IT)):
        for row, responses in enumerate(experiment.subjects.values()):
            expected = of_toolbox(responses, built.ids, voxels, noise)
            np.testing.assert_allclose(built.targets[name].rdms[row], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_balanced_distances_do_not_see_offsets_of_runs() -> None:
    plain, shifted = (build_rdms(planted(offset=offset)[0]).targets["all"].rdms for offset in (0.0, 30.0))
    np.testing.assert_allclose(shifted, plain, rtol=1e-3, atol=1e-3 * plain.max())


def test_equal_patterns_are_at_0_on_average_and_only_crossnobis_says_so() -> None:
    """Over 25 worlds, two subjects each: images 0 and 1 have one pattern under noise as large as the patterns."""
    own: dict[str, list[float]] = {"crossnobis": [], "euclidean": [], "correlation": []}
    for seed in range(25):
        experiment, _ = planted(noise=1.0, seed=seed)
        for distance in own:
            rdms = build_rdms(experiment, settings=RDMSettings(distance=distance)).targets["all"].rdms
            own[distance] += (rdms[:, 0, 1] / rdms[:, *PAIRS].mean(1)).tolist()
    mean = {name: np.mean(values) for name, values in own.items()}
    assert abs(mean["crossnobis"]) < 3 * np.std(own["crossnobis"]) / 50**0.5
    assert mean["euclidean"] > 0.3
    assert mean["correlation"] > 0.1


def test_plain_distances_are_those_of_numpy() -> None:
    experiment, _ = planted(offset=1.0)
    for distance in ("correlation", "euclidean"):
        built = build_rdms(experiment, roi=["V1"], subjects=["sub-02"], settings=RDMSettings(distance=distance))
        responses = experiment.subjects["sub-02"]
        shown = np.array(responses.stimulus_ids)
        means = np.stack([np.asarray(responses.values)[shown == name][:, ~IT].mean(0) for name in IDS])
        expected = 1 - np.corrcoef(means) if distance == "correlation" else np.sqrt(np.square(means[:, None] - means).mean(-1))
        np.testing.assert_allclose(built.targets["V1"].rdms[0], expected, atol=1e-5)
        assert built.targets["V1"].subjects == ("sub-02",)
        assert "not cross-validated" in built.cautions[0]


@pytest.mark.parametrize("zscore", ["runs", "sessions"])
@pytest.mark.parametrize("distance", ["crossnobis", "euclidean"])
def test_zscores_are_those_of_their_group(zscore: str, distance: str) -> None:
    """Oracle: the same distances of responses that were z-scored before."""
    experiment = unbalanced(planted(offset=2.0)[0])
    before = {}
    for name, responses in experiment.subjects.items():
        values = responses.read(np.arange(responses.n_trials))
        group = responses.sessions * 2 + responses.runs if zscore == "runs" else responses.sessions
        for number in np.unique(group):
            inside = group == number
            values[inside] = (values[inside] - values[inside].mean(0)) / values[inside].std(0)
        before[name] = dataclasses.replace(responses, values=values)
    scaled = build_rdms(dataclasses.replace(experiment, subjects=before), settings=RDMSettings(distance=distance))
    found = build_rdms(experiment, settings=RDMSettings(distance=distance, zscore=zscore))
    expected = scaled.targets["all"].rdms
    np.testing.assert_allclose(found.targets["all"].rdms, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_which_images_and_what_is_said_of_them() -> None:
    experiment = unbalanced(planted()[0])
    built = build_rdms(experiment, settings=RDMSettings(images="train"))
    assert set(built.ids) <= set(IDS[:8])
    assert list(built.ids) == sorted(built.ids)
    assert "not every one of the runs shows every image" in built.cautions[0]
    facts = built.made_from["subjects"]["sub-01"]
    shown = [name for name in experiment.subjects["sub-01"].stimulus_ids if name in built.ids]
    assert (facts["n_trials"], facts["folds"], facts["balanced"], facts["n_folds"]) == (len(shown), "runs", False, N_RUNS)
    assert facts["repeats"] == [min(map(shown.count, built.ids)), max(map(shown.count, built.ids))]
    assert "single trials are the folds" in build_rdms(experiment, settings=RDMSettings(folds="trials")).cautions[0]
    assert not build_rdms(planted()[0]).cautions


def test_refusals_say_what_there_is() -> None:
    experiment, _ = planted()
    with pytest.raises(NotFoundError, match=r"sub-01 has no ROI 'it'; there are: IT, V1\. Name one of them with --roi"):
        build_rdms(experiment, roi=["it"])
    with pytest.raises(NotFoundError, match="no subject named 'sub-03'; did you mean"):
        build_rdms(experiment, subjects=["sub-03"])
    for wrong, message in (
        ({"distance": "cosine"}, "distance: one of crossnobis, correlation, euclidean fits"),
        ({"folds": "blocks"}, "folds: one of runs, sessions, trials fits"),
        ({"noise": "full"}, "noise: one of shrinkage_diag"),
        ({"distance": "euclidean", "folds": "runs"}, "folds and noise are of crossnobis"),
        ({"distance": "correlation", "noise": "diag"}, "folds and noise are of crossnobis"),
    ):
        with pytest.raises(InputError, match=message):
            RDMSettings(**wrong)


def test_crossnobis_without_repeats_is_refused_with_the_count() -> None:
    experiment, _ = planted()
    once = {
        name: responses.take_trials(np.arange(N_IMAGES + 2 * (name == "sub-02")))
        for name, responses in experiment.subjects.items()
    }
    short = dataclasses.replace(experiment, subjects=once)
    with pytest.raises(
        InputError, match=r"3 images shown in two runs or trials or more .* 0 are there \(sub-01 0, sub-02 2; of 12"
    ):
        build_rdms(short)
    with pytest.raises(InputError, match="sub-01 has one of sessions; there are several trials"):
        build_rdms(short, settings=RDMSettings(folds="sessions"))
    assert build_rdms(short, settings=RDMSettings(distance="euclidean")).targets["all"].n_images == N_IMAGES


def test_bad_voxels_are_refused_or_left_out() -> None:
    experiment, _ = planted()
    subjects = dict(experiment.subjects)
    values = np.array(subjects["sub-01"].values)
    values[:, 2], values[5, 7] = 1.0, np.nan
    subjects["sub-01"] = dataclasses.replace(subjects["sub-01"], values=values)
    damaged = dataclasses.replace(experiment, subjects=subjects)
    for distance in ("crossnobis", "correlation"):
        with pytest.raises(DegenerateError, match=r"sub-01: 2 of 30 voxels .*\[2, 7\]\. Leave them out with --drop-bad-voxels"):
            build_rdms(damaged, settings=RDMSettings(distance=distance))
        kept = build_rdms(damaged, settings=RDMSettings(distance=distance, drop_bad_voxels=True))
        assert kept.made_from["subjects"]["sub-01"]["n_bad_voxels_dropped"] == 2
        assert np.isfinite(kept.targets["all"].rdms).all()
