"""A finished backbone in its run folder: the checkpoint `backbone`, with all that is needed to build the network again.

So that one method can read another's run (a distilled student its teacher's, a compaction its network's) without importing it.
"""

from dataclasses import asdict, dataclass
from typing import cast

from torch import nn

from pulvinar.core.errors import FileError, InputError
from pulvinar.learning.checkpoints import State
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import GateModule
from pulvinar.networks.resnet_shape import shape_of, with_tuples

CHECKPOINT = "backbone"


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A network in evaluation mode, on the CPU, and the views it was trained on (for their normalisation)."""

    network: GatedResNet
    views: ViewSettings


def save_backbone(run: RunFolder, network: GatedResNet, views: ViewSettings) -> None:
    """Write the network as the checkpoint `backbone` of the run."""
    run.save(network_state(network, views), name=CHECKPOINT)


def network_state(network: GatedResNet, views: ViewSettings) -> State:
    """All that `network_of` needs."""
    biases = {module.initial_bias for module in network.modules() if isinstance(module, GateModule)}
    return {
        "weights": {name: value.cpu() for name, value in network.state_dict().items()},
        "shape": asdict(network.shape),
        "size": network.size,
        "passes": list(network.passes),
        "separate_norms": "blocks" if "shared" in cast(nn.ModuleDict, network.stem.norms) else "all",
        "gate_bias": biases.pop() if biases else None,
        "temperature": network.temperature,
        "views": asdict(views),
    }


def network_of(state: State) -> Backbone:
    """The network of what `network_state` gave, in evaluation mode."""
    network = GatedResNet(
        shape_of(state["shape"]),
        size=state["size"],
        passes=tuple(state["passes"]),
        separate_norms=state["separate_norms"],
        gate_bias=state["gate_bias"],
        temperature=state["temperature"],
    )
    network.load_state_dict(state["weights"])
    return Backbone(network=network.eval(), views=ViewSettings(**with_tuples(state["views"])))


def load_backbone(run: RunFolder) -> Backbone:
    """The network of a finished run; `InputError` if it has not finished or keeps no backbone, `FileError` if it is damaged."""
    if not run.finished:
        raise InputError(f"{run.path}: this run of {run.method} has not finished; a finished one is needed")
    state = run.read(CHECKPOINT)
    if state is None:
        raise InputError(f"{run.path}: a run of {run.method} keeps no backbone; give one of a self-supervised method")
    try:
        return network_of(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise FileError(f"{run.path}/checkpoints/{CHECKPOINT}.safetensors: not a backbone of this version: {error}") from error
