"""The decoder of a finished run of troi, or of a selector, for use: it takes the kept voxels alone, or the whole box of them.

The mask closes every other voxel for good, so their columns of the input layer multiply zeros: W (mask x) = W_keep x_keep,
exactly. The run stores W_keep alone (`refit` of decoding/adaptation.py trains on the kept voxels).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulvinar.core.errors import FileError, InputError
from pulvinar.decoding.decoder_checkpoint import has_layer, stored_decoder
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import Decoded, DecoderShape, SharedDecoder


class VoxelDecoder(nn.Module):
    """z-scored responses, (trial, kept voxel) or (trial, voxel of the whole box), -> `Decoded`, each (trial, token x dim).

    selected: which voxels of the box stay (voxel,) bool. The embedding's own mean and spread are not undone: outputs are in
    the units that the run's evaluation compares in.
    """

    kept: Tensor

    def __init__(self, selected: Tensor, shape: DecoderShape) -> None:
        super().__init__()
        self.n_voxels, self.shape = len(selected), shape
        self.register_buffer("kept", selected.nonzero()[:, 0])
        self.layer = nn.utils.skip_init(nn.Linear, len(self.kept), shape.hidden)
        self.shared = SharedDecoder(shape)
        self.requires_grad_(False).eval()

    def forward(self, responses: Float[Tensor, "trial voxel"]) -> Decoded:
        """Output, projected (retrieval) and regressed (reconstruction) outputs."""
        n_given = responses.shape[1]
        if n_given not in (len(self.kept), self.n_voxels):
            raise InputError(
                f"responses: {len(self.kept)} voxels (those that were kept) or {self.n_voxels} (all) fit, {n_given} came"
            )
        return self.shared(self.layer(responses if n_given == len(self.kept) else responses.index_select(1, self.kept)))

    def masked_layer(self) -> nn.Linear:
        """The reference: an input layer over all voxels in which those that were not kept have weight zero."""
        whole = nn.utils.skip_init(nn.Linear, self.n_voxels, self.layer.out_features).to(self.layer.weight)
        with torch.no_grad():
            whole.weight.zero_()
            whole.weight[:, self.kept] = self.layer.weight
            whole.bias.copy_(self.layer.bias)
        return whole.requires_grad_(False)

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-adds of the input layer for one trial: on the kept voxels, and on all."""
        hidden = self.layer.out_features
        return {"kept": len(self.kept) * hidden, "all": self.n_voxels * hidden}


def voxel_decoder(run: RunFolder) -> VoxelDecoder:
    """The decoder of a finished run of troi or a selector; `InputError`: another, or with a diffusion prior."""
    stored = stored_decoder(run.require(method=run.method if has_layer(run) else "troi"))
    if stored.shared.prior is not None:
        raise InputError(f"{run.path}: its reconstructions are sampled by a diffusion prior, which is not put into one file")
    try:
        made = VoxelDecoder(stored.state["selected"].bool(), stored.shared.shape)
        made.layer.load_state_dict(stored.state["layer"])
        made.shared.load_state_dict(stored.shared.state_dict())
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise FileError(f"{run.path}: its decoder has no layer of kept voxels that fits: {error}") from error
    return made
