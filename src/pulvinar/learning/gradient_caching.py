"""Gradients of a loss over a whole batch, computed part by part (gradient caching, Gao et al. 2021). Exact for every loss.

A contrastive loss needs all rows at once, so that gradients of its parts cannot simply be added up. Here the outputs of all
parts are computed first, without a graph; then the loss and its gradient at the outputs; then each part again, with its share
of that gradient. In memory is the graph of one part; the forward pass is done twice.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Output = TypeVar("Output")


def cached_gradients(
    parts: Sequence[Part],
    forward: Callable[[Part], Output],
    loss: Callable[[Sequence[Output]], Tensor],
    *,
    detached: Callable[[Output], Output],
    tensors: Callable[[Output], Sequence[Tensor]],
    generator: torch.Generator | None = None,
    between: Callable[[], None] | None = None,
) -> Tensor:
    """The loss over all parts; its gradients are in the parameters' `grad`.

    detached: the same numbers as leaves of a new graph. tensors: those through which the loss reaches the parameters, in order.
    generator: what `forward` draws from; the second pass draws the same. between: called before the second pass.
    """
    states, outputs = [], []
    with torch.no_grad():
        for part in parts:
            states.append(generator.get_state() if generator is not None else None)
            outputs.append(forward(part))
    if between is not None:
        between()
    leaves = [detached(output) for output in outputs]
    outputs.clear()
    value = loss(leaves)
    value.backward()
    for part, state, leaf in zip(parts, states, leaves, strict=True):
        if generator is not None and state is not None:
            generator.set_state(state)
        pairs = [
            (again, given.grad.to(again.dtype))
            for again, given in zip(tensors(forward(part)), tensors(leaf), strict=True)
            if again.requires_grad and given.grad is not None
        ]
        torch.autograd.backward([again for again, _ in pairs], [gradient for _, gradient in pairs])
    return value.detach()
