"""scikit-learn faces of the methods. Importing this package loads none of them: a name is imported when it is asked for.

Decoder          decodes an image embedding from voxels, scored by retrieval
RDMRegressor     scales features of stages so that their dissimilarities match measured ones
RidgeEncoder     predicts voxels from features of images: ridge with alpha, and layer, per voxel
VoxelSelector    keeps the voxels that carry labels or an embedding, by a cross-fitted linear readout or another selector
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulvinar.decoding.decoder import Decoder
    from pulvinar.decoding.voxel_selector import VoxelSelector
    from pulvinar.encoding.ridge_encoder import RidgeEncoder
    from pulvinar.rsa.rdm_regressor import RDMRegressor

_MODULES = {
    "Decoder": "decoding.decoder",
    "RDMRegressor": "rsa.rdm_regressor",
    "RidgeEncoder": "encoding.ridge_encoder",
    "VoxelSelector": "decoding.voxel_selector",
}

__all__ = ["Decoder", "RDMRegressor", "RidgeEncoder", "VoxelSelector"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"pulvinar.{_MODULES[name]}"), name)
