"""scikit-learn faces of the methods. Importing this package loads none of them: a name is imported when it is asked for.

Decoder          decodes an image embedding from voxels, scored by retrieval
RDMRegressor     scales features of stages so that their dissimilarities match measured ones
RidgeEncoder     predicts voxels from features of images: ridge with alpha, and layer, per voxel
VoxelSelector    keeps the voxels that carry labels or an embedding, by a cross-fitted linear readout or another selector
"""

from typing import TYPE_CHECKING

from pulvinar.core.lazy import lazy

if TYPE_CHECKING:
    from pulvinar.decoding.decoder import Decoder
    from pulvinar.decoding.voxel_selector import VoxelSelector
    from pulvinar.encoding.ridge_encoder import RidgeEncoder
    from pulvinar.rsa.rdm_regressor import RDMRegressor

__all__ = ["Decoder", "RDMRegressor", "RidgeEncoder", "VoxelSelector"]

_PLACES = {
    "Decoder": "pulvinar.decoding.decoder:Decoder",
    "RDMRegressor": "pulvinar.rsa.rdm_regressor:RDMRegressor",
    "RidgeEncoder": "pulvinar.encoding.ridge_encoder:RidgeEncoder",
    "VoxelSelector": "pulvinar.decoding.voxel_selector:VoxelSelector",
}
__getattr__, __dir__ = lazy(__name__, _PLACES)
