"""A voxel decoder as an ONNX file: responses of the whole box in, of which it reads the kept voxels; and its masked reference.

Input `responses` (trial, voxel) float32, z-scored as in training; outputs `output`, `projected`, `regressed`, each (trial,
token x dim). Both files take the same input; the reference multiplies every voxel by a weight, that of the others being zero.
"""

import contextlib
import json
import os
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pulvinar.core.storage import atomic_path, refuse_existing
from pulvinar.deploy.onnx_files import OPSET, described, require_onnx
from pulvinar.deploy.voxel_decoder import VoxelDecoder

OUTPUTS = ("output", "projected", "regressed")
WHAT = "z-scored responses of all voxels in, image embeddings out"


class _Traced(nn.Module):
    """The decoder as plain tensors; masked: with an input layer over every voxel."""

    def __init__(self, decoder: VoxelDecoder, *, masked: bool) -> None:
        super().__init__()
        self.decoder, self.whole = decoder, decoder.masked_layer() if masked else None

    def forward(self, responses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decoder = self.decoder
        hidden = decoder.layer(responses.index_select(1, decoder.kept)) if self.whole is None else self.whole(responses)
        decoded = decoder.shared(hidden)
        return decoded.output, decoded.projected, decoded.regressed


def _metadata(decoder: VoxelDecoder, form: str) -> dict[str, str]:
    return {
        "pulvinar": version("pulvinar"),
        "form": form,
        "responses": "float32 (trial, voxel) of the whole box, each voxel z-scored as in training",
        "outputs": "output, projected (for retrieval), regressed (for reconstruction), each (trial, token x dim)",
        "n_voxels": str(decoder.n_voxels),
        "n_kept": str(len(decoder.kept)),
        "macs": json.dumps(decoder.macs),
        "architecture": json.dumps(asdict(decoder.shape)),
    }


def export_decoder(decoder: VoxelDecoder, path: str | os.PathLike[str], *, masked: bool = False) -> dict[str, Any]:
    """Write the ONNX file with a dynamic number of trials; what was written."""
    require_onnx()
    refuse_existing(path)
    form = "masked decoder" if masked else "voxel decoder"
    example = torch.zeros(2, decoder.n_voxels)
    with atomic_path(path) as temporary, warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")  # torch's own use of what torch will change
        program = torch.onnx.export(
            _Traced(decoder, masked=masked).eval(),
            (example,),
            input_names=["responses"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("trial", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export gave nothing")
        made = described(program.model_proto, f"{form}: {WHAT}; written by pulvinar deploy export", _metadata(decoder, form))
        temporary.write_bytes(made.SerializeToString())
    return {"file": str(path), "form": form, "bytes": Path(path).stat().st_size, "outputs": list(OUTPUTS)}
