"""The plain rival of every decoder: ridge regression from voxels to the embedding of the images.

Outputs are linear in the training targets, so the weights of the training images in each output are found once (`Ridge` on
the identity), however wide the embedding is. The penalty is one for all dims, by the closed-form error of leaving out one image
(scikit-learn's RidgeCV), on as many columns with the same inner products as there are images.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.data.responses import mean_over_repeats
from pulvinar.decoding.data import Trials

# In units of the mean squared singular value of the training responses; our choice of range.
ALPHAS = tuple(10.0 ** np.arange(-3, 4.5, 0.5))
DIMS_PER_BLOCK = 8192


def ridge_outputs(
    train: Trials, voxels: Sequence[int] | np.ndarray, shown: Float[Tensor, "trial voxel"]
) -> Float[Tensor, "trial dim"]:
    """Predicted embedding, in the units of the target, of each trial shown, from ridge on these voxels (indices) of `train`.

    Trials of an image are averaged, and count by their number. The intercept is not penalised.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    x, _, counts = mean_over_repeats(train.responses[:, torch.as_tensor(voxels)].numpy(), train.stimulus_ids)
    first = np.unique(np.asarray(train.stimulus_ids), return_index=True)[1]
    targets = train.target[torch.from_numpy(np.sort(first))]  # in order of first appearance, as the means
    centred = (x - counts @ x / counts.sum()) * np.sqrt(counts)[:, None]
    unit = float(np.square(centred).sum()) / min(centred.shape)
    choice = RidgeCV(alphas=[alpha * unit for alpha in ALPHAS]).fit(x, _narrow(targets), sample_weight=counts)
    weights = Ridge(alpha=choice.alpha_).fit(x, np.eye(len(x)), sample_weight=counts).predict(shown.numpy())
    return torch.from_numpy(weights.astype(np.float32)) @ targets


def _narrow(targets: Float[Tensor, "image dim"]) -> Float[np.ndarray, "image column"]:
    """Columns with the inner products of the centred targets; no more of them than images."""
    centred = targets - targets.mean(0)
    if centred.shape[1] <= len(centred):
        return centred.double().numpy()
    gram = torch.zeros(len(centred), len(centred), dtype=torch.float64)
    for block in centred.split(DIMS_PER_BLOCK, dim=1):
        gram += block.double() @ block.double().T
    values, vectors = np.linalg.eigh(gram.numpy())
    return vectors * np.sqrt(np.maximum(values, 0.0))
