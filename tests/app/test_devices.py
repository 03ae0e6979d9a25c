"""Every method's fit and evaluation on a device that is not the CPU: nothing is left behind, nothing is computed elsewhere.

The device is pretended (tests/pretend_device.py): a tensor that was not moved stops the test as it would on a GPU. What never
left the CPU does not stop, so the multiply-adds are counted: on the CPU only what `ON_THE_CPU` names may be computed.
"""

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from tiny_methods import METHODS, TINY, begin, pretrained_run
from torch import nn

import pretend_device
from pretend_device import NAME, WORK, pretended
from pulvinar.app import registry
from pulvinar.core import devices
from pulvinar.core.config import build
from pulvinar.core.errors import ConfigError
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.diffusion_prior import DiffusionPrior

QUICK = ("ridge_encoding",)  # the others take longer, and a process of their own
ON_THE_CPU = {  # files whose products are computed there, and why
    "networks/staged.py": "the shapes of a network's stages, found when it is built",
    "networks/stages.py": "the same",
    "networks/gated_resnet.py": "the same, of our own ResNets",
    "rsa/stage_mask.py": "inner products and scales of learning to aggregate; the features come from the device",
    "rsa/aggregation.py": "the same",
    "rsa/aggregation_scores.py": "the same",
    "scores/rdm.py": "the same",
    "scores/rdm_comparison.py": "the same",
    "rsa/inference.py": "permutations and resamples of RDMs",
    "decoding/pictures/reconstruction.py": "cosines of some hundred test images",
    "decoding/plain_ridge.py": "the ridge decoders of controls, by numpy but for inner products of targets",
}
SETTINGS = {"device": "cuda", "precision": "float32", "beside": "usual"}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The pretended device, which the settings call cuda."""
    with pretended() as found:
        monkeypatch.setattr(devices, "find", lambda name: found if name == "cuda" else torch.device("cpu"))
        with devices.using("cuda"):
            WORK.clear()
            yield found


def require_gradients(device: torch.device) -> None:
    """torch counts its devices at the first gradient of a process: a test before this file may have come first."""
    try:
        torch.ones(1).to(device).requires_grad_().sum().backward()
    except RuntimeError:
        pytest.skip("run this file by itself: pytest -n 0 -m 'slow or not slow' tests/app/test_devices.py")


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in METHODS])
def test_method_is_fitted_and_evaluated_on_the_device(name, device, tmp_path):
    if name not in QUICK:
        require_gradients(device)
    method = registry.method(name)
    data = TINY[method.data]()
    pretrained = pretrained_run(method, data, tmp_path / "pretrained", SETTINGS)
    config, run = begin(tmp_path / "run", method, data, SETTINGS)
    method.train(config, data, run, pretrained)
    finished = RunFolder.reopen(tmp_path / "run")
    assert finished.finished
    if method.evaluate is not None:
        method.evaluate(finished, data, config)
    elsewhere = Counter({file: work for (place, file), work in WORK.items() if place == "cpu"})
    assert WORK.total() > elsewhere.total(), elsewhere
    assert set(elsewhere) <= set(ON_THE_CPU), elsewhere


def _refused(work) -> str:
    with pytest.raises(RuntimeError) as caught:
        work()
    return str(caught.value)


def test_pretended_device_refuses_what_a_gpu_refuses(device):
    """Else a forgotten `.to(device)` would pass: each kind of it, once."""
    there, here = torch.ones(4, 3, device=device), torch.ones(4, 3)
    network = nn.Linear(3, 3)
    for mixed in (
        lambda: there + here,
        lambda: there @ here.T,
        lambda: torch.cat([there, here]),
        lambda: here[there[:, 0] > 0],
        lambda: here.index_add(0, torch.zeros(4, dtype=torch.long), there),
        lambda: network(there),
        lambda: nn.functional.conv2d(there[None, None], torch.ones(1, 1, 2, 2)),
    ):
        assert "same device" in _refused(mixed)
    assert "subclasses" in _refused(there.numpy)
    assert "generator" in _refused(lambda: there.normal_(generator=torch.Generator()))
    assert "generator" in _refused(lambda: torch.rand(3, generator=torch.Generator(), device=device))
    assert (there + 1).device == there[torch.tensor([0, 1])].device == there.new_tensor([1.0]).device == device
    assert torch.equal(network.to(device)(there).cpu(), network.cpu()(here))
    assert WORK[NAME, "backward"] > 0


@pytest.mark.slow
def test_prior_learns_and_samples_beside_a_generator_of_the_cpu(device):
    """It broke off wherever the weights were not on the CPU."""
    pytest.importorskip("diffusers")
    require_gradients(device)
    prior = DiffusionPrior(dim=8, n_tokens=1, n_layers=1, n_heads=2, head_dim=4).to(device)
    generator = torch.Generator().manual_seed(0)
    prior.initialise(generator)
    embedding, condition = torch.randn(5, 8).to(device), torch.randn(5, 8).to(device)
    prior.loss(embedding, condition, generator, condition_dropout=0.2).backward()
    assert all(parameter.device == device for parameter in prior.parameters())
    assert prior.sample(condition, generator, n_steps=2).device == device


def test_device_is_one_setting_of_every_method():
    for name in METHODS:
        config = registry.method(name).config
        assert config().device == "auto", name
        assert config.__dataclass_fields__["device"] is devices.DeviceSetting.__dataclass_fields__["device"], name
        with pytest.raises(ConfigError, match="a device is auto, cpu, cuda, cuda:0 and so on, or mps, not 'gpu'"):
            build(config, {"device": "gpu"}, name=name)


def test_device_that_is_not_here_is_refused_with_what_there_is(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ["cpu", "cuda:0"])
    with pytest.raises(ConfigError, match="device=cuda:3: not on this machine; there are cpu, cuda:0"):
        devices.find("cuda:3")
    assert devices.find("auto").type == devices.find("cuda").type == "cuda"
    monkeypatch.setattr(devices, "available", lambda: ["cpu"])
    assert devices.find("auto").type == "cpu"
    with pytest.raises(ConfigError, match="there is cpu"), devices.using("mps"):
        pass
    assert pretend_device.NAME not in devices.NAMES
