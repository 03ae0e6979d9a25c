"""What a sweep will do: its cells without settings that do nothing, checked, as jobs of which some wait for others."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pulvinar.app import fit as fitting
from pulvinar.app import method_settings, registry
from pulvinar.app.data import absolute, open_data
from pulvinar.app.sweeps.grid import Cell, cells
from pulvinar.app.sweeps.jobs import Job
from pulvinar.core.config import read_toml
from pulvinar.core.errors import ConfigError, PulvinarError
from pulvinar.core.progress import log
from pulvinar.core.storage import fingerprint
from pulvinar.learning.runs import FORMERLY, RunFolder


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The folder of a sweep, its cells in the order of the table, and whether their controls are scored too.

    engine: the tables of the grid that are settings of an engine, such as [slurm].
    """

    out: Path
    cells: list[Cell]
    controls: bool
    engine: dict[str, Any]

    @classmethod
    def read(cls, grid_file: str) -> "Plan":
        """The plan of a grid; `ConfigError` lists what is wrong with it."""
        grid = read_toml(grid_file)
        todo = _counting(cells(_with_all_targets(grid)))
        return cls(out=Path(grid["out"]), cells=todo, controls=grid.get("controls", True), engine=grid.get("slurm", {}))

    def check(self) -> None:
        """Mistakes in any cell, all at once, before the first one starts."""
        _check(self.out, self.cells)

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell is scored."""
        return (self.out / cell.name / "evaluation.json").is_file()

    def jobs(self) -> list[Job]:
        """What is left to do: pretrained runs first, each once, then the cells, those that start from one after it."""
        pretraining: dict[str, Job] = {}
        own = [self._job(cell, pretraining) for cell in self.cells if not self.is_done(cell)]
        return [*pretraining.values(), *own]

    def journals(self) -> list[Path]:
        """Where the jobs of all cells write how they went."""
        return [Job(name=cell.name, method=cell.method, data=cell.data, sweep=str(self.out)).journal for cell in self.cells]

    def _job(self, cell: Cell, pretraining: dict[str, Job]) -> Job:
        method = registry.method(cell.method)
        config, pretrained_config = method_settings.configs(cell.method, None, cell.assignments)
        place: Path | None = None
        after: tuple[str, ...] = ()
        if method.pretrained is not None and method.reads_pretrained(config):
            place = Path(cell.pretrained) if cell.pretrained else _pretrained_folder(self.out, cell, pretrained_config)
            if not cell.pretrained and not _is_finished(place):
                pretraining.setdefault(
                    place.name, self._pretraining_job(cell, method.pretrained, place, vars(pretrained_config))
                )
                after = (place.name,)
        own = {
            name: value for name, value in cell.own_settings.items() if not name.startswith(method_settings.PRETRAINED_PREFIX)
        }
        return Job(
            name=cell.name,
            method=cell.method,
            data=cell.data,
            target=cell.target,
            sweep=str(self.out),
            settings=own,
            pretrained=None if place is None else str(place),
            evaluate="all" if self.controls else "selection",
            after=after,
        )

    def _pretraining_job(self, cell: Cell, method: str, folder: Path, settings: dict[str, Any]) -> Job:
        return Job(name=folder.name, method=method, data=cell.data, target=cell.target, sweep=str(self.out), settings=settings)


def _is_finished(run: Path) -> bool:
    return (run / "run.json").is_file() and RunFolder.reopen(run).finished


def _counting(todo: list[Cell]) -> list[Cell]:
    """The cells without the settings that do nothing in them; `ConfigError` for one that does nothing in any of its cells."""
    vain: list[dict[str, str]] = []
    for cell in todo:
        try:
            vain.append(
                method_settings.idle(
                    cell.method, *method_settings.configs(cell.method, None, cell.assignments, refuse_idle=False)
                )
            )
        except PulvinarError:  # said with all others' mistakes by the check
            return todo
    names = dict.fromkeys(name for cell in todo for name in cell.settings)
    mistakes = []
    for name in names:
        why = [idle.get(name) for cell, idle in zip(todo, vain, strict=True) if name in cell.settings]
        if all(why):
            mistakes.append(f"'{name}' does nothing in any cell: {why[0]}")
        elif any(why):
            log(f"'{name}' counts in {why.count(None)} of {len(why)} cells; in the others it is left out")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return [
        replace(cell, settings={name: value for name, value in cell.settings.items() if name not in idle})
        for cell, idle in zip(todo, vain, strict=True)
    ]


def _with_all_targets(grid: dict[str, Any]) -> dict[str, Any]:
    """target = "all" as the list of the subjects, which all the data must have."""
    if grid.get("target") != "all" or not isinstance(grid.get("data", ""), str | list):
        return grid
    given = grid.get("data", [])
    sources = [given] if isinstance(given, str) else [source for source in given if isinstance(source, str)]
    lists = [list(open_data("experiment", source).subjects) for source in sources]
    if any(names != lists[0] for names in lists):
        raise ConfigError(f"target: the data have other subjects each ({'; '.join(', '.join(names) for names in lists)})")
    return {**grid, "target": lists[0]} if lists else grid


def _check(out: Path, todo: list[Cell]) -> None:
    """Mistakes in any cell, all at once, before the first one starts."""
    methods = {name: registry.method(name) for name in dict.fromkeys(cell.method for cell in todo)}
    mistakes: dict[str, str] = {}
    for name, method in methods.items():
        if method.evaluate is None:
            raise ConfigError(f"method: a run of {name} has no evaluation of its own, so there is no table to make")
    sources = dict.fromkeys((methods[cell.method].data, cell.data, cell.target) for cell in todo)
    opened = {(kind, source, target): open_data(kind, source, target=target) for kind, source, target in sources}
    for cell in todo:
        method = methods[cell.method]
        try:
            config, pretrained_config = method_settings.configs(cell.method, None, cell.assignments)
            data = opened[method.data, cell.data, cell.target]
            _refuse_changed(out, cell, config, pretrained_config, data)
            if (out / cell.name / "evaluation.json").is_file():
                continue
            if cell.pretrained is None or not method.reads_pretrained(config):
                method.prepare(config, data)
            else:
                method_settings.refuse_useless_pretrained(method, config, cell.pretrained, None, cell.assignments)
                plan = fitting.pretrained_plan(method, config, pretrained_config, cell.pretrained)
                fitting.prepare(method, config, data, plan, out / cell.name)
        except PulvinarError as error:
            mistakes.setdefault(str(error), cell.name)
    if mistakes:
        raise ConfigError("\n".join(f"cell {name}: {text}" for text, name in mistakes.items()))


def _refuse_changed(out: Path, cell: Cell, config: Any, pretrained_config: Any, opened: fitting.Data) -> None:
    """A cell that was begun with other settings or data must not stand in the table under these."""
    folder = out / cell.name
    if not folder.exists():
        return
    run = RunFolder.reopen(folder)
    changed = fitting.changed_settings(run, config, pretrained_config)
    pretrained = (run.pretrained or {}).get("path")
    if pretrained is not None:
        same = Path(pretrained).name == _pretrained_folder(out, cell, pretrained_config).name
        if cell.pretrained is not None:
            same = Path(pretrained) == Path(cell.pretrained).resolve()
        changed += [] if same else ["pretrained"]
    if changed:
        raise ConfigError(f"{folder} was made with other settings ({', '.join(changed)}); choose another out, or remove it")
    if not fitting.is_same_data(run, opened):
        raise ConfigError(f"{folder} was made from other data ({run.facts['data']['path']}); choose another out, or remove it")


def _pretrained_folder(out: Path, cell: Cell, pretrained_config: Any) -> Path:
    of = fingerprint(absolute(cell.data), str(cell.target), str(pretrained_config))[:8]
    earlier = out / f"{FORMERLY}-{of}"
    return earlier if earlier.is_dir() else out / f"pretrained-{of}"
