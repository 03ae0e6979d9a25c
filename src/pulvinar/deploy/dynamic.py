"""A compact network that computes each block in the form that was fastest on this machine.

Compaction fixes what never opens; what remains depends on the image. Which form pays (deploy/block_forms.py) depends on the
machine, the layer, the batch and how the gates behave, so it is measured, block by block, on images: the first half of them
fills the caches of patterns, the second half, never seen before, is timed, all forms in turn in every round. The choice and the
times of every form are kept (`DynamicNetwork.choices`, `facts`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.core.progress import bar
from pulvinar.data.pixels import require_normalised
from pulvinar.deploy.block_forms import BlockForms
from pulvinar.deploy.compact import CompactNetwork
from pulvinar.deploy.compact_block import CompactBlock, Convolution
from pulvinar.deploy.compact_macs import ungrouped_macs
from pulvinar.deploy.packed import PackedConvolution
from pulvinar.deploy.timing import Clock, seconds_of

BUCKETS = (4, 8, 16)
BATCH_SIZES = (1, 32)
N_ROUNDS = 5
N_BATCHES = 8  # at each batch size: half to fill caches, half to time


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The form of a block (number) for batches of this size.

    milliseconds: of every form tried, the median over rounds of the mean over batches. pattern_hits: share of the timed images'
    patterns that were packed already; 1 - this had to be packed within the time.
    """

    block: int
    batch: int
    form: str
    milliseconds: dict[str, float]
    pattern_hits: float


def forms_for(batch: int, *, settled: bool = False) -> tuple[str, ...]:
    """The forms that make sense for batches of this size; a bucket has two images or more. settled: of such a block."""
    if settled:
        return ("masked",)
    if batch == 1:
        return ("masked", "gathered", "patterns")
    return ("masked", "patterns", *[f"sorted {n}" for n in BUCKETS if 2 * n <= batch])


class DynamicNetwork(nn.Module):
    """A compact network whose blocks run in chosen forms; exact, as that is. Without choices every block is masked.

    With a network without gates it is the same thing with packed weights, the fair rival of the others.

    For another batch size than those measured the choice of the nearest one below counts (of the smallest, if there is none).
    """

    def __init__(self, network: CompactNetwork, choices: Sequence[Choice] = (), *, max_patterns: int = 32) -> None:
        super().__init__()
        self.network, self.choices = network, tuple(choices)
        macs = ungrouped_macs(network.shape, network.size)
        self.stem = _packed_stem(network.stem)
        self.stem_macs, self.dense_macs = macs.stem, macs.dense
        blocks = [cast(CompactBlock, block) for block in network.blocks]
        self.forms = [BlockForms(block, of, max_patterns=max_patterns) for block, of in zip(blocks, macs.blocks, strict=True)]
        self._chosen = {(choice.batch, choice.block): choice.form for choice in choices}
        self._measured = sorted({choice.batch for choice in choices})

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """The average-pooled features."""
        maps = self.start(images)
        for number, forms in enumerate(self.forms):
            maps = forms.run(maps, self.form_of(number, len(images)))
        return maps.mean((2, 3))

    def start(self, images: Tensor) -> Tensor:
        """What the first block gets; `InputError` for what no normalisation leaves."""
        require_normalised(images, "images")
        maps = self.stem(images.contiguous(memory_format=torch.channels_last))
        return nn.functional.max_pool2d(maps, 3, stride=2, padding=1) if self.network.shape.stem.pooled else maps

    def form_of(self, block: int, batch: int) -> str:
        """The form that a block takes for a batch of this size."""
        below = [size for size in self._measured if size <= batch] or self._measured[:1]
        form = self._chosen.get((below[-1], block), "masked") if below else "masked"
        return "patterns" if form == "gathered" and batch > 1 else form

    @torch.no_grad()
    def gates(self, images: Float[Tensor, "image 3 height width"]) -> list[Tensor]:
        """Which channels were open (image, channel), for every gate in the original order of channels."""
        self.mac_share(images)
        return [opened for forms in self.forms for opened in forms.opened]

    @torch.no_grad()
    def mac_share(self, images: Float[Tensor, "image 3 height width"]) -> float:
        """Mean share of the dense network's multiply-adds that this batch really takes, gates included."""
        for forms in self.forms:
            forms.counting, forms.work = True, 0.0
        self(images)
        for forms in self.forms:
            forms.counting = False
        return (self.stem_macs + sum(forms.work for forms in self.forms) / len(images)) / self.dense_macs

    def facts(self) -> dict[str, Any]:
        """The choices with all measured times, for a file."""
        return {
            "forms": {str(n): [self.form_of(block, n) for block in range(len(self.forms))] for n in self._measured},
            "choices": [asdict(choice) for choice in self.choices],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def _packed_stem(stem: Convolution) -> PackedConvolution:
    bias = None if stem.bias is None else stem.bias.detach()
    return PackedConvolution(stem.weight.detach(), bias, stride=stem.stride, padding=stem.padding, relu=True)


@torch.no_grad()
def choose_forms(
    network: CompactNetwork,
    images: Float[Tensor, "image 3 height width"],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    n_batches: int = N_BATCHES,
    n_rounds: int = N_ROUNDS,
    clock: Clock = "wall",
) -> DynamicNetwork:
    """The network with the fastest form of every block at these batch sizes, measured on these images.

    images: normalised, like those that will come; n_batches at every size are used, in order. clock: deploy/timing.py.
    `InputError` for fewer than two of the largest batches.
    """
    if network.kept is None:
        raise InputError(f"network: the {network.form} form has no gates, so nothing in it depends on the image")
    if len(images) < 2 * max(batch_sizes):
        raise InputError(f"images: {len(images)} came, {2 * max(batch_sizes)} or more are needed for two batches")
    made = DynamicNetwork(network)
    choices = []
    with bar("choosing forms", len(batch_sizes) * len(made.forms)) as shown:
        for batch in batch_sizes:
            parts = [made.start(part) for part in images.split(batch)[:n_batches] if len(part) == batch]
            for number, forms in enumerate(made.forms):
                choices.append(_measured(number, forms, parts, n_rounds=n_rounds, clock=clock))
                parts = [forms.run(part, "masked") for part in parts]
                shown.advance()
    return DynamicNetwork(network, choices)


def _measured(number: int, forms: BlockForms, parts: Sequence[Tensor], *, n_rounds: int, clock: Clock) -> Choice:
    """Time every form of a block on the second half of these maps."""
    batch = len(parts[0])
    names = forms_for(batch, settled=forms.block.settled)
    before, timed = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    for part in before:
        for form in names:
            forms.run(part, form)
    warm, hits = forms.cache.copy(), 0.0
    seconds: dict[str, list[float]] = {form: [] for form in names}
    for _ in range(n_rounds):
        for form, found in seconds.items():
            forms.forget(warm)
            found.append(seconds_of(partial(forms.run, form=form), timed, warm_up=False, clock=clock))
            if form == "patterns":
                hits = forms.n_found / max(1, forms.n_found + forms.n_packed)
    forms.forget()
    medians = {form: 1000 * median(found) for form, found in seconds.items()}
    return Choice(
        block=number, batch=batch, form=min(medians, key=medians.__getitem__), milliseconds=medians, pattern_hits=hits
    )
