"""The models that an encoding run holds, as sources of features and as open backbones.

A run of `ridge_encoding` has one backbone (or embeddings), named after its folder. A run that tuned backbones has 'untuned',
and one per subject it was tuned on, or 'pooled'.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulvinar.core.errors import InputError
from pulvinar.encoding.fit import UNTUNED
from pulvinar.encoding.layer_features import BackboneSource, FeatureSource, LayerSource
from pulvinar.encoding.settings import POOLED
from pulvinar.encoding.tuned_backbones import load_tuned
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.backbones import Backbone, load_backbone


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A backbone of a run. owner: the subject it was tuned on, if it was one. pool: as its features are pooled."""

    name: str
    run: RunFolder
    source: FeatureSource
    owner: str | None = None
    tag: str | None = None
    pool: int | None = None

    def backbone(self) -> Backbone:
        """The network itself; `InputError` where the run's features are embeddings."""
        if isinstance(self.source, BackboneSource):
            return self.source.backbone
        if not isinstance(self.source, LayerSource) or self.source.backbone is None:
            raise InputError(f"{self.run.path}: its features are embeddings; a run with a backbone is needed")
        given = self.source
        return load_backbone(
            str(given.backbone), weights=given.weights, stages=given.stages, image_size=given.image_size, seed=given.seed
        )


def tags_of(run: RunFolder) -> list[str]:
    """Names of the backbones that a run keeps: 'untuned' first, then subjects or 'pooled'; none of a ridge run."""
    found = sorted(path.stem.removeprefix("backbone-") for path in (run.path / "checkpoints").glob("backbone-*.safetensors"))
    return sorted(found, key=lambda tag: tag != UNTUNED)


def models_of(run: RunFolder, config: Any) -> dict[str, Model]:
    """Every model of a finished encoding run by name (see the module). config: its settings.

    Raises `InputError` for an unfinished run, and one that keeps no features at all.
    """
    if not run.finished or run.facts.get("topic") != "encoding":
        raise InputError(f"{run.path}: a finished encoding run is needed; this is a {run.facts['status']} {run.method}")
    name = Path(run.path).resolve().name
    tags = tags_of(run)
    if not tags:
        source = config.network() if config.backbone is not None else LayerSource(features=tuple(run.facts["layers"]))
        return {name: Model(name=name, run=run, source=source, pool=config.pool)}
    found = {}
    for tag in tags:
        source = BackboneSource(backbone=load_tuned(run, tag), pool=config.pool)
        owner = None if tag in (UNTUNED, POOLED) else tag
        found[tag] = Model(name=tag, run=run, source=source, owner=owner, tag=tag, pool=config.pool)
    return found
