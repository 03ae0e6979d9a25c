"""`pulvinar deploy pareto`: accuracy against measured latency of every form of some runs, all timed in turn in one runtime.

Forms of a run: dense (its dense pass, or narrow where it was trained as one), compact, levels or routes (its gates), static
(the mean policy of its gates at their share, batch-norms estimated anew), and int8 of those without `If`. Each is written as an
ONNX file, and its accuracy is that of the file's own features, so that what is timed is what is scored.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from pulvinar.app import deploy_bench
from pulvinar.app.data import open_data
from pulvinar.core import terminal
from pulvinar.core.config import read_toml
from pulvinar.core.errors import InputError
from pulvinar.core.progress import log, track
from pulvinar.core.sampling import evenly_spaced
from pulvinar.core.storage import atomic_folder, refuse_existing, write_json, write_text
from pulvinar.data.image_set import ImageSet
from pulvinar.deploy.choices import choice_network
from pulvinar.deploy.compact import CompactNetwork, compact, dense_network
from pulvinar.deploy.onnx_files import N_QUANTISATION_IMAGES, choice_model, export_int8, onnx_model, run_with
from pulvinar.deploy.timing import Clock, in_turn, seconds_of
from pulvinar.gating import backbone_scores
from pulvinar.gating.backbone_scores import Scored, gated_features, interval, per_image
from pulvinar.gating.budget_controls import keep_highest, recalibrate
from pulvinar.learning.backbone_runs import Backbone, load_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import plain_view
from pulvinar.linear.linear_probe import linear_probe
from pulvinar.linear.neighbours import knn_accuracy
from pulvinar.networks.narrow import narrowed
from pulvinar.report.drawing import BOTH, INK, MUTED, REFERENCE_ONLY, RULE, SELECTED_ONLY, save, style
from pulvinar.scores.resampling import paired_difference
from pulvinar.scores.table import Column, Table, csv_text

N_CALIBRATION = 2000  # training images for masks and the channels that a compact network keeps
N_CALLS = 5  # timed together where a batch is one image
BATCH = 64
COLOURS = {
    "dense": INK,
    "narrow": MUTED,
    "static": "#3d8f5a",
    "compact": REFERENCE_ONLY,
    "levels": SELECTED_ONLY,
    "routes": BOTH,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A network to time and score. timed, scored: ONNX content for batches of the size timed, and of any size."""

    run: str
    form: str
    macs: float
    timed: bytes = field(repr=False)
    scored: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Of the run and the form."""
        return f"{self.run}, {self.form}"


def pareto(
    runs: Sequence[str],
    *,
    data: str,
    out: str,
    batch: int = 1,
    threads: int = 1,
    repeats: int = 15,
    clock: Clock = "wall",
) -> dict[str, Any]:
    """Rows of every form of the runs: milliseconds, ratio to the first dense one, 1-NN and linear accuracy; written to `out`.

    data: labelled images; the bank and the probe are of its training images, masks and calibration too, scores of its test
    images. batch: images of one timed call. clock: as of `pulvinar deploy bench`.
    """
    refuse_existing(out)
    if batch < 1 or threads < 1 or repeats < 3:
        raise InputError(
            f"batch and threads of 1 or more and repeats of 3 or more are needed; {batch}, {threads}, {repeats} came"
        )
    if len({Path(run).name for run in runs}) < len(runs):
        raise InputError("runs: two of the same name; the rows of the table are told apart by the names of the folders")
    images = open_data("images", data)
    candidates = [made for run in runs for made in _candidates(run, images, batch)]
    scored = {candidate.name: _scored(candidate, images) for candidate in candidates}
    seconds = _timed(candidates, _pixels(images.test), batch=batch, threads=threads, repeats=repeats, clock=clock)
    rows = _rows(candidates, scored, seconds)
    settings = {"batch": batch, "threads": threads, "repeats": repeats, "clock": clock, "runtime": "onnxruntime"}
    result = {"rows": rows, "images": images.name, "n_test": len(images.test), "size": images.side, **settings, "folder": out}
    with atomic_folder(out) as temporary, mpl.rc_context(style()):
        write_json(temporary / "pareto.json", result)
        write_text(temporary / "pareto.csv", csv_text(rows))
        save(draw(rows), temporary, "pareto", simulated=False, formats=("png",))
    return result


def _candidates(place: str, images: ImageSet, batch: int) -> list[Candidate]:
    """All forms of a run."""
    run = RunFolder.reopen(place)
    backbone = load_backbone(run)
    network, name = backbone.network, Path(place).name
    if network.size != images.side:
        raise InputError(f"{place}: takes images of {network.size} pixels; those of {images.name} have {images.side}")
    log(f"{name}: making its forms")
    made: list[tuple[str, CompactNetwork]] = []
    found: list[Candidate] = []
    if "dense" in network.passes:
        narrow = float(read_toml(run.path / "config.toml").get("mac_share", 1)) < 1
        made.append(("narrow" if narrow else "dense", dense_network(network)))
    if "gated" in network.passes:
        own, share = _gated(name, backbone, images, batch)
        found.append(own)
        made.append(("static", _static(backbone, images, share)))
    for form, each in made:
        each.mean, each.sd = backbone.views.mean, backbone.views.sd
        content = onnx_model(each).SerializeToString()
        found.append(Candidate(run=name, form=form, macs=each.macs.static, timed=content, scored=content))
        small = _int8(each, images)
        found.append(Candidate(run=name, form=f"{form} int8", macs=each.macs.static, timed=small, scored=small))
    return found


def _gated(name: str, backbone: Backbone, images: ImageSet, batch: int) -> tuple[Candidate, float]:
    """The form that the gates of a run have, and their MAC share on the test images."""
    network, views = backbone.network, backbone.views
    share = gated_features(network, images.test, views=views).mac_share
    form = network.shape.gate_form
    if form == "subset":
        rows = evenly_spaced(len(images.train), N_CALIBRATION)
        made = compact(network, plain_view(torch.from_numpy(np.ascontiguousarray(images.train[rows])), views))
        made.mean, made.sd = views.mean, views.sd
        content = onnx_model(made).SerializeToString()
        return Candidate(run=name, form="compact", macs=made.macs.static, timed=content, scored=content), share
    pieces = choice_network(network)
    pieces.mean, pieces.sd = views.mean, views.sd
    timed, scored = (choice_model(pieces, one_image=one).SerializeToString() for one in (batch == 1, False))
    return Candidate(run=name, form=form, macs=share * network.macs.dense, timed=timed, scored=scored), share


def _static(backbone: Backbone, images: ImageSet, share: float) -> CompactNetwork:
    """One mask for all images at this MAC share: the channels that the gates open most often on training images."""
    network, views = backbone.network, backbone.views
    some = images.train[evenly_spaced(len(images.train), N_CALIBRATION)]
    policies = gated_features(network, some, views=views).channels.policies
    densities = [max(float(policy.mean()), 1e-9) for policy in policies]
    made = narrowed(network, keep_highest(policies, network.macs, share, scope="blocks", densities=densities)).eval()
    recalibrate(made, images.train, views=views)
    return dense_network(made)


def _int8(network: CompactNetwork, images: ImageSet) -> bytes:
    rows = evenly_spaced(len(images.train), N_QUANTISATION_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        export_int8(network, path, _pixels(images.train[rows]))
        return path.read_bytes()


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255


def _scored(candidate: Candidate, images: ImageSet) -> Scored:
    """1-NN and the linear probe on the features that the file itself gives."""
    run = run_with(candidate.scored, "onnxruntime")

    def features(pixels: np.ndarray) -> torch.Tensor:
        starts = range(0, len(pixels), BATCH)
        parts = [
            run(_pixels(pixels[start : start + BATCH]))["features"] for start in track(starts, candidate.name, len(starts))
        ]
        return torch.from_numpy(np.concatenate(parts))

    (train, train_labels), (test, test_labels) = images.labelled(), images.tested()
    bank, queries = features(train), features(test)
    neighbours = knn_accuracy(bank, train_labels, queries, test_labels)
    probe = linear_probe(bank, train_labels, queries, test_labels, n_seeds=1)
    return Scored(
        name=candidate.name,
        description=candidate.form,
        mac_share=None,
        knn=neighbours.accuracy,
        linear=probe.accuracy,
        knn_correct=neighbours.correct,
        linear_correct=probe.correct,
    )


def _timed(
    candidates: Sequence[Candidate], pixels: np.ndarray, *, batch: int, threads: int, repeats: int, clock: Clock
) -> dict[str, np.ndarray]:
    """Seconds (round,) of a batch; every round times every network on the same images."""
    n_calls = N_CALLS + 1 if batch == 1 else 2

    def job(content: bytes) -> Any:
        run = run_with(content, "onnxruntime", threads=threads)

        def once(number: int) -> float:
            starts = [(number * n_calls + call) * batch for call in range(n_calls)]
            given = [pixels[np.arange(start, start + batch) % len(pixels)] for start in starts]
            return seconds_of(run, given, warm_up=True, clock=clock)

        return once

    return in_turn({candidate.name: job(candidate.timed) for candidate in candidates}, repeats)


def _rows(candidates: Sequence[Candidate], scored: dict[str, Scored], seconds: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    first = next((each for each in candidates if each.form == "dense"), candidates[0])
    most = max(candidate.macs for candidate in candidates)
    rows = []
    for candidate in candidates:
        ratios = seconds[candidate.name] / seconds[first.name]
        lower, middle, upper = np.quantile(ratios, [0.25, 0.5, 0.75])
        row: dict[str, Any] = {
            "run": candidate.run,
            "form": candidate.form,
            "macs": candidate.macs,
            "mac_share": candidate.macs / most,
            "milliseconds": 1000 * float(np.median(seconds[candidate.name])),
            "ratio": float(middle),
            "ratio_interval": (float(lower), float(upper)),
        }
        rows.append(row | _accuracy(candidate, scored))
    for row in rows:
        better = [other for other in rows if other["ratio"] <= row["ratio"] and other["linear"] >= row["linear"]]
        row["on_front"] = all(other["ratio"] == row["ratio"] and other["linear"] == row["linear"] for other in better)
    return rows


def _accuracy(candidate: Candidate, scored: dict[str, Scored]) -> dict[str, Any]:
    """Scores with their intervals over test images and, of gates, the paired differences from the run's static mask."""
    own = scored[candidate.name]
    row: dict[str, Any] = {}
    static = scored.get(f"{candidate.run}, static")
    by_image = candidate.form in ("compact", "levels", "routes")
    for kind in ("knn", "linear"):
        correct = per_image(getattr(own, f"{kind}_correct"))
        row[kind] = float(correct.mean())
        row[f"{kind}_interval"] = interval(correct, np.random.default_rng(0))
        if by_image and static is not None:
            other = per_image(getattr(static, f"{kind}_correct"))
            row[f"{kind}_minus_static"] = asdict(
                paired_difference(correct, other, generator=np.random.default_rng(0), of_shares=True)
            )
    return row


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Linear and 1-NN accuracy against time as a multiple of the first dense network; open marks are int8."""
    made = Figure(figsize=(10.4, 4.6), layout="constrained")
    for axis, kind in zip(made.subplots(1, 2), ("linear", "knn"), strict=True):
        for row in rows:
            form, small = row["form"].removesuffix(" int8"), row["form"].endswith(" int8")
            low, high = (100 * bound for bound in row[f"{kind}_interval"])
            colour = COLOURS[form]
            axis.plot([row["ratio"]] * 2, [low, high], color=colour, linewidth=1.2, alpha=0.5)
            face = "none" if small else colour
            axis.plot(row["ratio"], 100 * row[kind], "o", color=colour, markerfacecolor=face, markersize=7)
        axis.set(
            xlabel="time, of that of the dense network", ylabel=f"{'1-NN' if kind == 'knn' else 'linear'} accuracy (%) [95 %]"
        )
        axis.grid(axis="y", color=RULE, linewidth=0.6)
        axis.set_xlim(left=0)
    for form in dict.fromkeys(row["form"].removesuffix(" int8") for row in rows):
        made.axes[0].plot([], [], "o", color=COLOURS[form], label=form)
    made.axes[0].plot([], [], "o", color=MUTED, markerfacecolor="none", label="int8")
    made.legend(loc="outside lower center", ncols=7, fontsize=8.5)
    return made


RATIO = Column("ratio", "of dense", "", ".2f", "Median over rounds of the time over that of the first dense network.")


def as_text(result: dict[str, Any]) -> str:
    """What the command line prints."""
    known = {column.key: column for column in (*backbone_scores.SCORES, deploy_bench.MILLISECONDS)}
    columns = [Column("run", "run", lead=True), Column("form", "form", lead=True), known["mac_share"], known["milliseconds"]]
    columns += [RATIO, known["linear"], replace(known["knn"], label="1-NN")]
    rows = [{**row, "form": row["form"] + (" *" if row["on_front"] else "")} for row in result["rows"]]
    told = ["* no other row is at once as fast and as accurate (linear)"]
    for row in result["rows"]:
        if found := row.get("linear_minus_static"):
            between = f"{100 * found['low']:+.1f}, {100 * found['high']:+.1f}"
            told.append(
                f"{row['run']}: {row['form']} minus its static mask, linear {100 * found['difference']:+.1f} [{between}]"
            )
    told.append(
        f"\n{result['runtime']}, batch {result['batch']}, {result['threads']} thread{'s' * (result['threads'] > 1)}, "
        f"{result['clock']} clock, {result['size']} pixels, {result['n_test']} test images of {result['images']}, load of this "
        f"machine {os.getloadavg()[0]:.1f}; all timed in turn, quartiles of ratios in brackets. Written to {result['folder']}"
    )
    return "\n".join([Table(columns, rows).text(), *map(terminal.filled, told)])
