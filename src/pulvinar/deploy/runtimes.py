"""One network in the runtimes that a machine has, each behind the same three calls.

torch eager    the network as it is, channels last
torch packed   the same with weights packed once (deploy/packed.py); dynamic networks are of this kind
torch compile  torch.compile with freezing, one graph for a size of batch: the kept part with the gates, in one piece. Images
               that miss go through the eager network by themselves, since a branch would cut the graph
onnxruntime    the graph of deploy/onnx_graph.py; missing parts for the missed rows
openvino f32   the same with missing parts for the whole batch, compiled for one size of batch, in float32
openvino bf16  the same in bfloat16, which OpenVINO would take by itself where the machine computes in it

A runtime that cannot be had raises `UnavailableError` with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core.errors import MissingDependencyError
from pulvinar.data.pixels import require_normalised, require_unit_range
from pulvinar.deploy.choices import ChoiceNetwork
from pulvinar.deploy.compact import CompactNetwork
from pulvinar.deploy.dynamic import DynamicNetwork

RUNTIMES = ("torch eager", "torch packed", "torch compile", "onnxruntime", "openvino f32", "openvino bf16")
INSTALL = "pip install 'pulvinar[deploy]'"


class UnavailableError(MissingDependencyError):
    """A runtime that this machine or installation has not got."""


@dataclass(frozen=True)
class Runner:
    """A network ready to run on batches of one size.

    prepare: normalised images (image, 3, size, size) -> what `run` takes; not timed. run: what is timed. read: of its result,
    the features (image, feature) and which gates were open (image, channel of all gates), or of levels and routes the options
    taken (image, choice); None where it does not say.
    """

    prepare: Callable[[Tensor], Any]
    run: Callable[[Any], Any]
    read: Callable[[Any], tuple[np.ndarray, np.ndarray | None]]


def make_runner(runtime: str, network: CompactNetwork | DynamicNetwork | ChoiceNetwork, *, batch: int, threads: int) -> Runner:
    """The network in a runtime, for batches of this size on so many threads; `UnavailableError` with the reason."""
    if isinstance(network, DynamicNetwork):
        return _packed(network)
    if isinstance(network, ChoiceNetwork) and library(runtime) == "torch":
        return _choosing(network, runtime)
    if isinstance(network, CompactNetwork):
        if runtime == "torch eager":
            return _eager(network)
        if runtime == "torch packed":
            return _packed(DynamicNetwork(network))
        if runtime == "torch compile":
            return _compiled(network, batch)
    for name in (library(runtime), "onnx"):
        if find_spec(name) is None:
            raise UnavailableError(f"{name} is not installed: {INSTALL}")
    from pulvinar.deploy.onnx_files import choice_model, onnx_model

    written_for: Any = library(runtime)
    if isinstance(network, ChoiceNetwork):
        content = choice_model(network, one_image=batch == 1).SerializeToString()
    else:
        content = onnx_model(network, runtime=written_for).SerializeToString()
    return onnx_runner(
        runtime, content, shape=(batch, 3, network.size, network.size), threads=threads, prepare=_pixels(network)
    )


def onnx_runner(
    runtime: str, content: bytes, *, shape: tuple[int, ...], threads: int, prepare: Callable[[Tensor], np.ndarray]
) -> Runner:
    """A serialised ONNX model with the input `images` in a runtime, for inputs of this shape."""
    if runtime == "onnxruntime":
        return _onnxruntime(content, threads, prepare)
    return _openvino(content, shape, threads, runtime.removeprefix("openvino "), prepare)


def library(runtime: str) -> str:
    """The package behind a runtime."""
    return runtime.partition(" ")[0]


def runtime_version(runtime: str) -> str:
    """The version of the library behind a runtime; empty where it is missing."""
    return version(library(runtime)) if find_spec(library(runtime)) else ""


def _channels_last(images: Tensor) -> Tensor:
    require_normalised(images, "images")
    return images.contiguous(memory_format=torch.channels_last)


def _gates(logits: tuple[Tensor, ...] | list[Tensor]) -> np.ndarray | None:
    return torch.cat(list(logits), 1).numpy(force=True) if len(logits) else None


def _eager(network: CompactNetwork) -> Runner:
    inner = cast(CompactNetwork, _copied(network))

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return inner(images), images

    def read(result: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray | None]:
        logits = inner.inspect(result[1]).logits
        return result[0].numpy(), _gates([part >= 0 for part in logits])

    return Runner(_channels_last, run, read)


def _choosing(network: ChoiceNetwork, runtime: str) -> Runner:
    if runtime != "torch eager":
        raise UnavailableError("levels and routes run in torch eager or from ONNX files")

    def run(images: Tensor) -> tuple[Tensor, np.ndarray]:
        with torch.no_grad():
            found = network.inspect(images)
        return found.features, torch.stack(found.choices, 1).numpy()

    return Runner(_channels_last, run, lambda result: (result[0].numpy(), result[1]))


def _copied(network: CompactNetwork) -> nn.Module:
    """The same network with channels-last weights."""
    made = network.with_kept(network.kept, network.form) if network.kept is not None else network.dense()
    made.fallback = network.fallback
    return made.to(memory_format=torch.channels_last)


def _packed(network: DynamicNetwork) -> Runner:
    def read(result: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray | None]:
        return result[0].numpy(), _gates(network.gates(result[1]))

    return Runner(_channels_last, lambda images: (network(images), images), read)


class _Kept(nn.Module):
    """The kept part of a network in one graph: features, whether an image missed, logits of all gates."""

    def __init__(self, network: CompactNetwork) -> None:
        super().__init__()
        self.network = network.no_fallback()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the graph gives."""
        found = self.network.inspect(images)
        if not found.logits:
            return (found.features,)
        return found.features, torch.stack(found.misses).any(0), torch.cat(found.logits, 1)


def _compiled(network: CompactNetwork, batch: int) -> Runner:
    import torch._inductor.config as inductor

    whole = cast(CompactNetwork, _copied(network))
    kept = _Kept(cast(CompactNetwork, _copied(network))).eval()
    compiled = torch.compile(kept, dynamic=False, fullgraph=True)
    example = _channels_last(torch.zeros(batch, 3, network.size, network.size))
    try:
        with torch.no_grad(), inductor.patch(freezing=True), torch._dynamo.config.patch(recompile_limit=64):
            compiled(example)
    except Exception as error:  # no compiler, or whatever it says
        reason = " ".join(str(error).split())[:200]
        raise UnavailableError(f"torch.compile failed here: {reason}") from error

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            found = compiled(images)
            if len(found) > 1 and bool(found[1].any()):
                rows = found[1].nonzero()[:, 0]
                return (found[0].index_copy(0, rows, whole(images[rows])), *found[1:])
        return cast(tuple[Tensor, ...], found)

    def read(result: tuple[Tensor, ...]) -> tuple[np.ndarray, np.ndarray | None]:
        return result[0].numpy(), None  # behind a miss its logits are those of a wrong path

    return Runner(_channels_last, run, read)


def _pixels(network: CompactNetwork | ChoiceNetwork) -> Callable[[Tensor], np.ndarray]:
    """Undo the normalisation, which is inside ONNX graphs."""
    mean, sd = (torch.tensor(values)[:, None, None] for values in (network.mean, network.sd))

    def prepared(images: Tensor) -> np.ndarray:
        pixels = (images * sd + mean).numpy()
        require_unit_range(pixels, "images, their normalisation undone")
        return np.ascontiguousarray(pixels)

    return prepared


def _read(result: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    logits = result.get("logits")
    return result["features"], result.get("choices") if logits is None else logits >= 0


def _onnxruntime(content: bytes, threads: int, prepare: Callable[[Tensor], np.ndarray]) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads must not slow down the next one timed
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def read(result: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        return _read(dict(zip(names, result, strict=True)))

    return Runner(prepare, lambda pixels: session.run(names, {"images": pixels}), read)


def _openvino(
    content: bytes, shape: tuple[int, ...], threads: int, precision: str, prepare: Callable[[Tensor], np.ndarray]
) -> Runner:
    import openvino

    core = openvino.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        raise UnavailableError("this processor does not compute in bfloat16")
    model = core.read_model(content)
    model.reshape(list(shape))
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def read(result: Any) -> tuple[np.ndarray, np.ndarray | None]:
        return _read({output.any_name: values.copy() for output, values in result.items()})

    return Runner(prepare, lambda pixels: request.infer([pixels], share_inputs=True, share_outputs=True), read)
