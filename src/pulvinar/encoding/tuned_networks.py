"""Backbones that are tuned: opened by name (of a library, a gated run, or the embedded one), and kept in runs.

A tuned network's checkpoint holds its weights and all that is needed to build it again, so that a run stands for itself.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from pulvinar.core import devices
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log
from pulvinar.core.sampling import blocks_of
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning import backbone_runs
from pulvinar.learning.checkpoints import State
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings
from pulvinar.networks import network_library
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.networks.staged import StagedNetwork, load_network, n_classes
from pulvinar.networks.staged_resnet import EMBEDDED_SIZE, ResNetPass, calibrate, embedded_network, staged_resnet

EMBEDDED = "embedded"
DEFAULT_SIZE = 96  # pixels along an edge, for networks of the libraries (ours: tuning at 224 takes 5 times as long)
N_CALIBRATION_IMAGES, CALIBRATION_BATCH = 512, 64
FORMERLY = "backbone"  # what the checkpoints `network-TAG` are called in older runs


def is_run(name: str) -> bool:
    """Whether a network's name is the folder of a run."""
    return (Path(name) / "run.json").is_file()


def open_network(
    name: str,
    *,
    weights: str | None = None,
    stages: tuple[str, ...] | int | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> StagedNetwork:
    """The network before it is tuned. name: 'embedded', the folder of a finished self-supervised run, or a library's network.

    A run with gates gives its gated pass. `InputError` for weights or an image size that a run or the embedded one has already.
    """
    if name == EMBEDDED:
        _refuse(name, weights=weights)
        log("network embedded: a small ResNet with random weights; name a trained one with network= for real work")
        views = ViewSettings()
        embedded = embedded_network(size=image_size or EMBEDDED_SIZE, seed=seed)
        return staged_resnet(embedded, gated=False, name=EMBEDDED, mean=views.mean, std=views.sd, stages=stages)
    if is_run(name):
        _refuse(name, weights=weights, image_size=image_size)
        found = backbone_runs.load_backbone(RunFolder.reopen(name))
        return _of_run(found, stages=stages)
    if "/" in name or "\\" in name:
        raise FileError(f"network: {name}: no run folder there (run.json is missing)")
    network = load_network(name, weights=weights, stages=stages, image_size=image_size or DEFAULT_SIZE, seed=seed)
    return network if isinstance(stages, tuple) else _with_output(network)


def output_stage(network: StagedNetwork) -> str:
    """The module that gives a library network's output; nothing for a ResNet of ours, whose output is its last stage's mean."""
    if isinstance(network.module, ResNetPass):
        return ""
    return network_library.head_name(network_library.find(network.name), network.module)


def _with_output(network: StagedNetwork) -> StagedNetwork:
    """The network with its output as its last stage: it is what tuning compares with the brain (the paper taps it too)."""
    name = output_stage(network)
    if not name or name in network.stages:
        return network
    stages = (*network.stages, name)
    return StagedNetwork(network.module, name=network.name, stages=stages, preprocessing=network.preprocessing).eval()


def _refuse(name: str, **settings: object) -> None:
    given = [key for key, value in settings.items() if value is not None]
    if given:
        raise InputError(f"network={name} has its own {' and '.join(given)}; leave out {', '.join(given)}")


def _of_run(found: backbone_runs.Backbone, *, stages: tuple[str, ...] | int | None) -> StagedNetwork:
    gated = "gated" in found.network.passes
    name = f"{found.network.shape.network}, {'gated' if gated else 'dense'}"
    return staged_resnet(found.network, gated=gated, name=name, mean=found.views.mean, std=found.views.sd, stages=stages)


def calibrate_embedded(network: StagedNetwork, stimuli: Stimuli, rows: list[int]) -> None:
    """Batch-norm statistics of the embedded network from training images (none of the outer test); others stay as they are."""
    if network.name != EMBEDDED:
        return
    step = max(1, len(rows) // N_CALIBRATION_IMAGES)
    chosen = rows[::step][:N_CALIBRATION_IMAGES]
    parts = [chosen[block] for block in blocks_of(len(chosen), CALIBRATION_BATCH)]
    calibrate(network, [network.preprocess([stimuli.image(row) for row in part]) for part in parts if len(part) > 1])


def network_state(network: StagedNetwork) -> State:
    """All that `restore_network` needs."""
    described = {"name": network.name, "stages": list(network.stages), "preprocessing": asdict(network.preprocessing)}
    if isinstance(network.module, ResNetPass):
        inner = network.module
        views = ViewSettings(mean=network.mean, sd=network.std)  # type: ignore[arg-type]
        return {
            **described,
            "kind": "resnet",
            "gated": inner.gated,
            "network": backbone_runs.network_state(inner.network, views),
        }
    entry = network_library.find(network.name)
    weights = {name: value.detach().cpu() for name, value in network.module.state_dict().items()}
    return {**described, "kind": "library", "n_classes": n_classes(entry, network.module), "weights": weights}


def restore_network(state: State) -> StagedNetwork:
    """The network of what `network_state` gave, in evaluation mode on the CPU."""
    if state["kind"] == "resnet":
        found = backbone_runs.network_of(state["network"])
        return staged_resnet(
            found.network,
            gated=state["gated"],
            name=state["name"],
            mean=found.views.mean,
            std=found.views.sd,
            stages=tuple(state["stages"]),
        )
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in state["preprocessing"].items()
    }
    preprocessing = Preprocessing(**settings)
    entry = network_library.find(state["name"])
    network = network_library.build(entry, seed=0, n_classes=state["n_classes"] or None, image_size=preprocessing.image_size)
    network.load_state_dict(state["weights"])
    return StagedNetwork(network, name=state["name"], stages=tuple(state["stages"]), preprocessing=preprocessing).eval()


def tuned_tags(run: RunFolder) -> list[str]:
    """Tags of the networks that a run keeps, sorted; none of a ridge run."""
    found = [path.stem.partition("-")[::2] for path in (run.path / "checkpoints").glob("*-*.safetensors")]
    return sorted({tag for kind, tag in found if kind in ("network", FORMERLY)})


def load_tuned(run: RunFolder, tag: str) -> StagedNetwork:
    """A network of a run by its tag: 'untuned', a subject's name, or 'pooled', on the device; the metrics stay as they are."""
    state = run.read(f"network-{tag}") or run.read(f"{FORMERLY}-{tag}")
    if state is None:
        raise InputError(f"{run.path}: has no checkpoint network-{tag}")
    return restore_network(cast(State, state)).to(devices.current())
