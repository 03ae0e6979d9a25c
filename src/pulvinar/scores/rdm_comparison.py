"""How alike two RDMs are: Spearman, Pearson, Kendall's tau-a and tau-b, cosine, and cosine or Pearson after whitening.

All but the taus are the inner product of two vectors of length 1 (`unit_vectors`): ranks or values less their mean, values as
they are, or the whitened second moment matrix. Computed and returned in float64; leading axes broadcast.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core.config import suggest
from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores.rdm import expand

METHODS = {
    "spearman": "rank correlation, ties share their average rank",
    "pearson": "linear correlation",
    "tau-a": "Kendall's tau-a: tied pairs count as neither, so that ties cost; for models that predict ties (Nili et al. 2014)",
    "tau-b": "Kendall's tau-b: tied pairs are left out of what could be reached; scipy's, and rsatoolbox's 'kendall'",
    "cosine": "cosine; for dissimilarities on a ratio scale, such as crossnobis",
    "whitened_cosine": "cosine after whitening by the covariance of the entries (Diedrichsen et al. 2021)",
    "whitened_pearson": "the same for dissimilarities less their mean",
}
ALIASES = {"kendall": "tau-a", "tau_a": "tau-a", "tau_b": "tau-b", "kendall_tau_a": "tau-a", "kendall_tau_b": "tau-b"}
SMALLEST = 1e-10  # length of a vector, in units of its largest entry before centring, that counts as no variance


def compare(
    predicted: Float[Tensor, "*predicted pair"],
    measured: Float[Tensor, "*measured measured_pair"],
    *,
    method: str = "spearman",
    noise_covariance: Float[Tensor, "image image"] | None = None,
) -> Float[Tensor, "*similarities"]:
    """Similarity of condensed RDMs, in [-1, 1], by one of `METHODS` (or `ALIASES`: kendall is tau-a); leading axes broadcast:
    (pair,) and (subject, pair) give (subject,).

    noise_covariance: of the patterns over images, for the whitened methods; the identity by default (then the whitened
    cosine is the linear centred kernel alignment). rsatoolbox's names: spearman, corr, tau-a, tau-b (its 'kendall'), cosine,
    cosine_cov, corr_cov.
    Raises `InputError` for another method and where pairs do not match or are not finite, `DegenerateError`
    for an RDM without variance (cosine: of zeros).

    >>> compare(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[10.0, 20.0, 30.0], [3.0, 2.0, 1.0]])).round(decimals=6).tolist()
    [1.0, -1.0]
    """
    method = check_method(method)
    if predicted.shape[-1] != measured.shape[-1]:
        raise InputError(f"RDMs to compare: {predicted.shape[-1]} predicted pairs, {measured.shape[-1]} measured")
    if method in ("tau-a", "tau-b"):
        return _kendall(predicted, measured, ties_count=method == "tau-a")
    first = unit_vectors(predicted, method=method, noise_covariance=noise_covariance, name="predicted RDM")
    second = unit_vectors(measured, method=method, noise_covariance=noise_covariance, name="measured RDM")
    return (first * second).sum(-1)


def check_method(method: str) -> str:
    """The name in `METHODS` that is meant; `InputError` where there is none."""
    if method not in METHODS and method not in ALIASES:
        raise InputError(f"'{method}' is not a way to compare RDMs{suggest(method, [*METHODS, *ALIASES])}")
    return ALIASES.get(method, method)


def name_of(method: str) -> str:
    """The method as it is written beside a score: which tau it is, too."""
    canonical = check_method(method)
    return f"Kendall's {canonical}" if canonical.startswith("tau") else canonical


def unit_vectors(
    rdms: Float[Tensor, "*batch pair"],
    *,
    method: str,
    noise_covariance: Float[Tensor, "image image"] | None = None,
    name: str = "RDM",
) -> Float[Tensor, "*batch entry"]:
    """Vectors of length 1 whose inner products are the similarity; for every method but the taus, which have none so long.

    entry = pair, except for the whitened methods: those give the second moment matrix, (images - 1)^2 entries.
    """
    values = rdms.double()
    wrong = torch.nonzero(~torch.isfinite(values).all(-1))
    if len(wrong):
        raise InputError(f"{name} {tuple(wrong[0].tolist())}: not finite")
    scale = values.abs().amax(-1, keepdim=True)
    if method == "spearman":
        values = average_ranks(values)
        scale = torch.full_like(scale, values.shape[-1])
    if method in ("spearman", "pearson", "whitened_pearson"):
        values = values - values.mean(-1, keepdim=True)
    _check_variance(values, scale, name)
    if method.startswith("whitened"):
        values = _second_moments(values, noise_covariance)
    return values / torch.linalg.vector_norm(values, dim=-1, keepdim=True)


def average_ranks(values: Float[Tensor, "*batch pair"]) -> Float[Tensor, "*batch pair"]:
    """Ranks from 1 over the last axis, float64; ties share the average of theirs (as scipy's rankdata)."""
    first, last = tie_bounds(values)
    return (first + last).double() / 2 + 1


def tie_bounds(values: Tensor) -> tuple[Tensor, Tensor]:
    """First and last place, from 0, that the value of each entry takes in sorted order; both (*batch, pair)."""
    ordered, order = values.sort(dim=-1)
    places = torch.arange(values.shape[-1], device=values.device).expand(values.shape)
    changes = ordered[..., 1:] != ordered[..., :-1]
    edge = changes.new_ones(*values.shape[:-1], 1)
    starts, ends = torch.cat([edge, changes], -1), torch.cat([changes, edge], -1)
    first = torch.where(starts, places, 0).cummax(-1).values
    last = torch.where(ends, places, values.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return torch.empty_like(places).scatter(-1, order, first), torch.empty_like(places).scatter(-1, order, last)


def partial_spearman(
    predicted: Float[Tensor, "*predicted pair"],
    measured: Float[Tensor, "*measured pair"],
    confounds: Float[Tensor, "confound pair"],
) -> Float[Tensor, "*similarities"]:
    """Spearman correlation beyond confounds: Pearson correlation of the ranks' residuals from a fit on the confounds' ranks.

    Raises `DegenerateError` where the confounds explain one of the two altogether.

    >>> rng = torch.Generator().manual_seed(0)
    >>> a, b = torch.randn(2, 45, generator=rng)
    >>> bool(partial_spearman(a + b, a, b[None]) > compare(a + b, a))
    True
    """
    ranks = average_ranks(confounds.double())
    constant = torch.ones(1, ranks.shape[-1], dtype=torch.float64, device=ranks.device)
    basis = torch.linalg.qr(torch.cat([constant, ranks]).mT).Q  # pair confound

    def residual(rdms: Tensor, name: str) -> Tensor:
        units = unit_vectors(rdms, method="spearman", name=name)
        left = units - (units @ basis) @ basis.mT
        length = torch.linalg.vector_norm(left, dim=-1, keepdim=True)
        if (length < 1e-6).any():
            raise DegenerateError(f"{name}: the confounds explain all of it; nothing is left to correlate")
        return left / length

    return (residual(predicted, "predicted RDM") * residual(measured, "measured RDM")).sum(-1)


def _check_variance(values: Tensor, scale: Tensor, name: str) -> None:
    flat = torch.nonzero(torch.linalg.vector_norm(values, dim=-1) <= SMALLEST * scale[..., 0])
    if len(flat):
        index = tuple(flat[0].tolist())
        place = f" {index[0] if len(index) == 1 else index}" if index else ""
        raise DegenerateError(f"{name}{place}: all pairs have the same dissimilarity; nothing can be correlated with it")


def _second_moments(values: Tensor, noise_covariance: Tensor | None) -> Tensor:
    """Second moment matrix of the patterns in contrast space, whitened by the noise covariance there, as one row.

    D is linear in G (d_ij = G_ii + G_jj - 2 G_ij), and the covariance of the entries of D under noise of covariance S over
    images is that of G: Q S Q' times itself, Q an orthonormal basis of contrasts. So cos(V^-1/2 d, V^-1/2 d') is the cosine of
    L^-1 Q G Q' L^-T with L L' = Q S Q'.
    """
    square = expand(values)
    n_images = square.shape[-1]
    complete = torch.linalg.qr(torch.eye(n_images, dtype=square.dtype, device=square.device) - 1 / n_images).Q
    contrasts = complete[:, : n_images - 1].mT
    if noise_covariance is not None:
        if noise_covariance.shape != square.shape[-2:]:
            raise InputError(f"noise covariance: {tuple(noise_covariance.shape)} came for RDMs over {n_images} images")
        lower, failed = torch.linalg.cholesky_ex(contrasts @ noise_covariance.to(square) @ contrasts.mT)
        if failed:
            raise DegenerateError("noise covariance: not positive definite over the contrasts of images")
        contrasts = torch.linalg.solve_triangular(lower, contrasts, upper=False)
    return (contrasts @ (-square / 2) @ contrasts.mT).flatten(-2)


def _kendall(predicted: Tensor, measured: Tensor, *, ties_count: bool) -> Tensor:
    """scipy's tau-b (n log n), or tau-a = (concordant - discordant) / all: its ties back in the denominator."""
    for rdms, name in ((predicted, "predicted RDM"), (measured, "measured RDM")):
        unit_vectors(rdms, method="pearson", name=name)  # its errors
    first, second = torch.broadcast_tensors(predicted.detach(), measured.detach())
    rows = zip(first.reshape(-1, first.shape[-1]).cpu().numpy(), second.reshape(-1, first.shape[-1]).cpu().numpy(), strict=True)
    values = [_tau(one, other, ties_count=ties_count) for one, other in rows]
    return torch.tensor(values, dtype=torch.float64, device=first.device).reshape(first.shape[:-1])


def _tau(first: np.ndarray, second: np.ndarray, *, ties_count: bool) -> float:
    import scipy.stats

    tau_b = float(scipy.stats.kendalltau(first, second, method="asymptotic").statistic)
    if not ties_count:
        return tau_b
    n_pairs = len(first) * (len(first) - 1) / 2
    tied = [(counts * (counts - 1) / 2).sum() for counts in (np.unique(x, return_counts=True)[1] for x in (first, second))]
    return float(tau_b * np.sqrt((n_pairs - tied[0]) * (n_pairs - tied[1])) / n_pairs)
