"""Representational similarity analysis: dissimilarity matrices, comparison, ceilings. Arrays or tensors in, the same out.

A name is imported when it is asked for. Matrices of activity patterns: correlation_rdm, euclidean_rdm, squared_euclidean_rdm,
squared_mahalanobis_rdm, crossnobis_rdm; condense and expand turn square ones (image, image) into pairs and back. Compared by
compare and partial_spearman, with noise_ceiling; made from the responses of an experiment by build_rdms (RDMSettings), read
from files by read_rdms; RDMRegressor scales stages to measured ones.
"""

from typing import TYPE_CHECKING

from pulvinar.core.lazy import lazy

if TYPE_CHECKING:
    from pulvinar.rsa.numpy_arrays import (
        compare,
        condense,
        correlation_rdm,
        crossnobis_rdm,
        euclidean_rdm,
        expand,
        noise_ceiling,
        partial_spearman,
        squared_euclidean_rdm,
        squared_mahalanobis_rdm,
    )
    from pulvinar.rsa.rdm_files import read_rdms
    from pulvinar.rsa.rdm_regressor import RDMRegressor
    from pulvinar.rsa.response_rdms import RDMSettings, build_rdms

__all__ = [
    "RDMRegressor",
    "RDMSettings",
    "build_rdms",
    "compare",
    "condense",
    "correlation_rdm",
    "crossnobis_rdm",
    "euclidean_rdm",
    "expand",
    "noise_ceiling",
    "partial_spearman",
    "read_rdms",
    "squared_euclidean_rdm",
    "squared_mahalanobis_rdm",
]

_WHERE = {
    "pulvinar.rsa.rdm_files": "read_rdms",
    "pulvinar.rsa.response_rdms": "RDMSettings build_rdms",
    "pulvinar.rsa.rdm_regressor": "RDMRegressor",
    "pulvinar.rsa.numpy_arrays": "compare condense correlation_rdm crossnobis_rdm euclidean_rdm expand noise_ceiling "
    "partial_spearman squared_euclidean_rdm squared_mahalanobis_rdm",
}
_PLACES = {name: f"{module}:{name}" for module, names in _WHERE.items() for name in names.split()}
__getattr__, __dir__ = lazy(__name__, _PLACES)
