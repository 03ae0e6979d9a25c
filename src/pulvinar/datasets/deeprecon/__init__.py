"""Deeprecon: 3 people see GOD's 1,250 pictures again and again, and artificial shapes; samples of cortex in BData files.

    experiment = load("deeprecon")                        # the folder with sub-01_... to sub-03_... .h5
    experiment = load("deeprecon?subjects=1,3&voxels=LVC&form=fmriprep")

A file is of one kind of session: training (1,200 pictures, 5 times each) or test (50 pictures, 24 times each); `split=ood`
tests on artificial shapes or letters instead, from a file that `artificial` names. Original files say what a sample shows by a
number (`stimulus_id`), those of fMRIPrep by a name (`stimulus_name`, `vmap`), and call V4 `hV4`.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.deeprecon.facts import FACTS
from pulvinar.datasets.deeprecon.reader import Options, load
from pulvinar.datasets.deeprecon.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load"]

DATASET = Dataset(
    name="deeprecon",
    facts=FACTS,
    load=load,
    splits=Splits(
        owners="the sessions of training and of test pictures",
        named={"ood": "artificial shapes or letters, from the file that artificial=FILE names"},
    ),
    generated=Generated,
    generate=generator(write_world, target="sub-01"),
)
