"""Noise ceilings of RDMs: how well any model could do, given that subjects differ. The score of the Algonauts 2019 challenge.

With rho_s the similarity of subject s with the mean RDM of subjects (plain mean, before ranking):
  upper: the mean is over all subjects, s among them, so it is too high.
  lower: the mean is over the other subjects (leave one subject out), so it is too low.
Each of r (mean_s rho_s) and of r squared (mean_s rho_s^2). With time points (MEG) rho is averaged over time before squaring.
Every function takes condensed RDMs; slice the pairs (`rdm.pairs_among`) to have the ceiling of just those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pulvinar.core.config import suggest
from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores.rdm_comparison import average_ranks, check_method, compare, unit_vectors

ALGONAUTS2019_CEILINGS = {  # mean over 15 subjects of squared Spearman rho with the mean RDM; Cichy et al. 2019
    92: {"evc": 0.1589, "it": 0.3075, "meg_early": 0.4634, "meg_late": 0.2275},
    118: {"evc": 0.1048, "it": 0.0728, "meg_early": 0.3468, "meg_late": 0.2265},
    78: {"evc": 0.0640, "it": 0.0647, "meg_early": 0.3562, "meg_late": 0.4452},
}
TRACKS = {"fmri": ("evc", "it"), "meg": ("meg_early", "meg_late")}  # targets that the challenge scores together
AVERAGES = ("plain", "normalised")


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """upper, lower: of r squared. upper_r, lower_r: of r, signed. The true ceiling lies between."""

    upper: float
    lower: float
    upper_r: float
    lower_r: float
    n_subjects: int
    n_pairs: int


def subject_scores(
    predicted: Float[Tensor, " pair"], measured: Float[Tensor, "subject *time measured_pair"], *, method: str = "spearman"
) -> Float[Tensor, " subject"]:
    """Similarity of one RDM with that of each subject, averaged over time points if there are any; signed."""
    return _over_time(compare(predicted, measured, method=method))


def noise_ceiling(
    measured: Float[Tensor, "subject *time pair"], *, method: str = "spearman", average: str = "plain"
) -> Ceiling:
    """Upper and leave-one-subject-out lower ceiling of r and of r squared.

    upper: the mean RDM of all subjects against each of them; lower: the mean of the others against the one left out (Nili et
    al. 2014). Of r squared each subject's r is squared first, as in Algonauts 2019. measured: RDMs (subject, pair), or
    (subject, time, pair), whose r is averaged over time. method: as `compare` takes it. average: "plain" is the mean of the
    dissimilarities as they are (Algonauts 2019); "normalised" that of what `method` compares (ranks, z-scores, or unit length),
    which is the RDM of the highest mean r, and rsatoolbox's ceiling.
    Raises `InputError` for fewer than 2 subjects, `DegenerateError` for a subject without variance.

    >>> import torch
    >>> shared = torch.arange(10.0)
    >>> found = noise_ceiling(torch.stack([shared, 2 * shared + 1, shared**2]))  # the same ranks
    >>> float(found.upper), float(found.lower)
    (1.0, 1.0)
    """
    method = check_method(method)
    if average not in AVERAGES:
        raise InputError(f"average: '{average}' is not a way to average subjects{suggest(average, AVERAGES)}")
    n_subjects = len(measured)
    if n_subjects < 2:
        raise InputError(f"noise ceiling: 2 subjects or more are needed, {n_subjects} came")
    values = measured.double()
    if average == "normalised":
        if method.startswith("whitened"):
            raise InputError(f"average: 'normalised' is known for RDMs that are not whitened, {method} came")
        ranked = method in ("spearman", "tau-a", "tau-b")  # sums of ranks are exact, so their ties stay ties
        values = average_ranks(values) if ranked else unit_vectors(values, method=method, name="subject")
    total = values.sum(0)
    try:
        upper = _over_time(compare(total / n_subjects, measured, method=method))
        lower = _over_time(compare((total - values) / (n_subjects - 1), measured, method=method))
    except DegenerateError as error:
        raise DegenerateError(f"noise ceiling: {str(error).replace('measured RDM', 'subject')}") from error
    return Ceiling(
        upper=float(upper.square().mean()),
        lower=float(lower.square().mean()),
        upper_r=float(upper.mean()),
        lower_r=float(lower.mean()),
        n_subjects=n_subjects,
        n_pairs=measured.shape[-1],
    )


def algonauts2019_ceiling(measured: Float[Tensor, "subject *time pair"]) -> float:
    """The challenge's ceiling: mean_s Spearman(RDM_s, plain mean over all subjects)^2; MEG: rho averaged over time first."""
    return noise_ceiling(measured, method="spearman", average="plain").upper


def algonauts2019_score(
    predicted: Mapping[str, Float[Tensor, " pair"]],
    measured: Mapping[str, Float[Tensor, "subject *time pair"]],
    *,
    ceilings: Mapping[str, float] | None = None,
) -> dict[str, dict[str, float]]:
    """Score of predicted RDMs by target (evc, it, meg_early, meg_late, or any name), and of the tracks that are complete.

    Target: `r` = mean_s rho_s (signed), `r2` = mean_s rho_s^2, `ceiling` = `algonauts2019_ceiling` of the same pairs (or the
    published one, from `ceilings`), `lower_ceiling` (leave one subject out), `percent` = 100 r2 / ceiling. Track (fmri, meg):
    `percent` = 100 mean(r2) / mean(ceiling) over its two targets. Cichy et al. 2019. Squares hide the sign: a model that is
    anti-correlated scores too, so read `percent` beside `r`.
    """
    missing = [name for name in predicted if name not in measured]
    if missing:
        raise InputError(f"predicted RDMs: '{missing[0]}' was not measured{suggest(missing[0], list(measured))}")
    scores: dict[str, dict[str, float]] = {}
    for name, rdm in predicted.items():
        rho = subject_scores(rdm, measured[name])
        ceiling = noise_ceiling(measured[name])
        upper = ceiling.upper if ceilings is None else ceilings[name]
        r2 = float(rho.square().mean())
        scores[name] = {
            "r": float(rho.mean()),
            "r2": r2,
            "ceiling": upper,
            "lower_ceiling": ceiling.lower,
            "percent": 100 * r2 / upper,
        }
    for track, targets in TRACKS.items():
        if all(name in predicted for name in targets):
            r2s, tops = [scores[name]["r2"] for name in targets], [scores[name]["ceiling"] for name in targets]
            scores[track] = {"percent": algonauts2019_track(r2s, tops)}
    return scores


def algonauts2019_track(r2: Sequence[float], ceilings: Sequence[float]) -> float:
    """Score of a track in percent: 100 mean(r2) / mean(ceiling) over its targets; not the mean of the two percentages."""
    if len(r2) != len(ceilings) or not r2:
        raise InputError(f"track: a score and a ceiling for each target are needed, {len(r2)} and {len(ceilings)} came")
    return 100 * sum(r2) / sum(ceilings)


def _over_time(scores: Float[Tensor, " subject *time"]) -> Float[Tensor, " subject"]:
    return scores.flatten(1).mean(1) if scores.ndim > 1 else scores
