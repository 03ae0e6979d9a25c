"""scikit-learn faces of the methods. Importing this package loads none of them: a name is imported when it is asked for.

VoxelSelector    keeps the voxels that a cross-fitted linear readout of labels or an embedding uses
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulvinar.estimators.voxel_selector import VoxelSelector

_MODULES = {"VoxelSelector": "voxel_selector"}

__all__ = ["VoxelSelector"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
