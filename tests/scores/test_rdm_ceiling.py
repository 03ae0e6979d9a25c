"""Ceilings against the released numbers of Algonauts 2019, rsatoolbox, loops with scipy, and a planted truth."""

import warnings

import numpy as np
import pytest
import rsatoolbox
import scipy.stats
import torch

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.data.dissimilarity_files import read_npz
from pulvinar.scores.rdm import condense, pairs_among
from pulvinar.scores.rdm_ceiling import (
    ALGONAUTS2019_CEILINGS,
    algonauts2019_ceiling,
    algonauts2019_score,
    algonauts2019_track,
    noise_ceiling,
    subject_scores,
)


@pytest.fixture
def measured() -> torch.Tensor:
    """Six subjects, ten images: a shared RDM and noise of their own."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(45, generator=generator, dtype=torch.float64) + torch.rand(
        6, 45, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize(("target", "upper", "lower"), [("evc", 0.1589, 0.0686), ("it", 0.3075, 0.2264)])
def test_ceilings_of_the_92_images(shared_data, target: str, upper: float, lower: float) -> None:
    """Published (upper) and recomputed (lower), to four decimals."""
    rdms = read_npz(shared_data / "rdm92_algonauts" / "rdm92_algonauts2019.npz").target(target).rdms
    found = noise_ceiling(condense(torch.from_numpy(rdms)))
    assert (round(found.upper, 4), round(found.lower, 4)) == (upper, lower)
    assert (found.n_subjects, found.n_pairs) == (15, 92 * 91 // 2)
    assert algonauts2019_ceiling(condense(torch.from_numpy(rdms))) == found.upper
    assert ALGONAUTS2019_CEILINGS[92][target] == upper


def test_ceilings_are_the_loop(measured: torch.Tensor) -> None:
    def rho(one: torch.Tensor, other: torch.Tensor) -> float:
        return scipy.stats.spearmanr(one, other).statistic

    upper = np.array([rho(own, measured.mean(0)) for own in measured])
    lower = np.array([rho(own, torch.cat([measured[:row], measured[row + 1 :]]).mean(0)) for row, own in enumerate(measured)])
    found = noise_ceiling(measured)
    expected = [(upper**2).mean(), (lower**2).mean(), upper.mean(), lower.mean()]
    assert [found.upper, found.lower, found.upper_r, found.lower_r] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("method", "name"), [("spearman", "spearman"), ("pearson", "corr"), ("cosine", "cosine"), ("kendall", "tau-a")]
)
def test_ceilings_of_r_are_those_of_rsatoolbox(measured: torch.Tensor, method: str, name: str) -> None:
    """It averages normalised RDMs and r, not r squared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that tau takes averaged ranks
        lower, upper = rsatoolbox.inference.boot_noise_ceiling(rsatoolbox.rdm.RDMs(measured.numpy()), method=name)
    found = noise_ceiling(measured, method=method, average="normalised")
    assert (found.lower_r, found.upper_r) == pytest.approx((lower, upper))


@pytest.mark.parametrize("method", ["spearman", "kendall", "whitened_cosine"])
def test_truth_lies_between(method: str) -> None:
    """Planted: the similarity of the true RDM with subjects lies between the ceilings of r, on 20 worlds of 20."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        truth = torch.rand(190, generator=generator, dtype=torch.float64)
        subjects = truth + 0.5 * torch.rand(8, 190, generator=generator, dtype=torch.float64) - 0.25
        found = noise_ceiling(subjects, method=method)
        assert found.lower_r < subject_scores(truth, subjects, method=method).mean() < found.upper_r


def test_rho_is_averaged_over_time_before_squaring() -> None:
    """Two time points with opposite sign: each rho squared is 1, their mean is 0."""
    values = torch.arange(10.0)
    measured = torch.stack([values, -values]).expand(3, 2, 10).contiguous()
    assert subject_scores(values, measured).abs().max() < 1e-12
    scores = algonauts2019_score({"meg_early": values, "meg_late": values}, {"meg_early": measured, "meg_late": -measured})
    assert scores["meg_early"]["r2"] == pytest.approx(0)
    assert scores["meg_early"]["ceiling"] == pytest.approx(1)
    assert scores["meg"]["percent"] == pytest.approx(0)


def test_any_subset_of_pairs(measured: torch.Tensor) -> None:
    chosen = pairs_among(torch.tensor([1, 4, 5, 8, 9]), 10)
    assert noise_ceiling(measured[:, chosen]).n_pairs == 10
    assert noise_ceiling(measured[:, chosen]).upper != noise_ceiling(measured).upper


def test_track_scores_of_the_challenge() -> None:
    """The check of the formula: percentages of two targets with the ceilings of the 78 images."""
    ceilings = ALGONAUTS2019_CEILINGS[78]
    for percents, targets, expected in (
        ((24.93, 15.55), ("evc", "it"), 20.21),
        ((51.21, 35.10), ("meg_early", "meg_late"), 42.26),
    ):
        tops = [ceilings[name] for name in targets]
        r2 = [percent / 100 * top for percent, top in zip(percents, tops, strict=True)]
        assert round(algonauts2019_track(r2, tops), 2) == expected


def test_score_of_the_challenge(measured: torch.Tensor) -> None:
    """Against the formula spelled out; the sign stands beside; published ceilings may be given."""
    model = -measured.mean(0)
    scores = algonauts2019_score({"evc": model, "it": measured[0]}, {"evc": measured, "it": measured})
    assert scores["evc"]["r"] < 0
    assert scores["evc"]["percent"] == pytest.approx(100)
    rho = np.array([scipy.stats.spearmanr(measured[0], own).statistic for own in measured])
    assert scores["it"]["r2"] == pytest.approx((rho**2).mean())
    top = noise_ceiling(measured)
    assert scores["it"]["lower_ceiling"] == top.lower
    assert scores["fmri"]["percent"] == pytest.approx(100 * (top.upper + (rho**2).mean()) / (2 * top.upper))
    assert "meg" not in scores
    published = algonauts2019_score({"it": measured[0]}, {"it": measured}, ceilings=ALGONAUTS2019_CEILINGS[92])
    assert published["it"]["percent"] == pytest.approx(100 * (rho**2).mean() / 0.3075)


def test_refused(measured: torch.Tensor) -> None:
    with pytest.raises(InputError, match="2 subjects or more"):
        noise_ceiling(measured[:1])
    flat = measured.clone()
    flat[2] = 1.0
    with pytest.raises(DegenerateError, match="subject 2"):
        noise_ceiling(flat)
    with pytest.raises(InputError, match="'plane' is not a way"):
        noise_ceiling(measured, average="plane")
    with pytest.raises(InputError, match="not whitened"):
        noise_ceiling(measured, method="whitened_cosine", average="normalised")
    with pytest.raises(InputError, match="'evv' was not measured"):
        algonauts2019_score({"evv": measured[0]}, {"evc": measured})
    with pytest.raises(InputError, match="2 and 1 came"):
        algonauts2019_track([0.1, 0.2], [0.3])


def test_two_subjects_are_enough_and_ties_of_ranks_stay(measured: torch.Tensor) -> None:
    """Closed form: each of two is the other's rest, so the lower ceiling is their rho; oracle of tau-b: scipy on mean ranks."""
    rho = scipy.stats.spearmanr(*measured[:2]).statistic
    found = noise_ceiling(measured[:2])
    assert (found.lower_r, found.lower, found.n_subjects) == pytest.approx((rho, rho**2, 2))
    tied = (4 * measured).round()
    ranks = scipy.stats.rankdata(tied, axis=1)
    wanted = np.mean([scipy.stats.kendalltau(ranks.mean(0), own).statistic for own in tied])
    assert noise_ceiling(tied, method="tau-b", average="normalised").upper_r == pytest.approx(wanted)
    assert noise_ceiling(measured[:, None].expand(-1, 2, -1)).n_pairs == 45
    flat = measured.clone()
    flat[2] = 1.0
    with pytest.raises(DegenerateError, match=r"^subject 2: all pairs"):
        noise_ceiling(flat, method="pearson", average="normalised")
