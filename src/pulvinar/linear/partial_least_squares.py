"""Partial least squares from features to voxels, for every number of components at once (scikit-learn's PLSRegression).

One fit of C components holds those of fewer: predictions are (x - mean) R_c Q_c' + mean_y with the first c columns of the
rotations R and of the responses' loadings Q (Wold, Sjostrom & Eriksson 2001). Features and responses are centred, not scaled.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def fit_components(
    features: Float[np.ndarray, "image feature"], responses: Float[np.ndarray, "image voxel"], n_components: int
) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, "feature component"], Float[np.ndarray, "component voxel"]]:
    """Mean of the features, rotations and loadings of a fit of this many components (fewer where images or features are)."""
    from sklearn.cross_decomposition import PLSRegression

    n_components = min(n_components, features.shape[1], len(features) - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*residual is constant.*")
        model = PLSRegression(n_components=n_components, scale=False).fit(features, responses)
    return features.mean(0), model.x_rotations_, model.y_loadings_.T


def held_out_predictions(
    features: Float[np.ndarray, "image feature"],
    responses: Float[np.ndarray, "image voxel"],
    new: Float[np.ndarray, "new_image feature"],
    counts: Sequence[int],
) -> Float[np.ndarray, "count new_image voxel"]:
    """Predicted responses to new images for each number of components (ascending)."""
    mean, rotations, loadings = fit_components(features, responses, max(counts))
    rows, before = (new - mean) @ rotations, 0
    total = np.broadcast_to(responses.mean(0), (len(new), responses.shape[1])).astype(responses.dtype)
    out = np.empty((len(counts), *total.shape), responses.dtype)
    for number, count in enumerate(counts):
        total = total + rows[:, before:count] @ loadings[before:count]
        out[number], before = total, count
    return out
