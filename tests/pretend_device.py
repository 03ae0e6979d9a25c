"""A second device that is not there: its tensors lie in the CPU's memory, but must not meet those of the CPU, as on a GPU.

What CUDA refuses is refused: two devices in one operation, numpy of what lies there, random numbers from another device's
generator. What CUDA takes is taken: a CPU tensor without axes, CPU indices into what lies there, copies.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
MIXING = ("aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::_copy_from_and_resize")
INDEXING = ("aten::index.", "aten::index_put", "aten::_index_put_impl_")


WORK: Counter[tuple[str, str]] = Counter()  # multiply-adds of products and convolutions, by device and file of pulvinar


class _Module:
    """What torch asks of a device's module."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def is_bf16_supported(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def manual_seed_all(self, seed: int) -> None:
        """The CPU's generator is seeded beside it."""


class There(Tensor):
    """A tensor on the pretended device, around one on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "There":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.inner!r})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:  # type: ignore[override]
        return _tensor(data, dtype=dtype or self.dtype).to(self.device)

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: "There") -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, There) else value


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation, on the pretended device where its tensors or its `device` are there."""
    name = func._schema.name + "." + func._schema.overload_name
    values = tree_flatten((args, kwargs))[0]
    there = any(isinstance(value, There) for value in values)
    here = [value for value in values if isinstance(value, Tensor) and not isinstance(value, There) and value.ndim]
    if there and here and not name.startswith(MIXING):
        indices = args[1] if name.startswith(INDEXING) else ()
        if not (isinstance(args[0], There) and all(any(one is index for index in indices) for one in here)):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two, {NAME} and cpu: {name}")
    made_there = _is_there(kwargs["device"]) if kwargs.get("device") is not None else there
    generator = kwargs.get("generator")
    if generator is None:
        generator = next((value for value in values if isinstance(value, _Generator)), None)
    if generator is not None and made_there != (generator._cdata in _generators_there):
        raise RuntimeError(f"Expected a '{NAME if made_there else 'cpu'}' device type for generator: {name}")
    changed = {key: torch.device("cpu") if key == "device" and value is not None else value for key, value in kwargs.items()}
    inner_args, inner_kwargs = tree_map(_inner, (args, changed))
    if made_there and name.startswith("aten::_to_copy") and not there:
        inner_kwargs.pop("non_blocking", None)
    found = func(*inner_args, **inner_kwargs)
    if work := _multiply_adds(name, inner_args, found):
        WORK[NAME if made_there else "cpu", _asked_by()] += work
    if not made_there:
        return found
    wrapped = tree_map(lambda value: There(value) if type(value) is Tensor else value, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped


def _multiply_adds(name: str, args: Any, found: Any) -> int:
    if name.startswith(("aten::mm", "aten::bmm")):
        return found.numel() * args[0].shape[-1]
    if name.startswith(("aten::addmm", "aten::addmm_", "aten::baddbmm")):
        return found.numel() * args[1].shape[-1]
    if name.startswith("aten::convolution.") or name.startswith("aten::convolution_overrideable."):
        return found.numel() * args[1][0].numel()
    if name.startswith(("aten::linalg_eigh", "aten::_linalg_eigh", "aten::_linalg_svd")):
        return args[0].numel() * args[0].shape[-1]
    return 0


def _asked_by() -> str:
    """The file of pulvinar that this operation is done for; 'backward' in the threads of autograd."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        _, found, name = frame.f_code.co_filename.partition("/src/pulvinar/")
        if found:
            return name
    return "backward"


class PretendedDevice(TorchDispatchMode):
    """Where tensors are made on the device, and moved to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


_Generator, _tensor = torch.Generator, torch.tensor


def _tensor_anywhere(data: Any, *, device: Any = None, **options: Any) -> Tensor:
    """`torch.tensor`, whose way to a device no mode sees."""
    return _tensor(data, **options).to(device) if _is_there(device) else _tensor(data, device=device, **options)


class _EitherGenerator(type(_Generator)):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _Generator)


class GeneratorThere(_Generator):
    """A generator of the pretended device."""

    @property
    def device(self) -> torch.device:
        return torch.device(NAME, 0)


class EitherGenerator(_Generator, metaclass=_EitherGenerator):
    """`torch.Generator` for the time being: one of the CPU, or of the pretended device."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        if not _is_there(device):
            return _Generator()
        made = GeneratorThere()
        _generators_there[made._cdata] = made  # dispatched operations get another object of the same generator
        return made


_generators_there: dict[int, GeneratorThere] = {}
_registered: list[str] = []


def register() -> None:
    """Tell torch its name, once in a process."""
    if not _registered:
        import torch._dynamo  # noqa: F401 (what modes import at their first operation; it wants torch.Generator as it is)

        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        _registered.append(NAME)


@contextmanager
def pretended() -> Iterator[torch.device]:
    """The device, while the block runs."""
    register()
    torch.tensor = _tensor_anywhere  # type: ignore[assignment]
    torch.Generator = EitherGenerator  # type: ignore[misc,assignment]
    try:
        with PretendedDevice():
            yield torch.device(NAME, 0)
    finally:
        _generators_there.clear()
        torch.tensor = _tensor
        torch.Generator = _Generator  # type: ignore[misc]
