"""`pulvinar reproduce`: tables and figures of the papers."""

import argparse

from pulvinar.cli.common import Commands, Result, UsageError, say
from pulvinar.core import terminal


def _reproduce(arguments: argparse.Namespace) -> Result:
    from pulvinar.app import reproduce, reproduce_text

    if arguments.list:
        rows = reproduce.listed(arguments.data)
        say(arguments, terminal.filled(reproduce_text.of_list(rows)))
        return {"recipes": rows}
    if arguments.recipe is None:
        raise UsageError("reproduce: the name of a recipe is needed (`pulvinar reproduce --list`)")
    if arguments.dry_run:
        plan = reproduce.planned(arguments.recipe, scale=arguments.scale, data=arguments.data)
        say(arguments, terminal.filled(reproduce_text.of_plan(plan)))
        return plan
    if not arguments.out:
        raise UsageError("reproduce: --out is needed")
    result = reproduce.reproduce(
        arguments.recipe,
        out=arguments.out,
        data=arguments.data,
        scale=arguments.scale,
        seeds=arguments.seeds,
        images=arguments.images,
        assignments=arguments.set,
    )
    say(arguments, f"{len(result['runs'])} runs in {result['seconds']:.0f} s\nreport: {result['report']}")
    return result


def declare(commands: Commands) -> None:
    """The command line of this file."""
    recipe = commands.add(
        "reproduce",
        _reproduce,
        "a table or figure of a paper: run it, published numbers beside ours on a page",
        example="pulvinar reproduce troi/table2 --scale small --out reproduced",
    )
    recipe.add_argument("recipe", nargs="?", help="such as troi/table1 (`pulvinar reproduce --list`)")
    recipe.add_argument("--list", action="store_true", help="every recipe: what it needs, hours and memory, what was published")
    recipe.add_argument("--data", action="append", default=[], help="a data set of the paper, nsd:DIR; may be given again")
    recipe.add_argument("--out", help="folder for runs and page; what is there already is not made again")
    recipe.add_argument(
        "--scale",
        choices=("full", "small"),
        default="full",
        help="full: as the paper; small: the same steps in minutes, data planted",
    )
    recipe.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run of every cell for each (default 0)")
    recipe.add_argument("--images", help="labelled images, for recipes that classify: FOLDER?size=96 or .npz")
    recipe.add_argument("--dry-run", action="store_true", help="only say what would run, with all settings, memory and hours")
    recipe.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that win over the recipe's"
    )
