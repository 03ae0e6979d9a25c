"""Planted cortex: several subjects who see real photographs, with known responsive voxels. The embedded default.

Stimuli are crops of the photographs that ship inside scikit-image and scikit-learn (or of a folder of your own); training
and test crops come from different pictures. What is planted, per subject:

- A head: a superellipsoid of its own proportions in a grid, `n_voxels` places.
- Areas of responsive voxels, each a contiguous core and voxels scattered around it. Early areas follow oriented energy and
  colour, late ones a fixed random network that is *not* the one that gives the decoder's target. Neighbours in a core are
  tuned alike. `driver=perturbed:NAME` has two areas instead, 'early' and 'higher', that follow stages of a perturbed copy of a
  network (networks/perturbed.py), so that tuning that network has something to find; each has a loose ROI of its name.
- Reliable but irrelevant blobs: a response that repeats with the stimulus, but is drawn at random for each stimulus.
- Noise: partly smooth in space, partly autocorrelated over trials, partly shared by the whole head.
- A loose 'annotated' ROI: the areas grown outward; it misses scattered voxels and takes many silent ones.

The noise ceiling of a responsive voxel is for the mean of three repeats, as in NSD: s / (s + (1 - s) / 3), s the signal's
share of single-trial variance. The truth travels in `Experiment.truth`.
"""

import numpy as np

from pulvinar.core.progress import track
from pulvinar.data.dataset import Dataset
from pulvinar.data.experiment import Experiment
from pulvinar.data.sessions import ShownImages
from pulvinar.data.splits import Split
from pulvinar.datasets.simulated.settings import Config
from pulvinar.datasets.simulated.shown import area_features, plan_stimuli, shown_stimuli
from pulvinar.datasets.simulated.subject import plant_subject

__all__ = ["DATASET", "Config", "plant_subject", "simulate"]


def simulate(config: Config | None = None, *, shown: ShownImages | None = None) -> Experiment:
    """Plant a world. The same settings give the same world, bit for bit, on the same machine.

    shown: per subject, the images of each session (session, image numbers), where it is not the world's own plan: numbers
    below `config.n_test_images` are test images, all others training images; n_trials and n_pretraining_trials are then unused.
    """
    config = config or Config()
    rng = np.random.default_rng([config.seed, 0x9D1])
    plan = plan_stimuli(config, rng, shown)
    stimuli, areas = shown_stimuli(config, plan), area_features(config, plan, 0)
    subjects, truth = {}, {}
    for number in track(range(config.n_subjects), "planting subjects", config.n_subjects):
        name = f"subj{number + 1:02d}"
        own = np.random.default_rng([config.seed, 0xB0D, number])
        if number and config.driver_own:
            areas = area_features(config, plan, number)
        subjects[name], truth[name] = plant_subject(config, name, plan.trials[number], stimuli.ids, areas, own)
    train = tuple(stimuli.ids[int(row)] for row in np.flatnonzero(~plan.is_test))
    test = tuple(stimuli.ids[int(row)] for row in np.flatnonzero(plan.is_test))
    return Experiment(
        name=f"simulated cortex (seed {config.seed})",
        stimuli=stimuli,
        subjects=subjects,
        split=Split(train=train, test=test),
        target=list(subjects)[-1],
        truth=truth,
        facts={"citation": "pulvinar, planted world", "licence": "stimuli: crops of pictures bundled with scikit-image, "
               "scikit-learn (see their data READMEs), or your own"},
    )  # fmt: skip


DATASET = Dataset(name="simulated")
