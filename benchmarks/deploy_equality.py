"""Is a compact network equal to its masked reference on every input, in torch, ONNX Runtime and OpenVINO?

    OMP_NUM_THREADS=1 uv run python benchmarks/deploy_equality.py --run RUN --data cifar10.npz --out equality.csv
    OMP_NUM_THREADS=1 uv run python benchmarks/deploy_equality.py --data cifar10.npz --out equality_full.csv

Inputs: real images that did not calibrate, noise, and images optimised to open dropped channels or to close always-open ones.
Two cuts: `calibrated` drops what the calibration images never open; `halved` keeps, of each gate's channels that open at all,
the half that opens most, so that every block is missed often. Without --run: ResNet-18 of full width, weights drawn and
perturbed, so that nothing is trained away.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from pulvinar.app.data import open_data
from pulvinar.core.progress import log, show, track
from pulvinar.core.storage import write_text
from pulvinar.deploy.calibration import calibrate
from pulvinar.deploy.compact import CompactNetwork, compact_to
from pulvinar.deploy.equality import Equality, Form, Outputs, compare, onnx_form, torch_form
from pulvinar.deploy.onnx_files import onnx_model, run_with
from pulvinar.deploy.probes import adversarial, noise, normalised
from pulvinar.learning.backbone_runs import load_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape
from pulvinar.scores.table import csv_text

BATCH = 100


def perturbed(size: int) -> GatedResNet:
    """ResNet-18 of full width: He-normal weights, batch-norms and their statistics drawn at random, no bias in the gates."""
    generator = torch.Generator().manual_seed(0)
    network = GatedResNet(resnet_shape("resnet18", size=size), size=size, gate_bias=None).initialise(generator)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def as_trained(network: GatedResNet, cut: CompactNetwork) -> Form:
    """The gated pass itself, batch-norms and all."""

    @torch.no_grad()
    def run(images: torch.Tensor) -> Outputs:
        found = network(images, gated=True)
        none = np.zeros((len(images), len(cut.dropped)), bool)
        return Outputs(features=found.features.numpy(), logits=torch.cat(found.logits, 1).numpy(), misses=none)

    return run


def attacks(cut: CompactNetwork, counts: list[torch.Tensor], images: torch.Tensor, *, n_steps: int) -> torch.Tensor:
    """Images that go for each gate in turn: one half opens dropped channels, the other closes always-open ones."""
    generator = torch.Generator().manual_seed(1)
    made = []
    parts = images.chunk(2 * len(cut.dropped))
    for number, part in enumerate(track(parts, "adversarial images", len(parts))):
        gate = number // 2
        always = (counts[gate] == counts[gate].max()).nonzero()[:, 0]
        always = always[torch.isin(always, cut.kept[gate])]
        channels, aim = (cut.dropped[gate], "open") if number % 2 == 0 else (always, "close")
        if not len(channels):
            channels, aim = (always, "close") if aim == "open" else (cut.dropped[gate], "open")
        options = {"gate": gate, "channels": channels, "aim": aim, "generator": generator, "n_steps": n_steps}
        made.append(adversarial(cut, part, **options) if len(channels) else part)
    return torch.cat(made)


def closed_always_open(found: Outputs, counts: list[torch.Tensor], n_calibration: int) -> int:
    """Images for which a gate closes a channel that every calibration image opens."""
    always = np.concatenate([(count == n_calibration).numpy() for count in counts])
    return int((found.logits[:, always] < 0).any(1).sum())


def forms(network: GatedResNet, cut: CompactNetwork) -> dict[str, tuple[Form, Form]]:
    """(reference, compact) for every runtime."""
    masked = cut.masked()
    made = {"torch": (torch_form(masked), torch_form(cut)), "torch, as trained": (as_trained(network, cut), torch_form(cut))}
    for runtime in ("onnxruntime", "openvino"):
        files = [onnx_model(form, runtime=runtime).SerializeToString() for form in (masked, cut)]
        reference, found = (onnx_form(run_with(file, runtime), cut) for file in files)
        made[runtime] = (reference, found)
    return made


def row(name: str, cut: str, runtime: str, kind: str, result: Equality, dropped: list[int]) -> dict[str, object]:
    """A line of the table."""
    misses = [count for count, lost in zip(result.misses, dropped, strict=True) if lost]
    return {
        "network": name,
        "cut": cut,
        "runtime": runtime,
        "inputs": kind,
        "n": result.n_images,
        "missed_images": result.missed_images,
        "fewest_misses_of_a_block": min(misses, default=0),
        "misses": " ".join(map(str, result.misses)),
        "flipped_images": result.flipped,
        "flips": result.flips,
        "largest_flip": f"{result.largest_flip:.1e}",
        "flips_not_rounding": result.not_rounding,
        "max_relative_difference": f"{result.max_relative_difference:.1e}",
        "images_above_1e-5": result.n_above_tolerance,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="finished gated run; without it the perturbed network of full width")
    parser.add_argument("--data", required=True, help="images, as for `pulvinar fit`")
    parser.add_argument("--out", required=True, help="CSV file")
    parser.add_argument("--inputs", type=int, nargs=3, default=(6000, 2000, 2000), help="real, noise, adversarial")
    parser.add_argument("--steps", type=int, default=20, help="of an adversarial image")
    parser.add_argument("--cuts", nargs="+", default=["calibrated", "halved"])
    parser.add_argument("--calibration", type=int, default=2000, help="images that choose the cuts")
    parser.add_argument("--part", type=int, default=0, help="other real images and other seeds; the rows of parts add up")
    arguments = parser.parse_args()
    data = open_data("images", arguments.data)
    network = load_backbone(RunFolder.reopen(arguments.run)).network if arguments.run else perturbed(data.size[0])
    name = Path(arguments.run).name if arguments.run else "perturbed"
    base = compact_to(network, [torch.arange(n) for n in network.shape.gate_channels])  # for the normalisation
    n_real, n_noise, n_attacked = arguments.inputs
    n_used, seed = n_real + n_attacked // 2, 10 * arguments.part
    pool = np.concatenate([data.test, data.train])
    first = arguments.calibration + arguments.part * n_used
    if len(pool) < first + n_used:
        parser.error(f"--part {arguments.part}: {len(pool)} images, {first + n_used} are needed")
    images = [pool[: arguments.calibration], pool[first : first + n_used]]
    calibration, rest = (normalised(base, torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255) for part in images)
    found = calibrate(network, calibration)
    counts = list(found.counts)
    halves = [count.argsort(descending=True, stable=True)[: int((count > 0).sum() + 1) // 2].sort().values for count in counts]
    rows = []
    for cut_name, kept in (("calibrated", list(found.kept)), ("halved", halves)):
        if cut_name not in arguments.cuts:
            continue
        cut = compact_to(network, kept)
        log(f"{name}, {cut_name}: {[len(part) for part in kept]} channels kept, MAC share {cut.macs.share:.3f}")
        drawn = noise(cut, n_attacked - n_attacked // 2, torch.Generator().manual_seed(seed + 2))
        start = torch.cat([rest[n_real : n_real + n_attacked // 2], drawn])
        start = start[torch.randperm(len(start), generator=torch.Generator().manual_seed(seed + 3))]
        kinds = {
            "real": rest[:n_real],
            "noise": noise(cut, n_noise, torch.Generator().manual_seed(seed)),
            "adversarial": attacks(cut, counts, start, n_steps=arguments.steps),
        }
        closed = {
            kind: sum(closed_always_open(torch_form(cut)(part), counts, len(calibration)) for part in made.split(BATCH))
            for kind, made in kinds.items()
        }
        print(f"{name}, {cut_name}: images that close a channel that every calibration image opens: {closed}", flush=True)
        dropped = [len(part) for part in cut.dropped]
        for runtime, (reference, compacted) in forms(network, cut).items():
            total = None
            for kind, made in kinds.items():
                parts = track(made.split(BATCH), f"{runtime}, {kind}", -(-len(made) // BATCH))
                result = compare(cut, reference, compacted, parts)
                total = result if total is None else total + result
                rows.append(row(name, cut_name, runtime, kind, result, dropped))
            rows.append(row(name, cut_name, runtime, "all", total, dropped))
            print(rows[-1], flush=True)
    write_text(arguments.out, csv_text(rows))


if __name__ == "__main__":
    show(True)
    main()
