"""`pulvinar deploy`: networks for use."""

import argparse

from pulvinar.cli.common import Commands, Result, say


def _compact(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import deploy

    result = deploy.compact(
        arguments.run,
        out=arguments.out,
        calibrate_on=arguments.calibrate,
        form=arguments.form,
        rare=arguments.rare,
        multiple=arguments.multiple,
        share=arguments.share,
    )
    say(arguments, deploy.compact_as_text(result))
    return result


def _export(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import deploy

    result = deploy.export(
        arguments.net,
        onnx=arguments.onnx,
        masked=arguments.masked,
        fallback=not arguments.no_fallback,
        int8=arguments.int8,
        program=arguments.torch_export,
        runtime=arguments.runtime,
        calibrate_on=arguments.calibrate,
        any_size=arguments.any_size,
        one_image=arguments.one_image,
    )
    say(arguments, deploy.export_as_text(result))
    return result


def _bench(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.deploy_bench import as_text, bench_network

    result = bench_network(
        arguments.net,
        data=arguments.data,
        out=arguments.out,
        batches=arguments.batch,
        threads=arguments.threads,
        runtimes=arguments.runtimes,
        repeats=arguments.repeats,
        clock=arguments.clock,
        size=arguments.size,
    )
    say(arguments, as_text(result))
    return result


def _pareto(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.deploy_pareto import as_text, pareto

    result = pareto(
        arguments.runs,
        data=arguments.data,
        out=arguments.out,
        batch=arguments.batch,
        threads=arguments.threads,
        repeats=arguments.repeats,
        clock=arguments.clock,
    )
    say(arguments, as_text(result))
    return result


def _export_weights(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.backbones import export_weights, export_weights_as_text

    result = export_weights(arguments.run, to=arguments.to, out=arguments.file)
    say(arguments, export_weights_as_text(result))
    return result


def declare(commands: Commands) -> None:
    """The command lines of this file."""
    weights = commands.add(
        "export-weights",
        _export_weights,
        "weights of a trained backbone for torchvision or timm",
        example="pulvinar export-weights runs/gated --to torchvision resnet18.safetensors",
    )
    weights.add_argument("run", metavar="RUN", help="finished run of a self-supervised method; its dense pass is written")
    weights.add_argument("--to", choices=("torchvision", "timm"), required=True, help="the library whose ResNet loads them")
    weights.add_argument("file", metavar="FILE", help=".safetensors to write; must not exist")
    kinds = commands.group(
        "deploy",
        "networks for use: smaller, exact, timed",
        "Networks for use.",
        example="pulvinar deploy compact runs/gated --calibrate images.npz --out net",
    )
    compact = kinds.add(
        "compact",
        _compact,
        "drop the channels that the gates leave shut; exact for every image all the same",
        example="pulvinar deploy compact runs/gated --calibrate images.npz --out net",
    )
    compact.add_argument("run", metavar="RUN", help="finished run of a gated method, of another backbone, or of troi")
    compact.add_argument("--calibrate", metavar="DATA", help="images, as for `pulvinar fit`; those of the training will do")
    compact.add_argument("--out", required=True, metavar="NET", help="the folder to write; must not exist")
    compact.add_argument(
        "--form",
        choices=("gated", "levels", "routes", "static", "folded"),
        help="gated: with an exact fallback; levels, routes: in pieces (default: what the gates choose); static: one mask "
        "for all images; folded: no gates, batch-norms folded",
    )
    compact.add_argument(
        "--rare", type=float, default=0.0, metavar="SHARE", help="also drop channels that at most this share opens (default 0)"
    )
    compact.add_argument(
        "--multiple", type=int, default=1, metavar="N", help="keep a multiple of so many channels per gate (16: AVX-512)"
    )
    compact.add_argument("--share", type=float, help="MAC share of --form static (default: that of the gates)")

    export = kinds.add(
        "export", _export, "files for runtimes: ONNX, int8, torch.export", example="pulvinar deploy export net --onnx net.onnx"
    )
    export.add_argument("net", metavar="NET", help="folder made by `pulvinar deploy compact`")
    export.add_argument("--onnx", metavar="FILE", help="the network; pixels in [0, 1] in, features out")
    export.add_argument("--masked", metavar="FILE", help="the reference that computes every channel, for comparison")
    export.add_argument("--no-fallback", action="store_true", help="leave dropped channels out for good: not exact for misses")
    export.add_argument("--any-size", action="store_true", help="--onnx and --masked take images of any height and width")
    export.add_argument("--one-image", action="store_true", help="of levels and routes: for one image at a time, faster then")
    export.add_argument("--int8", metavar="FILE", help="convolutions in int8, by ONNX Runtime's quantiser; not exact")
    export.add_argument("--torch-export", metavar="FILE", help="a program of torch.export, .pt2")
    export.add_argument(
        "--runtime",
        choices=("onnxruntime", "openvino"),
        default="onnxruntime",
        help="where --onnx and --masked are to run (default onnxruntime)",
    )
    export.add_argument("--calibrate", metavar="DATA", help="images for --int8 (default: those of the compaction)")

    bench = kinds.add(
        "bench",
        _bench,
        "how long a network for use takes here: every form, in every runtime that is installed",
        example="pulvinar deploy bench net --batch 1 32",
    )
    bench.add_argument("net", metavar="NET", help="folder made by `pulvinar deploy compact`")
    bench.add_argument("--data", help="images to time with (default: the test images of the calibration's data, else noise)")
    bench.add_argument("--out", help="folder to write (default NET/bench); must not exist")
    bench.add_argument("--batch", type=int, nargs="+", default=[1, 32], metavar="N", help="sizes of batches (default 1 32)")
    bench.add_argument("--threads", type=int, default=1, help="of every runtime (default 1)")
    bench.add_argument("--repeats", type=int, default=15, help="rounds; medians and quartiles are over them (default 15)")
    bench.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: time computed in, for a busy machine")
    bench.add_argument("--size", type=int, help="side of the images in pixels (default: the network's own)")
    bench.add_argument(
        "--runtimes", nargs="+", metavar="NAME", help="torch (eager, packed, compile), onnxruntime, openvino (f32, bf16); all"
    )

    pareto = kinds.add(
        "pareto",
        _pareto,
        "accuracy against measured time: every form of some runs, in one table and figure",
        example="pulvinar deploy pareto runs/static30 runs/routes30 --data images.npz --out pareto",
    )
    pareto.add_argument("runs", nargs="+", metavar="RUN", help="finished self-supervised runs of one image size")
    pareto.add_argument("--data", required=True, metavar="DATA", help="labelled images, as for `pulvinar fit`")
    pareto.add_argument("--out", required=True, help="folder to write (pareto.csv, .json, .png); must not exist")
    pareto.add_argument("--batch", type=int, default=1, metavar="N", help="images of a timed call (default 1)")
    pareto.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (default 1)")
    pareto.add_argument("--repeats", type=int, default=15, help="rounds, each of all networks in turn (default 15)")
    pareto.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: time computed in, for a busy machine")
