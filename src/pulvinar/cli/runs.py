"""Commands on runs: demo, list, fit, evaluate, predict, reconstruct, report."""

import argparse
from collections.abc import Mapping, Sequence

from pulvinar.cli.common import Commands, Result, UsageError, add_memory, add_settings, say
from pulvinar.cli.method_help import HelpOfMethod
from pulvinar.core import terminal
from pulvinar.core.config import Described

LOGGERS = ("tensorboard", "wandb", "mlflow")  # learning/loggers.py has them


def _demo(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.demo import demo

    result = demo(seed=arguments.seed, out=arguments.out)
    _show_evaluation(arguments, result)
    say(arguments, f"\nreport: {result['report']}")
    return result


def _list(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import preset, registry

    result = {kind: registry.names(kind) for kind in registry.KINDS} | {"presets": preset.names()}
    sections = (f"{terminal.strong(kind)}\n{terminal.two_columns(entries.items())}" for kind, entries in result.items())
    say(arguments, "\n\n".join(sections))
    return result


def _fit(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.settings_list import groups_of
    from pulvinar.app.sweeps.jobs import fit_and_evaluate, keeping_journal

    if arguments.settings:
        return _settings(arguments, groups_of(arguments.method))
    needed = (("--data", arguments.data), *(() if arguments.dry_run else (("--out", arguments.out),)))
    if missing := [flag for flag, value in needed if not value]:
        raise UsageError(f"fit: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed")
    if arguments.only_selection and not arguments.evaluate:
        raise UsageError("fit: --only-selection counts with --evaluate only")
    if arguments.dry_run:
        return _dry_run(arguments)
    with keeping_journal(arguments.journal):
        result = fit_and_evaluate(
            arguments.method,
            data=arguments.data,
            out=arguments.out,
            config_file=arguments.config,
            assignments=arguments.set,
            pretrained=arguments.pretrained,
            target=arguments.target,
            resume=arguments.resume,
            log_to=arguments.log,
            scored=("selection" if arguments.only_selection else "all") if arguments.evaluate else None,
            n_processes=arguments.devices,
            memory=arguments.memory,
        )
    selection = result.get("selection")
    kept = (
        f"{selection['n_voxels']} of {selection['n_candidates']} voxels ({selection.get('path') or selection['chosen_by']}); "
        if selection
        else ""
    )
    next_command = "report" if arguments.evaluate else "evaluate"
    say(arguments, f"{kept}run: {result['run']}\nnext: pulvinar {next_command} {result['run']}")
    return result


def _settings(arguments: argparse.Namespace, groups: Mapping[str, Sequence[Described]]) -> Result:
    from pulvinar.app.settings_list import groups_text

    say(arguments, groups_text(groups, terminal.width()))
    return {
        "settings": [
            {"group": heading, "name": name, "fits": fits, "default": default, "help": text}
            for heading, rows in groups.items()
            for name, fits, default, text in rows
        ]
    }


def _dry_run(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.dry_run import as_text, dry_run

    result = dry_run(
        arguments.method,
        data=arguments.data,
        config_file=arguments.config,
        assignments=arguments.set,
        pretrained=arguments.pretrained,
        target=arguments.target,
        limit=arguments.memory,
    )
    say(arguments, as_text(result))
    return result


def _evaluate(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.evaluate import evaluate, scoring_settings
    from pulvinar.app.memory_limit import within_of_run

    if arguments.settings:
        return _settings(arguments, {"What --set may change": scoring_settings(arguments.run)})
    with within_of_run(arguments.memory, arguments.run):
        result = evaluate(arguments.run, data=arguments.data, controls=not arguments.only_selection, assignments=arguments.set)
    _show_evaluation(arguments, result)
    say(arguments, f"next: pulvinar report {arguments.run}")
    return result


def _predict(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.predict import predict

    result = predict(arguments.run, images=arguments.images, out=arguments.out)
    shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in result["arrays"].items())
    say(arguments, f"wrote {result['out']}: {shapes}; the order of the images: {result['order']}")
    return result


def _reconstruct(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.reconstruct import reconstruct
    from pulvinar.decoding.pictures.reconstruction import as_text

    result = reconstruct(
        arguments.run,
        images=arguments.images,
        out=arguments.out,
        generator=arguments.generator,
        data=arguments.data,
        measures=arguments.measures,
        weights=arguments.weights,
        n_steps=arguments.steps,
        guidance=arguments.guidance,
        controls=not arguments.only_pictures,
        config_file=arguments.config,
        assignments=arguments.set,
    )
    say(arguments, f"{as_text(result)}\ngrid: {result['grid']}\nnext: pulvinar report {arguments.run}")
    return result


def _report(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.evaluate import report

    result = report(arguments.run, arguments.out, umap=arguments.umap, viewer=arguments.viewer)
    say(arguments, result["report"])
    return result


def _verify(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.verify import as_text, verify

    result = verify(arguments.run, data=arguments.data)
    say(arguments, as_text(result))
    arguments.exit_code = 0 if result["ok"] else 1
    return result


def _show_evaluation(arguments: argparse.Namespace, result: Result) -> None:
    from pulvinar.app.evaluate import evaluation_text

    if not arguments.json:
        print(evaluation_text(result))


def _declare_report(commands: Commands) -> None:
    report = commands.add(
        "report",
        _report,
        "one self-contained HTML page of a run, or of a sweep of self-supervised runs",
        example="pulvinar report runs/troi",
    )
    report.add_argument("run", help="run folder, or folder of a sweep")
    report.add_argument("--out", help="where to write it (default: RUN/report.html)")
    report.add_argument(
        "--umap", action="store_true", help="self-supervised: place test images by UMAP, not by PCA (slow, once)"
    )
    report.add_argument(
        "--viewer",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with or without interactive views of the brain (with; they add .1 to 6 MB to the page)",
    )


def declare(commands: Commands) -> None:
    """The command lines of this file."""
    demo = commands.add(
        "demo",
        _demo,
        "the main job on a planted world: data, ROI of a new subject, controls, report",
        example="pulvinar demo --out demo",
    )
    demo.add_argument("--seed", type=int, default=0, help="another seed is another world (default 0)")
    demo.add_argument("--out", help="folder for data, run and report (default: pulvinar-demo, or the next free name)")
    commands.add("list", _list, "the methods, selectors, datasets and presets there are", example="pulvinar list")
    _declare_fit(commands)
    _declare_evaluate(commands)
    predict = commands.add(
        "predict",
        _predict,
        "what a finished run predicts for new images, e.g. their RDM",
        example="pulvinar predict runs/aggregation --images pictures/ --out rdm.npy",
    )
    predict.add_argument("run", help="run folder")
    predict.add_argument(
        "--images",
        required=True,
        help="folder of pictures, in the order of their names; FOLDER?background=black says what transparent ones stand on",
    )
    predict.add_argument(
        "--out", required=True, help=".npy or .npz to write; the order of the images goes into a .csv beside it"
    )
    made = commands.add(
        "reconstruct",
        _reconstruct,
        "pictures of what the subject saw, from a finished decoding run",
        example="pulvinar reconstruct runs/troi --images 24",
    )
    made.add_argument("run", help="run folder of troi, cross_subject_decoder or picture_decoder")
    made.add_argument(
        "--images",
        default="24",
        help="test images: a count (default 24), all, ids or numbers with commas, or a folder of pictures (docs/pictures.md)",
    )
    made.add_argument("--out", help="folder of the pictures (default: RUN/reconstructions); a second call goes on in it")
    made.add_argument(
        "--generator",
        default="embedded",
        help="embedded (default, needs no weights), or unclip:PLACE, sdxl_ip_adapter:PLACE, kandinsky:PLACE (docs/pictures.md)",
    )
    made.add_argument("--steps", type=int, help="denoising steps of such a generator (default 20)")
    made.add_argument("--guidance", type=float, help="its classifier-free guidance (default 7.5)")
    made.add_argument("--data", help="the data, if they have moved")
    made.add_argument("--measures", nargs="+", default=[], help="networks that compare pictures (docs/pictures.md)")
    made.add_argument("--weights", help="folder of files with the measures' weights")
    made.add_argument("--only-pictures", action="store_true", help="leave out the controls")
    add_settings(made)
    _declare_report(commands)
    verify = commands.add(
        "verify",
        _verify,
        "check every file of a run, and make its reported scores again; exit code 1 if any differs",
        example="pulvinar verify runs/troi",
    )
    verify.add_argument("run", help="run folder")
    verify.add_argument("--data", help="the data, if they have moved")


def _declare_fit(commands: Commands) -> None:
    fit = commands.add(
        "fit",
        _fit,
        "fit a method to an experiment, to images or to RDMs",
        example="pulvinar fit troi --data mystudy/ --out runs/troi --set n_voxels=3000",
        add_help=False,
    )
    fit.add_argument("-h", "--help", action=HelpOfMethod, help="this, or after a METHOD its settings in groups")
    fit.add_argument("method", help="a method or a selector of `pulvinar list`, e.g. troi or anova")
    fit.add_argument("--data", help="what the method needs (docs/index.md): a folder, a file, or dataset:path")
    fit.add_argument("--out", help="run folder to make; must not exist, unless --resume")
    fit.add_argument(
        "--pretrained", metavar="RUN", help="finished run of the method this one starts from (default: trained inside the run)"
    )
    fit.add_argument("--backbone", dest="pretrained", help=argparse.SUPPRESS)  # its older name
    fit.add_argument("--target", help="the new subject (default: the experiment's own)")
    fit.add_argument("--resume", action="store_true", help="continue a run that was interrupted or killed")
    fit.add_argument("--evaluate", action="store_true", help="score it when it has finished, as `pulvinar evaluate` does")
    fit.add_argument("--only-selection", action="store_true", help="with --evaluate: leave out the controls")
    fit.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="train on N GPUs, or on the CPU in N processes (docs/devices.md)",
    )
    fit.add_argument(
        "--log",
        nargs="+",
        action="extend",
        default=[],
        choices=LOGGERS,
        help="where loss, scores, budget and pictures go too, in RUN/logs; a resumed run and its evaluation go on there",
    )
    add_memory(fit)
    fit.add_argument("--journal", metavar="FILE", help="JSON to write where the fit runs, since when, and how it ended")
    fit.add_argument("--dry-run", action="store_true", help="only say what memory and time the fit would need (decoders)")
    fit.add_argument("--settings", action="store_true", help="list the settings of the method and stop")
    add_settings(fit)


def _declare_evaluate(commands: Commands) -> None:
    evaluate = commands.add(
        "evaluate",
        _evaluate,
        "score a finished run on the test images, beside its controls",
        example="pulvinar evaluate runs/troi",
    )
    evaluate.add_argument("run", help="run folder")
    evaluate.add_argument("--data", help="the data, if they have moved, or other images to score a self-supervised run on")
    evaluate.add_argument("--only-selection", action="store_true", help="leave out the controls")
    add_memory(evaluate)
    evaluate.add_argument("--settings", action="store_true", help="list what --set may change and stop")
    evaluate.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="how it is scored, where there is a choice"
    )
