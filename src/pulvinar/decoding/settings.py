"""Settings of pretraining a decoder and of adapting it to a new subject; the trainers take them as they are.

Values of MindEye2 and TROI, for 256 x 1664 tokens and thousands of trials, stand in the help where ours differ; ours were
chosen on planted worlds for hundreds of trials and a pooled embedding. docs/methods/cross_subject_decoder.md has the paper's
set as a file.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.devices import DeviceSetting
from pulvinar.data.scaling import Mode
from pulvinar.learning.optimizers import one_cycle
from pulvinar.learning.precision import Precision
from pulvinar.networks.decoder import DecoderShape, Mixer
from pulvinar.scores.retrieval import Protocol

Half = Literal["both", "a", "b"]
Beside = Literal["all", "usual"]
Prior = Literal["linear", "diffusion"]
OF_PRIOR = "prior=diffusion"


@dataclass(frozen=True, kw_only=True)
class DecodingSettings(DeviceSetting):
    """Data, network, losses and schedule of a decoder; the methods' Config extend it."""

    seed: int = setting(
        0, "initial weights, folds, order of trials, mixing", at_least=0, below=LARGEST_SEED, heading="Data and responses"
    )
    feature: str | None = setting(
        None,
        "embedding to decode: its name, a file of one (docs/embeddings.md), or label; none: the only one there is, else label",
    )
    centre: bool = setting(True, "decode the embedding less its mean over training images (MindEye2: false)")
    scaling: Mode = setting("train_stats", "z-scoring of responses: train_stats or per_session (transductive)")
    drop_bad_voxels: bool = setting(False, "leave out constant and NaN voxels instead of refusing them")
    hidden: int = setting(
        256, "width of the shared decoder (papers: 4096)", above=0, counts="pretrain=false", heading="Network of the decoder"
    )
    n_blocks: int = setting(2, "blocks of the MLP (MindEye2: 4)", at_least=0, counts="pretrain=false")
    dropout: float = setting(
        0.15, "share of hidden units dropped in training (MindEye2: 0.15)", at_least=0, at_most=1, counts="pretrain=false"
    )
    mixer: Mixer = setting(
        "residual", "residual: an MLP that starts linear (ours); compat: MindEye2's, linear in effect", counts="pretrain=false"
    )
    projector_width: int | None = setting(
        None, "of the projector; none: hidden, for tokens their dim (MindEye2)", above=0, counts="pretrain=false"
    )
    prior: Prior = setting(
        "linear", "what the squared error is of: a linear regression head (ours), or a diffusion prior", counts="pretrain=false"
    )
    prior_layers: int = setting(2, "transformer layers of the prior (MindEye2: 6)", above=0, counts=OF_PRIOR)
    prior_heads: int = setting(4, "attention heads of each (MindEye2: 32)", above=0, counts=OF_PRIOR)
    prior_head_dim: int = setting(32, "width of each head (MindEye2: 52)", above=0, counts=OF_PRIOR)
    epochs: int = setting(40, "passes over the trials (papers: 150)", above=0, heading="Training")
    batch_size: int = setting(24, "trials of each subject in a step (papers: 24)", above=0)
    learning_rate: float = setting(
        1e-3, "peak rate of AdamW, one-cycle; of input layers above 8,000 voxels times 8000 / voxels (MindEye2: 3e-4)", above=0
    )
    warm_share: float = setting(
        0.3, "share of the steps in which the rate rises", at_least=0, at_most=1, counts="rewind!=kept_constant"
    )
    weight_decay: float = setting(0.05, "of AdamW, not on biases and norms (MindEye2: 0.01)", at_least=0)
    clip_norm: float | None = setting(1.0, "longest gradient of a step; none: any (MindEye2)", above=0)
    mixed_share: float = setting(
        1 / 3, "first part of the epochs with MixCo, SoftCLIP afterwards (paper: 1/3)", at_least=0, at_most=1
    )
    mixing_beta: float = setting(
        0.2, "both parameters of the Beta distribution of MixCo weights (paper: 0.2; MindEye2: 0.15)", above=0
    )
    temperature: float = setting(0.2, "of BiMixCo (MindEye2: 0.006, for long token embeddings)", above=0)
    soft_temperature: float = setting(0.2, "of SoftCLIP, in its first epoch (MindEye2: 0.004)", above=0, counts="mixed_share<1")
    soft_temperature_end: float | None = setting(
        None, "of SoftCLIP in its last epoch; none: the same (.0075)", above=0, counts="mixed_share<1"
    )
    prior_weight: float = setting(
        5.0, "weight of the regression error beside the contrastive loss (epsilon of eq. 4; 30)", at_least=0
    )
    input_scale: float = setting(
        0.1, "initial weights of input layers: normal, this over sqrt(n_voxels) (MindEye2: .58)", at_least=0
    )
    precision: Precision = setting("float32", "float32, bfloat16 products, or auto: bfloat16 where the machine computes in it")
    micro_batches: int = setting(1, "parts that a step is computed in, for less memory (exact: gradient caching)", above=0)

    def problems(self) -> list[str]:
        """What does not go together."""
        if self.micro_batches > self.batch_size:
            return [f"micro_batches is at most batch_size ({self.batch_size}), not {self.micro_batches}"]
        return []

    @property
    def lora_rank(self) -> int:
        """Rank of the updates of a frozen shared decoder that are trained with the input layer; 0: none."""
        return 0

    @property
    def n_mixed_epochs(self) -> int:
        """Epochs with BiMixCo; SoftCLIP in the later ones."""
        return math.ceil(self.mixed_share * self.epochs)

    def soft_temperature_at(self, epoch: int) -> float:
        """SoftCLIP's temperature in this epoch (from 0): end + (start - end) (1 + cos(pi k / (n - 1))) / 2, as in MindEye2."""
        n, k = self.epochs - self.n_mixed_epochs, epoch - self.n_mixed_epochs
        if self.soft_temperature_end is None or n < 2:
            return self.soft_temperature
        end = self.soft_temperature_end
        return end + (self.soft_temperature - end) * (1 + math.cos(math.pi * k / (n - 1))) / 2

    def learning_rate_at(self, done: float) -> float:
        """The rate after this share of the steps."""
        return self.learning_rate * one_cycle(done, warm_share=self.warm_share)

    def shape(self, *, n_tokens: int, dim: int) -> DecoderShape:
        """The shared decoder for an embedding of this size."""
        return DecoderShape(
            hidden=self.hidden,
            dim=dim,
            n_blocks=self.n_blocks,
            dropout=self.dropout,
            n_tokens=n_tokens,
            mixer=self.mixer,
            projector_width=self.projector_width,
            prior_layers=self.prior_layers if self.prior == "diffusion" else 0,
            prior_heads=self.prior_heads,
            prior_head_dim=self.prior_head_dim,
        )


@dataclass(frozen=True, kw_only=True)
class AdaptationSettings(DecodingSettings):
    """Settings of a decoder for a new subject on some of its voxels: which trials it learns from, its budget, its scores."""

    n_voxels: int | float = setting(
        0.04,
        "voxel budget: a count, or a share of the candidates (paper: 3000 of 96,000)",
        heading="Budget and trials of the new subject",
    )
    n_sessions: int | None = setting(None, "first sessions of the new subject to learn from; none: all there are", at_least=1)
    half: Half = setting("both", "learn from one half of the training images (a, b), for the stability of the mask")
    pretrain: bool = setting(True, "use a decoder pretrained on the other subjects")
    sigma: float = setting(1.0, "standard deviation of the Gaussian low-pass, in voxel spacings (ours)", at_least=0)
    lora_rank: int = setting(
        0,
        "rank of updates of the pretrained decoder in stage 2; 0: input layer only (paper)",
        at_least=0,
        counts="rewind!=none",
    )
    roi: str = setting(
        "annotated",
        "ROI of the new subject for the annotated control, never used for the selection; of the others for the pretraining",
        heading="Scores and controls",
    )
    near_duplicate: float = setting(
        0.95, "test images with embeddings of a larger cosine are not in each other's gallery", at_least=-1, at_most=1
    )
    protocol: Protocol = setting(
        "every_candidate", "gallery of the headline: every_candidate, or draws (mean over 30 draws of 300, as the papers)"
    )
    beside: Beside = setting(
        "all", "selectors in the table beside the run: all there are, or the usual ones, which take a second each"
    )

    def problems(self) -> list[str]:
        """What does not go together, or depends on whether it is a count or a share."""
        wrong = super().problems()
        if isinstance(self.n_voxels, float) and not 0 < self.n_voxels <= 1:
            wrong.append(f"n_voxels is a count (whole number) or a share in (0, 1], not {self.n_voxels}")
        if isinstance(self.n_voxels, int) and self.n_voxels < 1:
            wrong.append(f"n_voxels is 1 or more, not {self.n_voxels}")
        if self.lora_rank and not self.pretrain:
            wrong.append("lora_rank updates a pretrained decoder; leave it at 0 with pretrain=false")
        return wrong
