"""pulvinar learns what to keep in models that connect images and brains.

    import pulvinar

    data = pulvinar.open_data("nsd:DIR")
    run = pulvinar.fit("troi", data, n_voxels=3000, out="runs/troi")
    run.evaluate().table  # a pandas DataFrame; run.masks["subj01"] is an image for nibabel or nilearn

Importing it loads nothing else: a name is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from pulvinar.core.lazy import lazy as _lazy

if TYPE_CHECKING:
    from pulvinar import estimators, metrics, plot, rsa
    from pulvinar.app.backbones import load_backbone
    from pulvinar.app.python import config, fit, open_data
    from pulvinar.app.registry import list_datasets, list_methods
    from pulvinar.app.run import Evaluation, Masks, Run, load
    from pulvinar.core.progress import show as show_progress
    from pulvinar.selection import selectors

__all__ = [
    "Evaluation",
    "Masks",
    "Run",
    "config",
    "estimators",
    "fit",
    "list_datasets",
    "list_methods",
    "load",
    "load_backbone",
    "metrics",
    "open_data",
    "plot",
    "rsa",
    "selectors",
    "show_progress",
]

_PLACES = {
    **{name: f"pulvinar.{name}" for name in ("estimators", "metrics", "plot", "rsa")},
    **{name: f"pulvinar.app.python:{name}" for name in ("config", "fit", "open_data")},
    **{name: f"pulvinar.app.registry:{name}" for name in ("list_datasets", "list_methods")},
    **{name: f"pulvinar.app.run:{name}" for name in ("Evaluation", "Masks", "Run", "load")},
    "load_backbone": "pulvinar.app.backbones:load_backbone",
    "selectors": "pulvinar.selection.selectors",
    "show_progress": "pulvinar.core.progress:show",
}
__getattr__, __dir__ = _lazy(__name__, _PLACES)
