"""A network from one of its stages on: what is tuned where all before it stays as it is, and its features are kept.

The network is traced (torch.fx), the stage's output becomes the input, and what it does not need falls away. The modules are
the network's own, so that training the rest trains the network.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn

from pulvinar.core.errors import InputError

CLOSE = 1e-3  # relative difference between the network and its rest that rounding may explain


class _Tracer(fx.Tracer):
    """Sees the module that is cut at as one piece."""

    def __init__(self, at: str) -> None:
        super().__init__(param_shapes_constant=True)
        self.at = at

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name == self.at or super().is_leaf_module(module, module_qualified_name)


def rest_after(network: nn.Module, stage: str) -> fx.GraphModule:
    """The network behind the output of this module. `InputError` where it cannot be traced or something goes around it."""
    try:
        graph = _Tracer(stage).trace(network)
    except Exception as error:  # whatever the network's own Python does with a traced tensor
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"tuned: this network cannot be cut at '{stage}' ({reason}); use tuned=all or lora") from error
    cut = [node for node in graph.nodes if node.op == "call_module" and node.target == stage]
    if len(cut) != 1:
        raise InputError(f"tuned: '{stage}' runs {len(cut)} times; a network can be cut where a module runs once")
    with graph.inserting_before(next(iter(graph.nodes))):
        kept = graph.placeholder("kept")
    cut[0].replace_all_uses_with(kept)
    _drop_unused(graph)
    around = [node for node in graph.nodes if node.op == "placeholder" and node is not kept]
    if any(node.users for node in around):
        raise InputError(f"tuned: something goes around '{stage}' in this network; name a stage that all passes through")
    for node in around:
        graph.erase_node(node)
    return fx.GraphModule(network, graph)


def _drop_unused(graph: fx.Graph) -> None:
    """Nodes that nothing uses, but for inputs and the output; last first, so that what only they used goes too."""
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)


@torch.no_grad()
def require_same(network: nn.Module, rest: nn.Module, images: Tensor, kept: Tensor) -> None:
    """`InputError` unless the rest gives from the kept features what the network gives from the images."""
    whole = network(images)
    try:
        part = rest(kept)
    except RuntimeError:
        part = None  # the kept maps are not what the module gave (a transformer's tokens lose their class token)
    if part is None or whole.shape != part.shape or bool((whole - part).abs().max() > CLOSE * (1 + whole.abs().max())):
        raise InputError("tuned: what is kept at the cut does not give the network's output; use tuned=all or lora")


def named_parameters_of(rest: nn.Module, network: nn.Module) -> dict[str, Any]:
    """The network's names of the parameters in its rest."""
    own = {id(parameter) for parameter in rest.parameters()}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) in own}
