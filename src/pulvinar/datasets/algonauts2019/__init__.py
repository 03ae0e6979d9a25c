"""Algonauts 2019: fMRI (EVC, IT) and MEG (early, late) RDMs of 15 people over 92, 118 and 78 images; scorer, submission files.

    data = load("algonauts/Training_Data/92_Image_Set")      # or any folder or file that holds one set
    score({"evc": rdm, "it": rdm}, data)                     # as the challenge scores, with both ceilings
    write_submission("submission", {"evc": rdm, "it": rdm})  # submit_fmri.mat and .zip; read_submission reads them
    generate("world", seed=3)                                # a folder of the same layout whose answer is known

Per set the distributed folder holds `92images.mat` (struct array `visual_stimuli` with `names`, `pixels`), the same images
as .jpg in `92images/`, `target_fmri.mat` (EVC_RDMs, IT_RDMs) and `target_meg.mat` (MEG_RDMs_early, MEG_RDMs_late). The
targets are MATLAB 7.3; version 5 and .npz under the same names, and any subset of the four, are read as well.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.datasets.algonauts2019.facts import FACTS
from pulvinar.datasets.algonauts2019.reader import (
    CEILINGS,
    LOWER_CEILINGS,
    inspect,
    load,
    load_all,
    load_truth,
    score,
)
from pulvinar.datasets.algonauts2019.submission import read_submission, write_submission
from pulvinar.datasets.algonauts2019.writer import Config, generate, stage_features

__all__ = [
    "CEILINGS",
    "DATASET",
    "LOWER_CEILINGS",
    "Config",
    "generate",
    "inspect",
    "load",
    "load_all",
    "load_truth",
    "read_submission",
    "score",
    "stage_features",
    "write_submission",
]

DATASET = Dataset(
    name="algonauts2019",
    facts=FACTS,
    load=load,
    inspect=inspect,
    generated=Config,
    generate=lambda out, config, plant: generate(out, config),
)
