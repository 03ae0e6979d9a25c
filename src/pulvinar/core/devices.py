"""Where tensors are computed: the one setting of it, and the device that it means here.

`with using("cuda"):` holds while a fit, an evaluation or a prediction runs; whatever makes tensors or moves a network in it
asks `current()`. Randomness is drawn on the CPU everywhere and moved, so that a seed means the same on every device.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulvinar.core.config import setting
from pulvinar.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

NAMES = "auto, cpu, cuda, cuda:0 and so on, or mps"
_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_CURRENT: ContextVar[str] = ContextVar("device", default="auto")


def device_name(text: str) -> str:
    """The text, if it names a device; `ConfigError` otherwise. Whether the device is here, `find` says."""
    if _NAME.fullmatch(text) is None:
        raise ConfigError(f"a device is {NAMES}, not '{text}'")
    return text


@dataclass(frozen=True, kw_only=True)
class DeviceSetting:
    """The setting that every method has."""

    device: str = setting(
        "auto",
        f"where it is computed: {NAMES}; auto: a CUDA GPU where there is one, else the CPU",
        reads=device_name,
    )


def available() -> list[str]:
    """Names of the devices that this machine has, the CPU first; torch is asked."""
    import torch

    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def find(name: str) -> "torch.device":
    """The device of this name; `ConfigError` says which there are where it is not here."""
    import torch

    devices = available()
    if name == "auto":
        return torch.device("cuda" if "cuda:0" in devices else "cpu")
    if device_name(name) not in devices and not (name == "cuda" and "cuda:0" in devices):
        raise ConfigError(
            f"device={name}: not on this machine; there {'is' if len(devices) == 1 else 'are'} {', '.join(devices)}"
        )
    return torch.device(name)


@contextmanager
def using(name: str) -> Iterator["torch.device"]:
    """Inside, `current()` is this device. `ConfigError` where it is not here, and where it lacks a type that is needed."""
    device = find(name)
    token = _CURRENT.set(name)
    try:
        yield device
    except TypeError as error:
        if device.type == "mps" and "float64" in str(error):
            raise ConfigError(f"device={name}: it has no float64, which this needs; use device=cpu") from error
        raise
    finally:
        _CURRENT.reset(token)


def current() -> "torch.device":
    """The device of the innermost `using`; outside, a CUDA GPU where there is one, else the CPU."""
    return find(_CURRENT.get())


def described() -> str:
    """The current device in words, for the record beside a result: 'cpu', 'cuda (NVIDIA H200)'."""
    import torch

    device = current()
    return f"{device.type} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
