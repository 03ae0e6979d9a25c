"""The models that an encoding run holds, as sources of features and as open networks.

A run of `ridge_encoding` has one network (or embeddings), named after its folder. A run that tuned networks has 'untuned',
and one per subject it was tuned on, or 'pooled'.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulvinar.core.errors import InputError
from pulvinar.encoding.fit import UNTUNED
from pulvinar.encoding.layer_features import FeatureSource, LayerSource, NetworkSource
from pulvinar.encoding.settings import POOLED
from pulvinar.encoding.tuned_networks import load_tuned, tuned_tags
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.staged import StagedNetwork, load_network


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A network of a run. owner: the subject it was tuned on, if it was one. pool: as its features are pooled."""

    name: str
    run: RunFolder
    source: FeatureSource
    owner: str | None = None
    tag: str | None = None
    pool: int | None = None

    def network(self) -> StagedNetwork:
        """The network itself; `InputError` where the run's features are embeddings."""
        if isinstance(self.source, NetworkSource):
            return self.source.network
        if not isinstance(self.source, LayerSource) or self.source.network is None:
            raise InputError(f"{self.run.path}: its features are embeddings; a run with a network is needed")
        given = self.source
        return load_network(
            str(given.network), weights=given.weights, stages=given.stages, image_size=given.image_size, seed=given.seed
        )


def tags_of(run: RunFolder) -> list[str]:
    """Names of the networks that a run keeps: 'untuned' first, then subjects or 'pooled'; none of a ridge run."""
    found = tuned_tags(run)
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
        source = config.layer_source() if config.network is not None else LayerSource(features=tuple(run.facts["layers"]))
        return {name: Model(name=name, run=run, source=source, pool=config.pool)}
    found = {}
    for tag in tags:
        source = NetworkSource(network=load_tuned(run, tag), pool=config.pool)
        owner = None if tag in (UNTUNED, POOLED) else tag
        found[tag] = Model(name=tag, run=run, source=source, owner=owner, tag=tag, pool=config.pool)
    return found
