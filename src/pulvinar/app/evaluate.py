"""`pulvinar evaluate` and `report`: what a finished run says of the images that nothing was chosen on."""

import dataclasses
from pathlib import Path
from typing import Any

from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.app.fit import data_cautions, require_same_data
from pulvinar.app.stored_runs import uses_run
from pulvinar.core import devices, terminal
from pulvinar.core.config import Given, build, values_of
from pulvinar.core.errors import ConfigError, FileError, InputError
from pulvinar.core.progress import keeping
from pulvinar.core.storage import to_jsonable, write_json, write_text
from pulvinar.learning.method import Data
from pulvinar.learning.runs import RunFolder


def scoring_of(run: RunFolder, assignments: Given) -> tuple[Any, dict[str, Any]]:
    """The run's config with what its scores may have otherwise than its fit, and `scoring` for methods that take it.

    `ConfigError` where anything else is given.
    """
    method = registry.method(run.method)
    given, recorded = values_of(assignments), run.settings()
    config = build(method.config, recorded, name=run.method)
    if method.scored_by is not None:
        scoring = build(type(method.scored_by), {**vars(method.scored_by), **given}, name="evaluate", given=given)
        return config, {"scoring": scoring}
    usual = method.scoring
    if wrong := [name for name in given if name not in usual]:
        may = f"may be scored with another {' or '.join(usual)}" if usual else "is scored in one way"
        raise ConfigError(f"--set: a run of {run.method} {may}; leave out {', '.join(wrong)}")
    return build(method.config, {**recorded, **given}, name=run.method) if given else config, {}


@uses_run
def scoring_settings(run: str) -> list[tuple[str, str, Any, str]]:
    """Rows (name, what fits, default, help) of what `evaluate --set` may change, the device last."""
    from pulvinar.core.config import describe

    opened = RunFolder.reopen(run)
    config, extra = scoring_of(opened, ())
    scoring = extra.get("scoring", config)
    names = registry.method(opened.method).scoring
    rows = [(name, fits, getattr(scoring, name), text) for name, fits, _, text in describe(type(scoring))]
    own = [row for row in rows if extra or row[0] in names]
    return own + [(name, fits, config.device, text) for name, fits, _, text in describe(devices.DeviceSetting)]


@uses_run
def evaluate(run: str, *, data: str | Data | None = None, controls: bool = True, assignments: Given = ()) -> dict[str, Any]:
    """Score a finished run on the outer test images, beside its controls. assignments: how, where there is a choice.

    data: where they are now, or the data themselves; None: where they were at the fit.
    The result has the run's finding too (`headline`, `cautions`); what was warned of while scoring is kept in the run.
    """
    finished = RunFolder.reopen(run)
    if registry.method(finished.method).evaluate is None:
        raise InputError(
            f"{run}: a run of {finished.method} has no evaluation of its own; it is scored through a method that reads it"
        )
    if not finished.finished:
        raise FileError(f"{run}: the fit has not finished; continue it with `pulvinar fit {finished.method} … --resume`")
    with finished.held(), finished.logged(()) as logs:
        result = _evaluate(finished, data, controls=controls, assignments=assignments)
        if logs is not None:
            logs.scores(result["rows"])
            logs.pictures()
        return result


def _evaluate(finished: RunFolder, data: str | Data | None, *, controls: bool, assignments: Given) -> dict[str, Any]:
    from pulvinar.scores.table import csv_text

    run, method = str(finished.path), registry.method(finished.method)
    given = values_of(assignments)
    device = devices.device_name(str(given.pop("device", finished.settings().get("device", "auto"))))
    config, scoring = scoring_of(finished, given)
    source = finished.facts["data"]
    if data is None and not _exists(source["path"]):
        raise FileError(f"{source['path']}: the data of {run} are not there any more; say where they are with --data")
    opened = open_data(method.data, source["path"] if data is None else data, target=source["target"])
    if not scoring:  # who may be scored another way may be on other images
        require_same_data(finished, opened)
    warned = data_cautions(opened)
    with keeping(warned.append), devices.using(device):
        result: dict[str, Any] = method.evaluate(finished, opened, config, controls=controls, **scoring)  # type: ignore[misc]
    if result.get("rois"):  # how much of the subject's own ROIs was selected
        write_text(finished.path / "artifacts" / "roi_overlap.csv", csv_text(result["rois"]))
    elsewhere = bool(result.get("changed")) or not result.get("own_images", True)
    if not elsewhere and list(dict.fromkeys(warned)) != finished.facts.get("evaluation_cautions", []):
        finished.facts["evaluation_cautions"] = list(dict.fromkeys(warned))
        write_json(finished.path / "run.json", finished.facts)
    return {"run": run, "seed": finished.facts["seed"], **result, **_finding(finished, result if elsewhere else None)}


def _finding(finished: RunFolder, elsewhere: dict[str, Any] | None) -> dict[str, Any]:
    """The headline of a run and its cautions; of an evaluation that is kept elsewhere, that one's."""
    from pulvinar.report import findings, run_folder

    read = run_folder.read(finished.path)
    read = read if elsewhere is None else dataclasses.replace(read, evaluation=to_jsonable(elsewhere))
    return {
        "headline": " ".join([f"{findings.headline(read).lead}.", findings.headline(read).rest]),
        "cautions": findings.cautions(read),
    }


def evaluation_text(result: dict[str, Any]) -> str:
    """What `pulvinar evaluate` prints of a result: the table, then the finding and its cautions."""
    summary = [result["headline"], *(f"caution: {text}" for text in result["cautions"])]
    return "\n".join([_table_text(result), "", *map(terminal.filled, summary)])


def _table_text(result: dict[str, Any]) -> str:
    from pulvinar.report import tables

    method = registry.method(RunFolder.reopen(result["run"]).method)
    if method.table is not None:
        return method.table(result)
    null = result["null"]
    table = tables.score_table(result["rows"], method.name, told=True).text()
    summary = (
        f"gallery of {result['gallery_size']:.0f} images, chance {result['chance']:.4f}, "
        f"permutation null {null['mean']:.4f} (95th percentile {null['percentile_95']:.4f})"
    )
    ours = next((row for row in result["rows"] if row["name"] == method.name), None)
    near = tables.near_training(result.get("near_training"), ours)
    told = filter(None, [summary, near, tables.headroom(result.get("headroom"))])
    return "\n".join([table, "", *map(terminal.filled, told)])


def _exists(source: str) -> bool:
    _, colon, path = source.partition(":")
    places = [source, source.partition("?")[0], *([path.partition("?")[0]] if colon else [])]
    return any(Path(place).exists() for place in places)


@uses_run
def report(run: str, out: str | None = None, *, umap: bool = False, viewer: bool = True) -> dict[str, Any]:
    """Build the HTML page of a run. umap: of a self-supervised run, place its test images by UMAP (by PCA otherwise).

    viewer: interactive views of the brain in it.
    """
    from pulvinar.report.page import build as build_page

    if umap:
        from pulvinar.gating.figures import keep_umap

        keep_umap(run)
    return {"run": run, "report": str(build_page(run, out, viewer=viewer))}
