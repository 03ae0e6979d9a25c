"""A run as an object: what it found, its table, its masks, its report."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pulvinar.app import evaluate as evaluating
from pulvinar.app import registry
from pulvinar.app.data import Data
from pulvinar.app.memory_limit import within
from pulvinar.app.predict import predicted
from pulvinar.core.config import build, suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.notebook import Shown, card, counted, html_table, listed
from pulvinar.core.places import place_of
from pulvinar.core.storage import to_jsonable
from pulvinar.data.geometry import Geometry
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning.runs import RunFolder
from pulvinar.report import findings, run_folder
from pulvinar.report.brain_maps import image_of
from pulvinar.report.page import topic_page
from pulvinar.report.tables import count
from pulvinar.scores.table import frame_of

if TYPE_CHECKING:
    import pandas as pd


def load(run: "str | os.PathLike[str] | Run") -> "Run":
    """The run in a folder, finished or not, evaluated or not. Nothing is read but its settings and facts.

    run: the folder that `pulvinar fit` or `pulvinar.fit` wrote; a `Run` comes back as it is. Raises `FileError`, which says
    what is missing, where the folder is no run.
    """
    return run if isinstance(run, Run) else Run(Path(place_of("run", run, "the folder of a run")))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `Run.evaluate` found. result: everything that was computed, as evaluation.json has it, with the finding.

    `print` of it gives the table that the command line prints.
    """

    result: Mapping[str, Any]
    read: run_folder.Run

    @property
    def table(self) -> "pd.DataFrame":
        """A row for the run and for each of its controls, columns as in scores.csv."""
        return frame_of(topic_page(self.read).records(self.read))

    @property
    def headline(self) -> str:
        """The score with its interval, the best fair control, chance."""
        return str(self.result["headline"])

    @property
    def cautions(self) -> list[str]:
        """What limits the numbers."""
        return list(self.result["cautions"])

    def __str__(self) -> str:
        return evaluating.evaluation_text(dict(self.result))

    def __repr__(self) -> str:
        more = f"{counted(len(self.cautions), 'caution')} in .cautions; " if self.cautions else ""
        return f"Evaluation: {self.headline}\n  {more}.table has {counted(len(self.read.rows), 'row')}"

    def _repr_html_(self) -> str:
        facts = {"finding": self.headline} | {f"caution {n}": text for n, text in enumerate(self.cautions, 1)}
        return card(f"Evaluation of {self.read.folder.name}", facts) + self.table.to_html(index=False, max_cols=12)


@dataclass(frozen=True, eq=False)
class SubjectMask:
    """Chosen voxels of one subject (voxel,) bool, and where the voxels are."""

    chosen: np.ndarray
    geometry: Geometry


class Masks(Mapping[str, Any]):
    """Subject -> mask, a nibabel image of a volume or a nilearn `SurfaceImage` of a mesh; 1 is chosen, 0 is not.

    what: which voxels are chosen. `voxels(subject)` has them in the order of the responses.
    """

    def __init__(self, masks: Mapping[str, SubjectMask], what: str) -> None:
        self._masks, self.what = dict(masks), what

    def __getitem__(self, subject: str) -> Any:
        mask = self._mask(subject)
        return image_of(mask.geometry, mask.chosen.astype(np.uint8), name=f"{subject}, {self.what}")

    def voxels(self, subject: str) -> np.ndarray:
        """The mask (voxel,) bool, in the order of the voxels that were used."""
        return self._mask(subject).chosen.copy()

    def _mask(self, subject: str) -> SubjectMask:
        if subject not in self._masks:
            raise NotFoundError(f"no mask of '{subject}'{suggest(subject, list(self._masks))}")
        return self._masks[subject]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def _rows(self) -> list[tuple[str, str, str]]:
        return [
            (name, f"{mask.chosen.sum():,} of {counted(mask.geometry.n_voxels, 'voxel')}", mask.geometry.kind)
            for name, mask in self._masks.items()
        ]

    def __repr__(self) -> str:
        shown = listed(f"{name} ({size}, {kind})" for name, size, kind in self._rows())
        return f"Masks of {self.what}: {shown or 'none'}"

    def _repr_html_(self) -> str:
        return html_table(["subject", "voxels", "kind"], self._rows(), caption=f"Masks of {self.what}")


class Run(Shown):
    """A run in its folder. `pulvinar.fit` and `pulvinar.load` give one.

    data: what it was fitted to, where that is in memory; `evaluate` then needs no source.
    """

    def __init__(self, path: Path, *, data: Data | None = None) -> None:
        self.path, self._data = Path(path), data
        self._folder = RunFolder.reopen(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def method(self) -> str:
        """The method that made it."""
        return self._folder.method

    @property
    def finished(self) -> bool:
        """Whether the fit has ended."""
        return RunFolder.reopen(self.path).finished

    @property
    def facts(self) -> dict[str, Any]:
        """The content of run.json, among it data, seconds, selection and cautions."""
        return dict(RunFolder.reopen(self.path).facts)

    @property
    def config(self) -> Any:
        """Every setting, defaults too, as the method's frozen `Config`."""
        return build(registry.method(self.method).config, self._folder.settings(), name=self.method)

    def evaluate(
        self,
        data: Data | str | os.PathLike[str] | None = None,
        *,
        controls: bool = True,
        memory: str | None = None,
        **scoring: Any,
    ) -> Evaluation:
        """Score the run on the outer test images beside its controls, and keep the result in its folder.

        Nothing is trained or chosen on these images; intervals are 95 %. data: where they are now, or the data themselves
        (default: those of the fit). controls: score the controls too. memory: such as "4GB", as in `fit`. scoring: what
        `pulvinar evaluate RUN --settings` lists.
        """
        source = os.fspath(data) if isinstance(data, str | os.PathLike) else self._data if data is None else data
        with within(memory, self.method, ("evaluate",)):
            result = evaluating.evaluate(str(self.path), data=source, controls=controls, assignments=scoring)
        read = run_folder.read(self.path)
        if bool(result.get("changed")) or not result.get("own_images", True):  # it is kept elsewhere in the folder
            read = dataclasses.replace(read, evaluation=to_jsonable(result))
        return Evaluation(result, read)

    def report(self, out: str | os.PathLike[str] | None = None, *, viewer: bool = True) -> Path:
        """Write the HTML page of the run (default: report.html in its folder); where it is.

        viewer: with interactive views of the brain, where its voxels have places.
        """
        return Path(evaluating.report(str(self.path), None if out is None else os.fspath(out), viewer=viewer)["report"])

    def predict(self, images: "str | os.PathLike[str] | np.ndarray | Stimuli") -> dict[str, np.ndarray]:
        """What the run predicts for new images: name -> array with a row per image, and the rows' names under 'id'.

        images: a folder of pictures, uint8 (image, height, width, 3), or `Stimuli` with images.
        """
        return predicted(str(self.path), os.fspath(images) if isinstance(images, os.PathLike) else images)

    @property
    def table(self) -> "pd.DataFrame":
        """The scores: a row for the run and each of its controls, columns as in scores.csv. `InputError` before `evaluate`."""
        read = run_folder.read(self.path)
        if read.evaluation is None:
            raise InputError(f"{self.path}: not evaluated yet; run.evaluate() scores it")
        return frame_of(topic_page(read).records(read))

    @property
    def masks(self) -> Masks:
        """Of a decoding run the kept voxels of the new subject, of an encoding run the significant voxels of every subject."""
        read = run_folder.read(self.path)
        if read.topic == "decoding" and read.maps is not None:
            subject = str((read.facts.get("data") or {}).get("target"))
            return Masks({subject: SubjectMask(read.maps.selected, read.maps.geometry)}, "voxels kept")
        if read.topic == "encoding":
            from pulvinar.encoding.maps import read_all

            if maps := read_all(read):
                masks = {one.subject: SubjectMask(one.significant, one.geometry) for one in maps}
                return Masks(masks, "significant voxels (q below .05)")
            raise InputError(f"{self.path}: not evaluated yet; which voxels are significant is found by run.evaluate()")
        raise InputError(f"{self.path}: a run of {self.method} keeps no mask of voxels")

    def _shown(self) -> tuple[str, dict[str, str]]:
        """A title and a few facts."""
        read = run_folder.read(self.path)
        data, selection = read.facts.get("data") or {}, read.facts.get("selection") or {}
        target = f", new subject {data['target']}" if data.get("target") else ""
        kept = f"{count(selection['n_voxels'])} of {count(selection.get('n_candidates'))} voxels" if selection else ""
        found = findings.headline(read)
        facts = {
            "data": f"{data.get('name')}{target}{', SIMULATED' if read.simulated else ''}",
            "kept": kept if read.evaluation is None else "",
            "found": "" if read.evaluation is None else f"{found.lead}. {found.rest}",
            "cautions": f"{len(findings.cautions(read))}, in the report" if findings.cautions(read) else "",
        }
        status = "finished" if self.finished else str(read.facts.get("status"))
        evaluated = "" if read.evaluation is not None else ", not evaluated"
        return f"Run of {self.method} in {self.path} ({status}{evaluated})", facts
