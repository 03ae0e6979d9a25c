"""The page of `pulvinar reproduce`: what was published beside ours, what differs, cautions, and where every run's page is."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import method_settings
from pulvinar.app.recipe import Recipe, Scale
from pulvinar.core.storage import read_json, write_text
from pulvinar.report import page, run_folder, tables
from pulvinar.report.drawing import SIMULATED
from pulvinar.report.findings import cautions, headline
from pulvinar.report.run_folder import Run
from pulvinar.scores.table import Column, Table, csv_text

Ours = tuple[str, str, dict[str, Any]]  # name, data, metric -> value
UNITS = {
    "r_optimistic": "r",
    "r_nested": "r",
    "r_untuned": "r",
    "pixcorr": "correlation",
    "ssim": "correlation",
    "swav": "distance",
}
ELSEWHERE = (
    "Published numbers as printed, ours above them: of other data, sizes and subjects at scale small, and of another protocol "
    "where that is said. A dash: no number of that kind."
)


def write_page(
    recipe: Recipe, scale: Scale, folder: Path, parts: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> Path:
    """report.html and comparison.csv in the folder; the page's path."""
    runs = {path: run_folder.read(path) for part in parts for path in part["runs"]}
    named = {path: _label(path, len(facts["seeds"]) > 1) for path in runs}
    ours = [row for path, run in runs.items() for row in OURS[recipe.wing](run, named[path])]
    entries = recipe.published()
    metrics = list(dict.fromkeys(str(entry["metric"]) for entry in entries)) or _all_metrics(ours)
    beside = tables.published(entries or [{"metric": name, "unit": UNITS.get(name, "percent")} for name in metrics], ours)
    if not entries:
        columns = [column for column in beside.columns if column.key != "table"]
        beside = Table(columns, beside.rows[:-1], ours=range(len(beside.rows) - 1))
    rows = [
        {"run": str(path.relative_to(folder)), "name": named[path], "finding": "".join(headline(run)[0])}
        for path, run in runs.items()
    ]
    page.write(
        folder / "report.html",
        "reproduce",
        folder=folder.name,
        title=f"{recipe.name}: {recipe.title}",
        line=f"{recipe.paper} · scale {scale} · {_counted(len(runs))} in {_minutes(facts['seconds'])}",
        lead=recipe.title,
        rest="",
        tiles=[],
        cautions=_cautions({named[path]: run for path, run in runs.items()}),
        simulated=SIMULATED if any(run.simulated for run in runs.values()) else "",
        beside=beside,
        warning=ELSEWHERE,
        figures=_figures(recipe, named),
        changed=_changed(recipe, scale, parts),
        differs=recipe.differs(scale),
        runs=rows,
        command=_command(recipe, facts),
    )
    write_text(folder / "comparison.csv", csv_text(beside.records()))
    return folder / "report.html"


def _figures(recipe: Recipe, named: Mapping[Path, str]) -> list[tuple[str, Path]]:
    """The recipe's pictures of every run: its name, and the file without suffix."""
    found = []
    for path, name in named.items():
        for pattern in recipe.figures:
            found += [(name, place.with_suffix("")) for place in sorted(path.glob(f"{pattern}.png"))]
    return found


def _changed(recipe: Recipe, scale: Scale, parts: Sequence[Mapping[str, Any]]) -> Table:
    """Settings of the first cell of each method that scale small has otherwise than the paper."""
    if scale == "full":
        return Table((), ())
    rows = []
    for method in recipe.methods:
        full, small = (_settings(recipe, kind, method) for kind in ("full", "small"))
        rows += [
            {"method": method, "name": name, "full": str(full[name]), "small": str(small[name])}
            for name in full
            if small and full[name] != small.get(name)
        ]
    columns = [Column(key, key, lead=key == "name") for key in ("name", "method", "full", "small")]
    return Table(columns, rows)


def _settings(recipe: Recipe, scale: Scale, method: str) -> dict[str, Any]:
    """All settings of a method's first cell, those of its pretrained run too; empty where the recipe has no such cell."""
    dataset = recipe.data[0] if scale == "full" else recipe.layout()[0]
    for cell in recipe.cells(scale, dataset):
        if cell["method"] == method:
            config, pretrained = method_settings.configs(method, None, recipe.assignments(cell))
            return vars(config) | (
                {} if pretrained is None else {f"pretrained.{key}": value for key, value in vars(pretrained).items()}
            )
    return {}


def _counted(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"


def _label(path: Path, several_seeds: bool) -> str:
    """The cell's name; its seed where there are several."""
    name = path.name.replace("_", " ")
    return name if several_seeds else re.sub(r",?seed=\d+", "", name) or name


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _cautions(runs: Mapping[str, Run]) -> list[str]:
    """Each caution once, with how many runs have it."""
    found: dict[str, list[str]] = {}
    for name, run in runs.items():
        for text in cautions(run):
            found.setdefault(text, []).append(name)
    return [f"{', '.join(names) if len(names) < len(runs) else 'Every run'}: {text}" for text, names in found.items()]


def _command(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    data = "".join(f" --data {Path(source).name}" for source in facts["data"]) if facts["scale"] == "full" else ""
    given = f" --set {' '.join(facts['set'])}" if facts["set"] else ""
    return f"pulvinar reproduce {recipe.name} --scale {facts['scale']}{data}{given} --out OUT"


def _all_metrics(ours: Sequence[Ours]) -> list[str]:
    return list(dict.fromkeys(name for _, _, values in ours for name in values))


# --- our numbers under the published metrics ------------------------------------------------------------------------------


def _of_decoding(run: Run, label: str) -> list[Ours]:
    """The selection, and the controls that the paper has; draws of 300 where there are as many test images."""
    evaluation = run.evaluation or {}
    draws = (evaluation.get("protocols") or {}).get("draws")
    headline_is_draws = evaluation.get("protocol") == "draws"
    gallery = "30 draws of 300" if draws else f"every candidate, gallery of {evaluation.get('gallery_size')}"
    prefix = "draws_" if draws and not headline_is_draws else ""
    summary = run.folder / "reconstructions" / "summary.json"
    pictures = _pictures(summary)
    made = []
    for name in (run.method, "annotated", "ridge"):
        row = run.row(name)
        if row is None:
            continue
        values = {key: row.get(prefix + key) for key in ("image_to_brain_top1", "brain_to_image_top1")}
        values |= pictures if name == run.method else {}
        made.append((f"{tables.label(name)}, ours: {label}", f"{run.facts['data']['name']}; {gallery}", values))
    return made


def _pictures(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    rows = read_json(path).get("rows", [])
    return {key: rows[0].get(key) for key in ("pixcorr", "ssim", "inception", "swav") if rows}


def _of_gating(run: Run, label: str) -> list[Ours]:
    evaluation = run.evaluation or {}
    values: dict[str, Any] = {}
    for row in evaluation.get("rows", ()):
        branch = row.get("branch")
        if branch in ("dense", "gated"):
            values |= {f"knn_{branch}": row["knn"], f"linear_{branch}": row["linear"]}
            values |= {"mac_share": row["mac_share"]} if branch == "gated" else {}
    if run.method == "distillation" and evaluation.get("rows"):
        values["knn1_normalised"] = evaluation["rows"][0]["knn"]
    made = [(f"Ours: {label}", str(run.facts["data"]["name"]), values)]
    for name, other in run.elsewhere.items():
        scores = {f"linear_{row['branch']}": row["linear"] for row in other["rows"] if row.get("branch") in ("dense", "gated")}
        made.append((f"Ours: {label}", f"{run.facts['data']['name']} to {name}", scores))
    return made


def _of_rsa(run: Run, label: str) -> list[Ours]:
    name = str(run.facts["data"]["name"])
    tables_of = {"unseen images": run.rows, "held-out pairs": (run.evaluation or {}).get("held_out_pairs", {}).get("rows", ())}
    return [
        (f"Ours: {label}, {row['target']}", f"{name}; {what}", {"percent": row["percent"] / 100})
        for what, rows in tables_of.items()
        for row in rows
        if row["name"] == "learning_to_aggregate"
    ]


def _of_encoding(run: Run, label: str) -> list[Ours]:
    made = []
    for row in run.rows:
        if row["roi"] == "all" and row["hemisphere"] == "both":
            values = {key: row.get(key) for key in ("r_optimistic", "r_nested", "r_untuned", "share_improved")}
            made.append((f"Ours: {label}, {row['subject']}", f"{run.facts['data']['name']}, all voxels", values))
    return made


OURS: dict[str, Callable[[Run, str], list[Ours]]] = {
    "decoding": _of_decoding,
    "gating": _of_gating,
    "rsa": _of_rsa,
    "encoding": _of_encoding,
}
