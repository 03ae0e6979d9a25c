"""What writers of planted worlds in a data set's layout share: settings, the call that plants, what is said afterwards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.storage import write_arrays, write_text
from pulvinar.data.experiment import Experiment
from pulvinar.data.sessions import ShownImages
from pulvinar.data.stimuli import Stimuli

SOURCES, TRUTH = "sources.csv", "truth"  # beside the data set's own files, and unknown to it
Plant = Callable[..., Experiment]  # (shown, **settings): datasets/simulated/'s `simulate`, which no data set may import


@dataclass(frozen=True, kw_only=True)
class PlantedWorld:
    """What world to plant; each layout adds its own numbers of subjects, places and images."""

    seed: int = setting(0, "changes pictures, areas, tuning and noise", at_least=0, below=LARGEST_SEED)
    responsive_share: float = setting(0.5, "share of places that respond to pictures", above=0, below=1)
    ceiling_median: float = setting(
        0.5, "median r^2 noise ceiling of responsive places, were there three trials", above=0, below=1
    )
    image_size: int = setting(64, "pixels along an edge of a picture", at_least=16)

    def planted(self, plant: Plant, shown: ShownImages, *, n_voxels: int, n_test_images: int) -> Experiment:
        """The world whose subjects see `shown`, with `n_voxels` places each; numbers below `n_test_images` are test images."""
        return plant(
            shown,
            seed=self.seed,
            n_subjects=len(shown),
            n_voxels=n_voxels,
            n_test_images=n_test_images,
            image_size=self.image_size,
            responsive_share=self.responsive_share,
            irrelevant_share=0.03,
            ceiling_median=self.ceiling_median,
        )


def write_sources(folder: Path, stimuli: Stimuli, names: Mapping[str, str]) -> None:
    """`sources.csv`: which photograph a picture was cut from. names: stimulus id of the world -> its name in the data set."""
    lines = [f"{names[name]},{source}" for name, source in zip(stimuli.ids, stimuli.sources, strict=True)]
    write_text(folder / SOURCES, "\n".join(["id,source", *lines]) + "\n")


def write_embeddings(folder: Path, stimuli: Stimuli, names: Mapping[str, str]) -> None:
    """`features/NAME.npz` of each embedding of the world, with the pictures' names in the data set beside the rows."""
    ids = np.array([names[name] for name in stimuli.ids])
    for name, values in stimuli.features.items():
        write_arrays(folder / "features" / f"{name}.npz", **{name: np.asarray(values, np.float32), "id": ids})


def write_truth(folder: Path, subject: str, truth: Mapping[str, np.ndarray]) -> None:
    """`truth/SUBJECT.npz`: the answers, in the order in which the data set lists its voxels."""
    write_arrays(folder / TRUTH / f"{subject}.npz", **truth)


def generator(
    write_world: Callable[[Path, Any, Plant], Experiment], *, target: str
) -> Callable[[str, Any, Plant], dict[str, Any]]:
    """`Dataset.generate` of a layout: what `write_world` writes, and the name of its new subject in the files."""

    def generate(out: str, config: Any, plant: Plant) -> dict[str, Any]:
        experiment = write_world(Path(out), config, plant)
        return {"folder": str(out), "name": experiment.name, "target": target}

    return generate
