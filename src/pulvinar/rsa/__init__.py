"""Representational similarity analysis: dissimilarity matrices, comparison, ceilings. Arrays in, arrays out.

Arrays are numpy's, or what numpy makes arrays of: lists, tables; of tensors tensors come back, with their gradients. A name is
imported when it is asked for. Matrices of activity patterns: correlation_rdm, euclidean_rdm, squared_euclidean_rdm,
squared_mahalanobis_rdm, crossnobis_rdm; condense and expand turn square ones (image, image) into pairs and back. Compared by
compare and partial_spearman, with noise_ceiling; made from the responses of an experiment by build_rdms (RDMSettings), read
from files by read_rdms; RDMRegressor scales stages to measured ones.
"""

from typing import TYPE_CHECKING, Any

from pulvinar.core.lazy import lazy

if TYPE_CHECKING:
    from pulvinar.rsa.rdm_files import read_rdms
    from pulvinar.rsa.rdm_regressor import RDMRegressor
    from pulvinar.rsa.response_rdms import RDMSettings, build_rdms
    from pulvinar.scores.rdm import (
        condense,
        correlation_rdm,
        crossnobis_rdm,
        euclidean_rdm,
        expand,
        squared_euclidean_rdm,
        squared_mahalanobis_rdm,
    )
    from pulvinar.scores.rdm_ceiling import noise_ceiling
    from pulvinar.scores.rdm_comparison import compare, partial_spearman

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
    "pulvinar.scores.rdm": "condense correlation_rdm crossnobis_rdm euclidean_rdm expand squared_euclidean_rdm "
    "squared_mahalanobis_rdm",
    "pulvinar.scores.rdm_ceiling": "noise_ceiling",
    "pulvinar.scores.rdm_comparison": "compare partial_spearman",
}
_PLACES = {name: f"{module}:{name}" for module, names in _WHERE.items() for name in names.split()}
_found, __dir__ = lazy(__name__, _PLACES)


def __getattr__(name: str) -> Any:
    found = _found(name)
    if not _PLACES[name].startswith("pulvinar.scores"):
        return found
    from pulvinar.scores.array_likes import takes_array_likes

    return takes_array_likes(found, __name__)
