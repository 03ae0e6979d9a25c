"""Stage 1 with its layers cut: one step against plain autograd, the same selection without cutting, resuming after a cut."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from pulvinar.decoding.decoder_training import Mixing, draw_mixing
from pulvinar.decoding.mask_training import LossRows, MaskSettings, MaskTrainer
from pulvinar.learning import checkpoints

N_TRIALS, N_VOXELS, N_OUTPUTS, N_PLANTED = 60, 80, 6, 20
SETTINGS = MaskSettings(
    n_voxels=16,
    n_folds=2,
    n_rounds=3,
    epochs_per_round=4,
    mask_batch_size=5,
    learning_rate=1e-2,
    mask_learning_rate=1e-2,
    l1_weight=1e-3,
    threshold=0.1,
    input_scale=0.5,
    mixing_beta=0.2,
)


class Regression:
    """Squared error of the outputs against a planted target, with some noise on the outputs where dropout would be."""

    n_outputs = N_OUTPUTS

    def __init__(self, target: Tensor, rows_at_once: int = 1000) -> None:
        self.target, self.rows_at_once = target, rows_at_once

    def noise(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Normal noise."""
        return 0.1 * torch.randn((n_rows, self.n_outputs), generator=generator)

    def largest_product(self, n_rows: int) -> int:
        """There are none."""
        return 0

    def losses(self, parts: Sequence[LossRows]) -> Tensor:
        """Mean squared error against the mixed target, part by part."""
        return torch.stack([self.loss(part.outputs, part.trials, part.mixing, part.noise) for part in parts])

    def loss(self, outputs: Tensor, trials: Tensor, mixing: Mixing, noise: Tensor | None) -> Tensor:
        """That of one part."""
        return (outputs + (0.0 if noise is None else noise) - mixing.apply(self.target[trials])).square().mean()


def _trainer(settings: MaskSettings = SETTINGS) -> MaskTrainer:
    """80 voxels, the first 20 of which carry the target; four folds of 15 trials."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(N_TRIALS, N_OUTPUTS, generator=generator)
    responses = torch.randn(N_TRIALS, N_VOXELS, generator=generator)
    responses[:, :N_PLANTED] += target @ torch.randn(N_OUTPUTS, N_PLANTED, generator=generator)
    low_pass = scipy.sparse.csr_array(scipy.sparse.eye_array(N_VOXELS))
    folds = torch.arange(N_TRIALS) % settings.n_folds
    return MaskTrainer(responses, folds, Regression(target), low_pass, settings, generator)


def _autograd_step(trainer: MaskTrainer, parts: list[Tensor]) -> None:
    """The same update written with autograd and every gradient at once."""
    n_folds = trainer.settings.n_folds
    for fold, (weight, bias) in enumerate(zip(trainer.weights, trainer.biases, strict=True)):
        others = [parts[other] for other in range(n_folds) if other != fold] or [parts[fold]]
        for rows, train in ((torch.cat(others), True), (parts[fold], False)) if n_folds > 1 else ((parts[0], True),):
            mixing = draw_mixing(len(rows), trainer.generator, beta=trainer.settings.mixing_beta)
            train_mask, train_layer = n_folds == 1 or not train, train
            mask = trainer.mask if train_mask else trainer.mask.detach()
            w, b = (weight, bias) if train_layer else (weight.detach(), bias.detach())
            outputs = (mixing.apply(trainer.responses[rows]) * mask) @ w + b
            noise = trainer.objective.noise(len(rows), trainer.generator) if train else None
            loss = trainer.objective.loss(outputs, rows, mixing, noise)
            (loss / n_folds if train_mask else loss).backward()
    trainer.mask.grad += trainer.settings.l1_weight
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    with torch.no_grad():
        trainer.mask.clamp_(min=0)


@pytest.mark.parametrize(("n_folds", "rows_at_once"), [(1, 1000), (2, 1000), (4, 1000), (4, 50), (4, 1)])
def test_step_is_that_of_autograd(n_folds, rows_at_once):
    """Oracle: the loss through autograd, all layers and the mask updated together; whatever goes through at once."""
    ours, plain = (_trainer(replace(SETTINGS, n_folds=n_folds)) for _ in range(2))
    ours.objective.rows_at_once = rows_at_once
    parts = [torch.nonzero(ours.folds == fold)[:5, 0] for fold in range(n_folds)]
    for _ in range(6):
        ours._step(parts)
        _autograd_step(plain, parts)
    torch.testing.assert_close(ours.mask, plain.mask)
    for number in range(n_folds):
        torch.testing.assert_close(ours.weights[number], plain.weights[number])
        torch.testing.assert_close(ours.biases[number], plain.biases[number])


def test_cut_and_uncut_select_the_same_voxels():
    """Oracle: the same algorithm at full size. The planted voxels are what is found."""
    cut, uncut = (_trainer(replace(SETTINGS, n_folds=4, shrink=shrink)) for shrink in (True, False))
    for trainer in (cut, uncut):
        while not trainer.done:
            trainer.run_epoch()
    assert (cut.n_alive, uncut.n_alive) == (28, 28)  # 80 (16 / 80)^(2 / 3), rounded up
    assert len(uncut.weights[0]) == N_VOXELS
    assert cut.weights[0].shape == cut.gradient.shape == (28, N_OUTPUTS)
    np.testing.assert_array_equal(cut.outcome.kept, uncut.outcome.kept)
    np.testing.assert_allclose(cut.last_mask, uncut.last_mask, atol=1e-4)
    assert cut.outcome.kept[:N_PLANTED].sum() >= 15


def test_cut_keeps_weights_moments_and_steps_of_the_survivors():
    """Oracle: the rows of the tensors before the cut."""
    trainer = _trainer(replace(SETTINGS, n_folds=4))
    trainer.run_epoch()
    kept = torch.arange(N_VOXELS) % 3 > 0
    before = copy.deepcopy(trainer.state())
    trainer._cut(kept)
    after = trainer.state()
    torch.testing.assert_close(after["mask"], before["mask"][kept], rtol=0, atol=0)
    for place in (0, 1, 2, 3, 8):  # the layers, then four biases, then the mask
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(after["optimizer"][place][name], before["optimizer"][place][name][kept], rtol=0, atol=0)
        torch.testing.assert_close(after["optimizer"][place]["step"], before["optimizer"][place]["step"], rtol=0, atol=0)


def test_resuming_after_a_cut_is_bit_identical(tmp_path):
    """Oracle: the run that was not interrupted."""
    whole, first, second = (_trainer(replace(SETTINGS, n_folds=4)) for _ in range(3))
    while not whole.done:
        whole.run_epoch()
    for _ in range(6):
        first.run_epoch()
    checkpoints.save(tmp_path / "state.safetensors", first.state())
    second.restore(checkpoints.load(tmp_path / "state.safetensors"))
    while not second.done:
        second.run_epoch()
    np.testing.assert_array_equal(whole.last_mask, second.last_mask)
    for one, other in zip(whole.weights, second.weights, strict=True):
        assert torch.equal(one, other)


def test_mean_input_weights_are_the_folds_mean_with_the_mask():
    """Oracle: the formula on the stacked layers."""
    trainer = _trainer(replace(SETTINGS, n_folds=4))
    trainer.run_epoch()
    alive, weight, bias = trainer.mean_input_weights()
    np.testing.assert_array_equal(alive, np.arange(N_VOXELS))
    stacked = torch.stack([w.detach() for w in trainer.weights])
    torch.testing.assert_close(weight, stacked.mean(0) * trainer.mask.detach()[:, None])
    torch.testing.assert_close(bias, torch.stack([b.detach() for b in trainer.biases]).mean(0))
