"""Scores of single voxels, as controls for learnt selections at an equal voxel budget.

anova_f                        does the voxel differ between classes of stimuli
cross_validated_encoding_r2    how well an embedding of the stimuli predicts the voxel on held-out stimuli
top_voxels                     the mask of the n highest scores
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Shaped

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.sampling import blocks_of, dealt_folds

VOXELS_PER_BLOCK = 4096
# Ridge penalties in units of the mean squared singular value of the centred training embedding; our choice of range.
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
LEAST_LEFT = 1e-9  # smallest share of itself that a stimulus may leave unexplained when it is left out (ours)
LEAST_LEFT_IN_FLOAT32 = 1e-3  # below it leave-one-out errors are computed in float64 (ours)


def top_voxels(scores: Float[np.ndarray, " voxel"], n_voxels: int) -> Bool[np.ndarray, " voxel"]:
    """Mask of the `n_voxels` highest scores; of equal scores the lowest index is taken first.

    Raises `InputError` for NaN among the scores or a budget that does not fit.
    """
    if not 1 <= n_voxels <= len(scores):
        raise InputError(f"n_voxels: 1 to {len(scores)} can be selected, {n_voxels} came")
    if np.isnan(scores).any():
        raise InputError(f"scores: {int(np.isnan(scores).sum())} voxels are NaN, first {int(np.argmax(np.isnan(scores)))}")
    mask = np.zeros(len(scores), bool)
    mask[np.argsort(-scores, kind="stable")[:n_voxels]] = True
    return mask


def anova_f(
    responses: Float[np.ndarray, "trial voxel"], labels: Sequence[str] | Shaped[np.ndarray, " label"]
) -> Float[np.ndarray, " voxel"]:
    """F of a one-way analysis of variance of each voxel over classes of trials.

    F = (SS_between / (k - 1)) / (SS_within / (N - k)), k classes, N trials. A constant voxel has 0, one without variance inside
    classes infinity. Blocks of voxels, float64 inside. Raises `InputError` where labels do not fit the trials and
    `DegenerateError` with fewer than two classes or no more trials than classes.
    """
    row, counts = _rows_of(labels, len(responses), "labels")[1:]
    n_trials, n_classes = len(responses), len(counts)
    if n_classes < 2 or n_trials <= n_classes:
        raise DegenerateError(f"ANOVA: {n_classes} classes in {n_trials} trials; 2 classes and more trials than classes needed")
    order = np.argsort(row, kind="stable")
    f = np.empty(responses.shape[1])
    for columns in blocks_of(responses.shape[1], VOXELS_PER_BLOCK):
        block = _sorted_trials(responses, columns, order, np.float64)
        constant = (block == block[0]).all(0)
        block -= block.mean(0)
        means = _means_of_sorted(block, counts)
        total = np.where(constant, 0.0, _square_sums(block))
        between = counts @ means**2
        block -= np.repeat(means, counts, axis=0)
        within = _square_sums(block)
        within[within < 1e-14 * total] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            f[columns] = np.where(total > 0, between / (n_classes - 1) / (within / (n_trials - n_classes)), 0.0)
    return f


def anova_labels(embedding: Float[np.ndarray, "trial dim"], n_clusters: int, *, seed: int) -> Int[np.ndarray, " trial"]:
    """Pseudo-classes for `anova_f` where stimuli have no class labels: k-means clusters of the training embeddings.

    Rows are L2-normalised, then scikit-learn's KMeans with 10 starts. Clustering embeddings into classes is our choice.
    Pass training trials only.
    """
    from sklearn.cluster import KMeans

    if not 2 <= n_clusters < len(embedding):
        raise InputError(f"n_clusters: 2 to {len(embedding) - 1} for {len(embedding)} trials, {n_clusters} came")
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise DegenerateError("embedding: a row has length zero or a value that is not finite and no direction")
    labels = KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(embedding / length)
    return labels.astype(np.int64)


class _Fold(NamedTuple):
    """A training embedding in its singular vectors: sqrt(weight) * (rows - mean) = U diag(s) V', and test rows times V.

    left: share of itself that each stimulus leaves unexplained, 1 - h_ii of the hat matrix with the intercept, for every alpha.
    """

    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    root_counts: Float32[np.ndarray, " train"]
    u: Float[np.ndarray, "train rank"]
    s: Float32[np.ndarray, " rank"]
    test_on_v: Float32[np.ndarray, "test rank"]
    alphas: Float32[np.ndarray, " alpha"]
    left: Float[np.ndarray, "alpha train"]


def cross_validated_encoding_r2(
    responses: Float[np.ndarray, "trial voxel"],
    embedding: Float[np.ndarray, "embedding_trial dim"],
    stimulus_ids: Sequence[str] | Shaped[np.ndarray, " id"],
    *,
    seed: int,
    n_folds: int = 5,
    alphas: Sequence[float] = ALPHAS,
    choose_alpha: Literal["per_voxel", "global"] = "per_voxel",
    groups: Sequence[str] | Shaped[np.ndarray, " group"] | None = None,
) -> Float[np.ndarray, " voxel"]:
    """Out-of-fold R2 of each voxel under ridge regression from the embedding of the stimuli; can be negative.

    R2 = 1 - sum_t (y_t - p_t)^2 / sum_t (y_t - m_t)^2 over all trials t, p_t the prediction and m_t the mean response of the
    training folds. Folds are of stimuli: all repeats of a stimulus stand in one fold; with `groups` (a name per trial, the same
    for all repeats of a stimulus) they are of groups. alpha (in units of the mean squared singular value of the centred
    training embedding) minimises the closed-form leave-one-stimulus-out error inside the training folds, for each voxel or
    summed over all. The intercept is not penalised. A constant voxel has R2 = 0.

    Repeats of a stimulus share an embedding, so ridge over trials is ridge over stimulus means weighted by repeats. Ridge
    depends on the embedding only through its Gram matrix, so an embedding wider than the stimuli is replaced by as many
    columns as there are stimuli. One decomposition per fold serves all voxels and alphas. Blocks of voxels, float32.
    Raises `InputError` where shapes, ids, folds or alphas do not fit, or repeats of a stimulus differ in embedding;
    `DegenerateError` where a stimulus fits itself, so that leaving it out cannot choose an alpha.
    """
    ids, row, counts = _rows_of(stimulus_ids, len(responses), "stimulus ids")
    if len(embedding) != len(responses):
        raise InputError(f"encoding: {len(responses)} trials but {len(embedding)} embeddings; each trial needs one")
    if len(alphas) == 0 or not all(np.isfinite(alpha) and alpha > 0 for alpha in alphas):
        raise InputError(f"alphas: positive numbers are needed, {list(alphas)} came")
    group_of = np.arange(len(ids)) if groups is None else _group_of_stimuli(groups, row)
    n_groups, what = int(group_of.max()) + 1, "stimuli" if groups is None else "groups"
    most = n_groups // 2 if groups is None else n_groups
    if not 2 <= n_folds <= most:
        raise InputError(f"n_folds: 2 to {most} for {n_groups} {what}, {n_folds} came")
    features = _narrow(_embedding_of_stimuli(embedding, ids, row))
    fold_of = dealt_folds(group_of, np.random.default_rng(seed).permutation(n_groups).argsort(), n_folds)
    folds = [_fold(features, counts, fold_of == fold, alphas) for fold in range(n_folds)]
    order = np.argsort(row, kind="stable")
    residual, total = np.zeros(responses.shape[1]), np.zeros(responses.shape[1])
    choices = _chosen_alphas(responses, order, counts, folds, choose_alpha)
    for columns in blocks_of(responses.shape[1], VOXELS_PER_BLOCK):
        trials = _sorted_trials(responses, columns, order, np.float32)
        means = _means_of_sorted(trials, counts)
        for fold, choice in zip(folds, choices, strict=True):
            scaled, centre = _scaled(means, counts, fold)
            shrink = fold.s[:, None] / (fold.s[:, None] ** 2 + fold.alphas[choice[columns]])
            predicted = fold.test_on_v @ (shrink * (fold.u.T @ scaled))
            held_out = trials[np.repeat(np.isin(np.arange(len(counts)), fold.test), counts)] - centre
            total[columns] += _square_sums(held_out)
            held_out -= np.repeat(predicted, counts[fold.test], axis=0)
            residual[columns] += _square_sums(held_out)
        total[columns][(trials == trials[0]).all(0)] = 0.0
    return 1 - np.divide(residual, total, out=np.ones_like(total), where=total > 0)


def _chosen_alphas(
    responses: Float[np.ndarray, "trial voxel"],
    order: Int[np.ndarray, " trial"],
    counts: Int[np.ndarray, " stimulus"],
    folds: list[_Fold],
    choose_alpha: Literal["per_voxel", "global"],
) -> list[Int[np.ndarray, " voxel"]]:
    """Index of the alpha with the least leave-one-stimulus-out error, per fold and voxel."""
    errors = [np.empty((len(fold.alphas), responses.shape[1]), np.float32) for fold in folds]
    for columns in blocks_of(responses.shape[1], VOXELS_PER_BLOCK):
        means = _means_of_sorted(_sorted_trials(responses, columns, order, np.float32), counts)
        for fold, error in zip(folds, errors, strict=True):
            error[:, columns] = _leave_one_out_errors(_scaled(means, counts, fold)[0], fold)
    if choose_alpha == "global":
        return [np.full(error.shape[1], np.argmin(error.sum(1, dtype=np.float64))) for error in errors]
    return [error.argmin(0) for error in errors]


def _leave_one_out_errors(scaled: Float32[np.ndarray, "train voxel"], fold: _Fold) -> Float32[np.ndarray, "alpha voxel"]:
    """Sum over training stimuli of (e_i / (1 - h_i))^2, with h the diagonal of the hat matrix, intercept included.

    e = (I - cc' - UU') y + U diag(alpha / (s^2 + alpha)) U'y, c the intercept's direction (what rounding left of the mean grows
    by 1 / (1 - h)); in float64 where 1 - h is small.
    """
    exact: type[np.floating] = np.float32 if fold.left.min() > LEAST_LEFT_IN_FLOAT32 else np.float64
    u, responses = fold.u.astype(exact), scaled.astype(exact)
    on_u = u.T @ responses
    intercept = fold.root_counts.astype(exact) / np.linalg.norm(fold.root_counts)
    outside = responses - u @ on_u - np.outer(intercept, intercept @ responses)
    errors = np.empty((len(fold.alphas), scaled.shape[1]), np.float32)
    for place, alpha in enumerate(fold.alphas.astype(exact)):
        damping = alpha / (fold.s.astype(exact) ** 2 + alpha)
        left_out = (u @ (damping[:, None] * on_u) + outside) / fold.left[place, :, None].astype(exact)
        errors[place] = _square_sums(left_out)
    return errors


def _fold(
    features: Float[np.ndarray, "stimulus column"],
    counts: Int[np.ndarray, " stimulus"],
    is_test: Bool[np.ndarray, " stimulus"],
    alphas: Sequence[float],
) -> _Fold:
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    root = np.sqrt(counts[train])
    mean = counts[train] @ features[train] / counts[train].sum()
    u, s, vt = np.linalg.svd(root[:, None] * (features[train] - mean), full_matrices=False)
    rank = int((s > 1e-6 * s[0]).sum())
    if s[0] == 0:
        raise DegenerateError("encoding: the embeddings of the training stimuli are all the same")
    u, s, test_on_v = u[:, :rank], s[:rank], (features[test] - mean) @ vt[:rank].T
    scale = np.mean(s**2)
    damping = np.array(alphas)[:, None] / (s**2 / scale + np.array(alphas)[:, None])
    left = damping @ np.square(u).T + 1 - counts[train] / counts[train].sum() - np.square(u).sum(1)
    if left.min() < LEAST_LEFT:
        raise DegenerateError(f"alphas: at {np.array(alphas)[left.min(1).argmin()]:g} a stimulus fits itself; give larger ones")
    return _Fold(
        train=train,
        test=test,
        root_counts=root.astype(np.float32),
        u=u if left.min() <= LEAST_LEFT_IN_FLOAT32 else u.astype(np.float32),
        s=(s / np.sqrt(scale)).astype(np.float32),  # so that alphas are in units of the mean squared singular value
        test_on_v=(test_on_v / np.sqrt(scale)).astype(np.float32),
        alphas=np.asarray(alphas, np.float32),
        left=left,
    )


def _scaled(
    means: Float32[np.ndarray, "stimulus voxel"], counts: Int[np.ndarray, " stimulus"], fold: _Fold
) -> tuple[Float32[np.ndarray, "train voxel"], Float32[np.ndarray, " voxel"]]:
    """Training responses less their mean over trials, times the square root of their repeats; and that mean."""
    train = means[fold.train]
    weights = (counts[fold.train] / counts[fold.train].sum()).astype(np.float32)
    centre = weights @ train
    return fold.root_counts[:, None] * (train - centre), centre


def _group_of_stimuli(
    groups: Sequence[str] | Shaped[np.ndarray, " trial"], row: Int[np.ndarray, " trial"]
) -> Int[np.ndarray, " stimulus"]:
    """The group, by its place among their sorted names, of every stimulus; row: the stimulus of each trial."""
    group, first = _rows_of(groups, len(row), "groups")[1], np.unique(row, return_index=True)[1]
    if (group != group[first][row]).any():
        raise InputError("groups: trials of one stimulus are in several groups; all of them need the same")
    return group[first]


def _embedding_of_stimuli(
    embedding: Float[np.ndarray, "trial dim"], ids: Shaped[np.ndarray, " stimulus"], row: Int[np.ndarray, " trial"]
) -> Float[np.ndarray, "stimulus dim"]:
    first = np.unique(row, return_index=True)[1]
    for start in range(0, len(row), 64):
        here = row[start : start + 64]
        differ = (embedding[start : start + 64] != embedding[first[here]]).any(1)
        if differ.any():
            name = ids[here[np.argmax(differ)]]
            raise InputError(
                f"encoding: trials of stimulus '{name}' have different (or NaN) embeddings; one per stimulus needed"
            )
    return embedding[first]


def _narrow(embedding: Float[np.ndarray, "stimulus dim"]) -> Float[np.ndarray, "stimulus column"]:
    """float64 columns with the Gram matrix of the centred embedding; no more of them than stimuli."""
    n_stimuli, n_dims = embedding.shape
    if n_dims <= n_stimuli:
        return embedding.astype(np.float64)
    gram = np.zeros((n_stimuli, n_stimuli))
    for start in range(0, n_dims, 8192):
        block = embedding[:, start : start + 8192].astype(np.float64)
        block -= block.mean(0)
        gram += block @ block.T
    values, vectors = np.linalg.eigh(gram)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _rows_of(
    names: Sequence[str] | Shaped[np.ndarray, " name"], n_trials: int, what: str
) -> tuple[Shaped[np.ndarray, " unique"], Int[np.ndarray, " name"], Int[np.ndarray, " unique"]]:
    """Unique names, the row of each trial among them, and how many trials each has."""
    if len(names) != n_trials:
        raise InputError(f"{n_trials} trials but {len(names)} {what}; each trial needs one")
    return np.unique(np.asarray(names), return_inverse=True, return_counts=True)


def _sorted_trials(
    responses: Float[np.ndarray, "trial voxel"], columns: slice, order: Int[np.ndarray, " trial"], dtype: type[np.floating]
) -> Float[np.ndarray, "trial block_voxel"]:
    """A block of voxels, its trials in the given order."""
    block = responses[:, columns].astype(dtype)[order]
    bad = ~np.isfinite(block).all(0)
    if bad.any():
        raise InputError(f"responses: voxel {columns.start + int(np.argmax(bad))} has a value that is not finite")
    return block


def _means_of_sorted(
    trials: Float[np.ndarray, "trial voxel"], counts: Int[np.ndarray, " group"]
) -> Float[np.ndarray, "group voxel"]:
    """Mean of each group; the trials are sorted by group."""
    return np.add.reduceat(trials, np.cumsum(counts) - counts, axis=0) / counts[:, None].astype(trials.dtype)


def _square_sums(rows: Float[np.ndarray, "row voxel"]) -> Float[np.ndarray, " voxel"]:
    """Sum of squares of each voxel, without a matrix of them."""
    return np.einsum("tv,tv->v", rows, rows)
