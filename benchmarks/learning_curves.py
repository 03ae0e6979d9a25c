"""Learning curves: how many trials do selected voxels need to identify as many images as the annotated ROI with 600?

    python benchmarks/learning_curves.py --out FOLDER --seeds 3 --first 400 [--kinds plain drift] [--decoder-kinds plain]

Planted cortex of `planted_cortex.py` (2,000 voxels, 150 kept, but for the annotated ROI and all voxels), its first 75,
150, 300, 600 and 1,200 trials, each of another image. Selectors: all voxels, the annotated ROI, univariate R2, cross_fitted,
ard, and an oracle, backward elimination that knows the truth (penalty 1). Decoders: plain ridge in every kind; in
`--decoder-kinds`, up to 600 trials, annotated ROI and ard, also the cross-subject decoder with its usual settings, its shared
part pretrained on the annotated ROI of three other subjects with 1,000 trials each (images that the new subject never sees),
and the average of both, each image's outputs of unit length added. Score: top-1 of 200 test images, brain -> image, three
repeats averaged.

Match: the trials at which a selection's mean curve first reaches the score of the annotated ROI with 600 trials under the
same decoder, linear in the logarithm of trials between two numbers of trials; where a curve is above from the start, or never
gets there, its first or last number of trials is marked. Ratio: that over 600. Intervals (95 %): seeds drawn with replacement
and images within each, the same for all curves and kinds, so that both scores of a ratio vary together.

A line per cell in FOLDER/cells.jsonl: what is there is not made again. The table (curves.md), the figure
(learning_curves.png) and settings.json are of all that is there.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from planted_cortex import BUDGET, KINDS, N_TEST, N_TEST_REPEATS, WORLD, Problem, World
from planted_selectors import resampled

from pulvinar.core.notebook import counted
from pulvinar.core.progress import bar, show
from pulvinar.core.storage import read_json, to_jsonable, write_json, write_text
from pulvinar.decoding import side_by_side
from pulvinar.decoding.decoder_training import DecoderTrainer, decode
from pulvinar.decoding.methods.cross_subject_decoder import Config as Pretraining
from pulvinar.decoding.settings import AdaptationSettings
from pulvinar.learning.loop import seeded
from pulvinar.learning.runs import environment
from pulvinar.networks.decoder import SharedDecoder, input_layer
from pulvinar.report.drawing import GROUPS, MUTED, save, style
from pulvinar.scores.resampling import percentile_interval

TRIALS = (75, 150, 300, 600, 1200)
REFERENCE, ENOUGH = "annotated", 600
OTHERS = (1000, 1000, 1000)  # training trials of the other subjects
ORACLE = "backward 1"
LABELS = {
    "annotated": "annotated ROI",
    "all": "all voxels",
    "univariate": "univariate R2",
    "cross_fitted": "cross_fitted",
    "ard": "ard",
    ORACLE: "oracle",
}
COLOURS = dict(zip(("annotated", "ard", "univariate", "cross_fitted", "all", ORACLE), GROUPS, strict=False))
DECODERS = {"ridge": "plain ridge", "decoder": "cross-subject decoder", "average": "average of both"}
DECODED = ("annotated", "ard")  # selections that get more decoders than ridge, up to ENOUGH trials
Key = tuple[str, int, int, str, str]  # kind, seed, trials, selector, decoder


class Cells:
    """Results by cell, a line of JSON each; settings beside them, which a folder has only one set of."""

    def __init__(self, folder: Path, selectors: Sequence[str] = tuple(LABELS)) -> None:
        self.path, self.found = folder / "cells.jsonl", {}
        self.labels = {name: label for name, label in LABELS.items() if name in (REFERENCE, *selectors)}
        settings = to_jsonable(
            {
                "world": WORLD,
                "n_test": N_TEST,
                "n_test_repeats": N_TEST_REPEATS,
                "budget": BUDGET,
                "trials": TRIALS,
                "others": OTHERS,
                "pretraining": vars(Pretraining()),
                "adaptation": vars(AdaptationSettings()),
            }
        )
        beside = folder / "settings.json"
        if beside.exists() and read_json(beside)["settings"] != settings:
            raise SystemExit(f"{folder}: made with other settings (settings.json); take another --out")
        write_json(beside, {"settings": settings, "environment": environment()})
        for line in self.path.read_text().splitlines(keepends=True) if self.path.exists() else []:
            if line.endswith("\n"):  # the last one may have been cut off
                cell = json.loads(line)
                self.found[self.key(cell)] = cell
        self._write()

    @staticmethod
    def key(cell: dict) -> Key:
        return cell["kind"], cell["seed"], cell["trials"], cell["selector"], cell["decoder"]

    def add(self, key: Key, found: np.ndarray, **facts: float) -> None:
        """One more cell, on disk at once."""
        cell = dict(zip(("kind", "seed", "trials", "selector", "decoder"), key, strict=True))
        cell |= {"score": float(found.mean()), "found": "".join(str(int(one)) for one in found), **facts}
        self.found[key] = cell
        with self.path.open("a") as file:
            file.write(json.dumps(cell) + "\n")

    def curves(self, kinds: Sequence[str], seeds: Sequence[int], selector: str, decoder: str) -> np.ndarray:
        """Share of kinds in which each image is found (trials, seed, image), as many trials as this decoder has."""

        def of(kind: str, seed: int, n: int) -> np.ndarray:
            return np.array(list(self.found[kind, seed, n, selector, decoder]["found"]), float)

        several = [n for n in TRIALS if decoder == "ridge" or n <= ENOUGH]
        return np.array([[[of(kind, seed, n) for seed in seeds] for n in several] for kind in kinds]).mean(0)

    def _write(self) -> None:
        write_text(self.path, "".join(json.dumps(cell) + "\n" for cell in self.found.values()))


def wanted(selectors: Iterable[str], kind: str, seed: int, decoder_kinds: Sequence[str]) -> Iterator[Key]:
    """The cells of one world."""
    for n, selector in itertools.product(TRIALS, selectors):
        decoded = kind in decoder_kinds and selector in DECODED and n <= ENOUGH
        more = tuple(DECODERS) if decoded else ("ridge",)
        yield from ((kind, seed, n, selector, decoder) for decoder in more)


def make(cells: Cells, kind: str, seed: int, decoder_kinds: Sequence[str]) -> Iterator[int]:
    """The cells of one world that are not there yet; yields how many are done."""
    left = [key for key in wanted(cells.labels, kind, seed, decoder_kinds) if key not in cells.found]
    if not left:
        return
    world, shared = World(kind, seed, TRIALS[-1], OTHERS), None
    for n in TRIALS:
        here = [key for key in left if key[2] == n]
        if not here:
            continue
        problem, kept, outputs = world.of(n), {}, {}
        for selector in dict.fromkeys(key[3] for key in here):
            start = time.process_time()
            kept[selector] = problem.kept(selector)
            seconds, outputs[selector] = time.process_time() - start, problem.ridge(kept[selector])
            key = (kind, seed, n, selector, "ridge")
            if key in here:
                signal = float(world.truth["responsive"][kept[selector]].mean())
                facts = {"n_voxels": int(kept[selector].sum()), "with_signal": signal, "seconds": seconds}
                cells.add(key, problem.identified(outputs[selector]), **facts)
                yield 1
        names = list(dict.fromkeys(key[3] for key in here if key[4] != "ridge"))
        if names:
            shared = shared or pretrained(world)
            for name, decoded in zip(names, adapted(shared, problem, [kept[name] for name in names]), strict=True):
                cells.add((kind, seed, n, name, "decoder"), problem.identified(decoded))
                cells.add((kind, seed, n, name, "average"), problem.identified(decoded + outputs[name]))
                yield 2


def pretrained(world: World) -> SharedDecoder:
    """What the decoders of all subjects share, trained on the others."""
    settings, data = Pretraining(seed=world.seed), list(world.others())
    generator = seeded(settings.seed)
    shared = SharedDecoder(settings.shape(n_tokens=1, dim=data[0][1].shape[1]))
    shared.initialise(generator)
    layers = [input_layer(x.shape[1], settings.hidden, generator, scale=settings.input_scale) for x, _ in data]
    trainer = DecoderTrainer(shared, layers, data, settings, generator, train_shared=True)
    while not trainer.done:
        trainer.run_epoch()
    return shared


def adapted(shared: SharedDecoder, problem: Problem, selections: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Outputs of the shared decoder behind an input layer on each selection, as `Problem.of_images` gives them."""
    settings, trainers = AdaptationSettings(seed=problem.world.seed), []
    for kept in selections:
        generator = seeded(settings.seed, 4, n_streams=16)  # of stage 2
        layer = input_layer(int(kept.sum()), shared.hidden, generator, scale=settings.input_scale)
        data = [(problem.trials.responses[:, torch.from_numpy(np.flatnonzero(kept))].contiguous(), problem.trials.target)]
        trainers.append(DecoderTrainer(shared, [layer], data, settings, generator, train_shared=False))
    for _ in side_by_side.train(trainers):
        pass
    outputs = []
    for kept, trainer in zip(selections, trainers, strict=True):
        projected = decode(shared, trainer.layers[0], problem.test_responses(kept))["projected"]
        outputs.append(problem.of_images(projected.numpy()))
    return outputs


def matched(curve: np.ndarray, level: float) -> float:
    """Trials at which a curve first reaches a level, linear in their logarithm; the first or last number of trials where it
    is above from the start, or never reaches it."""
    if not (curve >= level).any():
        return float(TRIALS[len(curve) - 1])
    place = int(np.argmax(curve >= level))
    if place == 0:
        return float(TRIALS[0])
    part = (level - curve[place - 1]) / (curve[place] - curve[place - 1])
    return float(np.exp(np.interp(part, (0, 1), np.log(TRIALS[place - 1 : place + 1]))))


def trials_text(n: float, last: int, *, ratio: bool) -> str:
    """A number of trials, or its ratio to the reference's, marked where it is the first or last that was measured."""
    sign = "≤ " if n <= TRIALS[0] else "≥ " if n >= last else ""
    return sign + (f"{n / ENOUGH:.2f}" if ratio else f"{n:,.0f}")


def match_text(found: np.ndarray, reference: np.ndarray) -> list[str]:
    """Trials and ratio, with an interval, at which `found` (trials, seed, image) has what `reference` has with 600."""
    means, place = resampled(found[0], np.random.default_rng(0)), TRIALS.index(ENOUGH)
    drawn, levels = np.stack([means(values) for values in found], axis=1), means(reference[place])
    several = np.array([matched(curve, level) for curve, level in zip(drawn, levels, strict=True)])
    n = matched(found.mean((1, 2)), reference[place].mean())
    last = TRIALS[len(found) - 1]
    bounds = ", ".join(trials_text(bound, last, ratio=True) for bound in percentile_interval(several))
    return [trials_text(n, last, ratio=False), f"{trials_text(n, last, ratio=True)} [{bounds}]"]


def seeds_of(cells: Cells, kinds: Sequence[str], decoders: Sequence[str]) -> list[int]:
    """Seeds for which everything is there."""
    every = sorted({key[1] for key in cells.found})
    return [
        seed
        for seed in every
        if all(key in cells.found for kind in kinds for key in wanted(cells.labels, kind, seed, kinds if decoders else ()))
    ]


def table(cells: Cells, kinds: Sequence[str], decoders: Iterable[str]) -> str:
    """Scores by trials, mean over kinds and seeds, and when each selection has what the annotated ROI has with 600."""
    decoders = tuple(decoders)
    more = [decoder for decoder in decoders if decoder != "ridge"]
    seeds = seeds_of(cells, kinds, more)
    if not seeds:
        return ""
    lines = [
        f"{', '.join(kinds)}; seeds {', '.join(map(str, seeds))}; top-1 of {N_TEST}",
        "",
        f"| decoder | voxels | {' | '.join(f'{n:,}' for n in TRIALS)} | as good as annotated with {ENOUGH} | ratio |",
        "|---|---|" + "---|" * (len(TRIALS) + 2),
    ]
    for decoder in decoders:
        reference = cells.curves(kinds, seeds, REFERENCE, decoder)
        for selector in cells.labels if decoder == "ridge" and not more else DECODED:
            found = cells.curves(kinds, seeds, selector, decoder)
            scores = [f"{score:.3f}" for score in found.mean((1, 2))] + ["–"] * (len(TRIALS) - len(found))
            match = ["–", "–"] if selector == REFERENCE else match_text(found, reference)
            lines.append("| " + " | ".join([DECODERS[decoder], LABELS[selector], *scores, *match]) + " |")
    if not more and {"ard", "univariate"} <= set(cells.labels):
        ours, simple = (cells.curves(kinds, seeds, name, "ridge") for name in ("ard", "univariate"))
        n, ratio = match_text(ours, simple)
        lines.append(f"\nard, as good as {LABELS['univariate']} with {ENOUGH}: {n}, {ratio}")
    if more:
        best = max(decoders, key=lambda name: cells.curves(kinds, seeds, REFERENCE, name)[TRIALS.index(ENOUGH)].mean())
        reference = cells.curves(kinds, seeds, REFERENCE, best)
        for decoder in decoders:
            n, ratio = match_text(cells.curves(kinds, seeds, "ard", decoder), reference)
            lines.append(
                f"\nard, {DECODERS[decoder]}, against the annotated ROI with its best decoder ({DECODERS[best]}): {n}, {ratio}"
            )
    return "\n".join(lines)


def draw(cells: Cells, folder: Path, panels: Sequence[tuple[Sequence[str], str, bool]]) -> None:
    """Curves of every selection, a panel for each (kinds, decoder, whether more decoders than ridge are asked for)."""
    panels = [panel for panel in panels if seeds_of(cells, panel[0], ["decoder"] if panel[2] else [])]
    with mpl.rc_context(style()):
        figure = Figure(figsize=(4.2 * len(panels) + 1.5, 3.7), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (kinds, decoder, more) in zip(axes, panels, strict=True):
            seeds = seeds_of(cells, kinds, ["decoder"] if more else [])
            for selector, label in cells.labels.items():
                if decoder != "ridge" and selector not in DECODED:
                    continue
                scores = cells.curves(kinds, seeds, selector, decoder).mean((1, 2))
                look = {"linestyle": (0, (4, 2))} if selector == ORACLE else {}
                axis.plot(
                    TRIALS[: len(scores)], scores, color=COLOURS[selector], marker="o", markersize=3.5, label=label, **look
                )
                if selector == REFERENCE:
                    axis.axhline(scores[TRIALS.index(ENOUGH)], color=MUTED, linewidth=0.8, linestyle=":")
            axis.set_xscale("log")
            axis.set_xticks(TRIALS, [f"{n:,}" for n in TRIALS], minor=False)
            axis.minorticks_off()
            axis.set(
                title=f"{DECODERS[decoder]}, {counted(len(kinds), 'kind')} of cortex, {counted(len(seeds), 'seed')}",
                xlabel="training trials",
                ylim=(0, None),
            )
        axes[0].set_ylabel(f"images identified, of {N_TEST} (top-1)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
        save(figure, folder, "learning_curves", simulated=True, formats=("png",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=400, help="the first seed")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--decoder-kinds", nargs="*", default=["plain", "unequal"], choices=KINDS)
    parser.add_argument("--selectors", nargs="+", default=list(LABELS), choices=LABELS, help="beside the annotated ROI")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cells, seeds = Cells(options.out, options.selectors), range(options.first, options.first + options.seeds)
    worlds = [(kind, seed) for seed in seeds for kind in options.kinds]
    left = sum(key not in cells.found for world in worlds for key in wanted(cells.labels, *world, options.decoder_kinds))
    with bar("cells", left) as progress:
        for kind, seed in worlds:
            for n in make(cells, kind, seed, options.decoder_kinds):
                progress.advance(n, note=f"{kind} {seed}")
    parts = [([kind], ["ridge"]) for kind in options.kinds]
    joint = [(options.kinds, ["ridge"])] if len(options.kinds) > 1 else []
    parts = [*joint, *([(options.decoder_kinds, DECODERS)] if options.decoder_kinds else []), *parts]
    text = "\n\n".join(filter(None, (table(cells, kinds, decoders) for kinds, decoders in parts)))
    write_text(options.out / "curves.md", text + "\n")
    more = [(options.decoder_kinds, decoder, True) for decoder in DECODERS] if options.decoder_kinds else []
    draw(cells, options.out, [(options.kinds, "ridge", False), *more[1:]])
    print(text)


if __name__ == "__main__":
    show(True)
    main()
