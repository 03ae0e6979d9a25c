"""One network, or several whose stages stand side by side in one embedding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pulvinar.core import devices
from pulvinar.core.errors import ConfigError
from pulvinar.data.stimuli import Stimuli
from pulvinar.networks.staged import StagedNetwork, extract, load_network
from pulvinar.rsa.aggregation_settings import AggregationConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class SideBySide:
    """Frozen networks. Of several, a stage is named NETWORK/STAGE, and each network gets the pictures at its own size."""

    networks: tuple[StagedNetwork, ...]

    @property
    def only(self) -> StagedNetwork:
        """The network where there is one; `ConfigError` for several, which are not run in the loop."""
        if len(self.networks) > 1:
            raise ConfigError(f"network: {self.name}: with train=all or crops=run_network one network is trained or run")
        return self.networks[0]

    @property
    def name(self) -> str:
        """Names of all networks."""
        return " + ".join(network.name for network in self.networks)

    @property
    def stages(self) -> tuple[str, ...]:
        """Of all networks, one after the other."""
        return tuple(self._stage(network, stage) for network in self.networks for stage in network.stages)

    def _stage(self, network: StagedNetwork, stage: str) -> str:
        return stage if len(self.networks) == 1 else f"{network.name.rpartition(':')[2]}/{stage}"

    def checksum(self) -> str:
        """Of the weights of all networks."""
        return ",".join(network.checksum() for network in self.networks)

    def maps(self, images: Sequence[np.ndarray] | Stimuli, *, pool: int | None) -> dict[str, Tensor]:
        """Stage -> float32 (image, channel, height, width), on the CPU."""
        return {
            self._stage(network, stage): torch.from_numpy(values)
            for network in self.networks
            for stage, values in extract(network, images, pool=pool).items()
        }


def open_networks(config: AggregationConfig, weights: str | None) -> SideBySide:
    """The frozen networks of the settings, on the device. weights: one for all (random, 'default'), or as many as networks."""
    names = [name.strip() for name in config.network.split(",")]
    files: list[str | None] = [None] if weights is None else [name.strip() for name in weights.split(",")]
    files = files * len(names) if len(files) == 1 else files
    if len(files) != len(names):
        raise ConfigError(
            f"weights: {len(files)} came for {len(names)} networks ({config.network}); give one for all or one each"
        )
    if len(names) > 1 and not isinstance(config.stages, int):
        raise ConfigError("stages: names are of one network; with several give a number, of each")
    if len(set(names)) < len(names):
        raise ConfigError(f"network: {config.network}: a network stands twice")
    return SideBySide(
        networks=tuple(
            load_network(
                name,
                weights=file,
                stages=config.stages,
                image_size=config.image_size,
                mean=config.mean or None,
                std=config.std or None,
                seed=config.seed,
            )
            .freeze()
            .to("cpu" if config.runs_network else devices.current())
            for name, file in zip(names, files, strict=True)
        )
    )
