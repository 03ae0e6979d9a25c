"""Learning to aggregate with the network in the loop: everything trained, or the scales alone on fresh random crops.

Paper: section 2.3 (random crops of 87.5 %, everything or the mask trained). A step draws a few images and takes all pairs among
them, so that the network runs once per image and not once per pair (ours; 10 images are 45 pairs, the paper draws 40 pairs).
The paper's rate 1e-2 is for the scales; the network's own rate is ours. Batch norm stays in evaluation mode.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import EpochTrainer, Record, require_finite
from pulvinar.learning.optimizers import Adam
from pulvinar.networks.staged import StagedNetwork
from pulvinar.rsa import stage_mask
from pulvinar.rsa.aggregation import MeasuredRDMs, held_out_score, pairs_of
from pulvinar.rsa.aggregation_settings import AggregationConfig, parse_layout
from pulvinar.scores.rdm import pairs_among


class NetworkTrainer(EpochTrainer):
    """Scales, and by choice the network's weights, on the pairs of the training images; the best epoch on held-out images.

    pixels: preprocessed (image, 3, side, side). held_out: images of no step, by which the epoch is chosen; none: the last one.
    left_out: (pair,), pairs of no step; judged: (pair,), those by which the epoch is chosen (default: of held-out images).
    With several sets of images every step is of one of them, drawn by its number of training images.
    """

    def __init__(
        self,
        network: StagedNetwork,
        pixels: Tensor,
        measured: Sequence[MeasuredRDMs],
        training: Tensor,
        held_out: Tensor,
        config: AggregationConfig,
        generator: torch.Generator,
        *,
        left_out: Tensor | None = None,
        judged: Tensor | None = None,
        sets: Sequence[Tensor] = (),
    ) -> None:
        self.network = copy.deepcopy(network).eval()
        self.pixels, self.measured, self.config = pixels, measured, config
        self.pool = parse_layout(config.layouts[0])[1] or None
        network_rate = config.network_rate if config.train == "all" else 0.0
        self.trains_network = network_rate > 0
        every = torch.arange(len(pixels))
        self.training, self.generator = [rows[training[rows]] for rows in sets or (every,)], generator
        self.judged = pairs_of(held_out[:, None])[:, 0] if judged is None else judged
        self.left_out = torch.zeros_like(self.judged) if left_out is None else left_out
        with torch.no_grad():
            features = self._features(pixels[:2])
        self.stage = features.stage
        self.scales = torch.ones(features.n_scales).requires_grad_(True)
        groups = [{"params": [self.scales], "lr": config.learning_rate}]
        self.network.requires_grad_(self.trains_network)
        if self.trains_network:
            groups.append({"params": list(self.network.parameters()), "lr": network_rate})
        self.optimizer = Adam(groups)
        self.n_epochs, self.best_score, self.best = config.epochs, -2.0, self._weights()

    def run_epoch(self) -> Record:
        """About as many steps as show every training pair once; then the score on the held-out images."""
        sizes = [(len(rows), min(self.config.images_per_step, len(rows))) for rows in self.training]
        n_steps = max(1, round(sum(n * (n - 1) / max(1, per_step * (per_step - 1)) for n, per_step in sizes)))
        total = sum(self.step() for _ in range(n_steps))
        self.epoch += 1
        score = self._held_out_score()
        if score >= self.best_score or not self.judged.any():
            self.best_score, self.best = score, self._weights()
        return {"epoch": self.epoch, "loss": total / n_steps, "held_out": score}

    def step(self) -> float:
        """One step on all pairs among some training images of one set; its loss."""
        drawn = self._draw_set()
        own = self.training[drawn]
        order = torch.randperm(len(own), generator=self.generator)[: self.config.images_per_step]
        rows = own[order].sort().values
        measured = [target for target in self.measured if target.image_set == drawn]
        features = self._features(self._random_crops(self.pixels[rows]))
        predicted = features.rdm(self.scales[:, None])
        chosen = pairs_among(rows, len(self.pixels))
        loss = self.config.identity_weights[0] * stage_mask.identity_penalty(self.scales[:, None])
        trained = (~self.left_out[chosen]).float()
        for target in measured:
            weights = (target.weights[chosen] * trained)[:, None]
            rdms = target.sample(self.generator)[:, chosen]
            loss = loss + stage_mask.rdm_loss(predicted, rdms, weights, self.config.loss) / len(measured)
        require_finite(loss.sum(), f"network and scales, epoch {self.epoch + 1}")
        self.optimizer.zero_grad()
        loss.sum().backward()
        self.optimizer.step()
        if self.config.non_negative:
            self.scales.data.clamp_(min=0)
        return float(loss.detach())

    def _draw_set(self) -> int:
        """The set of this step, among those that have a target, by their numbers of training images."""
        if len(self.training) == 1:
            return 0
        known = {target.image_set for target in self.measured}
        sizes = [float(len(rows)) if place in known else 0.0 for place, rows in enumerate(self.training)]
        return int(torch.multinomial(torch.tensor(sizes), 1, generator=self.generator))

    def _features(self, pixels: Tensor) -> stage_mask.Features:
        maps = self.network.features(pixels, pool=self.pool)
        return stage_mask.feature_products(maps, resolution=self.config.resolution, centring=self.config.centring)

    def _random_crops(self, pixels: Tensor) -> Tensor:
        """Each picture cropped at its own random place, back at full size."""
        side = pixels.shape[-1]
        kept = round(side * self.config.crop_share) if self.config.crops == "run_network" else side
        if kept >= side:
            return pixels
        corners = torch.randint(side - kept + 1, (len(pixels), 2), generator=self.generator).tolist()
        crops = [image[:, top : top + kept, left : left + kept] for image, (top, left) in zip(pixels, corners, strict=True)]
        return functional.interpolate(torch.stack(crops), (side, side), mode="bilinear", align_corners=False)

    @torch.no_grad()
    def rdm(self, pixels: Tensor) -> Tensor:
        """Condensed predicted RDM of preprocessed images, by the best weights so far."""
        now = self._weights()
        self._restore_weights(self.best)
        features = self._features_in_batches(pixels)
        result = features.rdm(self.best["scales"][:, None])[:, 0]
        self._restore_weights(now)
        return result

    def _features_in_batches(self, pixels: Tensor) -> stage_mask.Features:
        batches = [self.network.features(part, pool=self.pool) for part in pixels.split(32)]
        maps = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        return stage_mask.feature_products(maps, resolution=self.config.resolution, centring=self.config.centring)

    @torch.no_grad()
    def _held_out_score(self) -> float:
        first, second = torch.triu_indices(len(self.pixels), len(self.pixels), offset=1)
        rows = torch.unique(torch.cat([first[self.judged], second[self.judged]]))
        if len(rows) < 4:
            return 0.0
        places = pairs_among(rows, len(self.pixels))
        kept = self.judged[places]
        predicted = self._features_in_batches(self.pixels[rows]).rdm(self.scales[:, None])[:, 0]
        return held_out_score(predicted[kept], self.measured, places[kept])

    def _weights(self) -> State:
        network = (
            {name: value.clone() for name, value in self.network.module.state_dict().items()} if self.trains_network else {}
        )
        return {"scales": self.scales.detach().clone(), "network": network}

    def _restore_weights(self, weights: State) -> None:
        self.scales.data.copy_(weights["scales"])
        if weights["network"]:
            self.network.module.load_state_dict(weights["network"])

    def state(self) -> State:
        """Everything that the next epoch depends on."""
        return {
            **super().state(),
            "now": self._weights(),
            "best": self.best,
            "best_score": self.best_score,
        }

    def restore(self, state: State) -> None:
        """Go back to what `state` gave."""
        super().restore(state)
        self.best, self.best_score = state["best"], float(state["best_score"])
        self._restore_weights(state["now"])
