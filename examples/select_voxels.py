"""Select voxels with VoxelSelector, in a small planted volume where the answer is known.

    python examples/select_voxels.py

Eight runs of eight categories, 2,016 voxels of 3 mm. Two regions answer to the categories; a third is only noisy. The
selector sees the responses, the categories and where voxels are. Nothing is written to disk.
"""

import numpy as np
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from pulvinar.data.geometry import Geometry
from pulvinar.estimators import VoxelSelector

N_RUNS, N_CATEGORIES, SHAPE = 8, 8, (14, 12, 12)


def plant(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, Geometry, np.ndarray]:
    """Responses (block, voxel), category and run of each block, geometry, and which voxels are informative."""
    rng = np.random.default_rng(seed)
    geometry = Geometry.from_mask(np.ones(SHAPE, bool), np.diag([3.0, 3.0, 3.0, 1.0]))
    x, y, z = geometry.index.T
    informative = ((x - 4) ** 2 + (y - 3) ** 2 + (z - 4) ** 2 <= 5) | ((x - 9) ** 2 + (y - 8) ** 2 + (z - 7) ** 2 <= 5)
    noisy = (x - 3) ** 2 + (y - 9) ** 2 + (z - 8) ** 2 <= 6
    categories = np.tile(np.arange(N_CATEGORIES), N_RUNS)
    runs = np.repeat(np.arange(N_RUNS), N_CATEGORIES)
    patterns = 0.6 * rng.standard_normal((N_CATEGORIES, geometry.n_voxels)) * informative
    responses = patterns[categories] + rng.standard_normal((len(categories), geometry.n_voxels))
    responses += rng.standard_normal((len(categories), 1)) * (0.3 + 2 * noisy)  # shared by all voxels, strongest in one region
    return responses, categories, runs, geometry, informative


def main() -> None:
    responses, categories, runs, geometry, informative = plant()
    count = int(informative.sum())
    selector = VoxelSelector(n_voxels=count, geometry=geometry).fit(responses, categories, groups=runs)
    anova = SelectKBest(f_classif, k=count).fit(responses, categories)
    print(f"{geometry.n_voxels} voxels, {count} informative, {count} selected (chance {informative.mean():.2f})")
    print(f"precision   VoxelSelector {informative[selector.get_support()].mean():.2f}, "
          f"ANOVA {informative[anova.get_support()].mean():.2f}")  # fmt: skip
    print(f"low-pass    {selector.sigma_} voxel spacings, chosen on halves of the trials")
    print(f"mask image  {selector.mask_img_.shape}, {int(np.asarray(selector.mask_img_.dataobj).sum())} voxels set")

    pipelines = {
        "VoxelSelector": make_pipeline(VoxelSelector(n_voxels=count, geometry=geometry), SVC(kernel="linear")),
        "ANOVA": make_pipeline(SelectKBest(f_classif, k=count), SVC(kernel="linear")),
        "all voxels": make_pipeline(SVC(kernel="linear")),
    }
    for name, pipeline in pipelines.items():  # selection happens inside the training folds
        accuracy = cross_val_score(pipeline, responses, categories, groups=runs, cv=GroupKFold(N_RUNS)).mean()
        print(f"accuracy    {name:14s} {accuracy:.2f} on runs left out (chance {1 / N_CATEGORIES:.3f})")


if __name__ == "__main__":
    main()
