"""Room for training: what the fits of a method and of its pretrained run need beside their data, and where the data lie."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from pulvinar.app import registry
from pulvinar.core import devices, memory
from pulvinar.core.config import build
from pulvinar.data.experiment import Experiment
from pulvinar.decoding.data import embedding_shape
from pulvinar.decoding.decoder_checkpoint import stored_decoder
from pulvinar.learning.method import Data, Method
from pulvinar.learning.runs import RunFolder


@contextmanager
def room_for_training(method: Method, config: Any, opened: Data, plan: dict[str, Any] | None) -> Iterator[None]:
    """Where memory is limited: inside, the data leave room for the network; too little, and no disk for them, is refused."""
    if memory.limit() is None or method.phases is None:
        yield
        return
    with devices.using(config.device):
        training = training_of(method, config, opened, plan)
        reserved = training.reserved()
    with reserved:
        memory.require_scratch(training.scratch())
        yield


@dataclass(frozen=True)
class Training:
    """What the fits of a plan need: phases of each method, those of the pretrained run first."""

    method: str
    phases: list[list[Any]]

    @property
    def in_fit(self) -> int:
        """Bytes of the largest phase beside the data."""
        return max((phase.in_fit for own in self.phases for phase in own), default=0)

    @property
    def responses(self) -> list[int]:
        """Bytes of the responses of each subject, in the order in which they are read."""
        largest = [max((phase.responses for phase in own), key=sum) for own in reversed(self.phases) if own]
        return [size for sizes in largest for size in sizes]

    def reserved(self) -> AbstractContextManager[None]:
        """`memory.reserving` of it; `ConfigError` where it does not fit."""
        return memory.reserving(self.in_fit, f"training of {self.method} (weights, gradients, AdamW, a batch: see --dry-run)")

    def scratch(self) -> float:
        """Bytes that go to scratch files where memory is reserved; while voxels are dropped, those of a subject twice."""
        on_disk = memory.placed(self.responses)[1]
        return on_disk and on_disk + max(self.responses)


def training_of(method: Method, config: Any, opened: Data, plan: dict[str, Any] | None) -> Training:
    """What the fits of a method and of the pretrained run of its plan need, from shapes alone."""
    if method.phases is None or method.pretrained is None or plan is None:
        return Training(method.name, [] if method.phases is None else [method.phases(config, opened)])
    if "path" in plan:
        shape = stored_decoder(RunFolder.reopen(plan["path"]).require(method=method.pretrained)).shared.shape
        return Training(method.name, [method.phases(config, opened, shape)])
    inner = registry.method(method.pretrained)
    inner_config = build(inner.config, plan["settings"], name=inner.name)
    shape = inner_config.shape(**embedding_shape(cast(Experiment, opened), inner_config.feature))
    of_inner = training_of(inner, inner_config, opened, None).phases
    return Training(method.name, [*of_inner, method.phases(config, opened, shape)])
