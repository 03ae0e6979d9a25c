"""Checkpoints of our own: one safetensors file with every tensor, and everything else as JSON in its header.

One file, so that a kill leaves the old or the new one, never a mixture. Nothing is pickled. The header also has the SHA-256
of all that is in the file, which is compared when it is read (files of versions that wrote none are read without).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pulvinar.core import checksums
from pulvinar.core.errors import FileError
from pulvinar.core.storage import atomic_path, reading, reads, require_file, to_jsonable

State = dict[str, Any]
CHECKSUM = "sha256"


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
        write_tensors(temporary, tensors, {"json": json.dumps(rest)})


@reads("a checkpoint")
def load(path: str | os.PathLike[str]) -> State:
    """Read what `save` wrote; `FileError` when it is missing or damaged."""
    path = require_file(path, "checkpoint")
    tensors, metadata = read_tensors(path, "a checkpoint")
    with reading(path, "a checkpoint"):
        return _join(json.loads(metadata["json"]), tensors)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file of contiguous tensors on the CPU, with texts and their common checksum in its header."""
    try:
        save_file(dict(tensors), path, metadata={**metadata, CHECKSUM: _checksum(tensors, metadata)})
    except SafetensorError as error:  # a full disk comes as this
        raise OSError(str(error)) from error


def read_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file; `FileError` when it is damaged, as the checksum in its header shows too."""
    with reading(path, what), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = dict(file.metadata() or {})
    expected = metadata.pop(CHECKSUM, None)

    def compare() -> None:
        if _checksum(tensors, metadata) != expected:
            raise FileError(
                f"{path}: cannot be read as {what}: damaged, its content does not fit the SHA-256 in its header. "
                "Copy it again from where it came, or make it again"
            )

    if expected is not None:
        checksums.once(path, expected, compare)
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over names, types, shapes and values of the tensors, and over the texts."""
    digest = hashlib.sha256()
    for name, text in sorted(metadata.items()):
        digest.update(f"{name!r} {text!r}\n".encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name!r} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
