"""The command line. Results go to stdout (one JSON object with --json), progress and messages to stderr.

Exit code 0 is success, 2 refused input (one line says what came and what fits), 130 an interrupt.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pulvinar.errors import PulvinarError

Result = dict[str, Any]
INTERRUPTED = {  # what to do next
    "fit": "; the last checkpoint is kept. Continue with the same command and --resume.",
    "sweep": "; finished cells and the last checkpoint are kept. Continue with the same command.",
}


def _demo(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.demo import demo

    result = demo(seed=arguments.seed, out=arguments.out)
    _show_evaluation(arguments, result)
    _say(arguments, f"\nreport: {result['report']}")
    return result


def _list(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands import registry

    result = {kind: registry.names(kind) for kind in registry.KINDS}
    for kind, entries in result.items():
        _say(arguments, f"{kind}:")
        for name, line in entries.items():
            _say(arguments, f"  {name:24} {line}")
    return result


def _inspect(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.data import inspect

    result = inspect(arguments.source, probe=arguments.probe)
    _say(arguments, json.dumps(_plain(result), indent=2))
    return result


def _convert(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.data import convert

    result = convert(arguments.description, arguments.out)
    _say(arguments, f"wrote {result['folder']}: {result['name']}, subjects {', '.join(result['subjects'])}")
    return result


def _simulate(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.data import simulate

    shortcuts = {"seed": arguments.seed, "n_voxels": arguments.n_voxels, "n_subjects": arguments.n_subjects}
    given = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    assignments = [*given, *arguments.set]
    result = simulate(arguments.out, layout=arguments.layout, config_file=arguments.config, assignments=assignments)
    new = f", new subject {result['target']}" if "target" in result else ""
    _say(arguments, f"wrote {result['folder']}: {result['name']}{new}")
    return result


def _fit(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.fit import fit, settings_of

    if arguments.settings:
        rows = settings_of(arguments.method)
        for name, fits, default, text in rows:
            _say(arguments, f"{name} = {default}\n    {text} ({fits})")
        return {
            "settings": [{"name": name, "fits": fits, "default": default, "help": text} for name, fits, default, text in rows]
        }
    if not arguments.data or not arguments.out:
        missing = [flag for flag, value in (("--data", arguments.data), ("--out", arguments.out)) if not value]
        raise _UsageError(f"fit: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed")
    result = fit(
        arguments.method,
        data=arguments.data,
        out=arguments.out,
        config_file=arguments.config,
        assignments=arguments.set,
        backbone=arguments.backbone,
        target=arguments.target,
        resume=arguments.resume,
    )
    selection = result.get("selection")
    kept = f"{selection['n_voxels']} of {selection['n_candidates']} voxels ({selection['path']}); " if selection else ""
    _say(arguments, f"{kept}run: {result['run']}\nnext: pulvinar evaluate {result['run']}")
    return result


def _evaluate(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.fit import evaluate

    result = evaluate(arguments.run, data=arguments.data, controls=not arguments.only_selection)
    _show_evaluation(arguments, result)
    _say(arguments, f"next: pulvinar report {arguments.run}")
    return result


def _predict(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.fit import predict

    result = predict(arguments.run, images=arguments.images, out=arguments.out)
    shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in result["arrays"].items())
    _say(arguments, f"wrote {result['out']}: {shapes}; the order of the images: {result['order']}")
    return result


def _report(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.fit import report

    result = report(arguments.run, arguments.out)
    _say(arguments, result["report"])
    return result


def _sweep(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.sweep import sweep

    result = sweep(arguments.grid)
    _say(arguments, result["table"])
    return result


def _rsa_ceiling(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands import rsa

    result = rsa.ceiling(arguments.file, target=arguments.target, method=arguments.method)
    _say(arguments, rsa.ceiling_as_text(result))
    return result


def _rsa_compare(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands import rsa

    result = rsa.compare(
        arguments.predicted,
        arguments.measured,
        method=arguments.method,
        target=arguments.target,
        beyond=arguments.beyond,
        n_permutations=arguments.permutations,
        n_bootstrap=arguments.bootstrap,
        seed=arguments.seed,
    )
    _say(arguments, rsa.as_text(result))
    return result


def _rsa_score(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands import rsa

    result = rsa.score(arguments.submission, arguments.data, published=arguments.published)
    _say(arguments, rsa.score_as_text(result))
    return result


def _rsa_submit(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands import rsa

    result = rsa.submit(arguments.out, arguments.rdm, file_format=arguments.format)
    _say(arguments, "\n".join(result["files"]))
    return result


def _macs(arguments: argparse.Namespace) -> Result:
    from pulvinar.commands.macs import macs

    result = macs(
        arguments.network,
        size=arguments.size,
        stem=arguments.stem,
        width=arguments.width,
        gated_convs=arguments.gated_convs,
    )
    _say(
        arguments,
        "\n".join(f"{name:17} {value:,}" if isinstance(value, int) else f"{name:17} {value}" for name, value in result.items()),
    )
    return result


class _UsageError(PulvinarError):
    """Arguments that argparse cannot check by itself."""


def _show_evaluation(arguments: argparse.Namespace, result: Result) -> None:
    from pulvinar.commands.fit import evaluation_text

    if not arguments.json:
        print(evaluation_text(result))


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.json:
        print(text)


def _plain(value: Any) -> Any:
    from pulvinar.storage import to_jsonable

    return to_jsonable(value)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="pulvinar",
        description="Learns what to keep (which voxels, channels, stages) in models that connect images and brains.",
        epilog="Start with `pulvinar demo`. Every command has its own --help.",
    )
    top.add_argument("--version", action="version", version=_version())
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    common.add_argument("--quiet", action="store_true", help="no progress on stderr")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Callable[[argparse.Namespace], Result], text: str, where: Any = commands
    ) -> argparse.ArgumentParser:
        made = where.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(run_command=run)
        return made

    demo = add("demo", _demo, "the main job on a planted world: data, ROI of a new subject, controls, report")
    demo.add_argument("--seed", type=int, default=0, help="another seed is another world (default 0)")
    demo.add_argument("--out", help="folder for data, run and report (default: pulvinar-demo, or the next free name)")
    add("list", _list, "the methods and datasets there are")

    _add_data(commands, add)
    _add_runs(add)
    _add_rsa(commands, add)
    _add_macs(add)
    return top


Add = Callable[..., argparse.ArgumentParser]


def _add_data(commands: Any, add: Add) -> None:
    data = commands.add_parser("data", help="look at, convert or plant data", description="Experiments and other data.")
    kinds = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    inspect = add("inspect", _inspect, "what is in an experiment: subjects, trials, voxels, repeats, split", kinds)
    inspect.add_argument("source", help="experiment folder, a description .toml, or dataset:path")
    inspect.add_argument("--probe", type=int, metavar="N", help="show N random single values too (dataset:path)")
    convert = add("convert", _convert, "make an experiment folder from your own files (docs/data.md)", kinds)
    convert.add_argument("description", help="TOML description of where your files are, or dataset:path")
    convert.add_argument("out", help="the folder to write; must not exist")
    simulate = add("simulate", _simulate, "plant a world with a known answer and write it as an experiment folder", kinds)
    simulate.add_argument("--out", required=True, help="the folder to write; must not exist")
    simulate.add_argument("--seed", type=int, help="another seed is another world")
    simulate.add_argument("--n-voxels", type=int, help="voxels of the new subject (200 to 96,000 and more)")
    simulate.add_argument("--n-subjects", "--subjects", type=int, help="subjects, the new one included")
    simulate.add_argument("--layout", help="write the files of this dataset instead, e.g. nsd (docs/nsd.md)")
    _add_settings(simulate)


def _add_runs(add: Add) -> None:
    fit = add("fit", _fit, "fit a method to an experiment, to images or to RDMs")
    fit.add_argument("method", help="one of `pulvinar list`, e.g. troi")
    fit.add_argument("--data", help="what the method needs (docs/index.md): a folder, a file, or dataset:path")
    fit.add_argument("--out", help="run folder to make; must not exist, unless --resume")
    fit.add_argument("--backbone", help="finished run of the method this one builds on (default: trained inside the run)")
    fit.add_argument("--target", help="the new subject (default: the experiment's own)")
    fit.add_argument("--resume", action="store_true", help="continue a run that was interrupted or killed")
    fit.add_argument("--settings", action="store_true", help="list the settings of the method and stop")
    _add_settings(fit)

    evaluate = add("evaluate", _evaluate, "score a finished run on the test images, beside its controls")
    evaluate.add_argument("run", help="run folder")
    evaluate.add_argument("--data", help="the data, if they have moved, or other images to score a self-supervised run on")
    evaluate.add_argument("--only-selection", action="store_true", help="leave out the controls")
    predict = add("predict", _predict, "what a finished run predicts for new images, e.g. their RDM")
    predict.add_argument("run", help="run folder")
    predict.add_argument(
        "--images", required=True, help="folder of .png or .jpg files; they are taken in the order of their names"
    )
    predict.add_argument(
        "--out", required=True, help=".npy or .npz to write; the order of the images goes into a .csv beside it"
    )
    report = add("report", _report, "one self-contained HTML page of a run")
    report.add_argument("run", help="run folder")
    report.add_argument("--out", help="where to write it (default: RUN/report.html)")
    sweep = add("sweep", _sweep, "a grid of settings; finished cells are skipped; one table over all")
    sweep.add_argument("grid", help="TOML file: method, data, out, [set], [grid], [[cell]] (docs/start.md)")


def _add_rsa(commands: Any, add: Add) -> None:
    rsa = commands.add_parser("rsa", help="dissimilarity matrices: noise ceilings, comparison", description="RDMs.")
    kinds = rsa.add_subparsers(dest="rsa_command", required=True, metavar="COMMAND")
    ceiling = add("ceiling", _rsa_ceiling, "upper and leave-one-subject-out lower noise ceiling of measured RDMs", kinds)
    ceiling.add_argument("file", help="RDMs of subjects: .npz, .npy, or an rsatoolbox .h5")
    compare = add("compare", _rsa_compare, "model RDMs against measured ones: r, null, interval, percent of the ceiling", kinds)
    compare.add_argument("predicted", help="RDM of a model, or several: .npy, .npz, or an rsatoolbox .h5")
    compare.add_argument("measured", help="RDMs of subjects over the same images in the same order")
    compare.add_argument("--beyond", help="file of confound models; adds the partial correlation beyond them")
    compare.add_argument("--permutations", type=int, default=1000, help="permutations of images (default 1000)")
    compare.add_argument("--bootstrap", type=int, default=1000, help="resamples of images and subjects (default 1000)")
    compare.add_argument("--seed", type=int, default=0, help="of permutations and bootstrap (default 0)")
    score = add("score", _rsa_score, "predicted RDMs as the Algonauts 2019 challenge scores them, with both ceilings", kinds)
    score.add_argument("submission", help="submission folder, .zip, .mat, .npy or .npz")
    score.add_argument("data", help="folder or file with the measured RDMs of one set (docs/algonauts2019.md)")
    score.add_argument("--published", action="store_true", help="the challenge's published ceilings, not those of these data")
    submit = add("submit", _rsa_submit, "write the files that the Algonauts 2019 challenge takes", kinds)
    submit.add_argument("rdm", nargs="+", metavar="TARGET=FILE", help="evc, it, meg_early, meg_late; .npy, .npz or .h5")
    submit.add_argument("--out", required=True, help="the folder to write; must not exist")
    submit.add_argument("--format", default="mat", help="mat (default) or npy")
    for command in (ceiling, compare):
        command.add_argument("--method", default="spearman", help="spearman (default), pearson, kendall, cosine, whitened_...")
        command.add_argument("--target", help="only the measured RDMs of this name")


def _add_macs(add: Add) -> None:
    macs = add("macs", _macs, "multiply-adds of a ResNet: dense, of its gates, and with every gate shut")
    macs.add_argument("network", help="resnet18, resnet34 or resnet50")
    macs.add_argument("--size", type=int, default=32, help="side of the square images in pixels (default 32)")
    macs.add_argument(
        "--stem", choices=("auto", "cifar", "imagenet", "papers"), default="auto", help="docs/methods/dual_gating.md"
    )
    macs.add_argument("--width", type=float, default=1.0, help="multiplies every channel count (default 1)")
    macs.add_argument("--gated-convs", choices=("conv1", "conv2", "both"), default="conv2", help="of Bottleneck blocks")


def _add_settings(to: argparse.ArgumentParser) -> None:
    to.add_argument("--config", help="TOML file with settings")
    to.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings; they win over the file"
    )


def _version() -> str:
    from importlib.metadata import version

    return f"pulvinar {version('pulvinar')}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep; read when torch loads (docs/log.md, busy cores)
    arguments = parser().parse_args(argv)
    from pulvinar.progress import REPORTER

    was_quiet, REPORTER.quiet = REPORTER.quiet, arguments.quiet
    try:
        result = arguments.run_command(arguments)
        if arguments.json:
            print(json.dumps(_plain(result)))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted{INTERRUPTED.get(arguments.command, '')}\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PulvinarError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except MemoryError as error:
        sys.stderr.write(f"error: not enough memory{': ' if str(error) else ''}{error}\n")
        return 2
    except OSError as error:  # what the operating system refuses, such as a folder that may not be read
        sys.stderr.write(f"error: {error.filename or 'file'}: {error.strerror or error}\n")
        return 2
    finally:
        REPORTER.quiet = was_quiet
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
