"""Exports of a network for use: ONNX with and without fallback, the masked reference, int8, and a program of torch.export.

All take the same input, `images` (batch, 3, size, size) float32 in [0, 1]; the normalisation is inside (deploy/onnx_graph.py).
An image that does not lie in [0, 1] gets features of NaN from the files, and is refused by `run_with`.
int8 is made by ONNX Runtime's own static quantiser from calibration images; nobody promises that it equals anything, so how far
it is off on those images is measured and returned.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulvinar.core.errors import InputError, MissingDependencyError
from pulvinar.core.progress import log
from pulvinar.core.storage import atomic_path, refuse_existing, to_jsonable, write_bytes
from pulvinar.data.pixels import TOLERANCE, require_unit_range
from pulvinar.deploy.choices import ChoiceNetwork
from pulvinar.deploy.compact import CompactNetwork

Runtime = Literal["onnxruntime", "openvino"]
MISSING = {"onnxruntime": "rows", "openvino": "batch"}  # how each computes dropped channels (deploy/onnx_graph.py)
N_QUANTISATION_IMAGES = 256
OPSET = 18  # of every file
INSTALL = "pip install 'pulvinar[deploy]'"


def require_onnx() -> None:
    """`MissingDependencyError` where onnx is not installed."""
    if find_spec("onnx") is None:
        raise MissingDependencyError(f"ONNX files need the package onnx: {INSTALL}")


def onnx_model(
    network: CompactNetwork,
    *,
    runtime: Runtime = "onnxruntime",
    facts: dict[str, Any] | None = None,
    any_size: bool = False,
) -> Any:
    """The network as an ONNX model (an `onnx.ModelProto`), with what it is in its metadata.

    runtime: where it is to run; ONNX Runtime computes missing parts on the missed rows, OpenVINO on the whole batch. A network
    whose `fallback` is off gets none, and says so with its miss rate. any_size: height and width of the images are free.
    """
    require_onnx()
    if network.stem.weight.dtype != torch.float32:
        raise InputError(f"network: float32 weights are needed for an export, these are {network.stem.weight.dtype}")
    from pulvinar.deploy.onnx_graph import graph_of

    missing: Any = MISSING[runtime] if network.fallback else "none"
    model = graph_of(network, missing=missing, opset=OPSET, any_size=any_size)
    what = f"{network.form} {network.shape.network}: images in [0, 1] in, pooled features out"
    return described(model, f"{what}; written by pulvinar deploy export", _metadata(network, runtime, facts))


def choice_model(network: ChoiceNetwork, *, one_image: bool = False, facts: dict[str, Any] | None = None) -> Any:
    """A network of levels or routes as an ONNX model, for any number of images or for one at a time (faster then)."""
    require_onnx()
    if network.stem.weight.dtype != torch.float32:
        raise InputError(f"network: float32 weights are needed for an export, these are {network.stem.weight.dtype}")
    from pulvinar.deploy.choice_graph import graph_of_choices

    model = graph_of_choices(network, batch="one" if one_image else "any", opset=OPSET)
    what = f"{network.form} of {network.shape.network}: images in [0, 1] in, pooled features out"
    metadata = _said_of_every(network.form, "onnxruntime, openvino", network.macs, facts) | {
        "gate_form": network.shape.gate_form,
        "batch": "1" if one_image else "any",
    }
    return described(model, f"{what}; written by pulvinar deploy export", metadata)


def export_choices(
    network: ChoiceNetwork,
    path: str | os.PathLike[str],
    *,
    runtime: Runtime = "onnxruntime",
    one_image: bool = False,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the ONNX file of levels or routes, after the runtime, if it is installed, has run it; what was written."""
    refuse_existing(path)
    model = choice_model(network, one_image=one_image, facts=facts)
    content = model.SerializeToString()
    checked = check_runs(content, runtime, size=network.size, n_images=1 if one_image else 2)
    write_bytes(path, content)
    return {
        "file": str(path),
        "form": network.form,
        "fallback": True,
        "runtime": runtime,
        "bytes": len(content),
        "ran_here": checked,
        "outputs": [output.name for output in model.graph.output],
    }


def described(model: Any, what: str, metadata: Mapping[str, str]) -> Any:
    """The ONNX model with a description, its producer and metadata, and without what an exporter noted about this machine."""
    model.producer_name, model.producer_version, model.doc_string = "pulvinar", version("pulvinar"), what
    model.graph.doc_string = what
    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    _forget_origins(model.graph)
    for function in model.functions:
        _forget_origins(function)
    return model


def _forget_origins(graph: Any) -> None:
    """Remove where in which source file each node came from."""
    named = [*getattr(graph, "input", ()), *getattr(graph, "output", ()), *graph.value_info, *getattr(graph, "initializer", ())]
    for part in [graph, *graph.node, *(value for value in named if not isinstance(value, str))]:
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else ():
                _forget_origins(inner)


def _metadata(network: CompactNetwork, runtime: str, facts: dict[str, Any] | None) -> dict[str, str]:
    exact = network.fallback or network.form != "compact"
    metadata = _said_of_every(network.form, runtime, network.macs, facts) | {
        "fallback": "yes" if network.fallback else "no",
        "calibration": json.dumps(to_jsonable(network.calibration)),
    }
    if not exact:
        rate = None if network.calibration is None else network.calibration["miss_rate"]
        share = "a share of images that nobody has measured" if rate is None else f"about {100 * rate:.2f} % of images"
        metadata["warning"] = (
            f"without fallback: {share} open a channel that this file does not compute; their features are wrong, and their "
            "row of the output 'misses' is true somewhere"
        )
    return metadata


def _said_of_every(form: str, runtime: str, macs: object, facts: dict[str, Any] | None) -> dict[str, str]:
    """Metadata that every file of a network has."""
    metadata = {
        "pulvinar": version("pulvinar"),
        "form": form,
        "images": "float32 in [0, 1], red, green, blue; normalised inside; features of an image outside of it are NaN",
        "written_for": runtime,
        "macs": json.dumps(to_jsonable(vars(macs))),
    }
    kept = {key: _without_place(value) for key, value in to_jsonable(facts or {}).items()}
    return metadata | ({"facts": json.dumps(kept)} if kept else {})


def _without_place(value: Any) -> Any:
    """Of a path on this machine its last name alone; a file travels."""
    from pulvinar.report.page import without_places

    return without_places(value) if isinstance(value, str) else value


def export_onnx(
    network: CompactNetwork,
    path: str | os.PathLike[str],
    *,
    runtime: Runtime = "onnxruntime",
    facts: dict[str, Any] | None = None,
    any_size: bool = False,
) -> dict[str, Any]:
    """Write the ONNX file, after the runtime, if it is installed, has run it; what was written."""
    refuse_existing(path)
    model = onnx_model(network, runtime=runtime, facts=facts, any_size=any_size)
    content = model.SerializeToString()
    checked = check_runs(content, runtime, size=network.size)
    write_bytes(path, content)
    return {
        "file": str(path),
        "form": network.form,
        "fallback": network.fallback,
        "runtime": runtime,
        "bytes": len(content),
        "ran_here": checked,
        "outputs": [output.name for output in model.graph.output],
    }


def check_runs(content: bytes, runtime: Runtime, *, size: int, n_images: int = 2) -> bool:
    """Whether the runtime is here and ran the model on so many images; `InputError` where it lacks an operator or fails."""
    if find_spec(runtime) is None:
        log(f"{runtime} is not installed, so the file was not tried out ({INSTALL})")
        return False
    try:
        run_with(content, runtime)(np.random.default_rng(0).random((n_images, 3, size, size), np.float32))
    except Exception as error:  # the runtimes raise classes of their own
        reason = " ".join(str(error).split())[:300]
        other = next(name for name in get_args(Runtime) if name != runtime)
        raise InputError(
            f"{runtime} {version(runtime)} cannot run this graph (an operator that it lacks, or with such shapes): {reason}. "
            f"Write it for --runtime {other}, or without the fallback (--no-fallback)"
        ) from error
    return True


def run_with(content: bytes | str | os.PathLike[str], runtime: Runtime, *, threads: int = 1) -> Any:
    """A function from pixels (image, 3, size, size) to a dict of the model's outputs, computed in float32 by this runtime.

    It raises `InputError` for pixels that are not floating numbers in [0, 1] in this order of axes.
    """
    run = _loaded(content, runtime, threads)
    return lambda pixels: run(require_maps(pixels))


def require_maps(pixels: Any) -> Float[np.ndarray, "image 3 height width"]:
    """These pixels as float32; `InputError` unless they are floating numbers (image, 3, height, width) in [0, 1]."""
    pixels = np.asarray(pixels)
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.dtype.kind != "f":
        way = "; divide by 255" if pixels.dtype == np.uint8 else ""
        way += "; channels come second: x.transpose(0, 3, 1, 2)" if pixels.ndim == 4 and pixels.shape[-1] == 3 else ""
        raise InputError(
            f"images: floating numbers (image, 3, height, width) in [0, 1] are needed, {pixels.dtype} {pixels.shape} came{way}"
        )
    require_unit_range(pixels, "images")
    return np.ascontiguousarray(pixels, np.float32)


def _loaded(content: bytes | str | os.PathLike[str], runtime: Runtime, threads: int) -> Any:
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        given = content if isinstance(content, bytes) else os.fspath(content)
        session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda pixels: dict(zip(names, session.run(names, {"images": pixels}), strict=True))
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = core.read_model(content if isinstance(content, bytes) else os.fspath(content))
    compiled = core.compile_model(model, "CPU", settings)
    return lambda pixels: {output.any_name: values.copy() for output, values in compiled(pixels).items()}


class _Images:
    """What the quantiser reads its calibration images from, one batch at a time."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(pixels, max(1, len(pixels) // 16)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def export_int8(
    network: CompactNetwork, path: str | os.PathLike[str], pixels: Float[np.ndarray, "image 3 height width"]
) -> dict[str, Any]:
    """Write the network with convolutions in int8, by ONNX Runtime's static quantiser; how far it is off on these images.

    pixels: float32 in [0, 1]; the first 256 set the ranges. Gates stay in float32, and so does what `If` computes.
    """
    refuse_existing(path)
    if find_spec("onnxruntime") is None:
        raise MissingDependencyError(f"int8 files are made by onnxruntime: {INSTALL}")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static

    used = require_maps(pixels[:N_QUANTISATION_IMAGES])
    model = onnx_model(network)
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        whole.write_bytes(model.SerializeToString())
        logging.disable(logging.WARNING)  # it advises shape inference, which this graph has had and its own cannot do
        try:
            quantize_static(
                whole,
                small,
                _Images(used),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=["Conv"],
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            logging.disable(logging.NOTSET)
        before, after = (run_with(file, "onnxruntime")(used)["features"] for file in (whole, small))
        write_bytes(path, small.read_bytes())
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return {
        "file": str(path),
        "form": network.form,
        "runtime": "onnxruntime",
        "bytes": Path(path).stat().st_size,
        "n_images": len(used),
        "mean_cosine": float(np.mean((before * after).sum(1) / np.maximum(lengths, 1e-12))),
        "mean_relative_difference": float(np.mean(np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1))),
    }


class FromPixels(nn.Module):
    """The network behind its normalisation: pixels in [0, 1] -> features; NaN of an image with a pixel outside of it."""

    mean: Tensor
    sd: Tensor
    refused: Tensor

    def __init__(self, network: CompactNetwork) -> None:
        super().__init__()
        self.network = network
        like = network.stem.weight
        self.register_buffer("mean", torch.tensor(network.mean).to(like)[:, None, None])
        self.register_buffer("sd", torch.tensor(network.sd).to(like)[:, None, None])
        self.register_buffer("refused", torch.tensor(torch.nan).to(like))  # a NaN in the code cannot be saved by torch 2.7

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """The features."""
        right = (images - images.clamp(-TOLERANCE, 1 + TOLERANCE)).abs().sum((1, 2, 3)) == 0  # of NaN it is NaN
        pixels = torch.where(right[:, None, None, None], images, 0.0)
        return torch.where(right[:, None], self.network((pixels - self.mean) / self.sd), self.refused)


def export_program(network: CompactNetwork, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Write a program of torch.export (.pt2) with a dynamic batch; missing parts are a `torch.cond` on the whole batch."""
    refuse_existing(path)
    if Path(path).suffix != ".pt2":
        raise InputError(f"{path}: a program of torch.export has a name that ends in .pt2")
    like = network.stem.weight
    example = torch.zeros(2, 3, network.size, network.size).to(like)
    shapes = ({0: torch.export.Dim.DYNAMIC},)  # a named Dim is refused by torch 2.7 ("Constraints violated")
    program = torch.export.export(FromPixels(network), (example,), dynamic_shapes=shapes)
    with atomic_path(path) as temporary:
        named = temporary.with_name(temporary.name + ".pt2")  # torch wants the ending
        try:
            torch.export.save(program, named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
    return {"file": str(path), "form": network.form, "fallback": network.fallback, "bytes": Path(path).stat().st_size}
