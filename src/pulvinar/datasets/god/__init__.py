"""Generic Object Decoding: 5 people see 1,250 pictures of ImageNet; samples of visual cortex in BData files (.h5, .mat).

    experiment = load("god")                                       # the folder with Subject1.h5 ... Subject5.h5
    experiment = load("god?subjects=1,3&voxels=LVC")

A sample's picture is its stimulus_id, a number whose six decimals are the picture of a synset. The test is DataType 2, 50
pictures shown 35 times, whose categories are not in the training; samples of imagery (DataType 3) are left out.
"""

from pulvinar.data.dataset import Dataset
from pulvinar.data.planted_layout import generator
from pulvinar.data.split_choice import Splits
from pulvinar.datasets.god.facts import FACTS
from pulvinar.datasets.god.reader import Options, load
from pulvinar.datasets.god.writer import Generated, write_world

__all__ = ["DATASET", "Generated", "Options", "load"]

DATASET = Dataset(
    name="god",
    facts=FACTS,
    load=load,
    splits=Splits(owners="DataType: 1 the training, 2 the test, of other categories"),
    generated=Generated,
    generate=generator(write_world, target="Subject1"),
)
