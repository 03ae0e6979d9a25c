"""THINGS-fMRI: 3 people see 8,740 pictures of 720 concepts; responses of single trials as the published tables have them.

    experiment = load("things_fmri")                               # the folder with betas_csv/
    experiment = load("things_fmri?subjects=1,2&voxels=LOC")

The responses are a data frame with a row for each voxel and a column for each trial, read without pandas and in slabs. The test
pictures are the 100 that were shown twelve times. Ceilings are percent in the table, shares of variance here.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.things_fmri.facts import FACTS
from pulvinar.datasets.things_fmri.reader import Options, load
from pulvinar.datasets.things_fmri.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load"]

DATASET = Dataset(
    name="things_fmri",
    facts=FACTS,
    load=load,
    splits=Splits(owners="trial_type: 100 pictures shown 12 times are the test; their concepts are in the training"),
    generated=Generated,
    generate=generator(write_world, target="sub-01"),
)
