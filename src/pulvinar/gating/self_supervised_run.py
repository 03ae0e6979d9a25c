"""From settings and images to a finished run folder of a self-supervised network, and back to the network.

The run's checkpoint "network" has the weights of the encoders, `encoders`: one, or gated and dense for branches 'two'. The
checkpoint "backbone" (learning/backbone_runs.py) has the first of them with its description, for methods that read the run.
"""

from dataclasses import dataclass
from typing import Any

import torch

from pulvinar.core.errors import InputError
from pulvinar.data.image_set import ImageSet
from pulvinar.gating.self_supervised import SiameseTrainer, generator_of, require_batch
from pulvinar.gating.self_supervised_settings import GatedConfig, SelfSupervisedConfig
from pulvinar.gating.settling import settle
from pulvinar.gating.siamese import Branches, SiameseNetwork
from pulvinar.learning.backbone_runs import save_backbone
from pulvinar.learning.loop import run_to_end
from pulvinar.learning.processes import is_first, start, wait
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.gated_resnet import GatedResNet, Pass
from pulvinar.networks.macs import Macs, count_macs

PASSES: dict[Branches, tuple[tuple[Pass, ...], ...]] = {
    "dense": (("dense",),),
    "gated": (("gated",),),
    "dual": (("dense", "gated"),),
    "two": (("gated",), ("dense",)),
}


def image_size(data: ImageSet) -> int:
    """Side of the square images; `InputError` where they are not square."""
    height, width = data.size
    if height != width:
        raise InputError(f"{data.name}: square images are needed, these are {height} x {width}; crop or resize them first")
    return height


def check(config: SelfSupervisedConfig, data: ImageSet) -> Macs:
    """All that can be wrong with settings and images together; the multiply-adds of the network."""
    size = image_size(data)
    require_batch(len(data.train), config)
    macs = count_macs(config.shape(size), size)
    if config.gating and config.gating.budget_mode != "none":
        macs.require_budget(config.gating.budget)
    return macs


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The images, and the multiply-adds of the network for them."""

    data: ImageSet
    macs: Macs


def prepare(config: SelfSupervisedConfig, data: ImageSet) -> Prepared:
    """What can be wrong with settings and images together, before anything is written."""
    return Prepared(data=data, macs=check(config, data))


def make_encoders(config: SelfSupervisedConfig, branches: Branches, size: int) -> list[GatedResNet]:
    """The encoders with torch's own initial weights."""
    gating = config.gating or GatedConfig()
    return [
        GatedResNet(
            config.shape(size), size=size, passes=passes, separate_norms=gating.separate_norms, gate_bias=gating.gate_bias
        )
        for passes in PASSES[branches]
    ]


def make_network(config: SelfSupervisedConfig, branches: Branches, size: int) -> SiameseNetwork:
    """Encoders, projectors and, for SimSiam, predictor, with initial weights from the run's seed."""
    simsiam = config.objective == "simsiam"
    network = SiameseNetwork(
        make_encoders(config, branches, size),
        branches=branches,
        projector=[config.projector_width] * 3,
        predictor_hidden=config.predictor_hidden if simsiam else None,
    )
    return network.initialise(generator_of("weights", config.seed), zero_residual=simsiam)


def fit(config: SelfSupervisedConfig, prepared: Prepared, run: RunFolder, *, branches: Branches) -> None:
    """Train with checkpoints to the end, settle the gates on the budget, write the checkpoint "network", finish the run."""
    start()
    data, macs = prepared.data, prepared.macs
    size = image_size(data)
    network = make_network(config, branches, size)
    trainer = SiameseTrainer(network, data.train, config)
    run_to_end(trainer, "training", run, state=run.load())
    network.eval()
    facts: dict[str, Any] = {"network": describe(config, macs), "images_per_second": trainer.images_per_second()}
    if trainer.gating:
        facts["budget"] = settle(network.encoder(gated=True), data.train, trainer.gating, trainer.views[0])
    if is_first():
        encoders = [dict(encoder.state_dict()) for encoder in network.encoders]
        run.save({"encoders": {str(number): state for number, state in enumerate(encoders)}}, name="network")
        save_backbone(run, network.encoder(gated="gated" in PASSES[branches][0]), config.views()[0])
        run.finish(**facts)
    wait()


def describe(config: SelfSupervisedConfig, macs: Macs) -> dict[str, Any]:
    """The network in numbers, for run.json."""
    return {
        "name": config.network,
        "width": config.width,
        "macs": macs.dense,
        "gate_macs": macs.gates,
        "floor": macs.floor_share,
    }


def load_encoders(run: RunFolder, config: SelfSupervisedConfig, branches: Branches, size: int) -> list[GatedResNet]:
    """The encoders of a finished run, in evaluation mode."""
    state = run.read("network")
    if state is None:
        raise InputError(f"{run.path}: has no finished network; continue the fit with --resume")
    encoders = make_encoders(config, branches, size)
    for number, encoder in enumerate(encoders):
        encoder.load_state_dict(state["encoders"][str(number)])
        encoder.to(memory_format=torch.channels_last).eval()
    return encoders
