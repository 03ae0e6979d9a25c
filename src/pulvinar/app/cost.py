"""What a recipe needs before anything is there: hours and memory from the paper's sizes, at this machine's speed now.

hours: multiply-adds of training (a step backward is two forward) at the speed of a matrix product, and of decoders the
optimizer's own work; reading, scoring and pages come on top. memory_gb: the largest phase of a fit; on a GPU most of it lies
there.
"""

import itertools
from functools import cache
from importlib.util import find_spec
from typing import Any

from pulvinar.app import method_settings
from pulvinar.app.recipe import Recipe
from pulvinar.core.progress import log

EXTRAS = {
    "decoding": {"open_clip": "pictures", "diffusers": "pictures"},
    "rsa": {"timm": "vision"},
    "encoding": {"torchvision": "vision"},
    "gating": {},
}
TRAINING = 3  # a step forward, and backward as two
FLOAT, ADAM = 4, 16  # bytes of a number, and of a parameter with its gradient and both moments
N_PAIR_FOLDS = 10  # of learning to aggregate's held-out pairs
N_SUBJECTS = 8  # of Algonauts 2023


def missing_extras(recipe: Recipe) -> list[str]:
    """Extras of pulvinar that a full recipe needs and that are not installed."""
    wanted = EXTRAS[recipe.wing]
    missing = [extra for module, extra in wanted.items() if find_spec(module) is None]
    return [f"pip install 'pulvinar[{extra}]'" for extra in dict.fromkeys(missing)]


@cache
def measured_speed() -> Any:
    """How fast this machine is, on the device that a fit would use; three quarters of a second."""
    log("measuring how fast this machine is, for the hours")
    from pulvinar.decoding.decoder_size import measure_speed

    return measure_speed()


def estimate(recipe: Recipe, speed: Any) -> dict[str, float | None]:
    """hours and memory_gb of the full recipe, all cells and data sets; None where a library is missing that tells."""
    parts = [
        part
        for dataset in recipe.data
        for cell in _every_cell(recipe, dataset)
        for part in _of_cell(recipe, dataset, cell, speed)
    ]
    if not parts or any(part is None for part in parts):
        return {"hours": None, "memory_gb": None}
    known = [part for part in parts if part is not None]
    return {"hours": sum(hours for hours, _ in known), "memory_gb": max(memory for _, memory in known) / 1e9}


def _every_cell(recipe: Recipe, dataset: str) -> list[dict[str, Any]]:
    """Cells crossed with the grid; one for every new subject."""
    axes = recipe.grid("full")
    crossed = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    n_targets = max(1, len(recipe.targets("full")))
    return [cell | axis for cell in recipe.cells("full", dataset) for axis in crossed] * n_targets


def _of_cell(recipe: Recipe, dataset: str, cell: dict[str, Any], speed: Any) -> list[tuple[float, float] | None]:
    """Hours and bytes of a cell's fit."""
    config, pretrained = method_settings.configs(str(cell["method"]), None, recipe.assignments(cell), refuse_idle=False)
    size = recipe.size.get(dataset, recipe.size)
    if recipe.wing == "decoding":
        return _decoder(config, pretrained, size, speed)
    if recipe.wing == "gating":
        return [
            _self_supervised(part, size, speed) for part in (config, pretrained) if part is not None and hasattr(part, "shape")
        ]
    n_images = size["n_images"]
    network = _library_network(config.network, size["pixels"])
    if network is None:
        return [None]
    macs, numbers, n_parameters, largest = network
    if recipe.wing == "rsa":
        rows = config.images_per_step
        steps = -(-n_images * (n_images - 1) // 2 // (rows * (rows - 1) // 2)) * config.epochs
        passes = 1 + config.n_folds * config.n_repeats  # evaluation trains anew in every fold
        passes += N_PAIR_FOLDS if config.protocol == "both" else 0
        return [
            (passes * steps * rows * macs * TRAINING / speed.multiply_adds / 3600, rows * numbers * FLOAT + ADAM * n_parameters)
        ]
    epochs = getattr(config, "epochs", 0)
    seen = n_images * (TRAINING * epochs + 1) * N_SUBJECTS
    features = n_images * largest * FLOAT
    return [
        (seen * macs / speed.multiply_adds / 3600, max(features, config.batch_size * numbers * FLOAT) + ADAM * n_parameters)
    ]


def _decoder(config: Any, pretrained: Any, size: dict[str, Any], speed: Any) -> list[tuple[float, float] | None]:
    """Pretraining, selection and refit of TROI."""
    from pulvinar.decoding.decoder_size import mask_phase, seconds, training_phase
    from pulvinar.selection.voxel_mask import voxel_budget

    shape = (pretrained if config.pretrain else config).shape(n_tokens=size["n_tokens"], dim=size["dim"])
    if shape.prior_layers and find_spec("diffusers") is None:
        return [None]
    others, n_trials = size["others"], size["n_trials"] * (config.n_sessions or 1)
    kept = voxel_budget(config.n_voxels, size["n_candidates"])
    phases = [
        mask_phase(shape, config, n_voxels=size["n_candidates"], n_trials=n_trials),
        training_phase("stage 2", shape, config, n_voxels=[kept], n_trials=[n_trials], train_shared=not config.pretrain),
    ]
    if config.pretrain:
        trials = [others["n_trials"]] * len(others["n_voxels"])
        phases.append(
            training_phase("pretraining", shape, pretrained, n_voxels=others["n_voxels"], n_trials=trials, train_shared=True)
        )
    return [(sum(seconds(phase, speed) for phase in phases) / 3600, max(phase.total for phase in phases))]


def _self_supervised(config: Any, size: dict[str, Any], speed: Any) -> tuple[float, float]:
    """Two views of every image, forward and backward."""
    from pulvinar.networks.macs import count_macs

    counted = count_macs(config.shape(size["pixels"]), size["pixels"])
    maps, numbers = counted.shape.stem.sizes(size["pixels"])[1], 0
    for block in counted.shape.blocks:
        maps = block.output_size(maps)
        numbers += 3 * maps**2 * (sum(block.inner) + block.outputs)  # convolution, batch-norm, ReLU
    n_parameters = sum(
        9 * block.inputs * block.inner[0] + 9 * block.inner[-1] * block.outputs for block in counted.shape.blocks
    )
    hours = 2 * TRAINING * counted.dense * size["n_images"] * config.epochs / speed.multiply_adds / 3600
    return hours, 2 * config.batch_size * numbers * FLOAT + ADAM * (n_parameters + 2 * config.projector_width**2)


@cache
def _library_network(name: str, pixels: int) -> tuple[int, int, int, int] | None:
    """Multiply-adds, numbers of all maps, parameters and the largest map's numbers, for an image; nothing is allocated."""
    if find_spec("timm") is None or find_spec("torchvision") is None:
        return None
    import timm
    import torch
    import torchvision
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        known = name in torchvision.models.list_models()
        network = torchvision.models.get_model(name) if known else timm.create_model(name)
        sizes: list[int] = []
        for part in network.modules():
            if not list(part.children()):
                part.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.empty(1, 3, pixels, pixels))
    return counter.get_total_flops() // 2, sum(sizes), sum(p.numel() for p in network.parameters()), max(sizes)
