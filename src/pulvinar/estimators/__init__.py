"""scikit-learn faces of the methods. Importing this package loads none of them: a name is imported when it is asked for.

Decoder          decodes an image embedding from voxels, scored by retrieval
RDMRegressor     scales features of stages so that their dissimilarities match measured ones
RidgeEncoder     predicts voxels from features of images: ridge with alpha, and layer, per voxel
VoxelSelector    keeps the voxels that a cross-fitted linear readout of labels or an embedding uses
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulvinar.estimators.decoder import Decoder
    from pulvinar.estimators.rdm_regressor import RDMRegressor
    from pulvinar.estimators.ridge_encoder import RidgeEncoder
    from pulvinar.estimators.voxel_selector import VoxelSelector

_MODULES = {
    "Decoder": "decoder",
    "RDMRegressor": "rdm_regressor",
    "RidgeEncoder": "ridge_encoder",
    "VoxelSelector": "voxel_selector",
}

__all__ = ["Decoder", "RDMRegressor", "RidgeEncoder", "VoxelSelector"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
