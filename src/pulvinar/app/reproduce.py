"""`pulvinar reproduce`: a table or figure of a paper, run as a sweep, and one page with what was published beside ours.

OUT/PAPER/TABLE/DATA/        a sweep's folder: a run for every cell, table.csv, grid.toml
OUT/PAPER/TABLE/report.html  the page over all data; every run has a page of its own too
OUT/data/LAYOUT              what is planted at scale small, where no --data are given
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import cost, method_settings
from pulvinar.app import encoding as analyses
from pulvinar.app import evaluate as evaluating
from pulvinar.app import recipe as recipes
from pulvinar.app.data import absolute, open_data, simulate, sources_of
from pulvinar.app.recipe import EVERY_SUBJECT, Recipe, Scale
from pulvinar.app.sweeps.sweep import sweep
from pulvinar.core.errors import ConfigError, InputError
from pulvinar.core.progress import log
from pulvinar.core.storage import read_json, write_json, write_text
from pulvinar.learning.runs import RunFolder

N_RECONSTRUCTED = {"full": "all", "small": "8"}
SMALL_PICTURES = ("n_images=100", "epochs=1", "low_level_epochs=2")
SMALL_IMAGES = ("n_train=160", "n_test=60")  # labelled images, and those that features are transferred to


def listed(data: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every recipe: name, title, paper, needs, what is missing, whether it is here, published numbers, hours and memory_gb.

    data: sources that are here, as NAME:PLACE; a recipe is available where one of its paper's data sets is among them, its
    folder exists, and no library is missing (weights and embeddings are looked for when it runs). hours and memory_gb: of the
    full recipe at this machine's speed now; None where nothing is known.
    """
    every = [one for source in data for one in sources_of("dissimilarities", source)]
    here = {source.partition(":")[0] for source in every if Path(source.partition(":")[2].partition("?")[0]).exists()}
    rows = []
    speed = cost.measured_speed()
    for found in recipes.recipes().values():
        missing = [] if here & set(found.data) else [f"--data {' or '.join(f'{name}:DIR' for name in found.data)}"]
        missing += cost.missing_extras(found)
        needed = cost.estimate(found, speed)
        rows.append(
            {
                "name": found.name,
                "title": found.title,
                "paper": found.paper,
                "needs": list(found.needs),
                "missing": missing,
                "available": not missing,
                "published": found.published(),
                "methods": list(found.methods),
                **needed,
            }
        )
    return rows


def planned(name: str, *, scale: Scale = "full", data: Sequence[str] = ()) -> dict[str, Any]:
    """What a recipe would run: every cell with all of its settings, and the hours and memory of the full one."""
    found = recipes.recipe(name)
    sources = [source.partition(":")[0] for source in data] or (list(found.data) if scale == "full" else [found.layout()[0]])
    cells = []
    for dataset in sources:
        for cell in found.cells(scale, dataset):
            method = str(cell["method"])
            config, pretrained = method_settings.configs(method, None, found.assignments(cell))
            settings = dataclasses.asdict(config)
            settings |= {} if pretrained is None else {f"pretrained.{key}": value for key, value in vars(pretrained).items()}
            label = str(cell.get("name", method))
            cells.append({"data": dataset, "cell": label, "method": method, "settings": settings})
    needed = cost.estimate(found, cost.measured_speed()) if scale == "full" else {}
    return {
        "name": name,
        "scale": scale,
        "cells": cells,
        "axes": found.grid(scale),
        "targets": found.targets(scale),
        "differs": found.differs(scale),
        **needed,
    }


def reproduce(
    name: str,
    *,
    out: str,
    data: Sequence[str] = (),
    scale: Scale = "full",
    seeds: Sequence[int] = (0,),
    images: str | None = None,
    assignments: Sequence[str] = (),
) -> dict[str, Any]:
    """Run a recipe; what is there already is not made again. `report` of the result is the page.

    data: sources, one or more; none at scale small: they are planted in OUT/data. images: labelled images, for the recipes that
    classify. assignments: settings that win over the recipe's, as key=value.
    """
    from pulvinar.app.reproduce_page import write_page

    started = time.monotonic()
    found = recipes.recipe(name)
    sources = list(data) or [_planted(found, scale, Path(out))]
    folder = Path(out) / name
    parts = []
    for source in sources:
        place = folder / (_folder_of(source, sources) if len(sources) > 1 else "runs")
        grid = _grid(found, scale, source, place, seeds, assignments)
        result = sweep(str(_write_grid(place.with_suffix(".toml"), grid)), retry=True)
        runs = list(dict.fromkeys(place / row["cell"] for row in result["rows"]))
        for run in runs:
            _after(found, run, scale, sources, source, images or _planted_labels(found, scale, Path(out)), Path(out))
        _together(found, runs, images or _planted_labels(found, scale, Path(out)))
        for run in runs:
            evaluating.report(str(run))
        parts.append({"source": source, "folder": place, "runs": runs, "rows": result["rows"]})
    facts = {
        "name": name,
        "scale": scale,
        "data": [absolute(source) for source in sources],
        "seeds": list(seeds),
        "set": list(assignments),
        "seconds": time.monotonic() - started,
    }
    write_json(folder / "reproduce.json", facts)
    page = write_page(found, scale, folder, parts, facts)
    return {**facts, "report": str(page), "runs": [str(run) for part in parts for run in part["runs"]]}


def _name_of(source: str) -> str:
    dataset, colon, path = source.partition(":")
    return dataset if colon and not Path(source).exists() else Path(path or source).stem


def _folder_of(source: str, sources: Sequence[str]) -> str:
    """The data set's name; where several sources are of one (92 and 118 images), with that of their folder."""
    name = _name_of(source)
    alike = sum(_name_of(other) == name for other in sources) > 1
    return f"{name}-{Path(source.partition(':')[2].partition('?')[0] or source).name}" if alike else name


def _planted(found: Recipe, scale: Scale, out: Path) -> str:
    """Where the planted data of scale small are, made if they are not there; `ConfigError` at scale full."""
    if scale == "full":
        wanted = " or ".join(f"--data {name}:DIR" for name in found.data)
        raise ConfigError(
            f"{found.name}: {wanted} is needed; or --scale small, which plants its data. It needs:\n  "
            + "\n  ".join(found.needs)
        )
    layout, settings = found.layout()
    place = _plant(out, layout, layout, settings)
    if found.kind == "dissimilarities":
        return ",".join(f"{layout}:{path}" for path in sorted((place / "Training_Data").iterdir()) if path.is_dir())
    return f"{layout}:{place}" + (f"?image_size={64}" if layout == "nsd" else "")


def _planted_labels(found: Recipe, scale: Scale, out: Path) -> str | None:
    """Labelled images for the recipes that classify, at scale small."""
    if not {"classify", "landscape"} & set(found.after) or scale == "full":
        return None
    return str(_plant(out, "labelled_images", "image_files", SMALL_IMAGES))


def _plant(out: Path, name: str, layout: str, settings: Sequence[str]) -> Path:
    """OUT/data/NAME, planted if it is not there; `InputError` where it was planted with other settings."""
    place, note = out / "data" / name, out / "data" / f"{name}.json"
    wanted = {"layout": layout, "settings": list(settings)}
    if not place.exists():
        log(f"planting data in the layout of {layout}: {place}")
        simulate(str(place), layout=layout, assignments=settings)
        write_json(note, wanted)
    elif not note.is_file() or read_json(note) != wanted:
        raise InputError(
            f"{place} was planted with other settings than these: {', '.join(settings)}. Name another --out, or remove it"
        )
    return place


def _grid(
    found: Recipe, scale: Scale, source: str, place: Path, seeds: Sequence[int], assignments: Sequence[str]
) -> dict[str, Any]:
    cells = found.cells(scale, _name_of(source))
    if any(EVERY_SUBJECT in cell.values() for cell in cells):
        subjects = ",".join(open_data(found.kind, source).subjects)
        cells = [{key: subjects if value == EVERY_SUBJECT else value for key, value in cell.items()} for cell in cells]
    given = dict(pair.partition("=")[::2] for pair in assignments)
    grid: dict[str, Any] = {
        "data": source,
        "out": str(place),
        "cell": [cell | given for cell in cells],
        "grid": {name: values for name, values in (found.grid(scale) | {"seed": list(seeds)}).items() if name not in given},
        "controls": True,
    }
    targets = found.targets(scale)
    return grid | ({"target": targets if len(targets) > 1 else targets[0]} if targets else {})


def _write_grid(path: Path, grid: dict[str, Any]) -> Path:
    """The grid as a TOML file that `pulvinar sweep` takes."""
    lines = [f"{key} = {_toml(grid[key])}" for key in ("data", "out", "controls", "target") if key in grid]
    lines += ["", "[grid]", *(f"{json.dumps(key)} = {_toml(values)}" for key, values in grid["grid"].items())]
    for cell in grid["cell"]:
        lines += ["", "[[cell]]", *(f"{json.dumps(key)} = {_toml(value)}" for key, value in cell.items())]
    write_text(path, "\n".join(lines) + "\n")
    return path


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # of plain values and lists of them JSON is TOML


# --- what is done with every run ----------------------------------------------------------------------------------------


def _after(found: Recipe, run: Path, scale: Scale, sources: Sequence[str], source: str, images: str | None, out: Path) -> None:
    for step in (step for step in found.after if step in STEPS):
        done = run / "artifacts" / f"{step.replace(' ', '_')}.done"
        if done.exists():
            continue
        log(f"{run.name}: {step}")
        STEPS[step](run, scale, [other for other in sources if other != source], images, out)
        write_text(done, "")


def _together(found: Recipe, runs: Sequence[Path], images: str | None) -> None:
    """What is done once, with all runs; it is kept in the first one's folder."""
    for step in (step for step in found.after if step in STEPS_TOGETHER):
        done = runs[0] / "artifacts" / f"{step}.done"
        names = "\n".join(run.name for run in runs)
        if done.exists() and done.read_text() == names:
            continue
        log(f"{found.name}: {step}")
        STEPS_TOGETHER[step](runs, images)
        write_text(done, names)


def _landscape(runs: Sequence[Path], images: str | None) -> None:
    analyses.classify([str(run) for run in runs], images=_labelled(images))


def _labelled(images: str | None) -> str:
    if images is None:
        raise InputError("--images: labelled images are needed (FOLDER?size=96 with train/ and test/, or .npz)")
    return images


def _reconstruct(run: Path, scale: Scale, others: Sequence[str], images: str | None, out: Path) -> None:
    from pulvinar.app.reconstruct import reconstruct

    reconstruct(str(run), images=N_RECONSTRUCTED[scale], assignments=SMALL_PICTURES if scale == "small" else ())


def _transfer(run: Path, scale: Scale, others: Sequence[str], images: str | None, out: Path) -> None:
    analyses.transfer([str(run)])


def _classify(run: Path, scale: Scale, others: Sequence[str], images: str | None, out: Path) -> None:
    analyses.classify([str(run)], images=_labelled(images))


def _salience(run: Path, scale: Scale, others: Sequence[str], images: str | None, out: Path) -> None:
    analyses.salience(str(run), n_images=50 if scale == "full" else 8)


def _score_elsewhere(run: Path, scale: Scale, others: Sequence[str], images: str | None, out: Path) -> None:
    """Scores of a self-supervised run on the other image sets."""
    for other in others or _other_images(scale, out):
        evaluating.evaluate(str(run), data=other, controls=False)


def _score_at_unit_length(run: Path, scale: Scale, others: Sequence[str], images: str | None, out: Path) -> None:
    """Nearest neighbours of features of unit length, as table 3 of dual gating has them; students are scored so anyway."""
    if RunFolder.reopen(run).method != "distillation":
        evaluating.evaluate(str(run), controls=False, assignments=["normalised=true"])


def _other_images(scale: Scale, out: Path) -> list[str]:
    if scale == "full":
        raise InputError("--data: two image sets or more are needed to transfer between")
    return [f"image_files:{_plant(out, 'image_files_2', 'image_files', ('seed=1', *SMALL_IMAGES))}"]


STEPS: dict[str, Callable[..., None]] = {
    "reconstruct": _reconstruct,
    "transfer": _transfer,
    "classify": _classify,
    "salience": _salience,
    "transfer of images": _score_elsewhere,
    "unit length": _score_at_unit_length,
}
STEPS_TOGETHER: dict[str, Callable[[Sequence[Path], str | None], None]] = {"landscape": _landscape}
