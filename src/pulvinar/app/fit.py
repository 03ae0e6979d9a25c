"""`pulvinar fit`: a method on data of the kind it declares, in a run folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.app.method_settings import (
    PRETRAINED_PREFIX,
    SHARED_WITH_PRETRAINED,
    configs,
    given_settings,
    refuse_useless_pretrained,
)
from pulvinar.app.training_room import room_for_training
from pulvinar.core import devices
from pulvinar.core.config import Given, build, to_toml, values_of
from pulvinar.core.errors import ConfigError, InputError
from pulvinar.core.progress import keeping, log
from pulvinar.core.storage import refuse_existing
from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.experiment import Experiment
from pulvinar.data.split_choice import CAUTION_FACT
from pulvinar.learning import loggers
from pulvinar.learning.method import Data, Method
from pulvinar.learning.processes import agreed, is_first, start, wait
from pulvinar.learning.runs import FORMERLY, RunFolder

IN_MEMORY = "given in Python"  # where data are that no file was named for


def fit(
    method: str,
    *,
    data: str | Data,
    out: str,
    config_file: str | None = None,
    assignments: Given = (),
    pretrained: str | None = None,
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
    resuming = resume and Path(out).exists()
    config, pretrained_config = configs(method, config_file, assignments)
    with devices.using(config.device):
        start()  # of several processes (torchrun) the first one writes
    if not resuming and is_first():
        refuse_existing(out)
    wait()
    refuse_useless_pretrained(found, config, pretrained, config_file, assignments)
    if resuming:
        run = _reopen(out, method, config, pretrained_config, given=bool(config_file or assignments))
        if not run.finished:
            with run.held(), run.logged(log_to):
                _continue(found, run, data, target)
        else:
            log(f"{out}: this run is finished; nothing to resume")
        return {"run": str(out), **run.facts}
    opened = _without_truth(open_data(found.data, data, target=target))
    plan = pretrained_plan(found, config, pretrained_config, pretrained)
    _, _, preset = given_settings(found, config_file, assignments)
    with room_for_training(found, config, opened, plan):
        prepared = prepare(found, config, opened, plan, Path(out))
        run = create_run(out, found, config, opened, plan)
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
    with room_for_training(method, config, opened, run.pretrained):
        _fit(method, config, opened, run, prepare(method, config, opened, run.pretrained, run.path))


def _without_truth(opened: Data) -> Data:
    """What a fit may see: an experiment without its planted truth, which only the evaluation reads."""
    return opened.without_truth() if isinstance(opened, Experiment) else opened


@dataclasses.dataclass
class Prepared:
    """What a method is fitted to, and what was warned of when it was made."""

    data: Any
    warned: list[str]


def prepare(method: Method, config: Any, opened: Data, plan: dict[str, Any] | None, out: Path) -> list[Prepared]:
    """What the method is fitted to, and where its pretrained run is still to be trained in `out`, what that one is, and so on.

    All that can be wrong is raised, before anything is written.
    """
    place, found = _pretrained_run(plan, out), Prepared(None, [])
    waits = plan is not None and place is not None and "path" not in plan and not _is_finished(place)
    with keeping(found.warned.append), devices.using(config.device):
        found.data = method.prepare(config, opened)
        if method.join is not None and not waits:
            found.data = method.join(config, found.data, None if place is None else RunFolder.reopen(place))
    if plan is None or place is None or method.pretrained is None or not waits:
        return [found]
    other = registry.method(method.pretrained)
    inner = build(other.config, plan["settings"], name=other.name)
    return [found, *prepare(other, inner, opened, _inner_plan(other, inner), place)]


def _pretrained_run(plan: dict[str, Any] | None, out: Path) -> Path | None:
    """The run that a run in `out` reads."""
    if plan is None or "path" in plan:
        return None if plan is None else Path(plan["path"])
    return out / (FORMERLY if (out / FORMERLY).is_dir() else "pretrained")


def _is_finished(place: Path) -> bool:
    return _is_run(str(place)) and RunFolder.reopen(place).finished


def _fit(method: Method, config: Any, opened: Data, run: RunFolder, prepared: list[Prepared]) -> None:
    plan, own = run.pretrained, prepared.pop(0)
    place = _pretrained_run(plan, run.path)
    if prepared and plan and place and method.pretrained and method.join:
        _pretrain(registry.method(method.pretrained), place, plan["settings"], opened, prepared, log_to=run.logged_to)
        with keeping(own.warned.append), devices.using(config.device):
            own.data = method.join(config, own.data, RunFolder.reopen(place))
    fit_from(method, config, own, run, place)


def fit_from(method: Method, config: Any, prepared: Prepared, run: RunFolder, pretrained: Path | None = None) -> None:
    """Fit, and keep as cautions of the run what is and was warned of, and those of every run that it reads."""
    from pulvinar.report import findings, run_folder

    read = {} if pretrained is None else {"pretrained": pretrained}
    read |= {name: Path(value) for name, value in vars(config).items() if isinstance(value, str) and _is_run(value)}
    for name, place in read.items():
        run.caution(*(f"{name}: {text}" for text in findings.cautions(run_folder.read(place))))
    run.caution(*prepared.warned)
    with keeping(run.caution), devices.using(config.device):
        run.warn_of_other_device()
        method.fit(config, prepared.data, run)


def _is_run(place: str) -> bool:
    return bool(place) and (Path(place) / "run.json").is_file()


def pretrained_plan(method: Method, config: Any, pretrained_config: Any, pretrained: str | None) -> dict[str, Any] | None:
    """Where the pretrained run is, or how it will be trained; recorded in the run, so that a resumed run needs no arguments."""
    if pretrained_config is None or not method.reads_pretrained(config):
        return None
    if pretrained is not None:
        return {"path": str(Path(pretrained).resolve())}
    return {"settings": dataclasses.asdict(pretrained_config)}


def _inner_plan(method: Method, config: Any) -> dict[str, Any] | None:
    """The plan of a pretrained run that starts from another itself: trained too, with the settings that the two share."""
    if method.pretrained is None:
        return None
    shared = {key: value for key, value in vars(config).items() if key in SHARED_WITH_PRETRAINED}
    inner = build(registry.method(method.pretrained).config, shared, name=method.pretrained)
    return pretrained_plan(method, config, inner, None)


def create_run(out: str | Path, method: Method, config: Any, opened: Data, plan: dict[str, Any] | None = None) -> RunFolder:
    """A new run folder of a method on opened data."""
    facts: dict[str, Any] = {
        "name": opened.name,
        "path": opened.source or IN_MEMORY,
        "target": opened.target if isinstance(opened, Experiment) else None,
        "fingerprint": opened.fingerprint(),
        "images": opened.image_fingerprint() if isinstance(opened, Experiment) else None,
        "simulated": bool(getattr(opened, "simulated", False)),  # responses of an experiment, or RDMs, were planted
        "space": space if isinstance(space := getattr(opened, "facts", {}).get("space"), str) else None,
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
        pretrained=plan,
        topic=method.topic,
    )
    run.caution(*data_cautions(opened))
    return run


def _on_trust(opened: Data) -> dict[str, str]:
    """What of the data was joined by its order alone, because it holds no names -> how."""
    if isinstance(opened, Dissimilarities):
        return dict(opened.on_trust)
    return dict(opened.facts.get("on_trust") or {}) if isinstance(opened, Experiment) else {}


def data_cautions(opened: Data) -> list[str]:
    """The same as a caution of the numbers that come of it; and what has to be said of the split."""
    found = [f"{what} ({how})" for what, how in _on_trust(opened).items()]
    split = opened.facts.get(CAUTION_FACT) if isinstance(opened, Experiment) else None
    cautions = [f"Joined by their order alone, on trust: {'; '.join(found)}."] if found else []
    return [*cautions, *([str(split)] if split else [])]


def _reopen(out: str, method: str, config: Any, pretrained_config: Any, *, given: bool) -> RunFolder:
    run = RunFolder.reopen(out)
    if run.method != method:
        raise InputError(f"{out}: is a run of {run.method}, not of {method}")
    if given:
        changed = changed_settings(run, config, pretrained_config)
        if changed:
            raise ConfigError(f"{out}: a resumed run keeps its settings; these differ: {', '.join(changed)}")
    return run


def changed_settings(run: RunFolder, config: Any, pretrained_config: Any) -> list[str]:
    """Names of settings in which a run differs from these; of its pretrained run too, where it trains one itself."""
    recorded = build(type(config), run.settings(), name=run.method)
    changed = [name for name, value in vars(config).items() if value != getattr(recorded, name)]
    settings = (run.pretrained or {}).get("settings")
    if settings is not None and pretrained_config is not None:
        inner = build(type(pretrained_config), settings, name=run.method)
        changed += [
            PRETRAINED_PREFIX + name for name, value in vars(pretrained_config).items() if value != getattr(inner, name)
        ]
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
    """The pretrained run, inside the run that reads it; continued if it was begun."""
    config = build(method.config, settings, name=method.name)
    plan = _inner_plan(method, config)
    begun = agreed(folder.exists())  # of several processes the first may have made it before another looks
    run = RunFolder.reopen(folder) if begun else create_run(folder, method, config, opened, plan)
    with run.held(), run.logged(log_to):
        _fit(method, config, opened, run, prepared)
