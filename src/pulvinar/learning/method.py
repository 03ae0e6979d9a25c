"""What a method is: its settings, the data it is fitted to, and its functions. Files of methods/ have one or several."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.experiment import Experiment
from pulvinar.data.image_set import ImageSet
from pulvinar.learning.runs import RunFolder

Kind = Literal["experiment", "images", "dissimilarities"]
Data = Experiment | ImageSet | Dissimilarities


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, as the command line and Python use it. What it cannot do is None.

    prepare(config, data): everything that can be wrong with settings and data, raised before anything is written; what a fit
    needs of the data, read once. join(config, prepared, pretrained), of methods that read another run: what comes of both
    (pretrained is None where none is read). fit(config, prepared, run) trains on what they gave.

    evaluate(run, data, config, controls=…) scores a finished run and writes evaluation.json; table(evaluation) is its text.
    predict(run, stimuli, config): arrays with a row per image. phases(config, data, shape): what a fit needs, for --dry-run.
    """

    name: str
    config: type[Any]
    needs: tuple[str, ...]
    prepare: Callable[[Any, Any], Any]
    fit: Callable[[Any, Any, RunFolder], None]
    summary: str = ""  # what it does in a line, of a method that shares its file; else the file's first line says it
    data: Kind = "experiment"
    topic: str = "decoding"  # which page the report of a run is (report/page.py)
    published: list[dict[str, Any]] = field(default_factory=list)  # what the papers report
    pretrained: str | None = None  # the method whose run this one reads; trained inside the run where none is given
    join: Callable[[Any, Any, RunFolder | None], Any] | None = None
    reads_pretrained: Callable[[Any], bool] = lambda config: True  # whether these settings have one
    of_pretrained: tuple[str, ...] = ()  # settings that a finished pretrained run has already made up
    scoring: tuple[str, ...] = ()  # settings that an evaluation may have otherwise than the fit
    scored_by: Any = None  # of methods that are scored on any images: ScoreSettings, if not said otherwise
    on_several_devices: bool = False  # whether its fit knows what to do where several processes train one network
    keeps_memory: tuple[str, ...] = ()  # "fit", "evaluate": what of it stays below `--memory` (`core/memory.py`)
    evaluate: Callable[..., dict[str, Any]] | None = None
    table: Callable[[dict[str, Any]], str] | None = None
    predict: Callable[..., dict[str, Any]] | None = None
    phases: Callable[..., list[Any]] | None = None

    def ready(self, config: Any, data: Any, pretrained: RunFolder | None = None) -> Any:
        """What `fit` takes."""
        prepared = self.prepare(config, data)
        return prepared if self.join is None else self.join(config, prepared, pretrained)

    def train(self, config: Any, data: Any, run: RunFolder, pretrained: RunFolder | None = None) -> None:
        """Prepare and fit."""
        self.fit(config, self.ready(config, data, pretrained), run)
