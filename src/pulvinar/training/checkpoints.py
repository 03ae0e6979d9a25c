"""Checkpoints of our own: one safetensors file with every tensor, and everything else as JSON in its header.

One file, so that a kill leaves the old or the new one, never a mixture. Nothing is pickled.
"""

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pulvinar.storage import atomic_path, reading, require_file, to_jsonable

State = dict[str, Any]


def _split(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value with each tensor replaced by a reference, the tensors collected under their names."""
    if isinstance(value, Tensor):
        name = f"{len(tensors)}{name}"  # the number tells "a/b" from "b" in "a"
        tensors[name] = _own_memory(value.detach().cpu(), tensors)
        return {"@tensor": name}
    if isinstance(value, dict):
        return {str(key): _split(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{name}/{number}", tensors) for number, item in enumerate(value)]
    return to_jsonable(value)


def _own_memory(value: Tensor, others: dict[str, Tensor]) -> Tensor:
    """The tensor as safetensors takes it: contiguous, sharing no memory. Copied only where it is neither, for size."""
    taken = {other.untyped_storage().data_ptr() for other in others.values()}
    whole = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
    return value if whole and value.untyped_storage().data_ptr() not in taken else value.contiguous().clone()


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"@tensor"}:
            return tensors[value["@tensor"]]
        return {key: _join(item, tensors) for key, item in value.items()}
    return [_join(item, tensors) for item in value] if isinstance(value, list) else value


def save(path: str | os.PathLike[str], state: State) -> None:
    """Write nested dicts and lists of tensors, numbers and texts, atomically. Dict keys come back as text."""
    tensors: dict[str, Tensor] = {}
    rest = _split(state, "", tensors)
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"json": json.dumps(rest)})
        except SafetensorError as error:  # a full disk comes as this
            raise OSError(str(error)) from error


def load(path: str | os.PathLike[str]) -> State:
    """Read what `save` wrote; `FileError` when it is missing or damaged."""
    path = require_file(path, "checkpoint")
    with reading(path, "a checkpoint"):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            rest = json.loads(file.metadata()["json"])
        return _join(rest, tensors)


def optimizer_state(optimizer: torch.optim.Optimizer) -> list[State]:
    """Per-parameter state of an optimizer, in the order of its groups."""
    return [dict(optimizer.state[p]) for group in optimizer.param_groups for p in group["params"]]


def restore_optimizer(optimizer: torch.optim.Optimizer, states: list[State]) -> None:
    """Put back what `optimizer_state` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, state in zip(parameters, states, strict=True):
        if state:  # moments lie where the parameter does; a step count on the CPU unless the optimizer is fused
            fused = bool(optimizer.defaults.get("fused"))
            optimizer.state[parameter] = {
                name: value.to(parameter.device) if isinstance(value, Tensor) and (value.ndim or fused) else value
                for name, value in state.items()
            }
