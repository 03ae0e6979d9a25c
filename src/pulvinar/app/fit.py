"""`pulvinar fit`, `evaluate`, `predict` and `report`: a method on data of the kind it declares, in a run folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import preset as presets
from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.app.preset import Preset
from pulvinar.app.stored_runs import uses_run
from pulvinar.core import devices, terminal
from pulvinar.core.config import Given, build, idle_settings, read_toml, to_toml, values_of
from pulvinar.core.errors import ConfigError, FileError, InputError
from pulvinar.core.progress import keeping, log
from pulvinar.core.storage import refuse_existing, to_jsonable, write_json, write_text
from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.experiment import Experiment
from pulvinar.data.split_choice import CAUTION_FACT
from pulvinar.learning import loggers
from pulvinar.learning.method import Data, Method
from pulvinar.learning.processes import is_first, start, wait
from pulvinar.learning.runs import RunFolder

BACKBONE_PREFIX = "backbone."
IN_MEMORY = "given in Python"  # where data are that no file was named for
SHARED_WITH_BACKBONE = (
    "seed",
    "device",
    "feature",
    "centre",
    "scaling",
    "drop_bad_voxels",
    "precision",
    "micro_batches",
    "roi",
)


@dataclasses.dataclass
class Part:
    """A method whose settings were given: all of its raw values, those that a person chose, and where else one would count."""

    method: Method
    values: dict[str, Any]
    given: dict[str, Any]
    elsewhere: dict[str, str] = dataclasses.field(default_factory=dict)


def configs(method: str, file: str | None, assignments: Given, *, refuse_idle: bool = True) -> tuple[Any, Any]:
    """The method's config and, if it reads a backbone's run, the backbone's. All mistakes of both at once.

    Settings of the backbone stand in a TOML table [backbone], or are given as backbone.key=value; without an own value, its
    seed, device, feature, centre, scaling, drop_bad_voxels, precision, micro_batches and roi are the method's. What is given
    wins over a `preset`. refuse_idle: a setting that does nothing beside the others is a mistake too.
    """
    found = registry.method(method)
    given, given_inner, preset = given_settings(found, file, assignments)
    values, inner = given, given_inner
    if preset is not None:
        values, inner = preset.settings | given, preset.backbone | given_inner
    mistakes, built = [], {}
    if given_inner and found.backbone is None:
        mistakes.append(f"{method} reads no backbone; these are not settings of it: {', '.join(given_inner)}")
    own = Part(found, values, given=given)
    parts = [own]
    if found.backbone is not None:
        other = registry.method(found.backbone)
        shared: dict[str, Any] = {key: values[key] for key in SHARED_WITH_BACKBONE if key in values and is_setting(other, key)}
        parts.append(Part(other, {**shared, **inner}, given=given_inner))
        own.elsewhere = {
            field.name: f"; that of the {other.name} it reads is {BACKBONE_PREFIX}{field.name}"
            for field in dataclasses.fields(other.config)
        }
    for part in parts:
        chosen = part.given if refuse_idle else ()
        try:
            name = part.method.name
            built[name] = build(part.method.config, part.values, name=name, given=chosen, elsewhere=part.elsewhere)
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return built[method], built.get(found.backbone or "")


def given_settings(
    method: Method, file: str | None, assignments: Given
) -> tuple[dict[str, Any], dict[str, Any], Preset | None]:
    """What a person set, as raw values of the method and of the run it reads, and the preset that they named."""
    values: dict[str, Any] = dict(read_toml(file)) if file else {}
    inner = {} if is_setting(method, "backbone") else values.pop("backbone", {})
    if not isinstance(inner, dict):
        raise ConfigError(f"{file}: backbone is a table of settings: [backbone]")
    for key, value in values_of(assignments).items():
        if key.startswith(BACKBONE_PREFIX):
            inner[key.removeprefix(BACKBONE_PREFIX)] = value
        else:
            values[key] = value
    name = values.pop(presets.KEY, None)
    return values, inner, None if name is None else presets.load(str(name), method.name)


def idle(method: str, config: Any, backbone_config: Any) -> dict[str, str]:
    """Settings that do nothing beside the others -> why; those of the backbone prefixed, all of them where none is trained."""
    found = idle_settings(config)
    if backbone_config is not None and not registry.method(method).reads_backbone(config):
        return found | {BACKBONE_PREFIX + name: "pretrain=false trains no backbone" for name in vars(backbone_config)}
    inner = {} if backbone_config is None else idle_settings(backbone_config)
    return found | {BACKBONE_PREFIX + name: why for name, why in inner.items()}


def is_setting(method: Method, name: str) -> bool:
    """Whether a method has a setting of this name (`backbone`: the network itself, not the run of another method)."""
    return name in {field.name for field in dataclasses.fields(method.config)}


def fit(
    method: str,
    *,
    data: str | Data,
    out: str,
    config_file: str | None = None,
    assignments: Given = (),
    backbone: str | None = None,
    target: str | None = None,
    resume: bool = False,
    log_to: Sequence[str] = (),
) -> dict[str, Any]:
    """Fit a method; the run folder is made only after the input has been checked. data: as `open_data` takes them.

    log_to: loggers (`learning/loggers.py`) that get the run's records; a resumed run keeps those it has.
    """
    found = registry.method(method)
    loggers.require(log_to)
    assignments = values_of(assignments)
    if backbone is not None and is_setting(found, "backbone"):
        assignments, backbone = {**assignments, "backbone": backbone}, None
    resuming = resume and Path(out).exists()
    config, backbone_config = configs(method, config_file, assignments)
    with devices.using(config.device):
        start()  # of several processes (torchrun) the first one writes
    if not resuming and is_first():
        refuse_existing(out)
    wait()
    refuse_useless_backbone(found, config, backbone, config_file, assignments)
    if resuming:
        run = _reopen(out, method, config, backbone_config, given=bool(config_file or assignments))
        if not run.finished:
            with run.held(), run.logged(log_to):
                _continue(found, run, data, target)
        else:
            log(f"{out}: this run is finished; nothing to resume")
        return {"run": str(out), **run.facts}
    opened = _without_truth(open_data(found.data, data, target=target))
    plan = backbone_plan(found, config, backbone_config, backbone)
    prepared = prepare(found, config, opened, plan, Path(out))
    run = create_run(out, found, config, opened, plan)
    _, _, preset = given_settings(found, config_file, assignments)
    with run.held(), run.logged(log_to):
        if preset is not None:
            run.facts["preset"] = preset.name
        _fit(found, config, opened, run, prepared)
    return {"run": str(out), **run.facts}


def _continue(method: Method, run: RunFolder, data: str | Data, target: str | None) -> None:
    """Go on with a run that was interrupted or killed; nothing where another process has ended it meanwhile."""
    if run.finished:
        return
    opened = _without_truth(open_data(method.data, data, target=target or run.facts["data"]["target"]))
    require_same_data(run, opened)
    if is_first():
        run.remove_leftovers()
    run.use_recorded_threads()
    config = build(method.config, run.settings(), name=method.name)
    _fit(method, config, opened, run, prepare(method, config, opened, run.facts.get("backbone"), run.path))


def _without_truth(opened: Data) -> Data:
    """What a fit may see: an experiment without its planted truth, which only the evaluation reads."""
    return opened.without_truth() if isinstance(opened, Experiment) else opened


@dataclasses.dataclass
class Prepared:
    """What a method is fitted to, and what was warned of when it was made."""

    data: Any
    warned: list[str]


def prepare(method: Method, config: Any, opened: Data, plan: dict[str, Any] | None, out: Path) -> list[Prepared]:
    """What the method is fitted to, and where its backbone is still to be trained in `out`, what that one is, and so on.

    All that can be wrong is raised, before anything is written.
    """
    place, found = _backbone_run(plan, out), Prepared(None, [])
    waits = plan is not None and place is not None and "path" not in plan and not _is_finished(place)
    with keeping(found.warned.append), devices.using(config.device):
        found.data = method.prepare(config, opened)
        if method.join is not None and not waits:
            found.data = method.join(config, found.data, None if place is None else RunFolder.reopen(place))
    if plan is None or place is None or method.backbone is None or not waits:
        return [found]
    other = registry.method(method.backbone)
    inner = build(other.config, plan["settings"], name=other.name)
    return [found, *prepare(other, inner, opened, _inner_plan(other, inner), place)]


def _backbone_run(plan: dict[str, Any] | None, out: Path) -> Path | None:
    """The run that a run in `out` reads."""
    return None if plan is None else Path(plan["path"]) if "path" in plan else out / "backbone"


def _is_finished(place: Path) -> bool:
    return _is_run(str(place)) and RunFolder.reopen(place).finished


def _fit(method: Method, config: Any, opened: Data, run: RunFolder, prepared: list[Prepared]) -> None:
    plan, own = run.facts.get("backbone"), prepared.pop(0)
    place = _backbone_run(plan, run.path)
    if prepared and plan and place and method.backbone and method.join:
        _pretrain(registry.method(method.backbone), place, plan["settings"], opened, prepared, log_to=run.logged_to)
        with keeping(own.warned.append), devices.using(config.device):
            own.data = method.join(config, own.data, RunFolder.reopen(place))
    fit_from(method, config, own, run, place)


def fit_from(method: Method, config: Any, prepared: Prepared, run: RunFolder, backbone: Path | None = None) -> None:
    """Fit, and keep as cautions of the run what is and was warned of, and those of every run that it reads."""
    from pulvinar.report import findings, run_folder

    read = {} if backbone is None else {"backbone": backbone}
    read |= {name: Path(value) for name, value in vars(config).items() if isinstance(value, str) and _is_run(value)}
    for name, place in read.items():
        run.caution(*(f"{name}: {text}" for text in findings.cautions(run_folder.read(place))))
    run.caution(*prepared.warned)
    with keeping(run.caution), devices.using(config.device):
        run.warn_of_other_device()
        method.fit(config, prepared.data, run)


def _is_run(place: str) -> bool:
    return bool(place) and (Path(place) / "run.json").is_file()


def refuse_useless_backbone(
    method: Method, config: Any, backbone: str | None, config_file: str | None, assignments: Given
) -> None:
    """Refuse what would have no effect: a backbone or settings of one, where none is read or trained."""
    settings = [name for name in values_of(assignments) if name.startswith(BACKBONE_PREFIX)]
    settings += ["[backbone]"] if config_file and "backbone" in read_toml(config_file) else []
    if backbone is not None and method.backbone is None:
        raise ConfigError(f"backbone: {method.name} reads no backbone")
    if not method.reads_backbone(config) and (backbone is not None or settings):
        raise ConfigError(f"pretrain=false trains and reads no backbone; leave out {', '.join(settings) or 'backbone'}")
    if backbone is not None and settings:
        raise ConfigError(f"backbone {backbone} has its settings already; leave out {', '.join(settings)}")
    if backbone is not None:
        _refuse_settings_of_backbone(method, config, backbone, config_file, assignments)


def _refuse_settings_of_backbone(
    method: Method, config: Any, backbone: str, config_file: str | None, assignments: Given
) -> None:
    """Settings that the finished backbone was trained with (`of_backbone` of a method), given otherwise than it has them."""
    names = method.of_backbone
    values, _, preset = given_settings(method, config_file, assignments)
    given = set(values) | set(preset.settings if preset else ())
    recorded = RunFolder.reopen(backbone).settings() if names else {}
    is_record = {field.name for field in dataclasses.fields(config)} <= given
    wrong = [
        f"{method.name}.{name}={getattr(config, name)} does nothing here: {backbone} was trained with {name}={recorded[name]}"
        for name in names
        if name in given and name in recorded and getattr(config, name) != recorded[name]
    ]
    if wrong and not (is_record and all(getattr(config, name) == getattr(type(config), name) for name in names)):
        raise ConfigError("\n".join(wrong))


def backbone_plan(method: Method, config: Any, backbone_config: Any, backbone: str | None) -> dict[str, Any] | None:
    """Where the backbone is, or how it will be trained; recorded in the run, so that a resumed run needs no arguments."""
    if backbone_config is None or not method.reads_backbone(config):
        return None
    if backbone is not None:
        return {"path": str(Path(backbone).resolve())}
    return {"settings": dataclasses.asdict(backbone_config)}


def _inner_plan(method: Method, config: Any) -> dict[str, Any] | None:
    """The plan of a backbone that reads a backbone itself: trained too, with the settings that the two share."""
    if method.backbone is None:
        return None
    shared = {key: value for key, value in vars(config).items() if key in SHARED_WITH_BACKBONE}
    inner = build(registry.method(method.backbone).config, shared, name=method.backbone)
    return backbone_plan(method, config, inner, None)


def create_run(out: str | Path, method: Method, config: Any, opened: Data, plan: dict[str, Any] | None = None) -> RunFolder:
    """A new run folder of a method on opened data."""
    facts: dict[str, Any] = {
        "name": opened.name,
        "path": opened.source or IN_MEMORY,
        "target": opened.target if isinstance(opened, Experiment) else None,
        "fingerprint": opened.fingerprint(),
        "images": opened.image_fingerprint() if isinstance(opened, Experiment) else None,
        "simulated": isinstance(opened, Experiment) and bool(opened.simulated),
    }
    if on_trust := _on_trust(opened):
        facts["on_trust"] = on_trust
    with devices.using(config.device):
        device = devices.described()
    run = RunFolder.create(
        out,
        device=device,
        method=method.name,
        config_toml=to_toml(config),
        seed=config.seed,
        data=facts,
        published=method.published,
        backbone=plan,
        topic=method.topic,
    )
    run.caution(*_data_cautions(opened))
    return run


def _on_trust(opened: Data) -> dict[str, str]:
    """What of the data was joined by its order alone, because it holds no names -> how."""
    if isinstance(opened, Dissimilarities):
        return dict(opened.on_trust)
    return dict(opened.facts.get("on_trust") or {}) if isinstance(opened, Experiment) else {}


def _data_cautions(opened: Data) -> list[str]:
    """The same as a caution of the numbers that come of it; and what has to be said of the split."""
    found = [f"{what} ({how})" for what, how in _on_trust(opened).items()]
    split = opened.facts.get(CAUTION_FACT) if isinstance(opened, Experiment) else None
    said = [f"Joined by their order alone, on trust: {'; '.join(found)}."] if found else []
    return [*said, *([str(split)] if split else [])]


def _reopen(out: str, method: str, config: Any, backbone_config: Any, *, given: bool) -> RunFolder:
    run = RunFolder.reopen(out)
    if run.method != method:
        raise InputError(f"{out}: is a run of {run.method}, not of {method}")
    if given:
        changed = changed_settings(run, config, backbone_config)
        if changed:
            raise ConfigError(f"{out}: a resumed run keeps its settings; these differ: {', '.join(changed)}")
    return run


def changed_settings(run: RunFolder, config: Any, backbone_config: Any) -> list[str]:
    """Names of settings in which a run differs from these; of its backbone too, where it trains one itself."""
    recorded = build(type(config), run.settings(), name=run.method)
    changed = [name for name, value in vars(config).items() if value != getattr(recorded, name)]
    settings = run.facts.get("backbone", {}).get("settings")
    if settings is not None and backbone_config is not None:
        inner = build(type(backbone_config), settings, name=run.method)
        changed += [BACKBONE_PREFIX + name for name, value in vars(backbone_config).items() if value != getattr(inner, name)]
    return changed


def is_same_data(run: RunFolder, opened: Data) -> bool:
    """Whether the data are those that the run began with; images are compared where both have them."""
    began = run.facts["data"]
    if opened.fingerprint() != began["fingerprint"]:
        return False
    images = opened.image_fingerprint() if isinstance(opened, Experiment) and began.get("images") else None
    return images is None or images == began["images"]


def require_same_data(run: RunFolder, opened: Data) -> None:
    """Raise `InputError` where the data are not those that the run began with."""
    if not is_same_data(run, opened):
        raise InputError(f"{run.path}: the data are not the ones this run began with ({run.facts['data']['path']})")


def _pretrain(
    method: Method,
    folder: Path,
    settings: dict[str, Any],
    opened: Data,
    prepared: list[Prepared],
    *,
    log_to: Sequence[str],
) -> None:
    """The backbone's own run, inside the run that reads it; continued if it was begun."""
    config = build(method.config, settings, name=method.name)
    plan = _inner_plan(method, config)
    run = RunFolder.reopen(folder) if folder.exists() else create_run(folder, method, config, opened, plan)
    with run.held(), run.logged(log_to):
        _fit(method, config, opened, run, prepared)


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
    warned = _data_cautions(opened)
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
    said = [result["headline"], *(f"caution: {text}" for text in result["cautions"])]
    return "\n".join([_table_text(result), "", *map(terminal.filled, said)])


def _table_text(result: dict[str, Any]) -> str:
    from pulvinar.report import tables

    method = registry.method(RunFolder.reopen(result["run"]).method)
    if method.table is not None:
        return method.table(result)
    null = result["null"]
    table = tables.score_table(result["rows"], method.name, told=True).text()
    said = (
        f"gallery of {result['gallery_size']:.0f} images, chance {result['chance']:.4f}, "
        f"permutation null {null['mean']:.4f} (95th percentile {null['percentile_95']:.4f})"
    )
    ours = next((row for row in result["rows"] if row["name"] == method.name), None)
    near = tables.near_training(result.get("near_training"), ours)
    return "\n".join(filter(None, [f"{table}\n\n{said}", terminal.filled(near), tables.headroom(result.get("headroom"))]))


def _exists(source: str) -> bool:
    _, colon, path = source.partition(":")
    places = [source, source.partition("?")[0], *([path.partition("?")[0]] if colon else [])]
    return any(Path(place).exists() for place in places)


@uses_run
def report(run: str, out: str | None = None, *, umap: bool = False) -> dict[str, Any]:
    """Build the HTML page of a run. umap: of a self-supervised run, place its test images by UMAP (by PCA otherwise)."""
    from pulvinar.report.page import build as build_page

    if umap:
        from pulvinar.gating.figures import keep_umap

        keep_umap(run)
    return {"run": run, "report": str(build_page(run, out))}
