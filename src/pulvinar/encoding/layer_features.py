"""Layers of features for images: embeddings that an experiment holds, or stages of a network (kept in the feature cache)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pulvinar.core import devices
from pulvinar.core.errors import InputError
from pulvinar.data.feature_tables import feature_values
from pulvinar.data.stimuli import Stimuli


class FeatureSource(Protocol):
    """Anything that gives layers of features, such as a `LayerSource`."""

    def of(self, stimuli: Stimuli, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Layer -> features (image, ...) of these rows of the stimuli."""


@dataclass(frozen=True, kw_only=True)
class LayerSource:
    """Where layers come from: `features`, names of embeddings; or a network, see `networks.staged.load_network`."""

    features: tuple[str, ...] = ()
    network: str | None = None
    weights: str | None = None
    stages: tuple[str, ...] | int | None = None
    image_size: int | None = None
    pool: int | None = None
    seed: int = 0

    def of(self, stimuli: Stimuli, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Layer -> features (image, ...) of these rows of the stimuli; a network's as read-only memory maps."""
        if self.network is None:
            return {name: np.asarray(feature_values(stimuli, name)[rows]) for name in self.features}
        if stimuli.read_image is None:
            raise InputError(f"network={self.network}: needs images, and these stimuli came without")
        from pulvinar.networks.staged import load_network

        network = load_network(
            self.network, weights=self.weights, stages=self.stages, image_size=self.image_size, seed=self.seed
        )
        return network_layers(network, stimuli, rows, pool=self.pool)


def network_layers(network: Any, stimuli: Stimuli, rows: np.ndarray, *, pool: int | None) -> dict[str, np.ndarray]:
    """Stage of a `networks.staged.StagedNetwork` -> features (image, ...) of these rows, read-only memory maps of the cache."""
    from pulvinar.encoding.feature_cache import cached_features

    chosen = Stimuli(
        ids=[stimuli.ids[int(row)] for row in rows],
        sources=[stimuli.sources[int(row)] for row in rows],
        read_image=lambda place: stimuli.image(int(rows[place])),
    )
    return dict(cached_features(network.to(devices.current()), chosen, pool=pool))


@dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """Layers of a network that is already open."""

    network: Any
    pool: int | None = None

    def of(self, stimuli: Stimuli, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Layer -> features (image, ...) of these rows of the stimuli."""
        return network_layers(self.network, stimuli, rows, pool=self.pool)


class LayerFeatures:
    """Layers of some images of an experiment, computed once for all of them."""

    def __init__(self, source: FeatureSource, stimuli: Stimuli, ids: Sequence[str]) -> None:
        self.stimuli = stimuli
        rows = np.unique(stimuli.rows(ids))
        self.place = {int(row): place for place, row in enumerate(rows)}
        self.layers = source.of(stimuli, rows)

    def of(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Layer -> features (image, ...) of these images, in order."""
        places = [self.place[int(row)] for row in self.stimuli.rows(ids)]
        return {name: np.asarray(values[places]) for name, values in self.layers.items()}
