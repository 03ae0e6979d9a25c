"""Time and memory of TROI, stage 1 and 2, with and without shrinking, at the size of a real experiment.

Stimuli are photographs of Caltech 101, the target embedding is MobileNetV2's, and a brain is planted whose responsive voxels
follow SqueezeNet: no voxel follows the target itself. The shared decoder is pretrained on two smaller brains. Then

- shrunk: the library as it is; cut voxels have no column.
- full: the same code, settings, initial weights and random numbers, but every step of both stages computes all columns, of
  which the cut ones see zeros.

Each variant runs in a process of its own. Peak memory is the process's high-water mark (VmHWM of /proc/self/status, Linux);
it is set back once the first round has closed, cut included. Nothing is trimmed by hand: tensors of this size go back
to the system when they are freed. Both stages of both variants run the same epochs; nothing is scaled or extrapolated.

    python benchmarks/troi_shrinking.py --data caltech101 --weights weights --out result.json

`--data` holds caltech101_dev.tar and caltech101_dev.csv (columns path, class, split), `--weights` mobilenet_v2_imagenet.npz
and squeezenet1_0_imagenet.npz (arrays under their torchvision names).
"""

import argparse
import csv
import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from PIL import Image

from pulvinar.core.progress import bar, log, show
from pulvinar.core.storage import read_arrays, read_json, write_arrays, write_json
from pulvinar.data.experiment import Experiment
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets import simulated
from pulvinar.decoding.data import fit_embedding, held_out_data, training_data
from pulvinar.decoding.decoder_training import DecoderTrainer, decode
from pulvinar.decoding.mask_training import MaskTrainer, folds_by_stimulus
from pulvinar.decoding.methods import troi
from pulvinar.learning import checkpoints
from pulvinar.learning.loop import Record, run_to_end
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer
from pulvinar.networks.fixed_networks import principal_components
from pulvinar.scores.retrieval import retrieval_scores

N_TRIALS, N_TEST, EMBEDDING_DIM, TUNING_DIM, PIXELS = 600, 300, 128, 24, 224
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGEST_TIME_RATIO, LARGEST_MEMORY_RATIO = 0.4, 0.6
VARIANTS = ("shrunk", "full")


# --- the world --------------------------------------------------------------------------------------------------------


def photographs(folder: Path, rng: np.random.Generator) -> tuple[list[str], list[str], torch.Tensor]:
    """Names, splits (train or test) and pixels uint8 (image, PIXELS, PIXELS, 3): 2 x 600 training and 300 test images."""
    with (folder / "caltech101_dev.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = []
    for split, wanted in (("train", 2 * N_TRIALS), ("test", N_TEST)):
        own = [row for row in rows if row["split"] == split]
        chosen += [own[place] for place in rng.permutation(len(own))[:wanted]]
    pixels = np.empty((len(chosen), PIXELS, PIXELS, 3), np.uint8)
    with tarfile.open(folder / "caltech101_dev.tar") as archive:
        for place, row in enumerate(chosen):
            content = archive.extractfile(row["path"])
            if content is None:
                raise FileNotFoundError(f"{folder}: {row['path']} is not a file of the archive")
            picture = Image.open(io.BytesIO(content.read())).convert("RGB")
            pixels[place] = np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))
    return [row["path"] for row in chosen], [row["split"] for row in chosen], torch.from_numpy(pixels)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in read_arrays(path).items()}


@torch.no_grad()
def deep_features(folder: Path, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Features (image, dim) by name: MobileNetV2 pooled, and SqueezeNet after its early, middle and last stages, 2 x 2."""
    import torchvision

    mobile = torchvision.models.mobilenet_v2(num_classes=1001).eval()
    mobile.load_state_dict(_weights(folder / "mobilenet_v2_imagenet.npz"), strict=False)
    squeeze = torchvision.models.squeezenet1_0().eval()
    squeeze.load_state_dict(_weights(folder / "squeezenet1_0_imagenet.npz"))
    found: dict[str, list[torch.Tensor]] = {}
    mean, sd = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SD))
    with bar("features of the photographs", len(pixels)) as shown:
        for batch in pixels.split(50):
            images = batch.permute(0, 3, 1, 2).float() / 255
            found.setdefault("embedding", []).append(mobile.features((images * 255 - 128) / 128).mean((2, 3)))
            maps = (images - mean) / sd
            for place, stage in enumerate(squeeze.features):
                maps = stage(maps)
                if name := {5: "early", 10: "middle", 12: "late"}.get(place):
                    found.setdefault(name, []).append(torch.nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))
            shown.advance(len(batch))
    return {name: torch.cat(parts) for name, parts in found.items()}


def plant(options: argparse.Namespace) -> Experiment:
    """Two brains of 3,000 voxels that saw one half of the training images, and the large one that saw the other half."""
    rng = np.random.default_rng(options.seed)
    names, splits, pixels = photographs(options.data, rng)
    features = deep_features(options.weights, pixels)
    fit_rows = torch.arange(2 * N_TRIALS)
    embedding = principal_components(
        features.pop("embedding"), fit_rows=fit_rows, n_components=EMBEDDING_DIM, whitening=0.5
    )  # fmt: skip
    features["late scattered"] = features["late"]
    areas = {}
    for name, values in features.items():
        scores = principal_components(values, fit_rows=fit_rows, n_components=TUNING_DIM, whitening=0.5)
        areas[name] = (scores / scores[fit_rows].std(0).square().sum().sqrt()).numpy()
    own, others, test = np.split(np.arange(len(names)), (N_TRIALS, 2 * N_TRIALS))
    subjects, truth = {}, {}
    for number, (name, n_voxels) in enumerate({"subj01": 3000, "subj02": 3000, "subj03": options.n_voxels}.items()):
        log(f"planting {name}, {n_voxels} voxels")
        sessions = [(1, own), (2, test)] if name == "subj03" else [(1, others)]
        brain = simulated.Config(n_subjects=3, n_voxels=n_voxels)
        subject_rng = np.random.default_rng([options.seed, number])
        subjects[name], truth[name] = simulated.plant_subject(brain, name, sessions, names, areas, subject_rng)
    by_split = {split: tuple(n for n, s in zip(names, splits, strict=True) if s == split) for split in ("train", "test")}
    return Experiment(
        name="Caltech 101, planted brains",
        stimuli=Stimuli(
            ids=names, sources=names, features={"embedding": embedding.numpy()}, read_image=lambda row: pixels[row].numpy()
        ),
        subjects=subjects,
        split=Split(**by_split),
        target="subj03",
        truth=truth,
        facts={},
    )


def pretrain(options: argparse.Namespace, experiment: Experiment) -> SharedDecoder:
    """The shared decoder, trained on the two other brains, all voxels."""
    generator = torch.Generator().manual_seed(options.seed)
    embedding = fit_embedding(experiment, None)
    shared = SharedDecoder(DecoderShape(hidden=options.hidden, dim=EMBEDDING_DIM, n_blocks=2, dropout=0.15))
    shared.initialise(generator)
    trials = [training_data(experiment, name, embedding, scaling="train_stats") for name in ("subj01", "subj02")]
    layers = [input_layer(t.responses.shape[1], options.hidden, generator, scale=0.1) for t in trials]
    settings = troi.Config(epochs=options.pretraining_epochs)
    data = [(t.responses, t.target) for t in trials]
    trainer = DecoderTrainer(shared, layers, data, settings, generator, train_shared=True)
    run_to_end(trainer, "pretraining")
    return shared


def make_world(options: argparse.Namespace) -> None:
    """Write what the variants read: world.npz, test.npz and decoder.safetensors in the folder `options.world`."""
    experiment = plant(options)
    shared = pretrain(options, experiment)
    embedding = fit_embedding(experiment, None)
    trials = training_data(experiment, experiment.target, embedding, scaling="train_stats")
    held_out = held_out_data(experiment, experiment.target, embedding, scaling="train_stats")
    low_pass = experiment.subjects[experiment.target].geometry.low_pass(1.0)
    checkpoints.save(options.world / "decoder.safetensors", {"shared": dict(shared.state_dict())})
    write_arrays(options.world / "test.npz", responses=held_out.responses.numpy(), target=held_out.target.numpy())
    write_arrays(
        options.world / "world.npz",
        responses=trials.responses.numpy(),
        target=trials.target.numpy(),
        stimulus_ids=np.array(trials.stimulus_ids),
        planted=experiment.truth[experiment.target]["responsive"],
        **{f"low_pass_{part}": getattr(low_pass, part) for part in ("data", "indices", "indptr")},
    )


# --- one variant ------------------------------------------------------------------------------------------------------


def peak_memory() -> float:
    """High-water mark of this process's resident memory since it was last set back, GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def set_back_peak_memory() -> None:
    """The high-water mark becomes what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


class Clock:
    """Seconds of wall and of processor since the last call."""

    def __init__(self) -> None:
        self.last = np.zeros(2)
        self()

    def __call__(self) -> dict[str, float]:
        """Since the last call."""
        now = np.array([time.perf_counter(), time.process_time()])
        wall, processor = now - self.last
        self.last = now
        return {"wall": float(wall), "processor": float(processor)}


def first_layer(kept: torch.Tensor, hidden: int, generator: torch.Generator, *, shrink: bool) -> torch.nn.Linear:
    """Stage 2's layer on the kept voxels; without shrinking the same weights among all voxels, zero elsewhere."""
    small = input_layer(int(kept.sum()), hidden, generator, scale=0.1)
    if shrink:
        return small
    full = torch.nn.Linear(len(kept), hidden)
    with torch.no_grad():
        full.weight.zero_()[:, kept] = small.weight
        full.bias.copy_(small.bias)
    return full


def run_variant(options: argparse.Namespace) -> dict[str, Any]:
    """Stage 1 and 2; times by part, peak memory, and what was selected."""
    shrink = options.worker == "shrunk"
    world = read_arrays(options.world / "world.npz")
    config = troi.Config(
        seed=options.seed, n_folds=options.n_folds, n_rounds=options.rounds, epochs_per_round=options.epochs_per_round,
        epochs=options.epochs, shrink=shrink,
    )  # fmt: skip
    shared = SharedDecoder(DecoderShape(hidden=options.hidden, dim=EMBEDDING_DIM, n_blocks=2, dropout=0.15))
    shared.load_state_dict(checkpoints.load(options.world / "decoder.safetensors")["shared"])
    responses, target = torch.from_numpy(world.pop("responses")), torch.from_numpy(world["target"])
    n_voxels = responses.shape[1]
    low_pass = scipy.sparse.csr_array(
        tuple(world[f"low_pass_{part}"] for part in ("data", "indices", "indptr")), shape=(n_voxels, n_voxels)
    )  # fmt: skip
    generator = torch.Generator().manual_seed(options.seed)
    folds = folds_by_stimulus(world["stimulus_ids"].tolist(), config.n_folds, generator)
    objective = troi.FrozenDecoder(shared, target, config)
    set_back_peak_memory()
    clock, rounds = Clock(), []
    settings = replace(config, n_voxels=options.budget, learning_rate=options.stage_1_rate or config.learning_rate)
    trainer = MaskTrainer(responses, folds, objective, low_pass, settings, generator)
    del responses  # from here on the trainer's are the only ones

    def measure(record: Record) -> None:
        if record["epoch"] % config.epochs_per_round == 0:
            rounds.append({"n_voxels": record["n_alive"], "peak_memory": peak_memory(), **clock()})
            set_back_peak_memory()

    run_to_end(trainer, f"{options.worker}, stage 1", each=measure)
    if trainer.outcome is None:
        raise RuntimeError("stage 1 ended without an outcome")
    kept, path, mask = torch.from_numpy(trainer.outcome.kept), trainer.outcome.path, trainer.last_mask
    del trainer
    layer = first_layer(kept, options.hidden, generator, shrink=shrink)
    responses = torch.from_numpy(read_arrays(options.world / "world.npz")["responses"])
    responses = responses[:, kept].contiguous() if shrink else responses.mul_(kept)
    decoder = DecoderTrainer(shared, [layer], [(responses, target)], config, generator, train_shared=False)
    losses: list[float] = []
    run_to_end(decoder, f"{options.worker}, stage 2", each=lambda record: losses.append(record["loss"]))
    stage_2 = {"n_voxels": responses.shape[1], "peak_memory": peak_memory(), **clock()}
    held_out = read_arrays(options.world / "test.npz")
    test = torch.from_numpy(held_out["responses"])
    projected = decode(shared, layer, test[:, kept].contiguous() if shrink else test.mul_(kept))["projected"].numpy()
    scores = retrieval_scores(projected, held_out["target"], generator=np.random.default_rng(0)).scores
    return {
        "rounds": rounds,
        "stage_2": stage_2,
        "path": path,
        "selected": np.flatnonzero(kept.numpy()).tolist(),
        "mask_of_selected": mask[kept.numpy()].tolist(),
        "planted": overlap_with_planted(kept.numpy(), world["planted"]),
        "last_loss": losses[-1],
        "identified": scores["brain_to_image_top1"],
    }


def overlap_with_planted(kept: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    """Precision of the selected voxels, the share of planted voxels (chance), and the number selected."""
    return {"precision": float(planted[kept].mean()), "chance": float(planted.mean()), "n_selected": int(kept.sum())}


# --- comparison -------------------------------------------------------------------------------------------------------


def compare(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Time and memory of the shrunk variant over the full one, and how far their results agree."""

    def seconds(name: str, kind: str, parts: str) -> float:
        stage_1 = sum(part[kind] for part in results[name]["rounds"])
        stage_2 = results[name]["stage_2"][kind]
        return {"stage 1": stage_1, "stage 2": stage_2, "stage 1 + 2": stage_1 + stage_2}[parts]

    def peak(name: str, parts: str) -> float:
        every = [part["peak_memory"] for part in (*results[name]["rounds"], results[name]["stage_2"])]
        return max(every[1:] if parts == "after round 1" else every[:1] if parts == "round 1" else every)

    rows = []
    for kind in ("wall", "processor"):
        for parts in ("stage 1", "stage 2", "stage 1 + 2"):
            rows.append((f"{kind} time, {parts} (s)", *(seconds(name, kind, parts) for name in VARIANTS)))
    for parts in ("round 1", "after round 1"):
        rows.append((f"peak memory, {parts} (GB)", *(peak(name, parts) for name in VARIANTS)))
    table = [{"what": what, "shrunk": shrunk, "full": full, "ratio": shrunk / full} for what, shrunk, full in rows]
    ratio = {row["what"]: row["ratio"] for row in table}
    selected = [set(results[name]["selected"]) for name in VARIANTS]
    return {
        "table": table,
        "same_voxels": len(selected[0] & selected[1]) / len(selected[0]),
        "time_target_met": ratio["wall time, stage 1 + 2 (s)"] <= LARGEST_TIME_RATIO,
        "memory_target_met": ratio["peak memory, after round 1 (GB)"] <= LARGEST_MEMORY_RATIO,
    }


def report(results: dict[str, dict[str, Any]], comparison: dict[str, Any] | None) -> None:
    """Print rounds, ratios and what was selected."""
    for name, result in results.items():
        print(f"\n{name}")
        parts = [(f"round {number}", part) for number, part in enumerate(result["rounds"], start=1)]
        for label, part in (*parts, ("stage 2", result["stage_2"])):
            print(f"  {label}: {part['n_voxels']:>6} voxels {part['wall']:8.1f} s wall {part['processor']:8.1f} s processor"
                  f" {part['peak_memory']:6.2f} GB peak")  # fmt: skip
        planted = result["planted"]
        print(f"  {planted['n_selected']} voxels selected ({result['path']}): {planted['precision']:.3f} of them planted,"
              f" chance {planted['chance']:.3f}; {result['identified']:.3f} of {N_TEST} test images identified")  # fmt: skip
    if comparison is None:
        return
    print(f"\n{'':36} {'shrunk':>8} {'full':>8} {'ratio':>6}")
    for row in comparison["table"]:
        print(f"{row['what']:36} {row['shrunk']:8.2f} {row['full']:8.2f} {row['ratio']:6.3f}")
    print(f"selected by both: {comparison['same_voxels']:.4f}")
    print(f"time over stage 1 + 2 at most {LARGEST_TIME_RATIO}: {'yes' if comparison['time_target_met'] else 'no'}")
    print(f"memory after round 1 at most {LARGEST_MEMORY_RATIO}: {'yes' if comparison['memory_target_met'] else 'no'}")


def in_own_process(arguments: Sequence[str], worker: str, world: Path) -> dict[str, Any]:
    """Run this file as one worker; what it wrote. The last --world and --worker win."""
    command = [sys.executable, __file__, *arguments, "--world", str(world), "--worker", worker]
    subprocess.run(command, check=True)
    return read_json(world / f"{worker}.json") if worker != "world" else {}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="TROI with and without shrinking: time and peak memory, side by side.")
    parser.add_argument("--data", type=Path, required=True, help="folder of caltech101_dev.tar and caltech101_dev.csv")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the two networks' weights (.npz)")
    parser.add_argument("--out", type=Path, help="JSON with all numbers")
    parser.add_argument("--world", type=Path, help="folder to keep the planted world in, and to read it from again")
    parser.add_argument("--only", choices=VARIANTS, help="one variant alone")
    for name, default, text in (
        ("n-voxels", 96_000, "places in the new subject's head"),
        ("budget", 3_000, "voxels to select"),
        ("hidden", 1_024, "width of the shared decoder"),
        ("n-folds", troi.Config().n_folds, "cross-fitting folds of stage 1"),
        ("rounds", troi.Config().n_rounds, "rounds of stage 1"),
        ("epochs-per-round", 1, "passes over the trials in a round (troi: 12)"),
        ("epochs", 3, "passes over the trials in stage 2 (troi: 40)"),
        ("pretraining-epochs", 20, "passes over the trials of the other brains"),
        ("threads", torch.get_num_threads(), "threads"),
        ("seed", 0, "everything random"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    parser.add_argument("--stage-1-rate", type=float, help="learning rate of stage 1 (default: troi's)")
    parser.add_argument("--worker", choices=("world", *VARIANTS), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Both variants, or one worker."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.worker == "world":
        make_world(options)
        return
    if options.worker:
        write_json(options.world / f"{options.worker}.json", run_variant(options))
        return
    with tempfile.TemporaryDirectory() as temporary:
        world = options.world or Path(temporary)
        world.mkdir(parents=True, exist_ok=True)
        if not (world / "world.npz").exists():
            in_own_process(arguments, "world", world)
        results = {name: in_own_process(arguments, name, world) for name in VARIANTS if options.only in (None, name)}
    comparison = compare(results) if len(results) == len(VARIANTS) else None
    report(results, comparison)
    if options.out:
        settings = {name: value for name, value in vars(options).items() if isinstance(value, int | float)}
        write_json(options.out, {"settings": settings, "results": results, "comparison": comparison})


if __name__ == "__main__":
    show(True)
    main(sys.argv[1:])
