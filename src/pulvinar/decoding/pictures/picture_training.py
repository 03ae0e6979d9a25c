"""Training of the parts that make pictures, one after the other: image decoder, low-level branch, diffusion prior.

Each part is a network with a loss of some rows; AdamW, one-cycle, gradients cut to length 1. The same seed gives the same
weights, and a trainer goes on bit for bit from what `state` gave.

Losses: image decoder, mean squared error of pixels from the training images' own embeddings, to which noise may be added;
low-level branch, L1 between latents plus `contrastive` times SoftCLIP over them (MindEye2: .1, on features of another
network); prior, mean squared error of the clean embedding given the decoder's output for trials that are mixed in
the first epochs (MixCo), the target mixed alike (TROI equation 3) or not (MindEye2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pulvinar.core import devices
from pulvinar.data.pixels import require_pixels
from pulvinar.decoding.decoder_training import Rows, draw_mixing
from pulvinar.decoding.pictures.picture_decoder import LowLevelBranch, PictureDecoder
from pulvinar.learning.checkpoints import State
from pulvinar.learning.contrastive import similarity, soft_clip_targets, soft_cross_entropy
from pulvinar.learning.loop import EpochTrainer, Record, require_finite
from pulvinar.learning.optimizers import AdamW, one_cycle
from pulvinar.networks.decoder import decayed_and_not
from pulvinar.networks.diffusion_prior import DiffusionPrior

Loss = Callable[[Tensor, float, torch.Generator], Tensor]
WARM_SHARE, CLIP_NORM = 0.3, 1.0


@dataclass(frozen=True, kw_only=True)
class PartSettings:
    """How one part is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float


class PartTrainer(EpochTrainer):
    """Trains `network` on the device by `loss(rows, done, generator)`: rows (row,) are indices, done the share of epochs."""

    def __init__(self, network: nn.Module, loss: Loss, n_rows: int, settings: PartSettings, generator: torch.Generator) -> None:
        self.network, self.loss, self.n_rows = network.to(devices.current()), loss, n_rows
        self.settings, self.generator = settings, generator
        matrices, vectors = decayed_and_not(p for p in network.parameters() if p.requires_grad)
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = AdamW(groups, lr=settings.learning_rate)
        self.parameters = [*matrices, *vectors]
        self.n_epochs = settings.epochs
        self.steps_per_epoch = max(1, n_rows // settings.batch_size)

    def run_epoch(self) -> Record:
        """One pass over the rows in a new order."""
        order, size, settings = torch.randperm(self.n_rows, generator=self.generator), self.settings.batch_size, self.settings
        n_steps, total = settings.epochs * self.steps_per_epoch, 0.0
        self.network.train()
        for step in range(self.steps_per_epoch):
            now = self.epoch * self.steps_per_epoch + step
            share = one_cycle(now / n_steps, warm_share=WARM_SHARE)
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * share
            loss = self.loss(order[step * size : (step + 1) * size], self.epoch / settings.epochs, self.generator)
            require_finite(loss, f"{type(self.network).__name__}, epoch {self.epoch + 1}")
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
            self.optimizer.step()
            total += loss.item()
        self.network.eval()
        return self.end_epoch(total)

    def state(self) -> State:
        """All that a bit-identical continuation needs."""
        return {**super().state(), "network": dict(self.network.state_dict())}

    def restore(self, state: State) -> None:
        """Continue from what `state` gave."""
        super().restore(state)
        self.network.load_state_dict(state["network"])


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def as_pictures(pixels: Tensor) -> Tensor:
    """uint8 (image, height, width, 3) as float (image, 3, height, width) in [0, 1]."""
    require_pixels(pixels, "pictures")
    return pixels.permute(0, 3, 1, 2).float() / 255


def picture_loss(decoder: PictureDecoder, pixels: Tensor, embedding: Tensor, *, noise: float) -> Loss:
    """Mean squared error of pixels; the embedding (image, dim) gets normal noise. pixels: uint8, channels last."""

    def loss(rows: Tensor, _done: float, generator: torch.Generator) -> Tensor:
        known, device = embedding[rows], _device_of(decoder)
        if noise:
            known = known + noise * torch.randn(known.shape, generator=generator)
        return (decoder(known.to(device)) - as_pictures(pixels[rows].to(device))).square().mean()

    return loss


def low_level_loss(
    branch: LowLevelBranch, responses: Tensor, latents: Tensor, *, contrastive: float, temperature: float
) -> Loss:
    """L1 between latents plus `contrastive` times SoftCLIP. responses (trial, voxel), latents (trial, ...) of their images."""

    def loss(rows: Tensor, _done: float, generator: torch.Generator) -> Tensor:
        device = _device_of(branch)
        made, true = branch(responses[rows].to(device), generator), latents[rows].to(device)
        error = (made - true).abs().mean()
        if not contrastive or len(rows) < 2:
            return error
        targets = soft_clip_targets(true.flatten(1), temperature=temperature)
        return error + contrastive * soft_cross_entropy(similarity(made, true, temperature=temperature), targets)

    return loss


def prior_loss(
    prior: DiffusionPrior,
    output: Callable[[Tensor], Tensor],
    responses: Tensor,
    embedding: Rows,
    *,
    condition_dropout: float,
    mixed_share: float,
    mixing_beta: float,
    mix_target: bool,
) -> Loss:
    """The prior's loss on what the frozen decoder (`output`: responses -> condition) gives for trials, mixed at first."""

    def loss(rows: Tensor, done: float, generator: torch.Generator) -> Tensor:
        x, aim = responses[rows], embedding[rows]
        if done < mixed_share:
            mixing = draw_mixing(len(rows), generator, beta=mixing_beta)
            x, aim = mixing.apply(x), mixing.apply(aim) if mix_target else aim
        device = _device_of(prior)
        with torch.no_grad():
            condition = output(x).to(device)
        return prior.loss(aim.to(device), condition, generator, condition_dropout=condition_dropout)

    return loss
