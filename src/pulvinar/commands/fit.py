"""`pulvinar fit`, `evaluate` and `report`: a method on an experiment, in a run folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pulvinar.commands import registry
from pulvinar.commands.data import open_experiment
from pulvinar.config import build, parse_assignments, read_toml, to_toml
from pulvinar.data.experiment import Experiment
from pulvinar.errors import ConfigError, FileError, InputError
from pulvinar.progress import log
from pulvinar.storage import refuse_existing
from pulvinar.training.runs import RunFolder

BACKBONE_PREFIX = "backbone."


def configs(method: str, file: str | None, assignments: Sequence[str]) -> tuple[Any, Any]:
    """The method's config and, if it reads a backbone's run, the backbone's. All mistakes of both at once.

    Settings of the backbone stand in a TOML table [backbone], or are given as backbone.key=value; its seed is the method's.
    """
    module = registry.module("methods", method)
    values: dict[str, Any] = dict(read_toml(file)) if file else {}
    inner = values.pop("backbone", {})
    if not isinstance(inner, dict):
        raise ConfigError(f"{file}: backbone is a table of settings: [backbone]")
    for key, value in parse_assignments(assignments).items():
        if key.startswith(BACKBONE_PREFIX):
            inner[key.removeprefix(BACKBONE_PREFIX)] = value
        else:
            values[key] = value
    mistakes, built = [], {}
    backbone = getattr(module, "BACKBONE", None)
    if inner and backbone is None:
        mistakes.append(f"{method} reads no backbone; these are not settings of it: {', '.join(inner)}")
    parts: list[tuple[str, ModuleType, dict[str, Any]]] = [(method, module, values)]
    if backbone is not None:
        shared: dict[str, Any] = {key: values[key] for key in ("seed", "feature", "scaling") if key in values}
        parts.append((backbone, registry.module("methods", backbone), {**shared, **inner}))
    for name, part, given in parts:
        try:
            built[name] = build(part.Config, given, name=name)
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return built[method], built.get(backbone) if backbone else None


def fit(
    method: str,
    *,
    data: str,
    out: str,
    config_file: str | None = None,
    assignments: Sequence[str] = (),
    backbone: str | None = None,
    target: str | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Fit a method; the run folder is made only after the input has been checked."""
    module = registry.module("methods", method)
    resuming = resume and Path(out).exists()
    if not resuming:
        refuse_existing(out)
    config, backbone_config = configs(method, config_file, assignments)
    whole = open_experiment(data, target=target)
    experiment = whole.without_truth()
    run = None
    if resuming:
        run = _reopen(out, method, config, given=bool(config_file or assignments), experiment=experiment)
        if run.finished:
            log(f"{out}: this run is finished; nothing to resume")
            return {"run": str(out), **run.facts}
        config = build(module.Config, run.settings(), name=method)
    reads_backbone = backbone_config is not None and config.pretrain
    if run is None:
        _check(module, config, experiment, backbone, backbone_config if reads_backbone else None)
        run = _create(out, method, module, config, data, experiment)
    if not reads_backbone:
        module.fit(config, experiment, run)
    else:
        folder = Path(backbone) if backbone else run.path / "backbone"
        if backbone is None:
            _pretrain(module.BACKBONE, folder, backbone_config, data, experiment)
        module.fit(config, experiment, run, RunFolder.reopen(folder))
    return {"run": str(out), **run.facts}


def _check(module: ModuleType, config: Any, experiment: Experiment, backbone: str | None, backbone_config: Any) -> None:
    """All that can be wrong, before anything is written."""
    if hasattr(module, "check_input"):
        module.check_input(config, experiment)
        if backbone is not None:
            module.check(config, experiment, RunFolder.reopen(backbone))
        elif backbone_config is not None:
            registry.module("methods", module.BACKBONE).check(backbone_config, experiment)
    else:
        module.check(config, experiment)


def _create(out: str | Path, method: str, module: ModuleType, config: Any, data: str, experiment: Experiment) -> RunFolder:
    facts = {
        "name": experiment.name,
        "path": str(Path(data).resolve()) if Path(data).exists() else data,
        "target": experiment.target,
        "fingerprint": experiment.fingerprint(),
    }
    return RunFolder.create(
        out, method=method, config_toml=to_toml(config), seed=config.seed, data=facts, published=module.PUBLISHED
    )


def _reopen(out: str, method: str, config: Any, *, given: bool, experiment: Experiment) -> RunFolder:
    run = RunFolder.reopen(out)
    if run.method != method:
        raise InputError(f"{out}: is a run of {run.method}, not of {method}")
    if given:
        recorded = build(type(config), run.settings(), name=method)
        fields = [field.name for field in dataclasses.fields(config)]
        changed = [name for name in fields if getattr(config, name) != getattr(recorded, name)]
        if changed:
            raise ConfigError(f"{out}: a resumed run keeps its settings; these differ: {', '.join(changed)}")
    _require_same_data(run, experiment)
    run.use_recorded_threads()
    return run


def _require_same_data(run: RunFolder, experiment: Experiment) -> None:
    if experiment.fingerprint() != run.facts["data"]["fingerprint"]:
        raise InputError(f"{run.path}: the data are not the ones this run began with ({run.facts['data']['path']})")


def _pretrain(method: str, folder: Path, config: Any, data: str, experiment: Experiment) -> None:
    """The backbone's own run, inside the run that reads it; resumed if it was begun."""
    module = registry.module("methods", method)
    if folder.exists():
        run = RunFolder.reopen(folder)
        config = build(module.Config, run.settings(), name=method)
    else:
        run = _create(folder, method, module, config, data, experiment)
    if not run.finished:
        module.fit(config, experiment, run)


def evaluate(run: str, *, data: str | None = None, controls: bool = True) -> dict[str, Any]:
    """Score a finished run on the outer test images, beside its controls."""
    opened = RunFolder.reopen(run)
    module = registry.module("methods", opened.method)
    if not hasattr(module, "evaluate"):
        raise InputError(
            f"{run}: a run of {opened.method} has no evaluation of its own; it is scored through a method that reads it"
        )
    if not opened.finished:
        raise FileError(f"{run}: the fit has not finished; continue it with `pulvinar fit {opened.method} … --resume`")
    config = build(module.Config, opened.settings(), name=opened.method)
    source = opened.facts["data"]
    experiment = open_experiment(data or source["path"], target=source["target"])
    _require_same_data(opened, experiment)
    return {"run": run, "seed": opened.facts["seed"], **module.evaluate(opened, experiment, config, controls=controls)}


def report(run: str, out: str | None = None) -> dict[str, Any]:
    """Build the HTML page of a run."""
    from pulvinar.report.page import build as build_page

    return {"run": run, "report": str(build_page(run, out))}


def settings_of(method: str) -> list[tuple[str, str, Any, str]]:
    """Rows (name, what fits, default, help) of a method's settings and, prefixed, of its backbone's."""
    from pulvinar.config import describe

    module = registry.module("methods", method)
    rows = describe(module.Config)
    backbone = getattr(module, "BACKBONE", None)
    inner = describe(registry.module("methods", backbone).Config) if backbone else []
    return rows + [(BACKBONE_PREFIX + name, fits, default, text) for name, fits, default, text in inner]
