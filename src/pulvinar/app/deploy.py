"""`pulvinar deploy compact` and `export`: from a finished run to a network for use, and from there to files for runtimes."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pulvinar.app.data import absolute, open_data
from pulvinar.app.stored_runs import uses_run
from pulvinar.core.errors import InputError
from pulvinar.core.progress import track
from pulvinar.core.sampling import evenly_spaced
from pulvinar.core.storage import refuse_existing
from pulvinar.data.image_set import ImageSet
from pulvinar.decoding.decoder_checkpoint import has_layer
from pulvinar.deploy import decoder_files, onnx_files
from pulvinar.deploy.calibration import calibrate, upper_bound
from pulvinar.deploy.choices import ChoiceNetwork, choice_network
from pulvinar.deploy.compact import CompactNetwork, compact_to, dense_network, static_network
from pulvinar.deploy.files import CHOICES, DECODER, load, load_choices, load_config, load_decoder, save
from pulvinar.deploy.voxel_decoder import voxel_decoder
from pulvinar.gating.budget_controls import keep_highest
from pulvinar.learning.backbone_runs import Backbone, load_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings, plain_view

FormAsked = Literal["gated", "levels", "routes", "static", "folded"]
OWN_FORMS: dict[str, FormAsked] = {"subset": "gated", "levels": "levels", "routes": "routes"}  # by what gates choose
BATCH = 250
WORTH_FIXING = 0.05  # share of the multiply-adds that are kept though an average image does not open them
FIX_GATES = (
    "the rest is kept because some image opens it: gates that are fixed in training cost what they promise "
    "(fit … --set fix_gates=0.6 gate_group=16; docs/deploy_speed.md)"
)


@uses_run
def compact(
    run: str,
    *,
    out: str,
    calibrate_on: str | None = None,
    form: FormAsked | None = None,
    rare: float = 0.0,
    multiple: int = 1,
    share: float | None = None,
) -> dict[str, Any]:
    """Write the network for use of a run as the folder `out`; what it keeps, costs and misses.

    form: gated (channels that the gates never open on the calibration images are dropped, with the exact fallback), levels and
    routes (in pieces, for runs whose gates choose those), static (one mask for all images, at a MAC share
    of `share`; default: the gates' own), folded (no gates: narrow networks, students). None: gated, levels or routes, by what
    the gates of the run choose. A run of troi becomes the decoder of its kept voxels and takes no calibration images.
    """
    refuse_existing(out)
    folder = RunFolder.reopen(run)
    if has_layer(folder):
        return _decoder(folder, out, calibrate_on)
    backbone = load_backbone(folder)
    form = form or OWN_FORMS[backbone.network.shape.gate_form]
    _require_form(folder, backbone, form)
    if form in ("levels", "routes"):
        return _in_pieces(folder, backbone, out, calibrate_on)
    facts: dict[str, Any] = {"run": absolute(run), "method": folder.method}
    result: dict[str, Any] = {"run": run, "out": out, "method": folder.method}
    if form == "folded":
        made = dense_network(backbone.network)
    else:
        data = _images(calibrate_on, folder, backbone)
        facts |= {"calibrated_on": absolute(str(calibrate_on)), "data": data.name}
        found = calibrate(backbone.network, calibration_batches(data.train, backbone.views), rare=rare, multiple=multiple)
        if form == "static":
            policies = [count.numpy() / found.n_images for count in found.counts]
            made = static_network(backbone.network, _mask(backbone, policies, share))
        else:
            made = compact_to(backbone.network, found.kept)
            made.calibration = found.facts()
            densities = [count.double().mean()[None] / found.n_images for count in found.counts]
            result["promised_mac_share"] = facts["promised_mac_share"] = float(backbone.network.macs.share(densities))
            result["held_out"] = facts["held_out"] = _held_out(made, data, backbone.views)
    made.mean, made.sd = backbone.views.mean, backbone.views.sd
    save(out, made, facts=facts)
    return result | _summary(made, backbone)


def _require_form(run: RunFolder, backbone: Backbone, form: FormAsked) -> None:
    """Refuse to compact what has no gates, and to fold gates away."""
    gated = "gated" in backbone.network.passes
    if form != "folded" and not gated:
        raise InputError(
            f"{run.path}: is a run of {run.method}, which has no gates, so there is nothing to drop by input. Its batch-norms "
            "can be folded (--form folded), of narrow networks and students too; a static mask needs the gates of a gated run"
        )
    own = OWN_FORMS[backbone.network.shape.gate_form]
    if form in OWN_FORMS.values() and gated and form != own:
        raise InputError(f"{run.path}: the gates of this run choose for --form {own}; {form} came")
    if form == "folded" and gated and "dense" not in backbone.network.passes:
        raise InputError(f"{run.path}: is a gated run of {run.method} without a dense pass; give --form gated or static")


def _in_pieces(run: RunFolder, backbone: Backbone, out: str, source: str | None) -> dict[str, Any]:
    """The folder of a run of levels or routes. source: images on which to count what is chosen; None: none are counted."""
    made = choice_network(backbone.network)
    made.mean, made.sd = backbone.views.mean, backbone.views.sd
    facts: dict[str, Any] = {"run": absolute(str(run.path)), "method": run.method}
    counted = None
    if source is not None:
        data = _images(source, run, backbone)
        facts |= {"calibrated_on": absolute(source), "data": data.name}
        counted = facts["choices"] = _counted(made, data.test if len(data.test) else data.train, backbone.views)
    save(out, made, facts=facts)
    return {
        "run": str(run.path),
        "out": out,
        "method": run.method,
        "form": made.form,
        "kept": [[len(kept) for kept in options] for options in made.options],
        "channels": list(made.shape.gate_channels),
        "macs": asdict(made.macs),
        "choices": counted,
        "mac_share": None if counted is None else counted["mac_share"],
    }


@torch.no_grad()
def _counted(made: ChoiceNetwork, images: np.ndarray, views: ViewSettings) -> dict[str, Any]:
    """How often each option is taken, by chooser, and the mean MAC share."""
    batches = [torch.stack(made.inspect(batch).choices, 1) for batch in _batches(images, views, "choices")]
    taken = torch.cat(batches).T
    shares = [(torch.bincount(each, minlength=made.n_options).double() / len(each)).tolist() for each in taken]
    return {"n_images": taken.shape[1], "shares": shares, "mac_share": made.macs.share(list(taken))}


def _images(source: str | None, run: RunFolder, backbone: Backbone) -> ImageSet:
    if source is None:
        raise InputError("--calibrate: images to calibrate on are needed, as for `pulvinar fit`; those of the training will do")
    data = open_data("images", source)
    size = backbone.network.size
    if data.side != size:
        raise InputError(f"--calibrate {source}: images of {data.side} pixels; the network of {run.path} takes {size}")
    return data


def calibration_batches(images: np.ndarray, views: ViewSettings) -> Iterator[Tensor]:
    """Normalised batches of pixels (image, height, width, 3), with a bar."""
    return _batches(images, views, "calibration")


def _batches(images: np.ndarray, views: ViewSettings, what: str) -> Iterator[Tensor]:
    starts = range(0, len(images), BATCH)
    for start in track(starts, what, len(starts)):
        yield plain_view(torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])), views)


def _mask(backbone: Backbone, policies: list[np.ndarray], share: float | None) -> list[Tensor]:
    """The most often open channels at this MAC share, of the dense network; None: the share of the gates themselves."""
    macs = backbone.network.macs
    own = float(macs.per_image([torch.tensor([policy.sum()]) for policy in policies])[0]) / macs.dense
    wanted = own if share is None else share
    if not 0 < wanted <= 1:
        raise InputError(f"--share: a share of the dense network's multiply-adds in (0, 1] is needed, {wanted} came")
    densities = [max(float(policy.mean()), 1e-9) for policy in policies]
    return keep_highest(policies, macs, wanted, scope="blocks", densities=densities)


@torch.no_grad()
def _held_out(made: CompactNetwork, data: ImageSet, views: ViewSettings) -> dict[str, Any] | None:
    """Misses of the test images, which calibrated nothing."""
    if not len(data.test):
        return None
    misses = torch.cat([torch.stack(made.inspect(batch).misses, 1) for batch in _batches(data.test, views, "held-out misses")])
    n, count = len(misses), int(misses.any(1).sum())
    return {
        "n_images": n,
        "misses": misses.sum(0).tolist(),
        "missed_images": count,
        "miss_rate": count / n,
        "miss_rate_upper_95": upper_bound(count, n),
        "expected_mac_share": made.macs.expected(misses.double().mean(0).tolist()) / made.macs.dense,
    }


def _summary(made: CompactNetwork, backbone: Backbone) -> dict[str, Any]:
    whole = backbone.network.macs.dense
    kept = made.kept
    return {
        "form": made.form,
        "kept": None if kept is None else [len(part) for part in kept],
        "channels": list(made.shape.gate_channels),
        "macs": asdict(made.macs),
        "mac_share": made.macs.static / whole,
        "calibration": made.calibration,
    }


def _decoder(run: RunFolder, out: str, calibrate_on: str | None) -> dict[str, Any]:
    if calibrate_on is not None:
        raise InputError(
            f"--calibrate: {run.path} is a run of {run.method}; its mask is the same for all trials and needs none"
        )
    made = voxel_decoder(run)
    save(out, made, facts={"run": absolute(str(run.path)), "method": run.method})
    return {
        "run": str(run.path),
        "out": out,
        "method": run.method,
        "form": "voxel decoder",
        "n_kept": len(made.kept),
        "n_voxels": made.n_voxels,
        "macs": made.macs,
    }


def compact_as_text(result: dict[str, Any]) -> str:
    """What the command line prints of `compact`."""
    if result["form"] == "voxel decoder":
        return (
            f"{result['out']}: decoder of {result['n_kept']} of {result['n_voxels']} voxels "
            f"({result['macs']['kept']:,} of {result['macs']['all']:,} multiply-adds in the input layer); it takes either"
        )
    if result["form"] in OWN_FORMS:
        return _pieces_as_text(result)
    if result["kept"] is None:
        return f"{result['out']}: {result['form']}, batch-norms folded, MAC share {result['mac_share']:.4f}"
    kept = ", ".join(f"{part} of {whole}" for part, whole in zip(result["kept"], result["channels"], strict=True))
    lines = [
        f"{result['out']}: kept {kept} channels",
        f"MAC share of an image that does not miss: {result['mac_share']:.4f} (gates included); the gates leave "
        f"{result['promised_mac_share']:.4f} open on average",
        *([FIX_GATES] if result["mac_share"] > result["promised_mac_share"] + WORTH_FIXING else []),
        result["calibration"]["statement"],
    ]
    if result["held_out"] is not None:
        held = result["held_out"]
        lines.append(
            f"held-out images: {held['missed_images']} of {held['n_images']} miss somewhere (at most "
            f"{100 * held['miss_rate_upper_95']:.2f} % with 95 % confidence); mean MAC share with them "
            f"{held['expected_mac_share']:.4f}"
        )
    return "\n".join([*lines, f"next: pulvinar deploy export {result['out']} --onnx FILE"])


def _pieces_as_text(result: dict[str, Any]) -> str:
    """Of a network of levels or routes."""
    lines = [f"{result['out']}: {result['form']}, {len(result['kept'][0])} pieces of {len(result['kept'])} blocks"]
    counted = result["choices"]
    if counted is not None:
        lines.append(f"MAC share on {counted['n_images']} images {counted['mac_share']:.4f}, gates included; taken:")
        name = "routes" if result["form"] == "routes" else "block"
        for number, shares in enumerate(counted["shares"], 1):
            lines.append(f"  {name}{'' if name == 'routes' else f' {number}'}: " + ", ".join(f"{s:.1%}" for s in shares))
    return "\n".join([*lines, f"next: pulvinar deploy export {result['out']} --onnx FILE"])


@uses_run
def export(
    net: str,
    *,
    onnx: str | None = None,
    masked: str | None = None,
    fallback: bool = True,
    int8: str | None = None,
    program: str | None = None,
    runtime: onnx_files.Runtime = "onnxruntime",
    calibrate_on: str | None = None,
    any_size: bool = False,
    one_image: bool = False,
) -> dict[str, Any]:
    """Write files for runtimes; each is refused if it exists, before any is written.

    onnx: the network; masked: the reference that computes every channel; int8: by ONNX Runtime's quantiser, from images of
    `calibrate_on` (default: those of the compaction); program: of torch.export. any_size: images of any height and width, in
    the ONNX files. one_image: of levels and routes, files for one image at a time.
    """
    wanted = {"--onnx": onnx, "--masked": masked, "--int8": int8, "--torch-export": program}
    given = {flag: path for flag, path in wanted.items() if path is not None}
    if not given:
        raise InputError(f"export: nothing is asked for; give one or more of {', '.join(wanted)}")
    if len({Path(path).absolute() for path in given.values()}) < len(given):
        raise InputError(f"export: two files of one name: {', '.join(f'{flag} {path}' for flag, path in given.items())}")
    for path in given.values():
        refuse_existing(path)
    config = load_config(net)
    if config["kind"] == DECODER:
        _refuse_useless(net, DECODER, given, fallback=fallback, any_size=any_size, one_image=one_image)
        return _export_decoder(net, given)
    if config["kind"] == CHOICES:
        _refuse_useless(net, CHOICES, given, fallback=fallback, any_size=any_size)
        return _export_choices(net, given, runtime=runtime, one_image=one_image)
    if one_image:
        raise InputError(f"{net}: --one-image is for levels and routes; other files take any batch as they are")
    facts = config["facts"]
    network = load(net).no_fallback(without=not fallback)
    reference = network.masked() if masked is not None else None
    pixels = _pixels(calibrate_on or facts.get("calibrated_on"), network) if int8 is not None else None
    files: dict[str, Any] = {}
    if onnx is not None:
        files["onnx"] = onnx_files.export_onnx(network, onnx, runtime=runtime, facts=facts, any_size=any_size)
    if masked is not None and reference is not None:
        files["masked"] = onnx_files.export_onnx(reference, masked, runtime=runtime, facts=facts, any_size=any_size)
    if int8 is not None and pixels is not None:
        files["int8"] = onnx_files.export_int8(network, int8, pixels)
    if program is not None:
        files["torch_export"] = onnx_files.export_program(network, program)
    rate = None if network.calibration is None else network.calibration["miss_rate"]
    return {"net": net, "files": files, "miss_rate": rate}


def _refuse_useless(
    net: str, kind: str, given: dict[str, str], *, fallback: bool, any_size: bool, one_image: bool = False
) -> None:
    """`InputError` for what cannot be had of decoders and networks in pieces."""
    useless = [flag for flag in given if flag not in ("--onnx", "--masked")] + ([] if fallback else ["--no-fallback"])
    useless += (["--any-size"] if any_size else []) + (["--one-image"] if one_image else [])
    if useless:
        raise InputError(f"{net}: holds a {kind}, for which there are --onnx and --masked, not {', '.join(useless)}")


def _export_choices(net: str, given: dict[str, str], *, runtime: onnx_files.Runtime, one_image: bool) -> dict[str, Any]:
    """The network in pieces (--onnx) and the one that computes everything (--masked)."""
    network, facts = load_choices(net), load_config(net)["facts"]
    made = {"--onnx": network, "--masked": network.masked()}
    files = {
        flag.removeprefix("--"): onnx_files.export_choices(made[flag], path, runtime=runtime, one_image=one_image, facts=facts)
        for flag, path in given.items()
    }
    return {"net": net, "files": files, "miss_rate": None}


def _export_decoder(net: str, given: dict[str, str]) -> dict[str, Any]:
    """The decoder of kept voxels (--onnx) and that of all (--masked)."""
    decoder = load_decoder(net)
    kinds = {"--onnx": "onnx", "--masked": "masked"}
    files = {
        kinds[flag]: decoder_files.export_decoder(decoder, path, masked=flag == "--masked") for flag, path in given.items()
    }
    return {"net": net, "files": files, "miss_rate": None}


def _pixels(source: str | None, network: CompactNetwork) -> np.ndarray:
    """Images that set the ranges of int8, float32 (image, 3, size, size) in [0, 1]."""
    if source is None:
        raise InputError("--int8: images to set the ranges are needed; give some with --calibrate")
    data = open_data("images", source)
    if data.side != network.size:
        raise InputError(f"--calibrate {source}: images of {data.side} pixels; the network takes {network.size}")
    rows = evenly_spaced(len(data.train), onnx_files.N_QUANTISATION_IMAGES)
    return np.ascontiguousarray(data.train[rows].transpose(0, 3, 1, 2)).astype(np.float32) / 255


def export_as_text(result: dict[str, Any]) -> str:
    """What the command line prints of `export`."""
    lines = []
    for kind, file in result["files"].items():
        note = ""
        if kind == "int8":
            note = (
                f", features off by {100 * file['mean_relative_difference']:.1f} % on {file['n_images']} images (cosine "
                f"{file['mean_cosine']:.4f}): no equality is promised"
            )
        elif file["form"] == "compact" and not file["fallback"]:
            rate = result["miss_rate"]
            note = ", without fallback: wrong for images that miss" + (
                f", about {100 * rate:.2f} %" if rate is not None else ""
            )
        lines.append(f"{file['file']}: {file['form']}, {file['bytes'] / 1e6:.2f} MB{note}")
    return "\n".join(lines)
