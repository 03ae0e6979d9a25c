"""`pulvinar encoding`: what finished encoding runs say about transfer, information, classes, salience, and over subjects."""

import argparse

from pulvinar.cli.common import Commands, Result, say


def _transfer(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import encoding

    result = encoding.transfer(
        arguments.run,
        untuned=arguments.untuned,
        data=arguments.data,
        subjects=arguments.subject,
        roi=arguments.roi,
        seed=arguments.seed,
    )
    say(arguments, result.pop("text"))
    return result


def _information(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import encoding

    result = encoding.information(
        arguments.run, candidates=arguments.candidates, n_permutations=arguments.permutations, seed=arguments.seed
    )
    say(arguments, encoding.information_text(result))
    return result


def _classify(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import encoding

    result = encoding.classify(arguments.run, images=arguments.images, layer=arguments.layer, seed=arguments.seed)
    say(arguments, result.pop("text"))
    return result


def _salience(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import encoding

    result = encoding.salience(
        arguments.run,
        images=arguments.images,
        other=arguments.other,
        subject=arguments.subject,
        roi=arguments.roi,
        n_images=arguments.n_images,
        seed=arguments.seed,
    )
    say(arguments, encoding.salience_text(result))
    return result


def _compare(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import encoding

    result = encoding.compare(arguments.run, seed=arguments.seed)
    say(arguments, encoding.comparison_text(result))
    return result


def declare(commands: Commands) -> None:
    """The command lines of this file."""
    kinds = commands.group(
        "encoding",
        "analyses of finished encoding runs: transfer, information, classes",
        "Encoding runs.",
        example="pulvinar encoding compare runs/tuned runs/ridge",
    )
    transfer = kinds.add(
        "transfer",
        _transfer,
        "which network serves which subject: share of voxels improved over untuned",
        example="pulvinar encoding transfer runs/tuned --untuned runs/ridge",
    )
    transfer.add_argument("run", nargs="+", help="encoding runs; a tuned run gives every network that it keeps")
    transfer.add_argument("--untuned", metavar="RUN", help="run with the untuned network (default: that of a tuned run)")
    transfer.add_argument("--data", help="another experiment to transfer to (default: that of the first run)")
    transfer.add_argument("--subject", action="append", help="only this subject; may be given again")
    transfer.add_argument("--roi", action="append", help="only voxels of this ROI; may be given again")
    information = kinds.add(
        "information",
        _information,
        "lower bound on what images and responses share, in nats",
        example="pulvinar encoding information runs/tuned",
    )
    information.add_argument("run", help="evaluated encoding run")
    information.add_argument("--candidates", type=int, metavar="K", help="images in one softmax (default: half of the test)")
    information.add_argument("--permutations", type=int, default=100, help="permutations of the null (default 100)")
    classify = kinds.add(
        "classify",
        _classify,
        "classes of labelled images from frozen features; from 3 models on a landscape",
        example="pulvinar encoding classify runs/tuned --images 'labelled?size=96'",
    )
    classify.add_argument("run", nargs="+", help="encoding runs with a network")
    classify.add_argument("--images", required=True, help="labelled images: FOLDER?size=96 with train/ and test/, or .npz")
    classify.add_argument("--layer", help="which layer's features (default: the last)")
    salience = kinds.add(
        "salience",
        _salience,
        "where left- and right-hemisphere models look, and the lateralisation index",
        example="pulvinar encoding salience runs/left --other runs/right",
    )
    salience.add_argument("run", help="evaluated encoding run with a network")
    salience.add_argument("--other", metavar="RUN", help="run of the right hemisphere's model (default: the same run)")
    salience.add_argument("--images", help="folder of pictures (default: the outer test images)")
    salience.add_argument("--n-images", type=int, default=50, help="how many of them, evenly drawn (default 50)")
    salience.add_argument("--subject", help="whose model (default: the first)")
    salience.add_argument("--roi", help="only voxels of this ROI")
    compare = kinds.add(
        "compare",
        _compare,
        "scores over subjects: against chance, and runs against the first one, paired",
        example="pulvinar encoding compare runs/tuned runs/ridge",
    )
    compare.add_argument("run", nargs="+", help="evaluated encoding runs of the same subjects")
    for command in (transfer, information, classify, salience, compare):
        command.add_argument("--seed", type=int, default=0, help="of bootstrap and permutations (default 0)")
