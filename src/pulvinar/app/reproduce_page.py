"""The page of `pulvinar reproduce`: what was published beside ours, what differs, cautions, and where every run's page is."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import method_settings
from pulvinar.app.recipe import Recipe, Scale
from pulvinar.core.storage import read_json, write_text
from pulvinar.decoding import page as decoding_page
from pulvinar.encoding import image_classification
from pulvinar.encoding import scores as encoding_scores
from pulvinar.gating import backbone_scores
from pulvinar.report import page, run_folder, tables
from pulvinar.report.drawing import SIMULATED
from pulvinar.report.findings import cautions, headline
from pulvinar.report.published_tables import headings, published
from pulvinar.report.run_folder import Run
from pulvinar.rsa import evaluation as rsa_evaluation
from pulvinar.scores.table import Column, Table, csv_text

Ours = tuple[str, str, dict[str, Any]]  # name, data, metric -> value
UNITS = {
    "r_optimistic": "r",
    "r_nested": "r",
    "r_untuned": "r",
    "difference": "r",
    "pixcorr": "correlation",
    "ssim": "correlation",
    "swav": "distance",
}
ELSEWHERE = (
    "Published numbers as printed, ours above them: of other data, sizes and subjects at scale small, and of another protocol "
    "where that is said. A dash: no number of that kind."
)
PUBLISHED = {
    "decoding": decoding_page.PUBLISHED,
    "gating": backbone_scores.PUBLISHED,
    "rsa": rsa_evaluation.PUBLISHED,
    "encoding": (*encoding_scores.PUBLISHED, image_classification.SCORES[0]),
}
CHANGED = (  # settings that scale small has otherwise
    Column("name", "setting", lead=True),
    Column("method", "method", lead=True),
    Column("full", "full", definition="The setting at `--scale full`, which is the paper's."),
    Column("small", "small", definition="The setting at `--scale small`, whose numbers are of minutes and planted data."),
)
OF_VOXELS = ("r_optimistic", "r_nested", "r_untuned", "difference")
ALSO = {"encoding": OF_VOXELS[1:]}  # what a reader needs beside the paper's scores
PICTURE_SCORES = ("pixcorr", "ssim", "inception", "swav")
PICTURES = "pictures are made from the run's own voxels alone"
NO_PASS = {
    "dense": "a network trained with gates alone has no dense pass",
    "gated": "a network without gates has no gated pass",
}
BESIDE = ("_interval", "_reason")  # what stands beside a value, under its name
TWO_RUNS = "it compares two runs voxel by voxel, which this page does not"
NOT_SAID = "not measured by this run"
LONGEST_LIST = 60  # characters of the names before a caution


def write_page(
    recipe: Recipe, scale: Scale, folder: Path, parts: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> Path:
    """report.html and comparison.csv in the folder; the page's path."""
    runs = {path: run_folder.read(path) for part in parts for path in part["runs"]}
    named = {path: _label(path, recipe, len(facts["seeds"]) > 1) for path in runs}
    ours = [row for path, run in runs.items() for row in OURS[recipe.wing](run, named[path])]
    entries = recipe.published()
    also = ALSO.get(recipe.wing, ())
    metrics = list(dict.fromkeys([*(str(entry["metric"]) for entry in entries), *also])) if entries else _all_metrics(ours)
    nothing = [{"metric": name, "unit": UNITS.get(name, "percent")} for name in metrics]
    beside = published(entries or nothing, ours, columns=PUBLISHED[recipe.wing], also=also)
    if not entries:
        beside = Table(beside.columns, beside.rows[:-1], ours=range(len(beside.rows) - 1))
    rows = [
        {"run": str(path.relative_to(folder)), "name": named[path], "finding": "".join(headline(run)[0])}
        for path, run in runs.items()
    ]
    page.write(
        folder / "report.html",
        "reproduce",
        title=f"{recipe.name}: {recipe.title}",
        line=f"{recipe.paper} · scale {scale} · {_counted(len(runs))} in {_minutes(facts['seconds'])}",
        lead=recipe.title,
        rest="",
        tiles=[],
        cautions=_cautions({named[path]: run for path, run in runs.items()}),
        simulated=SIMULATED if any(run.simulated for run in runs.values()) else "",
        beside=beside,
        heading="Published beside ours" if entries else "Ours",
        warning=ELSEWHERE if entries else "Nothing of this was published as a number.",
        dashes=_dashes(headings(metrics, PUBLISHED[recipe.wing]), ours),
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
            places = sorted(path.glob(f"{pattern}.png"))
            whose = "Every run" if "landscape" in recipe.after else name
            found += [(whose if len(places) == 1 else f"{whose}: {place.stem}", place.with_suffix("")) for place in places]
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
    return Table(CHANGED, rows)


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


def _label(path: Path, recipe: Recipe, several_seeds: bool) -> str:
    """What tells the run from the others: '20 voxels' of troi,n_voxels=20,seed=0; its seed where there are several."""
    parts = [part for part in path.name.split(",") if several_seeds or not part.startswith("seed=")]
    settings = [part for part in parts if "=" in part]
    parts = settings if settings and parts[0] in recipe.methods else parts
    return ", ".join(map(_setting, parts)) or path.name


def _setting(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return text.replace("_", " ")
    written, named = value.replace("_", " "), key.replace("_", " ")
    counted = named[2:].removesuffix("s") if value == "1" else named[2:]
    return f"{written} {counted}" if key.startswith("n_") else f"{named} {written}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _cautions(runs: Mapping[str, Run]) -> list[str]:
    """Each caution once, with the runs that have it; where only its numbers differ, with those of the first."""
    found: dict[str, dict[str, str]] = {}
    for name, run in runs.items():
        for text in cautions(run):
            found.setdefault(re.sub(r"[-−+]?\d[\d.]*", "#", text), {}).setdefault(name, text)
    lines = []
    for texts in found.values():
        names, text = list(texts), next(iter(texts.values()))
        said = f" (numbers of {names[0]})" if len(set(texts.values())) > 1 else ""
        lines.append(f"{_several(names) if len(names) < len(runs) else 'Every run'}{said}: {text}")
    return lines


def _several(names: Sequence[str]) -> str:
    """All names where they are short, else the first and how many more."""
    listed = ", ".join(names)
    return listed if len(listed) <= LONGEST_LIST or len(names) == 1 else f"{names[0]}, and {len(names) - 1} more"


def _command(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    data = "".join(f" --data {Path(source).name}" for source in facts["data"]) if facts["scale"] == "full" else ""
    given = f" --set {' '.join(facts['set'])}" if facts["set"] else ""
    return f"pulvinar reproduce {recipe.name} --scale {facts['scale']}{data}{given} --out OUT"


def _all_metrics(ours: Sequence[Ours]) -> list[str]:
    return list(dict.fromkeys(name for _, _, values in ours for name in values if not name.endswith(BESIDE)))


# --- our numbers under the published metrics ------------------------------------------------------------------------------


def _dashes(called: Mapping[str, str], ours: Sequence[Ours]) -> list[tuple[str, str]]:
    """Why rows of ours have no number: (metrics, reason), each reason once. called: metric -> what a reader calls it."""
    found: dict[str, dict[str, None]] = {}
    for metric in called:
        for _, _, values in ours:
            if values.get(metric) is None:
                reason = str(values.get(f"{metric}_reason") or NOT_SAID)
                found.setdefault(reason, {})[called[metric]] = None
    return [(", ".join(names), reason) for reason, names in found.items()]


def _with_intervals(row: Mapping[str, Any], keys: Sequence[str] | Mapping[str, str]) -> dict[str, Any]:
    """Values of a row, each with its interval where it has one. keys: those wanted, or wanted -> as it is called in the row."""
    found: dict[str, Any] = {}
    for name, key in (keys if isinstance(keys, Mapping) else dict(zip(keys, keys, strict=True))).items():
        found[name] = row.get(key)
        bounds = Column(key, key).ends(row)
        found |= {f"{name}_interval": bounds} if bounds else {}
    return found


def _shares(values: Mapping[str, Any]) -> dict[str, Any]:
    """Percents as shares."""
    return {
        name: None if value is None else [end / 100 for end in value] if name.endswith("_interval") else value / 100
        for name, value in values.items()
    }


def _of_decoding(run: Run, label: str) -> list[Ours]:
    """The selection, and the controls that the paper has; draws of 300 where there are as many test images."""
    evaluation = run.evaluation or {}
    draws = (evaluation.get("protocols") or {}).get("draws")
    headline_is_draws = evaluation.get("protocol") == "draws"
    gallery = f"every candidate, gallery of {evaluation.get('gallery_size')}, chance {tables.percent(evaluation.get('chance'))}"
    gallery = "30 draws of 300" if draws else gallery
    prefix = "draws_" if draws and not headline_is_draws else ""
    pictures = _pictures(run.folder / "reconstructions" / "summary.json")
    made = []
    for name in (run.method, "annotated", "ridge"):
        row = run.row(name)
        if row is None:
            continue
        values = _with_intervals(row, {key: prefix + key for key in ("image_to_brain_top1", "brain_to_image_top1")})
        values |= pictures if name == run.method else {f"{key}_reason": PICTURES for key in PICTURE_SCORES}
        made.append((f"{tables.label(name)}, ours: {label}", f"{run.facts['data']['name']}; {gallery}", values))
    return made


def _pictures(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {f"{key}_reason": "this recipe makes no pictures" for key in PICTURE_SCORES}
    summary = read_json(path)
    reasons = {f"{key}_reason": str(why) for key, why in summary.get("skipped", {}).items()}
    return reasons | (_with_intervals(summary["rows"][0], PICTURE_SCORES) if summary.get("rows") else {})


def _of_gating(run: Run, label: str) -> list[Ours]:
    name, evaluation = str(run.facts["data"]["name"]), run.evaluation or {}
    one_votes = backbone_scores.n_neighbours(evaluation) == 1  # as printed
    values = _of_passes(run, evaluation.get("rows", ()), ("knn", "linear") if one_votes else ("linear",))
    if run.method == "distillation" and evaluation.get("rows") and one_votes:
        values |= _with_intervals(evaluation["rows"][0], {"knn1_normalised": "knn"})
    elsewhere = []
    for place, other in run.elsewhere.items():
        if other.get("own_images") and other.get("changed") == {"normalised": True}:
            row = next(row for row in other["rows"] if row.get("branch") in ("dense", "gated"))
            values |= _with_intervals(row, {"knn1_normalised": "knn"})
        else:
            scores = _of_passes(run, other["rows"], ("linear",))
            elsewhere.append((f"Ours: {label}", _tested(f"{name} to {place}", other), scores))
    return [(f"Ours: {label}", _tested(name, evaluation), values), *elsewhere]


def _tested(name: str, evaluation: Mapping[str, Any]) -> str:
    return f"{name}; {evaluation.get('n_test')} test images, chance {tables.percent(evaluation.get('chance'))}"


def _of_passes(run: Run, rows: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> dict[str, Any]:
    """Scores of the dense and of the gated pass, and the share of multiply-adds of the latter."""
    own = {str(row["branch"]): row for row in rows if row.get("branch") in ("dense", "gated")}
    values: dict[str, Any] = {}
    for branch in ("dense", "gated"):
        for kind in kinds:
            key = f"{kind}_{branch}"
            missing = {f"{key}_reason": NO_PASS[branch]}
            values |= _with_intervals(own[branch], {key: kind}) if branch in own else missing
    if "gated" in own:
        return values | {"mac_share": own["gated"]["mac_share"]}
    return values | {"mac_share_reason": "all multiply-adds are done where there are no gates"}


def _of_rsa(run: Run, label: str) -> list[Ours]:
    name = str(run.facts["data"]["name"])
    tables_of = {"unseen images": run.rows, "held-out pairs": (run.evaluation or {}).get("held_out_pairs", {}).get("rows", ())}
    return [
        (f"Ours: {label}, {row['target']}", f"{name}; {what}", _shares(_with_intervals(row, ["percent"])))
        for what, rows in tables_of.items()
        for row in rows
        if row["name"] == "learning_to_aggregate"
    ]


def _of_encoding(run: Run, label: str) -> list[Ours]:
    made = []
    keys = {key: key for key in OF_VOXELS}
    for row in run.rows:
        if row["roi"] == "all" and row["hemisphere"] == "both":
            values = _with_intervals(row, keys | {"voxels_improved_over_untuned": "share_improved"})
            values |= {f"{key}_reason": row.get(f"{key}_reason") for key in keys}
            values |= {f"voxels_improved_over_{other}_tuned_reason": TWO_RUNS for other in ("regression", "contrastive")}
            values["accuracy_reason"] = "classes are told from a network's features, not from a subject's voxels"
            made.append((f"Ours: {label}, {row['subject']}", f"{run.facts['data']['name']}, all voxels", values))
    return [*made, *_classes(run, label)]


def _classes(run: Run, label: str) -> list[Ours]:
    """How well classes of labelled images are told from the features of each network, where that was done."""
    path = run.folder / "artifacts" / "classification.json"
    if not path.is_file():
        return []
    found = read_json(path)
    reasons = {f"{key}_reason": "labelled images have no responses" for key in (*OF_VOXELS, "voxels_improved_over_untuned")}
    setting = f"{found['images']}; {found['n_test']} images, chance {tables.percent(found['chance'])}"
    return [
        (f"Ours: {label}, features {row['name']}", setting, reasons | _with_intervals(row, ["accuracy"]))
        for row in found["rows"]
    ]


OURS: dict[str, Callable[[Run, str], list[Ours]]] = {
    "decoding": _of_decoding,
    "gating": _of_gating,
    "rsa": _of_rsa,
    "encoding": _of_encoding,
}
