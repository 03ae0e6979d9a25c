"""Losses that span the batch, on two processes that gather their rows: values and gradients of one process, in float64.

Run as a script it prints the table: `uv run python tests/learning/test_processes.py`.
"""

import functools
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.mask_training import FrozenDecoder, MaskSettings, MaskTrainer
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.encoding.methods.tuning import ContrastiveConfig, RegressionConfig
from pulvinar.encoding.response_tuning import ResponseTuner, TunedPart, TunedSubject
from pulvinar.encoding.settings import TuningConfig
from pulvinar.gating.distillation import DistillationSettings, DistillationTrainer
from pulvinar.gating.objectives import barlow_twins_terms, simclr_terms, vicreg_terms
from pulvinar.learning.contrastive import info_nce, mixco_targets, similarity, soft_clip_targets, soft_cross_entropy
from pulvinar.learning.processes import gather_rows, own_rows, sum_gradients
from pulvinar.learning.views import ViewSettings
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape

N_ROWS, DIM, TOLERANCE = 12, 5, 1e-6


def _info_nce(first: Tensor, second: Tensor) -> Tensor:
    return info_nce(first, second, temperature=0.2, symmetric=True)


def _bimixco(first: Tensor, second: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(len(first), generator=generator, dtype=first.dtype)
    targets = mixco_targets(weight, torch.randperm(len(first), generator=generator))
    return soft_cross_entropy(similarity(first, second, temperature=0.2), targets)


def _soft_clip(first: Tensor, second: Tensor) -> Tensor:
    targets = soft_clip_targets(second.detach(), temperature=0.2)
    return soft_cross_entropy(similarity(first, second, temperature=0.2), targets)


def _summed(terms: Callable[[Tensor, Tensor], dict[str, Tensor]]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda first, second: torch.stack(list(terms(first, second).values())).sum()


LOSSES = {
    "VICReg": _summed(vicreg_terms),
    "Barlow Twins": _summed(barlow_twins_terms),
    "SimCLR": _summed(simclr_terms),
    "InfoNCE": _info_nce,
    "BiMixCo": _bimixco,
    "SoftCLIP": _soft_clip,
}


def _of_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Loss and gradient of a linear map that both views go through, from this process's rows: (1 + dim x dim,)."""
    generator = _seeded(1)
    first, second = torch.randn(2, N_ROWS, DIM, generator=generator)
    weight = torch.randn(DIM, DIM, generator=generator).requires_grad_()
    value = loss(*(gather_rows(own_rows(view) @ weight) for view in (first, second)))
    value.backward()
    sum_gradients([weight])
    return _joined(value, weight.grad)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _joined(loss: Tensor | float, *gradients: Tensor | None) -> Tensor:
    """Loss and gradients as one row."""
    return torch.cat(
        [torch.as_tensor(loss).detach()[None], *(part.detach().flatten() for part in gradients if part is not None)]
    )


def _decoder() -> SharedDecoder:
    """With weights that nothing starts from at zero, so that every part has a gradient."""
    shared = SharedDecoder(DecoderShape(hidden=6, dim=DIM, n_blocks=1, dropout=0.3))
    for parameter in shared.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=_seeded(parameter.numel())) / 3)
    return shared


def _pretraining(**settings: Any) -> Tensor:
    """A step on two subjects, whose 9 rows each do not divide by two, with dropout."""
    generator = _seeded(5)
    data = [(torch.randn(9, n, generator=generator), torch.randn(9, DIM, generator=generator)) for n in (7, 8)]
    layers = [input_layer(x.shape[1], 6, generator, scale=1.0) for x, _ in data]
    chosen = DecodingSettings(hidden=6, n_blocks=1, dropout=0.3, batch_size=9, precision="float32", **settings)
    trainer = DecoderTrainer(_decoder(), layers, data, chosen, _seeded(2), train_shared=True)
    loss = trainer._backward(*trainer.draw_batch(0, trainer.draw_orders()))
    return _joined(loss, *(parameter.grad for parameter in trainer.parameters))


def _stage_1() -> Tensor:
    """An epoch of three folds: the losses of its last step, the gradient of the mask there, and all layers afterwards."""
    generator, seen = _seeded(6), []
    responses, target = torch.randn(12, 7, generator=generator), torch.randn(12, DIM, generator=generator)
    settings = MaskSettings(n_voxels=3, n_folds=3, mask_batch_size=2, hidden=6, n_blocks=1, dropout=0.3, precision="float32")
    objective = FrozenDecoder(_decoder(), target, settings)
    trainer = MaskTrainer(responses, torch.arange(12) % 3, objective, scipy.sparse.eye_array(7).tocsr(), settings, _seeded(4))
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda: (step(), seen.append(trainer.mask.grad))  # type: ignore[method-assign]
    record = trainer.run_epoch()
    trainer.state()  # every process has all layers then
    return _joined(record["loss"] + record["mask_loss"], seen[-1], *trainer.weights, *trainer.biases)


def _resnet(seed: int) -> GatedResNet:
    return GatedResNet(resnet_shape("resnet18", size=8, width=0.0625), size=8, passes=("dense",)).initialise(_seeded(seed))


def _distillation(objective: Any) -> Tensor:
    """A step of a student with batch-norm, after views that all processes draw for the whole batch."""
    images = np.random.default_rng(0).integers(0, 255, (N_ROWS, 8, 8, 3)).astype(np.uint8)
    settings = DistillationSettings(objective=objective, batch_size=N_ROWS, queue=5, precision="float32")
    teacher, student = _resnet(1), _resnet(2)
    features = torch.nn.Sequential(_Features(teacher))
    n_teacher = teacher.shape.n_features
    trainer = _Distiller(student, features, images, settings, ViewSettings(), _seeded(3), n_teacher=n_teacher)
    record = trainer.run_epoch()
    return _joined(record["loss"], *(parameter.grad for parameter in trainer.network.parameters()))


class _Features(torch.nn.Module):
    def __init__(self, network: GatedResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, gated=False).features


class _Distiller(DistillationTrainer):
    def _view(self, *given: Any, **part: Any) -> Tensor:
        return super()._view(*given, **part).double()


def _tuning(settings: TuningConfig) -> Tensor:
    """A step of a linear network and a head, the contrastive one with batch-norm and a learnt temperature."""
    generator = _seeded(7)
    inputs, responses = torch.randn(N_ROWS, 6, generator=generator), torch.randn(N_ROWS, DIM, generator=generator)
    torch.manual_seed(0)
    network = torch.nn.Linear(6, 4)
    head = settings.head(4, {"one": DIM})
    part = TunedPart(
        network=network,
        read=lambda rows: inputs[torch.from_numpy(rows)],
        n_images=N_ROWS,
        parameters=dict(network.named_parameters()),
    )
    empty = np.arange(0)
    subject = TunedSubject(
        rows=np.arange(N_ROWS), responses=responses, held_out_rows=empty, held_out_responses=responses[empty]
    )
    tuner = ResponseTuner(part, head, {"one": subject}, settings)
    record = tuner.run_steps()
    assert record is not None
    return _joined(record["loss"], *(p.grad for group in tuner.optimizer.param_groups for p in group["params"]))


CASES: dict[str, Callable[[], Tensor]] = {name: functools.partial(_of_loss, loss) for name, loss in LOSSES.items()} | {
    "pretraining, BiMixCo": lambda: _pretraining(mixed_share=1.0),
    "pretraining, SoftCLIP in 2 micro-batches": lambda: _pretraining(mixed_share=0.0, micro_batches=2),
    "stage 1": _stage_1,
    "distillation, SimReg": lambda: _distillation("simreg"),
    "distillation, SEED": lambda: _distillation("seed"),
    "tuning, contrast": lambda: _tuning(ContrastiveConfig(learn_temperature=True, epochs=1)),
    "tuning, regression": lambda: _tuning(RegressionConfig(epochs=1)),
}


def _of(name: str) -> Tensor:
    """Loss and gradient of a case in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return CASES[name]()
    finally:
        torch.set_default_dtype(before)


def _process(rank: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save({name: _of(name) for name in CASES}, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _on_two_processes() -> list[dict[str, Tensor]]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
        found.close()
        started = [subprocess.Popen([sys.executable, __file__, str(rank), port, folder]) for rank in range(2)]
        assert [process.wait(200) for process in started] == [0, 0]
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_have_losses_and_gradients_of_one():
    found = _on_two_processes()
    for name in CASES:
        expected = _of(name)
        assert expected[1:].abs().max() > 1e-3, name  # there is something to compare
        for of_rank in found:
            torch.testing.assert_close(of_rank[name], expected, rtol=TOLERANCE, atol=TOLERANCE, msg=name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _process(int(sys.argv[1]), sys.argv[2], sys.argv[3])
        sys.exit()
    sys.stdout.write(f"{'loss':40} {'one process':>14} {'two':>14} {'gradient, largest':>18} {'difference':>11}\n")
    of_first, of_second = _on_two_processes()
    for name in CASES:
        one, two = _of(name), of_first[name]
        apart = max(float((part[name] - one).abs().max()) for part in (of_first, of_second))
        sys.stdout.write(f"{name:40} {one[0]:14.9f} {two[0]:14.9f} {one[1:].abs().max():18.9f} {apart:11.1e}\n")
